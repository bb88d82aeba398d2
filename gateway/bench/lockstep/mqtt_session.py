"""A driver's session on an in-process broker; implements `drivers.transports.MqttSession`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

from drivers.writer import ConnectionBroken
from sim_devices.mqtt_in_process import Attachment, BrokerAwayError, InProcessBroker


class Arrival(NamedTuple):
    """A message; `retained`: the broker had kept it from before the subscription."""

    topic: str
    payload: bytes
    retained: bool


class InProcessMqttSession:
    """Holds the newest message of each topic, in the order in which the topics were first heard, as the driver's own
    connection does; of those in `every` all of them.
    """

    def __init__(
        self, broker: InProcessBroker, identifier: str, topics: Sequence[str], every: Collection[str] = ()
    ) -> None:
        self._broker = broker
        self._identifier = identifier
        self._topics = topics
        self._every = frozenset(every)
        self._count = 0
        self._newest: dict[tuple[str, int], Arrival] = {}
        self._told = asyncio.Event()
        self._attached: Attachment | None = None
        self._lost = ""

    async def open(self) -> list[str]:
        """Connect and subscribe; the broker refuses nothing."""
        await asyncio.sleep(0)
        try:
            self._attached = self._broker.attach(self._identifier, self._take, self._end)
            for topic in self._topics:
                self._attached.subscribe(topic, 1)
        except BrokerAwayError as away:
            raise ConnectionBroken(f"cannot connect: {away}") from None
        return []

    async def next(self) -> Arrival:
        """The next message."""
        while not self._newest:
            if self._lost:
                raise ConnectionBroken(f"connection lost: {self._lost}")
            self._told.clear()
            await self._told.wait()
        return self._newest.pop(next(iter(self._newest)))

    async def publish(self, topic: str, payload: str, qos: int = 1) -> None:
        """Publish; the broker has it in the next turn."""
        assert self._attached is not None  # `open` comes first
        try:
            self._attached.publish(topic, payload.encode(), qos=qos)
        except BrokerAwayError as away:
            raise ConnectionBroken(f"nobody took the command on {topic}: {away}") from None
        await asyncio.sleep(0)

    async def close(self, *, orderly: bool) -> None:
        """Leave the broker."""
        if self._attached is not None:
            self._attached.detach(orderly=orderly)

    def _take(self, topic: str, payload: bytes, *, retained: bool, qos: int) -> None:
        if topic in self._every:
            self._count += 1
        self._newest[topic, self._count if topic in self._every else 0] = Arrival(topic, payload, retained)
        self._told.set()

    def _end(self, reason: str) -> None:
        self._lost = reason
        self._told.set()
