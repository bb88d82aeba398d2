"""Cables inside a site: each twin has the voltage of its place, and the meter sees what the cables lose."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from config.loading import check_site
from config.network import Network
from config.site import Site
from sim_devices.control_port import ControlPort
from sim_devices.endpoints import twin_kinds
from sim_devices.models import BatteryModel, InverterModel
from sim_devices.network_model import NetworkError, NetworkModel
from sim_devices.physics import SitePhysics

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("power_grid_model") is None, reason="power-grid-model is not installed (extra `network`)"
)

NOMINAL = (230.0, 230.0, 230.0)
R_OHM, X_OHM = 0.0641, 0.0083
ROOF = {"between": ["connection", "roof"], "length_m": 100.0, "r_ohm_per_km": 0.641, "x_ohm_per_km": 0.083}
TRANSFORMER = {"between": ["connection", "low"], "rating_va": 100_000.0, "load_loss_w": 1_500.0}


def network(**more: Any) -> NetworkModel:
    """One cable from the connection point to the roof, where the PV is."""
    return NetworkModel(Network.model_validate({"cables": [ROOF], "devices": {"pv": "roof"}} | more), 230.0, 0.01)


def at_end_v(p_w: float, q_var: float, r_ohm: float, x_ohm: float, source_v: float) -> float:
    """The voltage behind r + jx when this is drawn there: V^4 + (2 (rP + xQ) - Vs^2) V^2 + (r^2 + x^2) S^2 = 0."""
    b = 2.0 * (r_ohm * p_w + x_ohm * q_var) - source_v**2
    c = (r_ohm**2 + x_ohm**2) * (p_w**2 + q_var**2)
    return math.sqrt((-b + math.sqrt(b * b - 4.0 * c)) / 2.0)


@needs_library
@pytest.mark.parametrize(("p_w", "q_var"), [(10_000.0, 0.0), (-10_000.0, 2_000.0), (0.0, -5_000.0), (0.0, 0.0)])
def test_two_nodes_are_as_computed_by_hand(p_w: float, q_var: float) -> None:
    model = network()
    model.solve(NOMINAL, {"roof": ((p_w,) * 3, (q_var,) * 3)})
    there_v = at_end_v(p_w, q_var, R_OHM, X_OHM, 230.0)
    assert model.voltages("pv", NOMINAL) == pytest.approx((there_v,) * 3, abs=1e-4)
    assert model.voltages("battery", NOMINAL) == NOMINAL, "who is not named is at the connection point"
    lost_a = math.hypot(p_w, q_var) / there_v
    assert model.losses_w_by_phase == pytest.approx((R_OHM * lost_a**2,) * 3, abs=1e-3)
    assert model.losses_var_by_phase == pytest.approx((X_OHM * lost_a**2,) * 3, abs=1e-3)


@needs_library
def test_a_round_number_is_round() -> None:
    """10 A of pure resistance: 23 V lost in 2.3 ohm, 207 V left, 2,070 W there and 230 W in each conductor."""
    cable = {"between": ["connection", "roof"], "length_m": 1_000.0, "r_ohm_per_km": 2.3, "x_ohm_per_km": 0.0}
    model = network(cables=[cable])
    model.solve(NOMINAL, {"roof": ((2_070.0,) * 3, (0.0,) * 3)})
    assert model.voltages("pv", NOMINAL) == pytest.approx((207.0,) * 3, abs=1e-4)
    assert model.losses_w_by_phase == pytest.approx((230.0,) * 3, abs=1e-3)


@needs_library
def test_the_current_of_a_single_phase_comes_back_by_the_neutral() -> None:
    model = network()
    model.solve(NOMINAL, {"roof": ((6_000.0, 0.0, 0.0), (0.0,) * 3)})
    one_v, two_v, three_v = model.voltages("pv", NOMINAL)
    assert one_v == pytest.approx(at_end_v(6_000.0, 0.0, 2 * R_OHM, 2 * X_OHM, 230.0), abs=1e-4)
    assert two_v > 230.0 and three_v > 230.0, "the neutral's drop lifts the other phases"
    assert model.losses_w_by_phase[1:] == pytest.approx((0.0, 0.0), abs=1e-6)
    assert model.losses_w_by_phase[0] == pytest.approx(2 * R_OHM * (6_000.0 / one_v) ** 2, abs=1e-2)


@needs_library
def test_unequal_phases_of_the_source_are_each_their_own() -> None:
    source_v = (207.0, 230.0, 241.5)
    heavy = {**ROOF, "neutral_r_ohm_per_km": 0.0, "neutral_x_ohm_per_km": 0.0}
    model = network(cables=[heavy])
    model.solve(source_v, {"roof": ((9_000.0, 0.0, -9_000.0), (0.0, 3_000.0, 0.0))})
    by_hand = [
        at_end_v(p_w, q_var, R_OHM, X_OHM, volts)
        for p_w, q_var, volts in zip((9_000.0, 0.0, -9_000.0), (0.0, 3_000.0, 0.0), source_v, strict=True)
    ]
    assert model.voltages("pv", source_v) == pytest.approx(by_hand, abs=1e-4)


@needs_library
def test_a_transformer_loses_what_its_plate_says() -> None:
    made = network(cables=[], transformers=[{**TRANSFORMER, "no_load_loss_w": 300.0}], devices={"pv": "low"})
    made.solve(NOMINAL, {})
    assert sum(made.losses_w_by_phase) == pytest.approx(300.0, abs=0.5)
    made.solve(NOMINAL, {"low": ((100_000.0 / 3,) * 3, (0.0,) * 3)})
    below_v = made.voltages("pv", NOMINAL)[0]
    # uk 4 % and 1.5 kW of 100 kVA: r = 1.5 %, x = 3.71 % of 1.587 ohm, the rated impedance.
    rated_ohm = 3 * 230.0**2 / 100_000.0
    r_ohm, x_ohm = 0.015 * rated_ohm, math.sqrt(0.04**2 - 0.015**2) * rated_ohm
    assert below_v == pytest.approx(at_end_v(100_000.0 / 3, 0.0, r_ohm, x_ohm, 230.0), rel=1e-3)
    load_loss_w = sum(made.losses_w_by_phase) - 300.0
    assert load_loss_w == pytest.approx(1_500.0 * (230.0 / below_v) ** 2, rel=0.01)


@needs_library
def test_what_no_voltage_can_carry_leaves_all_as_it_was_and_is_counted() -> None:
    model = network()
    model.solve(NOMINAL, {"roof": ((10_000.0,) * 3, (0.0,) * 3)})
    before = model.voltages("pv", NOMINAL), model.losses_w_by_phase
    model.solve(NOMINAL, {"roof": ((1_000_000.0,) * 3, (0.0,) * 3)})
    assert (model.voltages("pv", NOMINAL), model.losses_w_by_phase) == before
    assert model.unsolved == 1


# In a site


def with_roof(site_file: dict[str, Any], *, step_ms: int = 10, **roof: Any) -> Site:
    """The site in full sun at noon without load; the PV of 60 kW is at the end of the cable."""
    twin = {"grid_functions": roof.pop("functions", {})}
    site_file["devices"]["pv"]["twin"] = twin
    site_file["devices"]["charger_a"]["twin"] = site_file["devices"]["charger_c"]["twin"] = {}
    site_file["simulation"] = {
        "step_ms": step_ms,
        "load_steps": None,
        "clouds": None,
        "load": {"series": None},
        "network": {"cables": [ROOF], "devices": {"pv": "roof"}, **roof},
    }
    return Site.model_validate(site_file)


def physics_of(site: Site) -> SitePhysics:
    return SitePhysics(site, twin_kinds(site, None))


def run(physics: SitePhysics, seconds: float) -> None:
    for _ in range(round(seconds / physics.step_s)):
        physics.step()


@needs_library
def test_the_twin_sees_its_own_voltage_and_the_meter_the_losses(site_file: dict[str, Any]) -> None:
    physics = physics_of(with_roof(site_file))
    run(physics, 1.0)
    meter, pv = physics.meters["meter"], physics.devices["pv"]
    assert pv.power_w == -60_000.0
    connection_v = meter.voltage_v_by_phase[0]
    assert pv.voltage_v == pytest.approx(at_end_v(-20_000.0, 0.0, R_OHM, X_OHM, connection_v), abs=1e-3)
    assert physics.devices["battery"].voltage_v == pytest.approx(connection_v)
    lost_w = 3 * R_OHM * (20_000.0 / pv.voltage_v) ** 2
    assert meter.power_w == pytest.approx(-60_000.0 + lost_w, abs=0.5)
    assert physics.net_w == pytest.approx(meter.power_w)
    said = ControlPort(physics, lambda: physics.now_s).answer(json.dumps({"state": True}).encode())
    assert said is not None
    assert said["network"]["losses_w"] == pytest.approx(lost_w, abs=0.5)
    assert said["network"]["voltage_v"]["roof"] == pytest.approx([pv.voltage_v] * 3)


@needs_library
def test_volt_watt_acts_at_the_end_of_the_cable_and_not_at_the_connection(site_file: dict[str, Any]) -> None:
    """5.5 V of rise are inside 1.06 at the connection; the cable's further 5.4 V are what the roof is beyond it."""
    functions = {"volt_watt": {"response_s": 0.5}}
    site_file["devices"]["battery"]["twin"] = {"grid_functions": functions}
    physics = physics_of(with_roof(site_file, functions=functions))
    physics.set_grid(voltage_v=238.0)
    run(physics, 30.0)
    pv, battery = physics.devices["pv"], physics.devices["battery"]
    assert isinstance(pv, InverterModel) and isinstance(battery, BatteryModel)
    assert battery.voltage_v < 1.06 * 230.0 < pv.voltage_v
    assert -60_000.0 < pv.power_w < -30_000.0
    assert battery.functions.generation_pu == 1.0
    allowed_pu = (1.10 - pv.voltage_v / 230.0) / 0.04
    assert -pv.power_w / 60_000.0 == pytest.approx(allowed_pu, abs=0.01), "it has settled on the curve"


