"""One parent over MQTT: a connection that comes back by itself, orders in, messages out within stated bounds."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import aiomqtt
import structlog

from config.messages import Acknowledgement, Heartbeat, Offer, Telemetry, Up, down_topic, up_topic
from config.site import MqttBroker
from config.strict import Strict
from config.vocabulary import UtcClock
from drivers.backoff import Backoff
from drivers.tls import broker_context, refused_certificate
from gateway.parent.utc import utc_datetime

ACKNOWLEDGEMENTS_KEPT: Final = 1000
INCOMING_KEPT: Final = 1000
PUBLISH_TIMEOUT_S: Final = 2.0
CANCEL_AGAIN_S: Final = 1.0
CONNECT_TIMEOUT_S: Final = 5.0
PROBE_TIMEOUT_S: Final = 1.0
AT_ONCE: Final = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""Without it a message that follows another waits for the peer's delayed acknowledgement, about 40 ms."""


Handle = Callable[[str, bytes, bool], None]
"""Takes message kind, payload and whether it was retained; returns at once."""


@dataclass(slots=True)
class MqttParent:
    """Talks to one parent. `layer` and `source` make the topics; `handle` gets each payload as it came.

    While the broker is away acknowledgements and telemetry wait, at most `ACKNOWLEDGEMENTS_KEPT` and
    `telemetry_backlog`, the oldest dropped and counted; offers and heartbeats do not wait. `rng` draws the pauses
    between connections; `new_client` is called in place of aiomqtt's.
    """

    layer: str
    source: str
    broker: MqttBroker
    handle: Handle
    utc: UtcClock
    heartbeat_interval_s: float
    telemetry_backlog: int
    new_client: Callable[..., Any] | None = None
    rng: random.Random = field(default_factory=random.Random)
    connected: bool = False
    reconnects: int = 0
    dropped: int = 0
    reason: str = ""
    _acknowledgements: deque[Acknowledgement] = field(default_factory=deque)
    _telemetry: deque[Telemetry] = field(default_factory=deque)
    _offer: Offer | None = None
    _pending: asyncio.Event = field(default_factory=asyncio.Event)
    _sequence: count[int] = field(default_factory=count)

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Queue an acknowledgement; it goes out before anything else."""
        if len(self._acknowledgements) >= ACKNOWLEDGEMENTS_KEPT:
            self._acknowledgements.popleft()
            self.dropped += 1
        self._acknowledgements.append(acknowledgement)
        self._pending.set()

    def tell(self, telemetry: Telemetry) -> None:
        """Queue telemetry."""
        if len(self._telemetry) >= max(self.telemetry_backlog, 1):
            self._telemetry.popleft()
            self.dropped += 1
        self._telemetry.append(telemetry)
        self._pending.set()

    def offer(self, offer: Offer) -> None:
        """Publish the newest offer."""
        self._offer = offer
        self._pending.set()

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled."""
        log = structlog.get_logger().bind(parent=self.source)
        backoff = Backoff(self.rng, first_s=0.1, cap_s=1.0)
        while True:
            serving = asyncio.create_task(self._serve(backoff), name=f"parent {self.source} connection")
            try:
                await asyncio.wait((serving,))
            finally:
                await _ended(serving)
            reason = _reason(serving)
            if not self.connected:
                reason = await refused_certificate(self.broker, PROBE_TIMEOUT_S) or reason
            if not self.reason:
                log.warning("parent lost", reason=reason)
            self.connected, self.reason = False, reason
            await asyncio.sleep(backoff.pause_s())

    async def _serve(self, backoff: Backoff) -> None:
        password = _password(self.broker)
        context = await broker_context(self.broker, CONNECT_TIMEOUT_S)
        async with (
            (self.new_client or aiomqtt.Client)(
                self.broker.host,
                self.broker.port,
                username=self.broker.username,
                password=password,
                tls_context=context,
                identifier=f"lamina-{self.layer}-{self.source}-{os.getpid()}",
                socket_options=(AT_ONCE,),
                keepalive=10,
                timeout=CONNECT_TIMEOUT_S,
                max_queued_incoming_messages=INCOMING_KEPT,
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            await client.subscribe(down_topic(self.layer, self.source, "+"), qos=1)
            self.reconnects += bool(self.reason)
            self.connected, self.reason = True, ""
            structlog.get_logger().info("parent connected", parent=self.source)
            backoff.reset()
            self._pending.set()
            group.create_task(self._receive(client), name=f"{self.source} receive")
            group.create_task(self._publish(client), name=f"{self.source} publish")
            group.create_task(self._beat(client), name=f"{self.source} heartbeat")

    async def _receive(self, client: aiomqtt.Client) -> None:
        ours = down_topic(self.layer, self.source, "+").removesuffix("+")
        async for message in client.messages:
            if not message.topic.value.startswith(ours):
                # A broker that sends what nobody subscribed to is no parent.
                continue
            payload = message.payload
            if isinstance(payload, str):
                payload = payload.encode()
            data = bytes(payload) if isinstance(payload, bytes | bytearray) else b""
            self.handle(message.topic.value.removeprefix(ours), data, bool(message.retain))
        raise aiomqtt.MqttError("the broker closed the connection")

    async def _publish(self, client: aiomqtt.Client) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            while self._acknowledgements:
                await self._send(client, Up.ACKNOWLEDGEMENT, self._acknowledgements[0], qos=1)
                self._acknowledgements.popleft()
            if self._offer is not None:
                offer, self._offer = self._offer, None
                await self._send(client, Up.OFFER, offer, qos=1)
            while self._telemetry and not self._acknowledgements:
                await self._send(client, Up.TELEMETRY, self._telemetry[0], qos=0)
                self._telemetry.popleft()
            if self._acknowledgements:
                self._pending.set()

    async def _beat(self, client: aiomqtt.Client) -> None:
        while True:
            beat = Heartbeat(sequence=next(self._sequence), issued_at=utc_datetime(self.utc()))
            await self._send(client, Up.HEARTBEAT, beat, qos=0)
            await asyncio.sleep(self.heartbeat_interval_s)

    async def _send(self, client: aiomqtt.Client, kind: Up, message: Strict, qos: int) -> None:
        topic = up_topic(self.layer, self.source, kind)
        await client.publish(topic, message.model_dump_json(), qos=qos, timeout=PUBLISH_TIMEOUT_S)


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel until it ends: on Python 3.11 aiomqtt can answer a cancellation with another error or with none."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=CANCEL_AGAIN_S)


def _reason(task: asyncio.Task[None]) -> str:
    """Why a connection ended; an error that is not the network's or the broker's is raised."""
    error = None if task.cancelled() else task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None and not isinstance(error, aiomqtt.MqttError | OSError | TimeoutError | ValueError):
        raise error
    return (str(error) or type(error).__name__) if error is not None else "connection closed"


def _password(broker: MqttBroker) -> str | None:
    if broker.password_env is None:
        return None
    password = os.environ.get(broker.password_env)
    if password is None:
        raise ValueError(f"the environment has no {broker.password_env}, which is to hold the broker's password")
    return password
