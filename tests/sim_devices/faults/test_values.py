"""Faults of values on Modbus: what the device hears and what the driver hears, register by register."""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple, TypeAlias

import pytest

from sim_devices.faults import FAULTS, FaultError
from sim_devices.faults.modbus_speech import ModbusUnderstanding
from sim_devices.faults.registry import MODBUS, MODBUS_RTU_TCP, MODBUS_TCP
from tests.drivers.modbus_server import sunspec_map
from tests.sim_devices.faults.field import Field, Memory, field, mbap, until
from tests.sim_devices.faults.sites import known, register_profile, shipped, target


def w(*values: int) -> bytes:
    """Registers."""
    return struct.pack(f">{len(values)}H", *(value & 0xFFFF for value in values))


def wide(value: int) -> bytes:
    return struct.pack(">i", value)


def fraction(value: float) -> bytes:
    return struct.pack(">f", value)


class Read(NamedTuple):
    """A read by the driver: the registers that the device then has there, and those that the driver hears."""

    address: int
    there: bytes
    heard: bytes
    acts: bool = True


class Write(NamedTuple):
    """A write by the driver: what it writes, and what the device hears of it; it is always acknowledged."""

    address: int
    written: bytes
    taken: bytes | None
    acts: bool = True


Step: TypeAlias = Read | Write


class Case(NamedTuple):
    """A fault on a device of `register_profile`, and what passes under it. In between nothing is read or written."""

    fault: str
    options: dict[str, Any]
    steps: list[Step]

    @property
    def name(self) -> str:
        """For people who read the test's report."""
        return "-".join([self.fault, *(f"{key}={value}" for key, value in self.options.items())])


ALL = w(0, 1500, 550, 1) + fraction(50.0)
LATER = w(0, 1600, 560, 2) + fraction(50.1)
CASES = [
    Case("frozen_value", {}, [Read(10, ALL, ALL, acts=False), Read(10, LATER, w(0, 1500, 550, 2) + ALL[8:])]),
    Case("frozen_value", {"point": "soc"}, [Read(12, w(550), w(550), acts=False), Read(12, w(560), w(550))]),
    Case("frozen_heartbeat", {}, [Read(10, ALL, ALL, acts=False), Read(10, LATER, w(0, 1600, 560, 1) + LATER[8:])]),
    Case("nan", {}, [Read(14, fraction(50.0), fraction(math.nan)), Read(10, wide(7), wide(7), acts=False)]),
    Case("not_implemented", {"point": "power_w"}, [Read(10, wide(1500), b"\x80\0\0\0")]),
    Case("not_implemented", {"point": "soc"}, [Read(12, w(550), w(0xFFFF)), Read(13, w(1), w(1), acts=False)]),
    Case("not_implemented", {"point": "serial"}, [Read(20, b"SN42", bytes(4))]),
    Case("scale_factor", {}, [Read(10, wide(1500), wide(150)), Read(10, wide(-99_999), wide(-10_000))]),
    Case(
        "scale_factor", {"point": "setpoint_readback_w", "by": -1},
        [Read(100, w(150), w(1500)), Write(100, w(1500), w(150))],
    ),
    Case("flipped_sign", {}, [Read(10, wide(1500), wide(-1500)), Read(10, wide(0), wide(0), acts=False)]),
    Case(
        "torn_read", {},
        [Read(10, wide(-1), wide(-1), acts=False), Read(10, wide(5), wide(-65_531)),
         Read(10, wide(6), wide(6), acts=False)],
    ),
    Case("write_ignored", {}, [Write(100, w(1234), None), Read(100, w(7), w(7), acts=False)]),
    Case("write_ignored", {"shown": 1}, [Write(100, w(1234, 1), None), Read(100, w(7, 0), w(1234, 1))]),
    Case("write_ignored", {"point": "enable"}, [Write(100, w(1234), w(1234), acts=False), Write(101, w(1), None)]),
    Case(
        "write_clipped", {},
        [Write(100, w(9000), w(5000)), Write(100, w(-9000), w(-5000)), Write(100, w(5000), w(5000), acts=False)],
    ),
    Case("write_clipped", {"most_pu": 0.1}, [Write(100, w(-9000, 1), w(-1000, 1)), Write(101, w(1), w(1), acts=False)]),
    Case("drift", {"pu_per_s": 0.0}, [Read(10, wide(1500), wide(1500), acts=False)]),
    Case("spikes", {"chance": 0.0}, [Read(10, wide(1500), wide(1500), acts=False)]),
]  # fmt: skip


