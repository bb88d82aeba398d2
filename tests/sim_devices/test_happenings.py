"""What a bench can do to the physics while it runs, by the twins' control port."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.loading import load_site, shipped_sites
from config.vocabulary import ChargingState, DeviceKind
from sim_devices.control_port import ControlPort
from sim_devices.models import ChargerModel
from sim_devices.physics import SitePhysics

KINDS = {"grid_meter": DeviceKind.METER, "pv": DeviceKind.INVERTER, "charger_1": DeviceKind.CHARGER}


@pytest.fixture
def physics() -> SitePhysics:
    site = load_site(shipped_sites()["demo"])
    simulation = site.simulation.model_copy(update={"clouds": None, "load_steps": None})
    return SitePhysics(site.model_copy(update={"simulation": simulation}), KINDS)


def tell(physics: SitePhysics, line: dict[str, Any], seconds: float = 0.0) -> dict[str, Any] | None:
    """Say a line, let time pass; the answer."""
    answer = ControlPort(physics, lambda: physics.now_s).answer(json.dumps(line).encode())
    for _ in range(round(seconds / physics.step_s)):
        physics.step()
    return answer


def test_shade_takes_its_share_of_the_sun_and_gives_it_back(physics: SitePhysics) -> None:
    clear_w = physics.devices["pv"].power_w
    assert tell(physics, {"irradiance_pu": 0.25}, 3.0) is None
    assert physics.devices["pv"].power_w == pytest.approx(0.25 * clear_w, rel=0.02)
    tell(physics, {"irradiance_pu": 1.0}, 3.0)
    assert physics.devices["pv"].power_w == pytest.approx(clear_w, rel=0.02)


def test_the_grid_moves_and_what_is_not_named_stays(physics: SitePhysics) -> None:
    tell(physics, {"grid": {"frequency_hz": 50.2}}, 1.0)
    tell(physics, {"grid": {"voltage_v": 240.0}}, 1.0)
    assert physics.meters["grid_meter"].frequency_hz == 50.2
    assert physics.voltage_v_by_phase[0] == pytest.approx(240.0, abs=3.0)


def test_a_car_comes_charges_and_leaves(physics: SitePhysics) -> None:
    charger = physics.devices["charger_1"]
    assert isinstance(charger, ChargerModel)
    tell(physics, {"state": True}, 1.0)
    tell(physics, {"unplug": "charger_1"}, 1.0)
    assert charger.state is ChargingState.A
    tell(physics, {"plug_in": {"device": "charger_1", "needed_wh": 5000.0}}, 3.0)
    assert charger.state is ChargingState.C
    assert charger.power_w > 10_000.0
    tell(physics, {"unplug": "charger_1"}, 0.1)
    assert charger.power_w == 0.0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"irradiance_pu": 1.5}, "irradiance_pu: not a share"),
        ({"irradiance_pu": True}, "irradiance_pu: not a share"),
        ({"grid": {"voltage_v": 0}}, "grid: expected an object of frequency_hz, voltage_v above 0"),
        ({"grid": {"volts": 230}}, "grid: expected an object of frequency_hz, voltage_v above 0"),
        ({"plug_in": {"device": "pv"}}, "pv is not a charger here"),
        ({"plug_in": {"device": "charger_1", "needed_wh": -1.0}}, "plug_in: Input should be greater than 0"),
        ({"plug_in": 3}, "plug_in: expected an object with `device`"),
        ({"unplug": "nobody"}, "nobody is not a charger here"),
    ],
)
def test_what_cannot_be_used_changes_nothing(physics: SitePhysics, line: dict[str, Any], why: str) -> None:
    before = physics.devices["pv"].power_w, physics.voltage_v_by_phase
    assert tell(physics, {**line, "load_step_w": 1000.0}) == {"error": why}
    assert (physics.devices["pv"].power_w, physics.voltage_v_by_phase) == before
    physics.step()
    assert physics.load_w < 30_000.0
