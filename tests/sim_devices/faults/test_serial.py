"""The fault proxy on a serial line: bytes on both of its sides, the line pulled out, and our driver behind it."""

from __future__ import annotations

import asyncio
import os
import struct
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from config.profile import Profile
from config.site import ModbusRtuAddress
from config.vocabulary import LinkState, Quality
from drivers.binding import DeviceBinding
from sim_devices.faults import FAULTS, FaultError, SerialFaultProxy
from sim_devices.faults.registry import MODBUS_RTU
from sim_devices.modbus import ExceptionCode, Table
from sim_devices.modbus.rtu_frames import framed
from sim_devices.modbus.rtu_line import start_rtu_line
from tests.drivers.modbus_server import Bench, make_profile
from tests.sim_devices.faults.field import BOUND_S, read, registers, until

ASKED, REPLY = framed(1, read(10)), framed(1, registers(10))
BAUD = 115_200
# On a busy machine an answer takes its time, and a unit that is thought silent is left alone for a second.
TIMEOUT_S = 0.2
POWERS_W = {10: 1500, 500: -7777}


class Terminal:
    """One end of a pseudo-terminal, as bytes."""

    def __init__(self, descriptor: int) -> None:
        self.heard = b""
        self.ended = False
        self.changed = asyncio.Event()
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def say(self, data: bytes) -> None:
        os.write(self._descriptor, data)

    async def hears(self, data: bytes) -> None:
        """Exactly these bytes come."""
        await until(lambda: len(self.heard) >= len(data), self.changed)
        assert self.heard == data
        self.heard = b""

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 4096)
        except OSError:
            data = b""
        if not data:
            self.ended = True
            self._loop.remove_reader(self._descriptor)
        self.heard += data
        self.changed.set()


