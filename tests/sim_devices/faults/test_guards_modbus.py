"""What the gateway's checks of Modbus are good for: with each of them taken out, its fault does harm.

Where a check is out, what is waited for can't come, so that a short wait shows it; where it is in, the wait is long.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import pytest

from config.profile import Profile
from config.site import ModbusRtuTcpAddress, ModbusTcpAddress
from config.vocabulary import POWER_W, Quality, WriteStatus
from drivers.backoff import Backoff
from drivers.binding import DeviceBinding
from drivers.encoding import ValueCodec
from drivers.modbus import driver as driver_module
from drivers.modbus import rtu_framing
from drivers.modbus.block import ScaleFactor
from drivers.modbus.connection import Connection
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.framing import TcpFraming
from drivers.modbus.request import Failure
from drivers.modbus.setpoint_writer import SetpointWriter
from gateway.image import DeviceImage, Image
from gateway.readback import SETTLE_S, ReadBackWatch
from sim_devices.faults.modbus_speech import ModbusUnderstanding
from sim_devices.faults.registry import MODBUS_RTU_TCP, MODBUS_TCP
from tests.drivers.modbus_server import Bench, sunspec_map
from tests.sim_devices.faults.field import Field, Memory, field
from tests.sim_devices.faults.sites import known, register_profile, shipped, target
from tests.sim_devices.faults.test_driver_survives import Site, site

LONG_S, SHORT_S = 10.0, 0.4
POLLS = 12
MOST_W = 20_000.0
"""The range of the power in the tests' profile."""


Out: TypeAlias = Callable[[pytest.MonkeyPatch], None]
"""Takes a check out."""


class Guard(NamedTuple):
    """A fault, the check that keeps its harm away, and the harm: told how long to wait for what may not come."""

    fault: str
    options: dict[str, Any]
    check: str
    out: Out
    harm: Callable[[str, dict[str, Any], float], Awaitable[bool]]


class TrustingFraming(TcpFraming):
    """Takes any whole frame for the reply that is due."""

    def feed(self, data: bytes) -> bytes | None:
        self._buffer += data
        end = 6 + int.from_bytes(self._buffer[4:6])
        if len(self._buffer) < 7 or len(self._buffer) < end:
            return None
        reply, self._buffer = self._buffer[7:end], self._buffer[end:]
        return reply


class GreedyFraming(TcpFraming):
    """Takes whatever comes for a whole frame."""

    def feed(self, data: bytes) -> bytes | None:
        return data[7:]


class ForgetfulFraming(TcpFraming):
    """Doesn't wait for the rest of a frame."""

    def feed(self, data: bytes) -> bytes | None:
        self._buffer = b""
        return super().feed(data)


def without(framing: type[TcpFraming], *more: Out) -> Out:
    """The check of frames is out."""

    def out(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(driver_module, "TcpFraming", framing)
        for other in more:
            other(patch)

    return out


def any_reply_counts(patch: pytest.MonkeyPatch) -> None:
    """A reply is taken as it is, whatever it answers and however long it is."""

    def take(self: Any, data: bytes) -> None:
        reply, request = self._framing.feed(data), self._in_flight
        if reply is not None and request is not None:
            if self._on_first_reply is not None:
                self._first_reply()
            due = request.pdu.reply_length
            request.succeeded(reply.ljust(due, b"\0")[:due])
            self._next()

    patch.setattr(Connection, "data_received", take)


def nothing_times_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connection, "_look", lambda self: None)


def time_outs_leave_the_connection(patch: pytest.MonkeyPatch) -> None:
    def go_on(self: Any, request: Any) -> None:
        self._in_flight = None
        request.failed(Failure.UNANSWERED, "time-out")
        self._send_next()

    patch.setattr(Connection, "_timed_out", go_on)


def nobody_reconnects(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backoff, "pause_s", lambda self: 1e6)


def any_check_sum_is_right(patch: pytest.MonkeyPatch) -> None:
    class Right(bytes):
        __hash__ = bytes.__hash__

        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

    right = rtu_framing.check_sum
    patch.setattr(rtu_framing, "check_sum", lambda data: Right(right(data)))


