"""The DSO twin's own connection to the broker: a new client for every attempt."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from aiomqtt import Client, Message, MqttError

from config.site import MqttBroker

ANSWER_TIMEOUT_S: Final = 5.0
"""How long the broker may take to answer a connect, a subscribe or a publish."""

LONGEST_PAUSE_S: Final = 1.0
"""Between attempts to connect; each is drawn from a tenth of this upward, so that clients don't return in step."""

AT_ONCE: Final = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""Without it an order that follows a heartbeat waits for the peer's delayed acknowledgement of that, about 40 ms."""

MOST_WAITING: Final = 1000
"""Messages received and not yet read; beyond that new ones are dropped."""


class BrokerSettingsError(Exception):
    """The broker's settings name a password or a file that isn't there."""


def tls_context(broker: MqttBroker) -> ssl.SSLContext | None:
    """The TLS settings as a context, None without TLS. Reads files; raises BrokerSettingsError."""
    if broker.tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=broker.tls.ca_file)
        if broker.tls.cert_file is not None:
            context.load_cert_chain(broker.tls.cert_file, broker.tls.key_file)
    except OSError as error:
        raise BrokerSettingsError(f"TLS: {error}") from error
    return context


def password(broker: MqttBroker) -> str | None:
    """The password from the environment variable that the settings name. Raises BrokerSettingsError."""
    if broker.password_env is None:
        return None
    try:
        return os.environ[broker.password_env]
    except KeyError:
        raise BrokerSettingsError(f"the environment has no variable {broker.password_env}") from None


class BrokerLink:
    """Stays connected and subscribed to one filter; hands on what arrives.

    `on_message` and `on_state` (connected, reason) are called in the loop and must return at once; a state is told once
    for each transition. `new_client` is called in place of aiomqtt's, `rng` draws the pauses between attempts.
    """

    def __init__(
        self,
        broker: MqttBroker,
        subscription: str,
        *,
        identifier: str,
        on_message: Callable[[Message], None],
        on_state: Callable[[bool, str], None],
        new_client: Callable[..., Any] = Client,
        rng: random.Random | None = None,
    ) -> None:
        self.connected = asyncio.Event()
        self._broker = broker
        self._password = password(broker)
        self._tls = tls_context(broker)
        self._subscription = subscription
        self._identifier = identifier
        self._on_message = on_message
        self._on_state = on_state
        self._client: Any = None
        self._random = rng or random.Random()
        self._make_client = new_client

    async def run(self) -> None:
        """Connect, receive and reconnect until cancelled."""
        told = ""
        while True:
            reason = "closed"
            try:
                async with self._new_client() as client:
                    await client.subscribe(self._subscription, qos=1)
                    _raise_if_cancelled()
                    self._client, told = client, ""
                    self.connected.set()
                    self._on_state(True, "")
                    async for message in client.messages:
                        self._on_message(message)
            except MqttError as error:
                # Leaving the client while cancelled may fail as well, and that error takes the cancellation's place.
                _raise_if_cancelled()
                reason = str(error)
            finally:
                self._client = None
                self.connected.clear()
            if not told:
                self._on_state(False, reason)
                told = reason
            await asyncio.sleep(LONGEST_PAUSE_S * self._random.uniform(0.1, 1.0))

    async def publish(self, topic: str, payload: bytes, qos: int) -> None:
        """Publish, never retained; at QoS 1 return when the broker has taken it. Raises MqttError while away."""
        if self._client is None:
            raise MqttError("not connected")
        await self._client.publish(topic, payload, qos=qos, retain=False)
        _raise_if_cancelled()

    def _new_client(self) -> Any:
        # What a lost client still holds of unacknowledged messages is dropped with it: none is sent a second time.
        return self._make_client(
            self._broker.host,
            self._broker.port,
            username=self._broker.username,
            password=self._password,
            identifier=self._identifier,
            tls_context=self._tls,
            timeout=ANSWER_TIMEOUT_S,
            keepalive=10,
            socket_options=(AT_ONCE,),
            max_queued_incoming_messages=MOST_WAITING,
        )


def _raise_if_cancelled() -> None:
    """Cancel the running task if that was asked for.

    aiomqtt waits with `asyncio.wait_for`, which up to Python 3.11 drops a cancellation that comes together with the
    result.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