@contextmanager
def opened(path: str) -> Iterator[Terminal]:
    terminal = Terminal(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
    try:
        yield terminal
    finally:
        terminal.close()


class Wire:
    """The devices' end of the line behind a proxy, and the proxy."""

    def __init__(self, proxy: SerialFaultProxy, device: Terminal) -> None:
        self.proxy = proxy
        self.device = device
        self.path: str = proxy.endpoint["device"]


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    near, far = os.openpty()
    tty.setraw(far)
    os.set_blocking(near, False)
    device = Terminal(near)
    proxy = SerialFaultProxy(os.ttyname(far), tmp_path / "line")
    yield Wire(proxy, device)
    await proxy.close()
    device.close()
    os.close(far)


async def test_without_a_fault_bytes_pass_both_ways(wire: Wire) -> None:
    with opened(wire.path) as driver:
        for data in (ASKED, bytes(range(256)), b"\x00\x03\x04\x11\x13\x1a\x7f\r\n"):
            driver.say(data)
            await wire.device.hears(data)
            wire.device.say(data[::-1])
            await driver.hears(data[::-1])


@pytest.mark.parametrize(
    ("name", "options", "device", "driver"),
    [
        ("no_answer", {}, ASKED, b""),
        ("no_answer", {"direction": "request"}, b"", b""),
        ("exception", {"code": 6}, b"", framed(1, b"\x83\x06")),
        ("wrong_unit", {"as_unit": 5}, ASKED, framed(5, registers(10))),
        ("wrong_function", {}, ASKED, framed(1, registers(10, function=4))),
        ("wrong_count", {}, ASKED, framed(1, struct.pack(">BB3H", 3, 6, 10, 11, 0))),
        ("wrong_length", {"by": -2}, ASKED, framed(1, b"\x03\x02" + registers(10)[2:])),
        ("truncated", {"keep": 4}, ASKED, REPLY[:4]),
        ("duplicate", {}, ASKED, REPLY * 2),
        ("slicing", {"size": 2, "gap_s": 0.001}, ASKED, REPLY),
        ("black_hole", {}, b"", b""),
    ],
)
async def test_what_each_side_hears(
    wire: Wire, name: str, options: dict[str, Any], device: bytes, driver: bytes
) -> None:
    fault = wire.proxy.faults.set(name, **options)
    with opened(wire.path) as master:
        master.say(ASKED)
        await until(lambda: wire.proxy.counts.request_bytes == len(ASKED))
        await wire.device.hears(device)
        if device:
            wire.device.say(REPLY)
        await master.hears(driver)
        await until(lambda: fault.acted > 0)
        wire.proxy.faults.clear()
        # What the fault has taken doesn't come later, either.
        master.say(ASKED)
        await wire.device.hears(ASKED)
        wire.device.say(REPLY)
        await master.hears(REPLY)


async def test_a_wrong_check_sum_on_the_line(wire: Wire) -> None:
    wire.proxy.faults.set("wrong_crc", count=1)
    with opened(wire.path) as master:
        wire.device.say(REPLY)
        await until(lambda: len(master.heard) == len(REPLY))
        assert master.heard[:-1] == REPLY[:-1]
        assert master.heard != REPLY


async def test_a_reset_pulls_the_adapter_out_and_puts_it_back_under_the_same_name(wire: Wire) -> None:
    with opened(wire.path) as master:
        wire.proxy.faults.set("reset")
        await until(lambda: master.ended)
    with opened(wire.path) as again:
        again.say(ASKED)
        await wire.device.hears(ASKED)
        wire.device.say(REPLY)
        await again.hears(REPLY)


async def test_a_refused_line_is_not_there_until_the_fault_ends(wire: Wire) -> None:
    wire.proxy.faults.set("refuse", duration_s=0.02)
    with pytest.raises(FileNotFoundError), opened(wire.path):
        pass
    await until(lambda: Path(wire.path).exists())
    with opened(wire.path) as master:
        master.say(ASKED)
        await wire.device.hears(ASKED)


async def test_a_line_knows_no_half_open_connections(wire: Wire) -> None:
    with pytest.raises(FaultError, match="half_open: does not apply to modbus_rtu"):
        wire.proxy.faults.set("half_open")


async def test_a_devices_line_that_vanishes_is_found_again(tmp_path: Path) -> None:
    far = tmp_path / "far"
    line = start_rtu_line({}, link=far)
    proxy = SerialFaultProxy(str(far), tmp_path / "near")
    try:
        line.close()
        await until(lambda: proxy.counts.hang_ups == 1)
        line = start_rtu_line({1: Values()}, link=far, baud=BAUD)
        with opened(proxy.endpoint["device"]) as master:
            # A request that meets no line is lost: a master asks again.
            async with asyncio.timeout(BOUND_S):
                while not master.heard:
                    master.say(framed(1, read(10)))
                    try:
                        await asyncio.wait_for(master.changed.wait(), 0.05)
                    except TimeoutError:
                        continue
    finally:
        await proxy.close()
        line.close()


async def test_what_is_no_line_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(OSError, match=r"not a serial line|No such file"):
            SerialFaultProxy(str(target), tmp_path / "line")
    assert not (tmp_path / "line").exists()


class Values:
    """Power at 10 and another at 500, each of two registers; anything can be read and written."""

    functions = frozenset({3, 4, 6, 16})

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        words = {
            at + offset: word
            for at, power_w in POWERS_W.items()
            for offset, word in enumerate(struct.unpack(">2H", struct.pack(">i", power_w)))
        }
        return struct.pack(f">{count}H", *(words.get(at, 0) for at in range(address, address + count)))

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        return None


def profile(timeout_s: float) -> Profile:
    return make_profile(
        {
            "power_w": {"at": {"address": 10, "type": "int32"}, "unit": "W", "poll": "fast"},
            "other_w": {"at": {"address": 500, "type": "int32"}, "unit": "W", "poll": "fast"},
        },
        timeout_s=timeout_s,
    )


LINE_FAULTS: list[tuple[str, dict[str, Any]]] = [
    *[("exception", {"code": code}) for code in (1, 4, 6, 11)],
    ("no_answer", {}),
    ("no_answer", {"direction": "request"}),
    ("wrong_unit", {}),
    ("wrong_unit", {"as_unit": 2}),
    ("wrong_function", {}),
    ("wrong_length", {}),
    ("wrong_length", {"by": -2}),
    ("wrong_count", {}),
    ("wrong_count", {"by": -1}),
    ("wrong_crc", {}),
    ("wrong_crc", {"direction": "request"}),
    ("truncated", {}),
    ("truncated", {"keep": 1}),
    ("extra_bytes", {}),
    ("extra_bytes", {"size": 300}),
    ("late_answer", {}),
    ("duplicate", {}),
    ("reorder", {}),
    ("latency", {"direction": "reply", "delay_s": 0.05, "jitter_s": 0.1}),
    ("bandwidth", {"bytes_per_s": 5000.0}),
    ("slicing", {"size": 1, "gap_s": 0.0002}),
    ("black_hole", {}),
    ("stall", {}),
    ("cut", {}),
    ("reset", {}),
    ("refuse", {}),
]


@asynccontextmanager
async def line_site(tmp_path: Path) -> AsyncIterator[tuple[Bench, SerialFaultProxy, Any]]:
    """Units 1 and 2 on a line behind a proxy, and our driver on it."""
    on = Bench()
    line = start_rtu_line({1: Values(), 2: Values()}, baud=BAUD, turnaround_s=0.0)
    proxy = SerialFaultProxy(line.path, tmp_path / "line")
    try:
        first, second = (
            DeviceBinding(
                name,
                profile(TIMEOUT_S),
                ModbusRtuAddress(driver="modbus_rtu", device=proxy.endpoint["device"], baud=BAUD, unit=unit),
                10_000.0,
            )
            for unit, name in enumerate(("unit", "other"), start=1)
        )
        async with on.running(first, second) as driver:
            await on.present(2)
            yield on, proxy, driver
    finally:
        await proxy.close()
        line.close()


@pytest.mark.parametrize(
    ("name", "options"),
    LINE_FAULTS,
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items()),
)
async def test_the_driver_lives_through_a_fault_of_its_line(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    async with line_site(tmp_path) as (on, proxy, driver):
        fault = proxy.faults.set(name, **options)

        def acted() -> bool:
            driver.poll()
            return fault.acted > 0 or name == "refuse"

        await until(acted)
        for _ in range(20):
            driver.poll()
            await asyncio.sleep(0.005)
        proxy.faults.clear()
        told = len(on.sink.deliveries)

        def served() -> bool:
            driver.poll()
            return any(
                samples["power_w"].quality is Quality.GOOD
                for _, samples in on.sink.deliveries[told:]
                if "power_w" in samples
            )

        await until(served)
        assert driver.stats.state is LinkState.UP
        right = {"power_w": 1500.0, "other_w": -7777.0}
        for _, samples in on.sink.deliveries:
            for point, sample in samples.items():
                assert sample.quality is Quality.BAD or sample.value == right[point]


@pytest.mark.parametrize("name", ["no_answer", "wrong_crc", "truncated"])
async def test_a_unit_that_is_at_fault_costs_the_others_on_its_line_little(tmp_path: Path, name: str) -> None:
    async with line_site(tmp_path) as (on, proxy, driver):
        proxy.faults.set(name, unit=1)
        begun = len(on.sink.deliveries)

        def told(quality: Quality) -> int:
            driver.poll()
            return sum(
                device == "other" and samples["power_w"].quality is quality
                for device, samples in on.sink.deliveries[begun:]
                if "power_w" in samples
            )

        await until(lambda: told(Quality.GOOD) >= 50)
        assert told(Quality.BAD) == 0
        assert not driver.stats.devices["unit"]
        assert on.sink.devices[:2] == [("unit", True, "answers"), ("other", True, "answers")]
        assert all(device == "unit" for device, *_ in on.sink.devices[2:])


def test_every_fault_of_a_line_is_lived_through() -> None:
    usable = {name for name, kind in FAULTS.items() if MODBUS_RTU in kind.applies_to and not kind.understands}
    assert {name for name, _ in LINE_FAULTS} == usable
