"""What goes to a connector: setpoints as charging profiles, and transactions started and stopped from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from config.vocabulary import WriteStatus
from drivers.ocpp.charging_profile import AMPERES, WATTS, Life, Limit, cleared_profiles, setpoint_profile
from drivers.ocpp.messages import Failure, Payload
from drivers.writer import Encoded, Outcome

if TYPE_CHECKING:
    from config.vocabulary import UtcClock
    from drivers.ocpp.connector import Capability, Connector
    from drivers.ocpp.meter_values import ChargerClock
    from drivers.ocpp.session import Session

_ID_TAG: Final = "LAMINA"
_LONGEST_STATUS: Final = 60


class Commander:
    """Commands to one connector over one connection; the sender that its `DeviceWriter` is served with."""

    def __init__(
        self,
        connector: Connector,
        session: Session,
        capability: Callable[[], Capability],
        charger: ChargerClock,
        utc: UtcClock,
    ) -> None:
        self._connector = connector
        self._session = session
        self._capability = capability
        self._charger = charger
        self._utc = utc

    async def __call__(self, commands: Sequence[Encoded]) -> Outcome:
        """Send what the commands come to, in one's turn, and tell what became of it."""
        values = {self._connector.command_of(command.point): float(command.raw) for command in commands}
        if "clear_limit" in values:
            return await self._clear()
        if "remote_start" in values:
            payload = {"connectorId": self._connector.number, "idTag": _ID_TAG}
            return await self._ask("RemoteStartTransaction", payload)
        if "remote_stop" in values:
            if self._connector.transaction is None:
                return Outcome(WriteStatus.REFUSED, "no transaction is known to run")
            return await self._ask("RemoteStopTransaction", {"transactionId": self._connector.transaction.number})
        limit = self._limit(values)
        if limit is None:
            return Outcome(WriteStatus.REFUSED, "the charger takes amperes or watts, and there is no such limit")
        return await self._set(limit, values.get("limit_s"))

    def _limit(self, values: Mapping[str, float]) -> Limit | None:
        phases = self._connector.binding.phases
        if "limit_a" in values and (self._capability().amperes or "limit_w" not in values):
            return Limit(AMPERES, values["limit_a"], phases)
        return Limit(WATTS, values["limit_w"], phases) if "limit_w" in values else None

    async def _set(self, limit: Limit, duration_s: float | None) -> Outcome:
        connector = self._connector
        life = None
        # Where nothing stands below it, the end of a setpoint would be the end of every limit.
        if duration_s and connector.has_fallback:
            life = Life(self._utc() - self._charger.error_s, duration_s)
        running = connector.binding.profile.ocpp.running == "tx_profile" and connector.transaction is not None
        transaction = connector.transaction.number if running and connector.transaction is not None else None
        level = self._capability().stack_level
        return await self._ask(
            "SetChargingProfile", setpoint_profile(connector.number, limit, level, life, transaction)
        )

    async def _clear(self) -> Outcome:
        connector = self._connector
        if not connector.has_fallback:
            limit = connector.safe_limit(self._capability())
            return (
                Outcome(WriteStatus.REFUSED, "there is no fallback") if limit is None else await self._set(limit, None)
            )
        number = connector.transaction.number if connector.transaction is not None else None
        for payload in cleared_profiles(connector.number, number):
            # Unknown: there is no such profile, or no more.
            outcome = await self._ask("ClearChargingProfile", payload, accepted=("Accepted", "Unknown"))
            if outcome.status is not WriteStatus.ACKNOWLEDGED:
                return outcome
        return Outcome(WriteStatus.ACKNOWLEDGED)

    async def _ask(self, action: str, payload: Payload, accepted: Sequence[str] = ("Accepted",)) -> Outcome:
        answer = await self._session.call(action, payload)
        if isinstance(answer, Failure):
            return Outcome(WriteStatus.REFUSED, f"{action}: {answer.words()}")
        status = answer.payload.get("status")
        if not isinstance(status, str):
            return Outcome(WriteStatus.INDETERMINATE, f"{action}: an answer without a status")
        if status in accepted:
            return Outcome(WriteStatus.ACKNOWLEDGED)
        return Outcome(WriteStatus.REFUSED, f"{action}: {status[:_LONGEST_STATUS]}")
