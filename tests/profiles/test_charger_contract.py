"""The shipped profiles of chargers against twins whose register tables come from the vendors' documents.

Each with the real driver: what is read is what the physics says, a setpoint is the current that the charger then
offers, and what the profile says of a silent gateway is what happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest

from config.loading import load_profile
from config.profile import OnSilence
from config.site import OcppConnector
from config.twin import EvTwin
from config.vocabulary import Quality, Setpoint, WriteStatus
from drivers.binding import DeviceBinding
from drivers.ocpp.driver import OcppDriver
from sim_devices.models import ChargerModel
from sim_devices.ocpp_charger import OcppCharger
from sim_devices.until import ended
from tests.drivers.modbus_server import RecordingSink, Watch
from tests.profiles.meter_charger_contract import (
    A_CAR,
    FREQUENCY_HZ,
    RATING_W,
    STEP_S,
    VOLTAGES_V,
    Contract,
    Value,
    charging,
    check,
    over_tcp,
    readable,
)

CHARGERS = ["alfen_eve", "abb_terra_ac", "phoenix_charx"]
SETPOINTS = {0.0: 0.0, 4_000.0: 0.0, 4_140.0: 6.0, 11_040.0: 16.0, 11_500.0: 16.0, RATING_W: 32.0}
"""Watts, and the whole amperes on three phases of 230 V that a charger of the physics offers at most for them."""

Points = Callable[[Contract], dict[str, Value]]


def currents(model: ChargerModel, within: float) -> dict[str, Value]:
    each = enumerate(model.current_a_by_phase, start=1)
    return {f"current_l{phase}_a": Value(current_a, within) for phase, current_a in each}


def three_voltages(within: float) -> dict[str, Value]:
    one, two, three = VOLTAGES_V
    return {"voltage_v": Value(one, within), "voltage_l2_v": Value(two, within), "voltage_l3_v": Value(three, within)}


def alfen(made: Contract) -> dict[str, Value]:
    model = made.charger
    return {
        "power_w": Value(model.power_w, 1e-3),
        "charging_state": Value(str(model.state)),
        **currents(model, 1e-5),
        "voltage_v": Value(VOLTAGES_V[0], 1e-4),
        "frequency_hz": Value(FREQUENCY_HZ, 1e-5),
        "energy_import_wh": Value(model.energy_import_wh, 1e-6),
        "meter_state": Value(3.0),
        "meter_age_s": Value(0.0),
        "availability": Value("operative"),
        "applied_current_a": Value(model.requested_current_a),
        "valid_s": Value(model.reversion_remaining_s(made.clock()) or 0.0, 1.0),
        "set_current_a": Value(16.0),
        "safe_current_a": Value(6.0),
        "setpoint_accounted_for": Value("yes"),
        "charging_phases": Value("three"),
    }


def terra_ac(made: Contract) -> dict[str, Value]:
    model = made.charger
    return {
        "power_w": Value(model.power_w, 0.501),
        "charging_state": Value(str(model.state)),
        "limit_current_a": Value(model.offered_current_a),
        **currents(model, 0.000501),
        **three_voltages(0.0501),
        "session_energy_wh": Value(model.session_energy_wh, 0.501),
        "serial_number": Value(float(int.from_bytes(bytes((0x54, 0x22, 0x04, 0x00)))) * 2.0**32, 2.0**32),
        "firmware": Value(float(0x01082100)),
        "max_current_a": Value(32.0),
        "error_code": Value(0.0),
        "cable_state": Value("vehicle_locked"),
        "communication_timeout_s": Value(60.0),
    }


def charx(made: Contract) -> dict[str, Value]:
    model = made.charger
    return {
        "power_w": Value(model.power_w, 0.000501),
        "charging_state": Value(str(model.state)),
        **currents(model, 0.000501),
        **three_voltages(0.000501),
        "reactive_power_var": Value(0.0),
        "energy_import_wh": Value(model.energy_import_wh, 0.501),
        "connected_s": Value(22.0, 2.0),
        "session_energy_wh": Value(model.session_energy_wh, 0.501),
        "error_code": Value(0.0),
        "offered_current_a": Value(model.offered_current_a),
        "cable_current_a": Value(32.0),
        "release": Value(1.0),
        "set_current_a": Value(16.0),
        "watchdog_current_a": Value(6.0),
        "watchdog_s": Value(30.0),
        "release_mode": Value("modbus"),
        "configured_max_current_a": Value(32.0),
        "energy_meter": Value(6.0),
        "designation": Value("CHARX SEC-3150"),
        "software_version": Value("1.7.3"),
    }


EXPECTED: dict[str, Points] = {"alfen_eve": alfen, "abb_terra_ac": terra_ac, "phoenix_charx": charx}


@pytest.mark.parametrize("profile", CHARGERS)
async def test_a_charging_session_reads_as_the_physics_knows_it(profile: str) -> None:
    async with over_tcp(profile, charging(A_CAR)) as made:
        made.run(1.0)
        await made.write(11_040.0)
        await made.samples()
        made.run(20.0)
        assert str(made.charger.state) == "C"
        check(await made.samples(), EXPECTED[profile](made))
        assert readable(made.profiles["device"]) == EXPECTED[profile](made).keys()


@pytest.mark.parametrize("profile", CHARGERS)
async def test_the_states_of_a_connector(profile: str) -> None:
    comes = EvTwin(plug_in_s=5.0, needed_wh=50_000.0, wake_s=0.2)
    async with over_tcp(profile, charging(comes)) as made:
        assert (await made.samples())["charging_state"].value == "A"
        await made.write(0.0)
        made.run(5.0)
        assert (await made.samples())["charging_state"].value == "B"
        await made.write(RATING_W)
        assert (await made.samples())["charging_state"].value == "C"
        made.charger.faulted = True
        # The Terra AC has no state for a fault but "others", which may be a session that was stopped.
        assert (await made.samples())["charging_state"].value == ("B" if profile == "abb_terra_ac" else "F")


@pytest.mark.parametrize("profile", CHARGERS)
async def test_a_setpoint_is_the_current_that_is_offered(profile: str) -> None:
    async with over_tcp(profile, charging(A_CAR)) as made:
        made.run(1.0)
        for power_w, current_a in SETPOINTS.items():
            await made.write(power_w)
            assert made.charger.offered_current_a == current_a, power_w
            assert made.charger.power_w <= power_w * 1.01
        await made.driver.rest(2.0)
        assert made.charger.offered_current_a == 0.0


async def test_a_charger_on_one_phase_gets_three_times_the_current() -> None:
    async with over_tcp("alfen_eve", charging(A_CAR, phases=(1,))) as made:
        made.run(1.0)
        await made.write(3_680.0)
        assert made.charger.offered_current_a == 16.0
        assert (await made.samples())["charging_phases"].value == "one"


def silence_of(profile: str) -> tuple[OnSilence, float]:
    """What the profile says, and after how long."""
    silence = load_profile(profile).on_silence
    assert silence.after_s is not None
    return silence, silence.after_s


async def test_a_silent_gateway_leaves_a_charx_at_its_watchdog_current() -> None:
    silence, after_s = silence_of("phoenix_charx")
    async with over_tcp("phoenix_charx", charging(A_CAR)) as made:
        made.run(1.0)
        await made.write(11_040.0)
        made.run(after_s - 4.0)
        await made.samples()
        assert made.charger.offered_current_a == 16.0, "not before its time, and reading is no news"
        made.run(3.0)
        assert silence.behaviour == "value"
        nominal_w = made.charger.power_w * 230.0 * 3 / sum(VOLTAGES_V)
        assert nominal_w == pytest.approx(silence.value_w, rel=1e-3)
        await made.write(11_040.0)
        assert made.charger.offered_current_a == 16.0
        await made.write(0.0)
        made.run(after_s + 1.0)
        assert made.charger.power_w == 0.0, "a release that was withdrawn stays so"


@pytest.mark.parametrize("installed_a", [6.0, 32.0])
async def test_a_silent_gateway_leaves_an_alfen_at_whatever_safe_current_is_installed(installed_a: float) -> None:
    silence, after_s = silence_of("alfen_eve")
    async with over_tcp("alfen_eve", charging(A_CAR)) as made:
        made.units[1].safe_current_a = installed_a  # type: ignore[attr-defined]
        made.run(1.0)
        await made.write(11_040.0)
        made.run(after_s - 4.0)
        await made.samples()
        assert made.charger.offered_current_a == 16.0, "not before its time, and reading is no news"
        made.run(3.0)
        assert silence.behaviour == "unlimited"
        assert made.charger.offered_current_a == installed_a
        assert (await made.samples())["setpoint_accounted_for"].value == "no"


@pytest.mark.parametrize(("fallback_a", "offered_a", "error"), [(0xFF, 0.0, 0x4000), (32, 32.0, 0)])
async def test_a_silent_gateway_leaves_a_terra_ac_at_its_fallback_or_stopped(
    fallback_a: int, offered_a: float, error: float
) -> None:
    silence, after_s = silence_of("abb_terra_ac")
    async with over_tcp("abb_terra_ac", charging(A_CAR)) as made:
        assert made.units[1].write(0x4109, fallback_a.to_bytes(2, "big")) is None
        made.run(1.0)
        await made.write(11_040.0)
        for _ in range(4):
            made.run(after_s / 3)
            await made.samples()
        assert made.charger.offered_current_a == 16.0, "whoever reads is not silent"
        made.run(after_s + 1.0)
        assert silence.behaviour == "unlimited"
        assert made.charger.offered_current_a == offered_a
        assert (await made.samples())["error_code"].value == error
        await made.write(6_900.0)
        assert made.charger.offered_current_a == 10.0


# A charger that calls


class Called:
    """A central system and the charge point that calls it, both on times that a test moves."""

    def __init__(self, model: ChargerModel) -> None:
        self.model = model
        self.watch = Watch()
        self.sink = RecordingSink(self.watch)
        self.profile = load_profile("ocpp16_charger")
        self.moved_s = 0.0
        self._sequence = 0
        address = OcppConnector(driver="ocpp", listen_host="127.0.0.1", listen_port=0, charge_point="CP1")
        assert self.profile.control is not None
        binding = DeviceBinding("device", self.profile, address, RATING_W, reversion_s=self.profile.control.reversion_s)
        self.driver = OcppDriver("link", [binding], self.sink, time.monotonic, utc=self.utc)
        self.twin: OcppCharger

    def utc(self) -> float:
        return time.time() + self.moved_s

    def run(self, duration_s: float) -> None:
        """Let the charger's time pass."""
        for _ in range(round(duration_s / STEP_S)):
            self.moved_s += STEP_S
            self.twin.evaluate()
            self.model.step(STEP_S, self.utc())

    async def write(self, power_w: float) -> None:
        self._sequence += 1
        self.driver.write(Setpoint("device", power_w, "test", time.monotonic() + 60.0, self._sequence))
        await self.watch.until(lambda: bool(self.sink.results) and self.sink.results[-1].sequence == self._sequence)
        assert self.sink.results[-1].status is WriteStatus.ACKNOWLEDGED, self.sink.results[-1]
        self.run(3.0)

    async def shows(self, state: str) -> None:
        """Wait until the charger has told this state."""
        await self.watch.until(lambda: self.said("charging_state") == state)

    def said(self, point: str) -> float | str | None:
        sample = self.sink.latest.get("device", {}).get(point)
        return None if sample is None or sample.quality is Quality.BAD else sample.value

    def ask_for_meter_values(self) -> None:
        assert self.twin.want("MeterValues")


