"""One connection to an MQTT broker, over aiomqtt. Used once: paho keeps what it could not send, and sends it later.

Each connection has a client of its own, so that nothing published on a connection that broke can go out on the next
one; and a connection that is dropped is reset, so that nothing left in the socket's buffer can arrive either.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import struct
from collections.abc import Awaitable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

import aiomqtt

from drivers.cancellation import heeded
from drivers.reach import unreached
from drivers.tls import broker_context, refused_certificate
from drivers.writer import ConnectionBroken

if TYPE_CHECKING:
    from config.site import MqttBroker

_T = TypeVar("_T")

AT_ONCE: Final = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""Without it a publication that follows another waits for the broker's delayed acknowledgement, about 40 ms."""
_CODE: Final = re.compile(r"^\[code:\w+\] ")
_FAILURES: Final = (aiomqtt.MqttError, OSError, ValueError)
# A broker that is cut off is noticed after at most twice this; the silence of its devices is noticed earlier.
_KEEP_ALIVE_S: Final = 5
_ABORT_ON_CLOSE: Final = struct.pack("ii", 1, 0)
MOST_WAITING: Final = 1000
"""Messages that wait of each topic of which every one counts; the oldest are dropped."""


class Arrival(NamedTuple):
    """A message; `retained`: the broker had kept it from before the subscription."""

    topic: str
    payload: bytes
    retained: bool


class NewestOfEachTopic(asyncio.Queue[aiomqtt.Message]):
    """Holds the newest message of each wanted topic, in the order in which they were first heard.

    Of the topics in `every`, it holds up to `MOST_WAITING` messages of each. So it is bounded by its topics, and never
    full. A message on any other topic is dropped: brokers are known that send a newcomer what others have subscribed
    to.
    """

    _queue: dict[tuple[str, int], aiomqtt.Message]

    def __init__(self, wanted: Collection[str], maxsize: int = 0, every: Collection[str] = ()) -> None:
        self._count = 0
        super().__init__(maxsize)
        self._wanted = frozenset(wanted)
        self._every = frozenset(every)

    def put_nowait(self, item: aiomqtt.Message) -> None:
        topic = item.topic.value
        if (topic, 0) in self._queue:
            self._queue[topic, 0] = item
        elif topic in self._every:
            self._drop_oldest(topic)
            super().put_nowait(item)
        elif topic in self._wanted:
            super().put_nowait(item)

    def _drop_oldest(self, topic: str) -> None:
        if len(self._queue) >= MOST_WAITING:
            waiting = [key for key in self._queue if key[0] == topic]
            if len(waiting) >= MOST_WAITING:
                del self._queue[waiting[0]]

    def qsize(self) -> int:
        return len(self._queue)

    def _init(self, maxsize: int) -> None:
        self._queue = {}

    def _put(self, item: aiomqtt.Message) -> None:
        topic = item.topic.value
        if topic in self._every:
            self._count += 1
        self._queue[topic, self._count if topic in self._every else 0] = item

    def _get(self) -> aiomqtt.Message:
        return self._queue.pop(next(iter(self._queue)))


