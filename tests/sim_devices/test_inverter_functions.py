"""IEEE 1547-2018 at the terminals of the models: numbers by hand from the standard's tables, at either step."""

from __future__ import annotations

from typing import Any

import pytest

from config.grid_functions import FrequencyDroop, VoltVar, VoltWatt
from config.twin import DeviceTwin
from sim_devices.inverter_functions import droop_pu, on_curve
from sim_devices.models import BatteryModel, GridFollowingModel, InverterModel, ServiceState

REAL_TIME_S, LOCKSTEP_S = 0.01, 0.1


class Bench:
    """One model at terminals whose voltage and frequency a test sets."""

    def __init__(self, model: GridFollowingModel, step_s: float) -> None:
        self.model: Any = model
        self.step_s = step_s
        self.now_s = 0.0

    def run(self, seconds: float, *, volts_pu: float | None = None, hz: float | None = None) -> float:
        """Let it be at this voltage and frequency for so long; its power."""
        model = self.model
        if volts_pu is not None:
            model.voltage_v_by_phase = (volts_pu * model.nominal_voltage_v,) * 3
        if hz is not None:
            model.frequency_hz = hz
        for _ in range(round(seconds / self.step_s)):
            self.now_s += self.step_s
            model.step(self.step_s, self.now_s)
        return float(model.power_w)

    def service(self) -> ServiceState:
        """The state of its service now."""
        state: ServiceState = self.model.service
        return state


def twin(**functions: Any) -> DeviceTwin:
    return DeviceTwin.model_validate({"tr90_s": 0.05, "grid_functions": functions})


def pv(step_s: float = REAL_TIME_S, *, sun_pu: float = 1.0, nominal_hz: float = 50.0, **functions: Any) -> Bench:
    """A 10 kW inverter in the sun."""
    model = InverterModel("pv", 10_000.0, twin(**functions), nominal_frequency_hz=nominal_hz)
    model.available_pu = sun_pu
    model.settle()
    return Bench(model, step_s)


def battery(step_s: float = REAL_TIME_S, **functions: Any) -> Bench:
    return Bench(BatteryModel("battery", 10_000.0, twin(**functions), capacity_wh=100_000.0), step_s)


BOTH_STEPS = pytest.mark.parametrize("step_s", [REAL_TIME_S, LOCKSTEP_S])


@pytest.mark.parametrize(
    ("volts_pu", "injected_pu"),
    [(0.90, 0.44), (0.92, 0.44), (0.95, 0.22), (0.98, 0.0), (1.0, 0.0), (1.02, 0.0), (1.05, -0.22), (1.08, -0.44)],
)
def test_volt_var_follows_table_8_of_category_b(volts_pu: float, injected_pu: float) -> None:
    assert on_curve(VoltVar().curve, volts_pu) == pytest.approx(injected_pu)


@pytest.mark.parametrize(("volts_pu", "most_pu"), [(1.0, 1.0), (1.06, 1.0), (1.07, 0.75), (1.08, 0.5), (1.12, 0.0)])
def test_volt_watt_follows_table_10(volts_pu: float, most_pu: float) -> None:
    assert on_curve(VoltWatt().curve, volts_pu) == pytest.approx(most_pu)


@pytest.mark.parametrize(
    ("nominal_hz", "hz", "less_pu"),
    [
        (60.0, 60.036, 0.0),
        (60.0, 60.336, 0.1),  # 0.3 Hz beyond the deadband, 60 Hz x 5 % = 3 Hz for all of the rating
        (60.0, 59.664, -0.1),
        (50.0, 50.036, 0.0),
        (50.0, 50.2, 0.0656),  # 0.164 Hz of 2.5 Hz
        (50.0, 49.8, -0.0656),
    ],
)
def test_frequency_droop_follows_tables_22_to_24(nominal_hz: float, hz: float, less_pu: float) -> None:
    assert droop_pu(FrequencyDroop(), hz - nominal_hz, nominal_hz) == pytest.approx(less_pu)


@BOTH_STEPS
def test_volt_var_is_nine_tenths_there_after_five_seconds(step_s: float) -> None:
    bench = pv(step_s, sun_pu=0.5, volt_var={})
    bench.run(1.0)
    assert bench.model.reactive_var == 0.0
    bench.run(5.0, volts_pu=0.92)
    assert bench.model.reactive_var == pytest.approx(-0.9 * 4_400.0, rel=1e-3)
    bench.run(60.0, volts_pu=1.05)
    assert bench.model.reactive_var == pytest.approx(2_200.0, rel=1e-3)
    assert bench.model.power_w == pytest.approx(-5_000.0), "there is room for both"


