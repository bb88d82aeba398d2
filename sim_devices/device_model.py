"""What all simulated devices share: their response, terminals, reversion timer and energy counters."""

from __future__ import annotations

import math
from collections import deque
from random import Random
from typing import Final, TypeAlias, TypedDict

from config.twin import DeviceTwin

ByPhase: TypeAlias = tuple[float, float, float]

SECONDS_PER_HOUR: Final = 3600.0
LN_10: Final = math.log(10.0)


class PowerResponse:
    """Dead time, then first order with Tr90, then a ramp limit: what a device makes of a target in watts."""

    def __init__(self, settings: DeviceTwin, value_w: float = 0.0) -> None:
        self.value_w = value_w
        self._tau_s = settings.tr90_s / LN_10
        self._dead_time_s = settings.dead_time_s
        self._ramp_w_per_s = settings.ramp_w_per_s
        self._elapsed_s = 0.0
        self._effective_w = value_w
        self._waiting: deque[tuple[float, float]] = deque()
        self._newest_w = value_w
        self._factor_dt_s = 0.0
        self._factor = 0.0

    def step(self, target_w: float, dt_s: float) -> float:
        """The power `dt_s` later, in watts, when `target_w` is asked for from now on."""
        if self._dead_time_s:
            target_w = self._delayed(target_w)
        if dt_s != self._factor_dt_s:
            self._factor_dt_s, self._factor = dt_s, -math.expm1(-dt_s / self._tau_s)
        change_w = (target_w - self.value_w) * self._factor
        if self._ramp_w_per_s is not None:
            most_w = self._ramp_w_per_s * dt_s
            change_w = min(max(change_w, -most_w), most_w)
        self._elapsed_s += dt_s
        self.value_w += change_w
        return self.value_w

    def _delayed(self, target_w: float) -> float:
        if target_w != self._newest_w:
            self._newest_w = target_w
            self._waiting.append((self._elapsed_s + self._dead_time_s, target_w))
        # Half a nanosecond: sums of equal steps fall just short of the dead time they add up to.
        while self._waiting and self._waiting[0][0] <= self._elapsed_s + 5e-10:
            self._effective_w = self._waiting.popleft()[1]
        return self._effective_w


class Terminals(TypedDict, total=False):
    """What every device may be given: its phases, their nominal voltage, and its own source of noise."""

    phases: tuple[int, ...]
    nominal_voltage_v: float
    nominal_frequency_hz: float
    rng: Random


class DeviceModel:
    """What all simulated devices share: terminals, phases, energy counters and seeded noise.

    `power_w` is the power at the terminals (load convention); the energy counters follow it. `reactive_var` is positive
    when absorbed. `voltage_v_by_phase`, `frequency_hz` and `energized` are set by the physics. `connected` false opens
    the device's switch, `energized` false is a dead grid: no power flows.
    """

    def __init__(
        self,
        name: str,
        rating_w: float,
        settings: DeviceTwin,
        *,
        phases: tuple[int, ...] = (1, 2, 3),
        nominal_voltage_v: float = 230.0,
        nominal_frequency_hz: float = 50.0,
        rng: Random | None = None,
    ) -> None:
        self.name = name
        self.rating_w = rating_w
        self.settings = settings
        self.phases = phases
        self.nominal_voltage_v = nominal_voltage_v
        self.voltage_v_by_phase: ByPhase = (nominal_voltage_v,) * 3
        self.frequency_hz = nominal_frequency_hz
        self.energized = True
        self.connected = True
        self.power_w = 0.0
        self.reactive_var = 0.0
        self.energy_import_wh = 0.0
        self.energy_export_wh = 0.0
        self.clipped = 0
        """How many commands were beyond the rating and were cut to it."""
        self.refused = 0
        """How many commands its twin has refused as its protocol does, where that is not Modbus: its server counts."""
        self.reversions = 0
        """How many times the reversion timer has run out."""
        self._deadline_s: float | None = None
        self._reversion_s: float | None = None
        self._response = PowerResponse(settings)
        self._rng = rng if rng is not None else Random(f"0/{name}")
        self._factor_by_phase = share_by_phase(phases)

    @property
    def voltage_v(self) -> float:
        """Mean phase-to-neutral voltage of the device's phases."""
        return sum(self.voltage_v_by_phase[phase - 1] for phase in self.phases) / len(self.phases)

    @property
    def power_w_by_phase(self) -> ByPhase:
        """Power on phases 1, 2, 3; 0 on a phase that the device is not on."""
        one, two, three = self._factor_by_phase
        return (self.power_w * one, self.power_w * two, self.power_w * three)

    @property
    def current_a_by_phase(self) -> ByPhase:
        """Current on phases 1, 2, 3, signed as the power (load convention)."""
        return current_a_by_phase(self.power_w_by_phase, self.voltage_v_by_phase)

    @property
    def reactive_var_by_phase(self) -> ByPhase:
        """Reactive power on phases 1, 2, 3."""
        one, two, three = self._factor_by_phase
        return (self.reactive_var * one, self.reactive_var * two, self.reactive_var * three)

    def reversion_remaining_s(self, now_s: float) -> float | None:
        """Seconds until the reversion timer runs out; None when it isn't armed."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - now_s)

    def refresh(self, now_s: float) -> None:
        """Restart an armed reversion timer without changing the command."""
        if self._deadline_s is not None and self._reversion_s is not None:
            self._deadline_s = now_s + self._reversion_s

    def _arm(self, reversion_s: float | None, now_s: float) -> None:
        if reversion_s is not None and not (math.isfinite(reversion_s) and reversion_s > 0):
            raise ValueError(f"{self.name}: a reversion time of {reversion_s} s is not a positive number")
        self._reversion_s = reversion_s
        self._deadline_s = None if reversion_s is None else now_s + reversion_s

    def _expired(self, now_s: float) -> bool:
        if self._deadline_s is None or now_s < self._deadline_s:
            return False
        self._deadline_s = None
        self.reversions += 1
        return True

    def _noise_w(self) -> float:
        return self._rng.gauss(0.0, self.settings.noise_w) if self.settings.noise_w else 0.0

    def _account(self, power_w: float, dt_s: float) -> None:
        self.power_w = power_w
        energy_wh = power_w * dt_s / SECONDS_PER_HOUR
        if energy_wh >= 0:
            self.energy_import_wh += energy_wh
        else:
            self.energy_export_wh -= energy_wh


def share_by_phase(phases: tuple[int, ...]) -> ByPhase:
    """The share of a symmetrical power that phases 1, 2, 3 carry."""
    one, two, three = (float(phase in phases) / len(phases) for phase in (1, 2, 3))
    return (one, two, three)


def current_a_by_phase(power_w: ByPhase, voltage_v: ByPhase) -> ByPhase:
    """Active current on phases 1, 2, 3, signed as the power; none where the phase is dead."""
    p, v = power_w, voltage_v
    if v[0] and v[1] and v[2]:
        return (p[0] / v[0], p[1] / v[1], p[2] / v[2])
    one, two, three = (power / voltage if voltage else 0.0 for power, voltage in zip(p, v, strict=True))
    return (one, two, three)
