"""A slow device is read at its own pace, and nobody waits for it: a line at 9,600 baud beside a fast server."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Iterable
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.profile import Profile
from config.site import ModbusTcpAddress, Site
from drivers.modbus.answer_time import AnswerTime
from drivers.modbus.driver import ModbusDriver
from gateway.composition import build_drivers
from gateway.control.model import build_site_model
from gateway.control.orders_in_force import OrdersInForce
from gateway.cycle import ControlCycle
from gateway.image import ImageInbox
from gateway.writer import Writer
from tests.drivers.modbus_server import Bench, battery_profile, bench, fill_battery, make_profile
from tests.drivers.serial_line import LineBench, bind_all, terminal

UNITS = (1, 2, 3)


@pytest.fixture
async def fast() -> AsyncIterator[Bench]:
    async with bench() as made:
        fill_battery(made.server)
        yield made


@pytest.fixture
async def slow() -> AsyncIterator[LineBench]:
    """A profile that reads 60 registers takes 150 ms of this line, three units half a second."""
    async with terminal(9_600) as made:
        for number in UNITS:
            unit = made.line.add(number)
            unit.put(0, struct.pack(">i", 1000 * number) + bytes(120))
            unit.put(100, bytes(4))
        yield made


def long_profile() -> Profile:
    points = {f"value_{at}": {"at": {"address": at}, "poll": "fast"} for at in range(2, 60)}
    power = {"power_w": {"at": {"address": 0, "type": "int32"}, "unit": "W", "poll": "fast"}}
    setpoint = {"setpoint_w": {"at": {"address": 100, "type": "int32"}, "unit": "W", "access": "w"}}
    return make_profile(power | points | setpoint, {"writes": [{"point": "setpoint_w", "quantity": "power_w"}]})


async def test_a_device_that_answers_late_is_polled_and_not_waited_for(slow: LineBench) -> None:
    slow.patience_s = 0.02
    async with slow.running(*bind_all(slow, long_profile(), UNITS)) as driver:
        await slow.present(len(UNITS))
        for _ in range(3):
            before = {name: count(slow, name) for name in driver.devices}
            assert driver.poll() == ()
            await slow.until(lambda before=before: all(count(slow, name) > before[name] for name in before))
    assert slow.sink.value("unit_3", "power_w") == 3000.0


def count(on: LineBench, device: str) -> int:
    return sum(name == device for name, _ in on.sink.deliveries)


async def test_a_device_that_was_late_once_is_waited_for_again(fast: Bench) -> None:
    fast.patience_s = 0.5
    async with fast.running(fast.bind(battery_profile())) as driver:
        await fast.present()
        assert await fast.polled(driver) == ("unit",)
        assert driver.poll() == ("unit",)
        # Ten seconds go by before the answer is looked at.
        fast.now_s += 10.0
        before = len(fast.sink.deliveries)
        await fast.until(lambda: len(fast.sink.deliveries) > before)
        unwaited = 0
        async with asyncio.timeout(5.0):
            while not await one_poll(fast, driver):
                unwaited += 1
        assert 1 <= unwaited <= 20


async def one_poll(on: Bench, driver: ModbusDriver) -> tuple[str, ...]:
    before = len(on.sink.deliveries)
    waited = driver.poll()
    await on.until(lambda: len(on.sink.deliveries) > before)
    return waited


class Waits(ImageInbox):
    """Keeps whom the cycle has waited for."""

    def await_samples(self, devices: Iterable[str]) -> bool:
        self.waited_for.append(frozenset(devices))
        return super().await_samples(self.waited_for[-1])

    waited_for: ClassVar[list[frozenset[str]]] = []


async def test_a_slow_line_does_not_set_the_pace_of_the_cycle(fast: Bench, slow: LineBench) -> None:
    """Cycles of the real path: none of them waits for the line, all of them have what it said last."""
    names = [f"line_{number}" for number in UNITS]
    Waits.waited_for.clear()
    inbox = Waits(lambda _: None, lambda *_: slow.watch.notify())
    cycle = site_cycle(fast, slow, names, inbox)
    running = [asyncio.create_task(driver.run()) for driver in cycle.drivers]
    try:
        await slow.until(lambda: all(all(driver.stats.devices.values()) for driver in cycle.drivers))
        running.append(asyncio.create_task(cycle.run()))
        heard = len(slow.line.heard)
        await slow.until(lambda: len(slow.line.heard) >= heard + 2 * len(UNITS))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert len(Waits.waited_for) >= 3
    assert frozenset().union(*Waits.waited_for) <= {"server"}
    image = inbox.switch(time.monotonic())
    assert [image.devices[name].sample("power_w").value for name in names] == [1000.0, 2000.0, 3000.0]


def site_cycle(fast: Bench, slow: LineBench, names: list[str], inbox: ImageInbox) -> ControlCycle:
    server = ModbusTcpAddress(driver="modbus_tcp", host="127.0.0.1", port=fast.server.port, unit=1)
    addresses = {"server": server} | {
        name: slow.bind(long_profile(), unit=number).address for name, number in zip(names, UNITS, strict=True)
    }
    site = Site.model_validate(
        {
            "site": "yard",
            "connection": {"rating_w": 50_000, "meter": "server"},
            "fallback": {"net_import_w": "unlimited", "net_export_w": "unlimited"},
            "control": {"period_ms": 100},
            "devices": {
                name: {"profile": "test", "address": address.model_dump(), "rating_w": 10_000, "capacity_wh": 10_000}
                for name, address in addresses.items()
            },
        }
    )
    profiles = {"server": battery_profile()} | dict.fromkeys(names, long_profile())
    clock = time.monotonic
    drivers = build_drivers(site, profiles, inbox, clock, addresses, dict.fromkeys(addresses, True))
    by_device = {device: driver for driver in drivers for device in driver.devices}
    writer = Writer(by_device, {}, clock, 1.0, lambda *_: None, observe=True)
    model = build_site_model(site, profiles)
    return ControlCycle(model, drivers, inbox, writer, clock, 0.1, OrdersInForce, lambda _: None)


@given(times_s=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=30))
def test_who_always_answers_in_time_is_waited_for_and_who_never_does_is_not(times_s: list[float]) -> None:
    now_s = 0.0
    patience_s = 1.0
    answers = AnswerTime(lambda: now_s, patience_s)
    assert answers.come_soon
    for took_s in times_s:
        answers.asked()
        now_s += took_s
        answers.answered()
    if max(times_s) < patience_s:
        assert answers.come_soon
    if min(times_s) > patience_s * (1 + 1e-9):
        assert not answers.come_soon
