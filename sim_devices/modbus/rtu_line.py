"""Twins on a serial line, reached through a pseudo-terminal, or over TCP as through a serial device server.

The units are those of a `ModbusServer`, which answers here without TCP's framing; time is `RtuBus`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from sim_devices.modbus.pdu import Unit
from sim_devices.modbus.pseudo_terminal import PseudoTerminal
from sim_devices.modbus.rtu_bus import LineTiming, RtuBus
from sim_devices.modbus.server import ModbusServer


class RtuLine:
    """Units on a line that is reached at `path`, a pseudo-terminal, or `link`, a symbolic link made for it.

    Raises OSError when no terminal or link can be had.
    """

    def __init__(self, server: ModbusServer, timing: LineTiming, link: Path | None = None) -> None:
        self.server = server
        self.bus = RtuBus(server, self._say, timing)
        self._terminal = PseudoTerminal(self.bus.hear, link)

    @property
    def path(self) -> str:
        """What a driver opens."""
        return self._terminal.path

    def close(self) -> None:
        """Take the line away."""
        self.bus.close()
        self._terminal.close()

    def _say(self, data: bytes) -> None:
        self._terminal.write(data)


def start_rtu_line(
    units: Mapping[int, Unit],
    *,
    baud: int = 19_200,
    turnaround_s: float = 0.003,
    turnaround_s_by_unit: Mapping[int, float] | None = None,
    link: Path | None = None,
) -> RtuLine:
    """A line with `units` by id on a new pseudo-terminal; see `LineTiming` for its speed.

    Raises ValueError for a unit id that can't be on a line, OSError when no terminal or link can be had.
    """
    server = ModbusServer()
    for unit_id, unit in units.items():
        add_line_unit(server, unit_id, unit)
    timing = LineTiming(baud, turnaround_s=turnaround_s, turnaround_s_by_unit=turnaround_s_by_unit or {})
    return RtuLine(server, timing, link)


def add_line_unit(server: ModbusServer, unit_id: int, unit: Unit) -> None:
    """Serve `unit` on a line. Raises ValueError for an id that is taken or not in 1 to 247: 0 is everybody's and the
    rest is reserved (MODBUS over Serial Line V1.02, section 2.2).
    """
    if not 1 <= unit_id <= 247:
        raise ValueError(f"unit id {unit_id} is not in 1 to 247")
    server.add_unit(unit_id, unit)


class RtuTcpServer:
    """A serial device server: TCP connections onto one line; each hears everything that the units say."""

    def __init__(self, server: ModbusServer, timing: LineTiming) -> None:
        self.server = server
        self.bus = RtuBus(server, self._say, timing)
        self._connections: set[_RtuTcpProtocol] = set()
        self._listener: asyncio.Server | None = None
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def listen(self, host: str, port: int) -> int:
        """Accept connections; return the port. Raises OSError when the address can't be had."""
        if self._listener is not None:
            raise RuntimeError("the server listens already")
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: _RtuTcpProtocol(self), host, port)
        return cast(int, self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop every connection; return when the last one is gone."""
        self.bus.close()
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._connections):
            connection.abort()
        if self._listener is not None:
            await self._listener.wait_closed()
            self._listener = None
        await self._none_left.wait()

    def opened(self, connection: _RtuTcpProtocol) -> None:
        """Told by a protocol when its connection is made."""
        self.server.counts.connections += 1
        self._connections.add(connection)
        self._none_left.clear()

    def closed(self, connection: _RtuTcpProtocol) -> None:
        """Told by a protocol when its connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._none_left.set()

    def _say(self, data: bytes) -> None:
        for connection in self._connections:
            connection.say(data)


class _RtuTcpProtocol(asyncio.Protocol):
    """One connection; a peer that doesn't read loses what the line says meanwhile, as from a device server."""

    def __init__(self, server: RtuTcpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        self._server.bus.hear(data)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def say(self, data: bytes) -> None:
        if self._transport is not None and not self._paused:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
