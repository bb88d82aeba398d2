"""One charger: what it asks and is answered, and what is set up in it after each boot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ocpp.v16.enums import (
    AuthorizationStatus,
    ConfigurationKey,
    DataTransferStatus,
    MessageTrigger,
    RegistrationStatus,
)

from config.vocabulary import Sample, WriteStatus
from drivers.commands import Command
from drivers.ocpp.charging_profile import fallback_profile
from drivers.ocpp.commander import Commander
from drivers.ocpp.connector import Capability, Connector
from drivers.ocpp.messages import Answer, Failure, Payload, Request, objection
from drivers.ocpp.meter_values import ChargerClock, meterings
from drivers.reading import decimal_number
from drivers.writer import ConnectionBroken, Outcome, first_broken

if TYPE_CHECKING:
    import structlog

    from config.vocabulary import UtcClock
    from drivers.driver import LinkStats
    from drivers.ocpp.session import Session

# A charger that has just booted says so at once; one that was only cut off may have nothing to say.
_FIRST_WORD_S: Final = 0.5
_LEAST_HISTORY_S: Final = 10.0
_LONGEST_IDENTITY: Final = 200
_NO_ANSWER: Final = "no answer"
_TAKEN: Final = ("Accepted", "RebootRequired")
_LARGEST_ID: Final = (1 << 31) - 1
_ALLOWED_UNIT: Final = ConfigurationKey.charging_schedule_allowed_charging_rate_unit.value
_MAX_LEVEL: Final = ConfigurationKey.charge_profile_max_stack_level.value
_SAMPLED_DATA: Final = ConfigurationKey.meter_values_sampled_data.value
_SAMPLE_INTERVAL: Final = ConfigurationKey.meter_value_sample_interval.value
_HEARTBEAT: Final = ConfigurationKey.heartbeat_interval.value


class ChargePoint:
    """One charger with its connectors, across its connections.

    Every message that makes sense is a sign of its life. After each boot, and after each connection as far as it isn't
    known: what it can do is read, the current setpoint goes out, then the fallback, then what it is to measure is set
    up. A charger that is told of no setpoint is not written to at all.
    """

    def __init__(
        self,
        identity: str,
        connectors: Sequence[Connector],
        stats: LinkStats,
        utc: UtcClock,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.identity = identity
        self.session: Session | None = None
        self.we_hang_up = False
        self.was_asked = asyncio.Event()
        """Set once the charger was asked what it can do, answered or not: before that its units are a guess."""
        self._connectors = {connector.number: connector for connector in connectors}
        self._address = connectors[0].address
        self._stats = stats
        self._utc = utc
        self._log = log.bind(charge_point=identity)
        self._interval_s = min(connector.sample_interval_s for connector in connectors)
        silence_s = min(connector.binding.profile.pace.silence_s for connector in connectors)
        self.heartbeat_s = max(int(silence_s / 2), 1)
        self._charger_clock = ChargerClock(utc, max(2.0 * self._interval_s, _LEAST_HISTORY_S))
        self._capability = Capability()
        # Counted, because it may boot again while it is being set up.
        self._boots_heard = 0
        self._read_at = self._set_up_at = -1
        self._set_up_wanted = asyncio.Event()
        self._first_word = asyncio.Event()
        self._last_number = 0
        self._last_start: tuple[tuple[Any, ...], int] | None = None
        self._complained = False
        self._fresh: dict[int, Mapping[str, Sample]] = {}
        self._answers: Mapping[str, Callable[[Payload], Payload]] = {
            "BootNotification": self._boots,
            "Heartbeat": lambda _: {"currentTime": self._now()},
            "StatusNotification": self._has_status,
            "MeterValues": self._has_measured,
            "Authorize": lambda payload: {"idTagInfo": self._judged(payload.get("idTag"))},
            "StartTransaction": self._starts,
            "StopTransaction": self._stops,
            "DataTransfer": lambda _: {"status": DataTransferStatus.unknown_vendor_id.value},
            "FirmwareStatusNotification": lambda _: {},
            "DiagnosticsStatusNotification": lambda _: {},
        }

    async def serve(self, session: Session) -> ConnectionBroken:
        """Serve one connection until it breaks; what broke it."""
        self.session = session
        self._first_word.clear()
        self._complained = False
        self._set_up_wanted.set()
        for connector in self._connectors.values():
            connector.pushed.link_up()
        self._log.info("charger connected")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(session), name=f"{self.identity} messages")
                group.create_task(self._attend(session, group), name=f"{self.identity} set-up")
        except ExceptionGroup as error:
            broken = first_broken(error)
        finally:
            self.session = None
        for connector in self._connectors.values():
            connector.forgets()
            connector.pushed.link_lost(broken.reason)
        if not self.we_hang_up:
            self._log.warning("charger lost", reason=broken.reason)
        return broken

    def ask_again(self) -> None:
        """Have the charger say now what it would else say at the next change."""
        self._set_up_wanted.set()

    async def command(self, connector: Connector, point: str, value: float) -> Outcome:
        """One write by hand; raises EncodeError before anything is sent."""
        encoded = connector.encoded(Command(point, value))
        session = self.session
        if session is None:
            return Outcome(WriteStatus.REFUSED, "the charger is not connected")
        try:
            async with session.turn:
                return await self._commander(connector, session)([encoded])
        except ConnectionBroken as broken:
            session.abort(broken.reason)
            return Outcome(WriteStatus.INDETERMINATE, broken.reason)

    # What it says

    async def _listen(self, session: Session) -> None:
        while True:
            message = await session.receive()
            if message is None:
                self._reject("a frame that is no OCPP")
            elif isinstance(message, Request):
                await self._answer(session, message)
            else:
                self._lives()

    async def _answer(self, session: Session, request: Request) -> None:
        answer = self._answers.get(request.action)
        if answer is None:
            self._lives()
            await session.reply(Failure(request.unique_id, "NotImplemented"))
            return
        refusal = objection(request)
        if refusal is not None:
            self._reject(f"{request.action}: {refusal.words()}")
            await session.reply(refusal)
            return
        self._stats.good += 1
        boots = self._boots_heard
        said = answer(request.payload)
        self._lives()
        await session.reply(Answer(request.unique_id, said))
        self._first_word.set()
        if self._boots_heard != boots:
            self._set_up_wanted.set()
        for connector in self._connectors.values():
            connector.is_answered()

    def _boots(self, payload: Payload) -> Payload:
        told = ("chargePointVendor", "chargePointModel", "firmwareVersion", "chargePointSerialNumber")
        said = " ".join(str(payload[key]) for key in told if key in payload)[:_LONGEST_IDENTITY]
        for connector in self._connectors.values():
            self._stats.identities[connector.pushed.name] = said
            connector.has_fallback = connector.safe_limit(self._capability) is not None
            connector.is_due = True
        self._boots_heard += 1
        return {
            "status": RegistrationStatus.accepted.value,
            "currentTime": self._now(),
            "interval": self.heartbeat_s,
        }

    def _has_status(self, payload: Payload) -> Payload:
        connector = self._connectors.get(payload["connectorId"])
        if connector is not None:
            self._fresh[connector.number] = connector.has_status(payload["status"])
        return {}

    def _has_measured(self, payload: Payload) -> Payload:
        number = payload.get("connectorId")
        connector = self._connectors.get(number) if isinstance(number, int) else None
        fresh: dict[str, Sample] = {}
        is_of_now = False
        for metering in meterings(payload.get("meterValue"), self._charger_clock):
            if metering is None:
                self._stats.rejected += 1
            elif connector is not None:
                is_of_now = True
                fresh.update(connector.has_measured(metering))
        running = payload.get("transactionId")
        if connector is not None and is_of_now and isinstance(running, int) and 0 < running <= _LARGEST_ID:
            # A transaction that began before we did.
            connector.begins(running, None)
        if connector is not None:
            self._fresh[connector.number] = fresh
        return {}

    def _starts(self, payload: Payload) -> Payload:
        key = tuple(payload[name] for name in ("connectorId", "idTag", "meterStart", "timestamp"))
        if self._last_start is not None and self._last_start[0] == key:
            number = self._last_start[1]  # it did not hear our answer, and asks again
        else:
            # Numbers from the clock, so that those of before a restart of ours are not given again.
            number = self._last_number = min(max(int(self._utc()), self._last_number + 1), _LARGEST_ID)
            self._last_start = (key, number)
        judged = self._judged(payload["idTag"])
        connector = self._connectors.get(payload["connectorId"])
        if connector is not None and judged["status"] == AuthorizationStatus.accepted.value:
            connector.begins(number, decimal_number(payload["meterStart"]))
        return {"transactionId": number, "idTagInfo": judged}

    def _stops(self, payload: Payload) -> Payload:
        for connector in self._connectors.values():
            connector.ends(payload["transactionId"])
        return {}

    def _lives(self) -> None:
        fresh, self._fresh = self._fresh, {}
        for number, connector in self._connectors.items():
            connector.lives(fresh.get(number, {}))

    def _judged(self, id_tag: object) -> dict[str, str]:
        allowed = self._address.id_tags
        status = AuthorizationStatus.accepted if allowed is None or id_tag in allowed else AuthorizationStatus.invalid
        return {"status": status.value}

    def _now(self) -> str:
        return datetime.fromtimestamp(self._utc(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _reject(self, what: str) -> None:
        self._stats.rejected += 1
        if not self._complained:
            self._complained = True
            self._log.warning("charger talks nonsense", first=what)

    # What is set up in it

    async def _attend(self, session: Session, group: asyncio.TaskGroup) -> None:
        try:
            async with asyncio.timeout(_FIRST_WORD_S):
                await self._first_word.wait()
        except TimeoutError:
            pass
        writers_run = False
        while True:
            self._set_up_wanted.clear()
            boot = self._boots_heard
            if self._read_at != boot:
                self._read_at = boot if await self._read_capability(session) else -1
                self.was_asked.set()
            if not writers_run:
                for connector in self._connectors.values():
                    serving = connector.writer.serve(self._commander(connector, session), session.turn)
                    group.create_task(serving, name=f"{self.identity} writes {connector.pushed.name}")
                writers_run = True
            if self._set_up_at != boot:
                await self._install_fallback(session)
            await self._look(session)
            if self._set_up_at != boot:
                self._set_up_at = boot if await self._configure(session) else -1
            await self._set_up_wanted.wait()

    def _commander(self, connector: Connector, session: Session) -> Commander:
        return Commander(connector, session, lambda: self._capability, self._charger_clock, self._utc)

    async def _read_capability(self, session: Session) -> bool:
        answer = await session.try_call("GetConfiguration", {"key": [_ALLOWED_UNIT, _MAX_LEVEL]})
        said = _configuration(answer.payload) if isinstance(answer, Answer) else {}
        # Current and Power by section 9.4; A and W by those who took the units for the names.
        allowed = {part.strip() for part in said.get(_ALLOWED_UNIT, "").split(",")}
        level = said.get(_MAX_LEVEL, "")
        self._capability = Capability(
            amperes=bool(allowed & {"Current", "A"}) or not allowed & {"Power", "W"},
            stack_level=min(int(level), _LARGEST_ID) if level.isascii() and level.isdigit() else 1,
        )
        return answer is not None

    async def _install_fallback(self, session: Session) -> None:
        """Where the charger takes no fallback, setpoints go out without an end: held is safer than unlimited."""
        level = self._capability.stack_level - 1
        for connector in self._connectors.values():
            limit = connector.safe_limit(self._capability)
            if limit is None:
                continue
            status = "no level below the setpoint's"
            if level >= 0:
                profile = fallback_profile(connector.number, limit, level)
                status = _status(await session.try_call("SetChargingProfile", profile))
            taken = status == "Accepted"
            if not taken:
                self._log.warning("charger has no fallback for our silence", connector=connector.number, reason=status)
            if taken is not connector.has_fallback:
                connector.has_fallback = taken
                connector.writer.repeat()

    async def _look(self, session: Session) -> None:
        """Ask for what it would else say at the next change (section 5.17)."""
        for connector in self._connectors.values():
            for message in (MessageTrigger.status_notification, MessageTrigger.meter_values):
                payload = {"requestedMessage": message.value, "connectorId": connector.number}
                if isinstance(await session.try_call("TriggerMessage", payload), Failure):
                    return

    async def _configure(self, session: Session) -> bool:
        connectors = [connector for connector in self._connectors.values() if connector.binding.writable]
        if not connectors:
            return True
        wanted = {_HEARTBEAT: str(self.heartbeat_s), _SAMPLE_INTERVAL: str(self._interval_s)}
        for connector in connectors:
            wanted |= connector.binding.profile.ocpp.configuration
        said = {key: await self._change(session, key, value) for key, value in wanted.items()}
        measurands = list(dict.fromkeys(name for connector in connectors for name in connector.measurands))
        # A charger refuses the whole list for one measurand that it hasn't (section 3.16.4); the last matter least.
        while measurands and said.get(_SAMPLED_DATA) not in _TAKEN:
            said[_SAMPLED_DATA] = await self._change(session, _SAMPLED_DATA, ",".join(measurands))
            measurands.pop()
        refused = {key: status for key, status in said.items() if status not in _TAKEN}
        self._log.info("charger set up", refused=refused or None)
        return _NO_ANSWER not in refused.values()

    async def _change(self, session: Session, key: str, value: str) -> str:
        return _status(await session.try_call("ChangeConfiguration", {"key": key, "value": value}))


def _status(answer: Answer | Failure | None) -> str:
    if answer is None:
        return _NO_ANSWER
    if isinstance(answer, Failure):
        return answer.words()
    return str(answer.payload.get("status"))[:_LONGEST_IDENTITY]


def _configuration(payload: Payload) -> dict[str, str]:
    """The values of a GetConfiguration answer; what isn't one is left out."""
    items = payload.get("configurationKey")
    found: dict[str, str] = {}
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and isinstance(item.get("key"), str) and isinstance(item.get("value"), str):
            found[item["key"]] = item["value"]
    return found
