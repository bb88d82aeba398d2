"""Warm things: a heat pump with its store and its least times, and a battery whose cells heat up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.site import Site
from config.twin import BatteryTemperature, DeviceTwin, HeatPumpTwin
from sim_devices.battery_temperature import CellTemperature
from sim_devices.control_port import ControlPort
from sim_devices.endpoints import twin_kinds
from sim_devices.heat_pump import HeatPumpModel, HeatPumpOrder
from sim_devices.models import BatteryModel
from sim_devices.physics import SitePhysics

BOTH_STEPS = pytest.mark.parametrize("step_s", [0.01, 0.1])


def advance(model: HeatPumpModel | BatteryModel, seconds: float, step_s: float = 1.0) -> None:
    for _ in range(round(seconds / step_s)):
        model.step(step_s, 0.0)


def pump(**settings: float) -> HeatPumpModel:
    return HeatPumpModel("pump", HeatPumpTwin(**settings))


def test_the_thermostat_runs_it_between_its_two_temperatures() -> None:
    # 3 kW x 3.5 less 4 kW of demand: 6.5 kW into 580 Wh/K, 10 K take 3212 s; then 4 kW out of it, 5220 s.
    model = pump(store_c=40.0)
    advance(model, 3_200.0)
    assert model.running
    assert model.power_w == 3_000.0
    assert model.store_c == pytest.approx(49.96, abs=0.01)
    advance(model, 30.0)
    assert not model.running
    advance(model, 5_200.0)
    assert not model.running
    advance(model, 60.0)
    assert model.running
    assert model.starts == 2


def test_a_block_waits_for_the_least_run_time_and_a_release_for_the_least_pause() -> None:
    model = pump(store_c=39.0, minimum_run_s=600.0, minimum_pause_s=300.0)
    advance(model, 100.0)
    model.set_order(HeatPumpOrder.BLOCKED)
    advance(model, 499.0)
    assert model.running, "it has to run for ten minutes"
    advance(model, 2.0)
    assert model.power_w == 0.0
    model.set_order(HeatPumpOrder.NORMAL)
    advance(model, 290.0)
    assert not model.running, "it has to stand for five minutes, cold as the store is"
    advance(model, 15.0)
    assert model.running


def test_a_block_ends_by_itself_after_two_hours() -> None:
    model = pump(store_c=41.0)
    model.set_order(HeatPumpOrder.BLOCKED)
    advance(model, 7_200.0)
    assert not model.running
    assert model.store_c < 30.0
    advance(model, 2.0)
    assert model.running


def test_surplus_stores_five_kelvin_more() -> None:
    model = pump(store_c=44.0)
    advance(model, 10.0)
    assert not model.running, "44 is inside 40 to 50"
    model.set_order(HeatPumpOrder.RAISED)
    advance(model, 10.0)
    assert model.running, "and below 45"
    while model.running:
        advance(model, 1.0)
    assert model.store_c == pytest.approx(55.0, abs=0.01)


@BOTH_STEPS
def test_the_store_is_the_same_at_either_step(step_s: float) -> None:
    model = pump(store_c=39.0)
    advance(model, 120.0, step_s)
    assert model.store_c == pytest.approx(39.0 + 6_500.0 * 120.0 / 3_600.0 / 580.0, abs=1e-6)


def test_without_a_grid_it_stands_and_waits_out_its_pause() -> None:
    model = pump(store_c=39.0, minimum_pause_s=60.0)
    advance(model, 5.0)
    model.energized = False
    advance(model, 1.0)
    assert model.power_w == 0.0
    model.energized = True
    advance(model, 30.0)
    assert not model.running
    advance(model, 40.0)
    assert model.running


def test_a_sites_heat_pump_is_part_of_its_load_and_hears_the_control_port(site_file: dict[str, Any]) -> None:
    site_file["simulation"] |= {
        "load_steps": None,
        "clouds": None,
        "step_ms": 100,
        "load": {"series": None, "constant_w": 1_000.0, "heat_pump": {"store_c": 39.0, "minimum_run_s": 5.0}},
    }
    site = Site.model_validate(site_file)
    physics = SitePhysics(site, twin_kinds(site, ["meter"]))
    port = ControlPort(physics, lambda: physics.now_s)
    physics.step()
    assert physics.load_w == 4_000.0
    assert physics.meters["meter"].power_w_by_phase == pytest.approx((4_000.0 / 3,) * 3)
    assert port.answer(json.dumps({"heat_pump": "off"}).encode()) == {
        "error": "heat_pump: expected blocked, normal, raised"
    }
    assert port.answer(json.dumps({"heat_pump": "blocked"}).encode()) is None
    for _ in range(60):
        physics.step()
    assert physics.load_w == 1_000.0
    state = port.answer(b'{"state": true}')
    assert state is not None
    assert state["heat_pump"]["order"] == "blocked"


def test_cells_warm_up_by_their_losses_and_settle() -> None:
    # 300 W of losses at 15 W/K: 20 K above the surroundings; time constant 30 Wh/K / 15 W/K = 2 h.
    cells = CellTemperature(BatteryTemperature(ambient_c=20.0))
    for _ in range(7_200):
        cells.step(300.0, 1.0)
    assert cells.temperature_c == pytest.approx(20.0 + 20.0 * (1 - 0.36788), abs=0.01)
    for _ in range(10 * 7_200):
        cells.step(300.0, 1.0)
    assert cells.temperature_c == pytest.approx(40.0, abs=0.01)


@pytest.mark.parametrize(
    ("now_c", "charge_pu", "discharge_pu"),
    [
        (-5.0, 0.0, 1.0),
        (0.0, 0.0, 1.0),
        (2.5, 0.5, 1.0),
        (25.0, 1.0, 1.0),
        (45.0, 1.0, 1.0),
        (50.0, 0.5, 0.5),
        (60, 0, 0),
    ],
)
def test_cold_derates_charging_and_heat_derates_both(now_c: float, charge_pu: float, discharge_pu: float) -> None:
    cells = CellTemperature(BatteryTemperature(start_c=float(now_c)))
    assert cells.charge_pu == pytest.approx(charge_pu)
    assert cells.discharge_pu == pytest.approx(discharge_pu)


@BOTH_STEPS
def test_a_cold_battery_gives_and_does_not_take(step_s: float) -> None:
    twin = DeviceTwin(temperature=BatteryTemperature(ambient_c=-5.0), tr90_s=0.1)
    model = BatteryModel("battery", 10_000.0, twin, capacity_wh=50_000.0)
    model.set_power(5_000.0, None, 0.0)
    advance(model, 1.0, step_s)
    assert model.power_w == 0.0
    assert model.max_charge_w == 0.0
    model.set_power(-5_000.0, None, 1.0)
    advance(model, 1.0, step_s)
    assert model.power_w == pytest.approx(-5_000.0, rel=0.01)
    # 5 kW out at 0.97 are 155 W of heat; one second of it on 108 kJ/K, and as much again comes from outside as 0.
    assert model.temperature_c == pytest.approx(-5.0 + 155.0 / 108_000.0, abs=3e-4)


def test_a_battery_without_a_temperature_stays_cool() -> None:
    model = BatteryModel("battery", 10_000.0, DeviceTwin(), capacity_wh=50_000.0)
    model.set_power(10_000.0, None, 0.0)
    advance(model, 100.0)
    assert model.temperature_c is None
    assert model.max_charge_w == 10_000.0
