"""The meters' own register tables as a plain Modbus client sees them: what is where, in which order, what is not."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client import AsyncModbusTcpClient

from config.twin import DeviceTwin
from sim_devices.modbus import make_unit, start_modbus_twin
from sim_devices.modbus.meters import TWINS
from sim_devices.modbus.pdu import MAX_READ, ExceptionCode, answer
from sim_devices.models import ChargerModel, MeterModel

POWERS_W = (4_600.0, -2_300.0, 230.0)


def metered(valid: bool = True) -> MeterModel:
    """4.6 kW in, 2.3 kW out and 230 W in, at 230 V; 12.5 kWh have come, and 4 have gone."""
    model = MeterModel("meter", 100_000.0, DeviceTwin())
    for power_w in (12_500.0, -4_000.0):
        model.measure((power_w, 0.0, 0.0), (230.0,) * 3, 50.0, True, 3_600.0, 1.0)
    model.measure(POWERS_W, (230.0,) * 3, 50.0, valid, 0.0, 2.0)
    return model


class Line:
    """A client of one meter. `ask` returns the registers, or the exception's code."""

    def __init__(self, client: AsyncModbusTcpClient) -> None:
        self._client = client

    async def ask(self, function: int, address: int, count: int) -> list[int] | int:
        read = self._client.read_holding_registers if function == 3 else self._client.read_input_registers
        response = await read(address, count=count, device_id=1)
        return int(response.exception_code) if response.isError() else list(response.registers)

    async def floats(self, function: int, address: int, count: int, order: str = ">") -> list[float]:
        words = await self.ask(function, address, 2 * count)
        assert isinstance(words, list), words
        return list(struct.unpack(f"{order}{count}f", struct.pack(f">{2 * count}H", *words)))

    async def integers(self, address: int, count: int) -> list[int]:
        """Of 32 bits, low word first."""
        words = await self.ask(4, address, 2 * count)
        assert isinstance(words, list), words
        turned = [word for at in range(0, 2 * count, 2) for word in (words[at + 1], words[at])]
        return list(struct.unpack(f">{count}i", struct.pack(f">{2 * count}H", *turned)))

    async def write(self, address: int, value: int) -> int:
        response = await self._client.write_register(address, value, device_id=1)
        return int(response.exception_code)


@asynccontextmanager
async def line(profile: str, model: MeterModel | None = None) -> AsyncIterator[Line]:
    twin = await start_modbus_twin(profile, model or metered(), unit=1, clock=lambda: 0.0, site="S")
    client = AsyncModbusTcpClient("127.0.0.1", port=twin.port, timeout=2, retries=0)
    await client.connect()
    try:
        yield Line(client)
    finally:
        client.close()
        await twin.close()


# Eastron SDM630


async def test_an_eastron_has_floats_in_input_registers() -> None:
    async with line("eastron_sdm630") as it:
        assert await it.floats(4, 0x0000, 9) == pytest.approx([230, 230, 230, 20, 10, 1, 4600, -2300, 230])
        assert await it.floats(4, 0x0034, 1) == [2530.0]
        assert await it.floats(4, 0x001E, 3) == [1.0, -1.0, 1.0]
        assert await it.floats(4, 0x0048, 2) == [12.5, 4.0]
        assert await it.floats(4, 0x0156, 1) == [16.5]
        assert await it.floats(4, 0x00C8, 1) == pytest.approx([398.37], abs=0.01)
        assert await it.floats(4, 0x015A, 3) == pytest.approx([12.5 / 3] * 3)


async def test_an_eastron_has_its_settings_in_holding_registers_and_no_measurements() -> None:
    async with line("eastron_sdm630") as it:
        assert await it.floats(3, 0x000A, 1) == [3.0]
        assert await it.floats(3, 0x0014, 1) == [1.0]
        assert await it.ask(3, 0x0000, 2) == 2


async def test_an_eastron_answers_whole_values_up_to_sixty_registers() -> None:
    async with line("eastron_sdm630") as it:
        assert len(await it.floats(4, 0x0000, 30)) == 30
        assert await it.ask(4, 0x0000, 62) == 3
        assert await it.ask(4, 0x0001, 2) == 2
        assert await it.ask(4, 0x0000, 3) == 2
        assert await it.floats(4, 0x002C, 1) == [0.0], "a gap"
        assert await it.ask(4, 0x017E, 2) == 2
        assert await it.write(0x0002, 1) == 1


