"""What each simulated device does with power, without protocol, clock or I/O.

Every model is advanced by `step(dt_s, now_s)` and commanded in between; `now_s` is the monotonic time that the twin's
server uses as well, so that reversion timers mean the same to both. Load convention throughout: generating and
discharging are negative.
"""

from __future__ import annotations

import math
from typing import Unpack

from config.twin import DeviceTwin
from sim_devices.battery_temperature import CellTemperature
from sim_devices.charger_model import MINIMUM_CURRENT_A, ChargerModel, Failsafe
from sim_devices.device_model import SECONDS_PER_HOUR, ByPhase, DeviceModel, PowerResponse, Terminals
from sim_devices.grid_following import GridFollowingModel
from sim_devices.inverter_functions import ServiceState
from sim_devices.meter_model import MeterModel, MeterReading

__all__ = [
    "MINIMUM_CURRENT_A",
    "SECONDS_PER_HOUR",
    "BatteryModel",
    "ByPhase",
    "ChargerModel",
    "DeviceModel",
    "Failsafe",
    "GridFollowingModel",
    "InverterModel",
    "MeterModel",
    "MeterReading",
    "PowerResponse",
    "ServiceState",
    "Terminals",
]


class InverterModel(GridFollowingModel):
    """A PV inverter: generates what the sun allows, below a ceiling that a reversion timer may drop.

    `available_pu` (per unit of rating) is set by the physics. After the reversion time the ceiling is `fallback_pu`;
    None: unlimited, as SunSpec model 123 does with WMaxLimPct_RvrtTms.
    """

    def __init__(self, name: str, rating_w: float, settings: DeviceTwin, **terminals: Unpack[Terminals]) -> None:
        super().__init__(name, rating_w, settings, **terminals)
        self.available_pu = 0.0
        self.ceiling_pu: float | None = None
        self.fallback_pu: float | None = None
        self._before_over_frequency_w: float | None = None

    @property
    def energy_wh(self) -> float:
        """Energy generated since the start."""
        return self.energy_export_wh

    @property
    def available_w(self) -> float:
        """What could be generated now without a ceiling, a magnitude."""
        return self.available_pu * self.rating_w

    def settle(self) -> None:
        """Take the power that the sun allows now for a steady state: the day didn't begin with the simulation."""
        self.power_w = self._response.value_w = -self.available_w

    def set_ceiling(self, generation_pu: float | None, reversion_s: float | None, now_s: float) -> None:
        """Generate at most `generation_pu` of the rating; None: no limit. Above 1 is cut to 1 and counted.

        Raises ValueError for a negative or non-finite ceiling or a reversion time that isn't positive.
        """
        if generation_pu is not None and not (math.isfinite(generation_pu) and generation_pu >= 0):
            raise ValueError(f"{self.name}: a ceiling of {generation_pu} is not a share of the rating")
        self._arm(reversion_s, now_s)
        if generation_pu is not None and generation_pu > 1:
            generation_pu = 1.0
            self.clipped += 1
        self.ceiling_pu = generation_pu

    def step(self, dt_s: float, now_s: float) -> None:
        """Advance by `dt_s`; `now_s` is the time at the end of the step."""
        if self._expired(now_s):
            self.ceiling_pu = self.fallback_pu
        available_w = self.available_w if self.connected and self.energized else 0.0
        target_w = available_w
        if self.ceiling_pu is not None:
            target_w = min(available_w, self.ceiling_pu * self.rating_w * self.settings.delivers_pu)
        grid_acts = self._grid_acts(dt_s)
        if grid_acts:
            target_w = self._for_the_grid(target_w, available_w)
        power_w = self._response.step(-target_w, dt_s) + self._noise_w()
        # Shade acts at once; the response is the inverter's answer to its ceiling and to more sun.
        power_w = min(0.0, max(power_w, -available_w))
        self._response.value_w = max(self._response.value_w, -available_w)
        self._account(self._limited_w(power_w) if grid_acts else power_w, dt_s)

    def _for_the_grid(self, target_w: float, available_w: float) -> float:
        """What is to be generated instead of `target_w`, a magnitude.

        At over-frequency less than what was generated when it began, and never above the ceiling; at under-frequency
        more than the ceiling, as far as there is sun (IEEE 1547-2018 clause 6.5.2.7, Table 23).
        """
        functions = self.functions
        less_w = functions.droop_pu * self.rating_w
        if functions.over_frequency:
            if self._before_over_frequency_w is None:
                self._before_over_frequency_w = -self.power_w
            target_w = min(target_w, self._before_over_frequency_w - less_w)
        else:
            self._before_over_frequency_w = None
            target_w = min(available_w, target_w - less_w)
        return max(0.0, min(target_w, functions.generation_pu * self.rating_w))


