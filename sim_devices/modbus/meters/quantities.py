"""What a three-phase meter derives from what the physics knows: phasors at unity power factor, a third of the energy.

The bus of the physics has no reactive power and no angles, so that powers are in phase with the voltages, 120 degrees
apart; its counters are of the sum, of which a meter's phase counters show a third each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sim_devices.models import MeterModel

Get = Callable[[], float | None]


class Quantities:
    """Functions that read the meter's last measurement; each gives None while the meter knows it to be wrong."""

    def __init__(self, model: MeterModel) -> None:
        self._model = model

    def _if_valid(self, value: Callable[[], float]) -> Get:
        model = self._model
        return lambda: value() if model.valid else None

    def voltage_v(self, phase: int) -> Get:
        """Phase (0 to 2) to neutral."""
        return self._if_valid(lambda: self._model.voltage_v_by_phase[phase])

    def line_voltage_v(self, phase: int) -> Get:
        """Phase (0 to 2) to the next one."""

        def between() -> float:
            one, other = (self._model.voltage_v_by_phase[each % 3] for each in (phase, phase + 1))
            return math.sqrt(one * one + other * other + one * other)

        return self._if_valid(between)

    def mean_voltage_v(self) -> Get:
        """Mean of the phases to neutral."""
        return self._if_valid(lambda: sum(self._model.voltage_v_by_phase) / 3)

    def mean_line_voltage_v(self) -> Get:
        """Mean of the phases to each other."""
        each = [self.line_voltage_v(phase) for phase in range(3)]
        return self._if_valid(lambda: sum(get() or 0.0 for get in each) / 3)

    def current_a(self, phase: int, *, signed: bool) -> Get:
        """Of a phase (0 to 2), as its power or as a magnitude."""

        def current() -> float:
            value = self._model.current_a_by_phase[phase]
            return value if signed else abs(value)

        return self._if_valid(current)

    def current_sum_a(self) -> Get:
        """Sum of the phases' magnitudes."""
        return self._if_valid(lambda: sum(map(abs, self._model.current_a_by_phase)))

    def neutral_current_a(self) -> Get:
        """Magnitude of the vector sum of the phases."""

        def neutral() -> float:
            one, two, three = self._model.current_a_by_phase
            return math.sqrt(max(0.0, one**2 + two**2 + three**2 - one * two - two * three - three * one))

        return self._if_valid(neutral)

    def power_w(self, phase: int | None = None) -> Get:
        """Of a phase (0 to 2), or the sum; import positive."""
        return self._if_valid(lambda: self._model.power_w if phase is None else self._model.power_w_by_phase[phase])

    def apparent_va(self, phase: int | None = None) -> Get:
        """Of a phase (0 to 2), or their sum: the magnitudes of the powers."""

        def apparent() -> float:
            each = self._model.power_w_by_phase
            return sum(map(abs, each)) if phase is None else abs(each[phase])

        return self._if_valid(apparent)

    def factor(self, phase: int | None = None) -> Get:
        """Power factor with the sign of the power."""
        power = self.power_w(phase)
        return self._if_valid(lambda: math.copysign(1.0, power() or 0.0))

    def nothing(self) -> Get:
        """0: what unity power factor leaves of reactive power and distortion."""
        return self._if_valid(lambda: 0.0)

    def angle_deg(self, phase: int | None = None) -> Get:
        """Between current and voltage: 0, or 180 when power flows back."""
        power = self.power_w(phase)
        return self._if_valid(lambda: 0.0 if (power() or 0.0) >= 0 else 180.0)

    def frequency_hz(self) -> Get:
        """Of the grid."""
        return self._if_valid(lambda: self._model.frequency_hz)

    def imported_wh(self, share: float = 1.0) -> Get:
        """Imported energy; a counter stands, whatever the measurement is worth."""
        return lambda: self._model.energy_import_wh * share

    def exported_wh(self, share: float = 1.0) -> Get:
        """Exported energy."""
        return lambda: self._model.energy_export_wh * share

    def turned_over_wh(self, share: float = 1.0) -> Get:
        """Imported and exported energy together."""
        return lambda: (self._model.energy_import_wh + self._model.energy_export_wh) * share

    def net_wh(self, share: float = 1.0) -> Get:
        """Imported less exported energy."""
        return lambda: (self._model.energy_import_wh - self._model.energy_export_wh) * share
