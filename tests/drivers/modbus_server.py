"""A Modbus TCP server of bytes and a sink that remembers: what the tests of the Modbus driver talk to."""

import asyncio
import contextlib
import math
import random
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sunspec2.device import Model

from config.profile import Profile
from config.site import ModbusTcpAddress
from config.vocabulary import LinkState, Quality, Sample, Setpoint, WriteResult, WriteStatus
from drivers.binding import DeviceBinding
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.link import Connector

BOUND_S = 5.0


class Watch:
    """Something that changes; tests wait for a state of it instead of sleeping."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], bool], within_s: float = BOUND_S) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Asked(NamedTuple):
    """A request as the server saw it; `data` is what is written, `connection` counts from 1."""

    connection: int
    unit: int
    function: int
    address: int
    count: int
    data: bytes = b""


Answer = Callable[[bytes], "bytes | None"]
"""Turns the right reply frame into what is sent; None sends nothing."""


def silence(_frame: bytes) -> None:
    return None


class ModbusServer:
    """Holding registers; `answers` bends the replies to requests that its key, a function code, matches, in turn."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.registers: dict[int, int] = {}
        self.refused: dict[int, int] = {}
        self.asked: list[Asked] = []
        self.answers: dict[int, list[Answer]] = {}
        self.always: dict[int, Answer] = {}
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        # One that was just accepted begins to be served first; then each of them has to end before the loop does.
        await asyncio.sleep(0)
        self.reset()
        await self.watch.until(lambda: not self._writers)
        await self._server.wait_closed()

    def reset(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def send(self, data: bytes) -> None:
        """Say something that nobody asked for."""
        for writer in self._writers:
            writer.write(data)

    def put(self, address: int, data: bytes) -> None:
        for at in range(0, len(data), 2):
            self.registers[address + at // 2] = int.from_bytes(data[at : at + 2])

    def read(self, address: int, count: int) -> bytes:
        return b"".join(self.registers[at].to_bytes(2) for at in range(address, address + count))

    def written(self) -> list[tuple[int, bytes]]:
        return [(asked.address, asked.data) for asked in self.asked if asked.data]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        self.watch.notify()
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = await reader.readexactly(7)
                    transaction, _, length, unit = struct.unpack(">HHHB", head)
                    pdu = await reader.readexactly(length - 1)
                    self._answer(writer, number, transaction, unit, pdu)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            self.watch.notify()

    def _answer(self, writer: asyncio.StreamWriter, number: int, transaction: int, unit: int, pdu: bytes) -> None:
        reply = self._reply(number, unit, pdu)
        frame = struct.pack(">HHHB", transaction, 0, len(reply) + 1, unit) + reply
        waiting = self.answers.get(pdu[0])
        answer = waiting.pop(0) if waiting else self.always.get(pdu[0])
        sent = answer(frame) if answer is not None else frame
        if sent is not None:
            writer.write(sent)
        self.watch.notify()

    def _reply(self, number: int, unit: int, pdu: bytes) -> bytes:
        function, address, count = struct.unpack(">BHH", pdu[:5])
        data = b""
        if function == 6:
            count, data = 1, pdu[3:5]
        elif function == 16:
            data = pdu[6:]
        self.asked.append(Asked(number, unit, function, address, count, data))
        span = range(address, address + count)
        refused = next((self.refused[at] for at in span if at in self.refused), None)
        if refused is None and any(at not in self.registers for at in span):
            refused = 2
        if refused is not None:
            return bytes((function | 0x80, refused))
        if data:
            self.put(address, data)
            return pdu[:5]
        return bytes((function, 2 * count)) + self.read(address, count)


@dataclass
class RecordingSink:
    """Keeps everything that a driver tells."""

    watch: Watch
    latest: dict[str, dict[str, Sample]] = field(default_factory=dict)
    deliveries: list[tuple[str, dict[str, Sample]]] = field(default_factory=list)
    results: list[WriteResult] = field(default_factory=list)
    links: list[tuple[LinkState, str]] = field(default_factory=list)
    devices: list[tuple[str, bool, str]] = field(default_factory=list)

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None:
        self.latest.setdefault(device, {}).update(samples)
        self.deliveries.append((device, dict(samples)))
        self.watch.notify()

    def write_result(self, result: WriteResult) -> None:
        self.results.append(result)
        self.watch.notify()

    def link_state(self, link: str, state: LinkState, reason: str) -> None:
        self.links.append((state, reason))
        self.watch.notify()

    def device_state(self, device: str, present: bool, reason: str) -> None:
        self.devices.append((device, present, reason))
        self.watch.notify()

    def statuses(self) -> list[tuple[int, WriteStatus]]:
        return [(result.sequence, result.status) for result in self.results]

    def value(self, device: str, point: str) -> float | str | None:
        return self.latest[device][point].value

    def is_good(self, device: str, point: str) -> bool:
        return self.latest[device][point].quality is Quality.GOOD


class Bench:
    """A server, a driver that talks to it, and the sink that hears of it."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.server = ModbusServer(self.watch)
        self.sink = RecordingSink(self.watch)
        self.now_s = 0.0
        self.patience_s = math.inf
        self._sequence = 0

    def clock(self) -> float:
        """Monotonic time, plus what a test has let pass."""
        return time.monotonic() + self.now_s

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.watch.until(condition)

    @contextlib.asynccontextmanager
    async def running(self, *bindings: DeviceBinding, connect: Connector | None = None) -> AsyncIterator[ModbusDriver]:
        rng, patience_s = random.Random(1), self.patience_s
        driver = ModbusDriver("link", bindings, self.sink, self.clock, connect=connect, rng=rng, patience_s=patience_s)
        task = asyncio.create_task(driver.run(), name="link")
        try:
            yield driver
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def present(self, count: int = 1) -> None:
        """Wait until so many devices have been told to be present."""
        await self.until(lambda: sum(present for _, present, _ in self.sink.devices) >= count)

    async def polled(self, driver: ModbusDriver) -> tuple[str, ...]:
        """One cycle's polls, and their deliveries."""
        before = len(self.sink.deliveries)
        waited = driver.poll()
        await self.until(lambda: len(self.sink.deliveries) >= before + len(waited))
        return waited

    def setpoint(self, power_w: float, device: str = "unit", life_s: float = 60.0) -> Setpoint:
        self._sequence += 1
        return Setpoint(device, power_w, "test", self.clock() + life_s, self._sequence)

    async def answered(self, setpoint: Setpoint) -> WriteResult:
        await self.until(lambda: any(result.sequence == setpoint.sequence for result in self.sink.results))
        return next(result for result in self.sink.results if result.sequence == setpoint.sequence)

    def bind(self, profile: Profile, name: str = "unit", unit: int = 1, **more: Any) -> DeviceBinding:
        address = ModbusTcpAddress(driver="modbus_tcp", host="127.0.0.1", port=self.server.port, unit=unit)
        return DeviceBinding(name, profile, address, more.pop("rating_w", 10_000.0), **more)


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """A bench with its server running."""
    made = Bench()
    await made.server.start()
    try:
        yield made
    finally:
        await made.server.stop()


def make_profile(points: Mapping[str, Any], control: Mapping[str, Any] | None = None, **pace: Any) -> Profile:
    """A profile of registers (`modbus` and `source` filled in), for a battery."""
    filled = {
        name: {"source": "test", **{key: value for key, value in point.items() if key != "at"}}
        | ({"modbus": point["at"]} if "at" in point else {})
        for name, point in points.items()
    }
    return Profile.model_validate(
        {
            "profile": "test",
            "title": "test",
            "kind": "battery",
            "protocol": "modbus",
            "source": {"document": "test", "version": "1", "publisher": "test"},
            "pace": {"slow_poll_s": 1000, **pace},
            "points": filled,
            "control": None if control is None else {"volatile": True, **control},
        }
    )


def battery_profile(**pace: Any) -> Profile:
    """Power and state of charge in adjoining registers; a setpoint of two registers and an enable elsewhere."""
    return make_profile(
        {
            "power_w": {"at": {"address": 10, "type": "int32"}, "unit": "W", "poll": "fast"},
            "soc": {"at": {"address": 12}, "unit": "pu", "scale": 0.001, "poll": "fast"},
            "serial": {"at": {"address": 20, "type": "string", "length": 2}, "poll": "once"},
            "setpoint_w": {"at": {"address": 100, "type": "int32"}, "unit": "W", "access": "w", "range": [-9e3, 9e3]},
            "enable": {"at": {"address": 110}, "access": "w"},
        },
        {
            "writes": [{"point": "setpoint_w", "quantity": "power_w"}, {"point": "enable", "value": 1}],
            "rest": [{"point": "setpoint_w", "value": 0}, {"point": "enable", "value": 0}],
        },
        **pace,
    )


def fill_battery(server: ModbusServer, power_w: int = 1500, soc_milli: int = 550) -> None:
    server.put(10, struct.pack(">iH", power_w, soc_milli))
    server.put(20, b"SN42")
    server.put(100, bytes(4))
    server.put(110, bytes(2))


def sunspec_map(models: Sequence[tuple[int, Mapping[str, Any]]]) -> bytes:
    """The registers of a SunSpec device as pysunspec2 encodes them, after the marker, with the end model."""
    data = b"SunS"
    for model, values in models:
        data += Model(model, data={"ID": model, "L": len(Model(model).get_mb()) // 2 - 2, **values}).get_mb()
    return data + b"\xff\xff\x00\x00"
