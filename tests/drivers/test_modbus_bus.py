"""Several units on one link: what one of them does is no business of the others. A minute on a line takes a moment."""

import asyncio
import contextlib
import itertools
import random
import struct
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from config.profile import Profile
from config.site import ModbusRtuTcpAddress
from config.vocabulary import LinkState, Quality, WritePriority, WriteStatus
from drivers.binding import DeviceBinding
from drivers.modbus.breaker import LONGEST_PAUSE_S, UnitBreaker
from drivers.modbus.bus_queue import BusQueue
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.request import Failure, Request, read_pdu
from tests.drivers.modbus_server import Bench, battery_profile, bench, fill_battery, make_profile, silence
from tests.drivers.serial_line import LineBench, bind_all, in_memory
from tests.drivers.virtual_time import run_in_virtual_time

STATUS = WriteStatus
DEAD = 10


def meter_profile(**pace: float) -> Profile:
    points = {f"value_{at}": {"at": {"address": at}, "poll": "fast"} for at in range(2, 20)}
    points["power_w"] = {"at": {"address": 0, "type": "int32"}, "unit": "W", "poll": "fast"}
    points["energy"] = {"at": {"address": 50}, "poll": "slow"}
    return make_profile(points, slow_poll_s=2.0, **pace)


def cycle_every(period_s: float, *actions: Callable[[], object]) -> None:
    """Polls and writes as the control cycle makes them, until the loop ends."""

    def tick() -> None:
        for action in actions:
            action()
        asyncio.get_running_loop().call_later(period_s, tick)

    tick()


def good_deliveries(on: LineBench, since: int, *without: str) -> int:
    return sum(
        samples["power_w"].quality is Quality.GOOD
        for device, samples in on.sink.deliveries[since:]
        if "power_w" in samples and device not in without
    )


def meters(on: LineBench, numbers: Sequence[int]) -> list[DeviceBinding]:
    for number in numbers:
        on.line.add(number).put(0, bytes(102))
    return bind_all(on, meter_profile(), numbers)


async def polls_in_a_minute(numbers: Sequence[int], is_one_dead: bool) -> int:
    """How many good polls nine units give on a saturated line; of a dead tenth, once its breaker is open."""
    on = in_memory(19_200)
    bindings = meters(on, numbers)
    async with on.running(*bindings) as driver:
        if is_one_dead:
            on.line.units[DEAD].dead = True
        cycle_every(0.1, driver.poll)
        await on.until(lambda: not is_one_dead or driver._units[DEAD].breaker.is_open)
        await asyncio.sleep(0.0 if is_one_dead else 10.0)
        before = len(on.sink.deliveries)
        await asyncio.sleep(60.0)
        return good_deliveries(on, before, f"unit_{DEAD}")


def test_a_dead_unit_among_ten_costs_the_others_at_most_a_tenth_of_a_minute() -> None:
    without = run_in_virtual_time(polls_in_a_minute(range(1, 10), False))
    beside = run_in_virtual_time(polls_in_a_minute(range(1, 11), True))
    assert without > 1500, "the line is saturated"
    assert beside >= 0.9 * without


@pytest.mark.parametrize("away_s", [1.0, 20.0, 100.0, 300.0])
def test_a_unit_that_comes_back_is_served_within_one_pause(away_s: float) -> None:
    async def story() -> None:
        on = in_memory(19_200)
        async with on.running(*meters(on, range(1, 11))) as driver:
            cycle_every(0.1, driver.poll)
            await on.present(10)
            on.line.units[DEAD].dead = True
            await on.until(lambda: driver._units[DEAD].breaker.is_open)
            await asyncio.sleep(away_s)
            on.line.units[DEAD].dead = False
            back_s = on.clock()
            await on.until(lambda: driver.stats.devices[f"unit_{DEAD}"])
            assert on.clock() - back_s <= 30.0
            assert driver.stats.paused == 0
            assert [state for state, _ in on.sink.links] == [LinkState.CONNECTING, LinkState.UP]

    run_in_virtual_time(story())


def test_a_dead_unit_is_probed_by_one_request_at_a_time_with_growing_pauses() -> None:
    async def story() -> None:
        on = in_memory(19_200)
        async with on.running(*meters(on, (1, DEAD))) as driver:
            cycle_every(0.1, driver.poll)
            await on.present(2)
            on.line.units[DEAD].dead = True
            await on.until(lambda: driver.stats.paused == 1)
            assert driver._units[DEAD].breaker.is_open
            asked = len(on.line.heard)
            await asyncio.sleep(200.0)
            probes = [heard.at_s for heard in on.line.heard[asked:] if heard.unit == DEAD]
            pauses = [after - before for before, after in itertools.pairwise(probes)]
            assert pauses[0] > 4.0
            assert all(pause > 1.5 * before for before, pause in itertools.pairwise(pauses[:3]))
            assert max(pauses) < LONGEST_PAUSE_S + 2.0
            assert len(probes) < 12

    run_in_virtual_time(story())


