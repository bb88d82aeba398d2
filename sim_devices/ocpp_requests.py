"""What the central system asks of a charge point with OCPP 1.6J, and what it is answered.

Source: OCPP 1.6 edition 2, sections 5.2, 5.3, 5.5, 5.8, 5.11, 5.12, 5.14, 5.16 and 5.17.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar, cast

from ocpp.routing import on
from ocpp.v16 import ChargePoint, call_result
from ocpp.v16.enums import (
    Action,
    AvailabilityStatus,
    AvailabilityType,
    ClearChargingProfileStatus,
    RemoteStartStopStatus,
    ResetStatus,
    TriggerMessageStatus,
)
from websockets.asyncio.client import ClientConnection

from sim_devices.ocpp_limits import ChargingProfiles, Transaction
from sim_devices.ocpp_settings import Settings

CONNECTOR: Final = 1
TIMEOUT_S: Final = 5.0
QUIET: Final = logging.getLogger("sim_devices.ocpp")
"""What a peer does wrong is answered, and no news for a log."""
QUIET.setLevel(logging.CRITICAL + 1)

Handler = TypeVar("Handler", bound=Callable[..., Any])
Status = TypeVar("Status", bound=str)
_TAKEN: Final = ("Accepted", "RebootRequired")


class Charger(Protocol):
    """The charge point, as far as the central system can act on it."""

    profiles: ChargingProfiles
    settings: Settings
    transaction: Transaction | None
    operative: bool

    def evaluate(self) -> None:
        """Offer what the profiles allow now."""

    def want(self, message: str) -> bool:
        """Send this message soon; False where it can't be triggered."""

    def begin_remotely(self, id_tag: str) -> bool:
        """Begin a transaction with the car that is there or comes; False while one runs."""

    def end_remotely(self, number: int) -> bool:
        """End the transaction of this number; False if it doesn't run."""

    def reset(self) -> None:
        """Break the connection and boot anew."""

    def count_refusal(self) -> None:
        """Something that the central system asked for was refused."""


def _answers(action: Action) -> Callable[[Handler], Handler]:
    return cast(Callable[[Handler], Handler], on(action))


class CentralRequests(ChargePoint):  # type: ignore[misc]
    """One connection's frames, and what is answered to those that ask something."""

    def __init__(self, charger: Charger, identity: str, socket: ClientConnection) -> None:
        super().__init__(identity, socket, TIMEOUT_S, logger=QUIET)
        self._charger = charger

    def _counted(self, status: Status) -> Status:
        if status not in _TAKEN:
            self._charger.count_refusal()
        return status

    @_answers(Action.get_configuration)
    def on_get_configuration(self, key: list[str] | None = None) -> Any:
        known, unknown = self._charger.settings.read(key or [])
        return call_result.GetConfiguration(known, unknown)

    @_answers(Action.change_configuration)
    def on_change_configuration(self, key: str, value: str) -> Any:
        return call_result.ChangeConfiguration(self._counted(self._charger.settings.change(key, value)))

    @_answers(Action.set_charging_profile)
    def on_set_charging_profile(self, connector_id: int, cs_charging_profiles: dict[str, Any]) -> Any:
        charger = self._charger
        status = charger.profiles.install(connector_id, cs_charging_profiles, charger.transaction)
        charger.evaluate()
        return call_result.SetChargingProfile(self._counted(status))

    @_answers(Action.clear_charging_profile)
    def on_clear_charging_profile(
        self,
        id: int | None = None,
        connector_id: int | None = None,
        charging_profile_purpose: str | None = None,
        stack_level: int | None = None,
    ) -> Any:
        found = self._charger.profiles.clear(id, charging_profile_purpose, stack_level)
        self._charger.evaluate()
        status = ClearChargingProfileStatus.accepted if found else ClearChargingProfileStatus.unknown
        return call_result.ClearChargingProfile(status)

    @_answers(Action.trigger_message)
    def on_trigger_message(self, requested_message: str, connector_id: int | None = None) -> Any:
        if connector_id not in (None, 0, CONNECTOR):
            return call_result.TriggerMessage(TriggerMessageStatus.rejected)
        taken = self._charger.want(requested_message)
        return call_result.TriggerMessage(
            TriggerMessageStatus.accepted if taken else TriggerMessageStatus.not_implemented
        )

    @_answers(Action.remote_start_transaction)
    def on_remote_start(
        self, id_tag: str, connector_id: int | None = None, charging_profile: dict[str, Any] | None = None
    ) -> Any:
        taken = connector_id in (None, CONNECTOR) and self._charger.begin_remotely(id_tag)
        return call_result.RemoteStartTransaction(self._counted(_taken(taken)))

    @_answers(Action.remote_stop_transaction)
    def on_remote_stop(self, transaction_id: int) -> Any:
        return call_result.RemoteStopTransaction(self._counted(_taken(self._charger.end_remotely(transaction_id))))

    @_answers(Action.change_availability)
    def on_change_availability(self, connector_id: int, type: str) -> Any:
        self._charger.operative = type == AvailabilityType.operative
        return call_result.ChangeAvailability(AvailabilityStatus.accepted)

    @_answers(Action.reset)
    def on_reset(self, type: str) -> Any:
        self._charger.reset()
        return call_result.Reset(ResetStatus.accepted)


def _taken(taken: bool) -> RemoteStartStopStatus:
    return RemoteStartStopStatus.accepted if taken else RemoteStartStopStatus.rejected