class MqttConnection:
    """One session on one broker. Every call but `close` raises `ConnectionBroken` when it is of no use any more.

    Of each topic the newest message is held for the reader, of those in `every` all of them.
    """

    def __init__(
        self,
        broker: MqttBroker,
        identifier: str,
        timeout_s: float,
        topics: Sequence[str],
        every: Collection[str] = (),
    ) -> None:
        self._broker = broker
        self._identifier = identifier
        self._timeout_s = timeout_s
        self._topics = topics
        self._every = every
        self._client: aiomqtt.Client | None = None
        self._connected = False

    async def open(self) -> list[str]:
        """Connect and subscribe to every topic; returns those that the broker refuses."""
        broker = self._broker
        context = await self._sense(broker_context(broker, self._timeout_s), "cannot connect")
        client = self._client = aiomqtt.Client(
            broker.host,
            broker.port,
            logger=_quiet_logger(),
            username=broker.username,
            password=self._password(),
            identifier=self._identifier,
            # Called for a queue with `maxsize` alone, whatever its annotation says.
            socket_options=(AT_ONCE,),
            queue_type=cast(
                "type[asyncio.Queue[aiomqtt.Message]]", partial(NewestOfEachTopic, self._topics, every=self._every)
            ),
            timeout=self._timeout_s,
            keepalive=_KEEP_ALIVE_S,
            tls_context=context,
        )
        # paho connects in a thread, which can't be called off while it waits.
        client._client.connect_timeout = self._timeout_s
        await self._log_in(client)
        self._connected = True
        if not self._topics:
            return []
        granted = await self._sense(client.subscribe([(topic, 1) for topic in self._topics]), "cannot subscribe")
        return [topic for topic, code in zip(self._topics, granted, strict=False) if _is_refusal(code)]

    async def next(self) -> Arrival:
        """The next message."""
        assert self._client is not None
        message = await self._sense(anext(self._client.messages), "connection lost")
        return Arrival(message.topic.value, bytes(message.payload), message.retain)

    async def publish(self, topic: str, payload: str, qos: int = 1) -> None:
        """Publish, with QoS 1 wait until the broker has taken it."""
        assert self._client is not None
        publishing = self._client.publish(topic, payload, qos=qos, timeout=self._timeout_s)
        await self._sense(publishing, f"nobody took the command on {topic}")

    async def close(self, *, orderly: bool) -> None:
        """End the connection; unless `orderly`, reset it so that nothing sent can still arrive."""
        client = self._client
        if client is None:
            return
        try:
            if orderly and self._connected:
                await client.__aexit__(None, None, None)
        except _FAILURES:
            pass
        finally:
            # What paho has asked the loop to watch is registered in its next turn, and must be before it is undone.
            await asyncio.sleep(0)
            await self._drop(client)

    async def _drop(self, client: aiomqtt.Client) -> None:
        # aiomqtt leaves the socket of a failed connection, and its own task, to the garbage collector.
        paho = client._client
        opened = paho.socket()
        if isinstance(opened, socket.socket):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_ON_CLOSE)
            paho._sock_close()
        if client._misc_task is not None:
            client._misc_task.cancel()
            await asyncio.wait([client._misc_task])
        for outcome in (client._connected, client._disconnected):
            if outcome.done() and not outcome.cancelled():
                outcome.exception()

    async def _log_in(self, client: aiomqtt.Client) -> None:
        try:
            await self._sense(self._enter(client), "cannot connect")
        except ConnectionBroken as broken:
            said = await refused_certificate(self._broker, self._timeout_s)
            raise broken if said is None else ConnectionBroken(f"cannot connect: {said}") from None

    async def _enter(self, client: aiomqtt.Client) -> None:
        entering = asyncio.create_task(client.__aenter__(), name=f"{self._identifier} connects")
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread that connects ends by its own time-out; its socket can be closed only after that.
            await asyncio.gather(entering, return_exceptions=True)
            raise

    def _password(self) -> str | None:
        name = self._broker.password_env
        if name is None:
            return None
        password = os.environ.get(name)
        if password is None:
            raise ConnectionBroken(f"the environment variable {name} is not set")
        return password

    async def _sense(self, call: Awaitable[_T], what: str) -> _T:
        try:
            return await heeded(call)
        except TimeoutError:
            raise ConnectionBroken(f"{what}: no answer within {self._timeout_s:g} s", timed_out=True) from None
        except _FAILURES as error:
            timed_out = isinstance(error, aiomqtt.MqttError) and "timed out" in str(error)
            raise ConnectionBroken(f"{what}: {self._reason(error)}", timed_out=timed_out) from None

    def _reason(self, error: Exception) -> str:
        if isinstance(error, OSError | aiomqtt.MqttError):
            # aiomqtt hands on what a socket says as text.
            told = error if isinstance(error, OSError) else OSError(str(error))
            return _CODE.sub("", unreached(told, self._broker.host, self._broker.port))
        return str(error) or type(error).__name__


def _quiet_logger() -> logging.Logger:
    """Each failure is told once by the driver, with its reason; paho would add a line of its own."""
    logger = logging.getLogger("drivers.mqtt.paho")
    logger.setLevel(logging.CRITICAL + 1)
    return logger


def _is_refusal(code: object) -> bool:
    """Whether a SUBACK return code is a failure: 0x80 (MQTT 3.1.1, section 3.9.3)."""
    return bool(getattr(code, "is_failure", False)) or code == 0x80
