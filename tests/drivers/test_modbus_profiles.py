"""The shipped Modbus profiles on devices whose registers come from pysunspec2 or from the vendor's guide."""

import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sunspec2.device import Model

from config.loading import load_profile
from config.vocabulary import WriteStatus
from drivers.binding import DeviceBinding
from drivers.modbus.driver import ModbusDriver
from tests.drivers.modbus_server import Asked, Bench, bench, sunspec_map

COMMON = (1, {"Mn": "Maker", "Md": "Model 3", "SN": "00042"})


@pytest.fixture
async def on() -> AsyncIterator[Bench]:
    async with bench() as made:
        yield made


def shipped(on: Bench, name: str, rating_w: float, unit: int = 1, reversion_s: float | None = None) -> DeviceBinding:
    profile = load_profile(name)
    timer_s = reversion_s or (profile.control.reversion_s if profile.control else None)
    return on.bind(profile, unit=unit, rating_w=rating_w, reversion_s=timer_s)


def sunspec(on: Bench, *models: tuple[int, dict[str, Any]]) -> None:
    on.server.put(40000, sunspec_map([COMMON, *models]))


def value(on: Bench, model: int, point: str, *chain: int) -> int:
    """A point's registers in the server, where pysunspec2 says it is, after these models."""
    place = Model(model).points[point]
    address = 40002 + sum(len(Model(each).get_mb()) // 2 for each in (1, *chain)) + place.offset
    signed = place.pdef["type"].startswith("int")
    return int.from_bytes(on.server.read(address, place.len), signed=signed)


async def write(on: Bench, driver: ModbusDriver, power_w: float) -> None:
    setpoint = on.setpoint(power_w)
    driver.write(setpoint)
    result = await on.answered(setpoint)
    assert result.status is WriteStatus.ACKNOWLEDGED, result


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (203, {"W": -1234, "W_SF": 1, "AphB": 250, "A_SF": -1, "PhV": 2301, "V_SF": -1, "TotWhImp": 9, "TotWh_SF": 3}),
        (213, {"W": -12340.0, "AphB": 25.0, "PhV": 230.1, "TotWhImp": 9000.0}),
    ],
)
async def test_a_meter_counts_import_as_positive(on: Bench, model: int, values: dict[str, Any]) -> None:
    sunspec(on, (model, values))
    async with on.running(shipped(on, "sunspec_meter", 100_000.0)):
        await on.present()
        assert on.sink.value("unit", "power_w") == pytest.approx(-12_340.0)
        assert on.sink.value("unit", "current_l2_a") == pytest.approx(25.0)
        assert on.sink.value("unit", "voltage_v") == pytest.approx(230.1)
        assert on.sink.value("unit", "energy_import_wh") == pytest.approx(9000.0)
        assert not on.sink.is_good("unit", "power_l1_w")


async def test_a_meter_is_polled_by_one_request(on: Bench) -> None:
    sunspec(on, (203, {"W": 0, "W_SF": 0}))
    async with on.running(shipped(on, "sunspec_meter", 100_000.0)) as driver:
        await on.present()
        before = len(on.server.asked)
        await on.polled(driver)
        assert len(on.server.asked) == before + 1


async def test_an_inverter_is_limited_in_percent_with_its_timer_armed_before(on: Bench) -> None:
    limit = {"WMaxLimPct": 10000, "WMaxLimPct_SF": -2, "WMaxLimPct_RvrtTms": 0, "WMaxLim_Ena": 0}
    chain = (103, 120, 121, 122)
    sunspec(
        on,
        (103, {"W": 3000, "W_SF": 1, "St": 4}),
        (120, {"WRtg": 60, "WRtg_SF": 3}),
        (121, {"WMax": 60, "WMax_SF": 3}),
        (122, {"WAval": 45, "WAval_SF": 3}),
        (123, limit),
    )
    async with on.running(shipped(on, "sunspec_inverter", 60_000.0)) as driver:
        await on.present()
        assert on.sink.value("unit", "power_w") == -30_000.0
        assert on.sink.value("unit", "state") == "mppt"
        assert on.sink.value("unit", "available_w") == 45_000.0
        await write(on, driver, -12_345.6)
        await write(on, driver, -12_000.0)
        assert value(on, 123, "WMaxLimPct", *chain) == 2000
        assert value(on, 123, "WMaxLimPct_RvrtTms", *chain) == 30
        assert value(on, 123, "WMaxLim_Ena", *chain) == 1
        await driver.rest(2.0)
        assert value(on, 123, "WMaxLimPct", *chain) == 0
    assert [int.from_bytes(data) for _, data in on.server.written()] == [30, 2057, 1, 2000, 1, 0, 1]


