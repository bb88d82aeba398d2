"""The Modbus driver behind the proxy: under each fault no wrong value becomes a sample, and afterwards all is well."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from config.profile import Profile
from config.site import ModbusTcpAddress
from config.vocabulary import LinkState, Quality, Setpoint, WriteStatus
from drivers.binding import DeviceBinding
from drivers.modbus.driver import ModbusDriver
from sim_devices.faults import FAULTS, TcpFaultProxy
from sim_devices.faults.registry import EXCEPTION_CODES, MODBUS_TCP
from tests.drivers.modbus_server import Bench, bench, make_profile

POWER_W, OTHER_W = 1500.0, -7777.0
TIMEOUT_S = 0.03

FAULTS_OF_FRAMES: list[tuple[str, dict[str, Any]]] = [
    *[("exception", {"code": code}) for code in EXCEPTION_CODES],
    ("no_answer", {}),
    ("no_answer", {"direction": "request"}),
    ("wrong_unit", {}),
    ("wrong_unit", {"as_unit": 2}),
    ("wrong_function", {}),
    ("wrong_function", {"as_function": 16}),
    ("wrong_transaction", {}),
    ("wrong_transaction", {"by": -1}),
    ("wrong_length", {}),
    ("wrong_length", {"by": -2}),
    ("wrong_length", {"by": 2000}),
    ("wrong_count", {}),
    ("wrong_count", {"by": -1}),
    ("truncated", {}),
    ("truncated", {"keep": 1}),
    ("extra_bytes", {}),
    ("extra_bytes", {"size": 300}),
    ("late_answer", {}),
    ("duplicate", {}),
    ("reorder", {}),
]
FAULTS_OF_LINKS: list[tuple[str, dict[str, Any]]] = [
    ("black_hole", {}),
    ("cut", {}),
    ("cut", {"direction": "request"}),
    ("stall", {}),
    ("half_open", {}),
    ("reset", {}),
    ("refuse", {}),
    ("latency", {"delay_s": 0.02, "jitter_s": 0.03}),
    ("bandwidth", {"bytes_per_s": 2000.0}),
    ("slicing", {"size": 1, "gap_s": 0.0005}),
]


def two_block_profile(timeout_s: float = TIMEOUT_S) -> Profile:
    """Two values of the same size in two requests, so that one could be taken for the other; and a setpoint."""
    return make_profile(
        {
            "power_w": {"at": {"address": 10, "type": "int32"}, "unit": "W", "poll": "fast"},
            "other_w": {"at": {"address": 500, "type": "int32"}, "unit": "W", "poll": "fast"},
            "setpoint_w": {"at": {"address": 100, "type": "int32"}, "unit": "W", "access": "w", "range": [-9e3, 9e3]},
        },
        {
            "writes": [{"point": "setpoint_w", "quantity": "power_w"}],
            "rest": [{"point": "setpoint_w", "value": 0}],
        },
        timeout_s=timeout_s,
    )


class Site:
    """A device behind a proxy with faults, and another, on a link of its own, behind a proxy without."""

    def __init__(self, on: Bench, proxy: TcpFaultProxy, faulty: ModbusDriver, sound: ModbusDriver) -> None:
        self.on = on
        self.proxy = proxy
        self.faulty = faulty
        self.sound = sound

    def wrong(self) -> list[object]:
        """Every sample so far that is no value of the device."""
        right = {"power_w": POWER_W, "other_w": OTHER_W}
        return [
            sample
            for _, samples in self.on.sink.deliveries
            for name, sample in samples.items()
            if sample.quality is not Quality.BAD and sample.value != right[name]
        ]

    async def cycles(self, count: int) -> None:
        """Poll both links, each cycle waiting for the sound one's answer, which must be good."""
        for _ in range(count):
            self.faulty.poll()
            told = self._told("sound")
            assert self.sound.poll() == ("sound",)
            await self.on.until(lambda told=told: self._told("sound") > told)
            assert self.on.sink.is_good("sound", "power_w")

    async def served(self) -> None:
        """Poll until the faulty device gives good values again."""
        async with asyncio.timeout(10):
            while True:
                told = self._told("faulty")
                await self.cycles(1)
                if self._told("faulty") > told and self.on.sink.is_good("faulty", "power_w"):
                    return
                await asyncio.sleep(0.005)

    async def acknowledged(self, setpoint: Setpoint) -> None:
        """Poll until the faulty device has taken a setpoint."""
        async with asyncio.timeout(10):
            while (setpoint.sequence, WriteStatus.ACKNOWLEDGED) not in self.on.sink.statuses():
                await self.cycles(1)
                await asyncio.sleep(0.005)

    def _told(self, device: str) -> int:
        return sum(name == device for name, _ in self.on.sink.deliveries)


