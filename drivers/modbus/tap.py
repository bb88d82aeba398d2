"""Listens to what a link reads: every request that goes out and the registers that come back, as bytes on the wire.

It stands between a connection and its transport, so that drivers read as they always do, and lets nothing but reads
pass. Frames: Modbus Messaging on TCP/IP V1.0b, section 3.1.3; MODBUS over Serial Line V1.02, section 2.5.1.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, cast

from config.vocabulary import Clock
from drivers.heard import HeardRead, Listener
from drivers.modbus.link import Connector
from drivers.modbus.request import EXCEPTION, READ_HOLDING, READ_INPUT
from drivers.modbus.rtu_framing import check_sum

_MBAP: Final = struct.Struct(">HHHB")
_READ: Final = struct.Struct(">BHH")
_READS: Final = {READ_HOLDING: "holding", READ_INPUT: "input"}
_CRC_BYTES: Final = 2
_LONGEST_PENDING: Final = 1024
"""Longer than any frame; what has not become one by then never will."""


def tapped(connect: Connector, heard: Listener, clock: Clock, *, rtu: bool) -> Connector:
    """A connector like `connect` whose connections are listened to; `rtu`: they carry RTU frames, else Modbus TCP."""

    async def connect_tapped(
        factory: Callable[[], asyncio.Protocol],
    ) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        return await connect(lambda: _Tap(factory(), _Listening(heard, clock, rtu=rtu)))

    return connect_tapped


class _Listening:
    """Pairs requests and replies of one connection, which has one request in flight."""

    def __init__(self, heard: Listener, clock: Clock, *, rtu: bool) -> None:
        self._heard = heard
        self._clock = clock
        self._rtu = rtu
        self._asked: HeardRead | None = None
        self._transaction = 0
        self._pending = b""

    def sends(self, frame: bytes) -> bool:
        """A request goes out; whether it may: only reads may."""
        self.ends()
        head = 0 if self._rtu else _MBAP.size - 1
        if len(frame) < head + 1 + _READ.size:
            return False
        unit = frame[head]
        function, first, count = _READ.unpack_from(frame, head + 1)
        table = _READS.get(function)
        if table is None:
            return False
        self._transaction = 0 if self._rtu else _MBAP.unpack_from(frame)[0]
        self._pending = b""
        self._asked = HeardRead(self._clock(), unit, table, first, count)
        return True

    def comes(self, data: bytes) -> None:
        """Bytes from the device."""
        self._pending += data
        if self._rtu:
            self._take_rtu()
        else:
            self._take_tcp()
        if len(self._pending) > _LONGEST_PENDING:
            self._pending = b""

    def ends(self) -> None:
        """The request in flight, if any, gets no answer any more."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._heard(asked)

    def _take_tcp(self) -> None:
        while len(self._pending) >= _MBAP.size:
            transaction, protocol, length, unit = _MBAP.unpack_from(self._pending)
            end = _MBAP.size - 1 + length
            if protocol != 0 or length < 2 or len(self._pending) < end:
                return
            pdu, self._pending = self._pending[_MBAP.size : end], self._pending[end:]
            if transaction == self._transaction:
                self._answered(unit, pdu)

    def _take_rtu(self) -> None:
        asked = self._asked
        if asked is None:
            self._pending = b""
            return
        for size in (5 + 2 * asked.count, 5):
            frame = self._pending[:size]
            if len(frame) == size and check_sum(frame[:-_CRC_BYTES]) == frame[-_CRC_BYTES:]:
                self._pending = self._pending[size:]
                self._answered(frame[0], frame[1:-_CRC_BYTES])
                return

    def _answered(self, unit: int, pdu: bytes) -> None:
        asked = self._asked
        if asked is None or unit != asked.unit:
            return
        function = READ_INPUT if asked.table == "input" else READ_HOLDING
        now_s = self._clock()
        if len(pdu) == 2 and pdu[0] == function | EXCEPTION:
            self._asked = None
            self._heard(replace(asked, at_s=now_s, exception=pdu[1]))
        elif pdu[:2] == bytes((function, 2 * asked.count)) and len(pdu) == 2 + 2 * asked.count:
            self._asked = None
            self._heard(replace(asked, at_s=now_s, words=pdu[2:]))


class _Tap(asyncio.Protocol):
    """In the connection's place before its transport."""

    def __init__(self, connection: asyncio.Protocol, listening: _Listening) -> None:
        self._connection = connection
        self._listening = listening

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connection_made(_ReadOnly(cast(asyncio.Transport, transport), self._listening))

    def data_received(self, data: bytes) -> None:
        self._listening.comes(data)
        self._connection.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listening.ends()
        self._connection.connection_lost(exc)


class _ReadOnly(asyncio.Transport):
    """The transport as the connection sees it: what is no read ends it instead of going out."""

    def __init__(self, transport: asyncio.Transport, listening: _Listening) -> None:
        super().__init__()
        self._transport = transport
        self._listening = listening

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._listening.sends(bytes(data)):
            self._transport.write(data)
        else:
            self._transport.abort()

    def abort(self) -> None:
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
