"""The shipped profiles of inverters and storages against twins whose register tables come from the vendors' documents.

Each profile with the real driver, over a socket, on its twin: what is read is what the physics says, what is written is
what the device then does, and what the profile says of a silent gateway is what happens.
"""

from collections.abc import Callable
from typing import Any, TypeAlias
from zlib import crc32

import pytest

from config.loading import load_profile
from config.vocabulary import DeviceKind, Quality, WriteStatus
from sim_devices.modbus.inverters import TWINS
from sim_devices.modbus.twin import make_unit
from sim_devices.models import BatteryModel, InverterModel
from tests.profiles.inverter_contract import (
    AVAILABLE_PU,
    CAPACITY_WH,
    FREQUENCY_HZ,
    RATING_W,
    SOC,
    Contract,
    Value,
    contract,
    is_bad,
    make_model,
    readable,
)

Model: TypeAlias = BatteryModel | InverterModel
Expected: TypeAlias = dict[str, Callable[[Any], Value]]

BATTERIES = sorted(name for name, twin in TWINS.items() if twin.kind is DeviceKind.BATTERY)
CEILINGS = ["huawei_sun2000", "solaredge_inverter"]
"""The inverters that can be limited; the photovoltaics of a hybrid are only read."""


def power(within: float) -> Callable[[Model], Value]:
    return lambda model: Value(model.power_w, within)


def phase_power(phase: int, within: float) -> Callable[[Model], Value]:
    return lambda model: Value(model.power_w_by_phase[phase], within)


def voltage(within: float) -> Callable[[Model], Value]:
    return lambda model: Value(model.voltage_v_by_phase[0], within)


def size_of_current(phase: int, within: float) -> Callable[[Model], Value]:
    return lambda model: Value(abs(model.current_a_by_phase[phase]), within)


def frequency(within: float) -> Callable[[Model], Value]:
    return lambda model: Value(model.frequency_hz, within)


def soc(within: float) -> Callable[[BatteryModel], Value]:
    return lambda model: Value(model.soc, within)


def imported(within: float) -> Callable[[Model], Value]:
    return lambda model: Value(model.energy_import_wh, within)


def exported(within: float) -> Callable[[Model], Value]:
    return lambda model: Value(model.energy_export_wh, within)


def current(phase: int, within: float) -> Callable[[Model], Value]:
    return lambda model: Value(model.current_a_by_phase[phase], within)


def is_(value: float | str) -> Callable[[Model], Value]:
    return lambda model: Value(value)


def by_power(charging: str, idle: str, discharging: str) -> Callable[[Model], Value]:
    return lambda model: Value(charging if model.power_w > 0 else discharging if model.power_w < 0 else idle)


def direct_current(voltage_v: float, within: float) -> Callable[[Model], Value]:
    return lambda model: Value(model.power_w / voltage_v, within)


