"""The shipped chargers over Modbus: their registers decoded, and their setpoints as requests worked out by hand."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.loading import check_profile, load_profile, shipped_profiles
from config.profile import PollGroup
from config.vocabulary import Quality, WriteStatus
from tests.profiles.meter_charger_registers import Charger, decoded, requests

CHARGERS = ["alfen_eve", "abb_terra_ac", "phoenix_charx"]
SET_CURRENT = {"alfen_eve": "1004ba000204", "abb_terra_ac": "104100000204", "phoenix_charx": "060515"}


@pytest.mark.parametrize("name", CHARGERS)
def test_a_charger_has_no_finding_and_shows_itself_with_each_cycle(name: str) -> None:
    assert check_profile(shipped_profiles()[name]) == []
    profile = load_profile(name)
    fast = {point for point, each in profile.points.items() if each.poll is PollGroup.FAST}
    assert {"power_w", "charging_state", "current_l1_a", "current_l2_a", "current_l3_a"} <= fast
    assert profile.control is not None
    assert (profile.control.power, profile.control.minimum_a) == ("ceiling", 6)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("alfen_eve", [("holding", 320, 26), ("holding", 1200, 16)]),
        ("abb_terra_ac", [("holding", 0x400C, 20)]),
        ("phoenix_charx", [("holding", 1232, 76)]),
    ],
)
def test_a_cycle_takes_few_requests(name: str, blocks: list[tuple[str, int, int]]) -> None:
    assert requests(load_profile(name))[PollGroup.FAST] == blocks


def check(name: str, words: dict[int, str], expected: dict[str, float | str]) -> None:
    samples = decoded(load_profile(name), words)
    assert {each: samples[each].quality for each in expected} == dict.fromkeys(expected, Quality.GOOD)
    texts = {each: value for each, value in expected.items() if isinstance(value, str)}
    numbers = {each: value for each, value in expected.items() if each not in texts}
    assert {each: samples[each].value for each in texts} == texts
    assert {each: samples[each].value for each in numbers} == pytest.approx(numbers)


# Decoding


def test_an_alfen_socket_speaks_in_floats_and_names_its_state() -> None:
    words = {
        300: "0003",
        301: "0000 0000 0000 00FA",  # 250 ms
        306: "4366 199A",  # 230.1 V
        320: "417E 6666 4120 0000 0000 0000",  # 15.9 A, 10 A, 0 A
        336: "4247 EB85",  # 49.98 Hz
        344: "462B A800",  # 10986 W
        374: "40FE 2400 0000 0000",  # 123456 Wh
        1200: "0001",
        1201: "4332 0000 0000 0000 0000",  # C2
        1206: "4180 0000",  # 16 A
        1208: "0000 0032",  # 50 s
        1210: "4180 0000 40C0 0000",  # 16 A, 6 A
        1214: "0001 0003",
    }
    expected: dict[str, float | str] = {
        "power_w": 10_986.0,
        "charging_state": "C",
        "current_l1_a": 15.9,
        "current_l2_a": 10.0,
        "current_l3_a": 0.0,
        "voltage_v": 230.1,
        "frequency_hz": 49.98,
        "energy_import_wh": 123_456.0,
        "meter_state": 3.0,
        "meter_age_s": 0.25,
        "availability": "operative",
        "applied_current_a": 16.0,
        "valid_s": 50.0,
        "set_current_a": 16.0,
        "safe_current_a": 6.0,
        "setpoint_accounted_for": "yes",
        "charging_phases": "three",
    }
    check("alfen_eve", words, expected)


def test_an_alfen_that_has_no_values_gives_none() -> None:
    profile = load_profile("alfen_eve")
    nothing = {300: " ".join(["FFFF"] * 200), 1200: " ".join(["FFFF"] * 20)}
    assert {sample.quality for sample in decoded(profile, nothing).values()} == {Quality.BAD}


def test_an_abb_counts_in_thousandths_and_has_its_state_in_one_byte() -> None:
    words = {
        0x4004: "0106 0500",
        0x4006: "0000 7D00",  # 32000 mA
        0x400A: "0000 0111",
        0x400C: "0000 8400",
        0x400E: "0000 3E80",  # 16000 mA
        0x4010: "0000 3E1C 0000 2710 0000 0000",  # 15900, 10000, 0 mA
        0x4016: "0000 08FD 0000 08FC 0000 08FB",  # 2301, 2300, 2299 tenths of a volt
        0x401C: "0000 2AEB",  # 10987 W
        0x401E: "0000 3039",  # 12345 Wh
        0x4020: "003C",
    }
    expected: dict[str, float | str] = {
        "power_w": 10_987.0,
        "charging_state": "C",
        "limit_current_a": 16.0,
        "current_l1_a": 15.9,
        "current_l2_a": 10.0,
        "current_l3_a": 0.0,
        "voltage_v": 230.1,
        "voltage_l2_v": 230.0,
        "voltage_l3_v": 229.9,
        "session_energy_wh": 12_345.0,
        "max_current_a": 32.0,
        "cable_state": "vehicle_locked",
        "communication_timeout_s": 60.0,
    }
    check("abb_terra_ac", words, expected)


def test_a_charx_counts_in_thousandths_and_names_its_state() -> None:
    words = {
        100: "4348 4152 5820 5345 432D 3331 3030",  # CHARX SEC-3100
        110: "312E 392E 3000",
        1120: "0005",
        1232: "0003 82D4",  # 230100 mV
        1238: "0000 3E1C 0000 2710 FFFF FFFF",  # 15900, 10000 mA, none
        1244: "00A7 A886",  # 10987654 mW
        1246: "FFFF FC18",  # -1000 mvar
        1250: "0000 0000 0001 E240",  # 123456 Wh
        1289: "0000 0000 0000 3039",  # 12345 Wh
        1293: "0000 0020",
        1299: "4332",  # C2
        1300: "0001 0010",
        1306: "0006 001E",
    }
    expected: dict[str, float | str] = {
        "power_w": 10_987.654,
        "charging_state": "C",
        "current_l1_a": 15.9,
        "current_l2_a": 10.0,
        "voltage_v": 230.1,
        "reactive_power_var": -1.0,
        "energy_import_wh": 123_456.0,
        "session_energy_wh": 12_345.0,
        "error_code": 32.0,
        "release": 1.0,
        "set_current_a": 16.0,
        "watchdog_current_a": 6.0,
        "watchdog_s": 30.0,
        "release_mode": "modbus",
        "designation": "CHARX SEC-3100",
        "software_version": "1.9.0",
    }
    check("phoenix_charx", words, expected)
    assert decoded(load_profile("phoenix_charx"), words)["current_l3_a"].quality is Quality.BAD


@pytest.mark.parametrize(
    ("name", "address", "words", "letter"),
    [
        ("alfen_eve", 1201, "4100", "A"),
        ("alfen_eve", 1201, "4231", "B"),
        ("alfen_eve", 1201, "4232", "B"),
        ("alfen_eve", 1201, "4331", "B"),
        ("alfen_eve", 1201, "4332", "C"),
        ("alfen_eve", 1201, "4432", "D"),
        ("alfen_eve", 1201, "4500", "E"),
        ("alfen_eve", 1201, "4600", "F"),
        ("alfen_eve", 1201, "5A5A", None),
        ("alfen_eve", 1201, "0000", None),
        ("abb_terra_ac", 0x400C, "0000 0000", "A"),
        ("abb_terra_ac", 0x400C, "0000 8100", "B"),
        ("abb_terra_ac", 0x400C, "0000 0200", "B"),
        ("abb_terra_ac", 0x400C, "0000 8300", "B"),
        ("abb_terra_ac", 0x400C, "0000 0400", "C"),
        ("abb_terra_ac", 0x400C, "0000 8500", "B"),
        ("abb_terra_ac", 0x400C, "0000 0600", None),
        ("phoenix_charx", 1299, "4131", "A"),
        ("phoenix_charx", 1299, "4231", "B"),
        ("phoenix_charx", 1299, "4331", "B"),
        ("phoenix_charx", 1299, "4332", "C"),
        ("phoenix_charx", 1299, "4530", "E"),
        ("phoenix_charx", 1299, "4630", "F"),
        ("phoenix_charx", 1299, "494E", None),
    ],
)
def test_a_state_is_a_letter_or_nothing(name: str, address: int, words: str, letter: str | None) -> None:
    assert decoded(load_profile(name), {address: words})["charging_state"].value == letter


# Setpoints


async def test_an_alfen_takes_one_float_and_pauses_at_zero() -> None:
    charger = Charger("alfen_eve")
    assert charger.ask(0.0) == ["1004ba00020400000000"]
    assert charger.ask(3_000.0) == ["1004ba00020400000000"]  # 4.3 A on three phases
    assert charger.ask(11_000.0) == ["1004ba000204417e6666"]  # 15.9 A
    assert charger.rest() == ["1004ba00020400000000"]


async def test_an_alfen_on_one_phase_can_charge_with_three_kilowatts() -> None:
    assert Charger("alfen_eve", rating_w=7_360.0, phases=1).ask(3_000.0) == ["1004ba00020441500000"]  # 13 A


async def test_an_abb_gets_its_timer_once_and_milliamperes_each_time() -> None:
    charger = Charger("abb_terra_ac")
    assert charger.ask(0.0) == ["064106003c", "10410000020400000000"]
    assert charger.ask(3_000.0) == ["10410000020400000000"]
    assert charger.ask(11_000.0) == ["10410000020400003e1c"]  # 15900 mA
    assert charger.rest() == ["10410000020400000000"]


async def test_an_abb_on_one_phase_can_charge_with_three_kilowatts() -> None:
    one_phase = Charger("abb_terra_ac", rating_w=7_360.0, phases=1)
    assert one_phase.ask(3_000.0)[-1] == "104100000204000032c8"  # 13000 mA


async def test_a_charx_gets_watchdog_current_and_release_in_this_order() -> None:
    charger = Charger("phoenix_charx")
    watchdog = ["06051a0006", "06051b001e"]  # 6 A after 30 s
    assert charger.ask(0.0) == [*watchdog, "0605140000"]
    assert charger.ask(3_000.0) == [*watchdog, "0605140000"]
    assert charger.ask(11_000.0) == [*watchdog, "060515000f", "0605140001"]  # 15 A, then released
    assert charger.rest() == ["0605140000"]


async def test_a_charx_on_one_phase_can_charge_with_three_kilowatts() -> None:
    one_phase = Charger("phoenix_charx", rating_w=7_360.0, phases=1)
    assert one_phase.ask(3_000.0)[2:] == ["060515000d", "0605140001"]  # 13 A


def asked_current_a(name: str, sent: list[str]) -> float:
    """The current in the requests of a setpoint; 0 where there is none."""
    found = [pdu[len(SET_CURRENT[name]) :] for pdu in sent if pdu.startswith(SET_CURRENT[name])]
    if not found:
        return 0.0
    if name == "alfen_eve":
        return float(struct.unpack(">f", bytes.fromhex(found[0]))[0])
    return int(found[0], 16) / (1000.0 if name == "abb_terra_ac" else 1.0)


@given(name=st.sampled_from(CHARGERS), phases=st.sampled_from([1, 3]), share=st.floats(0.0, 1.0))
async def test_a_charger_is_never_asked_for_more_than_it_may_take(name: str, phases: int, share: float) -> None:
    rating_w = phases * 230.0 * 32.0
    amperes = asked_current_a(name, Charger(name, rating_w, phases).ask(share * rating_w))
    assert amperes == 0.0 or amperes >= 6.0
    assert amperes * phases * 230.0 <= share * rating_w * (1.0 + 1e-6)


async def test_more_than_an_alfen_can_do_is_refused_before_it_is_sent() -> None:
    charger = Charger("alfen_eve", rating_w=44_000.0)
    assert charger.ask(44_000.0) == []
    assert [(result.status, result.detail) for result in charger.sink.results] == [
        (WriteStatus.REFUSED, "set_current_a: 63.7 is outside 0 to 32")
    ]


@pytest.mark.parametrize("name", ["alfen_eve", "abb_terra_ac"])
def test_a_limit_that_may_end_with_the_gateway_says_so(name: str) -> None:
    assert load_profile(name).on_silence.behaviour == "unlimited"


def test_a_charx_falls_back_to_six_amperes() -> None:
    silence = load_profile("phoenix_charx").on_silence
    assert (silence.behaviour, silence.value_w, silence.after_s) == ("value", 6 * 3 * 230.0, 30.0)
