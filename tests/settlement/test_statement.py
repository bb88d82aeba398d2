"""A site settled: what each account takes and receives, estimates and their corrections, and that nothing is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.contracts import Contract
from gateway.settlement.accounting import Entry, Posting, worth_micro
from gateway.settlement.ledger import Ledger, LedgerError, opened
from gateway.settlement.readings import Grade, IntervalPrice, Reading
from gateway.settlement.statement import Statement, decimal, settle
from tests.settlement.journal import BEGIN_S

DAY_S = 86_400
LATER_S = float(BEGIN_S + 30 * DAY_S)


def reading(at: int, meter: str, net_wh: float, known_s: float = 300.0, grade: Grade = Grade.MEASURED) -> Reading:
    energy = round(net_wh * 1000)
    return Reading(BEGIN_S + 300 * at, meter, max(energy, 0), max(-energy, 0), round(known_s * 1000), grade, "power")


def price(
    at: int, local: float = 0.25, bound_s: float = 0.0, imported: float = 0.30, exported: float = 0.10
) -> IntervalPrice:
    money = (round(one * 1e6) for one in (local, imported, exported))
    return IntervalPrice(BEGIN_S + 300 * at, *money, round(bound_s * 1000), 300_000)


def contract(**changes: Any) -> Contract:
    values = {
        "id": "c1",
        "buyer": "rest",
        "seller": "battery",
        "power_w": 12_000.0,
        "strike_per_kwh": 0.20,
        "begin": datetime.fromtimestamp(BEGIN_S, UTC),
        "end": datetime.fromtimestamp(BEGIN_S + DAY_S, UTC),
    }
    return Contract.model_validate(values | changes)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with opened(":memory:") as made:
        yield made


def settled(
    ledger: Ledger,
    readings: Iterable[Reading] = (),
    prices: Iterable[IntervalPrice] = (),
    contracts: Iterable[Contract] = (),
    until: int = 288,
) -> Statement:
    return settle(ledger, contracts, readings, prices, (BEGIN_S, BEGIN_S + 300 * until), LATER_S)


def amounts(statement: Statement) -> dict[str, str]:
    return {name: decimal(one.amount_micro) for name, one in statement.accounts.items()}


def test_everybody_pays_the_local_price_and_the_outside_gets_its_own(ledger: Ledger) -> None:
    readings = [reading(0, "connection", 1000.0), reading(0, "battery", -500.0), reading(0, "pv", -1000.0)]
    made = settled(ledger, readings, [price(0, local=0.32)])
    assert amounts(made) == {
        "outside": "0.300000",
        "resource:battery": "0.160000",
        "resource:pv": "0.320000",
        "rest": "-0.800000",
        "surplus:congestion": "0.000000",
        "surplus:interchange": "0.020000",
    }
    assert made.accounts["rest"].energy_micro == 2_500_000
    assert made.accounts["outside"].energy_micro == -1_000_000
    assert made.sum_micro == (0, 0)


def test_the_surplus_of_the_time_in_which_a_limit_pressed_is_congestion(ledger: Ledger) -> None:
    made = settled(ledger, [reading(0, "connection", 1000.0)], [price(0, local=0.40, bound_s=75.0)])
    assert amounts(made)["surplus:congestion"] == "0.025000"
    assert amounts(made)["surplus:interchange"] == "0.075000"


def test_prices_below_zero_turn_the_money_round(ledger: Ledger) -> None:
    made = settled(ledger, [reading(0, "connection", -1000.0)], [price(0, -0.05, 0.0, -0.02, -0.05)])
    assert amounts(made)["rest"] == "-0.050000"
    assert amounts(made)["outside"] == "0.050000"


def test_the_same_again_changes_nothing(ledger: Ledger) -> None:
    data = [reading(at, "connection", 100.0 * at) for at in range(5)], [price(at) for at in range(5)]
    assert settled(ledger, *data, [contract()]).posted == (10, 0, 0)
    assert settled(ledger, *data, [contract()]).posted == (0, 0, 10)
    assert settled(ledger, (), (), [contract()]).posted == (0, 0, 10)


def test_a_contract_moves_the_difference_and_nothing_else(ledger: Ledger) -> None:
    data = [reading(0, "connection", 1000.0), reading(0, "battery", -2000.0)], [price(0, 0.25)]
    without = settled(ledger, *data)
    made = settled(ledger, contracts=[contract()])
    assert made.accounts["rest"].amount_micro - without.accounts["rest"].amount_micro == 50_000
    assert made.accounts["resource:battery"].amount_micro - without.accounts["resource:battery"].amount_micro == -50_000
    energies = {name: one.energy_micro for name, one in made.accounts.items()}
    assert energies == {name: one.energy_micro for name, one in without.accounts.items()}


def test_a_contract_hedges_its_buyer_whatever_the_price() -> None:
    for local in (-0.10, 0.05, 0.20, 0.90):
        with opened(":memory:") as ledger:
            made = settled(ledger, [reading(0, "connection", 1000.0)], [price(0, local)], [contract()])
            assert amounts(made)["rest"] == "-0.200000"


def test_a_contract_across_layers_comes_to_the_same_in_both_ledgers() -> None:
    ours = contract(seller="layer:north", reference="outside")
    theirs = contract(buyer="layer:south", seller="pv", reference="outside")
    found = []
    for one, local in ((ours, 0.22), (theirs, 0.41)):
        with opened(":memory:") as ledger:
            found.append(amounts(settled(ledger, [reading(0, "connection", 0.0)], [price(0, local)], [one])))
    assert found[0]["layer:north"] == "-0.100000"
    assert found[1]["layer:south"] == "0.100000"


def test_a_contract_holds_in_its_time_alone_and_goes_when_it_is_struck_out(ledger: Ledger) -> None:
    short = contract(end=datetime.fromtimestamp(BEGIN_S + 600, UTC))
    data = [reading(at, "connection", 0.0) for at in range(4)], [price(at) for at in range(4)]
    made = settled(ledger, *data, [short])
    assert [line.begin_s - BEGIN_S for line in made.lines if line.subject == "contract:c1"] == [0, 0, 300, 300]
    made = settled(ledger)
    assert made.posted.reversed == 2
    assert amounts(made)["rest"] == "0.000000"
    assert made.sum_micro == (0, 0)


def test_a_reading_of_half_an_interval_is_scaled_and_marked(ledger: Ledger) -> None:
    half = [reading(0, "connection", 500.0), reading(0, "battery", 100.0, 150.0, Grade.PARTIAL)]
    made = settled(ledger, half, [price(0)])
    assert made.estimated == (BEGIN_S,)
    assert made.accounts["resource:battery"].energy_micro == 200_000


def test_a_missing_reading_is_the_one_before_and_is_corrected_by_a_reversal(ledger: Ledger) -> None:
    known = [reading(at, "connection", 500.0) for at in range(3)]
    battery = [reading(0, "battery", -300.0), reading(1, "battery", -5.0, 20.0, Grade.PARTIAL)]
    battery.append(reading(2, "battery", -100.0))
    made = settled(ledger, known + battery, [price(at) for at in range(3)])
    assert made.estimated == (BEGIN_S + 300,)
    assert made.accounts["resource:battery"].energy_micro == -700_000
    made = settled(ledger, [reading(1, "battery", -200.0, grade=Grade.CORRECTED)])
    assert made.posted == (1, 1, 2)
    assert made.estimated == ()
    assert made.accounts["resource:battery"].energy_micro == -600_000
    reversal = [line for line in made.lines if line.reverses is not None]
    assert {line.begin_s for line in reversal} == {BEGIN_S + 300}
    assert {line.note for line in reversal} == {"reversal"}


def test_an_outage_is_estimated_for_a_day_and_then_left_unsettled(ledger: Ledger) -> None:
    ends = [0, 289 + 12]
    data = [reading(at, "connection", 500.0) for at in ends], [price(at) for at in ends]
    made = settled(ledger, *data, until=400)
    assert len(made.unsettled) == 12
    assert made.intervals == 290
    assert len(made.estimated) == 288


def test_measured_data_is_never_replaced_by_less(ledger: Ledger) -> None:
    settled(ledger, [reading(0, "connection", 500.0)], [price(0)])
    worse = [reading(0, "connection", 1.0, 3.0, Grade.PARTIAL)]
    made = settled(ledger, worse, [price(0, 0.9)._replace(known_ms=3_000)])
    assert made.posted == (0, 0, 1)


def test_a_device_that_comes_later_changes_no_interval_before(ledger: Ledger) -> None:
    settled(ledger, [reading(0, "connection", 500.0)], [price(0)])
    new = [reading(1, "connection", 500.0), reading(1, "charger", 300.0)]
    assert settled(ledger, new, [price(1)]).posted == (1, 0, 1)


def test_an_interval_that_has_not_ended_waits(ledger: Ledger) -> None:
    data = [reading(at, "connection", 500.0) for at in range(3)], [price(at) for at in range(3)]
    made = settle(ledger, (), *data, (BEGIN_S, BEGIN_S + DAY_S), BEGIN_S + 899.0)
    assert made.intervals == 2


def test_nothing_known_is_nothing_settled(ledger: Ledger) -> None:
    made = settled(ledger)
    assert (made.intervals, made.accounts, made.sum_micro) == (0, {}, (0, 0))
    assert settled(ledger, [reading(0, "battery", 5.0)], [price(0)]).unsettled == (BEGIN_S,)


def test_the_ledger_refuses_what_does_not_balance_and_keeps_nothing_of_the_run(ledger: Ledger) -> None:
    good = Entry(BEGIN_S, "energy", False, "", (Posting("a", 5, 5), Posting("b", -5, -5)))
    bad = Entry(BEGIN_S + 300, "energy", False, "", (Posting("a", 5, 5), Posting("b", -5, -4)))
    with pytest.raises(LedgerError, match="sum to zero"), ledger.change():
        ledger.post([good, bad], BEGIN_S, BEGIN_S + 600, "now")
    assert ledger.lines(BEGIN_S, BEGIN_S + 600) == []


def test_what_stands_in_the_ledger_stays(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with opened(path) as ledger:
        settled(ledger, [reading(0, "connection", 500.0)], [price(0)])
    for change in ("UPDATE postings SET amount_micro = 0", "DELETE FROM postings", "DELETE FROM entries"):
        db = sqlite3.connect(path)
        try:
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                db.execute(change)
        finally:
            db.close()


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    text, foreign, newer = tmp_path / "text", tmp_path / "foreign", tmp_path / "newer"
    text.write_text("not a database, though it is long enough to be looked at " * 20, encoding="utf-8")
    for path, sql in ((foreign, "CREATE TABLE a (b)"), (newer, "PRAGMA user_version = 99")):
        db = sqlite3.connect(path)
        db.execute(sql)
        db.commit()
        db.close()
    for path in (text, foreign, newer, tmp_path / "no" / "folder"):
        with pytest.raises(LedgerError, match=path.name), opened(path):
            pass


@given(st.integers(-(10**12), 10**12), st.integers(-(10**15), 10**15))
def test_worth_rounds_alike_in_both_directions(price_micro: int, energy_micro: int) -> None:
    worth = worth_micro(price_micro, energy_micro)
    assert worth == -worth_micro(-price_micro, energy_micro) == -worth_micro(price_micro, -energy_micro)
    assert abs(worth * 1_000_000 - price_micro * energy_micro) <= 500_000


METERS = ("connection", "battery", "pv", "charger")
GRADED = [(0.0, Grade.PARTIAL), (149.9, Grade.PARTIAL), (150.0, Grade.PARTIAL), (299.0, Grade.MEASURED)]
READINGS = st.builds(
    lambda at, meter, net_wh, graded: reading(at, meter, net_wh, *graded),
    st.integers(0, 8),
    st.sampled_from(METERS),
    st.floats(-1e6, 1e6),
    st.sampled_from([*GRADED, (300.0, Grade.CORRECTED)]),
)
PRICES = st.builds(
    price, st.integers(0, 8), st.floats(-1e3, 1e3), st.floats(0, 400), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)
)
CONTRACTS = st.builds(
    contract,
    id=st.sampled_from(["c1", "c2"]),
    buyer=st.sampled_from(["rest", "charger", "layer:north"]),
    seller=st.sampled_from(["battery", "pv"]),
    power_w=st.floats(1.0, 1e6),
    strike_per_kwh=st.floats(-10.0, 10.0),
    reference=st.just("outside"),
    begin=st.sampled_from([datetime.fromtimestamp(BEGIN_S + 300 * at, UTC) for at in range(3)]),
)
RUNS = st.lists(
    st.tuples(
        st.lists(READINGS, max_size=12),
        st.lists(PRICES, max_size=6),
        st.lists(CONTRACTS, max_size=2, unique_by=lambda one: one.id),
        st.integers(1, 12),
    ),
    min_size=1,
    max_size=5,
)


@given(RUNS)
@settings(deadline=None, max_examples=60)
def test_any_sequence_of_intervals_contracts_and_corrections_sums_to_zero(runs: list[Any]) -> None:
    """And leaves what the last state of all data says, as if it had been settled once."""
    with opened(":memory:") as ledger, opened(":memory:") as once:
        for readings, prices, contracts, until in runs:
            made = settled(ledger, readings, prices, contracts, until)
            assert made.sum_micro == (0, 0)
            again = settled(ledger, (), (), contracts, until)
            assert again.posted.posted == again.posted.reversed == 0
            assert again.accounts == made.accounts
            with once.change():
                once.take(readings, prices)
        whole = settled(ledger, (), (), runs[-1][2])
        fresh = settled(once, (), (), runs[-1][2])
        by_subject = {(entry.begin_s, entry.subject): sorted(entry.postings) for entry in once.standing(0, 2**40)}
        assert {(e.begin_s, e.subject): sorted(e.postings) for e in ledger.standing(0, 2**40)} == by_subject
        assert whole.sum_micro == fresh.sum_micro == (0, 0)
        for line_sum in _sums_by_entry(whole).values():
            assert line_sum == (0, 0)


def _sums_by_entry(statement: Statement) -> dict[int, tuple[int, int]]:
    sums: dict[int, tuple[int, int]] = {}
    for line in statement.lines:
        energy, amount = sums.get(line.entry_id, (0, 0))
        sums[line.entry_id] = energy + line.posting.energy_micro, amount + line.posting.amount_micro
    return sums
