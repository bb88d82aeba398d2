"""Twins on a serial line: a client that is not ours, the time that characters take, silence, broadcasts, collisions."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException
from pymodbus.framer import FramerType

from config.site import Site
from sim_devices.endpoints import twin_kinds
from sim_devices.modbus import ExceptionCode, ModbusServer, Table, make_unit
from sim_devices.modbus.rtu_bus import LineTiming, RtuBus
from sim_devices.modbus.rtu_frames import check_sum, framed, is_whole
from sim_devices.modbus.rtu_line import RtuLine, RtuTcpServer, start_rtu_line
from sim_devices.physics import SitePhysics
from tests.sim_devices.faults.field import until

BOUND_S = 5.0
FAST = 115_200


class Registers:
    """Registers that hold their address plus the unit's number times a thousand, until they are written."""

    functions = frozenset({3, 4, 6, 16})

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.written: dict[int, int] = {}

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        if address + count > 1000:
            return ExceptionCode.ILLEGAL_ADDRESS
        values = [self.written.get(at, self.number * 1000 + at) for at in range(address, address + count)]
        return struct.pack(f">{count}H", *values)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        for at in range(0, len(data), 2):
            self.written[address + at // 2] = int.from_bytes(data[at : at + 2])
        return None


def read(address: int, count: int) -> bytes:
    return struct.pack(">BHH", 3, address, count)


@contextmanager
def line(*numbers: int, baud: int = FAST, **more: object) -> Iterator[RtuLine]:
    made = start_rtu_line({number: Registers(number) for number in numbers}, baud=baud, **more)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


class Master:
    """The other end of the line, as bytes with their times."""

    def __init__(self, path: str) -> None:
        self.heard = b""
        self.times_s: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self._loop.add_reader(self._descriptor, self._read)

    def say(self, data: bytes) -> None:
        os.write(self._descriptor, data)

    async def hears(self, size: int) -> bytes:
        """The next bytes, so many of them."""
        async with asyncio.timeout(BOUND_S):
            while len(self.heard) < size:
                self._changed.clear()
                await self._changed.wait()
        taken, self.heard = self.heard[:size], self.heard[size:]
        return taken

    async def asks(self, unit: int, pdu: bytes, size: int) -> bytes:
        """The reply's PDU, of that size."""
        self.say(framed(unit, pdu))
        reply = await self.hears(size + 3)
        assert is_whole(reply)
        assert reply[0] == unit
        return reply[1:-2]

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        self.heard += os.read(self._descriptor, 4096)
        self.times_s.append(self._loop.time())
        self._changed.set()


@contextmanager
def master(path: str) -> Iterator[Master]:
    made = Master(path)
    try:
        yield made
    finally:
        made.close()


@asynccontextmanager
async def serial_client(path: str, timeout_s: float = 1.0) -> AsyncIterator[AsyncModbusSerialClient]:
    client = AsyncModbusSerialClient(path, baudrate=FAST, timeout=timeout_s, retries=0)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


def test_the_check_sum_is_the_standards() -> None:
    # MODBUS over Serial Line V1.02, section 6.2.2 gives the procedure; this frame is 02 07 with check sum 41 12 there.
    assert check_sum(b"\x02\x07") == b"\x41\x12"


async def test_a_client_that_is_not_ours_reads_and_writes_several_units() -> None:
    with line(1, 2, 3) as it:
        async with serial_client(it.path) as client:
            for number in (3, 1, 2):
                answer = await client.read_holding_registers(10, count=100, device_id=number)
                assert answer.registers == [number * 1000 + at for at in range(10, 110)]
            assert not (await client.write_registers(20, [7, 8], device_id=2)).isError()
            assert not (await client.write_register(22, 9, device_id=2)).isError()
            assert (await client.read_input_registers(20, count=3, device_id=2)).registers == [7, 8, 9]
            assert (await client.read_holding_registers(20, count=1, device_id=1)).registers == [1020]
            refused = await client.read_holding_registers(999, count=2, device_id=1)
            assert refused.exception_code == 2


async def test_a_unit_that_is_not_there_is_silent_and_the_others_go_on() -> None:
    with line(1) as it:
        async with serial_client(it.path, timeout_s=0.05) as client:
            with pytest.raises(ModbusIOException):
                await client.read_holding_registers(0, count=1, device_id=9)
            assert (await client.read_holding_registers(0, count=1, device_id=1)).registers == [1000]
        assert it.server.counts.absent == 1


async def test_a_sites_twin_is_read_over_the_line(site: Site) -> None:
    physics = SitePhysics(site, twin_kinds(site, ["meter"]))
    unit = make_unit("sunspec_meter", physics.meters["meter"], clock=lambda: 0.0)
    made = start_rtu_line({5: unit}, baud=FAST)
    try:
        async with serial_client(made.path) as client:
            marker = await client.read_holding_registers(40000, count=2, device_id=5)
            assert struct.pack(">2H", *marker.registers) == b"SunS"
    finally:
        made.close()


@pytest.mark.parametrize("baud", [9600, 38_400])
async def test_characters_take_their_time(baud: int) -> None:
    with line(1, baud=baud, turnaround_s=0.01) as it, master(it.path) as other:
        request = framed(1, read(0, 20))
        begin_s = asyncio.get_running_loop().time()
        other.say(request)
        reply = await other.hears(45)
        assert is_whole(reply)
        least_s = (len(request) + len(reply)) * 11 / baud + 0.01
        assert least_s <= other.times_s[-1] - begin_s < least_s + 2.0


async def test_an_answer_comes_in_pieces_as_serial_adapters_hand_it_on() -> None:
    server, pieces = ModbusServer(), list[bytes]()
    server.add_unit(1, Registers(1))
    bus = RtuBus(server, pieces.append, LineTiming(FAST))
    bus.hear(framed(1, read(0, 20)))
    await until(lambda: sum(map(len, pieces)) == 45)
    assert [len(piece) for piece in pieces] == [16, 16, 13]
    assert is_whole(b"".join(pieces))


async def test_frames_with_a_wrong_check_sum_are_met_with_silence() -> None:
    with line(1) as it, master(it.path) as other:
        for bad in (framed(1, read(0, 1))[:-1] + b"\0", b"\x01\x03", bytes(300), b"\xff"):
            counted = it.bus.counts.garbled
            other.say(bad)
            await until(lambda counted=counted: it.bus.counts.garbled > counted)
        assert await other.asks(1, read(7, 1), 4) == struct.pack(">BBH", 3, 2, 1007)
        assert it.bus.counts.frames == 1


async def test_two_requests_without_a_silence_between_them_are_no_frame() -> None:
    with line(1) as it, master(it.path) as other:
        other.say(framed(1, read(0, 1)) * 2)
        await until(lambda: it.bus.counts.garbled > 0)
        assert await other.asks(1, read(7, 1), 4) == struct.pack(">BBH", 3, 2, 1007)


async def test_a_broadcast_is_obeyed_by_all_and_answered_by_none() -> None:
    with line(1, 2) as it, master(it.path) as other:
        other.say(framed(0, struct.pack(">BHH", 6, 5, 77)))
        await until(lambda: it.server.counts.requests == 2)
        for unit in (1, 2):
            assert await other.asks(unit, read(5, 1), 4) == struct.pack(">BBH", 3, 2, 77)
        assert other.heard == b""


async def test_an_answer_that_comes_too_late_meets_the_next_request_and_both_are_lost() -> None:
    with line(1, 2, baud=9600, turnaround_s_by_unit={2: 0.03}) as it, master(it.path) as other:
        other.say(framed(2, read(0, 1)))
        await until(lambda: it.bus.counts.frames > 0)
        # 40 bytes take 46 ms at this speed: unit 2 begins in the middle of them.
        other.say(framed(1, struct.pack(">BHHB", 16, 0, 15, 30) + bytes(30)))
        garbage = await other.hears(7)
        assert not is_whole(garbage)
        await until(lambda: it.bus.counts.garbled > 0)
        assert it.bus.counts.collisions == 1
        assert await other.asks(1, read(0, 1), 4) == struct.pack(">BBH", 3, 2, 1000)


async def test_a_unit_that_prepares_its_answer_hears_nothing_and_another_one_does() -> None:
    with line(1, 2, turnaround_s_by_unit={2: 0.1}) as it, master(it.path) as other:
        other.say(framed(2, read(0, 1)))
        await until(lambda: it.bus.counts.frames > 0)
        assert await other.asks(1, read(3, 1), 4) == struct.pack(">BBH", 3, 2, 1003)
        other.say(framed(2, read(9, 1)))
        # The late answer is to the first request; the second went unheard.
        assert await other.hears(7) == framed(2, struct.pack(">BBH", 3, 2, 2000))
        assert await other.asks(2, read(8, 1), 4) == struct.pack(">BBH", 3, 2, 2008)


async def test_the_line_has_the_name_that_was_asked_for_even_of_one_that_was_killed_and_takes_it_away(
    tmp_path: Path,
) -> None:
    link = tmp_path / "meters"
    link.symlink_to("/dev/pts/1234567")
    with line(1, link=link) as it:
        assert it.path == str(link)
        with master(it.path) as other:
            assert await other.asks(1, read(0, 1), 4) == struct.pack(">BBH", 3, 2, 1000)
    assert not link.is_symlink()


async def test_a_file_or_a_real_port_in_the_way_is_left_alone(tmp_path: Path) -> None:
    notes, port = tmp_path / "notes", tmp_path / "port"
    notes.write_text("keep")
    port.symlink_to("/dev/ttyUSB0")
    for link in (notes, port):
        with pytest.raises(FileExistsError):
            start_rtu_line({1: Registers()}, link=link)
    assert notes.read_text() == "keep"
    assert str(port.readlink()) == "/dev/ttyUSB0"


async def test_a_master_that_goes_away_and_comes_back_is_answered() -> None:
    with line(1) as it:
        for _ in range(3):
            with master(it.path) as other:
                assert await other.asks(1, read(0, 1), 4) == struct.pack(">BBH", 3, 2, 1000)


@pytest.mark.parametrize(("number", "words"), [(0, "not in 1 to 247"), (248, "not in 1 to 247")])
async def test_unit_ids_are_those_of_a_line(number: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        start_rtu_line({number: Registers()})


def test_a_line_has_a_speed() -> None:
    with pytest.raises(ValueError, match="0 baud"):
        LineTiming(0)


@asynccontextmanager
async def device_server(*numbers: int) -> AsyncIterator[tuple[RtuTcpServer, int]]:
    units = ModbusServer()
    for number in numbers:
        units.add_unit(number, Registers(number))
    server = RtuTcpServer(units, LineTiming(FAST))
    port = await server.listen("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.close()


async def test_a_client_that_is_not_ours_reads_over_a_serial_device_server() -> None:
    async with device_server(1, 4) as (server, port):
        client = AsyncModbusTcpClient("127.0.0.1", port=port, framer=FramerType.RTU, retries=0)
        assert await client.connect()
        try:
            for number in (4, 1):
                answer = await client.read_holding_registers(0, count=125, device_id=number)
                assert answer.registers == [number * 1000 + at for at in range(125)]
        finally:
            client.close()
        assert server.server.counts.requests == 2


async def test_every_connection_of_a_device_server_hears_the_line() -> None:
    async with device_server(1) as (_, port):
        ends = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        ends[0][1].write(framed(1, read(5, 1)))
        async with asyncio.timeout(BOUND_S):
            for reader, writer in ends:
                assert await reader.readexactly(7) == framed(1, struct.pack(">BBH", 3, 2, 1005))
                writer.close()
                await writer.wait_closed()


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.integers(0, 2**32))
def test_no_bytes_bring_the_line_down(pieces: list[bytes], seed: int) -> None:
    async def run() -> None:
        server, said = ModbusServer(), asyncio.Event()
        server.add_unit(1, Registers(1))
        heard = bytearray()

        def say(data: bytes) -> None:
            heard.extend(data)
            said.set()

        bus = RtuBus(server, say, LineTiming(4_000_000, turnaround_s=0.0))
        for piece in pieces:
            bus.hear(piece)
            await asyncio.sleep(Random(seed).choice([0.0, 0.003]))
        before = bus.counts.frames
        while bus.counts.frames == before:
            # The bytes before may still be on the wire, and make a part of this no frame.
            await asyncio.sleep(0.003)
            bus.hear(framed(1, read(4, 1)))
            await asyncio.sleep(0.003)
        while not bytes(heard).endswith(framed(1, struct.pack(">BBH", 3, 2, 1004))):
            said.clear()
            await said.wait()
        bus.close()

    asyncio.run(asyncio.wait_for(run(), BOUND_S))
