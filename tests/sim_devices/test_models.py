"""Inverter, battery and meter models: ceilings, tapers, efficiencies, reversion timers."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.twin import DeviceTwin
from sim_devices.models import BatteryModel, InverterModel, MeterModel

STEP_S = 0.01


def advance(model: InverterModel | BatteryModel, seconds: float, from_s: float = 0.0) -> float:
    """Step a model and return the time afterwards."""
    steps = round(seconds / STEP_S)
    for i in range(1, steps + 1):
        model.step(STEP_S, from_s + i * STEP_S)
    return from_s + steps * STEP_S


def battery(capacity_wh: float = 20_000.0, **twin: float) -> BatteryModel:
    return BatteryModel("battery", 10_000.0, DeviceTwin(**twin), capacity_wh=capacity_wh)  # type: ignore[arg-type]


def inverter(**twin: float) -> InverterModel:
    model = InverterModel("pv", 60_000.0, DeviceTwin(**twin))  # type: ignore[arg-type]
    model.available_pu = 0.5
    model.settle()
    return model


def test_an_inverter_without_a_ceiling_generates_what_the_sun_allows() -> None:
    model = inverter()
    advance(model, 1.0)
    assert model.power_w == pytest.approx(-30_000.0)
    assert model.energy_wh == pytest.approx(30_000.0 / 3600.0)


def test_a_ceiling_is_reached_at_tr90_and_is_gone_after_the_reversion_time() -> None:
    model = inverter(tr90_s=0.2)
    model.set_ceiling(0.1, reversion_s=5.0, now_s=0.0)
    now_s = advance(model, 0.2)
    assert model.power_w == pytest.approx(-6_000.0 - 0.1 * 24_000.0, rel=1e-6)
    now_s = advance(model, 4.7, now_s)
    assert model.power_w == pytest.approx(-6_000.0, rel=1e-6)
    assert model.reversion_remaining_s(now_s) == pytest.approx(0.1)
    advance(model, 1.1, now_s)
    assert model.ceiling_pu is None
    assert model.reversions == 1
    assert model.power_w == pytest.approx(-30_000.0, rel=1e-3)


def test_a_ceiling_above_the_sun_changes_nothing_and_shade_acts_at_once() -> None:
    model = inverter(tr90_s=5.0)
    model.set_ceiling(0.8, None, 0.0)
    advance(model, 1.0)
    assert model.power_w == pytest.approx(-30_000.0)
    model.available_pu = 0.2
    advance(model, STEP_S, 1.0)
    assert model.power_w == pytest.approx(-12_000.0)


def test_an_inverter_that_overdelivers_still_gives_no_more_than_the_sun() -> None:
    model = inverter(delivers_pu=1.1)
    model.set_ceiling(0.25, None, 0.0)
    advance(model, 5.0)
    assert model.power_w == pytest.approx(-0.25 * 60_000.0 * 1.1, rel=1e-3)
    model.set_ceiling(0.49, None, 5.0)
    advance(model, 5.0, 5.0)
    assert model.power_w == pytest.approx(-30_000.0)


def test_a_disconnected_inverter_and_zero_ceiling_give_nothing() -> None:
    model = inverter()
    model.connected = False
    advance(model, STEP_S)
    assert model.power_w == 0.0
    model.connected = True
    model.set_ceiling(0.0, None, 1.0)
    advance(model, 3.0, 1.0)
    assert model.power_w == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("ceiling", [-0.1, math.nan, math.inf])
def test_a_ceiling_that_is_no_share_of_the_rating_is_refused_and_changes_nothing(ceiling: float) -> None:
    model = inverter()
    model.set_ceiling(0.3, 10.0, 0.0)
    with pytest.raises(ValueError, match="not a share"):
        model.set_ceiling(ceiling, None, 1.0)
    assert model.ceiling_pu == 0.3
    assert model.reversion_remaining_s(0.0) == 10.0


def test_a_battery_follows_its_setpoint_and_idles_when_the_timer_runs_out() -> None:
    model = battery()
    model.set_power(-4_000.0, reversion_s=2.0, now_s=0.0)
    now_s = advance(model, 1.5)
    assert model.power_w == pytest.approx(-4_000.0, rel=1e-3)
    model.refresh(now_s)
    now_s = advance(model, 1.5, now_s)
    assert model.power_w == pytest.approx(-4_000.0, rel=1e-3)
    advance(model, 3.0, now_s)
    assert model.setpoint_w is None
    assert model.reversions == 1
    assert model.power_w == pytest.approx(0.0, abs=1e-3)


def test_a_setpoint_beyond_the_rating_is_cut_and_counted() -> None:
    model = battery()
    model.set_power(25_000.0, None, 0.0)
    assert (model.setpoint_w, model.clipped) == (10_000.0, 1)
    with pytest.raises(ValueError, match="not a number"):
        model.set_power(math.nan, None, 0.0)
    assert model.setpoint_w == 10_000.0


def test_charging_stores_less_and_discharging_takes_more_than_the_terminals_see() -> None:
    model = battery(charge_efficiency_pu=0.9, discharge_efficiency_pu=0.8, tr90_s=0.01)
    model.set_power(3_600.0, None, 0.0)
    advance(model, 100.0)
    stored_wh = model.stored_wh
    assert stored_wh - 10_000.0 == pytest.approx(0.9 * model.energy_import_wh)
    model.set_power(-3_600.0, None, 100.0)
    imported_wh = model.energy_import_wh
    advance(model, 100.0, 100.0)
    gained_wh = 0.9 * (model.energy_import_wh - imported_wh)
    assert stored_wh + gained_wh - model.stored_wh == pytest.approx(model.energy_export_wh / 0.8)


def test_charging_tapers_to_zero_at_full() -> None:
    model = battery(soc=0.95, taper_from_soc=0.9, capacity_wh=50.0, tr90_s=0.05)
    assert model.max_charge_w == pytest.approx(5_000.0)
    assert model.max_discharge_w == 10_000.0
    model.set_power(10_000.0, None, 0.0)
    now_s = advance(model, 1.0)
    assert 0.97 < model.soc < 1.0
    assert model.power_w == pytest.approx(model.max_charge_w, rel=0.05)
    advance(model, 20.0, now_s)
    assert model.soc == pytest.approx(1.0, abs=1e-4)
    assert model.power_w == pytest.approx(0.0, abs=10.0)


def test_discharging_tapers_to_zero_at_empty() -> None:
    model = battery(soc=0.05, taper_to_soc=0.1, capacity_wh=50.0)
    assert model.max_discharge_w == pytest.approx(5_000.0)
    model.set_power(-10_000.0, None, 0.0)
    advance(model, 30.0)
    assert model.soc == pytest.approx(0.0, abs=1e-4)
    assert model.power_w == pytest.approx(0.0, abs=10.0)


def test_no_taper_ends_at_the_edge_without_overshoot() -> None:
    model = battery(soc=0.9999, taper_from_soc=1.0, taper_to_soc=0.0, capacity_wh=10.0, tr90_s=0.001)
    model.set_power(10_000.0, None, 0.0)
    advance(model, 1.0)
    assert model.soc == pytest.approx(1.0)
    assert model.soc <= 1.0
    model.set_power(-10_000.0, None, 1.0)
    advance(model, 10.0, 1.0)
    assert model.soc == 0.0
    assert model.power_w == 0.0


@settings(max_examples=60, deadline=None)
@given(
    setpoints=st.lists(st.floats(-20_000.0, 20_000.0), min_size=1, max_size=12),
    soc=st.floats(0.0, 1.0),
    charge=st.floats(0.6, 1.0),
    discharge=st.floats(0.6, 1.0),
    noise_w=st.sampled_from([0.0, 300.0]),
)
def test_energy_is_conserved_and_the_state_of_charge_stays_in_its_bounds(
    setpoints: list[float], soc: float, charge: float, discharge: float, noise_w: float
) -> None:
    model = battery(
        capacity_wh=20.0, soc=soc, charge_efficiency_pu=charge, discharge_efficiency_pu=discharge, noise_w=noise_w
    )
    for i, power_w in enumerate(setpoints):
        model.set_power(power_w, None, i * 1.0)
        for k in range(100):
            model.step(STEP_S, i + k * STEP_S)
            assert 0.0 <= model.soc <= 1.0
    balance_wh = soc * 20.0 + charge * model.energy_import_wh - model.energy_export_wh / discharge
    assert model.stored_wh == pytest.approx(balance_wh, abs=1e-6)


def test_a_single_phase_device_loads_its_phase_alone() -> None:
    model = BatteryModel("b", 3_000.0, DeviceTwin(tr90_s=0.01), capacity_wh=5_000.0, phases=(2,))
    model.set_power(2_300.0, None, 0.0)
    advance(model, 1.0)
    assert model.power_w_by_phase == (0.0, pytest.approx(2_300.0), 0.0)
    assert model.current_a_by_phase[1] == pytest.approx(10.0)


def measure(meter: MeterModel, power_w: float, now_s: float, *, valid: bool = True, dt_s: float = STEP_S) -> None:
    meter.measure((power_w / 3,) * 3, (230.0,) * 3, 50.0, valid, dt_s, now_s)


def test_a_meter_with_an_interval_holds_its_reading_between_measurements() -> None:
    meter = MeterModel("meter", 100_000.0, DeviceTwin(sample_interval_s=0.3))
    seen = []
    for i in range(100):
        measure(meter, 1_000.0 * i, i * STEP_S)
        seen.append(meter.power_w)
    assert sorted(set(seen)) == pytest.approx([0.0, 30_000.0, 60_000.0, 90_000.0])
    assert meter.measured_s == pytest.approx(0.9)


def test_a_meter_shows_a_measurement_after_its_dead_time() -> None:
    meter = MeterModel("meter", 100_000.0, DeviceTwin(dead_time_s=0.25))
    for i in range(1, 101):
        measure(meter, 1_000.0 * i, i * STEP_S)
    assert meter.power_w == pytest.approx(75_000.0)


def test_a_meter_counts_import_and_export_apart() -> None:
    meter = MeterModel("meter", 100_000.0, DeviceTwin())
    measure(meter, 3_600.0, 1.0, dt_s=1.0)
    measure(meter, -7_200.0, 2.0, dt_s=1.0)
    assert (meter.energy_import_wh, meter.energy_export_wh) == (pytest.approx(1.0), pytest.approx(2.0))


def test_a_meter_whose_sum_is_unknown_says_so_at_once_and_recovers() -> None:
    meter = MeterModel("meter", 100_000.0, DeviceTwin(sample_interval_s=0.3))
    measure(meter, 100.0, 0.0)
    assert meter.valid
    measure(meter, 100.0, 0.01, valid=False)
    assert not meter.valid
    measure(meter, 250.0, 0.02)
    assert meter.valid
    assert meter.power_w == pytest.approx(250.0)


def test_noise_is_the_same_for_the_same_source() -> None:
    powers = []
    for _ in range(2):
        model = BatteryModel("b", 1e4, DeviceTwin(noise_w=50.0), capacity_wh=1e4, rng=Random("7/b"))
        model.set_power(2_000.0, None, 0.0)
        advance(model, 1.0)
        powers.append(model.power_w)
    assert powers[0] == powers[1] != pytest.approx(2_000.0, abs=1e-3)