def test_units_that_all_fall_silent_are_a_lost_line_and_come_back_with_it() -> None:
    async def story() -> None:
        on = in_memory(19_200)
        async with on.running(*meters(on, range(1, 11))) as driver:
            cycle_every(0.1, driver.poll)
            await on.present(10)
            for unit in on.line.units.values():
                unit.dead = True
            await on.until(lambda: driver.stats.state is LinkState.LOST)
            await asyncio.sleep(300.0)
            assert driver.stats.lost == 1
            for unit in on.line.units.values():
                unit.dead = False
            back_s = on.clock()
            await on.until(lambda: all(driver.stats.devices.values()))
            assert on.clock() - back_s < 5.0

    run_in_virtual_time(story())


def batteries(on: LineBench, numbers: Sequence[int], **pace: float) -> list[DeviceBinding]:
    for number in numbers:
        unit = on.line.add(number)
        unit.put(10, struct.pack(">iH", 1500, 550))
        unit.put(20, b"SN42")
        unit.put(100, bytes(4))
        unit.put(110, bytes(2))
    return bind_all(on, battery_profile(**pace), numbers)


def test_the_first_write_after_recovery_is_the_current_setpoint() -> None:
    async def story() -> None:
        on = in_memory(19_200)
        async with on.running(*batteries(on, (1, 2))) as driver:
            cycle_every(0.1, driver.poll)
            await on.present(2)
            driver.write(first := on.setpoint(1000.0, "unit_2"))
            assert (await on.answered(first)).status is STATUS.ACKNOWLEDGED
            on.line.units[2].dead = True
            driver.write(lost := on.setpoint(2000.0, "unit_2"))
            assert (await on.answered(lost)).status is STATUS.INDETERMINATE
            driver.write(short := on.setpoint(2500.0, "unit_2", life_s=2.0))
            assert (await on.answered(short)).status in (STATUS.EXPIRED, STATUS.INDETERMINATE)
            assert on.clock() < short.expires_s + 1.0, "a dead unit's setpoints are answered in time"
            driver.write(current := on.setpoint(3000.0, "unit_2", life_s=1e6))
            await asyncio.sleep(60.0)
            on.line.units[2].dead = False
            on.line.heard.clear()
            await on.until(lambda: len(on.line.written(2)) >= 2)
            assert on.line.written(2)[0] == (100, struct.pack(">i", 3000))
            await asyncio.sleep(1.0)
            told = [result.status for result in on.sink.results if result.sequence == current.sequence]
            assert len(told) == 1

    run_in_virtual_time(story())


def test_a_unit_that_answers_no_write_is_still_read_and_costs_the_others_little() -> None:
    async def story(is_deaf: bool) -> tuple[int, int]:
        on = in_memory(19_200)
        async with on.running(*batteries(on, range(1, 11))) as driver:
            if is_deaf:
                on.line.units[DEAD].always = {16: silence, 6: silence}
            cycle_every(0.1, driver.poll, lambda: driver.write(on.setpoint(1000.0, f"unit_{DEAD}", 2.0)))
            await on.present(10)
            await asyncio.sleep(20.0)
            before = len(on.sink.deliveries)
            await asyncio.sleep(60.0)
            return good_deliveries(on, before), good_deliveries(on, before, *(f"unit_{n}" for n in range(1, DEAD)))

    everybody, itself = run_in_virtual_time(story(True))
    undisturbed, _ = run_in_virtual_time(story(False))
    assert itself > 100
    assert everybody > 0.8 * undisturbed


def test_a_unit_alone_on_its_line_that_answers_no_write_is_still_read() -> None:
    async def story() -> None:
        on = in_memory(19_200)
        async with on.running(*batteries(on, (1,), timeout_s=0.5)) as driver:
            on.line.units[1].always = {16: silence, 6: silence}
            await on.present()
            cycle_every(0.1, driver.poll, lambda: driver.write(on.setpoint(1000.0, "unit_1", 2.0)))
            await asyncio.sleep(60.0)
            good = [samples["power_w"].measured_s for _, samples in on.sink.deliveries if "power_w" in samples]
            assert len(good) > 450
            assert max(after - before for before, after in itertools.pairwise(good)) < 1.5
            assert 5 <= len(on.line.written()) <= 12, "and it is tried again, ever less often"
            assert all(result.status is not STATUS.ACKNOWLEDGED for result in on.sink.results)
            assert len(on.sink.results) > 500, "every setpoint is answered"

    run_in_virtual_time(story())


