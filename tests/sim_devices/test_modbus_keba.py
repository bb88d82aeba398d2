"""The KEBA twin, seen by pymodbus: what it says of a charging session, what it takes, and its failsafe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient

from config.twin import DeviceTwin, EvTwin
from sim_devices.modbus import ModbusTwin, make_unit, start_modbus_twin
from sim_devices.models import ChargerModel, InverterModel, MeterModel

STEP_S = 0.1


class Station:
    """A charger twin, its clock, and a client."""

    def __init__(self, model: ChargerModel, twin: ModbusTwin, client: AsyncModbusTcpClient, clock: list[float]) -> None:
        self.model = model
        self.twin = twin
        self.client = client
        self._clock = clock

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        for _ in range(round(duration_s / STEP_S)):
            self._clock[0] += STEP_S
            self.model.step(STEP_S, self._clock[0])

    async def read(self, address: int) -> int:
        """One value."""
        response = await self.client.read_holding_registers(address, count=2, device_id=255)
        assert not response.isError(), response
        return int.from_bytes(b"".join(word.to_bytes(2, "big") for word in response.registers), "big")

    async def write(self, address: int, value: int) -> int:
        """One command; 0, or the exception's code."""
        response = await self.client.write_register(address, value, device_id=255)
        return response.exception_code if response.isError() else 0


@asynccontextmanager
async def station(*evs: EvTwin, **settings: Any) -> AsyncIterator[Station]:
    model = ChargerModel("left", 22_000.0, DeviceTwin(tr90_s=0.1, evs=evs, **settings))
    clock = [50.0]
    twin = await start_modbus_twin("keba_p30", model, unit=255, clock=lambda: clock[0])
    client = AsyncModbusTcpClient("127.0.0.1", port=twin.port, timeout=2, retries=0)
    await client.connect()
    try:
        yield Station(model, twin, client, clock)
    finally:
        client.close()
        await twin.close()


A_CAR = EvTwin(plug_in_s=1.0, unplug_s=600.0, wake_s=0.2)


async def test_a_charging_session_from_plug_in_to_departure() -> None:
    async with station(A_CAR) as box:
        assert (await box.read(1000), await box.read(1004)) == (1, 0)
        box.run(1.1)
        assert (await box.read(1000), await box.read(1004)) == (2, 7)
        assert await box.write(5004, 16_000) == 0
        box.run(60)
        assert await box.read(1000) == 3
        assert await box.read(1100) == 16_000
        for address in (1008, 1010, 1012):
            assert await box.read(address) == pytest.approx(16_000, abs=20)
        assert await box.read(1020) == pytest.approx(16 * 230 * 3 * 1000, rel=1e-3)
        assert await box.read(1040) == 230
        assert await box.read(1036) == round(box.model.energy_import_wh * 10)
        assert await box.read(1502) == round(box.model.session_energy_wh * 10) > 1000
        assert await box.read(1046) == 1000
        box.run(600)
        assert (await box.read(1000), await box.read(1004), await box.read(1020)) == (1, 0, 0)


async def test_it_says_what_it_is() -> None:
    async with station() as box:
        assert await box.read(1110) == 32_000
        assert await box.read(1016) == 304_110
        assert (await box.read(1018)).to_bytes(4, "big")[:3] == bytes((3, 10, 16))
        assert await box.read(1014) > 0
        assert await box.read(1552) == 3


async def test_disabling_and_a_current_of_nothing_suspend_the_session() -> None:
    async with station(A_CAR) as box:
        box.run(10)
        assert await box.read(1000) == 3
        assert await box.write(5014, 0) == 0
        box.run(3)
        assert (await box.read(1000), await box.read(1020)) == (5, 0)
        assert await box.write(5014, 1) == 0
        box.run(3)
        assert await box.read(1000) == 3
        assert await box.write(5004, 0) == 0
        box.run(3)
        assert (await box.read(1000), await box.read(1020), await box.read(1100)) == (5, 0, 0)


async def test_a_fault_is_an_error_with_a_code() -> None:
    async with station(A_CAR) as box:
        box.model.faulted = True
        assert await box.read(1000) == 4
        assert await box.read(1006) >> 16 == 4
        box.model.faulted = False
        assert await box.read(1006) == 0