READINGS: dict[str, Expected] = {
    "fronius_gen24": {
        # Watts in 16 bits with a scale factor that follows the power: 0.1 W from 327.67 W on.
        "power_w": power(0.06),
        "charge_power_w": lambda model: Value(max(model.power_w, 0.0), 0.06),
        "discharge_power_w": lambda model: Value(max(-model.power_w, 0.0), 0.06),
        "dc_power_exponent": lambda model: Value(0 if abs(model.power_w) > 3276.7 else -1 if model.power_w else -2),
        "soc": soc(0.00006),
        "storage_status": by_power("charging", "holding", "discharging"),
        "max_charge_w": is_(RATING_W),
        "inverter_power_w": power(0.06),
        "voltage_v": voltage(0.06),
        "frequency_hz": frequency(0.006),
        "energy_import_wh": imported(0.6),
        "energy_export_wh": exported(0.6),
        "reserve_pu": is_(0.05),
        "charging_from_grid": is_("grid"),
        "rate_floor_pu": lambda model: Value(model.setpoint_w / RATING_W, 0.0001),
        "rate_ceiling_pu": lambda model: Value(model.setpoint_w / RATING_W, 0.0001),
        "reversion_s": is_(60),
        "limits_enabled": is_(3),
    },
    "solaredge_inverter": {
        "power_w": power(0.6),
        **{f"current_l{phase + 1}_a": size_of_current(phase, 0.006) for phase in range(3)},
        "voltage_v": voltage(0.06),
        "frequency_hz": frequency(0.006),
        "energy_export_wh": exported(0.6),
        "state": lambda model: Value("throttled" if (model.ceiling_pu or 1.0) < AVAILABLE_PU else "mppt"),
        "rated_power_w": is_(RATING_W),
        "dynamic_control_enable": is_(1),
        "active_power_limit_w": is_(RATING_W),
        "command_timeout_s": is_(60),
        "fallback_pu": is_(1.0),
        "ramp_up_pu_per_min": is_(-0.01),
        "ramp_down_pu_per_min": is_(-0.01),
        "limit_pu": lambda model: Value(model.ceiling_pu, 1e-6),
    },
    "solaredge_storage": {
        "power_w": power(0.001),
        "soc": soc(1e-6),
        "state": by_power("charge", "standby", "discharge"),
        "max_charge_w": is_(RATING_W),
        "max_discharge_w": is_(RATING_W),
        "rated_energy_wh": is_(CAPACITY_WH),
        "manufacturer": is_("SolarEdge"),
        "model": is_("Home Battery"),
        "serial_number": is_("S/solaredge_storage"),
        "temperature_c": is_(25.0),
        "battery_voltage_v": is_(400.0),
        "battery_current_a": direct_current(400.0, 1e-5),
        "energy_export_wh": exported(0.6),
        "energy_import_wh": imported(0.6),
        "available_energy_wh": lambda model: Value(model.stored_wh, 0.01),
        "storage_control_mode": is_(4),
        "ac_charge_policy": is_("always"),
        "backup_reserve_pu": is_(0.0),
        "default_mode": is_(0),
        "command_timeout_s": is_(60),
        "command_mode": lambda model: Value(3 if model.power_w > 0 else 4 if model.power_w < 0 else 0),
        "charge_limit_w": lambda model: Value(max(model.setpoint_w, 0.0), 0.001),
        "discharge_limit_w": lambda model: Value(max(-model.setpoint_w, 0.0), 0.001),
    },
    "sma_storage": {
        "power_w": power(0.6),
        "voltage_v": voltage(0.006),
        "frequency_hz": frequency(0.006),
        "soc": soc(0.006),
        "battery_current_a": direct_current(400.0, 0.0006),
        "battery_temperature_c": is_(25.0),
        "battery_voltage_v": is_(400.0),
        "health": is_("ok"),
        "rated_power_w": is_(RATING_W),
        "serial_number": lambda model: Value(crc32(b"S/sma_storage")),
        "device_type": is_(9326),
        "fallback_mode": is_(2507),
        "fallback_timeout_s": is_(600),
        "fallback_setpoint_w": is_(0),
    },
    "victron_gx": {
        "power_w": power(15.1),
        **{f"input_power_l{phase + 1}_w": phase_power(phase, 5.1) for phase in range(3)},
        "voltage_v": voltage(0.06),
        **{f"current_l{phase + 1}_a": current(phase, 0.06) for phase in range(3)},
        "frequency_hz": frequency(0.006),
        **{f"output_power_l{phase + 1}_w": is_(0) for phase in range(3)},
        "battery_voltage_v": is_(51.2),
        "battery_current_a": direct_current(51.2, 0.06),
        "phase_count": is_(3),
        "active_input": is_("input_1"),
        "soc": soc(0.0006),
        "state": is_("external_control"),
        "error_code": is_(0),
    },
    "victron_gx_1ph": {
        "power_w": power(5.1),
        "voltage_v": voltage(0.06),
        "current_l1_a": current(0, 0.06),
        "frequency_hz": frequency(0.006),
        "output_power_w": is_(0),
        "battery_voltage_v": is_(51.2),
        "battery_current_a": direct_current(51.2, 0.06),
        "soc": soc(0.0006),
        "state": is_("external_control"),
        "error_code": is_(0),
    },
    "huawei_sun2000": {
        "power_w": power(0.6),
        "input_power_w": power(0.6),
        "voltage_v": voltage(0.06),
        **{f"current_l{phase + 1}_a": size_of_current(phase, 0.0006) for phase in range(3)},
        "frequency_hz": frequency(0.006),
        "state": lambda model: Value("power_limited" if (model.ceiling_pu or 1.0) < AVAILABLE_PU else "on_grid"),
        "energy_export_wh": exported(5.1),
        "model": is_("SUN2000-10KTL-M1"),
        "serial_number": is_("S/huawei_sun2000"),
        "rated_power_w": is_(RATING_W),
        "max_power_w": is_(RATING_W),
        "limit_pu": is_(1.0),
        "limit_w": lambda model: Value(model.ceiling_pu * RATING_W, 0.6),
    },
    "huawei_luna": {
        "power_w": power(0.6),
        "soc": soc(0.0006),
        "state": by_power("running", "standby", "running"),
        "battery_voltage_v": is_(450.0),
        "battery_current_a": direct_current(450.0, 0.06),
        "rated_energy_wh": is_(CAPACITY_WH),
        "max_charge_w": is_(RATING_W),
        "max_discharge_w": is_(RATING_W),
        "energy_import_wh": imported(5.1),
        "energy_export_wh": exported(5.1),
        "working_mode": is_("self_consumption"),
        "charge_from_grid": is_("enabled"),
        "forced_period_s": is_(120),
        "command": lambda model: Value(2 if model.power_w < 0 else 1),
        "forced_mode": is_(0),
        "charge_setpoint_w": lambda model: Value(max(model.setpoint_w, 0.0), 0.6),
        "discharge_setpoint_w": lambda model: Value(max(-model.setpoint_w, 0.0), 0.6),
    },
    "sungrow_sh": {
        "power_w": power(0.6),
        "soc": soc(0.0006),
        "soh_pu": is_(1.0),
        "battery_voltage_v": is_(250.0),
        "battery_current_a": direct_current(250.0, 0.06),
        "battery_temperature_c": is_(25.0),
        "voltage_v": voltage(0.06),
        "frequency_hz": frequency(0.006),
        "inverter_power_w": power(0.6),
        "energy_export_wh": exported(51.0),
        "energy_import_wh": imported(51.0),
        "device_type": is_(0x0E03),
        "rated_power_w": is_(RATING_W),
        "serial_number": is_("S/sungrow_sh"),
        "max_charge_w": is_(RATING_W),
        "max_discharge_w": is_(RATING_W),
        "ems_mode": is_(2),
        "command": lambda model: Value(0xAA if model.power_w > 0 else 0xBB if model.power_w < 0 else 0xCC),
        "command_power_w": lambda model: Value(abs(model.setpoint_w), 0.6),
    },
}