def any_number_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ValueCodec, "decode", lambda self, raw: raw * self.gain + self.offset)


def scale_factors_are_read_once(patch: pytest.MonkeyPatch) -> None:
    update = ScaleFactor.update
    patch.setattr(ScaleFactor, "update", lambda self, raw: update(self, raw) if self.exponent is None else None)


def no_setpoint_outlasts_its_connection(patch: pytest.MonkeyPatch) -> None:
    begin = SetpointWriter.begin

    def anew(self: Any, *arguments: Any) -> None:
        self._current = self._pending = None
        begin(self, *arguments)

    patch.setattr(SetpointWriter, "begin", anew)


def nobody_looks_at_read_backs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReadBackWatch, "_of", lambda *_: iter(()))


# Harms


async def a_wrong_value(fault: str, options: dict[str, Any], _: float) -> bool:
    """A value that the device never had becomes a good sample."""
    async with site() as it:
        await polled_under(it, fault, options)
        return bool(it.wrong())


async def a_foreign_answer(fault: str, options: dict[str, Any], _: float) -> bool:
    """An answer that isn't the right one's becomes a good sample."""
    async with site() as it:
        before = it.faulty.stats.good
        await polled_under(it, fault, options)
        return it.faulty.stats.good > before or bool(it.wrong())


async def polled_under(it: Site, fault: str, options: dict[str, Any]) -> None:
    """Some polls under a fault, and some after it."""
    it.proxy.faults.set(fault, **options)
    for _ in range(POLLS):
        await it.cycles(1)
        await asyncio.sleep(0.004)


async def never_told(fault: str, options: dict[str, Any], wait_s: float) -> bool:
    """Nobody learns what has become of a setpoint."""
    async with site() as it:
        it.proxy.faults.set(fault, **options)
        setpoint = it.on.setpoint(1234.0, "faulty")
        it.faulty.write(setpoint)
        return not await came(
            lambda: any(told.sequence == setpoint.sequence for told in it.on.sink.results), wait_s, it.faulty
        )


async def never_back(fault: str, options: dict[str, Any], wait_s: float) -> bool:
    """The device is not served again once the fault is over."""
    async with site() as it:
        it.proxy.faults.set(fault, **options)
        if fault == "refuse":
            it.proxy.faults.set("reset")
        await it.cycles(3)
        it.proxy.faults.clear()
        before = it.faulty.stats.good
        # Requests that were under way when the fault ended may still be answered.
        return not await came(lambda: it.faulty.stats.good > before + 4, wait_s, it.faulty)


async def never_served(fault: str, options: dict[str, Any], wait_s: float) -> bool:
    """The device is not served while the fault lasts, although all its bytes arrive."""
    async with site() as it:
        it.proxy.faults.set(fault, **options)
        before = it.faulty.stats.good
        return not await came(lambda: it.faulty.stats.good > before, wait_s, it.faulty)


async def came(condition: Callable[[], bool], wait_s: float, driver: ModbusDriver) -> bool:
    """Whether something comes while a device is polled."""
    try:
        async with asyncio.timeout(wait_s):
            while not condition():
                driver.poll()
                await asyncio.sleep(0.002)
    except TimeoutError:
        return False
    return True


class Device(NamedTuple):
    """A device of a profile behind a proxy that understands it, and the driver that polls it."""

    bench: Bench
    driver: ModbusDriver
    on: Field
    unit: Memory
    binding: DeviceBinding

    def set(self, fault: str, options: dict[str, Any]) -> None:
        self.on.proxy.faults.set_by(fault, options, target(known(self.binding.profile, driver=self.on.protocol)))

    async def poll(self) -> None:
        told = len(self.bench.sink.deliveries)
        if self.driver.poll():
            await self.bench.until(lambda: len(self.bench.sink.deliveries) > told)

    def good(self, point: str, since: int) -> list[Any]:
        """The good values of a point since a delivery."""
        told = [samples[point] for _, samples in self.bench.sink.deliveries[since:] if point in samples]
        return [sample.value for sample in told if sample.quality is Quality.GOOD]


