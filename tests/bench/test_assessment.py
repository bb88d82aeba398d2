"""How orders were met, judged from recorded power; every run is small enough to work out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.site import Site
from config.vocabulary import DeviceKind, Quantity
from gateway.bench.assessment import Assessment, assess, quantities
from gateway.bench.reports.report import make_report
from gateway.bench.run_files import Physics, read_run

STEP_S = 0.01


def utc(at_s: float) -> str:
    return (datetime(2026, 6, 8, 9, tzinfo=UTC) + timedelta(seconds=at_s)).isoformat()


@pytest.fixture
def judge(tmp_path: Path, demo_site: Site) -> Callable[..., Assessment]:
    """Judges 20 s of net power, given as a function of time, against messages sent at their times."""

    def run(net_w: Callable[[float], float], *sent: tuple[float, str, Mapping[str, Any]], **more: Any) -> Assessment:
        times = [index * STEP_S for index in range(2000)]
        rows = "".join(f"{at_s:.3f},{net_w(at_s):.1f},{net_w(at_s):.1f},230\n" for at_s in times)
        (tmp_path / "physics.csv").write_text("monotonic_s,net_w,load_w,voltage_v\n" + rows)
        beats = [(float(second), "heartbeat", {"sequence": second}) for second in range(20)]
        lines = [
            {"event": "sent", "monotonic_s": at_s, "kind": kind, "message": {"issued_at": utc(at_s), **message}}
            for at_s, kind, message in sorted((*beats, *sent), key=lambda item: item[0])
        ]
        (tmp_path / "dso.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        journal = [{"event": "ready", "monotonic_s": more.get("ready_s", 0.0)}]
        (tmp_path / "gateway.jsonl").write_text("".join(json.dumps(line) + "\n" for line in journal))
        return assess(read_run(tmp_path), demo_site)

    return run


def limit(value: float, **more: Any) -> dict[str, Any]:
    return {"id": "lim", "quantity": "net_import_w", "value": value, **more}


def dispatch(power_w: float, **more: Any) -> dict[str, Any]:
    return {"id": "dis", "epoch": 1, "net_power_w": power_w, **more}


Judge = Callable[..., Assessment]


def test_a_limit_reached_after_800_ms_is_settled_then_and_exceeded_for_300_ms(judge: Judge) -> None:
    # 20 kW until 5.8 s, then 9.5 kW. Band: 10 kW + 1 kW. The excursion counts from 5.5 s, 10 kW beyond, for 0.3 s.
    found = judge(lambda at_s: 20e3 if at_s < 5.795 else 9.5e3, (5.0, "limits", limit(10e3)))
    (verdict,) = found.verdicts
    assert verdict.settled_s == pytest.approx(0.8, abs=0.011)
    assert verdict.steady_error_pct == 0.0
    (excursion,) = found.excursions[Quantity.NET_IMPORT_W]
    assert excursion.start_s == pytest.approx(5.5)
    assert excursion.duration_s == pytest.approx(0.3, abs=0.011)
    assert excursion.energy_wh == pytest.approx(10e3 * 0.3 / 3600, rel=0.05)
    figures = make_report(found).excursions
    assert (figures.count, figures.longest_s) == (1, pytest.approx(0.3, abs=0.011))


def test_power_that_hangs_above_a_limit_by_half_a_percent_is_settled_with_that_error(judge: Judge) -> None:
    found = judge(lambda at_s: 10.5e3, (5.0, "limits", limit(10e3)))
    assert found.verdicts[0].settled_s == 0.0
    assert found.verdicts[0].steady_error_pct == pytest.approx(0.5)
    assert found.excursions[Quantity.NET_IMPORT_W] == []


def test_a_limit_that_is_never_kept_is_named_as_such(judge: Judge) -> None:
    found = judge(lambda at_s: 20e3, (5.0, "limits", limit(10e3)))
    assert (found.verdicts[0].settled_s, found.verdicts[0].never_settled) == (None, True)
    assert found.excursions[Quantity.NET_IMPORT_W][0].duration_s == pytest.approx(14.49, abs=0.02)


def test_the_error_of_a_limit_counts_only_until_it_ends(judge: Judge) -> None:
    found = judge(lambda at_s: 9e3 if at_s < 10 else 60e3, (5.0, "limits", limit(10e3, duration_s=5.0)))
    assert found.verdicts[0].steady_error_pct == pytest.approx(0.0, abs=1e-6)


def test_nobody_controls_the_site_before_the_first_setpoint(judge: Judge) -> None:
    found = judge(lambda at_s: 60e3 if at_s < 3 else 0.0, (0.5, "limits", limit(10e3)), ready_s=3.0)
    assert found.excursions[Quantity.NET_IMPORT_W] == []


def test_a_dispatch_is_judged_by_its_distance_from_the_target_on_both_sides(judge: Judge) -> None:
    # First order towards -20 kW from 0 with 1 s: within 1 kW after ln(20) = 2.996 s.
    found = judge(lambda at_s: -20e3 * (1 - math.exp(-max(at_s - 5.0, 0.0))), (5.0, "dispatch", dispatch(-20e3)))
    (verdict,) = found.verdicts
    assert verdict.settled_s == pytest.approx(2.996, abs=0.011)
    # Mean of 20 kW e^-t from 2.996 s to 15 s: 1 kW (1 - e^-12) / 12.
    assert verdict.steady_error_pct == pytest.approx(1.0 / 12.0, rel=0.01)


def test_a_dispatch_beyond_a_limit_is_judged_at_the_limit(judge: Judge) -> None:
    found = judge(
        lambda at_s: 10e3, (3.0, "limits", limit(10e3)), (5.0, "dispatch", dispatch(30e3)), (9.0, "heartbeat", {})
    )
    assert found.verdicts[1].settled_s == 0.0
    assert found.verdicts[1].steady_error_pct == pytest.approx(0.0)


def test_each_signal_is_judged_against_base_less_signal_times_capacity(judge: Judge) -> None:
    signals = [(10.0, {"epoch": 1, "sequence": 1, "signal": 0.5}), (12.0, {"epoch": 1, "sequence": 2, "signal": -1.0})]
    # Base 0; 0.5 of 8 kW up is -4 kW, -1 of 6 kW down is +6 kW; the second is reached 0.4 s late and 0.3 kW off.
    found = judge(
        lambda at_s: 0.0 if at_s < 10 else -4e3 if at_s < 12.395 else 6.3e3,
        (5.0, "dispatch", dispatch(0.0, regulation_up_w=8e3, regulation_down_w=6e3)),
        *((at_s, "regulation", message) for at_s, message in signals),
    )
    base, first, second = found.verdicts
    assert (base.settled_s, base.steady_error_pct) == (0.0, 0.0)
    assert (first.settled_s, first.steady_error_pct) == (0.0, pytest.approx(0.0))
    assert second.settled_s == pytest.approx(0.4, abs=0.011)
    assert second.steady_error_pct == pytest.approx(0.3)


def test_silence_brings_the_fallback_into_what_is_judged(tmp_path: Path, judge: Judge, demo_site: Site) -> None:
    judge(lambda at_s: 30e3)
    lines = (tmp_path / "dso.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "dso.jsonl").write_text("".join(lines[:6]))  # last heartbeat at 5 s; the fallback from 8 s
    found = assess(read_run(tmp_path), demo_site)
    (excursion,) = found.excursions[Quantity.NET_IMPORT_W]
    assert excursion.start_s == pytest.approx(8.5)


def test_quantities_are_summed_from_the_devices() -> None:
    columns = {"net_w": [-6e3], "load_w": [10e3], "pv_w": [-30e3], "bat_w": [5e3], "car_w": [9e3]}
    kinds = {"pv": DeviceKind.INVERTER, "bat": DeviceKind.BATTERY, "car": DeviceKind.CHARGER}
    found = quantities(Physics([0.0], columns), kinds)
    assert {quantity: list(values) for quantity, values in found.items()} == {
        Quantity.NET_IMPORT_W: [-6e3],
        Quantity.NET_EXPORT_W: [6e3],
        Quantity.GENERATION_W: [30e3],
        Quantity.LOAD_W: [24e3],
        Quantity.CONTROLLABLE_LOAD_W: [14e3],
    }
