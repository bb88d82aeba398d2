"""What an inverter does by itself at abnormal voltage and frequency: functions of IEEE Std 1547-2018, category B.

Responses are first-order with the standard's open-loop response time to 90 %, and exact for any step. A clearing time
is never exceeded: with a coarser step a device trips earlier and not later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Final

from config.grid_functions import EnterService, FrequencyDroop, GridFunctions, Priority, RideThrough

LN_10: Final = math.log(10.0)
SLACK_S: Final = 1e-9
"""Sums of equal steps fall just short of, or just beyond, the time they add up to."""

FADED_PU: Final = 1e-6
"""A response that has come this close to where it goes is there."""


class FirstOrder:
    """Follows an input with a time to 90 % of a step."""

    def __init__(self, response_s: float, value: float = 0.0) -> None:
        self.value = value
        self._tau_s = response_s / LN_10
        self._dt_s = 0.0
        self._factor = 0.0

    def step(self, target: float, dt_s: float) -> float:
        """The value `dt_s` later, with this input from now on."""
        if dt_s != self._dt_s:
            self._dt_s, self._factor = dt_s, -math.expm1(-dt_s / self._tau_s)
        self.value += (target - self.value) * self._factor
        if abs(target - self.value) < FADED_PU:
            self.value = target
        return self.value


def on_curve(curve: Sequence[tuple[float, float]], x: float) -> float:
    """The value at `x` of a curve of points by ascending x: linear between, level beyond its ends."""
    if x <= curve[0][0]:
        return curve[0][1]
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return curve[-1][1]


def droop_pu(settings: FrequencyDroop, deviation_hz: float, nominal_hz: float) -> float:
    """How much less is to be generated, per unit of rating, so far from nominal; below it negative: more.

    (f - fn - dbOF) / (fn kOF) above and (f - fn + dbUF) / (fn kUF) below: IEEE 1547-2018 Table 23.
    """
    beyond_hz = abs(deviation_hz) - settings.deadband_hz
    if beyond_hz <= 0:
        return 0.0
    return math.copysign(beyond_hz / (nominal_hz * settings.droop_pu), deviation_hz)


class ServiceState(StrEnum):
    """In service; ceasing for a moment; out of service after a trip or without a grid; coming back along its ramp."""

    IN_SERVICE = "in_service"
    CESSATION = "cessation"
    OUT = "out"
    ENTERING = "entering"


class Trips:
    """The trips of Tables 13 and 18: each limit's time runs while the value is beyond it."""

    def __init__(self, settings: RideThrough) -> None:
        s = settings
        self._over_v = [(s.over_voltage_1_pu, s.over_voltage_1_s), (s.over_voltage_2_pu, s.over_voltage_2_s)]
        self._under_v = [(s.under_voltage_1_pu, s.under_voltage_1_s), (s.under_voltage_2_pu, s.under_voltage_2_s)]
        self._over_f = [(s.over_frequency_1_hz, s.over_frequency_1_s), (s.over_frequency_2_hz, s.over_frequency_2_s)]
        self._under_f = [
            (-s.under_frequency_1_hz, s.under_frequency_1_s),
            (-s.under_frequency_2_hz, s.under_frequency_2_s),
        ]
        self._beyond_s = [0.0] * 8

    def step(self, low_pu: float, high_pu: float, deviation_hz: float, dt_s: float) -> bool:
        """Whether a clearing time ends before the next step would."""
        beyond = [(high_pu > limit, clear_s) for limit, clear_s in self._over_v]
        beyond += [(low_pu < limit, clear_s) for limit, clear_s in self._under_v]
        beyond += [(deviation_hz > limit, clear_s) for limit, clear_s in self._over_f]
        beyond += [(deviation_hz < limit, clear_s) for limit, clear_s in self._under_f]
        trips = False
        for at, (is_beyond, clear_s) in enumerate(beyond):
            self._beyond_s[at] = self._beyond_s[at] + dt_s if is_beyond else 0.0
            trips = trips or (is_beyond and self._beyond_s[at] + dt_s > clear_s + SLACK_S)
        return trips

    def reset(self) -> None:
        """All times begin anew."""
        self._beyond_s = [0.0] * 8