@pytest.mark.parametrize("protocol", [MODBUS_TCP, MODBUS_RTU_TCP])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_each_side_hears_of_a_value_that_goes_wrong(case: Case, protocol: str) -> None:
    device = known(register_profile(), driver=protocol)
    unit = Memory({20: b"SN42"})
    understanding = ModbusUnderstanding(protocol, [device])
    async with field(protocol, unit=unit, understanding=understanding) as on:
        fault = on.proxy.faults.set_by(case.fault, case.options, target(device))
        acted = 0
        for step in case.steps:
            if isinstance(step, Read):
                unit.put(step.address, step.there)
                assert await registers_read(on, step.address, len(step.there) // 2) == step.heard
            else:
                before = len(unit.written)
                await registers_written(on, step.address, step.written)
                heard = [data for _, data in unit.written[before:]]
                assert heard == ([] if step.taken is None else [step.taken])
            acted += step.acts
            # The answer to a write says what was asked for, which is another change where the device took less.
            assert fault.acted - acted in ((0, 1) if isinstance(step, Write) else (0,))
            acted = fault.acted
        on.proxy.faults.clear()
        unit.put(10, ALL)
        assert await registers_read(on, 10, 6) == ALL


async def exchanged(on: Field, pdu: bytes) -> bytes:
    """The reply to one request, as the driver hears it."""
    driver = on.drivers[-1] if on.drivers and on.drivers[-1].state == "open" else await on.connect()
    heard = len(driver.heard)
    driver.transport.write(on.request(pdu))
    tail = 0 if on.protocol == MODBUS_TCP else 2
    head = 7 if on.protocol == MODBUS_TCP else 1
    size = {3: 2 + 2 * int.from_bytes(pdu[3:5])}.get(pdu[0], 5)
    await on.until(lambda: len(driver.heard) >= heard + head + size + tail)
    frame = driver.heard[heard:]
    assert frame == on.request(frame[head : len(frame) - tail])
    return frame[head : len(frame) - tail]


async def registers_read(on: Field, address: int, count: int) -> bytes:
    return (await exchanged(on, struct.pack(">BHH", 3, address, count)))[2:]


async def registers_written(on: Field, address: int, data: bytes) -> None:
    """Write, and hear that it was done as asked."""
    if len(data) == 2:
        pdu = struct.pack(">BH", 6, address) + data
        assert await exchanged(on, pdu) == pdu
    else:
        pdu = struct.pack(">BHHB", 16, address, len(data) // 2, len(data)) + data
        assert await exchanged(on, pdu) == pdu[:5]


async def test_a_drift_grows_with_time() -> None:
    device = known(register_profile())
    unit = Memory({10: wide(0)})
    async with field(unit=unit, understanding=ModbusUnderstanding(MODBUS_TCP, [device])) as on:
        on.proxy.faults.set_by("drift", {"pu_per_s": 10.0}, target(device))
        heard: list[int] = []
        while len(heard) < 2 or heard[-1] - heard[0] < 1000:
            heard.append(int.from_bytes(await registers_read(on, 10, 2)))
        assert heard == sorted(heard)
        assert unit.get(10, 2) == wide(0)


async def test_spikes_are_single_readings_and_the_seeds() -> None:
    said: list[list[bytes]] = []
    for seed in (1, 1, 2):
        device = known(register_profile())
        understanding = ModbusUnderstanding(MODBUS_TCP, [device])
        async with field(seed=seed, unit=Memory({10: wide(100)}), understanding=understanding) as on:
            on.proxy.faults.set_by("spikes", {"chance": 0.3}, target(device))
            said.append([await registers_read(on, 10, 2) for _ in range(40)])
    assert set(said[0]) == {wide(100), wide(30_100), wide(-29_900)}
    assert said[0] == said[1] != said[2]


@pytest.mark.parametrize("protocol", [MODBUS_TCP, MODBUS_RTU_TCP])
async def test_a_reversion_takes_the_setpoint_away_once_and_the_driver_hears_nothing_of_it(protocol: str) -> None:
    device = known(register_profile(), driver=protocol)
    unit = Memory()
    async with field(protocol, unit=unit, understanding=ModbusUnderstanding(protocol, [device])) as on:
        await registers_written(on, 100, w(1234, 1))
        fault = on.proxy.faults.set_by("reversion", {}, target(device))
        await on.until(lambda: len(unit.written) == 3)
        assert unit.written[1:] == [(100, w(0)), (101, w(1))]
        assert await registers_read(on, 100, 2) == w(0, 1)
        await registers_written(on, 100, w(1234, 1))
        assert await registers_read(on, 100, 2) == w(1234, 1)
        assert fault.acted == 1


async def test_a_reversion_waits_for_the_answer_that_is_due_and_holds_the_next_request() -> None:
    device = known(register_profile())
    unit = Memory()
    async with field(unit=unit, understanding=ModbusUnderstanding(MODBUS_TCP, [device])) as on:
        on.proxy.faults.set("latency", direction="reply", delay_s=0.02)
        driver = await on.connect()
        driver.transport.write(mbap(struct.pack(">BHH", 3, 100, 1), 1))
        await on.until(lambda: len(on.heard) == 12)
        on.proxy.faults.set_by("reversion", {"power_pu": -0.5}, target(device))
        driver.transport.write(mbap(struct.pack(">BHH", 3, 100, 1), 2))
        await on.until(lambda: len(driver.heard) == 2 * 11)
        assert driver.heard == mbap(b"\x03\x02" + w(0), 1) + mbap(b"\x03\x02" + w(-5000), 2)


async def test_a_device_that_reboots_is_gone_and_back_with_its_defaults() -> None:
    device = known(register_profile())
    unit = Memory()
    async with field(unit=unit, understanding=ModbusUnderstanding(MODBUS_TCP, [device])) as on:
        await registers_written(on, 100, w(1234, 1))
        fault = on.proxy.faults.set_by("reboot", {"down_s": 0.05}, target(device))
        driver = on.drivers[0]
        await on.until(lambda: driver.state == "reset")
        with pytest.raises(ConnectionRefusedError):
            await on.connect()
        await on.connect_when_let()
        assert await registers_read(on, 100, 2) == w(0, 1)
        assert fault.acted > 0


async def test_a_unit_that_shares_its_line_reboots_alone() -> None:
    device = known(register_profile(), driver=MODBUS_RTU_TCP)
    unit = Memory()
    shared = target(device).__class__((MODBUS_RTU_TCP,), "unit", device, 1, understood=True)
    async with field(MODBUS_RTU_TCP, unit=unit, understanding=ModbusUnderstanding(MODBUS_RTU_TCP, [device])) as on:
        await registers_written(on, 100, w(1234, 1))
        driver = on.drivers[0]
        number = on.proxy.faults.set_by("reboot", {"down_s": 60.0}, shared).id
        await on.until(lambda: len(unit.written) == 3)
        heard = len(driver.heard)
        driver.transport.write(on.request(struct.pack(">BHH", 3, 100, 1)))
        driver.transport.write(on.request(struct.pack(">BHH", 3, 200, 1), unit=2))
        await on.until(lambda: len(driver.heard) > heard)
        assert driver.heard[heard:] == on.request(b"\x03\x02\0\0", unit=2)
        assert driver.state == "open"
        on.proxy.faults.clear(number)
        assert await registers_read(on, 100, 1) == w(0)


async def test_points_of_sunspec_models_are_found_by_the_drivers_own_discovery() -> None:
    device = known(shipped("sunspec_inverter"))
    contents = sunspec_map(
        [(1, {}), (103, {"W": 1500, "W_SF": -1, "WH": 70_000, "WH_SF": 0}), (123, {"WMaxLimPct_SF": -1})]
    )
    unit = Memory({40_000: contents})
    async with field(unit=unit, understanding=ModbusUnderstanding(MODBUS_TCP, [device])) as on:
        at, model = 40_002, 0
        assert await registers_read(on, 40_000, 2) == b"SunS"
        places: dict[int, int] = {}
        while model != 0xFFFF:
            model, length = struct.unpack(">HH", await registers_read(on, at, 2))
            places[model] = at
            at += 2 + length
        power = places[103] + 14
        assert await registers_read(on, power, 2) == w(1500, -1)
        fault = on.proxy.faults.set_by("scale_factor", {}, target(device))
        assert await registers_read(on, power, 2) == w(150, 0)
        on.proxy.faults.clear(fault.id)
        on.proxy.faults.set_by("not_implemented", {"point": "power_w"}, target(device))
        assert await registers_read(on, power, 2) == w(0x8000, -1)
        on.proxy.faults.clear()
        limit = places[123] + 5
        assert await registers_read(on, places[123] + 23, 1) == w(-1)
        on.proxy.faults.set_by("write_clipped", {"most_pu": 0.25}, target(device))
        await registers_written(on, limit, w(1000))
        assert unit.get(limit, 1) == w(250)


async def test_a_proxy_that_understands_is_as_good_as_a_wire() -> None:
    device = known(register_profile())
    async with field("modbus_tcp", understanding=ModbusUnderstanding(MODBUS_TCP, [device])) as on:
        on.answers = False
        driver = await on.connect()
        await until(lambda: len(on.device) == 1)
        stream = bytes(range(256)) * 2_000
        driver.transport.write(stream)
        on.device[0].transport.write(stream[::-1])
        await on.until(lambda: len(on.heard) == len(driver.heard) == len(stream))
        assert (on.heard, driver.heard) == (stream, stream[::-1])


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [
        ("frozen_value", {"point": "lambda"}, "those are power_w, soc, heartbeat, frequency_hz, serial"),
        ("frozen_value", {"point": 3}, "not 3"),
        ("nan", {"point": "power_w"}, "point: is of floating point numbers that can be read; of unit those are freq"),
        ("flipped_sign", {"point": "soc"}, "those are power_w, frequency_hz, setpoint_readback_w, or all"),
        ("drift", {"by": 1}, "drift: knows no by, but count, direction"),
        ("bad_status", {}, "does not apply to modbus_tcp, but to opcua"),
        ("write_ignored", {"point": "power_w"}, "those are setpoint_readback_w, enable, or all"),
    ],
)
async def test_a_point_that_can_not_be_meant_is_refused_with_those_that_can(
    fault: str, options: dict[str, Any], words: str
) -> None:
    device = known(register_profile())
    async with field(understanding=ModbusUnderstanding(MODBUS_TCP, [device])) as on:
        with pytest.raises(FaultError) as refused:
            on.proxy.faults.set_by(fault, options, target(device))
        assert words in str(refused.value)


VALUE_TESTS = {
    "drift": test_a_drift_grows_with_time,
    "spikes": test_spikes_are_single_readings_and_the_seeds,
    "reversion": test_a_reversion_takes_the_setpoint_away_once_and_the_driver_hears_nothing_of_it,
    "reboot": test_a_device_that_reboots_is_gone_and_back_with_its_defaults,
}


def test_every_fault_of_modbus_values_has_a_test_on_the_wire() -> None:
    of_values = {name for name, kind in FAULTS.items() if kind.understands and set(MODBUS) & set(kind.applies_to)}
    assert {case.fault for case in CASES} | VALUE_TESTS.keys() == of_values
