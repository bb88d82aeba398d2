"""The grid moves: steps and ramps of voltage and frequency, the breaker, phases, reactive power at the connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from config.site import Site
from config.twin import GridTwin
from config.vocabulary import ChargingState
from sim_devices.control_port import ControlPort
from sim_devices.endpoints import twin_kinds
from sim_devices.grid_model import GridModel, voltage_behind_grid
from sim_devices.models import BatteryModel, ChargerModel, InverterModel, ServiceState
from sim_devices.physics import SitePhysics

QUICK_RETURN = {"enter_service": {"delay_s": 5.0, "ramp_s": 10.0}}


def made(site_file: dict[str, Any], *, step_ms: int = 10, **simulation: Any) -> SitePhysics:
    """The site in full sun with a load of 9 kW, without disturbances."""
    quiet = {"load_steps": None, "clouds": None, "load": {"series": None, "constant_w": 9_000.0}}
    site_file["simulation"] |= {**quiet, "acceleration": 1.0, "step_ms": step_ms, **simulation}
    site_file["devices"]["pv"]["twin"] = {"grid_functions": QUICK_RETURN}
    site_file["devices"]["battery"]["twin"] = {"grid_functions": QUICK_RETURN}
    site = Site.model_validate(site_file)
    return SitePhysics(site, twin_kinds(site, None))


def without_cars(site_file: dict[str, Any]) -> None:
    """A car takes current, so its power would move with the voltage."""
    for name in ("charger_a", "charger_c"):
        site_file["devices"][name]["twin"] = {}


def run(physics: SitePhysics, seconds: float) -> None:
    for _ in range(round(seconds / physics.step_s)):
        physics.step()


def tell(physics: SitePhysics, line: dict[str, Any]) -> dict[str, Any] | None:
    """What the control port says to a line."""
    return ControlPort(physics, lambda: physics.now_s).answer(json.dumps(line).encode())


@pytest.mark.parametrize("step_ms", [10, 100])
def test_the_timeline_of_the_file_steps_and_ramps_voltage_and_frequency(
    site_file: dict[str, Any], step_ms: int
) -> None:
    events = [
        {"at_s": 1.0, "voltage_v": 240.0},
        {"at_s": 2.0, "voltage_v": [220.0, 230.0, 250.0], "ramp_s": 4.0},
        {"at_s": 3.0, "frequency_hz": 49.0, "ramp_s": 10.0},
    ]
    physics = made(site_file, step_ms=step_ms, grid={"events": events})
    run(physics, 0.9)
    assert physics.grid.source_v_by_phase == (230.0,) * 3
    run(physics, 0.1)
    assert physics.grid.source_v_by_phase == (240.0,) * 3
    run(physics, 3.0)
    assert physics.grid.source_v_by_phase == pytest.approx((230.0, 235.0, 245.0)), "half of the ramp"
    assert physics.meters["meter"].frequency_hz == pytest.approx(49.9)
    run(physics, 12.0)
    assert physics.grid.source_v_by_phase == (220.0, 230.0, 250.0)
    assert physics.devices["battery"].frequency_hz == 49.0
    low, _, high = physics.meters["meter"].voltage_v_by_phase
    assert high - low == pytest.approx(30.0, abs=1.0)


def test_an_order_from_outside_ends_a_ramp_under_way(site_file: dict[str, Any]) -> None:
    physics = made(site_file)
    assert tell(physics, {"grid": {"voltage_v": 250.0, "frequency_hz": 51.0, "ramp_s": 10.0}}) is None
    run(physics, 5.0)
    assert physics.grid.source_v_by_phase == pytest.approx((240.0,) * 3)
    tell(physics, {"grid": {"voltage_v": 230.0}})
    assert physics.grid.source_v_by_phase == (230.0,) * 3
    run(physics, 5.0)
    assert physics.grid.source_v_by_phase == (230.0,) * 3
    assert physics.grid.frequency_hz == 51.0, "the other ramp went on"


def test_an_open_breaker_stops_everything_in_the_next_step(site_file: dict[str, Any]) -> None:
    physics = made(site_file)
    battery, charger, pv = (physics.devices[name] for name in ("battery", "charger_a", "pv"))
    assert isinstance(battery, BatteryModel)
    assert isinstance(charger, ChargerModel)
    assert isinstance(pv, InverterModel)
    battery.set_power(20_000.0, None, physics.now_s)
    run(physics, 5.0)
    assert charger.state.value == "C"
    assert tell(physics, {"breaker": "open"}) is None
    physics.step()
    assert {device.power_w for device in physics.devices.values()} == {0.0}
    assert charger.state is ChargingState.E
    assert pv.service is battery.service is ServiceState.OUT
    assert (physics.net_w, physics.load_w) == (0.0, 0.0)
    meter = physics.meters["meter"]
    assert (meter.power_w, meter.frequency_hz) == (0.0, 0.0)
    assert meter.voltage_v_by_phase == meter.current_a_by_phase == (0.0, 0.0, 0.0)
    assert meter.valid, "it has a supply of its own"
    imported_wh = meter.energy_import_wh
    run(physics, 10.0)
    assert meter.energy_import_wh == imported_wh


def test_after_the_grid_returns_cars_wake_and_inverters_wait_and_ramp(site_file: dict[str, Any]) -> None:
    events = [{"at_s": 5.0, "breaker": "open"}, {"at_s": 20.0, "breaker": "closed"}]
    physics = made(site_file, grid={"events": events})
    run(physics, 12.0)
    assert physics.net_w == 0.0
    run(physics, 9.5)
    assert physics.devices["charger_a"].power_w > 20_000.0
    assert physics.devices["pv"].power_w == 0.0
    assert physics.meters["meter"].voltage_v_by_phase[0] > 220.0
    assert physics.load_w == 9_000.0
    run(physics, 8.5)  # five seconds of good grid, then half of the ramp of ten
    pv = physics.devices["pv"]
    assert isinstance(pv, InverterModel)
    assert pv.power_w == pytest.approx(-0.5 * 60_000.0, rel=0.05)
    run(physics, 6.0)
    assert pv.service is ServiceState.IN_SERVICE


def test_frequency_droop_is_seen_at_the_connection(site_file: dict[str, Any]) -> None:
    without_cars(site_file)
    physics = made(site_file)
    run(physics, 5.0)
    before_w = physics.net_w
    tell(physics, {"grid": {"frequency_hz": 50.2}})
    run(physics, 30.0)
    # 6.56 % of what is rated 60, 50 and 30 kW behind inverters
    assert physics.net_w - before_w == pytest.approx(0.0656 * 140_000.0, rel=0.01)
    tell(physics, {"grid": {"frequency_hz": 50.0}})
    run(physics, 30.0)
    assert physics.net_w == pytest.approx(before_w, rel=1e-3)


def test_volt_var_lowers_the_voltage_that_generation_raised(site_file: dict[str, Any]) -> None:
    # 0.3 + 0.3j ohm per phase and 17 kW fed in on each: about 250 V without reactive power.
    without_cars(site_file)
    weak = {"resistance_ohm": 0.3, "reactance_ohm": 0.3}
    plain = made(site_file, grid=weak)
    run(plain, 60.0)
    site_file["devices"]["pv"]["twin"] = {"grid_functions": {"volt_var": {}}}
    site = Site.model_validate(site_file)
    helped = SitePhysics(site, twin_kinds(site, None))
    run(helped, 60.0)
    assert helped.devices["pv"].reactive_var > 10_000.0
    assert sum(helped.meters["meter"].reactive_var_by_phase) == pytest.approx(helped.devices["pv"].reactive_var)
    assert plain.voltage_v_by_phase[0] - helped.voltage_v_by_phase[0] > 4.0


def test_the_voltage_solves_the_circuit_with_reactive_power_too() -> None:
    grid = GridTwin(resistance_ohm=0.1, reactance_ohm=0.2)
    voltage_v = 230.0
    for _ in range(50):
        voltage_v = voltage_behind_grid(grid, -6_000.0, voltage_v, 4_000.0, 240.0)
    # With the terminal voltage real, an absorbing current lags: I = (P - jQ) / V.
    current_a = complex(-6_000.0, -4_000.0) / voltage_v
    assert abs(voltage_v + current_a * complex(0.1, 0.2)) == pytest.approx(240.0)


def test_loads_by_phase(site_file: dict[str, Any]) -> None:
    load = {"series": None, "constant_w": 10_000.0, "shares_by_phase": [0.5, 0.3, 0.2]}
    physics = made(site_file, load=load)
    assert tell(physics, {"load_step_w": [0.0, 2_000.0, -500.0]}) is None
    site = Site.model_validate(site_file)
    alone = SitePhysics(site, twin_kinds(site, ["meter"]))
    alone.inject_load_step([0.0, 2_000.0, -500.0])
    run(alone, 0.1)
    assert alone.meters["meter"].power_w_by_phase == pytest.approx((5_000.0, 5_000.0, 1_500.0))
    assert alone.load_w == pytest.approx(11_500.0)
    one, two, three = alone.voltage_v_by_phase
    assert one == pytest.approx(two)
    assert three > one + 0.5
    alone.inject_load_step([0.0, -2_000.0, 500.0])
    alone.step()
    assert alone.load_w == pytest.approx(10_000.0)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"breaker": "ajar"}, "breaker: expected open or closed"),
        ({"breaker": ["open"]}, "breaker: expected open or closed"),
        ({"grid": {"voltage_v": [230.0, 230.0]}}, "grid: expected an object of frequency_hz, voltage_v above 0"),
        ({"grid": {"voltage_v": [230.0, 0.0, 230.0]}}, "grid: expected an object of frequency_hz, voltage_v above 0"),
        ({"grid": {"ramp_s": -1.0}}, "grid: ramp_s: not a time"),
        ({"load_step_w": [1.0, 2.0]}, "load_step_w: not a number of watts, or three"),
        ({"heat_pump": "raised"}, "heat_pump: the site's load has none"),
    ],
)
def test_what_cannot_be_used_changes_nothing(site_file: dict[str, Any], line: dict[str, Any], why: str) -> None:
    physics = made(site_file)
    assert tell(physics, {"breaker": "open", **line} if "breaker" not in line else line) == {"error": why}
    assert physics.grid.energized
    assert physics.grid.source_v_by_phase == (230.0,) * 3


def test_the_model_itself_refuses_what_is_no_grid() -> None:
    grid = GridModel(GridTwin())
    for wrong in ({"voltage_v": 0.0}, {"voltage_v": (1.0, 2.0)}, {"frequency_hz": float("nan")}, {"ramp_s": -1.0}):
        with pytest.raises(ValueError, match=r"voltage_v|frequency_hz|ramp_s"):
            grid.change(0.0, **wrong)
    assert grid.source_v_by_phase == (230.0,) * 3


def test_the_state_tells_breaker_source_and_service(site_file: dict[str, Any]) -> None:
    physics = made(site_file)
    tell(physics, {"breaker": "open"})
    physics.step()
    state = tell(physics, {"state": True})
    assert state is not None
    told = {"breaker": "open", "frequency_hz": 0.0, "nominal_v": 230.0, "source_v": [230.0, 230.0, 230.0]}
    assert state["grid"] == told
    assert state["devices"]["pv"]["service"] == "out"


@pytest.mark.parametrize(
    ("simulation", "words"),
    [
        ({"grid": {"events": [{"at_s": 5.0}, {"at_s": 4.0}]}}, "before the event before it"),
        ({"load": {"shares_by_phase": [0.5, 0.5, 0.5]}}, "add up to 1.5"),
        ({"grid": {"events": [{"at_s": 1.0, "breaker": "ajar"}]}}, "open"),
        ({"load": {"heat_pump": {"store_low_c": 50.0, "store_high_c": 45.0}}}, "not above store_low_c"),
    ],
)
def test_what_the_file_cannot_mean_is_refused(
    site_file: dict[str, Any], simulation: dict[str, Any], words: str
) -> None:
    site_file["simulation"] |= simulation
    with pytest.raises(ValidationError, match=words):
        Site.model_validate(site_file)