PHOTOVOLTAICS: dict[str, Expected] = {
    "huawei_hybrid_pv": {
        "power_w": power(0.6),
        "voltage_v": voltage(0.06),
        "frequency_hz": frequency(0.006),
        "energy_export_wh": exported(5.1),
        "model": is_("SUN2000-10KTL-M1"),
        "rated_power_w": is_(RATING_W),
    },
    "sungrow_sh_pv": {
        "power_w": power(0.6),
        "voltage_v": voltage(0.06),
        "frequency_hz": frequency(0.006),
        "energy_export_wh": exported(51.0),
        "rated_power_w": is_(RATING_W),
    },
}
"""Besides the values of inverter and battery together, which the test of hybrids reads."""

NOT_THERE = {"sma_storage": {"fallback_min_w", "fallback_max_w"}}
"""Points that this kind of device may lack, as the twin does."""

UNKNOWN_AS_ZERO = {"victron_gx", "victron_gx_1ph"}
"""Whose maker has no way to say that a value is missing (Victron's server answers 0)."""


async def check_readings(made: Contract, profile: str, expected: Expected) -> None:
    samples = await made.samples(profile)
    model = made.models[profile]
    for point, value_of in expected.items():
        sample, value = samples[point], value_of(model)
        assert sample.quality is Quality.GOOD, point
        if isinstance(value.value, str):
            assert sample.value == value.value, point
        else:
            assert sample.value == pytest.approx(value.value, abs=value.within + 1e-9), point


