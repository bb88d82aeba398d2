"""The Modbus driver on a device that does not behave: nothing wrong becomes a value, and nothing raises."""

import asyncio
import random
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from config.vocabulary import LinkState, Quality, Sample, WritePriority, WriteStatus
from drivers.modbus.link import tcp_connector
from drivers.modbus.request import Failure, Request, read_pdu
from drivers.modbus.request_queue import RequestQueue
from tests.drivers.modbus_server import Asked, Bench, battery_profile, bench, fill_battery, make_profile, silence

STATUS = WriteStatus


@pytest.fixture
async def on() -> AsyncIterator[Bench]:
    async with bench() as made:
        fill_battery(made.server)
        yield made


def with_header(frame: bytes, at: int, value: bytes) -> bytes:
    return frame[:at] + value + frame[at + len(value) :]


def resized(frame: bytes, pdu: bytes) -> bytes:
    return frame[:4] + struct.pack(">H", len(pdu) + 1) + frame[6:7] + pdu


WRONG_REPLIES: dict[str, Callable[[bytes], bytes]] = {
    "unit": lambda frame: with_header(frame, 6, b"\x63"),
    "function": lambda frame: with_header(frame, 7, b"\x04"),
    "answer to a write": lambda frame: resized(frame, struct.pack(">BHH", 16, 10, 3)),
    "byte count": lambda frame: with_header(frame, 8, b"\x08"),
    "too few registers": lambda frame: resized(frame, b"\x03\x04" + frame[9:13]),
    "too many registers": lambda frame: resized(frame, b"\x03\x08" + frame[9:] + b"\0\1"),
    "byte count that lies": lambda frame: resized(frame, b"\x03\x06" + frame[9:13]),
    "exception of another function": lambda frame: resized(frame, b"\x84\x02"),
}


@pytest.mark.parametrize("wrong", WRONG_REPLIES.values(), ids=WRONG_REPLIES)
async def test_a_wrong_reply_is_counted_and_never_becomes_a_value(on: Bench, wrong: Callable[[bytes], bytes]) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.answers[3] = [wrong]
        await on.polled(driver)
        assert on.sink.latest["unit"]["power_w"] == Sample(None, Quality.BAD, on.sink.latest["unit"]["soc"].measured_s)
        assert driver.stats.rejected == 1
        assert on.sink.devices[-1][:2] == ("unit", False)
        before = len(on.sink.deliveries)
        driver.poll()
        await on.until(lambda: len(on.sink.deliveries) > before)
        assert on.sink.value("unit", "power_w") == 1500.0
        assert on.sink.devices[-1] == ("unit", True, "answers")
    assert on.server.connections == 1