@BOTH_STEPS
def test_volt_watt_is_nine_tenths_there_after_ten_seconds_and_lets_go_again(step_s: float) -> None:
    bench = pv(step_s, volt_watt={})
    assert bench.run(10.0, volts_pu=1.08) == pytest.approx(-10_000.0 * (1 - 0.9 * 0.5), rel=2e-3)
    assert bench.run(60.0) == pytest.approx(-5_000.0, rel=1e-3)
    assert bench.run(90.0, volts_pu=1.0) == pytest.approx(-10_000.0)


def test_reactive_power_has_priority_unless_active_power_is_given_it() -> None:
    by_default, active = pv(volt_var={}), pv(volt_var={}, priority="active")
    assert by_default.run(60.0, volts_pu=0.92) == pytest.approx(-8_979.98, abs=0.1)  # sqrt(10^2 - 4.4^2) kW
    assert by_default.model.reactive_var == pytest.approx(-4_400.0)
    assert active.run(60.0, volts_pu=0.92) == pytest.approx(-10_000.0)
    assert active.model.reactive_var == pytest.approx(0.0, abs=1.0)
    larger = pv(volt_var={}, apparent_power_pu=1.1)
    assert larger.run(60.0, volts_pu=0.92) == pytest.approx(-9_878.0, abs=1.0)  # Q = 4.84 of 11 kVA


@BOTH_STEPS
def test_over_frequency_takes_power_from_what_was_generated_when_it_began(step_s: float) -> None:
    bench = pv(step_s, sun_pu=0.6)
    bench.run(1.0)
    assert bench.run(60.0, hz=50.2) == pytest.approx(-6_000.0 + 656.0, abs=1.0)
    bench.model.available_pu = 1.0
    assert bench.run(5.0) == pytest.approx(-5_344.0, abs=1.0), "more sun changes nothing while it lasts"
    bench.model.set_ceiling(0.3, None, bench.now_s)
    assert bench.run(5.0) == pytest.approx(-3_000.0, abs=1.0), "a ceiling below it is kept"
    bench.model.set_ceiling(None, None, bench.now_s)
    assert bench.run(60.0, hz=50.0) == pytest.approx(-10_000.0)
    assert bench.run(60.0, hz=52.7) == pytest.approx(0.0), "2.664 Hz of 2.5: all of it"


def test_droop_answers_in_five_seconds() -> None:
    bench = pv()
    assert bench.run(5.1, hz=50.2) == pytest.approx(-10_000.0 + 0.9 * 656.0, abs=10.0)


def test_under_frequency_raises_what_is_curtailed_and_never_what_the_sun_gives() -> None:
    free, curtailed = pv(sun_pu=0.5), pv(sun_pu=0.5)
    curtailed.model.set_ceiling(0.2, None, 0.0)
    curtailed.run(2.0)
    assert free.run(60.0, hz=49.8) == pytest.approx(-5_000.0)
    assert curtailed.run(60.0, hz=49.8) == pytest.approx(-2_656.0, abs=1.0)
    assert curtailed.run(60.0, hz=47.0) == pytest.approx(-5_000.0)


def test_a_battery_adds_the_droop_to_its_setpoint_and_charges_if_need_be() -> None:
    bench = battery()
    assert bench.run(60.0, hz=50.2) == pytest.approx(656.0, abs=1.0)
    bench.model.set_power(-5_000.0, None, bench.now_s)
    assert bench.run(10.0) == pytest.approx(-4_344.0, abs=1.0)
    assert bench.run(60.0, hz=50.02) == pytest.approx(-5_000.0)
    bench.model.connected = False
    assert bench.run(60.0, hz=50.2) == 0.0


def test_droop_can_be_off_and_nominal_can_be_sixty_hertz() -> None:
    assert pv(frequency_droop=None).run(60.0, hz=51.0) == pytest.approx(-10_000.0)
    american = pv(nominal_hz=60.0)
    assert american.run(10.0, hz=60.0) == pytest.approx(-10_000.0)
    assert american.run(60.0, hz=60.336) == pytest.approx(-9_000.0, abs=1.0)


def test_at_nominal_nothing_differs_from_an_inverter_without_functions() -> None:
    plain, full = pv(frequency_droop=None), pv(volt_var={}, volt_watt={}, ride_through={})
    assert full.run(20.0) == plain.run(20.0)
    assert full.service() is ServiceState.IN_SERVICE


