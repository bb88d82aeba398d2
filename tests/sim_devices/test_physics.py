"""One bus, one meter: sums, voltage, surroundings, real devices, and the same story by the same seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from config.site import Site
from config.twin import GridTwin
from sim_devices.endpoints import twin_kinds
from sim_devices.models import BatteryModel, InverterModel
from sim_devices.physics import SitePhysics, voltage_behind_grid
from sim_devices.series import Series, SeriesError, load_series


def physics_of(site: Site, **options: Any) -> SitePhysics:
    return SitePhysics(site, twin_kinds(site, options.pop("names", None)), **options)


def run(physics: SitePhysics, seconds: float) -> None:
    for _ in range(round(seconds / physics.step_s)):
        physics.step()


def quiet(site_file: dict[str, Any], **load: Any) -> Site:
    """The site without disturbances and with a constant load."""
    site_file["simulation"] |= {"load_steps": None, "clouds": None, "load": {"series": None, **load}}
    return Site.model_validate(site_file)


def test_the_meter_shows_the_sum_of_everything_at_every_step(site: Site) -> None:
    physics = physics_of(site)
    battery = physics.devices["battery"]
    assert isinstance(battery, BatteryModel)
    battery.set_power(-20_000.0, None, 0.0)
    for _ in range(500):
        physics.step()
        total_w = physics.load_w + sum(device.power_w for device in physics.devices.values())
        assert physics.net_w == pytest.approx(total_w)
        assert physics.meters["meter"].power_w == pytest.approx(total_w)
        assert physics.meters["meter"].valid
    assert physics.devices["charger_a"].power_w > 20_000.0
    assert battery.power_w == pytest.approx(-20_000.0, abs=200.0)


def test_a_june_noon_has_sun_and_a_commercial_load(site: Site) -> None:
    physics = physics_of(site)
    run(physics, 0.1)
    assert -40_000.0 < physics.devices["pv"].power_w < -10_000.0
    assert 15_000.0 < physics.load_w < 50_000.0


def test_an_injected_load_step_is_at_the_meter_in_the_next_step(site_file: dict[str, Any]) -> None:
    physics = physics_of(quiet(site_file, constant_w=10_000.0))
    run(physics, 0.1)
    before_w = physics.net_w
    physics.inject_load_step(7_000.0)
    physics.step()
    assert physics.net_w - before_w == pytest.approx(7_000.0, abs=100.0)
    physics.inject_load_step(-7_000.0)
    physics.step()
    assert physics.load_w == 10_000.0


def test_import_lowers_the_voltage_and_export_raises_it(site_file: dict[str, Any]) -> None:
    importing = physics_of(quiet(site_file, constant_w=80_000.0), names=["meter"])
    exporting = physics_of(quiet(site_file, constant_w=-80_000.0), names=["meter"])
    run(importing, 0.1)
    run(exporting, 0.1)
    assert 220.0 < importing.voltage_v_by_phase[0] < 228.0
    assert 232.0 < exporting.voltage_v_by_phase[0] < 240.0


def test_the_voltage_solves_the_circuit() -> None:
    grid = GridTwin(resistance_ohm=0.1, reactance_ohm=0.2)
    voltage_v = 230.0
    for _ in range(50):
        voltage_v = voltage_behind_grid(grid, 20_000.0, voltage_v)
    current_a = 20_000.0 / voltage_v
    assert abs(complex(voltage_v + current_a * 0.1, current_a * 0.2)) == pytest.approx(230.0)
    assert voltage_behind_grid(grid, 1e9, 230.0) == 115.0


def test_a_real_devices_power_is_summed_and_its_silence_makes_the_meter_invalid(site_file: dict[str, Any]) -> None:
    physics = physics_of(quiet(site_file, constant_w=1_000.0), names=["meter"], real=["battery", "charger_b"])
    meter = physics.meters["meter"]
    physics.step()
    assert not meter.valid
    physics.set_real_power("battery", -5_000.0, physics.now_s)
    physics.step()
    assert not meter.valid, "one of two real devices has not been heard of"
    physics.set_real_power("charger_b", 6_900.0, physics.now_s)
    physics.step()
    assert meter.valid
    assert meter.power_w == pytest.approx(2_900.0)
    run(physics, 0.95)
    assert meter.valid
    run(physics, 0.1)
    assert not meter.valid
    physics.set_real_power("battery", float("nan"), physics.now_s)
    physics.set_real_power("charger_b", 0.0, physics.now_s)
    physics.step()
    assert not meter.valid, "a power that is not a number is no power"
    with pytest.raises(KeyError):
        physics.set_real_power("pv", 0.0, 0.0)


def test_a_single_phase_connection_carries_its_load_on_phase_one(site_file: dict[str, Any]) -> None:
    site_file["connection"]["phases"] = 1
    physics = physics_of(quiet(site_file, constant_w=2_300.0), names=["meter"])
    physics.step()
    assert physics.meters["meter"].power_w_by_phase == (2_300.0, 0.0, 0.0)


def test_clouds_shade_and_go_within_their_depth(site_file: dict[str, Any]) -> None:
    site_file["simulation"]["clouds"] = {"mean_interval_s": 5.0, "depth": 0.6, "ramp_s": 1.0, "mean_duration_s": 2.0}
    site_file["devices"]["pv"]["twin"] = {}
    physics = physics_of(Site.model_validate(site_file))
    pv = physics.devices["pv"]
    assert isinstance(pv, InverterModel)
    seen = []
    for _ in range(6_000):
        physics.step()
        seen.append(pv.available_pu)
    assert max(seen) == 1.0
    assert 0.39 < min(seen) < 0.85
    steepest = max(abs(b - a) for a, b in pairwise(seen))
    assert steepest <= 0.6 * 1.5 * physics.step_s + 1e-9, "a cubic ramp is half again as steep as a straight one"


STORY = """
import sys, json
from config.site import Site
from sim_devices.endpoints import twin_kinds
from sim_devices.physics import SitePhysics
site = Site.model_validate(json.load(sys.stdin))
physics = SitePhysics(site, twin_kinds(site, None))
for _ in range(3000):
    physics.step()
