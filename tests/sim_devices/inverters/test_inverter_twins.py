"""The twins of inverters and storages, seen by pymodbus: what their makers' documents say that they take and refuse."""

from __future__ import annotations

import pytest

from sim_devices.modbus import ModbusServer, make_unit
from tests.sim_devices.inverters.bench import UNIT, Box, a_battery, box, sunshine

NOTHING = pytest.approx(0, abs=1)

# Fronius GEN24: model 124 stands at 40343 (its ID), so that StorCtl_Mod is 40348, OutWRte 40355, InWRte 40356.
MODE, OUT_RATE, IN_RATE, REVERSION, FROM_GRID = 40348, 40355, 40356, 40358, 40360


async def window(unit: Box, out_rate: int | None, in_rate: int | None, mode: int) -> float:
    """What a power window (in hundredths of a percent) makes of the battery."""
    assert await unit.write(MODE, 0) == 0
    for address, rate in ((OUT_RATE, out_rate), (IN_RATE, in_rate)):
        if rate is not None:
            assert await unit.write(address, rate, "h") == 0
    assert await unit.write(MODE, mode) == 0
    unit.run(2)
    return unit.battery.power_w


async def test_fronius_power_windows_are_those_of_the_manuals_examples() -> None:
    async with box("fronius_gen24", a_battery()) as unit:
        assert await unit.value(40343) == 124
        assert await window(unit, 0, None, 2) == NOTHING, "1: charging alone, and nobody asks for it"
        assert await window(unit, -5_000, 7_500, 3) == pytest.approx(5_000, abs=1), "5: at least half"
        assert await window(unit, 5_000, -5_000, 3) == pytest.approx(-5_000, abs=1), "6: discharging with half"
        assert await window(unit, -5_000, None, 2) == pytest.approx(5_000, abs=1), "7: charging with half or more"
        assert await unit.value(40354) == 4, "charging"
        assert await window(unit, 10_000, 10_000, 0) == NOTHING


async def test_fronius_refuses_a_window_that_ends_before_it_begins() -> None:
    async with box("fronius_gen24", a_battery()) as unit:
        assert await window(unit, -1_000, 1_000, 3) == pytest.approx(1_000, abs=1)
        assert await unit.write(IN_RATE, 999, "h") == 3
        assert await unit.write(OUT_RATE, -10_001, "h") == 3
        assert await unit.write(MODE, 4) == 3
        assert (await unit.value(IN_RATE, "h"), await unit.value(OUT_RATE, "h")) == (1_000, -1_000)


async def test_fronius_takes_what_cannot_be_written_and_forgets_it() -> None:
    async with box("fronius_gen24", a_battery()) as unit:
        assert await unit.write(40351, 100) == 0, "ChaState"
        assert await unit.value(40351) == 5_000
        assert await unit.write_single(39_000, 1) == 2, "not in the map at all"


async def test_fronius_any_message_restarts_the_timer_and_silence_ends_the_window() -> None:
    async with box("fronius_gen24", a_battery()) as unit:
        assert await unit.write(REVERSION, 30) == 0
        assert await window(unit, 4_000, -4_000, 3) == pytest.approx(-4_000, abs=1)
        for _ in range(3):
            unit.run(25)
            assert await unit.value(MODE) == 3
        assert unit.battery.power_w == pytest.approx(-4_000, abs=1)
        unit.run(31)
        assert unit.battery.power_w == NOTHING
        assert await unit.value(MODE) == 0


async def test_fronius_charges_from_the_grid_only_where_it_may() -> None:
    async with box("fronius_gen24", a_battery()) as unit:
        assert await unit.write(FROM_GRID, 0) == 0
        assert await window(unit, -5_000, 5_000, 3) == NOTHING
        assert await window(unit, 5_000, -5_000, 3) == pytest.approx(-5_000, abs=1)


async def test_solaredge_follows_the_dynamic_limit_once_enabled_and_falls_back() -> None:
    async with box("solaredge_inverter", sunshine()) as unit:
        unit.run(1)
        assert await unit.write(0xF322, 30.0, "f", "little") == 0
        unit.run(2)
        assert unit.pv.power_w == pytest.approx(-9_000), "enabling is a write of its own"
        assert await unit.write(0xF312, 60.0, "f", "little") == 0
        assert await unit.write(0xF310, 20, "I", "little") == 0
        assert await unit.write(0xF300, 1) == 0
        unit.run(2)
        assert unit.pv.power_w == pytest.approx(-3_000, abs=1)
        assert await unit.value(40107) == 5, "throttled"
        unit.run(17)
        assert unit.pv.power_w == pytest.approx(-3_000, abs=1)
        unit.run(3)
        assert unit.pv.power_w == pytest.approx(-6_000, abs=1)
        assert await unit.value(0xF322, "f", "little") == 60.0
        assert await unit.write(0xF300, 0) == 0
        unit.run(2)
        assert unit.pv.power_w == pytest.approx(-9_000, abs=1)


