"""The Modbus driver on a serial line, over real pseudo-terminals: timing, late answers, faults, and the port itself."""

import asyncio
import os
import random
import struct
import time
import tty
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from config.profile import Profile
from config.vocabulary import LinkState, Quality, WriteStatus
from drivers.modbus.driver import ModbusDriver
from tests.drivers.modbus_server import battery_profile, make_profile
from tests.drivers.serial_line import Answer, LineBench, LineUnit, bind_all, framed, terminal

STATUS = WriteStatus


@pytest.fixture
async def on() -> AsyncIterator[LineBench]:
    async with terminal() as made:
        yield made


def battery(on: LineBench, number: int = 1) -> LineUnit:
    unit = on.line.add(number)
    unit.put(10, struct.pack(">iH", 1500 * number, 550))
    unit.put(20, b"SN42")
    unit.put(100, bytes(4))
    unit.put(110, bytes(2))
    return unit


def silence(_frame: bytes) -> None:
    return None


async def write(on: LineBench, driver: ModbusDriver, power_w: float, device: str = "unit") -> WriteStatus:
    setpoint = on.setpoint(power_w, device)
    driver.write(setpoint)
    return (await on.answered(setpoint)).status


async def test_units_on_a_line_are_read_and_written(on: LineBench) -> None:
    for number in (1, 2, 3):
        battery(on, number)
    async with on.running(*bind_all(on, battery_profile(), (1, 2, 3))) as driver:
        await on.present(3)
        await on.polled(driver)
        assert [on.sink.value(f"unit_{number}", "power_w") for number in (1, 2, 3)] == [1500.0, 3000.0, 4500.0]
        assert await write(on, driver, -4200.0, "unit_2") is STATUS.ACKNOWLEDGED
    assert on.line.written(2) == [(100, struct.pack(">i", -4200)), (110, b"\0\1")]
    assert on.line.written(1) == []
    assert [state for state, _ in on.sink.links] == [LinkState.CONNECTING, LinkState.UP]
    assert (driver.stats.rejected, driver.stats.timeouts, on.line.broken) == (0, 0, 0)


async def test_frames_are_kept_apart_by_silence() -> None:
    async with terminal(9600) as on:
        for number in (1, 2):
            battery(on, number)
        async with on.running(*bind_all(on, battery_profile(), (1, 2))) as driver:
            await on.present(2)
            for _ in range(5):
                await on.polled(driver)
        assert on.line.shortest_silence_s >= 3.5 * on.line.character_s


def two_values() -> Profile:
    """Two values as long as each other, far apart: what the one answers could be the other's."""
    points = {
        "power_w": {"at": {"address": 0, "type": "int32"}, "unit": "W", "poll": "fast"},
        "other": {"at": {"address": 100, "type": "int32"}, "poll": "fast"},
    }
    return make_profile(points, timeout_s=0.1)


@pytest.mark.parametrize("late", [1.05, 1.3, 1.9, 2.6])
async def test_a_late_answer_is_never_taken_for_the_next_one(on: LineBench, late: float) -> None:
    unit = on.line.add(1)
    unit.put(0, struct.pack(">i", 1111))
    unit.put(100, struct.pack(">i", 2222))
    async with on.running(on.bind(two_values())) as driver:
        await on.present()
        for turn in range(1, 4):
            await on.poll_until(driver, lambda: on.all_good("power_w", "other"))
            unit.latencies = [0.1 * late]
            await on.poll_until(driver, lambda turn=turn: driver.stats.timeouts >= turn)
            await on.poll_until(driver, lambda: not on.all_good("power_w", "other"))
        await on.poll_until(driver, lambda: on.all_good("power_w", "other"))
    assert {deliver["power_w"].value for _, deliver in on.sink.deliveries if "power_w" in deliver} <= {1111.0, None}
    assert {deliver["other"].value for _, deliver in on.sink.deliveries if "other" in deliver} <= {2222.0, None}
    assert driver.stats.timeouts >= 3
    assert driver.stats.rejected >= 1, "late answers are counted"


