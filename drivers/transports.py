"""What a bench may put in the place of a driver's sockets: sessions that are served within the process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import random
    from datetime import datetime

    from config.profile import OpcUaAddress
    from config.site import MqttBroker, OpcUaServer
    from config.vocabulary import UtcClock


class MqttArrival(Protocol):
    """A message; `retained`: the broker had kept it from before the subscription."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def retained(self) -> bool: ...


class MqttSession(Protocol):
    """One session on a broker, used once. Every call but `close` raises `ConnectionBroken` when it is of no use."""

    async def open(self) -> list[str]:
        """Connect and subscribe to every topic; returns those that the broker refuses."""
        ...

    async def next(self) -> MqttArrival:
        """The next message: the newest of each topic, in the order in which the topics were heard."""
        ...

    async def publish(self, topic: str, payload: str, qos: int = 1) -> None:
        """Publish, with QoS 1 wait until the broker has taken it."""

    async def close(self, *, orderly: bool) -> None:
        """End the session."""


class MqttConnect(Protocol):
    """Makes a session out of broker, client name, time-out (s) and topics; of those in `every` no message is lost."""

    def __call__(
        self, broker: MqttBroker, identifier: str, timeout_s: float, topics: Sequence[str], every: Collection[str] = ()
    ) -> MqttSession: ...


class OpcUaPublication(Protocol):
    """What a server has published since the last look: the newest value of each changed node, by its place."""

    @property
    def changes(self) -> Mapping[int, Any]: ...
    @property
    def published(self) -> datetime: ...


class OpcUaSession(Protocol):
    """One session on a server, used once. Every call but `close` raises `ConnectionBroken` when it is of no use."""

    async def open(self) -> None:
        """Connect, and have a session."""

    async def keep(self) -> None:
        """Do what keeps it alive, until cancelled."""

    async def lost(self) -> None:
        """Wait until the transport is gone; then raise."""

    async def resolve(self, addresses: Sequence[OpcUaAddress]) -> list[Any]:
        """The node id of each address; a text saying why not where there is none."""
        ...

    async def subscribe(self, nodes: Sequence[Any], interval_s: float) -> list[bool]:
        """Have changes of nodes published; tells which of them the server monitors."""
        ...

    async def publication(self) -> OpcUaPublication:
        """What came since the last call."""
        ...

    async def read(self, nodes: Sequence[Any]) -> list[Any]:
        """The data value of each node."""
        ...

    async def write(self, nodes: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        """Write variants; the status code of each."""
        ...

    async def close(self, *, orderly: bool) -> None:
        """End the session."""


@dataclass(frozen=True, slots=True)
class Transports:
    """How the drivers of one gateway reach their devices.

    `rng` makes the source of pauses of the link it is given the name of; `mqtt` a session; `opcua` one out of address
    and time-out (s). Modbus and OCPP take their connections from
    the running loop. `utc` is the wall clock that chargers are told.
    """

    rng: Callable[[str], random.Random]
    mqtt: MqttConnect
    opcua: Callable[[OpcUaServer, float], OpcUaSession]
    utc: UtcClock
