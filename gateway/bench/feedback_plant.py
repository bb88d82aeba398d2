"""A plant in plain numbers for studies of the feedback: devices with dead time and lag, a meter, and the decision.

Nothing here waits or talks: `decide` is called once a period with an image whose samples have the ages asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp
from random import Random
from types import MappingProxyType
from typing import Final

from config.vocabulary import CHARGING_STATE, POWER_W, SOC, DeviceKind, Quality, Sample
from gateway.control.clearing import make_curve
from gateway.control.decision import ControlState, Decision, decide, initial_state
from gateway.control.model import DEFAULT_CURVES_PU, DeviceModel, SiteModel
from gateway.control.orders_in_force import OrdersInForce
from gateway.control.trajectory import LN_10
from gateway.image import DeviceImage, Image

AMPERE_W: Final = 690.0
LEAST_W: Final = 4140.0
SHORTEST_STEP_S: Final = 0.01


def plant_device(name: str, kind: DeviceKind, rating_w: float, tr90_s: float, dead_time_s: float) -> DeviceModel:
    """A device with the default curve of its kind; chargers move in whole amperes from 6 A, on three phases."""
    charger = kind is DeviceKind.CHARGER
    return DeviceModel(
        name,
        kind,
        rating_w,
        0.0 if charger else -rating_w,
        0.0 if kind is DeviceKind.INVERTER else rating_w,
        make_curve([(price, power * rating_w) for price, power in DEFAULT_CURVES_PU[kind]]),
        ceiling=kind in (DeviceKind.INVERTER, DeviceKind.CHARGER),
        step_w=AMPERE_W if charger else None,
        minimum_w=LEAST_W if charger else 0.0,
        tr90_s=tr90_s,
        dead_time_s=dead_time_s,
        stale_after_s=60.0,
    )


def plant_site(devices: tuple[DeviceModel, ...], rating_w: float = 100e3) -> SiteModel:
    """A site without a fuse whose meter may be a minute old."""
    return SiteModel(
        name="plant",
        rating_w=rating_w,
        meter="meter",
        phases=3,
        nominal_voltage_v=230.0,
        max_import_w=rating_w,
        max_export_w=rating_w,
        fuse_a=None,
        fallback_import_w=0.25 * rating_w,
        fallback_export_w=0.05 * rating_w,
        rest_min_w=0.0,
        rest_max_w=0.5 * rating_w,
        rest_widens_w_per_s=0.05 * rating_w,
        price_per_kwh=0.25,
        stale_after_s=60.0,
        margin_w=0.002 * rating_w,
        integral_per_s=0.5,
        devices=devices,
    )


@dataclass(frozen=True, slots=True)
class Sampling:
    """How old samples are: a new one each interval, delivered after the delay. `stamped` False: the meter's sample says
    that it was measured when it was delivered, which pairs it wrongly."""

    meter_interval_s: float = 0.1
    meter_delay_s: float = 0.0
    device_interval_s: float = 0.1
    device_delay_s: float = 0.0
    stamped: bool = True


@dataclass(slots=True)
class _Machine:
    """One device as it really is."""

    model: DeviceModel
    lag_scale: float
    delivers_pu: float = 1.0
    power_w: float = 0.0
    asked_w: float = 0.0
    commands: deque[tuple[float, float]] = field(default_factory=deque)

    def advance(self, now_s: float, dt_s: float, goal: Callable[[float], float]) -> None:
        dead_s = self.model.dead_time_s * self.lag_scale
        while self.commands and self.commands[0][0] + dead_s <= now_s + 1e-9:
            self.asked_w = self.commands.popleft()[1]
        tau_s = self.model.tr90_s * self.lag_scale / LN_10
        self.power_w += (goal(self.asked_w) * self.delivers_pu - self.power_w) * (1.0 - exp(-dt_s / tau_s))


@dataclass(slots=True)
class FeedbackPlant:
    """Devices behind a meter. `lag_scale`: the real lag as a multiple of the declared one.

    `shows` turns the net power into what the meter says; None is no reading.
    """

    model: SiteModel
    sampling: Sampling = field(default_factory=Sampling)
    rest_w: float = 10e3
    lag_scale: float = 1.0
    delivers_pu: float = 1.0
    available_w: dict[str, float] = field(default_factory=dict)
    period_s: float = 0.1
    soc: float = 0.5
    noise_w: float = 0.0
    shows: Callable[[float], float | None] = lambda net_w: net_w
    now_s: float = 100.0
    rng: Random = field(default_factory=lambda: Random(1))
    lost: set[str] = field(default_factory=set)
    unanswered: dict[str, float] = field(default_factory=dict)
    state: ControlState | None = None
    decision: Decision | None = None
    machines: dict[str, _Machine] = field(default_factory=dict)
    _meter: deque[Sample] = field(default_factory=deque)
    _devices: dict[str, deque[Sample]] = field(default_factory=dict)
    _meter_due_s: float = 0.0
    _devices_due_s: float = 0.0

    def __post_init__(self) -> None:
        self.machines = {one.name: _Machine(one, self.lag_scale, self.delivers_pu) for one in self.model.devices}
        self._devices = {one.name: deque() for one in self.model.devices}
        self._sample()

    @property
    def net_w(self) -> float:
        return self.rest_w + sum(one.power_w for one in self.machines.values())

    def _goal(self, model: DeviceModel) -> Callable[[float], float]:
        if model.kind is DeviceKind.INVERTER:
            available_w = self.available_w.get(model.name, 0.0)
            return lambda asked: -min(available_w, -asked)
        if model.kind is DeviceKind.CHARGER:
            most_w = self.available_w.get(model.name, model.rating_w)
            return lambda asked: min(most_w, asked)
        return lambda asked: asked

    def advance(self, dt_s: float) -> None:
        """Let everything move, and take the samples that fall due."""
        fastest_s = min((one.tr90_s for one in self.model.devices), default=1.0) * self.lag_scale
        steps = max(round(dt_s / max(min(fastest_s / 10.0, self.period_s), SHORTEST_STEP_S)), 1)
        goals = {name: self._goal(one.model) for name, one in self.machines.items()}
        for _ in range(steps):
            self.now_s += dt_s / steps
            for name, one in self.machines.items():
                one.advance(self.now_s, dt_s / steps, goals[name])
            self._sample()

    def _sample(self) -> None:
        if self.now_s >= self._meter_due_s - 1e-9:
            value_w = self.shows(self.net_w + (self.rng.gauss(0.0, self.noise_w) if self.noise_w else 0.0))
            quality = Quality.BAD if value_w is None else Quality.GOOD
            self._meter.append(Sample(value_w, quality, self.now_s))
            self._meter_due_s = self.now_s + self.sampling.meter_interval_s
        if self.now_s >= self._devices_due_s - 1e-9:
            for name, one in self.machines.items():
                self._devices[name].append(Sample(one.power_w, Quality.GOOD, self.now_s))
            self._devices_due_s = self.now_s + self.sampling.device_interval_s

    def image(self) -> Image:
        """What has been delivered by now."""
        devices = {}
        meter = _delivered(self._meter, self.now_s - self.sampling.meter_delay_s)
        if meter is not None:
            value, quality, measured_s = meter
            delivered_s = measured_s if self.sampling.stamped else measured_s + self.sampling.meter_delay_s
            devices["meter"] = DeviceImage({POWER_W: Sample(value, quality, delivered_s)}, True)
        for one in self.model.devices:
            sample = _delivered(self._devices[one.name], self.now_s - self.sampling.device_delay_s)
            if sample is None or one.name in self.lost:
                devices[one.name] = DeviceImage({}, False)
                continue
            samples = {POWER_W: sample}
            if one.kind is DeviceKind.BATTERY:
                samples[SOC] = Sample(self.soc, Quality.GOOD, self.now_s)
            if one.kind is DeviceKind.CHARGER:
                samples[CHARGING_STATE] = Sample("C", Quality.GOOD, self.now_s)
            devices[one.name] = DeviceImage(samples, True)
        return Image(self.now_s, MappingProxyType(devices), MappingProxyType(dict(self.unanswered)))

    def cycle(self, orders: OrdersInForce) -> Decision:
        """One control cycle, after which the plant moves for a period."""
        self.state = self.state or initial_state(self.model)
        self.decision = decide(self.model, self.image(), orders, self.state)
        for one in self.decision.setpoints:
            if one.device not in self.lost:
                self.command(one.device, one.power_w)
        self.advance(self.period_s)
        return self.decision

    def command(self, device: str, power_w: float) -> None:
        """What the device is told now."""
        self.machines[device].commands.append((self.now_s, power_w))

    def run(self, seconds: float, orders: OrdersInForce) -> list[float]:
        """Cycles for a while; the net power at the end of each."""
        trace = []
        for _ in range(round(seconds / self.period_s)):
            self.cycle(orders)
            trace.append(self.net_w)
        return trace


def _delivered(samples: deque[Sample], measured_by_s: float) -> Sample | None:
    """The newest sample that has arrived; older ones are dropped."""
    while len(samples) > 1 and samples[1].measured_s <= measured_by_s + 1e-9:
        samples.popleft()
    return samples[0] if samples and samples[0].measured_s <= measured_by_s + 1e-9 else None