print(repr((physics.net_w, physics.load_w, physics.voltage_v_by_phase, physics.devices["battery"].power_w)))
"""


def test_the_same_seed_tells_the_same_story_under_any_hash_seed(site_file: dict[str, Any]) -> None:
    def story(seed: int, hash_seed: str) -> str:
        site_file["simulation"]["seed"] = seed
        done = subprocess.run(
            [sys.executable, "-c", STORY],
            input=json.dumps(site_file),
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert story(3, "1") == story(3, "2") != story(4, "1")


def test_physics_costs_a_small_share_of_a_core(site: Site) -> None:
    physics = physics_of(site)
    run(physics, 1.0)
    begin = time.process_time()
    run(physics, 10.0)
    assert time.process_time() - begin < 1.0, "ten seconds of physics may take a second: a tenth of a core"


def test_an_instant_or_column_the_series_lacks_is_named(site_file: dict[str, Any]) -> None:
    site_file["simulation"]["start"] = datetime(2016, 3, 1)
    with pytest.raises(SeriesError, match="outside the series, which has 2016-01-11"):
        physics_of(Site.model_validate(site_file))
    site_file["simulation"]["start"] = datetime(2016, 6, 8, 11)
    site_file["devices"]["pv"]["twin"]["series"] = "PV9"
    with pytest.raises(SeriesError, match=r"no column 'PV9'; it has .*PV1"):
        physics_of(Site.model_validate(site_file))


def test_the_series_interpolates_and_begins_its_block_again() -> None:
    times = [datetime(2016, 1, 1, 0, minute) for minute in (0, 15, 30)] + [datetime(2016, 6, 1, 0, m) for m in (0, 15)]
    series = Series(times, {"a": [0.0, 1.0, 0.5, 7.0, 9.0]})
    start_s = series.position(datetime(2016, 1, 1, 0, 15))
    column = series.column("a")
    assert series.value(column, start_s, 0.0) == 1.0
    assert series.value(column, start_s, 450.0) == 0.75
    assert series.value(column, start_s, 900.0 + 450.0) == 0.25, "from the last value back to the first"
    assert series.value(column, start_s, 1800.0) == 0.0
    assert series.value(column, series.position(datetime(2016, 6, 1)), 450.0) == 8.0


def test_the_shipped_series_is_two_weeks_per_unit() -> None:
    series = load_series()
    assert {"G1-A", "PV1", "PV3"} <= set(series.columns)
    for name in series.columns:
        column = series.column(name)
        assert len(column) == 2 * 7 * 96
        assert min(column) >= 0.0
        assert max(column) <= 1.0


@pytest.mark.parametrize(
    "text", ["", "time,a\n", "time,a\n2016-01-01T00:00:00,x\n2016-01-01T00:15:00,1\n", "a\n1\n2\n"]
)
def test_a_file_that_is_no_series_is_named(tmp_path: Any, text: str) -> None:
    path = tmp_path / "series.csv"
    path.write_text(text)
    with pytest.raises(SeriesError):
        load_series(path)
    with pytest.raises(SeriesError, match="No such file"):
        load_series(tmp_path / "absent.csv")