@contextlib.asynccontextmanager
async def called(*evs: EvTwin) -> AsyncIterator[Called]:
    made = Called(charging(*evs))
    serving = asyncio.create_task(made.driver.run(), name="link")
    try:
        await made.watch.until(lambda: bool(made.sink.links) and made.driver.port > 0)
        made.twin = OcppCharger(
            made.model, made.utc, url=f"ws://127.0.0.1:{made.driver.port}/ocpp", identity="CP1", utc=made.utc
        )
        calling = asyncio.create_task(made.twin.run(), name="twin")
        try:
            await made.watch.until(lambda: any(present for _, present, _ in made.sink.devices))
            yield made
        finally:
            await ended(calling)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def test_a_charge_point_tells_a_session_as_the_physics_knows_it() -> None:
    async with called(EvTwin(plug_in_s=1.0, unplug_s=60.0, needed_wh=50_000.0, wake_s=0.2)) as made:
        await made.shows("A")
        assert made.said("power_w") == 0.0
        made.run(2.0)
        await made.watch.until(lambda: made.twin.transaction is not None)
        await made.shows("B")
        await made.write(11_040.0)
        await made.shows("C")
        made.ask_for_meter_values()
        await made.watch.until(lambda: made.said("power_w") == pytest.approx(made.model.power_w, abs=1e-3))
        assert made.said("energy_import_wh") == pytest.approx(made.model.energy_import_wh, abs=1e-3)
        assert made.said("session_energy_wh") == pytest.approx(made.model.session_energy_wh, abs=1.0)
        assert made.said("voltage_v") == pytest.approx(VOLTAGES_V[0], abs=1e-3)
        for phase, current_a in enumerate(made.model.current_a_by_phase, start=1):
            assert made.said(f"current_l{phase}_a") == pytest.approx(current_a, abs=1e-3)
        assert made.sink.latest["device"].keys() == readable(made.profile)
        made.run(60.0)
        await made.shows("A")
        assert made.twin.transaction is None


async def test_a_setpoint_is_the_current_that_a_charge_point_offers() -> None:
    async with called(A_CAR) as made:
        made.run(1.0)
        await made.watch.until(lambda: made.twin.transaction is not None)
        for power_w, current_a in SETPOINTS.items():
            await made.write(power_w)
            assert made.model.offered_current_a == current_a, power_w
        await made.driver.rest(2.0)
        made.twin.evaluate()
        assert made.model.offered_current_a == 6.0, "rest is the fallback"


async def test_a_silent_gateway_leaves_a_charge_point_at_the_fallback_it_was_given() -> None:
    silence, after_s = silence_of("ocpp16_charger")
    async with called(A_CAR) as made:
        made.run(1.0)
        await made.watch.until(lambda: made.twin.transaction is not None)
        for power_w in (11_040.0, 0.0):
            await made.write(power_w)
            made.run(after_s - 5.0)
            assert made.model.offered_current_a == SETPOINTS[power_w]
            made.run(6.0)
            assert silence.behaviour == "value"
            nominal_w = made.model.power_w * 230.0 * 3 / sum(VOLTAGES_V)
            assert nominal_w == pytest.approx(silence.value_w, rel=1e-3)