def both_currents(made: Contract, phase: int) -> Callable[[Model], Value]:
    """What the inverter feeds in on a phase: the protocol's sign, which the profile leaves to currents."""
    both = (made.battery, made.pv)
    return lambda _: Value(-sum(model.current_a_by_phase[phase] for model in both), 0.06)


def rounding_w(profile: str) -> float:
    """How far a setpoint may be from what is asked: a step of the profile, or a hundredth of a percent."""
    control = load_profile(profile).control
    assert control is not None
    return control.step_w or RATING_W / 10_000


@pytest.mark.parametrize("profile", sorted(READINGS))
async def test_every_point_reads_what_the_physics_says(profile: str) -> None:
    missing = NOT_THERE.get(profile, set())
    assert set(READINGS[profile]) | missing == set(readable(load_profile(profile)))
    powers_w = (4_321.0, -3_210.0, 0.0) if profile in BATTERIES else (-4_321.0, -9_000.0)
    async with contract(profile) as made:
        for power_w in powers_w:
            assert await made.write(power_w, profile) is WriteStatus.ACKNOWLEDGED
            if power_w == 0.0:
                made.battery.power_w = 0.0
            await check_readings(made, profile, READINGS[profile])
        samples = await made.samples(profile)
        assert {point for point in samples if is_bad(samples[point])} == missing


async def test_a_scale_factor_that_follows_the_power_is_never_that_of_another_power() -> None:
    async with contract("fronius_gen24", slow_poll_s=60.0) as made:
        for power_w in (12.34, 5_678.0, -250.0, -9_876.0, 0.0):
            made.battery.power_w = power_w
            await made.poll()
            assert made.sink.value("fronius_gen24", "power_w") == pytest.approx(power_w, abs=0.51)


@pytest.mark.parametrize(("battery", "pv"), [("huawei_luna", "huawei_hybrid_pv"), ("sungrow_sh", "sungrow_sh_pv")])
@pytest.mark.parametrize("pv_first", [False, True])
async def test_a_hybrid_is_one_unit_with_two_devices(battery: str, pv: str, pv_first: bool) -> None:
    order = (pv, battery) if pv_first else (battery, pv)
    async with contract(*order) as made:
        assert await made.write(2_000.0, battery) is WriteStatus.ACKNOWLEDGED
        await check_readings(made, pv, PHOTOVOLTAICS[pv])
        together: Expected = {"inverter_power_w": lambda _: Value(made.battery.power_w + made.pv.power_w, 0.6)}
        if pv == "sungrow_sh_pv":
            together |= {f"current_l{phase + 1}_a": both_currents(made, phase) for phase in range(3)}
        await check_readings(made, pv, together)
        assert set(PHOTOVOLTAICS[pv]) | set(together) == set(readable(load_profile(pv)))
        alone = {point: value for point, value in READINGS[battery].items() if point != "inverter_power_w"}
        if pv_first:
            alone.pop("serial_number", None)
        await check_readings(made, battery, alone)