@asynccontextmanager
async def device(profile: Profile, contents: dict[int, bytes], protocol: str = MODBUS_TCP) -> AsyncIterator[Device]:
    unit = Memory(contents)
    understanding = ModbusUnderstanding(protocol, [known(profile, driver=protocol)])
    async with field(protocol, unit=unit, understanding=understanding) as on:
        make = ModbusTcpAddress if protocol == MODBUS_TCP else ModbusRtuTcpAddress
        address = make(driver=protocol, host=on.proxy.host, port=on.proxy.port, unit=1)  # type: ignore[arg-type]
        binding = DeviceBinding("unit", profile, address, 10_000.0)
        bench = Bench()
        async with bench.running(binding) as driver:
            await bench.present()
            yield Device(bench, driver, on, unit, binding)


PLAIN = {10: struct.pack(">iHHf", 1500, 550, 1, 50.0), 20: b"SN42"}


def a_bad_number(point: str, pause_s: float = 0.0) -> Callable[[str, dict[str, Any], float], Awaitable[bool]]:
    """A point reads what the device never had, as if it were good."""

    async def harm(fault: str, options: dict[str, Any], _: float) -> bool:
        async with device(register_profile(), PLAIN) as it:
            it.set(fault, options)
            since = len(it.bench.sink.deliveries)
            for turn in range(POLLS):
                it.unit.put(10, struct.pack(">i", 1500 if turn % 2 else -1500))
                await it.poll()
                await asyncio.sleep(pause_s)
            return any(math.isnan(value) or abs(value) > MOST_W for value in it.good(point, since))

    return harm


async def a_wrong_scale(fault: str, options: dict[str, Any], _: float) -> bool:
    """A value is ten times too small."""
    values = {"W": 1500, "W_SF": 0, "A_SF": 0, "V_SF": 0, "Hz_SF": 0, "WH_SF": 0}
    models = sunspec_map([(1, {}), (103, values), (120, {}), (122, {}), (123, {"WMaxLimPct_SF": 0})])
    async with device(shipped("sunspec_inverter"), {40_000: models}) as it:
        await it.poll()
        (true,) = set(it.good(POWER_W, 0))
        it.set(fault, options)
        since = len(it.bench.sink.deliveries)
        for _ in range(POLLS):
            await it.poll()
        return set(it.good(POWER_W, since)) - {true} != set()


async def an_unnoticed_write(fault: str, options: dict[str, Any], _: float) -> bool:
    """Nobody notices that the device does not do what it has acknowledged."""
    async with device(register_profile(), PLAIN) as it:
        watch = ReadBackWatch([it.binding])
        if fault != "reversion":
            it.set(fault, options)
        setpoint = it.bench.setpoint(9_000.0, "unit")
        it.driver.write(setpoint)
        result = await it.bench.answered(setpoint)
        assert result.status is WriteStatus.ACKNOWLEDGED
        watch.acknowledged("unit", 9_000.0, result.at_s)
        if fault == "reversion":
            it.set(fault, options)
        it.bench.now_s += 2 * SETTLE_S
        await it.poll()
        await it.poll()
        image = Image(it.bench.clock(), MappingProxyType({"unit": DeviceImage(it.bench.sink.latest["unit"], True)}))
        return watch.look(image) == []


async def a_forgotten_setpoint(fault: str, options: dict[str, Any], wait_s: float) -> bool:
    """A device that was away and came back with its defaults is left with them."""
    async with device(register_profile(), PLAIN) as it:
        setpoint = it.bench.setpoint(3_000.0, "unit")
        it.driver.write(setpoint)
        await it.bench.answered(setpoint)
        it.set(fault, {"down_s": 0.02, **options})
        # The defaults are there: what the driver has written before is followed by two registers on their own.
        await it.on.until(lambda: len(it.unit.written) >= 3)
        return not await came(lambda: it.unit.get(100, 1) == struct.pack(">h", 3_000), wait_s, it.driver)


async def a_broken_check_sum(fault: str, options: dict[str, Any], _: float) -> bool:
    """An answer whose check sum is wrong becomes a good sample."""
    async with device(register_profile(), PLAIN, MODBUS_RTU_TCP) as it:
        it.set(fault, options)
        since = len(it.bench.sink.deliveries)
        for _ in range(4):
            it.driver.poll()
            await asyncio.sleep(0.01)
        return bool(it.good(POWER_W, since))