async def test_a_reply_of_another_transaction_is_ignored_and_the_right_one_awaited(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.answers[3] = [lambda frame: with_header(with_header(frame, 0, b"\xbe\xef"), 9, b"\x77") + frame]
        await on.polled(driver)
    assert on.sink.value("unit", "power_w") == 1500.0
    assert driver.stats.rejected == 1


async def test_unasked_replies_are_counted_and_change_nothing(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.send(struct.pack(">HHHBBB6s", 1, 0, 9, 1, 3, 6, b"\x7f" * 6))
        await on.polled(driver)
    assert on.sink.value("unit", "power_w") == 1500.0
    assert driver.stats.rejected == 1


async def test_a_device_that_answers_exceptions_is_absent_once_and_back_once(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.refused[11] = 4
        for _ in range(3):
            before = len(on.sink.deliveries)
            driver.poll()
            await on.until(lambda before=before: len(on.sink.deliveries) > before)
        assert not on.sink.is_good("unit", "power_w")
        assert driver.stats.devices == {"unit": False}
        on.server.refused.clear()
        assert driver.poll() == (), "nobody waits for an absent device"
        await on.present(2)
    assert on.sink.devices == [
        ("unit", True, "answers"),
        ("unit", False, "exception 4 (server device failure)"),
        ("unit", True, "answers"),
    ]
    assert driver.stats.exceptions == 3
    assert driver.stats.lost == 0


async def test_a_device_that_falls_silent_is_lost_and_found_again(on: Bench) -> None:
    async with on.running(on.bind(battery_profile(timeout_s=0.05))) as driver:
        await on.present()
        on.server.answers[3] = [silence]
        driver.poll()
        await on.present(2)
    assert [state for state, _ in on.sink.links] == [
        LinkState.CONNECTING,
        LinkState.UP,
        LinkState.LOST,
        LinkState.UP,
    ]
    assert on.sink.links[2][1] == "no answer within 0.05 s to the fast poll of unit at 10"
    assert (driver.stats.timeouts, driver.stats.lost, driver.stats.reconnects) == (1, 1, 1)


@pytest.mark.parametrize("cut", [1, 6, 8, 12])
async def test_half_a_reply_is_no_reply(on: Bench, cut: int) -> None:
    async with on.running(on.bind(battery_profile(timeout_s=0.05))) as driver:
        await on.present()
        on.server.put(10, b"\x7f" * 4)
        on.server.answers[3] = [lambda frame: frame[:cut]]
        driver.poll()
        await on.until(lambda: driver.stats.timeouts == 1)
        assert on.sink.value("unit", "power_w") == 1500.0
        await on.present(2)


async def test_a_reset_connection_is_made_again(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.reset()
        await on.present(2)
        assert await on.polled(driver) == ("unit",)
    assert on.server.connections == 2


async def test_a_server_that_comes_back_is_found_within_two_seconds(on: Bench) -> None:
    attempts = 0
    connect = tcp_connector("127.0.0.1", on.server.port)

    async def counted(factory: Callable[[], asyncio.Protocol]) -> tuple[asyncio.BaseTransport, asyncio.Protocol]:
        nonlocal attempts
        attempts += 1
        on.watch.notify()
        return await connect(factory)

    async with on.running(on.bind(battery_profile()), connect=counted) as driver:
        await on.present()
        await on.server.stop()
        await on.until(lambda: attempts == 6)
        assert driver.stats.reason.startswith("Connection refused: ")
        await on.server.start()
        begun_s = time.monotonic()
        await on.present(2)
        assert time.monotonic() - begun_s < 2.0
    assert [state for state, _ in on.sink.links].count(LinkState.LOST) == 1


async def test_a_server_that_accepts_and_says_nothing_is_lost_once(on: Bench) -> None:
    on.server.always[3] = silence
    async with on.running(on.bind(battery_profile(timeout_s=0.02))) as driver:
        await on.until(lambda: on.server.connections == 3)
    assert on.sink.links == [
        (LinkState.CONNECTING, ""),
        (LinkState.LOST, "no answer within 0.02 s to the read of 2 at 20 of unit"),
    ]
    assert driver.stats.lost == 1
    assert on.sink.deliveries == []


async def test_a_write_without_an_answer_is_indeterminate_and_the_current_setpoint_goes_out_first(on: Bench) -> None:
    async with on.running(on.bind(battery_profile(timeout_s=0.05))) as driver:
        await on.present()
        on.server.answers[16] = [silence]
        driver.write(lost := on.setpoint(1000.0))
        result = await on.answered(lost)
        assert result.status is STATUS.INDETERMINATE
        assert "no answer within 0.05 s" in result.detail
        driver.write(current := on.setpoint(2000.0))
        assert (await on.answered(current)).status is STATUS.ACKNOWLEDGED
        await on.present(2)
    assert on.sink.statuses() == [(lost.sequence, STATUS.INDETERMINATE), (current.sequence, STATUS.ACKNOWLEDGED)]
    assert driver.stats.writes_failed == 1
    again = [asked for asked in on.server.asked if asked.connection == 2]
    assert again[0] == Asked(2, 1, 16, 100, 2, struct.pack(">i", 2000))


async def test_without_a_newer_one_the_same_setpoint_is_written_again_and_not_told_twice(on: Bench) -> None:
    async with on.running(on.bind(battery_profile(timeout_s=0.05))) as driver:
        await on.present()
        on.server.answers[6] = [silence]
        driver.write(lost := on.setpoint(1000.0))
        await on.answered(lost)
        await on.present(2)
        await on.until(lambda: len(on.server.written()) == 4)
        await on.polled(driver)
    assert on.server.written()[2:] == [(100, struct.pack(">i", 1000)), (110, b"\0\1")]
    assert on.sink.statuses() == [(lost.sequence, STATUS.INDETERMINATE)]


async def test_an_expired_setpoint_is_not_written_again(on: Bench) -> None:
    async with on.running(on.bind(battery_profile(timeout_s=0.05))) as driver:
        await on.present()
        on.server.answers[16] = [silence]
        driver.write(lost := on.setpoint(1000.0, life_s=5.0))
        await on.answered(lost)
        on.now_s += 10.0
        await on.present(2)
        await on.polled(driver)
    assert all(not asked.data for asked in on.server.asked if asked.connection == 2)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda frame: with_header(frame, 6, b"\x63"),
        lambda frame: with_header(frame, 8, b"\x00\x65"),
        lambda frame: with_header(frame, 10, b"\x00\x01"),
        lambda frame: resized(frame, b"\x06\x00\x64\x00\x01"),
    ],
    ids=["unit", "address", "count", "function"],
)
async def test_a_wrong_answer_to_a_write_is_indeterminate(on: Bench, wrong: Callable[[bytes], bytes]) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.answers[16] = [wrong]
        driver.write(setpoint := on.setpoint(1000.0))
        assert (await on.answered(setpoint)).status is STATUS.INDETERMINATE
        await on.present(2)
    assert driver.stats.rejected == 1


async def test_a_write_that_the_device_refuses_is_told_with_its_reason(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.refused[110] = 3
        driver.write(setpoint := on.setpoint(1000.0))
        result = await on.answered(setpoint)
        on.server.reset()
        await on.present(2)
        await on.polled(driver)
    assert (result.status, result.detail) == (STATUS.REFUSED, "exception 3 (illegal data value) at enable")
    assert len(on.server.written()) == 2


async def test_one_refused_unit_costs_the_others_nothing(on: Bench) -> None:
    on.server.refused = {}
    async with on.running(on.bind(battery_profile()), on.bind(battery_profile(), "other", 2)) as driver:
        await on.present(2)
        on.server.answers[3] = [lambda frame: resized(frame, b"\x83\x0b")]
        driver.poll()
        await on.until(lambda: len(on.sink.devices) == 3)
        await on.until(lambda: on.sink.deliveries[-1][0] == "other")
    assert on.sink.devices[-1] == ("unit", False, "exception 11 (gateway target device failed to respond)")
    assert on.sink.is_good("other", "power_w")


async def test_random_bytes_never_raise_and_never_become_a_sample(on: Bench) -> None:
    rng = random.Random(7)
    on.server.put(10, b"\x55" * 6)

    def rubbish(frame: bytes) -> bytes:
        # The set-up's own read is answered, so that each connection gets as far as the rubbish.
        if frame[7:9] == b"\x03\x04":
            return frame
        kinds = (
            rng.randbytes(rng.randrange(1, 300)),
            frame[:7] + rng.randbytes(rng.randrange(1, 20)),
            frame[: rng.randrange(len(frame))] + rng.randbytes(3),
            struct.pack(">HHH", int.from_bytes(frame[:2]), 0, rng.randrange(65536)) + rng.randbytes(40),
        )
        return rng.choice(kinds)

    def happened() -> tuple[int, int, int]:
        return on.server.connections, len(on.server.asked), len(on.sink.deliveries)

    async with on.running(on.bind(battery_profile(timeout_s=0.01))) as driver:
        await on.present()
        on.sink.deliveries.clear()
        on.server.always[3] = on.server.always[16] = rubbish
        for turn in range(60):
            before = happened()
            driver.poll()
            if turn % 15 == 0:
                driver.write(on.setpoint(100.0, life_s=0.005))
                on.server.send(rng.randbytes(rng.randrange(1, 60)))
            await on.until(lambda before=before: happened() != before)
        told = [samples["power_w"] for _, samples in on.sink.deliveries if "power_w" in samples]
        assert all(sample.quality is Quality.BAD for sample in told)
        on.server.always.clear()
        await on.until(lambda: driver.stats.devices["unit"])
        assert driver.stats.rejected > 0


def test_too_many_polls_drop_the_oldest_slow_one_and_never_a_write() -> None:
    class Poll(Request):
        def failed(self, failure: Failure, detail: str) -> None:
            raise AssertionError

    def request(name: str, priority: WritePriority) -> Request:
        return Poll(name, 1, priority, 1.0, read_pdu("holding", 0, 1))

    queue = RequestQueue(2)
    slow, fast = WritePriority.SLOW_POLL, WritePriority.FAST_POLL
    dropped = [
        queue.push(request(name, priority))
        for name, priority in (
            ("slow 1", slow),
            ("write 1", WritePriority.SETPOINT),
            ("slow 2", slow),
            ("fast 1", fast),
            ("fast 2", fast),
            ("fast 3", fast),
            ("write 2", WritePriority.FAIL_SAFE),
        )
    ]
    assert [request.name for request in dropped if request] == ["slow 1", "slow 2", "fast 1"]
    assert [request.name for request in queue.drain()] == ["write 2", "write 1", "fast 2", "fast 3"]


async def test_slow_polls_have_their_turn_beside_fast_ones_that_never_end(on: Bench) -> None:
    points = {
        "power_w": {"at": {"address": 10, "type": "int32"}, "unit": "W", "poll": "fast"},
        "energy": {"at": {"address": 12}, "poll": "slow"},
    }
    profile = make_profile(points, slow_poll_s=0.01)
    async with on.running(on.bind(profile, "one"), on.bind(profile, "two")) as driver:
        await on.present(2)
        deliver = on.sink.samples

        def poll_again(device: str, samples: Mapping[str, Sample]) -> None:
            deliver(device, samples)
            driver.poll()

        on.sink.samples = poll_again  # type: ignore[method-assign]
        driver.poll()
        on.server.asked.clear()
        await on.until(lambda: sum(asked.address == 12 for asked in on.server.asked) >= 5)
        assert sum(asked.address == 10 for asked in on.server.asked) > 5
