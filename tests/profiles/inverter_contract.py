"""Both ends of the contract between inverter profiles and their twins: the real driver, a real socket, the physics.

The twin has a clock of its own, which a test moves; the physics stands still in between.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from config.loading import load_profile
from config.profile import Access, PointProfile, PollGroup, Profile
from config.site import ModbusTcpAddress
from config.twin import DeviceTwin
from config.vocabulary import DeviceKind, Quality, Sample, Setpoint, WriteStatus
from drivers.binding import DeviceBinding
from drivers.modbus.driver import ModbusDriver
from sim_devices.modbus import start_modbus_twin
from sim_devices.modbus.twin import TWINS
from sim_devices.models import BatteryModel, InverterModel
from tests.drivers.modbus_server import RecordingSink, Watch

STEP_S = 0.1
SETTLING_S = 5.0
RATING_W = 10_000.0
CAPACITY_WH = 20_000.0
VOLTAGES_V = (231.2, 229.4, 230.7)
FREQUENCY_HZ = 49.98
AVAILABLE_PU = 0.8
SOC = 0.612


class Value(NamedTuple):
    """What a point should read, and how far it may be off: half a step of the register that holds it."""

    value: float | str
    within: float = 0.0


def prompt(profile: Profile, slow_poll_s: float = 0.02) -> Profile:
    """The profile as it is but for its pauses, which are the real device's."""
    pauses = {"connect_pause_s": 0.0, "request_gap_s": 0.0, "slow_poll_s": slow_poll_s}
    return profile.model_copy(update={"pace": profile.pace.model_copy(update=pauses)})


def phases_of(profile: str) -> tuple[int, ...]:
    return (1,) if profile.endswith("_1ph") else (1, 2, 3)


def make_model(profile: str) -> BatteryModel | InverterModel:
    """A device in the middle of its life, at terminals whose phases differ."""
    settings = DeviceTwin(tr90_s=0.2, soc=SOC)
    model: BatteryModel | InverterModel
    if TWINS[profile].kind is DeviceKind.BATTERY:
        model = BatteryModel(profile, RATING_W, settings, capacity_wh=CAPACITY_WH, phases=phases_of(profile))
    else:
        model = InverterModel(profile, RATING_W, settings, phases=phases_of(profile))
        model.available_pu = AVAILABLE_PU
        model.settle()
    model.voltage_v_by_phase = VOLTAGES_V
    model.frequency_hz = FREQUENCY_HZ
    model.energy_import_wh, model.energy_export_wh = 1_234_567.0, 7_654_321.0
    return model


def readable(profile: Profile) -> dict[str, PointProfile]:
    return {name: point for name, point in profile.points.items() if point.access is not Access.W}


class Contract:
    """A site of one unit: the models behind it by profile, and the driver's samples."""

    def __init__(self, models: Mapping[str, BatteryModel | InverterModel], now_s: list[float]) -> None:
        self.models = models
        self.watch = Watch()
        self.sink = RecordingSink(self.watch)
        self.driver: ModbusDriver
        self._now_s = now_s
        self._sequence = 0

    @property
    def battery(self) -> BatteryModel:
        return next(model for model in self.models.values() if isinstance(model, BatteryModel))

    @property
    def pv(self) -> InverterModel:
        return next(model for model in self.models.values() if isinstance(model, InverterModel))

    def run(self, duration_s: float) -> None:
        """Let the device's time pass, in which nobody asks it anything."""
        for _ in range(round(duration_s / STEP_S)):
            self._now_s[0] += STEP_S
            for model in self.models.values():
                model.step(STEP_S, self._now_s[0])

    async def write(self, power_w: float, device: str) -> WriteStatus:
        """What became of a setpoint; then the device follows it for a while."""
        self._sequence += 1
        setpoint = Setpoint(device, power_w, "test", time.monotonic() + 60.0, self._sequence)
        self.driver.write(setpoint)
        await self.watch.until(lambda: bool(self.sink.results) and self.sink.results[-1].sequence == self._sequence)
        self.run(SETTLING_S)
        return self.sink.results[-1].status

    async def poll(self) -> None:
        """One fast poll, or what is left of one that is under way."""
        seen = len(self.sink.deliveries)
        self.driver.poll()
        await self.watch.until(lambda: len(self.sink.deliveries) > seen)

    async def samples(self, device: str) -> dict[str, Sample]:
        """Every point, all but those that are read once measured after this call."""
        asked_s = time.monotonic()
        points = {name: point.poll for name, point in readable(load_profile(device)).items()}

        def are_new(*groups: PollGroup) -> bool:
            latest = self.sink.latest.get(device, {})
            names = [name for name, group in points.items() if group in groups]
            return all(name in latest and latest[name].measured_s > asked_s for name in names)

        while not are_new(PollGroup.FAST):
            await self.poll()
        await self.watch.until(lambda: are_new(PollGroup.FAST, PollGroup.SLOW))
        return dict(self.sink.latest[device])


@contextlib.asynccontextmanager
async def contract(*profiles: str, slow_poll_s: float = 0.02) -> AsyncIterator[Contract]:
    """The twins of these profiles as one unit, and a driver that has met them."""
    now_s = [1000.0]
    models = {profile: make_model(profile) for profile in profiles}
    first, *others = profiles
    twin = await start_modbus_twin(first, models[first], unit=3, clock=lambda: now_s[0], site="S")
    for other in others:
        twin.add_unit(other, models[other], unit=3)
    made = Contract(models, now_s)
    address = ModbusTcpAddress(driver="modbus_tcp", host="127.0.0.1", port=twin.port, unit=3)
    bindings = [bind(name, address, slow_poll_s) for name in profiles]
    made.driver = ModbusDriver("link", bindings, made.sink, time.monotonic, rng=random.Random(1))
    task = asyncio.create_task(made.driver.run(), name="link")
    try:
        await made.watch.until(lambda: sum(present for _, present, _ in made.sink.devices) >= len(profiles))
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await twin.close()


def bind(name: str, address: ModbusTcpAddress, slow_poll_s: float) -> DeviceBinding:
    profile = prompt(load_profile(name), slow_poll_s)
    reversion_s = profile.control.reversion_s if profile.control else None
    return DeviceBinding(name, profile, address, RATING_W, phases=len(phases_of(name)), reversion_s=reversion_s)


def is_bad(sample: Sample) -> bool:
    return sample.quality is Quality.BAD