class Service:
    """Whether the inverter is in service, and how much of its rating it may use: `share_pu`, 0 to 1.

    Without ride-through settings only dead terminals take it out of service. Commanded connecting and disconnecting
    (permit service) is not its business: it acts at once.
    """

    def __init__(self, ride_through: RideThrough | None, enter: EnterService) -> None:
        self.state = ServiceState.IN_SERVICE
        self.share_pu = 1.0
        self.trips = 0
        """How many times it has gone out of service."""
        self._ride_through = ride_through
        self._trips = None if ride_through is None else Trips(ride_through)
        self._enter = enter
        self._inside_s = 0.0
        self._ceasing_s = 0.0

    def step(self, energized: bool, low_pu: float, high_pu: float, deviation_hz: float, dt_s: float) -> None:
        """Advance by `dt_s` at the least and highest phase voltage and this distance from nominal frequency."""
        if not energized:
            self._go_out()
        elif self.state is ServiceState.OUT:
            self._wait(low_pu, high_pu, deviation_hz, dt_s)
        elif self._trips is not None and self._trips.step(low_pu, high_pu, deviation_hz, dt_s):
            self._go_out()
        elif self._ride_through is not None and self._ceases(self._ride_through, low_pu, high_pu, dt_s):
            self.state, self.share_pu = ServiceState.CESSATION, 0.0
        else:
            self._rise(dt_s)

    def _go_out(self) -> None:
        if self.state is not ServiceState.OUT:
            self.trips += 1
        self.state, self.share_pu, self._inside_s, self._ceasing_s = ServiceState.OUT, 0.0, 0.0, 0.0
        if self._trips is not None:
            self._trips.reset()

    def _wait(self, low_pu: float, high_pu: float, deviation_hz: float, dt_s: float) -> None:
        enter = self._enter
        inside = enter.voltage_low_pu <= low_pu and high_pu <= enter.voltage_high_pu
        inside = inside and -enter.frequency_low_hz <= deviation_hz <= enter.frequency_high_hz
        self._inside_s = self._inside_s + dt_s if inside else 0.0
        if inside and self._inside_s >= enter.delay_s - SLACK_S:
            self.state = ServiceState.ENTERING

    def _ceases(self, settings: RideThrough, low_pu: float, high_pu: float, dt_s: float) -> bool:
        if settings.under_voltage_2_pu <= low_pu and high_pu <= settings.over_voltage_1_pu:
            self._ceasing_s = 0.0
            return False
        self._ceasing_s += dt_s
        return self._ceasing_s + dt_s > settings.cessation_s + SLACK_S

    def _rise(self, dt_s: float) -> None:
        if self.share_pu >= 1.0:
            return
        restoring = self.state is ServiceState.CESSATION and self._ride_through is not None
        ramp_s = self._ride_through.restore_s if restoring and self._ride_through else self._enter.ramp_s
        self.share_pu = min(1.0, self.share_pu + dt_s / ramp_s)
        if self.share_pu >= 1.0 - SLACK_S:
            self.state, self.share_pu = ServiceState.IN_SERVICE, 1.0


