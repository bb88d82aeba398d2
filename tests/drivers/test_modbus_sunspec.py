"""SunSpec devices, whose registers pysunspec2 encodes: found, resolved, scaled and written."""

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sunspec2.device import Model

from config.loading import load_profile
from config.profile import PollGroup, Profile
from config.vocabulary import Quality, WriteStatus
from drivers.modbus.plan import plan_blocks
from drivers.modbus.request import Failure, RequestFailed
from drivers.modbus.sunspec import Model as FoundModel
from drivers.modbus.sunspec import NotSunSpec, definitions_of, discover, identity, resolve
from drivers.modbus.sunspec_models import load_model
from tests.drivers.modbus_server import Bench, bench, make_profile, sunspec_map

COMMON = (1, {"Mn": "Maker", "Md": "Model 3", "SN": "00042"})
INVERTER: dict[str, Any] = {"W": 4321, "W_SF": 0, "Hz": 5001, "Hz_SF": -2, "St": 4, "WH": 0, "WH_SF": 0}
LIMIT: dict[str, Any] = {"WMaxLimPct": 10000, "WMaxLimPct_SF": -2, "WMaxLimPct_RvrtTms": 0, "WMaxLim_Ena": 0}


@pytest.fixture
async def on() -> AsyncIterator[Bench]:
    async with bench() as made:
        yield made


def profile(slow_poll_s: float = 1000.0, **points: Mapping[str, Any]) -> Profile:
    return make_profile(
        {
            "power_w": {"sunspec": {"models": [103, 113], "point": "W"}, "sign": "generator", "poll": "fast"},
            "frequency_hz": {"sunspec": {"models": [103, 113], "point": "Hz"}, "poll": "fast"},
            "limit_pu": {
                "sunspec": {"models": [123], "point": "WMaxLimPct"},
                "unit": "pu",
                "scale": 0.01,
                "access": "rw",
                "range": [0, 1],
            },
            "enable": {"sunspec": {"models": [123], "point": "WMaxLim_Ena"}, "access": "w"},
            **points,
        },
        {
            "power": "ceiling",
            "writes": [{"point": "limit_pu", "quantity": "generation_pu"}, {"point": "enable", "value": 1}],
        },
        slow_poll_s=slow_poll_s,
    )