async def test_solaredge_refuses_what_its_tables_exclude() -> None:
    async with box("solaredge_inverter", sunshine()) as unit:
        assert await unit.write(0xF322, 100.1, "f", "little") == 3
        assert await unit.write(0xF304, 1.0, "f", "little") == 2, "the rating is read only"
        assert await unit.write_single(0xF322, 0) == 2, "half a number"
        assert await unit.write(0xF100, 1) == 2
        assert await unit.write(40083, 1) == 2
        assert await unit.words(0xF0FF) == 2


async def test_solaredge_storage_acts_in_remote_control_and_returns_to_its_default_mode() -> None:
    async with box("solaredge_storage", a_battery()) as unit:
        assert await unit.write(0xE00B, 60, "I", "little") == 0
        assert await unit.write(0xE00E, 2_000.0, "f", "little") == 0
        assert await unit.write(0xE010, 1_500.0, "f", "little") == 0
        for mode, power_w in ((4, -1_500), (3, 2_000), (0, 0), (7, 0)):
            assert await unit.write(0xE00D, mode) == 0
            unit.run(2)
            assert unit.battery.power_w == pytest.approx(power_w, abs=1), mode
            assert await unit.value(0xE174, "f", "little") == pytest.approx(unit.battery.power_w)
        assert await unit.write(0xE00D, 4) == 0
        assert await unit.write(0xE00A, 3) == 0
        unit.run(61)
        assert unit.battery.power_w == pytest.approx(2_000, abs=1), "the default mode holds after the time-out"
        assert await unit.write(0xE004, 1) == 0
        unit.run(2)
        assert unit.battery.power_w == NOTHING, "no remote control"
        assert await unit.write(0xE00D, 6) == 3
        assert await unit.write(0xE00B, 86_401, "I", "little") == 3


async def test_solaredge_storage_charges_from_ac_only_as_its_policy_allows() -> None:
    async with box("solaredge_storage", a_battery()) as unit:
        assert await unit.write(0xE005, 0) == 0
        assert await unit.write(0xE00D, 3) == 0
        unit.run(2)
        assert unit.battery.power_w == NOTHING


async def test_sma_follows_a_setpoint_while_it_is_active_and_reads_it_as_nothing() -> None:
    async with box("sma_storage", a_battery()) as unit:
        assert await unit.write(40149, 3_000, "i") == 0
        unit.run(2)
        assert unit.battery.power_w == NOTHING, "inactive"
        assert await unit.write(40151, 802, "I") == 0
        unit.run(2)
        assert unit.battery.power_w == pytest.approx(-3_000, abs=1), "positive feeds in"
        assert await unit.value(30775, "i") == 3_000
        assert (await unit.value(30955, "I"), await unit.value(31395, "I")) == (2293, 3_000)
        assert await unit.words(40149, 4) == [0x8000, 0, 0x00FF, 0xFFFD]
        assert await unit.words(30775, 2, "input") == [0, 3_000]
        assert await unit.write(40151, 803, "I") == 0
        unit.run(2)
        assert unit.battery.power_w == NOTHING


async def test_sma_without_setpoints_falls_back_as_it_is_set() -> None:
    async with box("sma_storage", a_battery()) as unit:
        assert await unit.write(41195, 30, "I") == 0
        assert await unit.write(41215, -500, "i") == 0
        assert await unit.write(40149, 3_000, "i") == 0
        assert await unit.write(40151, 802, "I") == 0
        unit.run(29)
        assert unit.battery.power_w == pytest.approx(-3_000, abs=1)
        unit.run(3)
        assert unit.battery.power_w == pytest.approx(500, abs=1)
        assert await unit.write(41193, 2506, "I") == 0
        assert await unit.write(40149, 3_000, "i") == 0
        unit.run(3_600)
        assert unit.battery.power_w < -1_000, "values maintained, until the battery is empty"


async def test_sma_fills_the_gaps_between_its_values_and_has_nothing_beyond() -> None:
    async with box("sma_storage", a_battery()) as unit:
        words = await unit.words(30843, 114)
        assert isinstance(words, list)
        assert words[2:4] == [0, 50]
        assert words[10:112] == [0xFFFF] * 102
        assert await unit.words(20_000, 2) == 2
        assert await unit.write(40151, 801, "I") == 3
        assert await unit.write(41195, 0, "I") == 3


