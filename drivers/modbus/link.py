"""A link: makes its connection, serves it, and makes it again for as long as it runs."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog

from config.vocabulary import FieldSink, LinkState
from drivers.backoff import Backoff
from drivers.driver import LinkStats
from drivers.modbus.connection import Connection
from drivers.reach import unreached

Connector: TypeAlias = Callable[
    [Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.BaseTransport, asyncio.Protocol]]
]
"""Connects the protocol that the given factory makes, over whatever transport."""

# A device that comes back is found within 2 s: one attempt into the void, one pause, and a good attempt.
CONNECT_TIMEOUT_S: Final = 1.0
LONGEST_PAUSE_S: Final = 0.75
FIRST_PAUSE_S: Final = 0.05


def tcp_connector(host: str, port: int) -> Connector:
    """Connects over TCP; `OSError` says in words why nobody is there."""

    async def connect(factory: Callable[[], asyncio.Protocol]) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        try:
            return await asyncio.get_running_loop().create_connection(factory, host, port)
        except (OSError, UnicodeError) as error:
            raise OSError(unreached(error, host, port)) from None

    return connect


class Link:
    """Owns at most one connection at a time. UP is told with the first valid reply, not with the connection.

    `new_connection` makes the protocol of one connection, and is given whom to tell of its first reply.

    A server that accepts and stays silent is thus lost once, and not up and lost again with every attempt.
    """

    def __init__(
        self,
        name: str,
        connect: Connector,
        serve: Callable[[Connection], Awaitable[None]],
        sink: FieldSink,
        stats: LinkStats,
        rng: random.Random,
        new_connection: Callable[[Callable[[], None]], Connection],
        *,
        connect_pause_s: float = 0.0,
    ) -> None:
        self.name = name
        self._connect = connect
        self._serve = serve
        self._sink = sink
        self._stats = stats
        self._backoff = Backoff(rng, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._connect_pause_s = connect_pause_s
        self._new_connection = new_connection
        self._log = structlog.get_logger("drivers.modbus").bind(link=name)

    async def run(self) -> None:
        """Serve until cancelled."""
        self._stats.state = LinkState.CONNECTING
        self._sink.link_state(self.name, LinkState.CONNECTING, "")
        while True:
            self._lost(await self._live_once())
            await asyncio.sleep(self._backoff.pause_s())

    async def _live_once(self) -> str:
        """One connection from its beginning to its end; the reason of its end."""
        connection = self._new_connection(self._first_reply)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connect(lambda: connection)
            return await self._attend(connection)
        except TimeoutError:
            return f"no connection within {CONNECT_TIMEOUT_S:g} s"
        except OSError as error:
            return no_connection(error)
        finally:
            connection.close("the driver stops")

    async def _attend(self, connection: Connection) -> str:
        await asyncio.sleep(self._connect_pause_s)
        connection.release()
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(_awaited(self._serve(connection)), name=f"{self.name} set-up")
            reason = await connection.wait_closed()
            serving.cancel()
        return reason

    def _first_reply(self) -> None:
        self._backoff.reset()
        state, self._stats.state = self._stats.state, LinkState.UP
        self._stats.reason = ""
        if state is LinkState.LOST:
            self._stats.reconnects += 1
        self._sink.link_state(self.name, LinkState.UP, "")
        self._log.info("link up")

    def _lost(self, reason: str) -> None:
        state, self._stats.state = self._stats.state, LinkState.LOST
        self._stats.reason = reason
        if state is LinkState.LOST:
            return
        self._stats.lost += 1
        self._sink.link_state(self.name, LinkState.LOST, reason)
        self._log.warning("link lost", reason=reason)


async def _awaited(awaitable: Awaitable[None]) -> None:
    await awaitable


def no_connection(error: OSError) -> str:
    """Why a connector has failed."""
    return str(error) if error.errno is None else os.strerror(error.errno)
