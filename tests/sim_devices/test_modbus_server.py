"""The twins' Modbus server: order, slices, refusals, silence, garbage, slow peers."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_devices.modbus import ExceptionCode, ModbusServer, ModbusTcpProtocol, Table

FIRST, COUNT = 100, 50


class Registers:
    """Fifty registers from 100, which remember each write as one block."""

    functions = frozenset({3, 4, 6, 16})

    def __init__(self) -> None:
        self.words = {Table.HOLDING: list(range(COUNT)), Table.INPUT: list(range(1000, 1000 + COUNT))}
        self.written: list[tuple[int, tuple[int, ...]]] = []

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        at = address - FIRST
        if at < 0 or at + count > COUNT:
            return ExceptionCode.ILLEGAL_ADDRESS
        return struct.pack(f">{count}H", *self.words[table][at : at + count])

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        values = struct.unpack(f">{len(data) // 2}H", data)
        at = address - FIRST
        if at < 0 or at + len(values) > COUNT:
            return ExceptionCode.ILLEGAL_ADDRESS
        if 0xDEAD in values:
            return ExceptionCode.ILLEGAL_VALUE
        self.words[Table.HOLDING][at : at + len(values)] = values
        self.written.append((address, values))
        return None


def frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def read_request(address: int, count: int, function: int = 3) -> bytes:
    return struct.pack(">BHH", function, address, count)


def write_request(address: int, *values: int) -> bytes:
    return struct.pack(f">BHHB{len(values)}H", 16, address, len(values), 2 * len(values), *values)


def read_response(*values: int, function: int = 3) -> bytes:
    return struct.pack(f">BB{len(values)}H", function, 2 * len(values), *values)


async def receive(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    async with asyncio.timeout(2):
        transaction, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
        return transaction, unit, await reader.readexactly(length - 1)


class Line:
    """A server on a real socket, with connections that are closed at the end."""

    def __init__(self, server: ModbusServer, unit: Registers, port: int) -> None:
        self.server = server
        self.unit = unit
        self.port = port
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def ask(self, pdu: bytes, unit: int = 1) -> bytes:
        """The answer on a connection of its own."""
        reader, writer = await self.connect()
        writer.write(frame(7, unit, pdu))
        transaction, answered_by, response = await receive(reader)
        assert (transaction, answered_by) == (7, unit)
        return response


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    server, unit = ModbusServer(), Registers()
    server.add_unit(1, unit)
    line = Line(server, unit, await server.listen("127.0.0.1", 0))
    yield line
    for writer in line.writers:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass  # the server closed it first, which several of these tests are about
    await server.close()


async def test_holding_and_input_registers_are_tables_of_their_own(line: Line) -> None:
    assert await line.ask(read_request(103, 2)) == read_response(3, 4)
    assert await line.ask(read_request(103, 2, function=4)) == read_response(1003, 1004, function=4)


async def test_single_and_multiple_writes_are_echoed_and_reach_the_unit_in_one_piece(line: Line) -> None:
    single = struct.pack(">BHH", 6, 110, 4711)
    assert await line.ask(single) == single
    assert await line.ask(write_request(120, 1, 2, 3)) == struct.pack(">BHH", 16, 120, 3)
    assert line.unit.written == [(110, (4711,)), (120, (1, 2, 3))]
    assert await line.ask(read_request(119, 5)) == read_response(19, 1, 2, 3, 23)


@pytest.mark.parametrize(
    ("pdu", "code"),
    [
        (b"\x01\x00\x64\x00\x01", 1),
        (b"\x17\x00\x64\x00\x01", 1),
        (b"\xab", 1),
        (read_request(99, 1), 2),
        (read_request(149, 2), 2),
        (read_request(65535, 125), 2),
        (read_request(100, 0), 3),
        (read_request(100, 126), 3),
        (b"\x03\x00\x64\x00", 3),
        (b"\x03\x00\x64\x00\x01\x00", 3),
        (b"\x06\x00\x64\x00", 3),
        (write_request(99, 1), 2),
        (write_request(149, 1, 2), 2),
        (write_request(100, 1, 0xDEAD), 3),
        (b"\x10\x00\x64\x00\x00\x00", 3),
        (b"\x10\x00\x64\x00\x01\x04\x00\x01", 3),
        (b"\x10\x00\x64\x00\x02\x04\x00\x01", 3),
        (struct.pack(">BHHB", 16, 100, 124, 248) + bytes(240), 3),
        (b"\x10\x00", 3),
    ],
)
async def test_what_cannot_be_done_is_refused_with_the_code_of_the_standard(line: Line, pdu: bytes, code: int) -> None:
    assert await line.ask(pdu) == bytes((pdu[0] | 0x80, code))
    assert line.server.counts.exceptions == 1
    assert not line.unit.written


async def test_requests_sent_in_one_go_are_answered_in_order(line: Line) -> None:
    reader, writer = await line.connect()
    writer.write(b"".join(frame(number, 1, read_request(100 + number % 50, 1)) for number in range(300)))
    for number in range(300):
        assert await receive(reader) == (number, 1, read_response(number % 50))


async def test_a_request_may_come_byte_by_byte(line: Line) -> None:
    reader, writer = await line.connect()
    request = frame(1, 1, write_request(100, 5, 6)) + frame(2, 1, read_request(100, 2))
    for at in range(len(request)):
        writer.write(request[at : at + 1])
        await writer.drain()
    assert await receive(reader) == (1, 1, struct.pack(">BHH", 16, 100, 2))
    assert await receive(reader) == (2, 1, read_response(5, 6))


async def test_a_unit_that_is_not_there_is_silent_and_delays_nobody(line: Line) -> None:
    other = Registers()
    line.server.add_unit(9, other)
    reader, writer = await line.connect()
    writer.write(frame(1, 5, read_request(100, 1)) + frame(2, 9, read_request(100, 1)))
    assert await receive(reader) == (2, 9, read_response(0))
    assert line.server.counts.absent == 1
    line.server.remove_unit(9)
    writer.write(frame(3, 9, read_request(100, 1)) + frame(4, 1, read_request(100, 1)))
    assert await receive(reader) == (4, 1, read_response(0))


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">HHHB", 1, 1, 6, 1) + read_request(100, 1),
        struct.pack(">HHH", 1, 0, 0),
        struct.pack(">HHH", 1, 0, 1),
        struct.pack(">HHH", 1, 0, 255),
        struct.pack(">HHH", 1, 0, 65535),
    ],
)
async def test_garbage_closes_its_connection_after_what_came_before_it_and_no_other(line: Line, garbage: bytes) -> None:
    reader, writer = await line.connect()
    writer.write(frame(1, 1, read_request(100, 1)) + garbage + frame(2, 1, read_request(100, 1)))
    assert await receive(reader) == (1, 1, read_response(0))
    async with asyncio.timeout(2):
        assert await reader.read() == b""
    assert line.server.counts.garbage == 1
    assert await line.ask(read_request(101, 1)) == read_response(1)


async def test_a_peer_that_goes_away_in_the_middle_of_a_request_leaves_nothing_behind(line: Line) -> None:
    for _ in range(3):
        _, writer = await line.connect()
        writer.write(frame(1, 1, read_request(100, 1))[:9])
        await writer.drain()
        writer.close()
    assert await line.ask(read_request(101, 1)) == read_response(1)


async def test_a_taken_port_is_a_plain_os_error(line: Line) -> None:
    second = ModbusServer()
    with pytest.raises(OSError, match="address already in use"):
        await second.listen("127.0.0.1", line.port)
    await second.close()


async def test_closing_drops_connections_and_frees_the_port(line: Line) -> None:
    reader, _ = await line.connect()
    assert await line.ask(read_request(100, 1)) == read_response(0)
    await line.server.close()
    async with asyncio.timeout(2):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    again = ModbusServer()
    assert await again.listen("127.0.0.1", line.port) == line.port
    await again.close()


def test_unit_ids_are_bytes_and_are_given_once() -> None:
    server = ModbusServer()
    server.add_unit(255, Registers())
    with pytest.raises(ValueError, match="taken"):
        server.add_unit(255, Registers())
    with pytest.raises(ValueError, match="0 to 255"):
        server.add_unit(256, Registers())


class MemoryTransport(asyncio.Transport):
    """A transport without a socket. With `room` it asks for a pause once that many bytes wait to be taken."""

    def __init__(self, protocol: ModbusTcpProtocol, room: int | None = None) -> None:
        super().__init__()
        self.sent = bytearray()
        self.most_waiting = 0
        self.waiting = 0
        self.reading = True
        self.closed = False
        self._room = room
        self._protocol = protocol
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data
        self.waiting += len(data)
        self.most_waiting = max(self.most_waiting, self.waiting)
        if self._room is not None and self.waiting > self._room:
            self._protocol.pause_writing()

    def take(self) -> None:
        """The peer takes all that waits."""
        self.waiting = 0
        self._protocol.resume_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True
        self._protocol.connection_lost(None)


def serve_in_memory(room: int | None = None) -> tuple[ModbusServer, ModbusTcpProtocol, MemoryTransport]:
    server = ModbusServer()
    server.add_unit(1, Registers())
    protocol = server.protocol()
    return server, protocol, MemoryTransport(protocol, room)


async def test_a_peer_that_does_not_read_is_not_read_from_and_gets_everything_later() -> None:
    _, protocol, transport = serve_in_memory(room=20_000)
    protocol.data_received(b"".join(frame(n, 1, read_request(100, 50)) for n in range(2_000)))
    assert not transport.reading
    assert transport.most_waiting < 40_000
    rounds = 0
    while not transport.reading:
        transport.take()
        rounds += 1
    assert rounds > 5
    assert transport.most_waiting < 40_000
    size = 7 + 2 + 2 * 50
    assert [struct.unpack_from(">H", transport.sent, at)[0] for at in range(0, len(transport.sent), size)] == list(
        range(2_000)
    )


async def test_a_transport_that_ignores_the_pause_is_cut_off() -> None:
    server, protocol, transport = serve_in_memory(room=0)
    for n in range(100):
        protocol.data_received(frame(n, 1, read_request(100, 1)) * 1_000)
    assert transport.closed
    assert server.counts.garbage == 1


requests = st.one_of(
    st.builds(read_request, st.integers(90, 160), st.integers(0, 130), st.sampled_from([3, 4, 5])),
    st.builds(lambda at, values: write_request(at, *values), st.integers(90, 160), st.lists(st.integers(0, 65535))),
    st.binary(min_size=1, max_size=253),
).filter(lambda pdu: len(pdu) <= 253)


@given(st.lists(st.tuples(st.integers(0, 65535), st.sampled_from([1, 1, 1, 2]), requests), max_size=8), st.data())
def test_however_requests_are_sliced_the_answers_are_the_same(
    asked: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    async def run() -> None:
        stream = b"".join(frame(*item) for item in asked)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=10)))
        _, whole, whole_transport = serve_in_memory()
        whole.data_received(stream)
        _, sliced, sliced_transport = serve_in_memory()
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            sliced.data_received(stream[start:end])
        assert whole_transport.sent == sliced_transport.sent
        assert not whole_transport.closed
        answered = whole_transport.sent
        assert [t for t, unit, _ in asked if unit == 1] == list(transactions(bytes(answered)))

    asyncio.run(run())


def transactions(stream: bytes) -> list[int]:
    found = []
    while stream:
        transaction, protocol, length = struct.unpack_from(">HHH", stream)
        assert protocol == 0
        found.append(cast(int, transaction))
        stream = stream[6 + length :]
    return found


@given(st.lists(st.binary(max_size=400), max_size=6))
def test_no_bytes_bring_the_server_down(slices: list[bytes]) -> None:
    async def run() -> None:
        server, protocol, _ = serve_in_memory()
        for piece in slices:
            protocol.data_received(piece)
        fresh = server.protocol()
        transport = MemoryTransport(fresh)
        fresh.data_received(frame(1, 1, read_request(104, 1)))
        assert transport.sent[7:9] == b"\x03\x02"

    asyncio.run(run())
