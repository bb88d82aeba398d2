"""Every fault over real sockets: the bytes on the driver's side of the proxy and those on the device's."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from sim_devices.faults import FAULTS
from sim_devices.faults.registry import EXCEPTION_CODES, MODBUS_RTU_TCP, MODBUS_TCP
from sim_devices.modbus.rtu_frames import framed
from tests.sim_devices.faults.field import field, mbap, read, registers

ASKED, REPLY = mbap(read(10)), mbap(registers(10))
RTU_ASKED, RTU_REPLY = framed(1, read(10)), framed(1, registers(10))
ECHO = struct.pack(">BHH", 16, 100, 1)
WRITE = ECHO + b"\x02\x00\x05"


class Case(NamedTuple):
    """A fault, and what each side hears of one read of two registers at 10."""

    fault: str
    options: dict[str, Any]
    device: bytes
    driver: bytes
    protocol: str = MODBUS_TCP

    @property
    def name(self) -> str:
        """For people who read the test's report."""
        return "-".join([self.fault, *(f"{key}={value}" for key, value in self.options.items()), self.protocol])


CASES = [
    Case("no_answer", {}, ASKED, b""),
    Case("no_answer", {"direction": "request"}, b"", b""),
    *[Case("exception", {"code": code}, b"", mbap(bytes((0x83, code)))) for code in EXCEPTION_CODES],
    Case("exception", {"code": 2}, b"", framed(1, b"\x83\x02"), MODBUS_RTU_TCP),
    Case("wrong_unit", {}, ASKED, mbap(registers(10), unit=2)),
    Case("wrong_unit", {"as_unit": 99, "direction": "request"}, mbap(read(10), unit=99), mbap(registers(10), unit=99)),
    Case("wrong_unit", {"as_unit": 9}, RTU_ASKED, framed(9, registers(10)), MODBUS_RTU_TCP),
    Case("wrong_function", {}, ASKED, mbap(registers(10, function=4))),
    Case("wrong_function", {"as_function": 6}, RTU_ASKED, framed(1, registers(10, function=6)), MODBUS_RTU_TCP),
    Case("wrong_transaction", {"by": -8}, ASKED, mbap(registers(10), transaction=0xFFFF)),
    Case("wrong_length", {}, ASKED, REPLY[:4] + b"\x00\x08" + REPLY[6:]),
    Case("wrong_length", {"by": -3}, ASKED, REPLY[:4] + b"\x00\x04" + REPLY[6:]),
    Case("wrong_length", {"by": 1}, RTU_ASKED, framed(1, b"\x03\x05" + registers(10)[2:]), MODBUS_RTU_TCP),
    Case("wrong_count", {}, ASKED, mbap(struct.pack(">BB3H", 3, 6, 10, 11, 0))),
    Case("wrong_count", {"by": -1}, RTU_ASKED, framed(1, registers(10, 1)), MODBUS_RTU_TCP),
    Case("truncated", {}, ASKED, REPLY[:6]),
    Case("truncated", {"keep": 8, "direction": "request"}, ASKED[:8], b""),
    Case("truncated", {"keep": 5}, RTU_ASKED, RTU_REPLY[:5], MODBUS_RTU_TCP),
    Case("duplicate", {}, ASKED, REPLY + REPLY),
    Case("duplicate", {"direction": "request"}, ASKED + ASKED, REPLY + REPLY),
    Case("black_hole", {}, b"", b""),
    Case("black_hole", {"direction": "reply"}, ASKED, b""),
    Case("black_hole", {"unit": 2}, ASKED, REPLY),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_each_side_hears_of_a_frame_that_goes_wrong(case: Case) -> None:
    async with field(case.protocol) as on:
        driver = await on.connect()
        fault = on.proxy.faults.set(case.fault, **case.options)
        driver.transport.write(on.request(read(10)))
        await on.until(lambda: len(on.heard) >= len(case.device) and len(driver.heard) >= len(case.driver))
        await on.until(lambda: on.proxy.counts.request_bytes == len(on.request(read(10))))
        assert (on.heard, driver.heard) == (case.device, case.driver)
        assert fault.acted == (0 if case.options.get("unit") == 2 else 1)
        on.proxy.faults.clear()
        if case.options.get("direction") == "request" and case.fault == "truncated":
            return
        driver.transport.write(on.request(read(40), transaction=8))
        last = on.request(registers(40), transaction=8)
        await on.until(lambda: driver.heard.endswith(last))
        # Nothing is left of the fault: what it had taken has not come meanwhile.
        assert (on.heard, driver.heard) == (case.device + on.request(read(40), transaction=8), case.driver + last)


async def test_wrong_check_sums_are_right_but_for_their_last_byte() -> None:
    async with field(MODBUS_RTU_TCP) as on:
        driver = await on.connect()
        on.proxy.faults.set("wrong_crc", count=1)
        driver.transport.write(RTU_ASKED)
        await on.until(lambda: len(driver.heard) == len(RTU_REPLY))
        assert driver.heard[:-1] == RTU_REPLY[:-1]
        assert driver.heard != RTU_REPLY
        driver.transport.write(RTU_ASKED)
        await on.until(lambda: driver.heard.endswith(RTU_REPLY))
        assert on.heard == RTU_ASKED * 2


async def test_extra_bytes_follow_the_frame_and_are_the_seeds() -> None:
    said: list[bytes] = []
    for seed in (1, 1, 2):
        async with field(seed=seed) as on:
            driver = await on.connect()
            on.proxy.faults.set("extra_bytes", size=5)
            driver.transport.write(ASKED)
            await on.until(lambda driver=driver: len(driver.heard) == len(REPLY) + 5)
            assert driver.heard.startswith(REPLY)
            assert on.heard == ASKED
            said.append(driver.heard)
    assert said[0] == said[1] != said[2]


async def test_a_late_answer_comes_when_the_next_request_has_gone() -> None:
    async with field() as on:
        driver = await on.connect()
        on.proxy.faults.set("late_answer", count=1)
        driver.transport.write(ASKED)
        await on.until(lambda: on.proxy.counts.reply_bytes == len(REPLY))
        assert driver.heard == b""
        driver.transport.write(mbap(read(40), 8))
        await on.until(lambda: len(driver.heard) == 2 * len(REPLY))
        assert driver.heard == REPLY + mbap(registers(40), 8)
        assert on.heard == ASKED + mbap(read(40), 8)


async def test_on_a_serial_line_a_late_answer_can_not_be_told_from_the_right_one() -> None:
    async with field(MODBUS_RTU_TCP) as on:
        driver = await on.connect()
        on.proxy.faults.set("late_answer", count=1)
        driver.transport.write(RTU_ASKED)
        await on.until(lambda: on.proxy.counts.reply_bytes == len(RTU_REPLY))
        driver.transport.write(framed(1, read(40)))
        await on.until(lambda: len(driver.heard) == 2 * len(RTU_REPLY))
        assert driver.heard == RTU_REPLY + framed(1, registers(40))


async def test_reordered_replies_change_places() -> None:
    async with field() as on:
        driver = await on.connect()
        on.proxy.faults.set("reorder", count=1)
        driver.transport.write(ASKED + mbap(read(40), 8))
        await on.until(lambda: len(driver.heard) == 2 * len(REPLY))
        assert driver.heard == mbap(registers(40), 8) + REPLY
        assert on.heard == ASKED + mbap(read(40), 8)


async def test_latency_delays_and_keeps_the_order() -> None:
    async with field() as on:
        driver = await on.connect()
        on.proxy.faults.set("latency", direction="reply", delay_s=0.05, jitter_s=0.01, count=1)
        begin_s = asyncio.get_running_loop().time()
        driver.transport.write(ASKED + mbap(read(40), 8))
        await on.until(lambda: len(driver.heard) == 2 * len(REPLY))
        assert driver.times_s[0] - begin_s >= 0.05
        assert driver.heard == REPLY + mbap(registers(40), 8)
        assert driver.times_s[0] - on.device[0].times_s[0] >= 0.05, "the request was not delayed"


async def test_bandwidth_makes_bytes_take_their_time() -> None:
    async with field() as on:
        driver = await on.connect()
        on.proxy.faults.set("bandwidth", direction="request", bytes_per_s=200.0)
        begin_s = asyncio.get_running_loop().time()
        driver.transport.write(ASKED)
        await on.until(lambda: driver.heard == REPLY)
        assert driver.times_s[0] - begin_s >= len(ASKED) / 200.0
        assert on.heard == ASKED


async def test_slicing_brings_single_bytes() -> None:
    async with field() as on:
        driver = await on.connect()
        on.proxy.faults.set("slicing", direction="reply", gap_s=0.005)
        driver.transport.write(ASKED)
        await on.until(lambda: len(driver.heard) == len(REPLY))
        assert driver.heard == REPLY
        assert len(driver.pieces) > 1, "however late they are taken from the socket"
        assert on.device[0].pieces == [ASKED]


async def test_a_stall_delivers_when_it_ends_even_when_the_driver_has_given_up() -> None:
    async with field() as on:
        driver = await on.connect()
        on.proxy.faults.set("stall", direction="request")
        driver.transport.write(mbap(WRITE))
        driver.transport.close()
        await on.until(lambda: on.proxy.counts.request_bytes == len(mbap(WRITE)) and driver.state == "closed")
        assert on.heard == b""
        on.proxy.faults.clear()
        await on.until(lambda: on.device[0].state != "open")
        assert on.heard == mbap(WRITE)
        assert on.registers.written == [(100, b"\x00\x05")]


async def test_a_refused_connection_is_refused_by_the_kernel_and_the_port_is_kept() -> None:
    async with field() as on:
        standing = await on.connect()
        number = on.proxy.faults.set("refuse").id
        with pytest.raises(ConnectionRefusedError):
            await on.connect()
        standing.transport.write(ASKED)
        await on.until(lambda: standing.heard == REPLY)
        on.proxy.faults.clear(number)
        again = await on.connect_when_let()
        again.transport.write(ASKED)
        await on.until(lambda: again.heard == REPLY)
        assert on.heard == ASKED * 2


async def test_a_refusal_ends_by_time() -> None:
    async with field() as on:
        on.proxy.faults.set("refuse", duration_s=0.03)
        refused = 0
        async with asyncio.timeout(2):
            while True:
                try:
                    driver = await on.connect()
                    break
                except ConnectionRefusedError:
                    refused += 1
        assert refused > 0
        driver.transport.write(ASKED)
        await on.until(lambda: driver.heard == REPLY)


async def test_a_reset_breaks_the_connections_there_are_and_no_other() -> None:
    async with field() as on:
        first, second = await on.connect(), await on.connect()
        first.transport.write(ASKED)
        await on.until(lambda: first.heard == REPLY)
        on.proxy.faults.set("reset")
        await on.until(lambda: first.state == second.state == "reset")
        await on.until(lambda: all(end.state == "reset" for end in on.device))
        third = await on.connect()
        third.transport.write(ASKED)
        await on.until(lambda: third.heard == REPLY)


@pytest.mark.parametrize(("direction", "device"), [("request", b""), ("reply", mbap(WRITE))])
async def test_a_cut_comes_in_place_of_the_bytes(direction: str, device: bytes) -> None:
    async with field() as on:
        driver = await on.connect()
        on.proxy.faults.set("cut", direction=direction, function=16, count=1)
        driver.transport.write(ASKED)
        await on.until(lambda: driver.heard == REPLY)
        driver.transport.write(mbap(WRITE))
        await on.until(lambda: driver.state == on.device[0].state == "reset")
        assert on.heard == ASKED + device
        assert driver.heard == REPLY


async def test_a_half_open_connection_swallows_and_breaks_when_the_fault_has_ended() -> None:
    async with field() as on:
        driver = await on.connect()
        on.proxy.faults.set("half_open")
        await on.until(lambda: on.device[0].state == "reset")
        driver.transport.write(ASKED)
        await on.until(lambda: on.proxy.counts.request_bytes == len(ASKED))
        assert (driver.state, driver.heard, on.heard) == ("open", b"", b"")
        fresh = await on.connect()
        fresh.transport.write(ASKED)
        await on.until(lambda: fresh.heard == REPLY)
        on.proxy.faults.clear()
        driver.transport.write(ASKED)
        await on.until(lambda: driver.state == "reset")
        assert on.heard == ASKED
        assert fresh.state == "open"


WIRE_TESTS: dict[str, Callable[[], Awaitable[None]]] = {
    "wrong_crc": test_wrong_check_sums_are_right_but_for_their_last_byte,
    "extra_bytes": test_extra_bytes_follow_the_frame_and_are_the_seeds,
    "late_answer": test_a_late_answer_comes_when_the_next_request_has_gone,
    "reorder": test_reordered_replies_change_places,
    "latency": test_latency_delays_and_keeps_the_order,
    "bandwidth": test_bandwidth_makes_bytes_take_their_time,
    "slicing": test_slicing_brings_single_bytes,
    "stall": test_a_stall_delivers_when_it_ends_even_when_the_driver_has_given_up,
    "refuse": test_a_refused_connection_is_refused_by_the_kernel_and_the_port_is_kept,
    "reset": test_a_reset_breaks_the_connections_there_are_and_no_other,
    "cut": test_a_cut_comes_in_place_of_the_bytes,
    "half_open": test_a_half_open_connection_swallows_and_breaks_when_the_fault_has_ended,
}


def test_every_fault_of_links_and_frames_has_a_test_on_the_wire() -> None:
    of_the_line = {name for name, kind in FAULTS.items() if not kind.understands}
    assert {case.fault for case in CASES} | WIRE_TESTS.keys() == of_the_line


async def test_without_a_fault_a_proxy_is_as_good_as_a_wire_either_way() -> None:
    async with field("opcua") as on:
        on.answers = False
        driver = await on.connect()
        await on.until(lambda: len(on.device) == 1)
        stream = bytes(range(256)) * 8_000
        driver.transport.write(stream)
        on.device[0].transport.write(stream[::-1])
        await on.until(lambda: len(on.heard) == len(driver.heard) == len(stream))
        assert (on.heard, driver.heard) == (stream, stream[::-1])
        driver.transport.write_eof()
        await on.until(lambda: on.device[0].state == "closed" and driver.state == "closed")


async def test_a_driver_that_does_not_read_is_not_read_for() -> None:
    async with field("opcua") as on:
        on.answers = False
        driver = await on.connect()
        await on.until(lambda: len(on.device) == 1)
        driver.transport.pause_reading()
        device = on.device[0].transport
        device.set_write_buffer_limits(high=0)
        sent = 0
        while device.get_write_buffer_size() == 0:
            device.write(bytes(65_536))
            sent += 65_536
            await asyncio.sleep(0)
            assert sent < 100_000_000
        driver.transport.resume_reading()
        await on.until(lambda: len(driver.heard) == sent)


async def test_a_device_that_can_not_be_reached_resets_the_driver() -> None:
    async with field() as on:
        on.answers = False
        on.proxy.target = ("127.0.0.1", 1)
        driver = await on.connect()
        await on.until(lambda: driver.state == "reset")
        assert on.proxy.counts.unreached == 1


async def test_a_reset_by_one_side_reaches_the_other() -> None:
    async with field() as on:
        driver = await on.connect()
        await on.until(lambda: len(on.device) == 1)
        connection = on.device[0].transport.get_extra_info("socket")
        connection.setsockopt(1, 13, struct.pack("ii", 1, 0))
        on.device[0].transport.abort()
        await on.until(lambda: driver.state == "reset")
        assert on.proxy.state()["connected"] == 0
