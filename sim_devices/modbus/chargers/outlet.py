"""What a charger's own meter reads from its model, phase by phase, as functions for its register table."""

from __future__ import annotations

import math
from collections.abc import Callable

from sim_devices.models import ChargerModel

Get = Callable[[], float]


class Outlet:
    """Functions that read the model; a phase that the charger is not on has no voltage, current or power."""

    def __init__(self, model: ChargerModel) -> None:
        self._model = model

    def voltage_v(self, phase: int) -> Get:
        """Phase (0 to 2) to neutral."""
        model = self._model
        return lambda: model.voltage_v_by_phase[phase] if phase + 1 in model.phases else 0.0

    def line_voltage_v(self, phase: int) -> Get:
        """Phase (0 to 2) to the next one, 120 degrees on."""
        one, other = self.voltage_v(phase), self.voltage_v((phase + 1) % 3)
        return lambda: math.sqrt(one() ** 2 + other() ** 2 + one() * other()) if one() and other() else 0.0

    def current_a(self, phase: int) -> Get:
        """Of a phase (0 to 2), a magnitude."""
        return lambda: abs(self._model.current_a_by_phase[phase])

    def power_w(self, phase: int) -> Get:
        """Of a phase (0 to 2); cars draw at unity power factor."""
        return lambda: self._model.power_w_by_phase[phase]