def test_a_line_saturated_by_writes_is_still_polled() -> None:
    async def story() -> None:
        on = in_memory(9600)
        async with on.running(*batteries(on, range(1, 11))) as driver:
            power_w = iter(range(10**9))

            def write_all() -> None:
                for number in range(1, 11):
                    driver.write(on.setpoint(float(next(power_w) % 9000), f"unit_{number}", 2.0))

            await on.present(10)
            cycle_every(0.1, driver.poll, write_all)
            await asyncio.sleep(30.0)
            polls = good_deliveries(on, 0)
            writes = sum(result.status is STATUS.ACKNOWLEDGED for result in on.sink.results)
            assert polls > 60
            assert writes > 200

    run_in_virtual_time(story())


def test_a_device_that_needs_pauses_does_not_slow_the_others_down() -> None:
    async def story(gap_s: float) -> int:
        on = in_memory(19_200)
        bindings = meters(on, range(1, 10))
        on.line.add(DEAD).put(0, bytes(102))
        slow = on.bind(meter_profile(request_gap_s=gap_s), f"unit_{DEAD}", DEAD)
        async with on.running(*bindings, slow) as driver:
            cycle_every(0.1, driver.poll)
            await on.present(10)
            await asyncio.sleep(10.0)
            before = len(on.sink.deliveries)
            await asyncio.sleep(20.0)
            if gap_s:
                asked = [heard.at_s for heard in on.line.heard if heard.unit == DEAD]
                assert min(after - one for one, after in itertools.pairwise(asked)) >= gap_s
            return good_deliveries(on, before, f"unit_{DEAD}")

    assert run_in_virtual_time(story(1.0)) >= run_in_virtual_time(story(0.0))


def test_a_line_rests_after_a_device_that_needs_it() -> None:
    async def story() -> None:
        on = in_memory(19_200)
        bindings = [*meters(on, (1,)), on.bind(meter_profile(line_gap_s=0.05), "slow", 2)]
        on.line.add(2).put(0, bytes(102))
        async with on.running(*bindings) as driver:
            cycle_every(0.1, driver.poll)
            await on.present(2)
            await asyncio.sleep(5.0)
            turns = list(zip(on.line.heard, on.line.heard[1:], strict=False))
            after_slow = [after.at_s - one.at_s for one, after in turns if one.unit == 2]
            after_other = [after.at_s - one.at_s for one, after in turns if one.unit == 1]
            assert min(after_slow) > 0.05 + 15 * on.line.character_s
            assert min(after_other) < 0.05

    run_in_virtual_time(story())


# Behind a shared Modbus TCP gateway, over real sockets


@pytest.fixture
async def on() -> AsyncIterator[Bench]:
    async with bench() as made:
        fill_battery(made.server)
        yield made


def for_unit(number: int, answer: Callable[[bytes], bytes | None]) -> Callable[[bytes], bytes | None]:
    return lambda frame: answer(frame) if frame[6] == number else frame


def two(on: Bench, **pace: float) -> list[DeviceBinding]:
    return [on.bind(battery_profile(**pace), f"unit_{number}", number) for number in (1, 2)]


