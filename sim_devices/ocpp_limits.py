"""What a charge point makes of the charging profiles it was sent: the current that it may offer now.

Source: OCPP 1.6 edition 2, section 3.13 (purposes, stack levels, combining), 5.5 (ClearChargingProfile), 5.16
(SetChargingProfile), 7.8 and 7.13 to 7.15 (types), 9.4 (configuration keys).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from ocpp.v16.enums import (
    ChargingProfileKindType,
    ChargingProfilePurposeType,
    ChargingProfileStatus,
    ChargingRateUnitType,
    RecurrencyKind,
)

MOST_PROFILES: Final = 20
MOST_PERIODS: Final = 24
HIGHEST_LEVEL: Final = 8
ACCEPTED: Final[str] = ChargingProfileStatus.accepted.value
REJECTED: Final[str] = ChargingProfileStatus.rejected.value
_PERIOD_S: Final = {RecurrencyKind.daily.value: 86_400.0, RecurrencyKind.weekly.value: 604_800.0}
_MAX: Final = ChargingProfilePurposeType.charge_point_max_profile.value
_DEFAULT: Final = ChargingProfilePurposeType.tx_default_profile.value
_RUNNING: Final = ChargingProfilePurposeType.tx_profile.value
_SINCE_EVER_S: Final = 0.0

Profile = Mapping[str, Any]
"""csChargingProfiles as the ocpp package hands it on, in snake case."""


class Transaction(NamedTuple):
    """The transaction that runs: its number and when it began, in seconds since the epoch."""

    number: int
    began_utc: float


class ChargingProfiles:
    """The profiles of a charge point with one connector.

    The highest level of the profiles that are valid rules within its purpose. A transaction goes by its own profile,
    or by the default one while it has none that is valid; the charge point's own maximum caps both.
    """

    def __init__(self, phases: int, nominal_voltage_v: float) -> None:
        self._phases = phases
        self._nominal_voltage_v = nominal_voltage_v
        self._held: dict[int, Profile] = {}

    def __len__(self) -> int:
        return len(self._held)

    def install(self, connector: int, profile: Profile, running: Transaction | None) -> str:
        """Take a profile, in place of one of the same number, or of the same purpose and level; the status."""
        if not self._fits(connector, profile, running):
            return REJECTED
        number, place = profile["charging_profile_id"], _place(profile)
        kept = {key: old for key, old in self._held.items() if key != number and _place(old) != place}
        if len(kept) >= MOST_PROFILES:
            return REJECTED
        self._held = {**kept, number: profile}
        return ACCEPTED

    def clear(self, number: int | None, purpose: str | None, level: int | None) -> bool:
        """Remove what fits everything that is given; whether there was any."""
        gone = [
            key
            for key, profile in self._held.items()
            if number in (None, key)
            and purpose in (None, profile["charging_profile_purpose"])
            and level in (None, profile["stack_level"])
        ]
        for key in gone:
            del self._held[key]
        return bool(gone)

    def end_transaction(self) -> None:
        """The profiles of a transaction end with it (3.13.1)."""
        self._held = {key: each for key, each in self._held.items() if each["charging_profile_purpose"] != _RUNNING}

    def limit_a(self, utc_s: float, running: Transaction | None) -> float | None:
        """The most current per phase at this time, in seconds since the epoch; None: no profile says any."""
        session = self._ruling(_RUNNING, utc_s, running) if running is not None else None
        if session is None:
            session = self._ruling(_DEFAULT, utc_s, running)
        limits = [limit for limit in (session, self._ruling(_MAX, utc_s, running)) if limit is not None]
        return min(limits, default=None)

    def _fits(self, connector: int, profile: Profile, running: Transaction | None) -> bool:
        purpose, schedule = profile["charging_profile_purpose"], profile["charging_schedule"]
        if not 0 <= profile["stack_level"] <= HIGHEST_LEVEL:
            return False
        if not 1 <= len(schedule["charging_schedule_period"]) <= MOST_PERIODS:
            return False
        if purpose == _MAX:
            return connector == 0
        if purpose == _RUNNING:
            mentioned = profile.get("transaction_id")
            return connector == 1 and running is not None and mentioned in (None, running.number)
        return connector in (0, 1)

    def _ruling(self, purpose: str, utc_s: float, running: Transaction | None) -> float | None:
        of_purpose = [each for each in self._held.values() if each["charging_profile_purpose"] == purpose]
        for profile in sorted(of_purpose, key=lambda each: -int(each["stack_level"])):
            limit = self._limit_of(profile, utc_s, running)
            if limit is not None:
                return limit
        return None

    def _limit_of(self, profile: Profile, utc_s: float, running: Transaction | None) -> float | None:
        if not _seconds(profile.get("valid_from"), -math.inf) <= utc_s < _seconds(profile.get("valid_to"), math.inf):
            return None
        schedule = profile["charging_schedule"]
        elapsed_s = utc_s - _start(profile, utc_s, running)
        if elapsed_s < 0 or elapsed_s >= schedule.get("duration", math.inf):
            return None
        begun = [each for each in schedule["charging_schedule_period"] if each["start_period"] <= elapsed_s]
        if not begun:
            return None
        period = max(begun, key=lambda each: float(each["start_period"]))
        limit = float(period["limit"])
        if schedule["charging_rate_unit"] == ChargingRateUnitType.amps.value:
            return limit
        phases = min(int(period.get("number_phases", 3)), self._phases)
        return limit / (phases * self._nominal_voltage_v)


def _place(profile: Profile) -> tuple[str, int]:
    return profile["charging_profile_purpose"], profile["stack_level"]


def _start(profile: Profile, utc_s: float, running: Transaction | None) -> float:
    """When the schedule began: a relative one with the transaction, or just now (type ChargingProfileKindType)."""
    if profile["charging_profile_kind"] == ChargingProfileKindType.relative.value:
        return running.began_utc if running is not None else utc_s
    start_s = _seconds(profile["charging_schedule"].get("start_schedule"), _SINCE_EVER_S)
    period_s = _PERIOD_S.get(profile.get("recurrency_kind", ""))
    if profile["charging_profile_kind"] != ChargingProfileKindType.recurring.value or period_s is None:
        return start_s
    return start_s + math.floor((utc_s - start_s) / period_s) * period_s


def _seconds(timestamp: str | None, otherwise: float) -> float:
    """Since the epoch; what is no time is read as none."""
    if timestamp is None:
        return otherwise
    try:
        said = datetime.fromisoformat(timestamp)
    except ValueError:
        return otherwise
    return (said if said.tzinfo is not None else said.replace(tzinfo=UTC)).timestamp()