REPLIES = without(TrustingFraming, any_reply_counts)
GREEDY = without(GreedyFraming, any_reply_counts)
LATE = without(TrustingFraming, any_reply_counts, time_outs_leave_the_connection)
MUTE = without(TrustingFraming, any_reply_counts, nothing_times_out)
GUARDS = [
    Guard("no_answer", {}, "requests time out", nothing_times_out, never_told),
    Guard("black_hole", {}, "requests time out", nothing_times_out, never_told),
    Guard("stall", {}, "requests time out", nothing_times_out, never_told),
    Guard("half_open", {}, "requests time out", nothing_times_out, never_told),
    Guard("reorder", {}, "requests time out", nothing_times_out, never_told),
    Guard("latency", {"delay_s": 60.0}, "requests time out", nothing_times_out, never_told),
    Guard("bandwidth", {"bytes_per_s": 1.0}, "requests time out", nothing_times_out, never_told),
    Guard("slicing", {"size": 3, "gap_s": 0.001}, "frames are put together", without(ForgetfulFraming), never_served),
    Guard("refuse", {}, "the link connects again", nobody_reconnects, never_back),
    Guard("reset", {}, "the link connects again", nobody_reconnects, never_back),
    Guard("cut", {"count": 1}, "the link connects again", nobody_reconnects, never_back),
    Guard("duplicate", {}, "transactions are compared", without(TrustingFraming), a_wrong_value),
    Guard("late_answer", {}, "transactions are compared, and a time-out ends the connection", LATE, a_wrong_value),
    Guard("wrong_transaction", {}, "transactions are compared", without(TrustingFraming), a_foreign_answer),
    Guard("wrong_unit", {}, "units are compared", without(TrustingFraming), a_foreign_answer),
    Guard("wrong_function", {}, "functions are compared", any_reply_counts, a_foreign_answer),
    Guard("exception", {"code": 2}, "exceptions are no values", any_reply_counts, a_wrong_value),
    Guard("wrong_count", {}, "lengths are compared", any_reply_counts, a_foreign_answer),
    Guard("wrong_length", {"by": -3}, "lengths are compared", GREEDY, a_foreign_answer),
    Guard("truncated", {"keep": 11}, "frames are put together", GREEDY, a_wrong_value),
    Guard("extra_bytes", {"size": 7}, "a stream that is no Modbus is left", MUTE, never_back),
    Guard("wrong_crc", {}, "check sums are compared", any_check_sum_is_right, a_broken_check_sum),
    Guard("nan", {}, "not a number is no value", any_number_counts, a_bad_number("frequency_hz")),
    Guard("not_implemented", {"point": "power_w"}, "the range", any_number_counts, a_bad_number(POWER_W)),
    Guard("torn_read", {}, "the range", any_number_counts, a_bad_number(POWER_W)),
    Guard("spikes", {"chance": 0.5}, "the range", any_number_counts, a_bad_number(POWER_W)),
    Guard("drift", {"pu_per_s": -1e1}, "the range", any_number_counts, a_bad_number(POWER_W, 0.03)),
    Guard("scale_factor", {}, "factors are read with values", scale_factors_are_read_once, a_wrong_scale),
    Guard("write_ignored", {}, "read-backs are compared", nobody_looks_at_read_backs, an_unnoticed_write),
    Guard("write_clipped", {}, "read-backs are compared", nobody_looks_at_read_backs, an_unnoticed_write),
    Guard("reversion", {}, "read-backs are compared", nobody_looks_at_read_backs, an_unnoticed_write),
    Guard("reboot", {}, "the setpoint is written again", no_setpoint_outlasts_its_connection, a_forgotten_setpoint),
]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.fault)
async def test_a_fault_does_harm_only_when_its_check_is_taken_out(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await guard.harm(guard.fault, guard.options, LONG_S), f"although {guard.check}"
    guard.out(monkeypatch)
    assert await guard.harm(guard.fault, guard.options, SHORT_S), f"unless {guard.check}"
