"""A site runs in lockstep, its journal is settled, and the physics of the run says whether that is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settlement.ledger import FILE_NAME, opened
from gateway.settlement.readings import INTERVAL_S, from_journal
from gateway.settlement.regulation import regulation_from_journal
from gateway.settlement.statement import settle
from sim_devices.dso.script import Script
from tests.bench.lockstep.conftest import Lockstep
from tests.settlement.test_regulation import terms


def test_what_a_run_settles_is_what_its_physics_moved(tmp_path: Path) -> None:
    lockstep = Lockstep(tmp_path / "out")
    lockstep.change(lambda site: site["simulation"].update(acceleration=1.0, clouds=None))
    lockstep.change(lambda site: site["control"].update(period_ms=1000, stale_after_s=3.0, setpoint_life_s=4.0))
    lockstep.run(INTERVAL_S + 20.0)
    readings, prices = from_journal(lockstep.out)
    entries = lockstep.journal("interval")
    whole = next(entry for entry in entries if entry["connection"]["known_s"] >= 290.0)
    begin_s = whole["begin_s"]
    with opened(lockstep.out / FILE_NAME) as ledger:
        window = begin_s, begin_s + INTERVAL_S
        made = settle(ledger, (), readings, prices, window, begin_s + 9 * INTERVAL_S)
    assert made.intervals == 1
    assert made.estimated == ()
    assert made.sum_micro == (0, 0)

    start_s = lockstep.site.simulation.start.timestamp()
    rows = lockstep.physics()
    first_s = rows[0]["monotonic_s"]
    offset_s = begin_s - start_s
    within = [row for row in rows if offset_s <= row["monotonic_s"] - first_s < offset_s + INTERVAL_S]
    accounts = {"outside": "net_w", "resource:battery_a": "battery_a_w", "resource:pv": "pv_w"}
    for account, column in accounts.items():
        moved_kwh = sum(row[column] for row in within) / len(within) * INTERVAL_S / 3.6e6
        sign = -1.0 if account == "outside" else 1.0
        assert sign * made.accounts[account].energy_micro / 1e6 == pytest.approx(moved_kwh, rel=0.02, abs=0.005)


REGULATED = {
    "phases": [{"name": "regulated", "start": 0.0}],
    "orders": [
        {"name": "authority", "at": 0.0, "authority": {}},
        {
            "name": "reserve",
            "at": 0.02,
            "dispatch": {"net_power_pu": 0.0, "regulation_up_pu": 0.15, "regulation_down_pu": 0.10},
        },
    ],
    "regulation": [{"name": "signal", "at": 0.1, "until": 0.98, "first_row": 193, "interval_s": 4.0}],
}


def test_regulation_that_a_run_followed_is_recorded_and_settled(tmp_path: Path) -> None:
    lockstep = Lockstep(tmp_path / "out")
    lockstep.change(lambda site: site["simulation"].update(acceleration=1.0, clouds=None, load_steps=None))
    lockstep.run(60.0, script=Script.model_validate(REGULATED), period_ms=200)
    (one,) = regulation_from_journal(lockstep.out)
    hours = one.reserved_ms / 3.6e6
    assert one.reserved_ms > 50_000
    assert one.up_micro == pytest.approx(15.0 * hours * 1e6, rel=0.01)
    assert one.down_micro == pytest.approx(10.0 * hours * 1e6, rel=0.01)
    assert one.asked_micro > 0
    assert one.moved_micro > 0
    assert one.precision_micro > 900_000
    begin_s = one.begin_s
    agreed = terms(begin="2016-01-01T00:00:00Z", end="2017-01-01T00:00:00Z")
    with opened(lockstep.out / FILE_NAME) as ledger:
        window = begin_s, begin_s + INTERVAL_S
        made = settle(ledger, (), (), (), window, begin_s + 2 * INTERVAL_S, [one], [agreed])
    assert made.sum_micro == (0, 0)
    paid = made.accounts["surplus:regulation"].amount_micro
    assert 0 < paid <= round(0.04 * (one.up_micro + one.down_micro))
    assert made.accounts["outside"].amount_micro == -paid