class BatteryModel(GridFollowingModel):
    """A battery with its inverter: follows a power setpoint within its rating, its taper and what it holds.

    Charging at p watts stores p times the charge efficiency; discharging takes p divided by the discharge efficiency.
    Without a setpoint it idles at 0 W; after the reversion time the setpoint is `fallback_w`, None where not said.
    """

    def __init__(
        self,
        name: str,
        rating_w: float,
        settings: DeviceTwin,
        *,
        capacity_wh: float,
        **terminals: Unpack[Terminals],
    ) -> None:
        super().__init__(name, rating_w, settings, **terminals)
        self.capacity_wh = capacity_wh
        self.soc = settings.soc
        self.setpoint_w: float | None = None
        self.fallback_w: float | None = None
        self._cells = None if settings.temperature is None else CellTemperature(settings.temperature)

    @property
    def temperature_c(self) -> float | None:
        """Of its cells; None where none is simulated."""
        return None if self._cells is None else self._cells.temperature_c

    @property
    def stored_wh(self) -> float:
        """Energy held now."""
        return self.soc * self.capacity_wh

    @property
    def max_charge_w(self) -> float:
        """The most it can charge with now, a magnitude at the terminals: rating, then linear to 0 at full.

        Less in heat and cold, where a temperature is simulated.
        """
        start = self.settings.taper_from_soc
        if self.soc >= 1.0:
            return 0.0
        most_w = self.rating_w * (1.0 if self.soc <= start else (1.0 - self.soc) / (1.0 - start))
        return most_w if self._cells is None else most_w * self._cells.charge_pu

    @property
    def max_discharge_w(self) -> float:
        """The most it can discharge with now, a magnitude at the terminals: rating, then linear to 0 at empty.

        Less in heat, where a temperature is simulated.
        """
        end = self.settings.taper_to_soc
        if self.soc <= 0.0:
            return 0.0
        most_w = self.rating_w * (1.0 if self.soc >= end else self.soc / end)
        return most_w if self._cells is None else most_w * self._cells.discharge_pu

    def set_power(self, power_w: float | None, reversion_s: float | None, now_s: float) -> None:
        """Hold `power_w` (load convention) until told otherwise or for `reversion_s`; None: idle.

        Beyond the rating it is cut to the rating and counted. Raises ValueError when it isn't finite or the reversion
        time isn't positive.
        """
        if power_w is not None and not math.isfinite(power_w):
            raise ValueError(f"{self.name}: a setpoint of {power_w} W is not a number")
        self._arm(reversion_s, now_s)
        if power_w is not None and abs(power_w) > self.rating_w:
            power_w = math.copysign(self.rating_w, power_w)
            self.clipped += 1
        self.setpoint_w = power_w

    def step(self, dt_s: float, now_s: float) -> None:
        """Advance by `dt_s`; `now_s` is the time at the end of the step."""
        if self._expired(now_s):
            self.setpoint_w = self.fallback_w
        most_w, least_w = self._bounds_w(dt_s)
        asked_w = self.setpoint_w if self.setpoint_w is not None and self.connected else 0.0
        target_w = min(max(asked_w * self.settings.delivers_pu, least_w), most_w)
        grid_acts = self._grid_acts(dt_s)
        if grid_acts:
            # A storage device answers frequency from its setpoint of the moment, charging included.
            target_w = min(max(target_w + self.functions.droop_pu * self.rating_w, least_w), most_w)
            target_w = max(target_w, -self.functions.generation_pu * self.rating_w)
        power_w = self._response.step(target_w, dt_s)
        if power_w:
            power_w += self._noise_w()
        power_w = min(max(power_w, least_w), most_w) if self.connected else 0.0
        self._response.value_w = min(max(self._response.value_w, least_w), most_w)
        if grid_acts:
            power_w = self._limited_w(power_w)
        self._store(power_w, dt_s)
        self._account(power_w, dt_s)

    def _bounds_w(self, dt_s: float) -> tuple[float, float]:
        hours = dt_s / SECONDS_PER_HOUR
        room_w = (1.0 - self.soc) * self.capacity_wh / (self.settings.charge_efficiency_pu * hours)
        held_w = self.stored_wh * self.settings.discharge_efficiency_pu / hours
        return min(self.max_charge_w, room_w), -min(self.max_discharge_w, held_w)

    def _store(self, power_w: float, dt_s: float) -> None:
        inside_w = (
            power_w * self.settings.charge_efficiency_pu
            if power_w >= 0
            else power_w / self.settings.discharge_efficiency_pu
        )
        if self._cells is not None:
            self._cells.step(power_w - inside_w, dt_s)
        stored_wh = self.stored_wh + inside_w * dt_s / SECONDS_PER_HOUR
        self.soc = min(1.0, max(0.0, stored_wh / self.capacity_wh))