# Carlo Gavazzi EM340


async def test_a_carlo_gavazzi_sends_the_low_word_first_and_signs_its_currents() -> None:
    async with line("carlo_gavazzi_em340") as it:
        assert await it.ask(4, 0x0012, 2) == [46_000, 0]
        assert await it.integers(0x000C, 3) == [20_000, -10_000, 1_000]
        assert await it.integers(0x0012, 3) == [46_000, -23_000, 2_300]
        assert await it.integers(0x0028, 2) == [25_300, 71_300]
        assert await it.integers(0x0034, 1) == [125]
        assert await it.integers(0x004E, 1) == [40]
        assert await it.ask(4, 0x002E, 6) == [1000, 0x10000 - 1000, 1000, 1000, 0, 500]


async def test_both_tables_of_a_carlo_gavazzi_say_the_same_by_either_function() -> None:
    async with line("carlo_gavazzi_em340") as it:
        assert await it.ask(3, 0x0000, 50) == await it.ask(4, 0x0000, 50)
        assert await it.integers(0x0106, 1) == await it.integers(0x0028, 1)
        for phase in range(3):
            assert await it.integers(0x0124 + 14 * phase, 1) == await it.integers(0x0012 + 2 * phase, 1)
        assert await it.integers(0x0116, 1) == await it.integers(0x004E, 1)


async def test_a_carlo_gavazzi_is_known_by_a_word_that_is_a_voltages_half_in_longer_reads() -> None:
    async with line("carlo_gavazzi_em340") as it:
        assert await it.ask(4, 0x000B, 1) == [341]
        assert await it.ask(3, 0x0303, 1) == [2]
        assert await it.integers(0x000A, 1) == [3984]


async def test_what_a_carlo_gavazzi_refuses() -> None:
    async with line("carlo_gavazzi_em340") as it:
        assert await it.ask(4, 0x0000, 51) == 3
        assert await it.ask(4, 0x0098, 4) == 2
        assert await it.ask(4, 0x1104, 1) == 2
        assert await it.write(0x1103, 0) == 2
    async with line("carlo_gavazzi_em340", metered(valid=False)) as it:
        assert await it.integers(0x0028, 1) == [0x7FFF_FFFF]
        assert await it.integers(0x0034, 1) == [125]


# Janitza UMG 604


async def test_a_janitza_has_its_readings_in_three_places_and_two_orders() -> None:
    async with line("janitza_umg604") as it:
        assert await it.floats(3, 19020, 4) == pytest.approx([4600, -2300, 230, 2530])
        assert await it.floats(4, 1333, 4) == pytest.approx([4600, -2300, 230, 0])
        assert await it.floats(3, 1369, 1) == [2530.0]
        assert await it.floats(3, 19012, 4) == pytest.approx([20, 10, 1, 26.29], abs=0.01)
        assert await it.floats(3, 19068, 1) == await it.floats(3, 9851, 1) == [12_500.0]
        assert await it.floats(3, 19076, 1) == await it.floats(3, 9863, 1) == [4_000.0]
        assert await it.floats(3, 19060, 1) == [8_500.0]
        assert await it.floats(3, 19020 + 32768, 4, "<") == await it.floats(3, 19020, 4)
        assert await it.ask(3, 19122, 2) == 2
        assert len(await it.floats(3, 19000, 61)) == 61


# All


@pytest.mark.parametrize("profile", sorted(TWINS))
@given(function=st.sampled_from((3, 4)), address=st.integers(0, 0xFFFF), count=st.integers(0, MAX_READ + 1))
def test_every_read_is_answered_or_refused_in_full(profile: str, function: int, address: int, count: int) -> None:
    unit = make_unit(profile, metered(), clock=lambda: 0.0)
    said = answer(unit, struct.pack(">BHH", function, address, count))
    if said[0] == function:
        assert said[1] == 2 * count == len(said) - 2
    else:
        assert said[0] == function | 0x80
        assert said[1] in (ExceptionCode.ILLEGAL_ADDRESS, ExceptionCode.ILLEGAL_VALUE)


@pytest.mark.parametrize("profile", sorted(TWINS))
def test_a_meter_is_no_charger(profile: str) -> None:
    with pytest.raises(TypeError, match="needs a MeterModel, not a ChargerModel"):
        make_unit(profile, ChargerModel("c", 1_000.0, DeviceTwin()), clock=lambda: 0.0)
