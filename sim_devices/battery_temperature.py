"""A battery's cells as one warm body, and what heat and cold leave of its power."""

from __future__ import annotations

import math

from config.twin import BatteryTemperature
from sim_devices.device_model import SECONDS_PER_HOUR


class CellTemperature:
    """One temperature for all cells: `temperature_c` follows losses and surroundings, exactly for any step.

    dT/dt = (losses - cooling (T - ambient)) / heat capacity.
    """

    def __init__(self, settings: BatteryTemperature) -> None:
        self._settings = settings
        self.temperature_c = settings.ambient_c if settings.start_c is None else settings.start_c
        self._tau_s = settings.heat_capacity_wh_per_k * SECONDS_PER_HOUR / settings.cooling_w_per_k

    @property
    def charge_pu(self) -> float:
        """What is left of the charging power: nothing in the cold and in the heat, linear towards them."""
        s, now_c = self._settings, self.temperature_c
        return min(self.discharge_pu, _share((now_c - s.none_below_c) / (s.full_above_c - s.none_below_c)))

    @property
    def discharge_pu(self) -> float:
        """What is left of the discharging power: nothing in the heat, linear towards it."""
        s = self._settings
        return _share((s.none_above_c - self.temperature_c) / (s.none_above_c - s.full_below_c))

    def step(self, losses_w: float, dt_s: float) -> None:
        """Advance by `dt_s` in which the cells turned `losses_w` into heat."""
        settled_c = self._settings.ambient_c + losses_w / self._settings.cooling_w_per_k
        self.temperature_c += (settled_c - self.temperature_c) * -math.expm1(-dt_s / self._tau_s)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
