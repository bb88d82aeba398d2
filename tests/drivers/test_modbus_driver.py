"""The Modbus driver on a device that behaves: reading, writing, order and expiry, over real sockets."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator

import pytest

from config.vocabulary import LinkState, Quality, WritePriority, WriteStatus
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.read_plan import PlanError
from tests.drivers.modbus_server import (
    Asked,
    Bench,
    battery_profile,
    bench,
    fill_battery,
    make_profile,
    silence,
)

STATUS = WriteStatus


@pytest.fixture
async def on() -> AsyncIterator[Bench]:
    async with bench() as made:
        fill_battery(made.server)
        yield made


def setpoint_bytes(power_w: int) -> bytes:
    return struct.pack(">i", power_w)


async def test_a_device_is_read_when_it_connects_and_with_every_poll(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        assert on.sink.value("unit", "serial") == "SN42"
        assert on.sink.value("unit", "power_w") == 1500.0
        assert on.sink.links == [(LinkState.CONNECTING, ""), (LinkState.UP, "")]
        assert on.sink.devices == [("unit", True, "answers")]
        on.server.put(10, struct.pack(">iH", -2500, 560))
        before_s = time.monotonic()
        assert await on.polled(driver) == ("unit",)
        power = on.sink.latest["unit"]["power_w"]
        assert (power.value, power.quality) == (-2500.0, Quality.GOOD)
        assert before_s <= power.measured_s <= time.monotonic()
        assert on.sink.value("unit", "soc") == 0.56
        assert driver.stats.devices == {"unit": True}


async def test_points_that_adjoin_are_read_by_one_request(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.asked.clear()
        await on.polled(driver)
    assert on.server.asked == [Asked(1, 1, 3, 10, 3)]


async def test_a_poll_that_is_still_under_way_is_not_started_again(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        assert driver.poll() == ("unit",)
        assert driver.poll() == ()
        await on.until(lambda: len(on.server.asked) == 3)


async def test_slow_points_come_by_themselves(on: Bench) -> None:
    points = {
        "power_w": {"at": {"address": 10, "type": "int32"}, "unit": "W", "poll": "fast"},
        "soc": {"at": {"address": 12}, "unit": "pu", "scale": 0.001, "poll": "slow"},
    }
    async with on.running(on.bind(make_profile(points, slow_poll_s=0.02))):
        await on.present()
        on.server.put(12, struct.pack(">H", 500))
        await on.until(lambda: on.sink.value("unit", "soc") == 0.5)


async def write(on: Bench, driver: ModbusDriver, power_w: float, device: str = "unit") -> WriteStatus:
    setpoint = on.setpoint(power_w, device)
    driver.write(setpoint)
    return (await on.answered(setpoint)).status


async def test_a_setpoint_is_written_in_order_and_answered_once(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        assert await write(on, driver, -4200.0) is STATUS.ACKNOWLEDGED
    assert on.server.written() == [(100, setpoint_bytes(-4200)), (110, b"\0\1")]
    assert [asked.function for asked in on.server.asked if asked.data] == [16, 6]
    assert len(on.sink.results) == 1
    assert driver.stats.writes_acknowledged == 1


async def test_adjoining_registers_are_written_by_one_request_and_unchanged_ones_left_out(on: Bench) -> None:
    points = {
        "power_w": {"at": {"address": 10, "type": "int32"}, "unit": "W", "poll": "fast"},
        "mode": {"at": {"address": 99}, "access": "w"},
        "setpoint_w": {"at": {"address": 100, "type": "int32"}, "unit": "W", "access": "w"},
    }
    writes = [{"point": "mode", "value": 1, "when_changed": True}, {"point": "setpoint_w", "quantity": "power_w"}]
    on.server.put(99, bytes(2))
    async with on.running(on.bind(make_profile(points, {"writes": writes}))) as driver:
        await on.present()
        await write(on, driver, 100.0)
        await write(on, driver, 200.0)
        on.server.reset()
        await on.present(2)
        await on.until(lambda: len(on.server.written()) == 3)
    assert on.server.written() == [
        (99, b"\0\1" + setpoint_bytes(100)),
        (100, setpoint_bytes(200)),
        (99, b"\0\1" + setpoint_bytes(200)),
    ]


async def test_a_device_that_is_to_be_written_whole_gets_what_had_not_changed_too(on: Bench) -> None:
    points = {
        "power_w": {"at": {"address": 10, "type": "int32"}, "unit": "W", "poll": "fast"},
        "mode": {"at": {"address": 99}, "access": "w"},
        "setpoint_w": {"at": {"address": 100, "type": "int32"}, "unit": "W", "access": "w"},
    }
    writes = [{"point": "mode", "value": 1, "when_changed": True}, {"point": "setpoint_w", "quantity": "power_w"}]
    on.server.put(99, bytes(2))
    async with on.running(on.bind(make_profile(points, {"writes": writes}))) as driver:
        await on.present()
        await write(on, driver, 100.0)
        driver.forget("unit")
        driver.forget("nobody")
        await write(on, driver, 100.0)
        await write(on, driver, 100.0)
    whole = (99, b"\0\1" + setpoint_bytes(100))
    assert on.server.written() == [whole, whole, (100, setpoint_bytes(100))]


async def test_the_functions_that_a_profile_asks_for_are_used(on: Bench) -> None:
    points = {
        "power_w": {"at": {"address": 10, "table": "input"}, "unit": "W", "poll": "fast"},
        "setpoint_w": {"at": {"address": 100}, "unit": "W", "access": "w"},
    }
    profile = make_profile(points, {"writes": [{"point": "setpoint_w", "value": 7}]}, write_function="multiple")
    async with on.running(on.bind(profile)) as driver:
        await on.present()
        await write(on, driver, 0.0)
    assert {asked.function for asked in on.server.asked} == {4, 16}


async def test_nothing_is_written_before_the_device_has_been_read(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        driver.write(setpoint := on.setpoint(1000.0))
        assert (await on.answered(setpoint)).status is STATUS.ACKNOWLEDGED
    first_write = next(at for at, asked in enumerate(on.server.asked) if asked.data)
    assert Asked(1, 1, 3, 10, 3) in on.server.asked[:first_write]


async def test_writes_go_before_polls(on: Bench) -> None:
    others = [on.bind(battery_profile(), f"unit_{number}", number) for number in (2, 3)]
    async with on.running(on.bind(battery_profile()), *others) as driver:
        await on.present(3)
        on.server.asked.clear()
        assert set(driver.poll()) == {"unit", "unit_2", "unit_3"}
        driver.write(setpoint := on.setpoint(500.0, "unit_3"))
        driver.write(urgent := on.setpoint(0.0, "unit_2")._replace(priority=WritePriority.FAIL_SAFE))
        await on.answered(setpoint)
        await on.answered(urgent)
        await on.until(lambda: len(on.server.asked) == 7)
    assert [(asked.unit, asked.function) for asked in on.server.asked] == [
        (1, 3), (2, 16), (2, 6), (3, 16), (3, 6), (2, 3), (3, 3),
    ]  # fmt: skip


async def test_the_newest_setpoint_supersedes_one_that_has_not_begun(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        begun, waits, newest = (on.setpoint(power_w) for power_w in (100.0, 200.0, 300.0))
        for setpoint in (begun, waits, newest):
            driver.write(setpoint)
        await on.answered(newest)
    assert on.sink.statuses() == [
        (waits.sequence, STATUS.SUPERSEDED),
        (begun.sequence, STATUS.ACKNOWLEDGED),
        (newest.sequence, STATUS.ACKNOWLEDGED),
    ]
    assert [data for address, data in on.server.written() if address == 100] == [
        setpoint_bytes(100),
        setpoint_bytes(300),
    ]


async def test_a_setpoint_that_expired_while_it_waited_is_not_sent(on: Bench) -> None:
    async with on.running(on.bind(battery_profile()), on.bind(battery_profile(), "other", 2)) as driver:
        await on.present(2)
        driver.write(on.setpoint(100.0, "other"))
        driver.write(late := on.setpoint(200.0, life_s=5.0))
        on.now_s += 10.0
        result = await on.answered(late)
    assert result.status is STATUS.EXPIRED
    assert all(asked.unit == 2 for asked in on.server.asked if asked.data)


async def test_a_setpoint_that_expires_half_way_is_indeterminate(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()

        def take_long(frame: bytes) -> bytes:
            on.now_s += 10.0
            return frame

        on.server.answers[16] = [take_long]
        driver.write(setpoint := on.setpoint(100.0, life_s=5.0))
        result = await on.answered(setpoint)
    assert (result.status, result.detail) == (STATUS.INDETERMINATE, "expired after 1 of 2 requests")


async def test_a_setpoint_for_a_link_that_never_comes_up_expires(on: Bench) -> None:
    await on.server.stop()
    async with on.running(on.bind(battery_profile())) as driver:
        driver.write(setpoint := on.setpoint(100.0, life_s=0.05))
        assert (await on.answered(setpoint)).status is STATUS.EXPIRED
        state, reason = on.sink.links[-1]
        assert state is LinkState.LOST
        assert reason.startswith("Connection refused: ")
    await on.server.start()


async def test_a_read_only_device_is_never_written(on: Bench) -> None:
    async with on.running(on.bind(battery_profile(), writable=False)) as driver:
        await on.present()
        driver.write(setpoint := on.setpoint(100.0))
        assert (await on.answered(setpoint)).detail == "read-only"
        await driver.rest(1.0)
        await on.polled(driver)
    assert on.server.written() == []


@pytest.mark.parametrize("power_w", [9500.0, float("nan"), float("inf")])
async def test_what_the_device_cannot_take_is_refused_before_anything_is_sent(on: Bench, power_w: float) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        assert await write(on, driver, power_w) is STATUS.REFUSED
        assert await write(on, driver, 0.0, "stranger") is STATUS.REFUSED
    assert on.server.written() == []


async def test_a_setpoint_beyond_the_rating_is_written_as_the_rating(on: Bench) -> None:
    async with on.running(on.bind(battery_profile(), rating_w=5000.0)) as driver:
        await on.present()
        await write(on, driver, -8000.0)
    assert (100, setpoint_bytes(-5000)) in on.server.written()


async def test_rest_writes_the_rest_state_and_refuses_what_comes_after(on: Bench) -> None:
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        await write(on, driver, 3000.0)
        await driver.rest(2.0)
        assert await write(on, driver, 4000.0) is STATUS.REFUSED
    assert on.server.written()[-2:] == [(100, setpoint_bytes(0)), (110, b"\0\0")]


async def test_rest_waits_no_longer_than_it_is_told(on: Bench) -> None:
    async with on.running(on.bind(battery_profile(timeout_s=30.0))) as driver:
        await on.present()
        on.server.always[16] = silence
        begun_s = time.monotonic()
        await driver.rest(0.05)
        assert time.monotonic() - begun_s < 2.0


async def test_any_transport_will_do(on: Bench) -> None:
    """The connector is the seam for other transports: here one that counts, over the same loop."""
    made = []

    async def connect(factory):  # type: ignore[no-untyped-def]
        made.append(factory)
        return await asyncio.get_running_loop().create_connection(factory, "127.0.0.1", on.server.port)

    driver = ModbusDriver("link", [on.bind(battery_profile())], on.sink, on.clock, connect=connect)
    async with asyncio.timeout(5.0), asyncio.TaskGroup() as group:
        task = group.create_task(driver.run())
        await on.present()
        task.cancel()
    assert len(made) == 1


async def test_a_profile_that_no_request_can_serve_is_refused(on: Bench) -> None:
    wide = make_profile({"power_w": {"at": {"address": 0, "type": "int64"}, "unit": "W"}}, max_registers=2)
    with pytest.raises(PlanError, match="profile test, point power_w: 4 registers at 0"):
        ModbusDriver("link", [on.bind(wide)], on.sink, on.clock)
    points = {
        "power_w": {"at": {"address": 0}, "unit": "W"},
        "set_w": {"at": {"address": 1, "type": "int32"}, "access": "w"},
    }
    with pytest.raises(PlanError, match="function 6"):
        ModbusDriver("link", [on.bind(make_profile(points, write_function="single"))], on.sink, on.clock)


async def test_points_that_share_registers_are_all_decoded(on: Bench) -> None:
    points = {
        "power_w": {"at": {"address": 10, "type": "int32"}, "unit": "W", "poll": "fast"},
        "low_word": {"at": {"address": 11}, "poll": "fast"},
        "flags": {"at": {"address": 11, "type": "bits16"}, "poll": "fast"},
        "swapped": {"at": {"address": 10, "type": "uint32", "word_order": "little"}, "poll": "fast"},
    }
    on.server.put(10, struct.pack(">i", 0x00010002))
    async with on.running(on.bind(make_profile(points))):
        await on.present()
        assert {name: on.sink.value("unit", name) for name in points} == {
            "power_w": 0x00010002,
            "low_word": 2,
            "flags": 2,
            "swapped": 0x00020001,
        }


async def test_a_device_that_needs_pauses_is_served(on: Bench) -> None:
    async with on.running(on.bind(battery_profile(connect_pause_s=0.01, request_gap_s=0.002))) as driver:
        await on.present()
        assert await on.polled(driver) == ("unit",)
        assert await write(on, driver, 100.0) is STATUS.ACKNOWLEDGED
