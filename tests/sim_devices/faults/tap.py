"""A relay that remembers every byte that passes, to look at either side of a proxy."""

from __future__ import annotations

import asyncio
from typing import cast


class Tap:
    """Relays connections to a port of loopback; `asked` and `answered` are what passed on all of them."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.asked = b""
        self.answered = b""
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def __aenter__(self) -> Tap:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self, asks=True), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for end in tuple(self._ends):
            end.abort()
        await self._none_left.wait()
        await self._server.wait_closed()

    def joined(self, end: _End) -> None:
        self._ends.add(end)
        self._none_left.clear()
        if end.asks:
            task = asyncio.get_running_loop().create_task(self._join(end), name="tap")
            end.joining = task

    def parted(self, end: _End) -> None:
        self._ends.discard(end)
        if not self._ends:
            self._none_left.set()

    async def _join(self, end: _End) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, other = await loop.create_connection(lambda: _End(self, asks=False), "127.0.0.1", self.target)
        except OSError:
            end.abort()
        else:
            end.meet(other)


class _End(asyncio.Protocol):
    def __init__(self, tap: Tap, asks: bool) -> None:
        self.asks = asks
        self.joining: asyncio.Task[None] | None = None
        self._tap = tap
        self._other: _End | None = None
        self._early = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._tap.joined(self)

    def data_received(self, data: bytes) -> None:
        if self.asks:
            self._tap.asked += data
        else:
            self._tap.answered += data
        if self._other is None or self._other._transport is None:
            self._early += data
        else:
            self._other._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._tap.parted(self)
        if self._other is not None:
            self._other.abort()

    def meet(self, other: _End) -> None:
        self._other, other._other = other, self
        if other._transport is not None and self._early:
            other._transport.write(self._early)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