@asynccontextmanager
async def site(seed: int = 0) -> AsyncIterator[Site]:
    async with bench() as on:
        on.server.put(10, struct.pack(">i", int(POWER_W)))
        on.server.put(500, struct.pack(">i", int(OTHER_W)))
        on.server.put(100, bytes(4))
        proxies = [TcpFaultProxy(("127.0.0.1", on.server.port), seed=seed) for _ in range(2)]
        for proxy in proxies:
            await proxy.listen()
        try:
            faulty, sound = (
                DeviceBinding(
                    name,
                    two_block_profile(timeout_s),
                    ModbusTcpAddress(driver="modbus_tcp", host=proxy.host, port=proxy.port, unit=1),
                    10_000.0,
                )
                for name, proxy, timeout_s in zip(("faulty", "sound"), proxies, (TIMEOUT_S, 2.0), strict=True)
            )
            async with on.running(faulty) as first, on.running(sound) as second:
                await on.present(2)
                yield Site(on, proxies[0], first, second)
        finally:
            for proxy in proxies:
                await proxy.close()


async def lived_through(it: Site, faults: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Some time under the faults, with polls and a write, and the time after."""
    for name, options in faults:
        it.proxy.faults.set(name, **options)
    # Short-lived, so that it is not written again on every new connection: that makes a driver hold off its writes.
    it.faulty.write(it.on.setpoint(1234.0, "faulty", life_s=TIMEOUT_S))
    until_s = asyncio.get_running_loop().time() + 5 * TIMEOUT_S
    while asyncio.get_running_loop().time() < until_s:
        await it.cycles(1)
        await asyncio.sleep(0.002)
    it.proxy.faults.clear()
    await it.served()
    assert it.wrong() == []
    assert it.faulty.stats.state is LinkState.UP
    assert it.sound.stats.lost == it.sound.stats.timeouts == it.sound.stats.rejected == 0
    again = it.on.setpoint(-4321.0, "faulty")
    it.faulty.write(again)
    await it.acknowledged(again)
    assert it.on.server.read(100, 2) == struct.pack(">i", -4321)


@pytest.mark.parametrize(
    ("name", "options"),
    FAULTS_OF_FRAMES + FAULTS_OF_LINKS,
    ids=lambda value: value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items()),
)
async def test_the_driver_lives_through_a_fault_and_takes_no_wrong_value(name: str, options: dict[str, Any]) -> None:
    async with site() as it:
        await lived_through(it, [(name, options)])
        (fault,) = it.proxy.faults.as_json()
        assert fault["acted"] > 0 or name == "refuse"


@pytest.mark.parametrize("seed", range(3))
async def test_the_driver_lives_through_all_faults_of_frames_by_chance(seed: int) -> None:
    async with site(seed) as it:
        await lived_through(it, [(name, {**options, "probability": 0.1}) for name, options in FAULTS_OF_FRAMES])


def test_every_fault_of_modbus_tcp_is_lived_through() -> None:
    usable = {name for name, kind in FAULTS.items() if MODBUS_TCP in kind.applies_to and not kind.understands}
    assert {name for name, _ in FAULTS_OF_FRAMES + FAULTS_OF_LINKS} == usable


async def test_a_write_that_stalls_lands_after_the_driver_has_given_it_up() -> None:
    async with site() as it:
        it.proxy.faults.set("stall", direction="request")
        setpoint = it.on.setpoint(1234.0, "faulty", life_s=0.01)
        it.faulty.write(setpoint)
        assert (await it.on.answered(setpoint)).status is WriteStatus.INDETERMINATE
        assert it.on.server.read(100, 2) == bytes(4)
        it.proxy.faults.clear()
        await it.on.until(lambda: it.on.server.read(100, 2) == struct.pack(">i", 1234))
        await it.served()


async def test_a_check_of_these_tests_a_wrong_value_would_be_noticed() -> None:
    async with site() as it:
        it.on.server.put(10, struct.pack(">i", 42))
        await it.cycles(1)
        await it.served()
        assert it.wrong()
        assert not math.isnan(it.on.sink.latest["faulty"]["power_w"].measured_s)
