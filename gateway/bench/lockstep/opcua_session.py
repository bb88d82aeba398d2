"""A driver's session on an in-process OPC UA server; implements `drivers.transports.OpcUaSession`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from drivers.writer import ConnectionBroken

if TYPE_CHECKING:
    from config.profile import OpcUaAddress
    from sim_devices.opcua_in_process import InProcessOpcUa, InProcessSubscription


class Publication(NamedTuple):
    """The newest value of each changed node, by its place, and the server's time of publishing."""

    changes: dict[int, Any]
    published: datetime


class InProcessOpcUaSession:
    """Each request is answered in the next turn; by a silent server not at all, which is noticed after the time-out."""

    def __init__(self, server: InProcessOpcUa | None, timeout_s: float) -> None:
        self.silence_s = 0.0
        self._server = server
        self._timeout_s = timeout_s
        self._attached = False
        self._gone = asyncio.Event()
        self._subscription: InProcessSubscription | None = None
        self._changes: dict[int, Any] = {}
        self._published: datetime | None = None
        self._arrived = asyncio.Event()

    async def open(self) -> None:
        """Connect and have a session."""
        server = self._server
        if server is None or not server.running:
            await asyncio.sleep(0)
            raise ConnectionBroken("cannot connect: Connection refused")
        await self._answered("no hello")
        server.attach(self._lost)
        self._attached = True

    async def keep(self) -> None:
        """There is no channel to be renewed."""
        await self._gone.wait()

    async def lost(self) -> None:
        """Wait until the server drops its clients; then raise."""
        await self._gone.wait()
        raise ConnectionBroken("the server closed the connection")

    async def resolve(self, addresses: Sequence[OpcUaAddress]) -> list[Any]:
        """The node id of each address; a text saying why not where there is none."""
        server = await self._answered("no browse paths")
        return [server.resolve(one.namespace, one.identifier, one.path) for one in addresses]

    async def subscribe(self, nodes: Sequence[Any], interval_s: float) -> list[bool]:
        """Have changes published, beginning with the present values."""
        server = await self._answered("no subscription")
        self._subscription = subscription = server.subscribe(nodes, interval_s, self._take)
        self.silence_s = 3 * subscription.keep_alive_s + self._timeout_s
        return [subscription.monitors(node) for node in nodes]

    async def publication(self) -> Publication:
        """What came since the last call."""
        try:
            async with asyncio.timeout(self.silence_s):
                await self._arrived.wait()
        except TimeoutError:
            words = f"the subscription was silent for {self.silence_s:.1f} s"
            raise ConnectionBroken(words, timed_out=True) from None
        self._arrived.clear()
        assert self._published is not None  # or nothing would have arrived
        changes, self._changes = self._changes, {}
        return Publication(changes, self._published)

    async def read(self, nodes: Sequence[Any]) -> list[Any]:
        """The data value of each node."""
        server = await self._answered("no read")
        return [server.read(node) for node in nodes]

    async def write(self, nodes: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        """Write variants; the status code of each."""
        server = await self._answered("no answer to a write")
        return [server.write(node, value) for node, value in zip(nodes, values, strict=True)]

    async def close(self, *, orderly: bool) -> None:
        """Leave the server."""
        if self._server is not None and self._attached:
            self._server.detach(self._lost, self._subscription)

    async def _answered(self, what: str) -> InProcessOpcUa:
        """The server, when it has answered."""
        server = self._server
        assert server is not None  # or `open` would have said so
        if server.silent:
            await asyncio.sleep(self._timeout_s)
            raise ConnectionBroken(f"{what}: no answer within {self._timeout_s:g} s", timed_out=True)
        await asyncio.sleep(0)
        if self._gone.is_set() or not server.running:
            raise ConnectionBroken(f"{what}: the server closed the connection")
        return server

    def _take(self, changes: Mapping[int, Any], published: datetime) -> None:
        self._changes.update(changes)
        self._published = published
        self._arrived.set()

    def _lost(self) -> None:
        self._gone.set()