@pytest.mark.parametrize("late", [1.1, 1.9, 2.9])
async def test_a_unit_that_offers_nothing_to_tell_answers_apart_is_left_alone(on: LineBench, late: float) -> None:
    points = {
        "power_w": {"at": {"address": 0}, "unit": "W", "poll": "fast"},
        "other": {"at": {"address": 100}, "poll": "fast"},
    }
    unit = on.line.add(1)
    unit.put(0, b"\0\1")
    unit.put(100, b"\0\2")
    async with on.running(on.bind(make_profile(points, timeout_s=0.1))) as driver:
        await on.present()
        unit.latencies = [0.1 * late]
        await on.poll_until(driver, lambda: driver.stats.timeouts >= 1)
        await on.poll_until(driver, lambda: not on.all_good("power_w"))
        await on.poll_until(driver, lambda: on.all_good("power_w", "other"))
    assert {deliver["power_w"].value for _, deliver in on.sink.deliveries if "power_w" in deliver} <= {1.0, None}
    assert {deliver["other"].value for _, deliver in on.sink.deliveries if "other" in deliver} <= {2.0, None}


async def test_a_late_answer_of_one_unit_costs_another_nothing(on: LineBench) -> None:
    slow, _ = battery(on, 1), battery(on, 2)
    async with on.running(*bind_all(on, battery_profile(timeout_s=0.1), (1, 2))) as driver:
        await on.present(2)
        slow.latencies = [0.135]
        on.line.units[2].latencies = [0.05]
        driver.poll()
        await on.until(lambda: driver.stats.timeouts == 1)
        before = len(on.sink.deliveries)
        await on.until(lambda: len(on.sink.deliveries) > before)
        assert on.sink.deliveries[-1][0] == "unit_2"
        assert on.sink.value("unit_2", "power_w") == 3000.0
    assert driver.stats.rejected == 1


def with_crc(change: Callable[[bytearray], None]) -> Answer:
    def changed(frame: bytes) -> bytes:
        body = bytearray(frame[:-2])
        change(body)
        return framed(bytes(body))

    return changed


def put(at: int, value: int) -> Callable[[bytearray], None]:
    def change(body: bytearray) -> None:
        body[at] = value

    return change


WRONG_REPLIES: dict[str, Answer] = {
    "check sum": lambda frame: frame[:-1] + bytes((frame[-1] ^ 1,)),
    "flipped bit": lambda frame: frame[:4] + bytes((frame[4] ^ 0x40,)) + frame[5:],
    "unit": with_crc(put(0, 7)),
    "function": with_crc(put(1, 4)),
    "byte count": with_crc(put(2, 8)),
    "too few registers": lambda frame: framed(b"\x01\x03\x04" + frame[3:7]),
    "too many registers": lambda frame: framed(b"\x01\x03\x08" + frame[3:-2] + b"\0\1"),
    "answer to a write": lambda _: framed(struct.pack(">BBHH", 1, 16, 10, 3)),
    "exception of another function": lambda _: framed(b"\x01\x84\x02"),
    "bytes in front": lambda frame: b"\x37" + frame,
}


@pytest.mark.parametrize("wrong", WRONG_REPLIES.values(), ids=WRONG_REPLIES)
async def test_a_wrong_reply_is_counted_and_never_becomes_a_value(on: LineBench, wrong: Answer) -> None:
    unit = battery(on)
    async with on.running(on.bind(battery_profile(timeout_s=0.2))) as driver:
        await on.present()
        await on.polled(driver)
        unit.answers = [wrong]
        await on.polled(driver)
        assert on.sink.latest["unit"]["power_w"].quality is Quality.BAD
        assert driver.stats.rejected >= 1
        before = len(on.sink.deliveries)
        driver.poll()
        await on.until(lambda: len(on.sink.deliveries) > before)
        assert on.sink.value("unit", "power_w") == 1500.0
    assert driver.stats.lost == 0