class InverterFunctions:
    """All functions of one inverter; `step` first, then what it says holds for the step that follows.

    `droop_pu`: how much less it generates for the frequency (negative: more). `generation_pu`: the most it generates
    for the voltage. `injected_pu`: reactive power injected, per unit of rated apparent power. `service` has the rest.
    """

    def __init__(self, settings: GridFunctions, rating_w: float, nominal_hz: float) -> None:
        self.settings = settings
        self.rating_va = rating_w * settings.apparent_power_pu
        self.service = Service(settings.ride_through, settings.enter_service)
        self.droop_pu = 0.0
        self.generation_pu = 1.0
        self.injected_pu = 0.0
        self.over_frequency = False
        self._nominal_hz = nominal_hz
        self._deadband_hz = math.inf if settings.frequency_droop is None else settings.frequency_droop.deadband_hz
        self._droop = None if settings.frequency_droop is None else FirstOrder(settings.frequency_droop.response_s)
        self._volt_var = None if settings.volt_var is None else FirstOrder(settings.volt_var.response_s)
        self._volt_watt = None if settings.volt_watt is None else FirstOrder(settings.volt_watt.response_s, 1.0)
        self._needs_voltage = any(
            function is not None for function in (settings.volt_var, settings.volt_watt, settings.ride_through)
        )
        self._fixed_pu = max(-1.0, min(1.0, settings.reactive_var / self.rating_va))

    @property
    def acts(self) -> bool:
        """Whether anything differs from a plain inverter at nominal voltage and frequency."""
        return bool(
            self.droop_pu
            or self.injected_pu
            or self.generation_pu < 1.0
            or self.over_frequency
            or self.service.share_pu < 1.0
        )

    def rests_at(self, frequency_hz: float) -> bool:
        """Whether a step at this frequency would leave everything as it is, whatever the voltage."""
        return (
            abs(frequency_hz - self._nominal_hz) <= self._deadband_hz
            and not self.droop_pu
            and not self._needs_voltage
            and self.service.share_pu >= 1.0
            and not self._fixed_pu
        )

    def step(self, energized: bool, voltages_pu: Sequence[float], frequency_hz: float, dt_s: float) -> None:
        """Advance by `dt_s` at the voltages of the device's phases, per unit of nominal."""
        deviation_hz = frequency_hz - self._nominal_hz
        if not energized:
            self.service.step(False, 0.0, 0.0, 0.0, dt_s)
            self.over_frequency = False
            self._forget()
            return
        self._follow_frequency(deviation_hz, dt_s)
        if self._needs_voltage or self.service.share_pu < 1.0:
            self.service.step(True, min(voltages_pu), max(voltages_pu), deviation_hz, dt_s)
            self._follow_voltage(sum(voltages_pu) / len(voltages_pu), dt_s)
        if self._volt_var is None:
            self.injected_pu = self._fixed_pu
        if self.service.share_pu <= 0.0:
            self._forget()

    def _follow_frequency(self, deviation_hz: float, dt_s: float) -> None:
        settings = self.settings.frequency_droop
        if settings is None or self._droop is None:
            return
        asked_pu = droop_pu(settings, deviation_hz, self._nominal_hz)
        self.over_frequency = asked_pu > 0.0
        if asked_pu or self.droop_pu:
            self.droop_pu = self._droop.step(asked_pu, dt_s)

    def _follow_voltage(self, voltage_pu: float, dt_s: float) -> None:
        if self._volt_var is not None and self.settings.volt_var is not None:
            self.injected_pu = self._volt_var.step(on_curve(self.settings.volt_var.curve, voltage_pu), dt_s)
        if self._volt_watt is not None and self.settings.volt_watt is not None:
            self.generation_pu = self._volt_watt.step(on_curve(self.settings.volt_watt.curve, voltage_pu), dt_s)

    def _forget(self) -> None:
        """Out of service nothing is injected, and a response begins anew."""
        self.injected_pu = self.droop_pu = 0.0
        for response in (self._droop, self._volt_var):
            if response is not None:
                response.value = 0.0

    def within_rating(self, power_w: float) -> tuple[float, float]:
        """Active power as far as the rated apparent power has room, and reactive power injected, in var."""
        rating_va = self.rating_va
        injected_var = self.injected_pu * rating_va
        if math.hypot(power_w, injected_var) <= rating_va:
            return power_w, injected_var
        if self.settings.priority is Priority.ACTIVE:
            most_var = math.sqrt(max(0.0, rating_va**2 - power_w**2))
            return power_w, math.copysign(min(abs(injected_var), most_var), injected_var)
        most_w = math.sqrt(max(0.0, rating_va**2 - injected_var**2))
        return math.copysign(min(abs(power_w), most_w), power_w), injected_var
