"""What a charger measures: MeterValues (OCPP 1.6 edition 2, 3.16 and 4.7) to raw values of points, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from drivers.reading import decimal_number

if TYPE_CHECKING:
    from config.profile import OcppAddress
    from config.vocabulary import UtcClock

_DEFAULT_MEASURAND: Final = "Energy.Active.Import.Register"  # type SampledValue
_MULTIPLES: Final = {
    "W": ("W", 1.0),
    "kW": ("W", 1e3),
    "VA": ("VA", 1.0),
    "kVA": ("VA", 1e3),
    "var": ("var", 1.0),
    "kvar": ("var", 1e3),
    "Wh": ("Wh", 1.0),
    "kWh": ("Wh", 1e3),
    "varh": ("varh", 1.0),
    "kvarh": ("varh", 1e3),
    "A": ("A", 1.0),
    "V": ("V", 1.0),
    # The first is the spelling of the first edition.
    "Celcius": ("Celsius", 1.0),
    "Celsius": ("Celsius", 1.0),
    "Percent": ("Percent", 1.0),
}
_UNITS: Final = {
    "Power.Active": "W",
    "Power.Offered": "W",
    "Power.Reactive": "var",
    "Energy.Active": "Wh",
    "Energy.Reactive": "varh",
    "Current": "A",
    "Voltage": "V",
    "Temperature": "Celsius",
    "SoC": "Percent",
}
_NO_UNIT: Final = ("Frequency", "RPM", "Power.Factor")
_PHASES: Final = {"L1-N": "L1", "L2-N": "L2", "L3-N": "L3"}
_SINGLE_PHASES: Final = ("L1", "L2", "L3")
_ADDED_OVER_PHASES: Final = ("Power.Active", "Power.Offered", "Power.Reactive", "Energy")
_MOST_VALUES: Final = 200


class Reading(NamedTuple):
    """One sampled value in W, Wh, var, varh, A, V, Celsius or Percent; `value` None if it isn't one."""

    measurand: str
    phase: str | None
    location: str
    value: float | None


class Metering(NamedTuple):
    """The values that a charger measured together, and how long ago, in seconds."""

    age_s: float
    readings: list[Reading]


def meterings(payload: object, clock: ChargerClock) -> Iterator[Metering | None]:
    """Everything in the list `meterValue`, in order; None for each part that is not one or is of long ago."""
    if not isinstance(payload, list):
        yield None
        return
    for item in payload:
        sampled = item.get("sampledValue") if isinstance(item, dict) else None
        age_s = clock.age_s(item.get("timestamp")) if isinstance(sampled, list) else None
        if not isinstance(sampled, list) or age_s is None:
            yield None
        else:
            yield Metering(age_s, [reading for value in sampled[:_MOST_VALUES] if (reading := _reading(value))])


def value_at(address: OcppAddress, readings: Sequence[Reading]) -> tuple[bool, float | None]:
    """Whether the readings have the point's measurand, and its value; None if that is no number."""
    fitting = [r for r in readings if (r.measurand, r.location) == (address.measurand, address.location)]
    exact = [reading.value for reading in fitting if reading.phase == address.phase]
    if exact:
        return True, exact[-1]
    if address.phase is not None or not (address.measurand or "").startswith(_ADDED_OVER_PHASES):
        return False, None
    parts = {reading.phase: reading.value for reading in fitting if reading.phase in _SINGLE_PHASES}
    numbers = [value for value in parts.values() if value is not None]
    return bool(parts), math.fsum(numbers) if len(numbers) == len(parts) else None


def _reading(item: Any) -> Reading | None:
    if not isinstance(item, dict) or item.get("format", "Raw") != "Raw":
        return None
    measurand, unit = item.get("measurand", _DEFAULT_MEASURAND), item.get("unit")
    phase, location = item.get("phase"), item.get("location", "Outlet")
    if not isinstance(measurand, str) or not isinstance(location, str) or not isinstance(phase, str | None):
        return None
    value = item.get("value")
    number = decimal_number(value) if isinstance(value, str) else None
    factor = _factor(measurand, unit)
    scaled = None if number is None or factor is None else number * factor
    return Reading(measurand, None if phase is None else _PHASES.get(phase, phase), location, scaled)


def _factor(measurand: str, unit: object) -> float | None:
    """From the unit that was sent to the measurand's own; None if it is no unit of that."""
    if measurand.startswith(_NO_UNIT):
        return 1.0
    wanted = next((own for name, own in _UNITS.items() if measurand.startswith(name)), None)
    if unit is None:
        return 1.0
    own, factor = _MULTIPLES.get(unit, ("", 1.0)) if isinstance(unit, str) else ("", 1.0)
    return factor if own == wanted else None


class ChargerClock:
    """How long ago something happened, by a charger's own timestamps.

    A charger's clock is set by our answers to BootNotification and Heartbeat. What it could not deliver it keeps and
    delivers later, with its old timestamp (section 3.7), and that is no measurement of now. A clock that is wrong looks
    the same, except that its delay stays as it is: two messages that were sent as far apart as they came, and not in
    one burst, show its error, which is taken off from then on.
    """

    def __init__(self, utc: UtcClock, history_s: float) -> None:
        self.error_s = 0.0
        self._utc = utc
        self._history_s = history_s
        self._last: tuple[float, float] | None = None

    def age_s(self, timestamp: object) -> float | None:
        """Age of what carries this timestamp; None if that can't be told, or it is older than `history_s`."""
        said = _seconds(timestamp)
        if said is None:
            return None
        now = self._utc()
        last, self._last = self._last, (said, now)
        if abs(now - said - self.error_s) > self._history_s:
            if last is None or now - last[1] < _APART_S or abs((now - last[1]) - (said - last[0])) > _STEADY_S:
                return None
            self.error_s = now - said
        return max(now - said - self.error_s, 0.0)


_APART_S: Final = 0.9
_STEADY_S: Final = 1.5


def _seconds(timestamp: object) -> float | None:
    if not isinstance(timestamp, str) or len(timestamp) > 40:
        return None
    try:
        said = datetime.fromisoformat(timestamp)
        # Times without a zone are meant as UTC: section 3.14 asks for it.
        return (said if said.tzinfo is not None else said.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
