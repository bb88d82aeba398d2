"""Regulation settled: what a site kept ready, how it followed the signal, and what the outside pays for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.contracts import Contracts, RegulationTerms
from gateway.control.orders_in_force import DispatchInForce, OrdersInForce, RegulationInForce
from gateway.regulation_energy import RegulationEnergy
from gateway.settlement.ledger import opened
from gateway.settlement.regulation import IntervalRegulation, regulation_entry, regulation_from_journal
from gateway.settlement.statement import settle
from tests.settlement.journal import BEGIN_S, energy, interval, write
from tests.settlement.test_settle_command import CONTRACTS, told
from tests.settlement.test_settle_command import state as state

BASE_W, UP_W, DOWN_W = 10e3, 6e3, 3e3
LATER_S = float(BEGIN_S + 86_400)


def orders(signal: float | None, order_id: str = "d1", received_s: float = 0.0) -> OrdersInForce:
    dispatch = DispatchInForce("dso", order_id, BASE_W, 0.0, None, UP_W, DOWN_W, None)
    regulation = None if signal is None else RegulationInForce("dso", 1, signal, received_s, 10.0)
    return OrdersInForce(dispatch=dispatch, regulation=regulation)


def recorded(signal: Callable[[int], float | None], net_w: Callable[[int], float | None]) -> dict[str, Any]:
    record = RegulationEnergy()
    for second in range(301):
        record.take(BEGIN_S + second, net_w(second), orders(signal(second), received_s=second), float(second))
    found = record.told()
    assert found is not None
    return found


def terms(**changes: Any) -> RegulationTerms:
    values = {
        "id": "afrr",
        "capacity_per_kwh": 0.04,
        "begin": datetime.fromtimestamp(BEGIN_S, UTC),
        "end": datetime.fromtimestamp(BEGIN_S + 86_400, UTC),
    }
    return RegulationTerms.model_validate(values | changes)


def test_a_signal_that_is_followed_is_missed_by_nothing() -> None:
    found = recorded(lambda _: 0.5, lambda _: BASE_W - 0.5 * UP_W)
    assert found == {
        "up_wh": 500.0, "down_wh": 250.0, "asked_wh": 250.0, "missed_wh": 0.0, "moved_w": 0.0, "reserved_s": 300.0,
    }  # fmt: skip


def test_down_is_asked_of_the_capacity_down_and_half_of_it_is_missed() -> None:
    found = recorded(lambda _: -1.0, lambda _: BASE_W + 0.5 * DOWN_W)
    assert (found["asked_wh"], found["missed_wh"]) == (250.0, 125.0)


def test_what_is_not_measured_is_missed() -> None:
    found = recorded(lambda _: 1.0, lambda second: None if second > 150 else BASE_W - UP_W)
    assert (found["asked_wh"], found["missed_wh"]) == (500.0, 250.0)


def test_movement_is_what_the_signal_moved() -> None:
    found = recorded(lambda second: 1.0 if second // 4 % 2 else 0.0, lambda _: BASE_W)
    assert found["moved_w"] == 75 * UP_W


def test_both_sides_are_averaged_over_ten_seconds() -> None:
    """The response is two seconds late: within each stretch of ten the sums are equal."""

    def late(second: int) -> float:
        return BASE_W - UP_W * (0.5 + 0.5 * ((second - 2) // 5 % 2))

    found = recorded(lambda second: 0.5 + 0.5 * (second // 5 % 2), late)
    assert found["missed_wh"] == pytest.approx(0.0, abs=1e-6)


def test_what_holds_is_split_where_the_stretches_meet_and_a_long_gap_is_not_counted() -> None:
    record = RegulationEnergy()
    for at_s in (4.0, 13.0, 100.0, 101.0):
        record.take(BEGIN_S + at_s, BASE_W - UP_W, orders(1.0, received_s=at_s), at_s)
    found = record.told()
    assert found is not None
    assert (found["reserved_s"], found["missed_wh"]) == (10.0, 0.0)
    assert found["asked_wh"] == pytest.approx(UP_W * 10 / 3600, abs=1e-3)


def test_a_signal_that_is_lost_asks_for_nothing_and_none_reserves_nothing() -> None:
    record = RegulationEnergy()
    for second in range(301):
        record.take(BEGIN_S + second, BASE_W, orders(1.0, received_s=0.0), 100.0)
    found = record.told()
    assert found is not None
    assert found["asked_wh"] == 0.0
    idle = RegulationEnergy()
    for second in range(20):
        idle.take(BEGIN_S + second, BASE_W, OrdersInForce(), float(second))
    assert idle.told() is None


def test_a_stretch_in_which_the_dispatch_changes_is_not_compared() -> None:
    record = RegulationEnergy()
    for second in range(31):
        name = "d1" if second <= 15 else "d2"
        record.take(BEGIN_S + second, BASE_W, orders(1.0, name, float(second)), float(second))
    found = record.told()
    assert found is not None
    assert found["asked_wh"] == pytest.approx(UP_W * 20 / 3600, abs=1e-3)
    assert found["moved_w"] == 0.0


@pytest.mark.parametrize(
    ("changes", "amount"),
    [
        ({}, 24_000),
        ({"performance": "none"}, 30_000),
        ({"mileage_per_kw": 0.001}, 24_000 + 8_000),
        ({"least_precision": 0.9}, 0),
        ({"performance": "none", "least_precision": 0.9}, 0),
    ],
)
def test_capacity_and_movement_are_paid_by_precision(changes: dict[str, Any], amount: int) -> None:
    one = IntervalRegulation(BEGIN_S, 500_000, 250_000, 10_000_000, 250_000, 50_000, 300_000)
    entry = regulation_entry(one, terms(**changes))
    assert one.precision_micro == 800_000
    assert [(posting.account, posting.amount_micro) for posting in entry.postings] == [
        ("surplus:regulation", amount), ("outside", -amount),
    ]  # fmt: skip


def test_capacity_that_was_not_asked_for_is_paid_in_full() -> None:
    assert IntervalRegulation(BEGIN_S, 1, 1, 0, 0, 77, 300_000).precision_micro == 1_000_000


magnitudes = st.integers(0, 10**13)


@given(magnitudes, magnitudes, magnitudes, magnitudes, magnitudes, st.floats(0, 1e6), st.floats(0, 1e6))
def test_every_entry_sums_to_zero_and_nobody_pays_for_being_ready(
    up: int, down: int, moved: int, asked: int, missed: int, capacity: float, mileage: float
) -> None:
    one = IntervalRegulation(BEGIN_S, up, down, moved, asked, missed, 300_000)
    entry = regulation_entry(one, terms(capacity_per_kwh=capacity, mileage_per_kw=mileage))
    full = regulation_entry(one, terms(capacity_per_kwh=capacity, mileage_per_kw=mileage, performance="none"))
    assert entry.balanced
    assert 0 <= entry.postings[0].amount_micro <= full.postings[0].amount_micro


def test_what_two_processes_saw_is_added_and_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    part = {"up_wh": 100.0, "down_wh": 0.0, "asked_wh": 10.0, "missed_wh": 1.0, "moved_w": 5000.0, "reserved_s": 100.0}
    broken = [
        part | {"up_wh": -1.0},
        part | {"moved_w": "many"},
        part | {"reserved_s": True},
        "none",
        part | {"asked_wh": float("nan")},
    ]
    entries = [interval(0, energy(1.0)) | {"regulation": one} for one in (part, part)]
    entries += [interval(at, energy(1.0)) | {"regulation": one} for at, one in enumerate(broken, start=1)]
    write(tmp_path, *entries)
    assert regulation_from_journal(tmp_path) == [
        IntervalRegulation(BEGIN_S, 200_000, 0, 10_000_000, 20_000, 2_000, 200_000)
    ]


def test_the_same_again_changes_nothing_and_an_agreement_that_is_gone_is_reversed() -> None:
    one = IntervalRegulation(BEGIN_S, 500_000, 250_000, 0, 250_000, 50_000, 300_000)
    window = BEGIN_S, BEGIN_S + 600
    with opened(":memory:") as ledger:
        first = settle(ledger, (), (), (), window, LATER_S, [one], [terms()])
        again = settle(ledger, (), (), (), window, LATER_S, (), [terms()])
        dearer = settle(ledger, (), (), (), window, LATER_S, (), [terms(capacity_per_kwh=0.08)])
        gone = settle(ledger, (), (), (), window, LATER_S)
    assert (first.posted, again.posted, dearer.posted, gone.posted) == ((1, 0, 0), (0, 0, 1), (1, 1, 0), (0, 1, 0))
    assert first.accounts["surplus:regulation"].amount_micro == 24_000
    assert dearer.accounts["surplus:regulation"].amount_micro == 48_000
    assert gone.accounts["surplus:regulation"].amount_micro == 0
    assert {made.sum_micro for made in (first, again, dearer, gone)} == {(0, 0)}


def test_a_ledger_of_the_first_version_is_taken_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with opened(path):
        pass
    db = sqlite3.connect(path)
    db.executescript("DROP TABLE regulation; PRAGMA user_version = 1;")
    db.close()
    one = IntervalRegulation(BEGIN_S, 1, 2, 3, 4, 5, 6)
    with opened(path) as ledger, ledger.change():
        ledger.take((), (), [one])
        assert ledger.regulation(BEGIN_S, BEGIN_S + 300) == [one]


def test_the_command_settles_what_the_file_agrees(state: Path, tmp_path: Path) -> None:
    kept = {"up_wh": 500.0, "down_wh": 250.0, "asked_wh": 250.0, "missed_wh": 50.0, "moved_w": 0.0, "reserved_s": 300.0}
    write(state, interval(0, energy(1000.0)) | {"regulation": kept})
    path = tmp_path / "agreed.yaml"
    agreed = (
        "regulation:\n  - {id: afrr, capacity_per_kwh: 0.04, begin: 2027-01-01T00:00:00Z, end: 2028-01-01T00:00:00Z}\n"
    )
    path.write_text(CONTRACTS.format(seller="battery_a", reference="local") + agreed, encoding="utf-8")
    found = told(state, "--contracts", path)
    assert found["accounts"]["surplus:regulation"] == {"energy_kwh": "0.000000", "amount": "0.024000"}
    assert found["surplus"]["regulation"] == "0.024000"
    assert found["sum"] == {"energy_kwh": "0.000000", "amount": "0.000000"}


def test_terms_that_end_before_they_begin_or_are_there_twice_are_refused() -> None:
    one = terms()
    with pytest.raises(ValidationError, match="'afrr' is there twice"):
        Contracts(site="demo", contracts=(), regulation=(one, one))
    with pytest.raises(ValidationError, match="is not before `end`"):
        terms(begin=one.end, end=one.begin)
