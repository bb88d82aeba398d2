"""Commands to a device over MQTT, and what it says to them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from config.vocabulary import WriteStatus
from drivers.writer import Encoded, Outcome

if TYPE_CHECKING:
    from config.profile import MqttAddress
    from drivers.driver import LinkStats
    from drivers.transports import MqttSession

_LONGEST_DETAIL: Final = 120


class CommandPoint(Protocol):
    """A point that is written, with its topics filled in."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> MqttAddress: ...
    @property
    def command_topic(self) -> str | None: ...
    @property
    def acknowledgement_topic(self) -> str | None: ...


class CommandSender:
    """Commands to one device over one connection; `waiting` has who waits for what is said on a topic."""

    def __init__(
        self,
        points: Mapping[str, CommandPoint],
        connection: MqttSession,
        timeout_s: float,
        waiting: dict[str, asyncio.Future[str | None]],
        stats: LinkStats,
    ) -> None:
        self._points = points
        self._connection = connection
        self._timeout_s = timeout_s
        self._waiting = waiting
        self._stats = stats

    async def __call__(self, commands: Sequence[Encoded]) -> Outcome:
        for command in commands:
            outcome = await self._send(self._points[command.point], command)
            if outcome.status is not WriteStatus.ACKNOWLEDGED:
                return outcome
        return Outcome(WriteStatus.ACKNOWLEDGED)

    async def _send(self, point: CommandPoint, command: Encoded) -> Outcome:
        assert point.command_topic is not None  # or it would not have been encoded
        payload = point.address.command_template.replace("{value}", command_text(command.raw))
        topic = point.acknowledgement_topic
        if topic is None:
            await self._connection.publish(point.command_topic, payload)
            return Outcome(WriteStatus.ACKNOWLEDGED)
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting[topic] = answer
        try:
            await self._connection.publish(point.command_topic, payload)
            async with asyncio.timeout(self._timeout_s):
                said = await answer
        except TimeoutError:
            self._stats.timeouts += 1
            return Outcome(WriteStatus.INDETERMINATE, f"{point.name}: no answer within {self._timeout_s:g} s")
        finally:
            if self._waiting.get(topic) is answer:
                del self._waiting[topic]
        wanted = point.address.acknowledgement_value
        if wanted is None or (said is not None and said.strip() == wanted):
            return Outcome(WriteStatus.ACKNOWLEDGED)
        words = "something unreadable" if said is None else said[:_LONGEST_DETAIL]
        return Outcome(WriteStatus.REFUSED, f"{point.name}: {words}")


def command_text(raw: bool | int | float) -> str:
    """A raw value as it stands in a command."""
    return str(int(raw)) if float(raw).is_integer() else repr(float(raw))