CUT_REPLIES: dict[str, Answer] = {"cut": lambda frame: frame[:6], "silence": silence, "one byte": lambda _: b"\x01"}


@pytest.mark.parametrize("cut", CUT_REPLIES.values(), ids=CUT_REPLIES)
async def test_half_a_reply_is_no_reply(on: LineBench, cut: Answer) -> None:
    unit = battery(on)
    async with on.running(on.bind(battery_profile(timeout_s=0.05))) as driver:
        await on.present()
        await on.polled(driver)
        unit.answers = [cut]
        await on.polled(driver)
        assert driver.stats.timeouts == 1
        assert on.sink.latest["unit"]["power_w"].quality is Quality.BAD
        await on.polled(driver)
        await on.until(lambda: on.sink.is_good("unit", "power_w"))


async def test_bytes_around_a_reply_do_not_spoil_it(on: LineBench) -> None:
    unit = battery(on)
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        unit.answers = [lambda frame: b"\x00\xff" + frame + b"\x91\x92"]
        await on.polled(driver)
        assert on.sink.value("unit", "power_w") == 1500.0
        await on.polled(driver)
        assert on.sink.value("unit", "power_w") == 1500.0
    assert driver.stats.timeouts == 0


async def test_noise_on_an_idle_line_is_waited_out(on: LineBench) -> None:
    battery(on)
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        await on.polled(driver)
        on.line.say(framed(b"\x01\x03\x06" + b"\x7f" * 6))
        await on.poll_until(driver, lambda: driver.stats.rejected == 1, polling=False)
        await on.polled(driver)
        assert on.sink.value("unit", "power_w") == 1500.0


async def test_random_bytes_never_raise_and_never_become_a_sample(on: LineBench) -> None:
    rng = random.Random(7)
    unit = battery(on)
    unit.put(10, b"\x55" * 6)

    def rubbish(frame: bytes) -> bytes:
        kinds = (
            rng.randbytes(rng.randrange(1, 300)),
            frame[: rng.randrange(len(frame))] + rng.randbytes(3),
            frame[:3] + rng.randbytes(len(frame) - 3),
            framed(rng.randbytes(rng.randrange(1, 20))),
            b"",
        )
        return rng.choice(kinds)

    async with on.running(on.bind(battery_profile(timeout_s=0.02))) as driver:
        await on.present()
        on.sink.deliveries.clear()
        unit.always[3] = unit.always[16] = rubbish
        for turn in range(30):
            asked = len(on.line.heard)
            if turn % 8 == 0:
                driver.write(on.setpoint(100.0, life_s=0.005))
                on.line.say(rng.randbytes(rng.randrange(1, 60)))
            await on.poll_until(driver, lambda asked=asked: len(on.line.heard) > asked)
        told = [samples["power_w"] for _, samples in on.sink.deliveries if "power_w" in samples]
        assert all(sample.quality is Quality.BAD for sample in told)
        unit.always.clear()
        await on.poll_until(driver, lambda: driver.stats.devices["unit"])
        assert driver.stats.rejected > 0