async def test_a_battery_takes_watts_and_goes_to_nothing_when_its_timer_ends(on: Bench) -> None:
    chain = (701, 702, 713)
    sunspec(
        on,
        (701, {"W": 2500, "W_SF": 1, "InvSt": 3, "TotWhAbs": 7, "TotWh_SF": 0}),
        (702, {"WChaRteMax": 50, "WDisChaRteMax": 40, "W_SF": 3}),
        (713, {"SoC": 555, "Pct_SF": -1, "Sta": 0}),
        (704, {"WSet_SF": 0}),
    )
    async with on.running(shipped(on, "sunspec_battery", 50_000.0, reversion_s=15.0)) as driver:
        await on.present()
        assert on.sink.value("unit", "power_w") == -25_000.0
        assert on.sink.value("unit", "soc") == pytest.approx(0.555)
        assert (on.sink.value("unit", "max_charge_w"), on.sink.value("unit", "max_discharge_w")) == (50e3, 40e3)
        await write(on, driver, 20_000.4)
        assert {
            point: value(on, 704, point, *chain)
            for point in ("WSetEna", "WSetMod", "WSet", "WSetRvrt", "WSetEnaRvrt", "WSetRvrtTms")
        } == {"WSetEna": 1, "WSetMod": 1, "WSet": -20_000, "WSetRvrt": 0, "WSetEnaRvrt": 1, "WSetRvrtTms": 15}
        before = len(on.server.written())
        await write(on, driver, -7_000.0)
        assert len(on.server.written()) == before + 2
        assert value(on, 704, "WSet", *chain) == 7_000
        await driver.rest(2.0)
        assert value(on, 704, "WSet", *chain) == 0


def keba(on: Bench) -> None:
    reads = {1000: 3, 1004: 7, 1006: 0, 1008: 16_000, 1010: 16_000, 1012: 15_900, 1014: 18416854, 1018: 50990336}
    for address, raw in (reads | {1020: 11_012_345, 1036: 381010, 1040: 230, 1502: 16000}).items():
        on.server.put(address, struct.pack(">I", raw))
    for address in (5004, 5014, 5016, 5018):
        on.server.put(address, bytes(2))


async def test_a_charger_is_read_value_by_value(on: Bench) -> None:
    keba(on)
    async with on.running(shipped(on, "keba_p30", 22_080.0, unit=255)):
        await on.present()
        assert on.sink.value("unit", "power_w") == pytest.approx(11_012.345)
        assert on.sink.value("unit", "charging_state") == "C"
        assert on.sink.value("unit", "cable_state") == "vehicle_locked"
        assert on.sink.value("unit", "current_l3_a") == pytest.approx(15.9)
        assert on.sink.value("unit", "session_energy_wh") == 1600.0
    assert {(asked.unit, asked.function, asked.count) for asked in on.server.asked} == {(255, 3, 2)}


async def test_a_charger_gets_whole_amperes_and_is_disabled_below_six(on: Bench) -> None:
    keba(on)
    async with on.running(shipped(on, "keba_p30", 22_080.0, unit=255)) as driver:
        await on.present()
        await write(on, driver, 11_700.0)
        await write(on, driver, 4_139.0)
        await write(on, driver, 22_080.0)
        await driver.rest(2.0)
    writes = [asked for asked in on.server.asked if asked.data]
    assert {asked.function for asked in writes} == {6}
    assert [(asked.address, int.from_bytes(asked.data)) for asked in writes] == [
        (5016, 0),
        (5018, 10),
        (5004, 16_000),
        (5014, 1),
        (5014, 0),
        (5004, 32_000),
        (5014, 1),
        (5014, 0),
    ]


async def test_the_failsafe_of_a_charger_is_armed_again_after_a_reconnect(on: Bench) -> None:
    keba(on)
    async with on.running(shipped(on, "keba_p30", 22_080.0, unit=255)) as driver:
        await on.present()
        await write(on, driver, 6_900.0)
        on.server.reset()
        await on.present(2)
        await on.until(lambda: len(on.server.written()) == 8)
    assert next(asked for asked in on.server.asked if asked.connection == 2) == Asked(2, 255, 6, 5016, 1, bytes(2))
