"""The meter at the connection point, with its own measuring interval and delay."""

from __future__ import annotations

import math
from collections import deque
from random import Random
from typing import NamedTuple

from config.twin import DeviceTwin
from sim_devices.device_model import SECONDS_PER_HOUR, ByPhase, current_a_by_phase


class MeterReading(NamedTuple):
    """One measurement of a meter; `valid` false means that the meter knows it to be wrong."""

    measured_s: float
    valid: bool
    power_w: float
    power_w_by_phase: ByPhase
    voltage_v_by_phase: ByPhase
    frequency_hz: float
    energy_import_wh: float
    energy_export_wh: float
    reactive_var_by_phase: ByPhase = (0.0, 0.0, 0.0)


class MeterModel:
    """The meter at the connection point: net power (import positive), voltage, frequency, energy.

    It is behind the breaker and has a supply of its own: while the breaker is open it shows 0 V, 0 Hz and no power.

    It measures at every physics step or at its own `sample_interval_s`, and shows a measurement `dead_time_s` after it
    was made. While `valid` is false a twin must answer with its protocol's "not available".
    """

    def __init__(self, name: str, rating_w: float, settings: DeviceTwin, *, rng: Random | None = None) -> None:
        self.name = name
        self.rating_w = rating_w
        self.settings = settings
        self.reading = MeterReading(-math.inf, False, 0.0, (0.0,) * 3, (230.0,) * 3, 50.0, 0.0, 0.0)
        self._shown_after: deque[MeterReading] = deque()
        self._rng = rng if rng is not None else Random(f"0/{name}")
        self._import_wh = 0.0
        self._export_wh = 0.0
        self._next_s: float | None = None

    @property
    def valid(self) -> bool:
        """False while the sum at the bus is not known."""
        return self.reading.valid

    @property
    def measured_s(self) -> float:
        """Monotonic time at which the values shown were measured."""
        return self.reading.measured_s

    @property
    def power_w(self) -> float:
        """Net power, import positive."""
        return self.reading.power_w

    @property
    def power_w_by_phase(self) -> ByPhase:
        """Net power on phases 1, 2, 3."""
        return self.reading.power_w_by_phase

    @property
    def voltage_v_by_phase(self) -> ByPhase:
        """Phase-to-neutral voltages."""
        return self.reading.voltage_v_by_phase

    @property
    def current_a_by_phase(self) -> ByPhase:
        """Currents on phases 1, 2, 3, signed as the power."""
        return current_a_by_phase(self.reading.power_w_by_phase, self.reading.voltage_v_by_phase)

    @property
    def reactive_var_by_phase(self) -> ByPhase:
        """Reactive power on phases 1, 2, 3, positive when absorbed behind the meter."""
        return self.reading.reactive_var_by_phase

    @property
    def frequency_hz(self) -> float:
        """Frequency at the connection point."""
        return self.reading.frequency_hz

    @property
    def energy_import_wh(self) -> float:
        """Imported energy since the start."""
        return self.reading.energy_import_wh

    @property
    def energy_export_wh(self) -> float:
        """Exported energy since the start."""
        return self.reading.energy_export_wh

    def measure(
        self,
        power_w_by_phase: ByPhase,
        voltage_v_by_phase: ByPhase,
        frequency_hz: float,
        valid: bool,
        dt_s: float,
        now_s: float,
        reactive_var_by_phase: ByPhase = (0.0, 0.0, 0.0),
    ) -> None:
        """Advance by `dt_s`, in which this power flowed; called by the physics once per step.

        A sum that isn't known shows at once, whatever the interval.
        """
        net_w = sum(power_w_by_phase)
        if net_w >= 0:
            self._import_wh += net_w * dt_s / SECONDS_PER_HOUR
        else:
            self._export_wh -= net_w * dt_s / SECONDS_PER_HOUR
        if not valid:
            self._shown_after.clear()
            self.reading = self.reading._replace(valid=False)
            self._next_s = None
            return
        if self._is_due(now_s):
            noise_w = self._rng.gauss(0.0, self.settings.noise_w) / 3 if self.settings.noise_w else 0.0
            p = power_w_by_phase if not noise_w else plus_each(power_w_by_phase, noise_w)
            self._shown_after.append(
                MeterReading(
                    now_s,
                    True,
                    sum(p),
                    p,
                    voltage_v_by_phase,
                    frequency_hz,
                    self._import_wh,
                    self._export_wh,
                    reactive_var_by_phase,
                )
            )
        while self._shown_after and self._shown_after[0].measured_s + self.settings.dead_time_s <= now_s:
            self.reading = self._shown_after.popleft()

    def _is_due(self, now_s: float) -> bool:
        interval_s = self.settings.sample_interval_s
        if not interval_s:
            return True
        if self._next_s is None:
            self._next_s = now_s
        if now_s < self._next_s:
            return False
        while self._next_s <= now_s:
            self._next_s += interval_s
        return True


def plus_each(values: ByPhase, each: float) -> ByPhase:
    """Add `each` to all three."""
    return (values[0] + each, values[1] + each, values[2] + each)