@needs_library
def test_an_open_breaker_takes_voltages_and_losses_away(site_file: dict[str, Any]) -> None:
    physics = physics_of(with_roof(site_file))
    run(physics, 1.0)
    physics.set_breaker("open")
    run(physics, 0.02)
    assert physics.devices["pv"].voltage_v_by_phase == (0.0, 0.0, 0.0)
    assert physics.net_w == 0.0
    physics.set_breaker("closed")
    run(physics, 1.0)
    assert physics.devices["pv"].voltage_v == pytest.approx(physics.meters["meter"].voltage_v_by_phase[0])


@needs_library
def test_a_sag_reaches_the_roof_in_the_same_step_though_the_network_is_slower(site_file: dict[str, Any]) -> None:
    physics = physics_of(with_roof(site_file, interval_s=5.0))
    run(physics, 1.0)
    before_v = physics.devices["pv"].voltage_v
    physics.set_grid(voltage_v=184.0)
    physics.step()
    assert physics.devices["pv"].voltage_v == pytest.approx(0.8 * before_v, rel=0.01)


@needs_library
@pytest.mark.parametrize("step_ms", [10, 100])
def test_the_same_seed_gives_the_same_run_to_the_last_digit(site_file: dict[str, Any], step_ms: int) -> None:
    def trajectory() -> list[tuple[float, ...]]:
        site = with_roof(site_file, step_ms=step_ms, functions={"volt_var": {}})
        quiet = site.simulation.model_copy(update={"clouds": type(site.simulation)().clouds})
        physics = physics_of(site.model_copy(update={"simulation": quiet}))
        rows = []
        for _ in range(200):
            physics.step()
            rows.append((physics.net_w, *physics.devices["pv"].voltage_v_by_phase))
        return rows

    assert trajectory() == trajectory()