def address_of(base: int, *models: int) -> int:
    """Where the last of these models begins, if they follow each other from the base."""
    return base + 2 + sum(len(Model(model).get_mb()) // 2 for model in models[:-1])


@pytest.mark.parametrize("base", [40000, 0, 50000])
async def test_a_device_is_found_wherever_its_map_begins(on: Bench, base: int) -> None:
    on.server.put(base, sunspec_map([COMMON, (103, INVERTER), (123, LIMIT)]))
    async with on.running(on.bind(profile())) as driver:
        await on.present()
        assert on.sink.value("unit", "power_w") == -4321.0
        assert on.sink.value("unit", "frequency_hz") == pytest.approx(50.01)
        assert on.sink.value("unit", "limit_pu") == 1.0
        assert driver.stats.identities == {"unit": "Maker Model 3 00042"}


async def test_the_first_model_that_the_device_has_gives_the_point(on: Bench) -> None:
    on.server.put(40000, sunspec_map([COMMON, (113, {"W": 250.5, "Hz": 49.9}), (123, LIMIT)]))
    async with on.running(on.bind(profile())):
        await on.present()
        assert on.sink.value("unit", "power_w") == -250.5


async def test_a_scale_factor_that_changes_with_its_value_takes_effect_with_it(on: Bench) -> None:
    on.server.put(40000, sunspec_map([COMMON, (103, INVERTER), (123, LIMIT)]))
    async with on.running(on.bind(profile())) as driver:
        await on.present()
        on.server.put(40000, sunspec_map([COMMON, (103, {**INVERTER, "W": 432, "W_SF": 1}), (123, LIMIT)]))
        await on.polled(driver)
        assert on.sink.value("unit", "power_w") == -4320.0


async def test_a_scale_factor_far_from_its_point_takes_effect_with_the_slow_poll(on: Bench) -> None:
    on.server.put(40000, sunspec_map([COMMON, (103, INVERTER), (123, LIMIT)]))
    async with on.running(on.bind(profile(slow_poll_s=0.02))) as driver:
        await on.present()
        changed = {**LIMIT, "WMaxLimPct": 100, "WMaxLimPct_SF": 0}
        on.server.put(40000, sunspec_map([COMMON, (103, INVERTER), (123, changed)]))
        await on.until(lambda: len(on.sink.deliveries) > 8)
        assert on.sink.value("unit", "limit_pu") == 1.0
        setpoint = on.setpoint(-5099.0)
        driver.write(setpoint)
        assert (await on.answered(setpoint)).status is WriteStatus.ACKNOWLEDGED
    assert on.server.written()[0][1] == struct.pack(">H", 50)


METER: dict[str, Any] = {"W": 1234, "W_SF": 0, "Hz": 5001, "Hz_SF": -2, "PhV": 2301, "V_SF": -1}
DER_MODEL = FoundModel(701, 40070, 153)
DER: dict[str, Any] = {"W": 1234, "W_SF": 0, "Hz": 50010, "Hz_SF": -3, "LNV": 2301, "V_SF": -1}


def measuring(*models: int, voltage: str, **pace: float) -> Profile:
    wanted = {"power_w": "W", "frequency_hz": "Hz", "voltage_v": voltage}
    points = {
        name: {"sunspec": {"models": list(models), "point": point}, "poll": "fast"} for name, point in wanted.items()
    }
    return make_profile(points, None, **pace)


@pytest.mark.parametrize(
    ("model", "values", "voltage"), [(203, METER, "PhV"), (701, DER, "LNV")], ids=["may change", "static"]
)
async def test_a_fast_value_comes_with_its_scale_factor_in_one_request(
    on: Bench, model: int, values: dict[str, Any], voltage: str
) -> None:
    on.server.put(40000, sunspec_map([COMMON, (model, values)]))
    async with on.running(on.bind(measuring(model, voltage=voltage))) as driver:
        await on.present()
        assert on.sink.value("unit", "power_w") == 1234.0
        on.server.put(40000, sunspec_map([COMMON, (model, {**values, "W": 123, "W_SF": 1, "V_SF": 0})]))
        before = len(on.server.asked)
        await on.polled(driver)
        assert len(on.server.asked) - before == 1
        assert on.sink.value("unit", "power_w") == 1230.0
        assert on.sink.value("unit", "voltage_v") == 2301.0


async def test_a_scale_factor_too_far_for_one_request_is_read_with_every_fast_poll(on: Bench) -> None:
    on.server.put(40000, sunspec_map([COMMON, (203, METER)]))
    async with on.running(on.bind(measuring(203, voltage="PhV", max_registers=2, max_gap_registers=0))) as driver:
        await on.present()
        on.server.put(40000, sunspec_map([COMMON, (203, {**METER, "W": 123, "W_SF": 1, "V_SF": 0})]))
        await on.polled(driver)
        assert on.sink.value("unit", "power_w") == 1230.0
        assert on.sink.value("unit", "voltage_v") == 2301.0


def test_a_static_scale_factor_costs_neither_a_request_nor_time_on_a_line() -> None:
    places = resolve(profile_701 := measuring(701, voltage="LNV"), [DER_MODEL], definitions_of(profile_701))
    fast = {
        on_a_line: plan_blocks(profile_701, places, on_a_line=on_a_line)[PollGroup.FAST] for on_a_line in (False, True)
    }
    assert [block.count for block in fast[True]] == [9]
    assert [block.count for block in fast[False]] == [107]
    short = measuring(701, voltage="LNV", max_registers=60)
    blocks = plan_blocks(short, resolve(short, [DER_MODEL], definitions_of(short)))
    assert [block.count for block in blocks[PollGroup.FAST]] == [9]


@pytest.mark.parametrize("bad", [-0x8000, 11, -11])
async def test_a_bad_scale_factor_makes_its_points_bad_and_the_device_absent(on: Bench, bad: int) -> None:
    broken = sunspec_map([COMMON, (103, {**INVERTER, "W_SF": 0}), (123, LIMIT)])
    on.server.put(40000, broken)
    async with on.running(on.bind(profile())) as driver:
        await on.present()
        on.server.registers[address_of(40000, 1, 103) + 15] = bad & 0xFFFF
        await on.polled(driver)
        assert not on.sink.is_good("unit", "power_w")
        assert on.sink.is_good("unit", "frequency_hz")
        assert on.sink.devices[-1] == ("unit", False, "power_w is not a value")


async def test_what_is_not_implemented_is_bad(on: Bench) -> None:
    points = {
        name: {"sunspec": {"models": [model], "point": point}}
        for name, (model, point) in {
            "int16": (103, "VA"),
            "uint16": (103, "PPVphAB"),
            "acc32": (103, "WH"),
            "bitfield32": (103, "Evt1"),
            "enum16": (103, "StVnd"),
            "float32": (113, "WH"),
            "uint32": (704, "WSetRvrtTms"),
            "int32": (704, "WSet"),
            "uint64": (701, "TotWhInj"),
            "text": (1, "Opt"),
        }.items()
    }
    on.server.put(40000, sunspec_map([COMMON, (103, INVERTER), (113, {}), (123, LIMIT), (701, {}), (704, {})]))
    async with on.running(on.bind(profile(**points))):
        await on.present()
        assert {name: on.sink.value("unit", name) for name in points} == dict.fromkeys(points)


async def test_points_of_repeating_blocks_are_found_by_number(on: Bench) -> None:
    second = {"sunspec": {"models": [160], "point": "DCW", "block": 2}, "unit": "W"}
    modules = [{"ID": 1, "DCW": 100}, {"ID": 2, "DCW": 2345}]
    data = Model(160, data={"ID": 160, "L": 48, "DCW_SF": -1, "N": 2, "module": modules}).get_mb()
    on.server.put(40000, sunspec_map([COMMON, (103, INVERTER), (123, LIMIT)])[:-4] + data + b"\xff\xff\0\0")
    async with on.running(on.bind(profile(second_w=second))):
        await on.present()
        assert on.sink.value("unit", "second_w") == pytest.approx(234.5)


async def test_a_ceiling_is_rounded_so_that_less_is_generated(on: Bench) -> None:
    coarse = {**LIMIT, "WMaxLimPct": 100, "WMaxLimPct_SF": 0}
    on.server.put(40000, sunspec_map([COMMON, (103, INVERTER), (123, coarse)]))
    async with on.running(on.bind(profile(), rating_w=60_000.0)) as driver:
        await on.present()
        for power_w in (-35_999.0, -36_000.0, 500.0):
            driver.write(setpoint := on.setpoint(power_w))
            assert (await on.answered(setpoint)).status is WriteStatus.ACKNOWLEDGED
    limits = [struct.unpack(">H", data)[0] for _, data in on.server.written()[::2]]
    assert limits == [59, 60, 0]


async def test_a_device_without_the_model_for_its_power_is_absent_and_asked_again(on: Bench) -> None:
    on.server.put(40000, sunspec_map([COMMON, (123, LIMIT)]))
    async with on.running(on.bind(profile())) as driver:
        await on.until(lambda: bool(on.sink.devices))
        assert on.sink.devices == [("unit", False, "the device has no model that gives power_w")]
        assert driver.poll() == ()
        on.server.put(40000, sunspec_map([COMMON, (103, INVERTER), (123, LIMIT)]))
        await on.present()


async def test_a_device_that_is_no_sunspec_device_is_named_once(on: Bench) -> None:
    on.server.put(40000, bytes(8))
    async with on.running(on.bind(profile())):
        await on.until(lambda: len(on.server.asked) >= 6)
    assert on.sink.devices == [("unit", False, "no SunSpec marker at 40000, 0, 50000")]


async def test_a_control_point_that_is_missing_refuses_the_setpoint(on: Bench) -> None:
    on.server.put(40000, sunspec_map([COMMON, (103, INVERTER)]))
    async with on.running(on.bind(profile())) as driver:
        await on.present()
        assert not on.sink.is_good("unit", "limit_pu")
        driver.write(setpoint := on.setpoint(-100.0))
        result = await on.answered(setpoint)
    assert (result.status, result.detail) == (
        WriteStatus.REFUSED,
        "limit_pu: the device does not offer this point",
    )


async def test_the_models_are_looked_for_again_after_each_reconnect(on: Bench) -> None:
    on.server.put(40000, sunspec_map([COMMON, (103, INVERTER), (123, LIMIT)]))
    async with on.running(on.bind(profile())) as driver:
        await on.present()
        on.server.registers.clear()
        on.server.put(50000, sunspec_map([COMMON, (120, {}), (103, {**INVERTER, "W": 77}), (123, LIMIT)]))
        on.server.reset()
        await on.present(2)
        assert on.sink.value("unit", "power_w") == -77.0
        driver.write(setpoint := on.setpoint(-5000.0))
        await on.answered(setpoint)
    limit = load_model(123)
    assert limit is not None
    assert on.server.written()[0][0] == address_of(50000, 1, 120, 103, 123) + limit.points["WMaxLimPct"].offset


async def test_a_chain_without_an_end_does_not_go_on_for_ever(on: Bench) -> None:
    on.server.registers = dict.fromkeys(range(40000, 65536), 0)
    on.server.put(40000, b"SunS")
    async with on.running(on.bind(profile())):
        await on.until(lambda: bool(on.sink.devices))
    assert on.sink.devices[0][1] is False
    assert len(on.server.asked) < 210


@pytest.mark.parametrize("model", [1, 101, 103, 113, 120, 121, 122, 123, 124, 203, 213, 701, 702, 704, 713, 715, 802])
def test_points_lie_where_pysunspec2_puts_them(model: int) -> None:
    ours, theirs = load_model(model), Model(model)
    assert ours is not None
    for name, point in theirs.points.items():
        place = ours.points[name]
        assert (place.offset, place.size) == (point.offset, point.len), name


SHIPPED = [load_profile(name) for name in ("sunspec_battery", "sunspec_inverter", "sunspec_meter", "fronius_gen24")]
MODEL_IDS = st.sampled_from([1, 101, 103, 113, 120, 121, 122, 123, 124, 160, 203, 213, 701, 702, 704, 713, 64999])
LENGTHS = st.sampled_from([0, 1, 10, 50, 65, 66, 105, 124, 153, 0xFFFE]) | st.integers(0, 300)
MODELS = st.tuples(MODEL_IDS | st.integers(0, 0xFFFF), LENGTHS, st.binary(max_size=620))


@given(profile=st.sampled_from(SHIPPED), models=st.lists(MODELS, max_size=6), tail=st.binary(max_size=40))
@settings(max_examples=120, deadline=None)
def test_no_map_raises_or_gives_a_value_that_is_none(
    profile: Profile, models: list[tuple[int, int, bytes]], tail: bytes
) -> None:
    data = b"SunS"
    for model, length, content in models:
        data += struct.pack(">HH", model, length) + content.ljust(2 * min(length, 310), b"\x80")[: 2 * length]
    data += tail
    refused = RequestFailed(Failure.EXCEPTION, "exception 2")

    async def read(first: int, count: int) -> bytes:
        at = 2 * (first - 40000)
        if at < 0 or at + 2 * count > len(data):
            raise refused
        return data[at : at + 2 * count]

    async def story() -> None:
        try:
            _, chain = await discover(read)
        except NotSunSpec:
            return
        assert all(isinstance(word, str) for word in await identity(read, chain))
        places = resolve(profile, chain, definitions_of(profile))
        blocks = [block for group in plan_blocks(profile, places).values() for block in group]
        for block in blocks:
            try:
                reply = bytes((3, 0xFF & 2 * block.count)) + await read(block.first, block.count)
            except RequestFailed:
                continue
            for sample in block.decode(reply, 0.0).values():
                assert (sample.value is None) == (sample.quality is Quality.BAD)
                assert not isinstance(sample.value, float) or math.isfinite(sample.value)

    asyncio.run(story())
