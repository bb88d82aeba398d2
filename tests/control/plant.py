"""A small plant for control tests: first-order devices behind a meter, sampled as drivers would."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp
from random import Random
from types import MappingProxyType

from config.vocabulary import (
    CHARGING_STATE,
    CURRENT_A_BY_PHASE,
    POWER_W,
    SESSION_ENERGY_WH,
    SOC,
    DeviceKind,
    Quality,
    Sample,
)
from gateway.control.clearing import make_curve
from gateway.control.decision import ControlState, Decision, decide, initial_state
from gateway.control.model import DEFAULT_CURVES_PU, DeviceModel, SiteModel
from gateway.control.orders_in_force import OrdersInForce
from gateway.image import DeviceImage, Image

LN_10 = 2.302585092994046


def device(name: str, kind: DeviceKind, rating_w: float, **changes: object) -> DeviceModel:
    least = 0.0 if kind is DeviceKind.CHARGER else -rating_w
    most = 0.0 if kind is DeviceKind.INVERTER else rating_w
    curve = make_curve([(price, power * rating_w) for price, power in DEFAULT_CURVES_PU[kind]])
    options: dict[str, object] = {"tr90_s": 0.2, "ceiling": kind in (DeviceKind.INVERTER, DeviceKind.CHARGER)}
    if kind is DeviceKind.CHARGER:
        options |= {"step_w": 690.0, "minimum_w": 4140.0}
    return DeviceModel(name, kind, rating_w, least, most, curve, **(options | changes))  # type: ignore[arg-type]


def site(*devices: DeviceModel, **changes: object) -> SiteModel:
    values: dict[str, object] = {
        "name": "test",
        "rating_w": 100e3,
        "meter": "meter",
        "phases": 3,
        "nominal_voltage_v": 230.0,
        "max_import_w": 100e3,
        "max_export_w": 100e3,
        "fuse_a": None,
        "fallback_import_w": 25e3,
        "fallback_export_w": 5e3,
        "rest_min_w": 0.0,
        "rest_max_w": 50e3,
        "rest_widens_w_per_s": 5e3,
        "price_per_kwh": 0.25,
        "stale_after_s": 1.0,
        "margin_w": 200.0,
        "integral_per_s": 0.5,
        "devices": devices,
    }
    return SiteModel(**(values | changes))  # type: ignore[arg-type]


@dataclass
class Plant:
    """Devices answer setpoints with first order response; `meter_lag_s` is the age of the meter's samples.

    `report_s`: devices that tell their power only so often; `car_states` by charger, else `car_state` for all of them;
    `asleep`: cars that draw nothing. `noise_w`: standard deviations of the rest and of the inverters' sun, anew in each
    period. `phase_rest_a`: currents of the rest by phase, where the meter shows currents.
    """

    model: SiteModel
    rest_w: float = 10e3
    available_w: dict[str, float] = field(default_factory=dict)
    delivers_pu: float = 1.0
    meter_lag_s: float = 0.0
    device_lag_s: float = 0.0
    period_s: float = 0.1
    soc: float = 0.5
    car_state: str = "C"
    car_states: dict[str, str] = field(default_factory=dict)
    asleep: set[str] = field(default_factory=set)
    report_s: dict[str, float] = field(default_factory=dict)
    noise_w: float = 0.0
    phases: dict[str, tuple[int, ...]] = field(default_factory=dict)
    phase_rest_a: tuple[float, float, float] | None = None
    session_wh: dict[str, float] = field(default_factory=dict)
    rng: Random = field(default_factory=lambda: Random(1))
    meter_good: bool = True
    lost: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    now_s: float = 100.0
    state: ControlState | None = None
    powers_w: dict[str, float] = field(default_factory=dict)
    setpoints_w: dict[str, float] = field(default_factory=dict)
    decision: Decision | None = None
    past: deque[tuple[float, float, dict[str, float]]] = field(default_factory=lambda: deque(maxlen=20_000))
    _reported: dict[str, Sample] = field(default_factory=dict)
    _noise_w: float = 0.0
    _sun_noise_w: float = 0.0

    @property
    def net_w(self) -> float:
        return self.rest_w + self._noise_w + sum(self.powers_w.values())

    def advance(self, dt_s: float) -> None:
        """Let the devices move."""
        step_s = 0.01 if dt_s < 1.0 else 0.1
        if self.noise_w:
            self._noise_w, self._sun_noise_w = self.rng.gauss(0.0, self.noise_w), self.rng.gauss(0.0, self.noise_w)
        for _ in range(round(dt_s / step_s)):
            self.now_s += step_s
            for one in self.model.devices:
                heading = self._heading_w(one)
                power = self.powers_w.get(one.name, 0.0)
                power += (heading - power) * (1.0 - exp(-LN_10 * step_s / one.tr90_s))
                self.powers_w[one.name] = power
                self.session_wh[one.name] = self.session_wh.get(one.name, 0.0) + power * step_s / 3600.0
            self.past.append((self.now_s, self.net_w, dict(self.powers_w)))

    def _heading_w(self, one: DeviceModel) -> float:
        if one.name in self.deaf:
            return self.powers_w.get(one.name, 0.0)
        asked = self.setpoints_w.get(one.name)
        if one.kind is DeviceKind.INVERTER:
            available = max(self.available_w.get(one.name, 0.0) + self._sun_noise_w, 0.0)
            return -min(available, available if asked is None else -asked)
        if one.kind is DeviceKind.CHARGER:
            takes = self.car_states.get(one.name, self.car_state) == "C" and one.name not in self.asleep
            return min(self.available_w.get(one.name, one.rating_w), asked or 0.0) if takes else 0.0
        return (asked or 0.0) * self.delivers_pu

    def image(self) -> Image:
        devices = {}
        quality = Quality.GOOD if self.meter_good else Quality.BAD
        at_s, net_w, _ = self._then(self.meter_lag_s)
        metered = {POWER_W: Sample(net_w if self.meter_good else None, quality, at_s)}
        for point, current_a in zip(CURRENT_A_BY_PHASE, self.phase_currents_a(), strict=False):
            metered[point] = Sample(current_a, quality, at_s)
        devices["meter"] = DeviceImage(metered, True)
        at_s, _, powers = self._then(self.device_lag_s)
        for one in self.model.devices:
            if one.name in self.lost:
                devices[one.name] = DeviceImage({POWER_W: Sample(None, Quality.BAD, self.now_s)}, False)
                continue
            samples = {POWER_W: self._report(one.name, Sample(powers[one.name], Quality.GOOD, at_s))}
            if one.kind is DeviceKind.BATTERY:
                samples[SOC] = Sample(self.soc, Quality.GOOD, self.now_s)
            if one.kind is DeviceKind.CHARGER:
                state = self.car_states.get(one.name, self.car_state)
                samples[CHARGING_STATE] = Sample(state, Quality.GOOD, self.now_s)
                samples[SESSION_ENERGY_WH] = Sample(self.session_wh.get(one.name, 0.0), Quality.GOOD, self.now_s)
            devices[one.name] = DeviceImage(samples, True)
        return Image(self.now_s, MappingProxyType(devices))

    def phase_currents_a(self) -> tuple[float, ...]:
        """Signed; empty where the meter shows none."""
        if self.phase_rest_a is None:
            return ()
        currents_a = list(self.phase_rest_a)
        for name, power_w in self.powers_w.items():
            phases = self.phases.get(name, (1, 2, 3))
            for phase in phases:
                currents_a[phase - 1] += power_w / len(phases) / self.model.nominal_voltage_v
        return tuple(currents_a)

    def _report(self, device: str, sample: Sample) -> Sample:
        known = self._reported.get(device)
        if known is None or sample.measured_s - known.measured_s >= self.report_s.get(device, 0.0) - 1e-6:
            self._reported[device] = known = sample
        return known

    def _then(self, ago_s: float) -> tuple[float, float, dict[str, float]]:
        if not self.past:
            self.advance(0.01)
        wanted = self.now_s - ago_s
        return next((entry for entry in reversed(self.past) if entry[0] <= wanted + 1e-9), self.past[0])

    def cycle(self, orders: OrdersInForce) -> Decision:
        """One control cycle: image, decision, setpoints taken, then the plant moves for a period."""
        self.state = self.state or initial_state(self.model)
        self.decision = decide(self.model, self.image(), orders, self.state)
        self.setpoints_w |= {one.device: one.power_w for one in self.decision.setpoints}
        self.advance(self.period_s)
        return self.decision

    def run(self, seconds: float, orders: OrdersInForce) -> list[float]:
        """Cycles for a while; the net power at the end of each."""
        trace = []
        for _ in range(round(seconds / self.period_s)):
            self.cycle(orders)
            trace.append(self.net_w)
        return trace
