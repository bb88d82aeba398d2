"""A broker within the process, and a client of it that looks as aiomqtt's: for runs on virtual time, without sockets.

What is published arrives in the order of publishing, in the next turn of the loop. Rules of MQTT 3.1.1 (OASIS, 2014) as
far as clients can see them: filters (4.7), retained messages (3.3.1.3), wills (3.1.2.5), one client of a name (3.1.4).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol, TypeAlias

import aiomqtt

MOST_WAITING: Final = 1000
"""Messages that a client has not read; the newest are dropped beyond it, as aiomqtt does."""


class BrokerAwayError(Exception):
    """The broker is not there, or has closed the connection; the text says which."""


class Deliver(Protocol):
    """Takes a message; returns at once."""

    def __call__(self, topic: str, payload: bytes, *, retained: bool, qos: int) -> None: ...


Lost: TypeAlias = Callable[[str], None]


class Attachment:
    """One client's connection to the broker."""

    def __init__(self, broker: InProcessBroker, identifier: str, deliver: Deliver, lost: Lost) -> None:
        self.identifier = identifier
        self.deliver = deliver
        self.lost = lost
        self.filters: dict[str, tuple[list[str], int]] = {}
        self.will: tuple[str, bytes, bool] | None = None
        self._broker = broker

    def subscribe(self, topic_filter: str, qos: int) -> int:
        """Subscribe; what the broker has retained comes at once. Returns the granted quality of service."""
        self._broker.check(self)
        self.filters[topic_filter] = (topic_filter.split("/"), qos)
        self._broker.subscribed(self, topic_filter)
        return qos

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Publish to everybody subscribed. Raises BrokerAwayError."""
        self._broker.check(self)
        self._broker.publish(topic, payload, qos=qos, retain=retain)

    def detach(self, *, orderly: bool) -> None:
        """Leave; unless `orderly`, the will is published."""
        self._broker.leave(self, orderly=orderly)


class InProcessBroker:
    """Routes messages between its attachments. `stop` and `start` are a broker's restart: sessions end, and what is
    retained stays.
    """

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.messages = 0
        self._clients: dict[str, Attachment] = {}
        self._routes: dict[str, tuple[tuple[Attachment, int], ...]] = {}
        self._running = True

    # Of clients

    def attach(
        self, identifier: str, deliver: Deliver, lost: Lost, will: tuple[str, bytes, bool] | None = None
    ) -> Attachment:
        """Connect; a client of the same name loses its connection. Raises BrokerAwayError."""
        if not self._running:
            raise BrokerAwayError("Connection refused")
        self.disconnect(identifier, "another client has the same name")
        attached = Attachment(self, identifier, deliver, lost)
        attached.will = will
        self._clients[identifier] = attached
        return attached

    def check(self, attached: Attachment) -> None:
        """Raises BrokerAwayError when this connection has ended."""
        if self._clients.get(attached.identifier) is not attached:
            raise BrokerAwayError("the connection was closed")

    def subscribed(self, attached: Attachment, topic_filter: str) -> None:
        """Told of a new subscription."""
        self._routes.clear()
        levels, qos = attached.filters[topic_filter]
        for topic, payload in self.retained.items():
            if _matches(levels, topic.split("/")):
                attached.deliver(topic, payload, retained=True, qos=qos)

    def leave(self, attached: Attachment, *, orderly: bool) -> None:
        """A client goes."""
        if self._clients.get(attached.identifier) is attached:
            self._end(attached, will=not orderly)

    # Of the bench

    @property
    def clients(self) -> tuple[str, ...]:
        """The names of those that are connected, in the order of their coming."""
        return tuple(self._clients)

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Publish; an empty retained payload takes away what was retained (3.3.1.3)."""
        self.messages += 1
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for attached, granted in self._route(topic):
            attached.deliver(topic, payload, retained=False, qos=min(qos, granted))

    def stop(self) -> None:
        """Close every connection and refuse new ones."""
        self._running = False
        for identifier in self.clients:
            self.disconnect(identifier, "the broker closed the connection")

    def start(self) -> None:
        """Take clients again."""
        self._running = True

    def disconnect(self, identifier: str, reason: str = "the broker closed the connection") -> None:
        """Cut one client off, if it is there: its will is published."""
        attached = self._clients.get(identifier)
        if attached is not None:
            self._end(attached, will=True)
            attached.lost(reason)

    def _end(self, attached: Attachment, *, will: bool) -> None:
        del self._clients[attached.identifier]
        self._routes.clear()
        if will and attached.will is not None:
            topic, payload, retain = attached.will
            self.publish(topic, payload, retain=retain)

    def _route(self, topic: str) -> tuple[tuple[Attachment, int], ...]:
        """Who gets what is published on a topic; each once, however many of its filters match (3.3.5)."""
        found = self._routes.get(topic)
        if found is None:
            levels = topic.split("/")
            found = self._routes[topic] = tuple(
                (client, max(granted))
                for client in self._clients.values()
                if (granted := [qos for wanted, qos in client.filters.values() if _matches(wanted, levels)])
            )
        return found