@pytest.mark.parametrize("profile", BATTERIES)
async def test_a_setpoint_is_what_the_battery_does(profile: str) -> None:
    async with contract(profile) as made:
        for share in (1.0, 0.4567, 0.01, 0.0, -0.01, -0.3333, -1.0, 0.5):
            assert await made.write(share * RATING_W, profile) is WriteStatus.ACKNOWLEDGED
            assert made.battery.setpoint_w == pytest.approx(share * RATING_W, abs=rounding_w(profile) + 0.01), share
            assert made.battery.power_w == pytest.approx(made.battery.setpoint_w, abs=1.0)
        assert made.battery.clipped == 0


@pytest.mark.parametrize("profile", CEILINGS)
async def test_a_setpoint_is_the_most_that_the_inverter_generates(profile: str) -> None:
    async with contract(profile) as made:
        for share in (0.0, 0.25, 0.3333, 0.7999, 1.0, 0.1):
            assert await made.write(-share * RATING_W, profile) is WriteStatus.ACKNOWLEDGED
            ceiling_w = (1.0 if made.pv.ceiling_pu is None else made.pv.ceiling_pu) * RATING_W
            assert -0.01 <= share * RATING_W - ceiling_w <= rounding_w(profile) + 0.01
            assert made.pv.power_w == pytest.approx(-min(share, AVAILABLE_PU) * RATING_W, abs=2.0)


@pytest.mark.parametrize("profile", [*BATTERIES, *CEILINGS])
async def test_silence_brings_what_the_profile_says(profile: str) -> None:
    declared = load_profile(profile)
    power_w = -2_500.0
    async with contract(profile) as made:
        assert await made.write(power_w, profile) is WriteStatus.ACKNOWLEDGED
        # The twin is settled 5 s after the write.
        if declared.on_silence.behaviour == "hold":
            made.run(500.0)
            assert made.models[profile].power_w == pytest.approx(power_w, abs=3.0)
        else:
            assert declared.on_silence.after_s is not None
            made.run(declared.on_silence.after_s - 10.0)
            assert made.models[profile].power_w == pytest.approx(power_w, abs=3.0)
            made.run(10.0 + 5.0)
            silent_w = {"value": declared.on_silence.value_w, "unlimited": unlimited_w(made)}
            expected_w = silent_w[declared.on_silence.behaviour]
            assert made.models[profile].power_w == pytest.approx(expected_w, abs=3.0)
        assert await made.write(power_w, profile) is WriteStatus.ACKNOWLEDGED
        assert made.models[profile].power_w == pytest.approx(power_w, abs=3.0), "and obeys again"


def unlimited_w(made: Contract) -> float:
    """Without a limit: all that the sun gives; of a battery, whose own regulation has no meter here, nothing."""
    model = next(iter(made.models.values()))
    return -AVAILABLE_PU * RATING_W if isinstance(model, InverterModel) else 0.0


@pytest.mark.parametrize("profile", sorted({*READINGS, *PHOTOVOLTAICS}))
async def test_what_the_device_does_not_know_is_a_bad_sample(profile: str) -> None:
    async with contract(profile) as made:
        model = made.models[profile]
        model.power_w = model.frequency_hz = float("nan")
        model.voltage_v_by_phase = (float("nan"),) * 3
        samples = await made.samples(profile)
        asked = {"power_w", "frequency_hz", "voltage_v"} & set(samples)
        assert "power_w" in asked
        for point in asked:
            if profile in UNKNOWN_AS_ZERO:
                assert samples[point].value == 0.0, point
            else:
                assert is_bad(samples[point]), point


@pytest.mark.parametrize("profile", sorted(TWINS))
async def test_a_rebooted_twin_starts_with_its_defaults(profile: str) -> None:
    model = make_model(profile)
    make_unit(profile, model, clock=lambda: 0.0)
    if isinstance(model, BatteryModel):
        assert (model.setpoint_w, model.soc) == (None, SOC)
    else:
        assert model.ceiling_pu is None
    assert model.frequency_hz == FREQUENCY_HZ