async def poll_until(driver: ModbusDriver, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not condition():
            driver.poll()
            await asyncio.sleep(0.005)


async def test_a_silent_unit_behind_a_gateway_does_not_end_the_connection(on: Bench) -> None:
    async with on.running(*two(on, timeout_s=0.05)) as driver:
        await on.present(2)
        on.server.always[3] = for_unit(2, silence)
        await poll_until(driver, lambda: driver.stats.timeouts == 3)
        assert driver.stats.devices == {"unit_1": True, "unit_2": False}
        on.server.asked.clear()
        await poll_until(driver, lambda: len(on.server.asked) > 20)
        assert sum(asked.unit == 2 for asked in on.server.asked) <= 1
        on.server.always.clear()
        await poll_until(driver, lambda: driver.stats.devices["unit_2"])
    assert on.server.connections == 1
    assert driver.stats.lost == 0


async def test_a_late_answer_through_a_gateway_is_known_by_its_transaction(on: Bench) -> None:
    kept: list[bytes] = []

    def keep(frame: bytes) -> bytes | None:
        kept.append(frame[:9] + struct.pack(">i", 7777) + frame[13:])
        return None

    async with on.running(*two(on, timeout_s=0.05)) as driver:
        await on.present(2)
        on.server.answers[3] = [keep]
        await poll_until(driver, lambda: driver.stats.timeouts == 1)
        on.server.answers[3] = [lambda frame: kept[0] + frame]
        before = len(on.sink.deliveries)
        await poll_until(driver, lambda: driver.stats.rejected == 1 and len(on.sink.deliveries) > before + 4)
        told = [samples["power_w"].value for _, samples in on.sink.deliveries if "power_w" in samples]
    assert 7777.0 not in told
    assert on.server.connections == 1


async def test_a_gateway_that_falls_silent_altogether_is_connected_anew(on: Bench) -> None:
    async with on.running(*two(on, timeout_s=0.05)) as driver:
        await on.present(2)
        on.server.always[3] = silence
        await poll_until(driver, lambda: driver.stats.lost == 1)
        on.server.always.clear()
        await on.present(4)
    assert [state for state, _ in on.sink.links].count(LinkState.LOST) == 1


async def test_a_gateway_that_waits_longer_for_its_silent_unit_than_we_do_fails_no_other(on: Bench) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while frame := await reader.readexactly(12):
                if frame[6] == 2:
                    await asyncio.sleep(0.25)
                else:
                    data = bytes(2 * frame[11])
                    writer.write(frame[:4] + struct.pack(">HBBB", 3 + len(data), 1, 3, len(data)) + data)
        writer.transport.abort()
        ended.set()

    ended = asyncio.Event()
    gateway = await asyncio.start_server(serve, "127.0.0.1", 0)
    on.server.port, own = gateway.sockets[0].getsockname()[1], on.server.port
    async with on.running(*two(on, timeout_s=0.1)) as driver:
        await poll_until(driver, lambda: driver._units[2].breaker.is_open)
        assert driver.stats.timeouts >= 3
        told = [samples["power_w"].quality for device, samples in on.sink.deliveries if "power_w" in samples]
        assert set(told) == {Quality.GOOD}
    on.server.port = own
    gateway.close()
    await ended.wait()
    await gateway.wait_closed()


def exception(code: int) -> Callable[[bytes], bytes]:
    return lambda frame: frame[:4] + b"\0\3" + frame[6:7] + bytes((frame[7] | 0x80, code))


@pytest.mark.parametrize("code", [10, 11])
async def test_a_target_that_the_gateway_cannot_reach_opens_its_breaker(on: Bench, code: int) -> None:
    async with on.running(*two(on)) as driver:
        await on.present(2)
        on.server.always[3] = for_unit(2, exception(code))
        await poll_until(driver, lambda: driver._units[2].breaker.is_open)
        assert driver.stats.devices == {"unit_1": True, "unit_2": False}
        on.server.asked.clear()
        await poll_until(driver, lambda: len(on.server.asked) > 20)
        assert sum(asked.unit == 2 for asked in on.server.asked) == 0
    assert driver.stats.timeouts == 0


@pytest.mark.parametrize("code", [5, 6])
async def test_a_busy_device_is_asked_again_and_its_values_stay(on: Bench, code: int) -> None:
    async with on.running(*two(on)) as driver:
        await on.present(2)
        on.server.always[3] = exception(code)
        await poll_until(driver, lambda: driver.stats.exceptions >= 5)
        assert driver.stats.devices == {"unit_1": True, "unit_2": True}
        assert on.sink.is_good("unit_1", "power_w")


async def test_a_device_that_is_busy_when_it_is_found_is_found_later(on: Bench) -> None:
    on.server.answers[3] = [exception(6)]
    async with on.running(on.bind(battery_profile())):
        await on.present()
        assert on.sink.value("unit", "serial") == "SN42"
    assert [present for _, present, _ in on.sink.devices] == [False, True]


async def test_a_write_to_a_busy_device_is_offered_until_it_is_taken(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.answers[16] = [exception(6), exception(6)]
        driver.write(setpoint := on.setpoint(1000.0))
        assert (await on.answered(setpoint)).status is STATUS.ACKNOWLEDGED
    assert [asked.function for asked in on.server.asked if asked.data] == [16, 16, 16, 6]
    assert driver.stats.writes_failed == 0


async def test_a_write_to_a_device_that_stays_busy_expires(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.always[16] = exception(6)
        driver.write(setpoint := on.setpoint(1000.0, life_s=0.5))
        assert (await on.answered(setpoint)).status is STATUS.EXPIRED


@pytest.mark.parametrize("code", [5, 11])
async def test_a_write_whose_end_nobody_knows_is_indeterminate(on: Bench, code: int) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.answers[16] = [exception(code)]
        driver.write(setpoint := on.setpoint(1000.0))
        assert (await on.answered(setpoint)).status is STATUS.INDETERMINATE


async def test_reads_go_on_where_a_single_device_answers_no_write(on: Bench) -> None:
    on.server.always[16] = silence
    async with on.running(on.bind(battery_profile(timeout_s=0.05))) as driver:
        await on.present()
        polls = 0
        ends_s = asyncio.get_running_loop().time() + 1.5
        while asyncio.get_running_loop().time() < ends_s:
            polls += len(driver.poll())
            driver.write(on.setpoint(1000.0, life_s=0.2))
            await asyncio.sleep(0.01)
    assert polls > 30
    assert len(on.server.written()) >= 3


async def test_units_behind_a_device_server_speak_rtu_over_tcp() -> None:
    line = in_memory(115_200, 5.0)
    line.line.add(3).put(0, struct.pack(">i", 4321) + bytes(98))

    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line.line.say = writer.write
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(256):
                line.line.hear(data)
        writer.transport.abort()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = ModbusRtuTcpAddress(driver="modbus_rtu_tcp", host="127.0.0.1", port=port, unit=3)
    line.connect = None
    async with line.running(DeviceBinding("meter", meter_profile(), address, 1e4)):
        await line.until(lambda: "power_w" in line.sink.latest.get("meter", {}))
        assert line.sink.value("meter", "power_w") == 4321.0
    server.close()
    await ended.wait()
    await server.wait_closed()


# The parts


class Poll(Request):
    def failed(self, failure: Failure, detail: str) -> None:
        raise AssertionError


def queued(unit: int, priority: WritePriority) -> Request:
    return Poll(f"{priority.name} of {unit}", unit, priority, 1.0, read_pdu("holding", 0, 1))


def test_every_kind_of_request_has_its_turn() -> None:
    queue = BusQueue(1000, lambda _: True)
    for _ in range(100):
        for priority in WritePriority:
            queue.push(queued(1, priority))
    order = [request.priority for _ in range(60) if (request := queue.pop()) is not None]
    assert order[:6] == [WritePriority.FAIL_SAFE] * 6
    assert order.count(WritePriority.FAIL_SAFE) > 30
    assert all(order.count(priority) >= 3 for priority in WritePriority)


def test_a_unit_that_is_not_ready_lets_others_pass() -> None:
    ready = {2}
    queue = BusQueue(10, ready.__contains__)
    for unit in (1, 2, 1):
        queue.push(queued(unit, WritePriority.FAST_POLL))
    queue.push(queued(1, WritePriority.FAIL_SAFE))
    assert (first := queue.pop()) is not None and first.unit == 2
    assert queue.pop() is None
    assert queue.waiting_units() == {1}
    assert [request.name for request in queue.take_unit(1)] == ["FAIL_SAFE of 1", "FAST_POLL of 1", "FAST_POLL of 1"]
    assert queue.pop() is None


def breaker() -> UnitBreaker:
    return UnitBreaker(random.Random(1), 1.0)


def test_a_breaker_opens_after_three_timeouts_in_a_row_and_not_before() -> None:
    one = breaker()
    assert [one.unanswered(False) for _ in range(3)] == [False, False, True]
    assert one.is_open
    one.answered()
    assert not one.is_open
    assert one.pause_s() == 0.0


def test_a_unit_that_answers_every_other_request_is_left_alone_too() -> None:
    one = breaker()
    opened = False
    for _ in range(5):
        opened = opened or one.unanswered(False)
        one.answered()
    assert opened


def test_a_unit_that_loses_one_answer_in_twenty_is_not() -> None:
    one = breaker()
    for _ in range(100):
        assert not one.unanswered(False)
        for _ in range(19):
            one.answered()


def test_pauses_double_up_to_the_longest_and_begin_again_after_a_while_of_answers() -> None:
    one = breaker()
    for _ in range(3):
        one.unanswered(False)
    pauses = []
    for _ in range(6):
        pauses.append(one.pause_s())
        assert one.unanswered(False)
    assert pauses == sorted(pauses[:4]) + pauses[4:]
    assert all(0.9 * LONGEST_PAUSE_S <= pause <= LONGEST_PAUSE_S for pause in pauses[3:])
    for _ in range(30):
        one.answered()
    for _ in range(3):
        one.unanswered(False)
    assert one.pause_s() <= 4.0


def test_writes_alone_do_not_open_a_breaker() -> None:
    one = breaker()
    assert not any(one.unanswered(True) for _ in range(10))
    assert one.unanswered(False)
    assert one.unanswered(True), "but a write that was the probe keeps it open"