def _matches(wanted: Sequence[str], levels: Sequence[str]) -> bool:
    """Section 4.7.1; wildcards at the beginning do not match topics of the server itself (4.7.2)."""
    if levels[0].startswith("$") and wanted[0] in ("+", "#"):
        return False
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or (level != "+" and level != levels[at]):
            return False
    return len(wanted) == len(levels)


class InProcessClient:
    """As much of `aiomqtt.Client` as is used here, over an in-process broker. Raises aiomqtt.MqttError as that does.

    Settings of the network (host, port, TLS, keep-alive, time-outs) mean nothing.
    """

    def __init__(
        self, broker: InProcessBroker, *, identifier: str, will: aiomqtt.Will | None = None, waiting: int = MOST_WAITING
    ) -> None:
        self._broker = broker
        self._identifier = identifier
        self._will = None if will is None else (will.topic, _encoded(will.payload), will.retain)
        self._most_waiting = waiting
        self._waiting: deque[aiomqtt.Message] = deque()
        self._told = asyncio.Event()
        self._attached: Attachment | None = None
        self._disconnected: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> InProcessClient:
        await asyncio.sleep(0)
        try:
            self._attached = self._broker.attach(self._identifier, self._deliver, self._lost, self._will)
        except BrokerAwayError as away:
            raise aiomqtt.MqttError(str(away)) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._attached is not None:
            self._attached.detach(orderly=True)
        if not self._disconnected.done():
            self._disconnected.set_result(None)

    async def subscribe(self, topic: str, qos: int = 0) -> tuple[int, ...]:
        """Subscribe to one filter; what is granted."""
        await asyncio.sleep(0)
        try:
            return (self._connection().subscribe(topic, qos),)
        except BrokerAwayError as away:
            raise aiomqtt.MqttError(str(away)) from None

    async def publish(
        self, topic: str, payload: str | bytes, qos: int = 0, retain: bool = False, timeout: float | None = None
    ) -> None:
        """Publish; with a quality of service return in the next turn, as when it is acknowledged."""
        try:
            self._connection().publish(topic, _encoded(payload), qos=qos, retain=retain)
        except BrokerAwayError as away:
            raise aiomqtt.MqttError(str(away)) from None
        if qos:
            await asyncio.sleep(0)

    @property
    def messages(self) -> AsyncIterator[aiomqtt.Message]:
        """What comes, until the connection ends."""
        return self._messages()

    async def _messages(self) -> AsyncIterator[aiomqtt.Message]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._disconnected.done():
                raise aiomqtt.MqttError("Disconnected during message iteration")
            self._told.clear()
            await self._told.wait()

    def _connection(self) -> Attachment:
        if self._attached is None:
            raise BrokerAwayError("not connected")
        return self._attached

    def _deliver(self, topic: str, payload: bytes, *, retained: bool, qos: int) -> None:
        if len(self._waiting) < self._most_waiting:
            self._waiting.append(aiomqtt.Message(_topic(topic), payload, qos, retained, 0, None))
            self._told.set()

    def _lost(self, reason: str) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(aiomqtt.MqttError(reason))
            # Whoever reads messages is told by an error of its own.
            self._disconnected.exception()
            self._told.set()


_topic = lru_cache(maxsize=1000)(aiomqtt.Topic)


def _encoded(payload: Any) -> bytes:
    return payload.encode() if isinstance(payload, str) else bytes(payload)


def client_factory(broker: InProcessBroker) -> Callable[..., Any]:
    """Makes clients of `broker` out of the arguments that `aiomqtt.Client` takes."""

    def make(*_: object, identifier: str, will: aiomqtt.Will | None = None, **settings: Any) -> InProcessClient:
        waiting = settings.get("max_queued_incoming_messages", MOST_WAITING)
        return InProcessClient(broker, identifier=identifier, will=will, waiting=waiting)

    return make
