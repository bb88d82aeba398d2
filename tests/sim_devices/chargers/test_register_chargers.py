"""The chargers' own register tables as a plain Modbus client sees them: what is where, what is taken, what is not."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.client import AsyncModbusTcpClient

from config.twin import DeviceTwin, EvTwin
from sim_devices.modbus import make_unit, start_modbus_twin
from sim_devices.modbus.chargers import TWINS
from sim_devices.modbus.pdu import MAX_READ, ExceptionCode, answer
from sim_devices.models import ChargerModel

STEP_S = 0.1
A_CAR = EvTwin(needed_wh=50_000.0, wake_s=0.2)


class Station:
    """A charger twin, its clock, and a client."""

    def __init__(self, model: ChargerModel, client: AsyncModbusTcpClient, clock: list[float]) -> None:
        self.model = model
        self._client = client
        self._clock = clock

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        for _ in range(round(duration_s / STEP_S)):
            self._clock[0] += STEP_S
            self.model.step(STEP_S, self._clock[0])

    async def ask(self, address: int, count: int, unit: int = 1, function: int = 3) -> bytes | int:
        """The registers, or the exception's code."""
        read = self._client.read_holding_registers if function == 3 else self._client.read_input_registers
        response = await read(address, count=count, device_id=unit)
        return int(response.exception_code) if response.isError() else struct.pack(f">{count}H", *response.registers)

    async def value(self, address: int, code: str, unit: int = 1) -> float:
        data = await self.ask(address, struct.calcsize(">" + code) // 2, unit)
        assert isinstance(data, bytes), data
        (value,) = struct.unpack(">" + code, data)
        return float(value)

    async def text(self, address: int, registers: int, unit: int = 1) -> str:
        data = await self.ask(address, registers, unit)
        assert isinstance(data, bytes), data
        return data.rstrip(b"\0").decode()

    async def put(self, address: int, code: str, value: float) -> int:
        """Write a value with function 16; 0, or the exception's code."""
        data = struct.pack(">" + code, value)
        words = list(struct.unpack(f">{len(data) // 2}H", data))
        response = await self._client.write_registers(address, words, device_id=1)
        return int(response.exception_code) if response.isError() else 0

    async def put_single(self, address: int, word: int) -> int:
        """Write a register with function 6; 0, or the exception's code."""
        response = await self._client.write_register(address, word, device_id=1)
        return int(response.exception_code) if response.isError() else 0


@asynccontextmanager
async def station(profile: str, *evs: EvTwin, phases: tuple[int, ...] = (1, 2, 3)) -> AsyncIterator[Station]:
    settings = DeviceTwin(tr90_s=0.1, evs=evs)
    model = ChargerModel("left", 22_080.0 * len(phases) / 3, settings, phases=phases)
    clock = [500.0]
    twin = await start_modbus_twin(profile, model, unit=1, clock=lambda: clock[0], site="S")
    client = AsyncModbusTcpClient("127.0.0.1", port=twin.port, timeout=2, retries=0)
    await client.connect()
    try:
        yield Station(model, client, clock)
    finally:
        client.close()
        await twin.close()


# Alfen Eve


async def test_an_alfen_begins_with_its_safe_current_and_counts_a_setpoint_down() -> None:
    async with station("alfen_eve", A_CAR) as box:
        assert (await box.value(1206, "f"), await box.value(1212, "f"), await box.value(1208, "I")) == (6, 6, 0)
        assert await box.value(1214, "H") == 0
        assert await box.put(1210, "f", 20.0) == 0
        box.run(10.0)
        assert (await box.value(1206, "f"), await box.value(1210, "f")) == (20, 20)
        assert await box.value(1208, "I") == pytest.approx(50, abs=1)
        assert (await box.value(1214, "H"), await box.text(1201, 5)) == (1, "C2")
        box.run(51.0)
        assert (await box.value(1206, "f"), await box.value(1208, "I"), await box.value(1214, "H")) == (6, 0, 0)
        assert await box.value(1210, "f") == 20, "what was asked for can still be read"


async def test_an_alfen_pauses_below_six_amperes() -> None:
    async with station("alfen_eve", A_CAR) as box:
        assert await box.put(1210, "f", 5.9) == 0
        box.run(5.0)
        assert (await box.text(1201, 5), await box.value(344, "f")) == ("B1", 0)
        assert await box.put(1210, "f", 6.0) == 0
        assert await box.text(1201, 5) == "B2"
        box.run(5.0)
        assert await box.text(1201, 5) == "C2"


async def test_what_an_alfen_has_not_is_all_ones_and_what_is_no_register_is_refused() -> None:
    async with station("alfen_eve") as box:
        assert await box.ask(318, 2) == b"\xff" * 4
        assert await box.ask(362, 4) == b"\xff" * 8
        assert isinstance(await box.ask(300, 125), bytes)
        for address in (299, 426, 1199, 1216):
            assert await box.ask(address, 1) == 2, address
        assert await box.ask(300, 1, function=4) == 1


async def test_a_value_is_written_to_an_alfen_whole_or_not_at_all() -> None:
    async with station("alfen_eve") as box:
        assert await box.put_single(1210, 0x4180) == 2
        assert await box.put(1210, "f", float("nan")) == 3
        assert await box.put(1210, "f", -1.0) == 3
        assert await box.put(1212, "f", 10.0) == 2
        assert await box.value(1206, "f") == 6


async def test_an_alfen_switches_to_one_phase_and_back() -> None:
    async with station("alfen_eve", A_CAR) as box:
        assert await box.put(1210, "f", 16.0) == 0
        box.run(3.0)
        assert await box.put_single(1215, 1) == 0
        box.run(3.0)
        assert await box.value(344, "f") == pytest.approx(16 * 230, rel=0.01)
        assert (await box.value(1215, "H"), await box.value(308, "f")) == (1, 0)
        assert await box.put_single(1215, 2) == 3
        assert await box.put_single(1215, 3) == 0
        assert box.model.phases == (1, 2, 3)
    async with station("alfen_eve", phases=(1,)) as box:
        assert await box.put_single(1215, 3) == 3


async def test_the_station_of_an_alfen_is_a_unit_of_its_own() -> None:
    async with station("alfen_eve") as box:
        assert await box.text(117, 5, unit=200) == "Alfen NV"
        assert (await box.value(1100, "f", unit=200), await box.value(1105, "H", unit=200)) == (32, 1)
        assert await box.value(174, "Q", unit=200) == 500_000
        assert await box.ask(300, 1, unit=200) == 2
        assert await box.ask(100, 1, unit=1) == 2


# ABB Terra AC


async def test_a_terra_ac_pauses_and_stops() -> None:
    async with station("abb_terra_ac", EvTwin(plug_in_s=1.0, needed_wh=50_000.0)) as box:
        assert (await box.value(0x400C, "I"), await box.value(0x400A, "I")) == (0, 0)
        box.run(5.0)
        assert (await box.value(0x400C, "I"), await box.value(0x400A, "I")) == (0x0400, 0x0111)
        assert await box.put(0x4100, "I", 5_999) == 0
        box.run(5.0)
        assert (await box.value(0x400C, "I"), await box.value(0x400E, "I")) == (0x0300, 0)
        assert await box.put(0x4100, "I", 10_000) == 0
        box.run(5.0)
        assert (await box.value(0x400C, "I"), await box.value(0x4022, "I")) == (0x0400, 10_000)
        assert await box.put_single(0x4105, 1) == 0
        box.run(5.0)
        assert await box.value(0x400C, "I") == 0x0500
        assert await box.put_single(0x4105, 0) == 0
        box.run(5.0)
        assert await box.value(0x400C, "I") == 0x0400


async def test_a_terra_ac_tells_that_a_car_takes_less_than_it_may() -> None:
    async with station("abb_terra_ac", EvTwin(max_current_a=10.0, needed_wh=50_000.0)) as box:
        assert await box.put(0x4100, "I", 16_000) == 0
        box.run(5.0)
        assert await box.value(0x400C, "I") == 0x8400
        assert await box.put(0x4100, "I", 8_000) == 0
        box.run(5.0)
        assert await box.value(0x400C, "I") == 0x0400


async def test_a_terra_ac_that_nobody_asks_stops_until_it_is_told_a_limit() -> None:
    async with station("abb_terra_ac", A_CAR) as box:
        box.run(120.0)
        assert await box.value(0x400C, "I") == 0x0400, "whoever has never asked can't fall silent"
        box.run(59.0)
        assert await box.value(0x400C, "I") == 0x0400
        box.run(61.0)
        assert await box.value(0x4008, "I") == 0x4000
        assert (await box.value(0x400C, "I"), await box.value(0x401C, "I")) == (0x0500, 0)
        assert await box.put(0x4100, "I", 16_000) == 0
        box.run(5.0)
        assert (await box.value(0x4008, "I"), await box.value(0x400C, "I")) == (0, 0x0400)


async def test_the_timeout_and_the_fallback_of_a_terra_ac_can_be_set() -> None:
    async with station("abb_terra_ac", A_CAR) as box:
        assert (await box.value(0x4020, "H"), await box.value(0x4024, "H")) == (60, 0xFF)
        assert await box.put_single(0x4106, 10) == 0
        assert await box.put_single(0x4109, 8) == 0
        assert (await box.value(0x4020, "H"), await box.value(0x4024, "H")) == (10, 8)
        box.run(11.0)
        assert (await box.value(0x400E, "I"), await box.value(0x4008, "I")) == (8_000, 0)
        assert await box.value(0x400C, "I") == 0x0400


async def test_what_a_terra_ac_refuses() -> None:
    async with station("abb_terra_ac") as box:
        assert len(bytes(await box.ask(0x4000, 37))) == 74
        assert await box.ask(0x4000, 38) == 2
        assert await box.ask(0x4100, 2) == 2
        assert await box.ask(0x4000, 2, function=4) == 1
        assert await box.put_single(0x4106, 9) == 3
        assert await box.put_single(0x4105, 2) == 3
        assert await box.put_single(0x4100, 1) == 2
        assert await box.put_single(0x4006, 1) == 2
        assert bytes(await box.ask(0x4000, 2)) == bytes((0x54, 0x22, 0x04, 0x00))


# Phoenix Contact CHARX


async def test_a_charx_charges_when_it_is_released_and_only_within_its_range() -> None:
    async with station("phoenix_charx", A_CAR) as box:
        box.run(5.0)
        assert (await box.text(1299, 1), await box.value(1300, "H"), await box.value(1301, "H")) == ("B1", 0, 32)
        assert await box.put_single(1300, 1) == 0
        assert await box.text(1299, 1) == "B2"
        box.run(5.0)
        assert (await box.text(1299, 1), await box.value(1297, "H")) == ("C2", 32)
        for out_of_range in (5, 0, 81):
            assert await box.put_single(1301, out_of_range) == 0
            box.run(3.0)
            assert (await box.text(1299, 1), await box.value(1297, "H")) == ("B1", 0), out_of_range
        assert await box.put_single(1301, 16) == 0
        box.run(3.0)
        assert (await box.text(1299, 1), await box.value(1296, "H")) == ("C2", 27)
        assert await box.value(1300, "H") == 1, "the release that was given counts again"


async def test_the_watchdog_of_a_charx_is_off_until_it_is_set_and_fed_by_writing() -> None:
    async with station("phoenix_charx", A_CAR) as box:
        assert await box.put_single(1300, 1) == 0
        assert await box.put_single(1301, 20) == 0
        assert await box.value(1307, "H") == 0xFFFF
        box.run(600.0)
        assert await box.value(1297, "H") == 20
        assert await box.put_single(1306, 8) == 0
        assert await box.put_single(1307, 30) == 0
        for register, value in ((1300, 1), (1301, 20), (1306, 8), (1307, 30)):
            box.run(25.0)
            assert await box.value(1297, "H") == 20
            assert await box.put_single(register, value) == 0
        box.run(25.0)
        assert await box.value(1244, "i") > 0
        box.run(6.0)
        assert await box.value(1297, "H") == 8
        assert await box.put_single(1301, 20) == 0
        assert await box.value(1297, "H") == 20
        assert await box.put_single(1306, 0) == 0
        box.run(31.0)
        assert (await box.value(1297, "H"), await box.value(1244, "i")) == (0, 0)


async def test_a_charx_can_be_taken_out_of_service() -> None:
    async with station("phoenix_charx", A_CAR) as box:
        box.run(1.0)
        assert await box.put_single(1304, 0) == 0
        assert (await box.text(1299, 1), await box.value(164, "H"), await box.value(148, "H")) == ("F0", 0, 1)
        assert await box.put_single(1304, 1) == 0
        assert await box.text(1299, 1) == "B1"


async def test_a_charx_has_its_values_in_both_tables_and_gaps_between_its_blocks() -> None:
    async with station("phoenix_charx", A_CAR) as box:
        assert await box.put_single(1300, 1) == 0
        box.run(5.0)
        assert await box.ask(1232, 77) == await box.ask(1232, 77, function=4)
        assert await box.value(1244, "i") == pytest.approx(32 * 690 * 1000, rel=0.01)
        assert await box.value(1289, "Q") == round(box.model.session_energy_wh)
        assert await box.value(1285, "I") == 0
        box.run(10.0)
        assert await box.value(1285, "I") == 10
        for address in (99, 168, 1124, 1231, 1309, 2100):
            assert await box.ask(address, 1) == 2, address
        assert await box.put_single(1307, 0) == 3
        assert await box.put_single(1300, 2) == 3
        assert await box.put_single(1302, 1) == 2


# All


@pytest.mark.parametrize("profile", sorted(TWINS))
@given(
    function=st.sampled_from((3, 4)),
    address=st.one_of(st.integers(0, 0xFFFF), st.integers(1000, 1400), st.integers(0x4000, 0x4120)),
    count=st.integers(0, MAX_READ + 1),
)
def test_every_read_is_answered_or_refused_in_full(profile: str, function: int, address: int, count: int) -> None:
    unit = make_unit(profile, ChargerModel("c", 22_080.0, DeviceTwin()), clock=lambda: 0.0)
    said = answer(unit, struct.pack(">BHH", function, address, count))
    if said[0] == function:
        assert said[1] == 2 * count == len(said) - 2
    else:
        assert said[0] == function | 0x80
        assert said[1] in list(ExceptionCode)


@pytest.mark.parametrize("profile", sorted(TWINS))
@given(address=st.one_of(st.integers(1200, 1310), st.integers(0x4100, 0x4110)), data=st.binary(min_size=2, max_size=12))
def test_no_write_takes_a_charger_beyond_its_rating_or_raises(profile: str, address: int, data: bytes) -> None:
    model = ChargerModel("c", 22_080.0, DeviceTwin(evs=(A_CAR,)))
    unit = make_unit(profile, model, clock=lambda: 0.0)
    unit.write(address, data[: len(data) // 2 * 2])
    assert 0.0 <= model.offered_current_a <= model.max_current_a
