"""Setpoints as charging profiles (OCPP 1.6 edition 2, sections 3.13, 5.5 and 5.16).

Two profiles work together on a connector. The *fallback*, installed after each boot, is a TxDefaultProfile without an
end. The *setpoint* stands one stack level above it, or is the TxProfile of the running transaction, and ends by itself:
then the charger goes on with the fallback.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from ocpp.v16.enums import ChargingProfileKindType, ChargingProfilePurposeType, ChargingRateUnitType

AMPERES: Final = ChargingRateUnitType.amps.value
WATTS: Final = ChargingRateUnitType.watts.value
_TX: Final = ChargingProfilePurposeType.tx_profile.value
_TX_DEFAULT: Final = ChargingProfilePurposeType.tx_default_profile.value
_IDS_A_CONNECTOR: Final = 10
_FALLBACK, _DEFAULT, _RUNNING = 1, 2, 3
# A charger whose clock is behind must take the schedule as begun; its end is where it belongs all the same.
_BEGUN_S: Final = 300
_TOLERANCE: Final = 1e-6


class Limit(NamedTuple):
    """The most that a connector may give: amperes per phase or watts, and over how many phases."""

    unit: str
    value: float
    phases: int

    def period(self) -> dict[str, Any]:
        """A schedule period that begins at once; limits have one decimal place (type ChargingSchedulePeriod)."""
        tenths = math.floor(self.value * 10 + _TOLERANCE)
        return {"startPeriod": 0, "limit": tenths / 10, "numberPhases": self.phases}


class Life(NamedTuple):
    """From now (seconds since the epoch) for how long a setpoint is to hold."""

    now_utc: float
    duration_s: float


def fallback_profile(connector: int, limit: Limit, stack_level: int) -> dict[str, Any]:
    """SetChargingProfile of what holds when no setpoint does."""
    schedule = {"chargingRateUnit": limit.unit, "chargingSchedulePeriod": [limit.period()]}
    return {
        "connectorId": connector,
        "csChargingProfiles": {
            "chargingProfileId": _IDS_A_CONNECTOR * connector + _FALLBACK,
            "stackLevel": stack_level,
            "chargingProfilePurpose": _TX_DEFAULT,
            "chargingProfileKind": ChargingProfileKindType.relative.value,
            "chargingSchedule": schedule,
        },
    }


def setpoint_profile(
    connector: int, limit: Limit, stack_level: int, life: Life | None, transaction: int | None
) -> dict[str, Any]:
    """SetChargingProfile of a setpoint; without `life` it has no end."""
    begun = {} if life is None else {"startSchedule": _text(life.now_utc - _BEGUN_S)}
    schedule: dict[str, Any] = {
        **begun,
        "chargingRateUnit": limit.unit,
        "chargingSchedulePeriod": [limit.period()],
    }
    profile: dict[str, Any] = {
        "chargingProfileId": _IDS_A_CONNECTOR * connector + (_DEFAULT if transaction is None else _RUNNING),
        "stackLevel": stack_level,
        "chargingProfilePurpose": _TX_DEFAULT if transaction is None else _TX,
        # Relative profiles count from the beginning of the transaction, which would end them at once.
        "chargingProfileKind": (
            ChargingProfileKindType.relative if life is None else ChargingProfileKindType.absolute
        ).value,
        "chargingSchedule": schedule,
    }
    if transaction is not None:
        profile["transactionId"] = transaction
    if life is not None:
        # Rounded up: a profile that ends early would let go of a setpoint that is still refreshed.
        duration_s = math.ceil(life.duration_s)
        schedule["duration"] = _BEGUN_S + duration_s
        profile["validTo"] = _text(life.now_utc + duration_s)
    return {"connectorId": connector, "csChargingProfiles": profile}


def cleared_profiles(connector: int, transaction: int | None) -> list[Mapping[str, Any]]:
    """The ClearChargingProfile requests that remove a connector's setpoint and leave the fallback."""
    kinds = (_DEFAULT,) if transaction is None else (_DEFAULT, _RUNNING)
    return [{"id": _IDS_A_CONNECTOR * connector + kind} for kind in kinds]


def _text(utc: float) -> str:
    return datetime.fromtimestamp(math.floor(utc), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