async def test_victron_each_phase_has_a_setpoint_that_lives_a_minute() -> None:
    async with box("victron_gx", a_battery()) as unit:
        assert await unit.value(31) == 8, "passthru"
        assert await unit.write(37, -1_000, "h") == 0
        assert await unit.write(40, -1_000, "h") == 0
        unit.run(30)
        assert await unit.write(98, 2_000, "i") == 0
        unit.run(2)
        assert unit.battery.power_w == pytest.approx(1_000, abs=1)
        assert (await unit.value(40, "h"), await unit.value(31)) == (2_000, 252)
        unit.run(30)
        assert await unit.value(37, "h") == -1_000
        unit.run(2)
        assert unit.battery.power_w == pytest.approx(2_000, abs=1), "the first phase's has gone"
        unit.run(60)
        assert unit.battery.power_w == NOTHING
        assert await unit.value(31) == 8


async def test_victron_the_setpoint_yields_to_the_flags() -> None:
    async with box("victron_gx", a_battery()) as unit:
        for flag, power_w in ((38, 500), (39, -500)):
            assert await unit.write(37, power_w, "h") == 0
            unit.run(2)
            assert unit.battery.power_w == pytest.approx(power_w, abs=1)
            assert await unit.write(flag, 1) == 0
            unit.run(2)
            assert unit.battery.power_w == NOTHING
            assert await unit.write(flag, 0) == 0
        assert await unit.write(38, 2) == 3
        assert await unit.write(12, 1) == 2, "read only"
        assert await unit.words(2) == 2
        assert await unit.words(3, 3, "input") == [2300, 2300, 2300]


async def test_victron_a_single_phase_has_nothing_on_the_others() -> None:
    async with box("victron_gx_1ph", a_battery(phases=(1,))) as unit:
        assert await unit.write(40, 5_000, "h") == 0
        assert await unit.write(37, 1_500, "h") == 0
        unit.run(2)
        assert unit.battery.power_w == pytest.approx(1_500, abs=1)
        assert await unit.words(12, 3) == [150, 0, 0]
        assert (await unit.value(28), await unit.value(4)) == (1, 0)


async def test_victron_a_single_phase_is_its_own_first_whichever_of_the_sites_it_is_on() -> None:
    async with box("victron_gx_1ph", a_battery(phases=(2,))) as unit:
        assert await unit.write(37, 1_500, "h") == 0
        unit.run(2)
        assert unit.battery.power_w_by_phase == pytest.approx((0, 1_500, 0), abs=1)
        assert await unit.words(12, 3) == [150, 0, 0]


async def test_huawei_a_forcible_charge_takes_its_power_with_the_command_and_ends_with_its_period() -> None:
    async with box("huawei_luna", a_battery()) as unit:
        assert await unit.write(47100, 1) == 0
        assert await unit.value(47100) == 0, "a period of nothing"
        assert await unit.write(47083, 2) == 0
        assert await unit.write(47247, 3_000, "I") == 0
        assert await unit.write(47249, 2_000, "I") == 0
        assert await unit.write(47100, 1) == 0
        unit.run(2)
        assert await unit.value(37765, "i") == 3_000
        assert await unit.write(47247, 1_000, "I") == 0
        unit.run(2)
        assert await unit.value(37765, "i") == 3_000, "with the next command"
        assert await unit.write(47100, 2) == 0
        unit.run(2)
        assert await unit.value(37765, "i") == -2_000
        unit.run(120)
        assert (await unit.value(37765, "i"), await unit.value(47100), await unit.value(47083)) == (0, 0, 0)


async def test_huawei_may_charge_to_a_state_of_charge_instead() -> None:
    async with box("huawei_luna", a_battery(soc=0.599)) as unit:
        assert await unit.write(47246, 1) == 0
        assert await unit.write(47101, 600) == 0
        assert await unit.write(47247, 10_000, "I") == 0
        assert await unit.write(47100, 1) == 0
        unit.run(60)
        assert await unit.value(47100) == 0
        unit.run(2)
        assert unit.battery.power_w == NOTHING
        assert await unit.write(47247, 10_001, "I") == 3
        assert await unit.write(47083, 1_441) == 3


