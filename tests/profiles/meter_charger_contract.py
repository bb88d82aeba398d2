"""Both ends of the contract between the profiles of meters and chargers and their twins: a real driver, the physics.

A twin has a clock of its own, which a test moves; the physics stands still in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

import pytest

from config.loading import load_profile
from config.profile import Access, PollGroup, Profile
from config.site import ModbusAddress, ModbusTcpAddress
from config.twin import DeviceTwin, EvTwin
from config.vocabulary import Quality, Sample, Setpoint, WriteStatus
from drivers.binding import DeviceBinding
from drivers.modbus.driver import ModbusDriver
from sim_devices.modbus import Unit, start_modbus_twin
from sim_devices.models import ChargerModel, MeterModel
from tests.drivers.modbus_server import RecordingSink, Watch

STEP_S = 0.1
SETTLING_S = 3.0
RATING_W = 22_080.0
VOLTAGES_V = (231.2, 229.4, 230.7)
FREQUENCY_HZ = 49.9
IMPORTED_WH, EXPORTED_WH = 1_234_500.0, 7_654_300.0
A_CAR = EvTwin(needed_wh=50_000.0, wake_s=0.2)


class Value(NamedTuple):
    """What a point should read, and how far it may be off: half a step of what holds it."""

    value: float | str
    within: float = 0.0


def prompt(profile: Profile) -> Profile:
    """The profile as it is but for its pauses, which are the real device's."""
    pauses = {"connect_pause_s": 0.0, "request_gap_s": 0.0, "slow_poll_s": 0.05}
    return profile.model_copy(update={"pace": profile.pace.model_copy(update=pauses)})


def readable(profile: Profile) -> set[str]:
    return {name for name, point in profile.points.items() if point.access is not Access.W}


def metered(power_w_by_phase: tuple[float, float, float], valid: bool = True) -> MeterModel:
    """A meter in the middle of its life, at a connection whose phases differ."""
    model = MeterModel("meter", 100_000.0, DeviceTwin())
    hours = 3_600_000.0
    model.measure((IMPORTED_WH / 1000.0, 0.0, 0.0), VOLTAGES_V, FREQUENCY_HZ, True, hours, 1.0)
    model.measure((-EXPORTED_WH / 1000.0, 0.0, 0.0), VOLTAGES_V, FREQUENCY_HZ, True, hours, 2.0)
    model.measure(power_w_by_phase, VOLTAGES_V, FREQUENCY_HZ, valid, 0.0, 3.0)
    return model


def charging(*evs: EvTwin, phases: tuple[int, ...] = (1, 2, 3)) -> ChargerModel:
    """A charger at terminals whose phases differ."""
    model = ChargerModel("charger", RATING_W * len(phases) / 3, DeviceTwin(tr90_s=0.1, evs=evs), phases=phases)
    model.voltage_v_by_phase = VOLTAGES_V
    model.frequency_hz = FREQUENCY_HZ
    model.energy_import_wh = IMPORTED_WH
    return model


def check(samples: Mapping[str, Sample], expected: Mapping[str, Value]) -> None:
    """Every point that is expected, and no other, is good and as far from the physics as its resolution allows."""
    assert samples.keys() == expected.keys()
    assert {name: samples[name].quality for name in expected} == dict.fromkeys(expected, Quality.GOOD)
    for name, (value, within) in expected.items():
        said = samples[name].value
        assert said == (value if isinstance(value, str) else pytest.approx(value, abs=within, rel=2e-7)), name


class Contract:
    """Drivers of one link, and what they tell. `model` is stepped by `run` where it is a charger."""

    def __init__(self, model: ChargerModel | MeterModel) -> None:
        self.model = model
        self.watch = Watch()
        self.sink = RecordingSink(self.watch)
        self.now_s = [1000.0]
        self.profiles: dict[str, Profile] = {}
        self.driver: ModbusDriver
        self.units: Mapping[int, Unit] = {}
        self._sequence = 0

    @property
    def charger(self) -> ChargerModel:
        assert isinstance(self.model, ChargerModel)
        return self.model

    def clock(self) -> float:
        return self.now_s[0]

    def run(self, duration_s: float) -> None:
        """Let the device's time pass, in which nobody asks it anything."""
        for _ in range(round(duration_s / STEP_S)):
            self.now_s[0] += STEP_S
            self.charger.step(STEP_S, self.now_s[0])

    async def write(self, power_w: float, device: str = "device") -> None:
        """A setpoint that is taken; then the device follows it for a while."""
        self._sequence += 1
        self.driver.write(Setpoint(device, power_w, "test", time.monotonic() + 60.0, self._sequence))
        await self.watch.until(lambda: bool(self.sink.results) and self.sink.results[-1].sequence == self._sequence)
        assert self.sink.results[-1].status is WriteStatus.ACKNOWLEDGED, self.sink.results[-1]
        self.run(SETTLING_S)

    async def samples(self, device: str = "device") -> dict[str, Sample]:
        """Every point, all but those that are read once measured after this call."""
        profile, asked_s = self.profiles[device], time.monotonic()
        names = {name for name in readable(profile) if profile.points[name].poll is not PollGroup.ONCE}

        def are_new() -> bool:
            latest = self.sink.latest.get(device, {})
            return all(name in latest and latest[name].measured_s > asked_s for name in names)

        async with asyncio.timeout(10.0):
            while not are_new():
                seen = len(self.sink.deliveries)
                self.driver.poll()
                await self.watch.until(lambda seen=seen: len(self.sink.deliveries) > seen)  # type: ignore[misc]
        return dict(self.sink.latest[device])

    @contextlib.asynccontextmanager
    async def driven(self, addresses: Mapping[str, tuple[str, ModbusAddress]]) -> AsyncIterator[None]:
        """A driver that has met its devices, which are given by name as profile and address."""
        self.profiles = {name: prompt(load_profile(profile)) for name, (profile, _) in addresses.items()}
        bindings = [self._bound(name, address) for name, (_, address) in addresses.items()]
        self.driver = ModbusDriver("link", bindings, self.sink, time.monotonic, rng=random.Random(1))
        task = asyncio.create_task(self.driver.run(), name="link")
        try:
            await self.watch.until(lambda: sum(present for _, present, _ in self.sink.devices) >= len(addresses))
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _bound(self, name: str, address: ModbusAddress) -> DeviceBinding:
        profile = self.profiles[name]
        reversion_s = profile.control.reversion_s if profile.control is not None else None
        phases = len(self.model.phases) if isinstance(self.model, ChargerModel) else 3
        return DeviceBinding(name, profile, address, self.model.rating_w, phases, reversion_s=reversion_s)


@contextlib.asynccontextmanager
async def over_tcp(profile: str, model: ChargerModel | MeterModel) -> AsyncIterator[Contract]:
    """The twin of a profile at unit 1 of a socket, and a driver that has met it."""
    made = Contract(model)
    twin = await start_modbus_twin(profile, model, unit=1, clock=made.clock, site="S")
    made.units = twin.server.units
    address = ModbusTcpAddress(driver="modbus_tcp", host="127.0.0.1", port=twin.port, unit=1)
    try:
        async with made.driven({"device": (profile, address)}):
            yield made
    finally:
        await twin.close()


Expected = Mapping[str, Callable[[ChargerModel], Value]]