async def test_a_line_that_is_never_silent_is_lost(on: LineBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.modbus.rtu._NEVER_SILENT_S", 0.1)
    battery(on)
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + 0.5

        def babble() -> None:
            on.line.say(b"\x55")
            if loop.time() < ends_s:
                loop.call_later(0.002, babble)

        babble()
        await on.until(lambda: on.sink.links[-1][0] is LinkState.LOST)
        assert "silent" in driver.stats.reason
        await on.present(2)


async def test_a_unit_alone_on_its_line_is_found_within_two_seconds(on: LineBench) -> None:
    unit = battery(on)
    async with on.running(on.bind(battery_profile(timeout_s=0.3))) as driver:
        await on.present()
        unit.dead = True
        await on.poll_until(driver, lambda: driver.stats.lost == 1)
        await asyncio.sleep(1.0)
        unit.dead = False
        begun_s = time.monotonic()
        await on.present(2)
        assert time.monotonic() - begun_s < 2.0
    assert [state for state, _ in on.sink.links].count(LinkState.LOST) == 1


async def test_a_write_without_an_answer_is_indeterminate_and_the_current_setpoint_goes_out_first(
    on: LineBench,
) -> None:
    unit = battery(on)
    async with on.running(on.bind(battery_profile(timeout_s=0.1))) as driver:
        await on.present()
        unit.answers = [silence]
        driver.write(lost := on.setpoint(1000.0))
        await on.until(lambda: bool(on.line.written()))
        driver.write(current := on.setpoint(2000.0))
        assert (await on.answered(lost)).status is STATUS.INDETERMINATE
        assert (await on.answered(current)).status is STATUS.ACKNOWLEDGED
    assert [data for address, data in on.line.written() if address == 100] == [
        struct.pack(">i", 1000),
        struct.pack(">i", 2000),
    ]


async def test_the_acknowledgement_of_one_write_is_never_taken_for_the_next(on: LineBench) -> None:
    unit = battery(on)
    async with on.running(on.bind(battery_profile(timeout_s=0.1))) as driver:
        await on.present()
        unit.latencies = [0.16]
        driver.write(late := on.setpoint(1000.0))
        await on.until(lambda: bool(on.line.written()))
        driver.write(refused := on.setpoint(2000.0))
        unit.refused[100] = 4
        assert (await on.answered(late)).status is STATUS.INDETERMINATE
        assert (await on.answered(refused)).status is STATUS.REFUSED


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/no_such_port", "no such port: /dev/no_such_port; "),
        ("/dev/null", "/dev/null is no serial port, or cannot be set to 115200 baud, even parity, 1 stop bits"),
    ],
)
async def test_a_port_that_cannot_be_had_is_named(on: LineBench, path: str, reason: str) -> None:
    on.path = path
    async with on.running(on.bind(battery_profile())):
        await on.until(lambda: len(on.sink.links) == 2)
    state, told = on.sink.links[1]
    assert state is LinkState.LOST
    assert told.startswith(reason)


async def test_a_port_is_nobody_elses(on: LineBench) -> None:
    battery(on)
    async with on.running(on.bind(battery_profile())):
        await on.present()
        async with on.running(on.bind(battery_profile())) as second:
            await on.until(lambda: second.stats.lost == 1)
            assert second.stats.reason.startswith(f"{on.path} is busy: ")
            assert second.stats.reason.endswith(" has this port open")


async def test_a_port_that_vanishes_is_opened_again_when_it_is_back(on: LineBench, tmp_path: Path) -> None:
    """An adapter that is pulled out: the name leads nowhere, then to another terminal."""
    battery(on)
    loop = asyncio.get_running_loop()
    port = tmp_path / "port"
    ends: list[int] = []

    def plug() -> None:
        master, slave = os.openpty()
        tty.setraw(slave)
        port.symlink_to(os.ttyname(slave))
        ends[:] = [master, slave]
        on.line.say = lambda data: os.write(master, data)  # type: ignore[assignment]
        loop.add_reader(master, lambda: on.line.hear(os.read(master, 4096)))

    def pull() -> None:
        on.line.say = lambda _: None
        loop.remove_reader(ends[0])
        port.unlink()
        for end in ends:
            os.close(end)

    plug()
    on.path = str(port)
    async with on.running(on.bind(battery_profile())):
        await on.present()
        pull()
        await on.until(lambda: on.sink.links[-1][0] is LinkState.LOST)
        plug()
        begun_s = time.monotonic()
        await on.present(2)
        assert time.monotonic() - begun_s < 2.0
    pull()