async def test_huawei_derates_by_what_was_written_last() -> None:
    async with box("huawei_sun2000", sunshine()) as unit:
        assert await unit.write(40126, 4_000, "I") == 0
        unit.run(2)
        assert unit.pv.power_w == pytest.approx(-4_000, abs=1)
        assert await unit.value(32089) == 0x0201
        assert await unit.write(40125, 250, "h") == 0
        unit.run(2)
        assert unit.pv.power_w == pytest.approx(-2_500, abs=1)
        assert await unit.write(47416, 1_000, "i") == 0
        assert await unit.write(47415, 6) == 0
        unit.run(2)
        assert unit.pv.power_w == pytest.approx(-1_000, abs=1)
        assert await unit.write(40126, 10_001, "I") == 3
        assert await unit.words(37760) == 2, "no battery"
        assert await unit.words(32064, 2, "input") == 1


async def test_sungrow_compulsory_mode_holds_and_external_ems_needs_a_heartbeat() -> None:
    async with box("sungrow_sh", a_battery()) as unit:
        assert await unit.write(13050, 0xBB) == 0
        assert await unit.write(13051, 3_000) == 0
        unit.run(2)
        assert unit.battery.power_w == NOTHING, "self-consumption"
        assert await unit.write_single(13049, 2) == 0
        unit.run(1_000)
        assert unit.battery.power_w == pytest.approx(-3_000, abs=1)
        assert await unit.words(5213, 2, "input") == [3_000, 0], "the low word first"
        assert await unit.value(12999, table="input") == 0x0800
        assert await unit.value(13000, table="input") == 0b100
        assert await unit.write(13049, 3) == 0
        for _ in range(3):
            unit.run(15)
            assert await unit.write(13079, 20) == 0
        assert unit.battery.power_w == pytest.approx(-3_000, abs=1)
        unit.run(15)
        assert await unit.write(13051, 1_000) == 0
        unit.run(3)
        assert unit.battery.power_w == pytest.approx(-1_000, abs=1)
        unit.run(5)
        assert unit.battery.power_w == NOTHING, "a new power is no heartbeat"
        assert await unit.value(13049) == 0


async def test_sungrow_refuses_what_its_tables_exclude() -> None:
    async with box("sungrow_sh", a_battery()) as unit:
        assert await unit.write(13050, 0xAB) == 3
        assert await unit.write(13051, 10_001) == 3, "beyond the rating of the converter"
        assert await unit.write(13049, 1) == 3
        assert await unit.words(13049, 1, "input") == 2
        assert await unit.words(5213, 2) == 2, "an input register"
        assert await unit.write(33046, 200) == 0
        assert await unit.write(13050, 0xAA) == 0
        assert await unit.write(13051, 9_000) == 0
        assert await unit.write(13049, 2) == 0
        unit.run(2)
        assert unit.battery.power_w == pytest.approx(2_000, abs=1), "33047 limits it"


async def test_sungrow_limits_photovoltaics_while_that_is_enabled() -> None:
    async with box("sungrow_sh_pv", sunshine()) as unit:
        assert await unit.write(13089, 400) == 0
        unit.run(2)
        assert unit.pv.power_w == pytest.approx(-9_000, abs=1)
        assert await unit.write(13088, 0xAA) == 0
        unit.run(2)
        assert unit.pv.power_w == pytest.approx(-4_000, abs=1)
        assert await unit.words(5016, 2, "input") == [4_000, 0]
        assert await unit.write(13088, 0x55) == 0
        unit.run(2)
        assert unit.pv.power_w == pytest.approx(-9_000, abs=1)
        assert await unit.words(13049) == [0xFFFF], "no battery"


def test_only_the_two_parts_of_one_device_share_a_unit() -> None:
    server = ModbusServer()
    luna = make_unit("huawei_luna", a_battery(), clock=lambda: 0.0)
    server.add_unit(UNIT, luna)
    for profile, model in (
        ("huawei_luna", a_battery("second")),
        ("sungrow_sh_pv", sunshine()),
        ("sma_storage", a_battery()),
    ):
        with pytest.raises(ValueError, match="taken"):
            server.add_unit(UNIT, make_unit(profile, model, clock=lambda: 0.0))
    server.add_unit(UNIT, make_unit("huawei_hybrid_pv", sunshine(), clock=lambda: 0.0))
    assert server.units[UNIT] is not luna
    with pytest.raises(ValueError, match="taken"):
        server.add_unit(UNIT, make_unit("huawei_hybrid_pv", sunshine("again"), clock=lambda: 0.0))


def test_a_wrong_kind_of_model_is_named() -> None:
    with pytest.raises(TypeError, match="needs a BatteryModel, not a InverterModel"):
        make_unit("victron_gx", sunshine(), clock=lambda: 0.0)
