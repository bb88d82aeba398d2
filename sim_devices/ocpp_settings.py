"""Configuration keys of a charge point with OCPP 1.6, and the meter values that they ask of it.

Source: OCPP 1.6 edition 2, section 5.3 (ChangeConfiguration), 9.1 (core profile), 9.4 (smart charging), 7.29 to 7.44
(types of sampled values).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ocpp.v16.enums import ConfigurationKey, ConfigurationStatus, Location, Measurand, ReadingContext, UnitOfMeasure

from sim_devices.models import ChargerModel
from sim_devices.ocpp_limits import HIGHEST_LEVEL, MOST_PERIODS, MOST_PROFILES

LONGEST_VALUE: Final = 500

HEARTBEAT: Final = ConfigurationKey.heartbeat_interval.value
SAMPLE_INTERVAL: Final = ConfigurationKey.meter_value_sample_interval.value
SAMPLED_DATA: Final = ConfigurationKey.meter_values_sampled_data.value

ACCEPTED: Final[str] = ConfigurationStatus.accepted.value
REJECTED: Final[str] = ConfigurationStatus.rejected.value
NOT_SUPPORTED: Final[str] = ConfigurationStatus.not_supported.value

_READ_ONLY: Final = {
    ConfigurationKey.charge_profile_max_stack_level.value: str(HIGHEST_LEVEL),
    ConfigurationKey.charging_schedule_allowed_charging_rate_unit.value: "Current,Power",
    ConfigurationKey.charging_schedule_max_periods.value: str(MOST_PERIODS),
    ConfigurationKey.max_charging_profiles_installed.value: str(MOST_PROFILES),
    ConfigurationKey.number_of_connectors.value: "1",
    ConfigurationKey.supported_feature_profiles.value: "Core,SmartCharging,RemoteTrigger",
    ConfigurationKey.authorize_remote_tx_requests.value: "false",
}
_AT_THE_START: Final = {
    HEARTBEAT: "300",
    SAMPLE_INTERVAL: "60",
    SAMPLED_DATA: Measurand.energy_active_import_register.value,
}
_NUMBERS: Final = (HEARTBEAT, SAMPLE_INTERVAL)

Sampled = dict[str, str]


class Settings:
    """What can be read and changed of the configuration; it lasts until the twin's end."""

    def __init__(self) -> None:
        self._changeable = dict(_AT_THE_START)

    @property
    def heartbeat_s(self) -> int:
        """Time between two heartbeats; 0: none."""
        return int(self._changeable[HEARTBEAT])

    @property
    def sample_interval_s(self) -> int:
        """Time between two meter values in a transaction; 0: none."""
        return int(self._changeable[SAMPLE_INTERVAL])

    @property
    def measurands(self) -> list[str]:
        """What is sampled."""
        return [name for part in self._changeable[SAMPLED_DATA].split(",") if (name := part.strip())]

    def set_heartbeat(self, interval_s: int) -> None:
        """What the central system has said to BootNotification."""
        self._changeable[HEARTBEAT] = str(max(interval_s, 0))

    def read(self, keys: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
        """The keys that are known (all for none), and the names of those that aren't."""
        values = _READ_ONLY | self._changeable
        wanted = list(keys) or list(values)
        known = [{"key": key, "readonly": key in _READ_ONLY, "value": values[key]} for key in wanted if key in values]
        return known, [key for key in wanted if key not in values]

    def change(self, key: str, value: str) -> str:
        """Set one key; the status. A list of measurands is taken whole or not at all."""
        if key in _READ_ONLY:
            return REJECTED
        if key not in self._changeable:
            return NOT_SUPPORTED
        names = [part.strip() for part in value.split(",")]
        is_number = value.isascii() and value.isdigit() and len(value) < 9
        fits = is_number if key in _NUMBERS else set(names) <= _SAMPLERS.keys()
        if not fits or len(value) > LONGEST_VALUE:
            return REJECTED
        self._changeable[key] = value
        return ACCEPTED


def sampled_values(model: ChargerModel, measurands: Sequence[str], *, asked: bool) -> list[Sampled]:
    """The values of these measurands now; `asked`: the central system has asked, else it is the interval's turn."""
    context = ReadingContext.trigger if asked else ReadingContext.sample_periodic
    more = {"context": context.value, "location": Location.outlet.value}
    return [value | more for name in measurands if name in _SAMPLERS for value in _SAMPLERS[name](model)]


def _one(measurand: Measurand, unit: UnitOfMeasure | None, value: float, phase: str | None = None) -> Sampled:
    sampled = {"measurand": measurand.value, "value": f"{value:.3f}".rstrip("0").rstrip(".")}
    if unit is not None:
        sampled["unit"] = unit.value
    return sampled if phase is None else sampled | {"phase": phase}


def _by_phase(measurand: Measurand, unit: UnitOfMeasure, values: Callable[[ChargerModel], Sequence[float]]) -> _Sampler:
    def sample(model: ChargerModel) -> list[Sampled]:
        named = "L{}-N" if measurand is Measurand.voltage else "L{}"
        each = values(model)
        return [_one(measurand, unit, each[phase - 1], named.format(phase)) for phase in model.phases]

    return sample


_Sampler = Callable[[ChargerModel], list[Sampled]]
_SAMPLERS: Final[Mapping[str, _Sampler]] = {
    Measurand.energy_active_import_register.value: lambda model: [
        _one(Measurand.energy_active_import_register, UnitOfMeasure.wh, model.energy_import_wh)
    ],
    Measurand.power_active_import.value: lambda model: [
        _one(Measurand.power_active_import, UnitOfMeasure.w, model.power_w)
    ],
    Measurand.power_offered.value: lambda model: [
        _one(Measurand.power_offered, UnitOfMeasure.w, model.offered_current_a * model.voltage_v * len(model.phases))
    ],
    Measurand.current_offered.value: lambda model: [
        _one(Measurand.current_offered, UnitOfMeasure.a, model.offered_current_a)
    ],
    Measurand.frequency.value: lambda model: [_one(Measurand.frequency, None, model.frequency_hz)],
    Measurand.current_import.value: _by_phase(
        Measurand.current_import, UnitOfMeasure.a, lambda model: model.current_a_by_phase
    ),
    Measurand.voltage.value: _by_phase(Measurand.voltage, UnitOfMeasure.v, lambda model: model.voltage_v_by_phase),
}
