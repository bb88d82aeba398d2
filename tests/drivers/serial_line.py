"""A serial line with scriptable units, on a pseudo-terminal or in memory, and a driver at its other end.

Check sums are pymodbus's. Bytes take the time that they take at the line's speed, on their way to the units and back.
"""

import asyncio
import contextlib
import math
import os
import random
import struct
import time
import tty
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from pymodbus.framer.rtu import FramerRTU

from config.profile import Profile
from config.site import ModbusRtuAddress
from config.vocabulary import Clock, Setpoint, WriteResult
from drivers.binding import DeviceBinding
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.link import Connector
from tests.drivers.modbus_server import BOUND_S, RecordingSink, Watch

Answer = Callable[[bytes], "bytes | None"]
"""Turns the right reply frame into what is sent; None sends nothing."""


def framed(body: bytes) -> bytes:
    return body + FramerRTU.compute_CRC(body).to_bytes(2)


class Heard(NamedTuple):
    """A request as a unit got it, when its last byte had come."""

    at_s: float
    unit: int
    function: int
    address: int
    count: int
    data: bytes = b""


class LineUnit:
    """Holding registers of one device. `latencies` and `answers` are used up one a request, `always` after them."""

    def __init__(self, latency_s: float) -> None:
        self.registers: dict[int, int] = {}
        self.latency_s = latency_s
        self.latencies: list[float] = []
        self.answers: list[Answer] = []
        self.always: dict[int, Answer] = {}
        self.refused: dict[int, int] = {}
        self.dead = False
        self.free_s = 0.0

    def put(self, address: int, data: bytes) -> None:
        for at in range(0, len(data), 2):
            self.registers[address + at // 2] = int.from_bytes(data[at : at + 2])

    def reply(self, heard: Heard, pdu: bytes) -> bytes:
        span = range(heard.address, heard.address + heard.count)
        refused = next((self.refused[at] for at in span if at in self.refused), None)
        if refused is None and any(at not in self.registers for at in span):
            refused = 2
        if refused is not None:
            return bytes((heard.function | 0x80, refused))
        if heard.data:
            self.put(heard.address, heard.data)
            return pdu[:5]
        return bytes((heard.function, 2 * heard.count)) + b"".join(self.registers[at].to_bytes(2) for at in span)


class SerialLine:
    """The units of a line. Whoever is at the other end gives bytes to `hear` and gets them by `say`."""

    def __init__(self, watch: Watch, baud: int, say: Callable[[bytes], None]) -> None:
        self.watch = watch
        self.units: dict[int, LineUnit] = {}
        self.heard: list[Heard] = []
        self.broken = 0
        self.character_s = 11 / baud
        self.say = say
        self.last_said_s = float("-inf")
        self.shortest_silence_s = float("inf")
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._ends_s = 0.0

    def add(self, number: int, latency_s: float = 0.002) -> LineUnit:
        self.units[number] = LineUnit(latency_s)
        return self.units[number]

    def written(self, unit: int = 1) -> list[tuple[int, bytes]]:
        return [(heard.address, heard.data) for heard in self.heard if heard.data and heard.unit == unit]

    def hear(self, data: bytes) -> None:
        now_s = self._loop.time()
        if not self._buffer:
            self.shortest_silence_s = min(self.shortest_silence_s, now_s - self.last_said_s)
        self._buffer += data
        self._ends_s = max(now_s, self._ends_s) + len(data) * self.character_s
        while self._buffer:
            length = 9 + self._buffer[6] if self._buffer[1:2] == b"\x10" and len(self._buffer) > 6 else 8
            if len(self._buffer) < length:
                return
            frame, self._buffer = self._buffer[:length], self._buffer[length:]
            self._loop.call_at(self._ends_s, self._take, frame)

    def _take(self, frame: bytes) -> None:
        if framed(frame[:-2]) != frame:
            self.broken += 1
            return
        function, address, count = struct.unpack(">BHH", frame[1:6])
        data = frame[7:-2] if function == 16 else frame[4:6] if function == 6 else b""
        heard = Heard(self._loop.time(), frame[0], function, address, 1 if function == 6 else count, data)
        self.heard.append(heard)
        self.watch.notify()
        unit = self.units.get(frame[0])
        if unit is not None and not unit.dead:
            self._answer(unit, heard, frame[1:-2])

    def _answer(self, unit: LineUnit, heard: Heard, pdu: bytes) -> None:
        reply: bytes | None = framed(bytes((heard.unit,)) + unit.reply(heard, pdu))
        answer = unit.answers.pop(0) if unit.answers else unit.always.get(heard.function)
        if answer is not None:
            assert reply is not None
            reply = answer(reply)
        latency_s = unit.latencies.pop(0) if unit.latencies else unit.latency_s
        unit.free_s = max(self._loop.time(), unit.free_s) + latency_s
        if reply:
            half = len(reply) // 2
            self._loop.call_at(unit.free_s + half * self.character_s, self._say, reply[:half])
            unit.free_s += len(reply) * self.character_s
            self._loop.call_at(unit.free_s, self._say, reply[half:])

    def _say(self, data: bytes) -> None:
        self.last_said_s = self._loop.time()
        self.say(data)


class LineBench:
    """A line, a driver that is its master, and the sink that hears of it."""

    def __init__(self, baud: int, clock: Clock) -> None:
        self.watch = Watch()
        self.sink = RecordingSink(self.watch)
        self.line = SerialLine(self.watch, baud, lambda _: None)
        self.baud = baud
        self.clock = clock
        self.path = "/dev/nowhere"
        self.connect: Connector | None = None
        self.bound_s = BOUND_S
        self.patience_s = math.inf
        self._sequence = 0

    def bind(self, profile: Profile, name: str = "unit", unit: int = 1, **more: Any) -> DeviceBinding:
        address = ModbusRtuAddress(driver="modbus_rtu", device=self.path, baud=self.baud, unit=unit)
        return DeviceBinding(name, profile, address, more.pop("rating_w", 10_000.0), **more)

    @contextlib.asynccontextmanager
    async def running(self, *bindings: DeviceBinding) -> AsyncIterator[ModbusDriver]:
        rng, patience_s = random.Random(1), self.patience_s
        driver = ModbusDriver(
            "line", bindings, self.sink, self.clock, connect=self.connect, rng=rng, patience_s=patience_s
        )
        task = asyncio.create_task(driver.run(), name="line")
        try:
            yield driver
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.watch.until(condition, self.bound_s)

    async def present(self, count: int = 1) -> None:
        """Wait until so many devices have been told to be present."""
        await self.until(lambda: sum(present for _, present, _ in self.sink.devices) >= count)

    async def polled(self, driver: ModbusDriver) -> None:
        """One more delivery of each device that is polled."""
        before = len(self.sink.deliveries)
        waited = driver.poll()
        await self.until(lambda: len(self.sink.deliveries) >= before + len(waited))

    async def poll_until(self, driver: ModbusDriver, condition: Callable[[], bool], polling: bool = True) -> None:
        """Cycle after cycle until something holds; for what changes without the sink or the line hearing of it."""
        async with asyncio.timeout(self.bound_s):
            while not condition():
                if polling:
                    driver.poll()
                await asyncio.sleep(0.005)

    def all_good(self, *points: str) -> bool:
        return all(self.sink.is_good("unit", point) for point in points)

    def setpoint(self, power_w: float, device: str = "unit", life_s: float = 60.0) -> Setpoint:
        self._sequence += 1
        return Setpoint(device, power_w, "test", self.clock() + life_s, self._sequence)

    async def answered(self, setpoint: Setpoint) -> WriteResult:
        await self.until(lambda: any(result.sequence == setpoint.sequence for result in self.sink.results))
        return next(result for result in self.sink.results if result.sequence == setpoint.sequence)


@contextlib.asynccontextmanager
async def terminal(baud: int = 115_200) -> AsyncIterator[LineBench]:
    """A line on a real pseudo-terminal, in real time."""
    made = LineBench(baud, time.monotonic)
    loop = asyncio.get_running_loop()
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    made.path = os.ttyname(slave)
    made.line.say = lambda data: _write(master, data)

    def hear() -> None:
        with contextlib.suppress(OSError):
            made.line.hear(os.read(master, 4096))

    loop.add_reader(master, hear)
    try:
        yield made
    finally:
        loop.remove_reader(master)
        made.line.say = lambda _: None
        for end in (master, slave):
            os.close(end)


def _write(master: int, data: bytes) -> None:
    with contextlib.suppress(BlockingIOError):
        os.write(master, data)


class MemoryTransport(asyncio.Transport):
    """The port of a line in memory."""

    def __init__(self, line: SerialLine, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._line = line
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._open = True
        line.say = self._say

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._line.hear(bytes(data))

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._loop.call_soon(self._protocol.connection_lost, None)

    def _say(self, data: bytes) -> None:
        if self._open:
            self._protocol.data_received(data)


def in_memory(baud: int = 19_200, bound_s: float = 3600.0) -> LineBench:
    """A line in memory, in the time of the running loop; waits end after `bound_s` of it."""
    made = LineBench(baud, asyncio.get_running_loop().time)
    made.bound_s = bound_s

    async def connect(factory: Callable[[], asyncio.Protocol]) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        protocol = factory()
        transport = MemoryTransport(made.line, protocol)
        protocol.connection_made(transport)
        return transport, protocol

    made.connect = connect
    return made


def bind_all(on: LineBench, profile: Profile, units: Sequence[int]) -> list[DeviceBinding]:
    return [on.bind(profile, f"unit_{number}", number) for number in units]