@BOTH_STEPS
def test_a_deep_sag_is_momentary_cessation_and_half_a_second_later_power_is_back(step_s: float) -> None:
    bench = pv(step_s, ride_through={})
    assert bench.run(0.1, volts_pu=0.4) == 0.0, "within 83 ms, Table 16"
    assert bench.service() is ServiceState.CESSATION
    assert bench.run(0.9) == 0.0
    bench.run(0.4, volts_pu=1.0)
    assert bench.service() is ServiceState.IN_SERVICE
    assert bench.run(0.1) == pytest.approx(-10_000.0, rel=0.02)
    assert bench.model.functions.service.trips == 0


@pytest.mark.parametrize(
    ("volts_pu", "hz", "clears_s"),
    [
        (1.25, 50.0, 0.16),  # OV2
        (1.15, 50.0, 13.0),  # OV1
        (0.80, 50.0, 21.0),  # UV1
        (0.45, 50.0, 2.0),  # UV2
        (1.00, 52.5, 0.16),  # OF2
        (1.00, 51.5, 300.0),  # OF1
        (1.00, 48.0, 300.0),  # UF1
        (1.00, 46.0, 0.16),  # UF2
    ],
)
@BOTH_STEPS
def test_trips_come_by_the_clearing_times_of_tables_13_and_18(
    step_s: float, volts_pu: float, hz: float, clears_s: float
) -> None:
    bench = pv(step_s, ride_through={})
    bench.run(max(0.0, clears_s - 2 * step_s - 0.05), volts_pu=volts_pu, hz=hz)
    assert bench.model.functions.service.trips == 0, "not before its time"
    bench.run(2 * step_s + 0.05)
    assert bench.model.functions.service.trips == 1
    assert bench.model.power_w == 0.0


def test_a_limit_that_is_left_in_time_does_not_trip() -> None:
    bench = pv(ride_through={})
    for _ in range(3):
        assert bench.run(20.0, volts_pu=0.80) == pytest.approx(-10_000.0), "mandatory operation goes on"
        bench.run(0.1, volts_pu=1.0)
    assert bench.service() is ServiceState.IN_SERVICE


@BOTH_STEPS
def test_after_a_trip_it_waits_five_minutes_of_good_grid_and_ramps_for_five_more(step_s: float) -> None:
    bench = pv(step_s, ride_through={})
    bench.run(1.0, volts_pu=1.3)
    assert bench.service() is ServiceState.OUT
    bench.run(600.0, volts_pu=1.06)
    assert bench.service() is ServiceState.OUT, "1.06 is above 1.05, Table 4"
    bench.run(200.0, volts_pu=1.0)
    bench.run(1.0, hz=50.2)
    bench.run(299.0, hz=50.0)
    assert bench.service() is ServiceState.OUT, "the delay began anew"
    bench.run(1.0 + step_s)
    assert bench.service() is ServiceState.ENTERING
    assert bench.run(150.0) == pytest.approx(-5_000.0, rel=0.01)
    assert bench.run(151.0) == pytest.approx(-10_000.0, rel=1e-3)
    assert bench.service() is ServiceState.IN_SERVICE


@BOTH_STEPS
def test_dead_terminals_stop_it_at_once_whatever_is_configured(step_s: float) -> None:
    bench = battery(step_s, enter_service={"delay_s": 2.0, "ramp_s": 4.0})
    bench.model.set_power(8_000.0, None, 0.0)
    bench.run(2.0)
    bench.model.energized = False
    assert bench.run(step_s, volts_pu=0.0, hz=0.0) == 0.0
    bench.run(5.0)
    bench.model.energized = True
    assert bench.run(1.9, volts_pu=1.0, hz=50.0) == 0.0
    assert bench.run(2.1) == pytest.approx(5_000.0, rel=0.06), "half of the ramp"
    assert bench.run(2.5) == pytest.approx(8_000.0, rel=1e-3)


def test_both_steps_give_one_trajectory() -> None:
    fine, coarse = (pv(step_s, volt_var={}, volt_watt={}, ride_through={}) for step_s in (REAL_TIME_S, LOCKSTEP_S))
    story = [(2.0, 1.0, 50.0), (8.0, 1.07, 50.0), (6.0, 0.95, 50.1), (1.0, 0.4, 50.0), (20.0, 1.0, 49.9)]
    for seconds, volts_pu, hz in story:
        for _ in range(round(seconds / 0.5)):
            one, other = (bench.run(0.5, volts_pu=volts_pu, hz=hz) for bench in (fine, coarse))
            assert one == pytest.approx(other, abs=0.01 * 10_000.0)
            assert fine.model.reactive_var == pytest.approx(coarse.model.reactive_var, abs=0.01 * 10_000.0)
