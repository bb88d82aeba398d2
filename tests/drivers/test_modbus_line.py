"""A connection for looking at devices by hand, on a real pseudo-terminal: late answers are nobody's."""

from __future__ import annotations

import pytest

from config.site import ModbusRtuAddress
from drivers.modbus.inspection import modbus_line
from drivers.modbus.request import RequestFailed
from tests.drivers.serial_line import terminal

TIMEOUT_S = 0.1


async def test_an_answer_that_comes_late_is_not_taken_for_the_next_read() -> None:
    async with terminal() as on:
        unit = on.line.add(1)
        unit.put(0, bytes.fromhex("0A0A"))
        unit.put(100, bytes.fromhex("0B0B"))
        unit.latencies = [1.5 * TIMEOUT_S]
        address = ModbusRtuAddress(driver="modbus_rtu", device=on.path, baud=on.baud, unit=1)
        async with modbus_line(address) as line:
            with pytest.raises(RequestFailed):
                await line.read(1, TIMEOUT_S, "holding", 0, 1)
            reply = await line.read(1, TIMEOUT_S, "holding", 100, 1)
        assert reply[2:] == bytes.fromhex("0B0B")
        assert [heard.address for heard in on.line.heard] == [0, 100]


async def test_another_unit_is_asked_at_once_and_its_answer_is_its_own() -> None:
    async with terminal() as on:
        first, second = on.line.add(1), on.line.add(2)
        first.put(0, bytes.fromhex("0A0A"))
        second.put(0, bytes.fromhex("0C0C"))
        first.latencies = [1.3 * TIMEOUT_S]
        second.latencies = [0.6 * TIMEOUT_S]
        address = ModbusRtuAddress(driver="modbus_rtu", device=on.path, baud=on.baud, unit=1)
        async with modbus_line(address) as line:
            with pytest.raises(RequestFailed):
                await line.read(1, TIMEOUT_S, "holding", 0, 1)
            reply = await line.read(2, TIMEOUT_S, "holding", 0, 1)
        assert reply[2:] == bytes.fromhex("0C0C")
