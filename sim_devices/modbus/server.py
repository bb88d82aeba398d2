"""A Modbus TCP server for twins: any number of connections, several units, requests answered in order.

It stands on asyncio's protocol interface alone, so that it runs over sockets and over in-memory transports alike, and
`ModbusServer.reply` knows nothing of framing, so that a serial line can use it too.
Source: MODBUS Messaging on TCP/IP Implementation Guide V1.0b, 2006, section 3.1.3 (MBAP header).
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Final, cast

from sim_devices.modbus.pdu import ERROR_BIT, PartOfUnit, Unit, answer

HEADER: Final = struct.Struct(">HHH")
"""Transaction, protocol (0) and length of what follows: the unit and the request."""

MIN_LENGTH: Final = 2
MAX_LENGTH: Final = 254
BATCH_BYTES: Final = 16_384
"""Answers are handed to the transport in portions of about this size, so that a peer that doesn't read is noticed."""

MAX_PENDING_BYTES: Final = 524_288
"""Two of the largest reads that asyncio's socket transport makes; only a transport that ignores a pause gets there."""


@dataclass(slots=True)
class ServerCounts:
    """What a server has seen since its start. `absent`: requests to units that are not there, left unanswered."""

    connections: int = 0
    requests: int = 0
    exceptions: int = 0
    absent: int = 0
    garbage: int = 0


class ModbusServer:
    """Units by id, and the connections that ask for them."""

    def __init__(self) -> None:
        self.counts = ServerCounts()
        self.units: dict[int, Unit] = {}
        self._connections: set[ModbusTcpProtocol] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._listener: asyncio.Server | None = None

    def add_unit(self, unit_id: int, unit: Unit) -> None:
        """Serve `unit` under `unit_id`, together with the other part of its device that may be there already.

        Raises ValueError for an id that is taken or not in 0 to 255.
        """
        if not 0 <= unit_id <= 255:
            raise ValueError(f"unit id {unit_id} is not in 0 to 255")
        present = self.units.get(unit_id)
        if present is not None:
            together = present.joined(unit) if isinstance(present, PartOfUnit) else None
            if together is None:
                raise ValueError(f"unit id {unit_id} is taken")
            unit = together
        self.units[unit_id] = unit

    def remove_unit(self, unit_id: int) -> None:
        """Serve it no more; requests to it then get no answer. Raises KeyError when it isn't there."""
        del self.units[unit_id]

    def reply(self, unit_id: int, request: bytes) -> bytes | None:
        """The response to one request, without framing; None when no unit answers, as on a bus."""
        counts = self.counts
        counts.requests += 1
        unit = self.units.get(unit_id)
        if unit is None:
            counts.absent += 1
            return None
        response = answer(unit, request)
        if response[0] & ERROR_BIT:
            counts.exceptions += 1
        return response

    def protocol(self) -> ModbusTcpProtocol:
        """A protocol for one new connection, to be given to any asyncio transport."""
        return ModbusTcpProtocol(self)

    async def listen(self, host: str, port: int) -> int:
        """Accept connections; return the port. Raises OSError when the address can't be had."""
        if self._listener is not None:
            raise RuntimeError("the server listens already")
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self.protocol, host, port)
        return cast(int, self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop every connection; return when the last one is gone."""
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._connections):
            connection.abort()
        if self._listener is not None:
            await self._listener.wait_closed()
            self._listener = None
        await self._none_left.wait()

    def opened(self, connection: ModbusTcpProtocol) -> None:
        """Told by a protocol when its connection is made."""
        self.counts.connections += 1
        self._connections.add(connection)
        self._none_left.clear()

    def closed(self, connection: ModbusTcpProtocol) -> None:
        """Told by a protocol when its connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._none_left.set()


class ModbusTcpProtocol(asyncio.Protocol):
    """One connection: takes requests in whatever slices they come and answers them in order.

    Bytes that can't be Modbus close the connection, since nothing tells where the next request begins. A peer that
    doesn't read its answers is not read from, so that neither side's buffer grows.
    """

    def __init__(self, server: ModbusServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self._paused = False
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport; what was asked for and not answered is dropped."""
        self._closing = True
        self._pending = b""
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        if self._closing:
            return
        self._pending = self._pending + data if self._pending else data
        self._serve()
        if len(self._pending) > MAX_PENDING_BYTES:
            self._server.counts.garbage += 1
            self.abort()

    def pause_writing(self) -> None:
        """Called by the transport when the peer doesn't take its answers."""
        self._paused = True
        if self._transport is not None and not self._closing:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Called by the transport when the peer reads again."""
        self._paused = False
        self._serve()
        if self._transport is not None and not (self._paused or self._closing):
            self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._closing = True
        self._pending = b""
        if self._transport is not None:
            self._transport.abort()

    def _serve(self) -> None:
        while self._transport is not None and not (self._paused or self._closing):
            answers, more, garbage = self._take()
            if answers:
                self._transport.write(answers)
            if garbage:
                self._server.counts.garbage += 1
                self._closing = True
                self._pending = b""
                self._transport.close()
            if not more:
                return

    def _take(self) -> tuple[bytes, bool, bool]:
        """Answer a portion of what is pending: the answers, whether there may be more, whether garbage follows."""
        data, at, size = self._pending, 0, 0
        frames: list[bytes] = []
        more = garbage = False
        while len(data) - at >= HEADER.size:
            if size >= BATCH_BYTES:
                more = True
                break
            transaction, protocol, length = HEADER.unpack_from(data, at)
            if protocol != 0 or not MIN_LENGTH <= length <= MAX_LENGTH:
                garbage = True
                break
            end = at + HEADER.size + length
            if end > len(data):
                break
            unit_id = data[at + HEADER.size]
            response = self._server.reply(unit_id, bytes(data[at + HEADER.size + 1 : end]))
            at = end
            if response is not None:
                frames.append(HEADER.pack(transaction, 0, len(response) + 1))
                frames.append(bytes((unit_id,)))
                frames.append(response)
                size += len(response) + 7
        self._pending = data[at:]
        return b"".join(frames), more, garbage