# What a site file may say


def test_without_the_library_the_site_is_refused_with_the_extras_name(
    site_file: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "power_grid_model", None)
    with pytest.raises(NetworkError, match="extra `network`"):
        physics_of(with_roof(site_file))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{cables: []}", "neither cables nor transformers"),
        ("{cables: [{between: [a, a], length_m: 1, r_ohm_per_km: 1}]}", "a branch joins two nodes"),
        ("{cables: [{between: [a, b], length_m: 1, r_ohm_per_km: 1}]}", "a and b are not joined to connection"),
        ("{cables: [{between: [connection, b], length_m: 0, r_ohm_per_km: 1}]}", "0"),
        ("{cables: [{between: [connection, roof], length_m: 1, r_ohm_per_km: 1}], devices: {pv: rof}}", "'roof'"),
        (
            "{cables: [{between: [connection, roof], length_m: 1, r_ohm_per_km: 1}], devices: {pw: roof}}",
            "'pw' is not a device",
        ),
        (
            "{cables: [{between: [connection, roof], length_m: 1, r_ohm_per_km: 1}], load: nowhere}",
            "no branch leads to",
        ),
        (
            "{transformers: [{between: [connection, b], rating_va: 1000, load_loss_w: 50}]}",
            "not below short_circuit_pu",
        ),
    ],
)
def test_mistakes_are_found_with_their_line(tmp_path: Path, said: str, words: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(
        "site: house\n"
        "connection: {rating_w: 10000, meter: meter}\n"
        "fallback: {net_import_w: 5000, net_export_w: 5000}\n"
        "devices:\n"
        "  meter: {profile: sunspec_meter, address: {driver: modbus_tcp, host: 10.0.0.1}, rating_w: 10000}\n"
        "  pv: {profile: sunspec_inverter, address: {driver: modbus_tcp, host: 10.0.0.2}, rating_w: 5000}\n"
        "simulation:\n"
        f"  network: {said}\n"
    )
    found = [str(finding) for finding in check_site(path) if "network" in finding.path]
    assert len(found) == 1, found
    assert f"{path}:8" in found[0] and words in found[0]