@pytest.mark.parametrize("value", [1, 5_999, 63_001, 65_535])
async def test_currents_that_no_car_understands_are_refused(value: int) -> None:
    async with station() as box:
        assert await box.write(5004, value) == 3
        assert box.model.requested_current_a == 32


@pytest.mark.parametrize(
    ("address", "value", "code"),
    [(5014, 2, 3), (5016, 5_000, 3), (5016, 32_001, 3), (5018, 9, 3), (5018, 601, 3), (5020, 2, 3), (1000, 1, 2)],
)
async def test_other_commands_out_of_range_are_refused(address: int, value: int, code: int) -> None:
    async with station() as box:
        assert await box.write(address, value) == code


async def test_one_value_at_a_time_and_nothing_else() -> None:
    async with station() as box:
        for address, count in ((1008, 4), (1008, 1), (1009, 2), (1000, 6), (1002, 2), (5004, 1), (5004, 2)):
            response = await box.client.read_holding_registers(address, count=count, device_id=255)
            assert response.exception_code == 2, (address, count)
        assert (await box.client.write_registers(5004, [8_000], device_id=255)).exception_code == 1
        assert (await box.client.read_input_registers(1000, count=2, device_id=255)).exception_code == 1
        assert box.model.requested_current_a == 32


async def test_silence_brings_the_failsafe_current_and_reading_does_not_prevent_it() -> None:
    async with station(A_CAR) as box:
        assert await box.write(5016, 6_000) == 0
        assert (await box.read(1600), await box.read(1602)) == (6_000, 0)
        assert await box.write(5018, 30) == 0
        assert await box.read(1602) == 30
        assert await box.write(5004, 20_000) == 0
        for _ in range(4):
            box.run(25)
            assert await box.write(5004, 20_000) == 0
        box.run(25)
        assert await box.write(5014, 1) == 0
        box.run(25)
        assert await box.read(1100) == 20_000
        for _ in range(6):
            box.run(1)
            await box.read(1000)
        assert (await box.read(1100), await box.read(1000)) == (6_000, 3)
        assert await box.write(5004, 18_000) == 0
        assert await box.read(1100) == 18_000
        box.run(31)
        assert await box.read(1100) == 6_000, "the failsafe is armed again by the command"


async def test_a_failsafe_of_nothing_needs_both_current_and_enable_again() -> None:
    async with station(A_CAR) as box:
        assert await box.write(5018, 10) == 0
        box.run(11)
        assert (await box.read(1000), await box.read(1100)) == (5, 0)
        assert await box.write(5004, 16_000) == 0
        box.run(3)
        assert await box.read(1000) == 5
        assert await box.write(5014, 1) == 0
        box.run(3)
        assert await box.read(1000) == 3


async def test_the_failsafe_can_be_switched_off_and_kept() -> None:
    async with station() as box:
        assert await box.write(5016, 8_000) == 0
        assert await box.write(5018, 60) == 0
        assert await box.write(5020, 1) == 0
        unit = box.twin.server.units[255]
        assert getattr(unit, "persisted_failsafe", None) == (60, 8_000)
        assert await box.write(5018, 0) == 0
        box.run(120)
        assert await box.read(1100) == 32_000


async def test_several_stations_behind_one_address() -> None:
    async with station() as box:
        right = ChargerModel("right", 11_000.0, DeviceTwin())
        box.twin.add_unit("keba_p30", right, unit=7)
        response = await box.client.read_holding_registers(1110, count=2, device_id=7)
        assert response.registers == [0, 16_000]
        with pytest.raises(ValueError, match="taken"):
            box.twin.add_unit("keba_p30", right, unit=7)


def test_a_wrong_profile_or_model_is_named() -> None:
    with pytest.raises(ValueError, match=r"keba_p30, .*sunspec_battery"):
        make_unit("keba_p40", MeterModel("m", 1.0, DeviceTwin()), clock=lambda: 0.0)
    with pytest.raises(TypeError, match="needs a ChargerModel, not a InverterModel"):
        make_unit("keba_p30", InverterModel("i", 1.0, DeviceTwin()), clock=lambda: 0.0)


async def test_a_taken_port_is_a_plain_os_error() -> None:
    async with station() as box:
        with pytest.raises(OSError, match="address already in use"):
            await start_modbus_twin("keba_p30", box.model, port=box.twin.port, unit=255, clock=lambda: 0.0)
