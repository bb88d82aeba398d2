"""A device and a driver of bytes, which remember what passed, and the proxy between them."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from sim_devices.faults import TcpFaultProxy
from sim_devices.faults.speech import Understanding
from sim_devices.modbus import ExceptionCode, Table
from sim_devices.modbus.pdu import answer
from sim_devices.modbus.rtu_frames import framed

BOUND_S = 10.0
LOOK_AGAIN_S = 0.005


async def until(condition: Callable[[], bool], changed: asyncio.Event | None = None) -> None:
    """Wait for a condition; looked at whenever `changed` is set, and now and then for what tells of no changes."""
    changed = changed or asyncio.Event()
    async with asyncio.timeout(BOUND_S):
        while not condition():
            changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), LOOK_AGAIN_S)


class Registers:
    """Registers that hold their own address, of any unit; writes are remembered and change nothing."""

    functions = frozenset({3, 4, 6, 16})

    def __init__(self) -> None:
        self.written: list[tuple[int, bytes]] = []

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        return struct.pack(f">{count}H", *range(address, address + count))

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        self.written.append((address, data))
        return None


class Memory:
    """Registers that hold what was put and written; those that nobody named hold 0."""

    functions = frozenset({3, 4, 6, 16})

    def __init__(self, contents: dict[int, bytes] | None = None) -> None:
        self.written: list[tuple[int, bytes]] = []
        self._registers: dict[int, bytes] = {}
        for address, data in (contents or {}).items():
            self.put(address, data)

    def put(self, address: int, data: bytes) -> None:
        for at in range(0, len(data), 2):
            self._registers[address + at // 2] = data[at : at + 2]

    def get(self, address: int, count: int) -> bytes:
        return b"".join(self._registers.get(at, bytes(2)) for at in range(address, address + count))

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        return self.get(address, count)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        self.written.append((address, data))
        self.put(address, data)
        return None


def mbap(pdu: bytes, transaction: int = 7, unit: int = 1) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def read(address: int, count: int = 2, function: int = 3) -> bytes:
    return struct.pack(">BHH", function, address, count)


def registers(address: int, count: int = 2, function: int = 3) -> bytes:
    return struct.pack(f">BB{count}H", function, 2 * count, *range(address, address + count))


class End(asyncio.Protocol):
    """One end of a connection: what it has heard, and how it ended: open, closed or reset."""

    def __init__(
        self,
        changed: asyncio.Event,
        heard: Callable[[End], None] = lambda _: None,
        made: Callable[[End], None] = lambda _: None,
    ) -> None:
        self.heard = b""
        self.pieces: list[bytes] = []
        self.times_s: list[float] = []
        self.state = "open"
        self._changed = changed
        self._heard = heard
        self._made = made
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._made(self)
        self._changed.set()

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.pieces.append(data)
        self.times_s.append(asyncio.get_running_loop().time())
        self._heard(self)
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = "reset" if exc is not None else "closed"
        self._changed.set()


class Field:
    """A device that answers any bytes of one framing, the proxy in front of it, and the drivers' connections."""

    def __init__(self, protocol: str, unit: Registers | Memory | None = None) -> None:
        self.protocol = protocol
        self.registers = unit or Registers()
        self.answers = True
        self.device: list[End] = []
        self.drivers: list[End] = []
        self.changed = asyncio.Event()
        self.proxy: TcpFaultProxy
        self._taken: dict[End, int] = {}
        self._loop = asyncio.get_running_loop()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on either end or on the proxy."""
        await until(condition, self.changed)

    async def connect(self) -> End:
        _, end = await self._loop.create_connection(lambda: End(self.changed), self.proxy.host, self.proxy.port)
        self.drivers.append(end)
        known = len(self.device)
        if self.answers:
            await self.until(lambda: len(self.device) > known or end.state != "open" or known > 0)
        return end

    async def connect_when_let(self) -> End:
        """Try until the proxy takes connections."""
        async with asyncio.timeout(BOUND_S):
            while True:
                try:
                    return await self.connect()
                except ConnectionRefusedError:
                    await asyncio.sleep(0)

    def request(self, pdu: bytes, transaction: int = 7, unit: int = 1) -> bytes:
        """The frame of a request or a reply in the field's framing."""
        return mbap(pdu, transaction, unit) if self.protocol == "modbus_tcp" else framed(unit, pdu)

    @property
    def heard(self) -> bytes:
        """What the device has heard on all its connections."""
        return b"".join(end.heard for end in self.device)

    def accept(self) -> End:
        return End(self.changed, self._answer, self.device.append)

    def _answer(self, end: End) -> None:
        while self.answers:
            rest = end.heard[self._taken.get(end, 0) :]
            frame = self._first(rest)
            if frame is None:
                return
            self._taken[end] = self._taken.get(end, 0) + len(frame)
            if self.protocol == "modbus_tcp":
                end.transport.write(mbap(answer(self.registers, frame[7:]), int.from_bytes(frame[:2]), frame[6]))
            else:
                end.transport.write(framed(frame[0], answer(self.registers, frame[1:-2])))

    def _first(self, data: bytes) -> bytes | None:
        if len(data) < 8:
            return None
        if self.protocol == "modbus_tcp":
            length = 6 + int.from_bytes(data[4:6])
        else:
            length = 8 if data[1] != 16 else 9 + data[6]
        return data[:length] if len(data) >= length else None


@asynccontextmanager
async def field(
    protocol: str = "modbus_tcp",
    seed: int = 0,
    unit: Memory | None = None,
    understanding: Understanding | None = None,
) -> AsyncIterator[Field]:
    made = Field(protocol, unit)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(made.accept, "127.0.0.1", 0)
    made.proxy = TcpFaultProxy(
        server.sockets[0].getsockname()[:2], protocol=protocol, seed=seed, understanding=understanding
    )
    await made.proxy.listen()
    try:
        yield made
    finally:
        for end in made.drivers:
            end.transport.abort()
        await made.proxy.close()
        server.close()
        for end in made.device:
            end.transport.abort()
        await server.wait_closed()
        await made.until(lambda: all(end.state != "open" for end in (*made.drivers, *made.device)))
