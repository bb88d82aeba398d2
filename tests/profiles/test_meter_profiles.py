"""The shipped meters: what they ask for, and what comes of registers and messages that were worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.loading import check_profile, load_profile, shipped_profiles
from config.profile import PollGroup
from config.vocabulary import Quality
from drivers.mqtt.payload import NOTHING, Payload
from drivers.reading import TypedCodec
from tests.profiles.meter_charger_registers import decoded, requests

METERS = ["eastron_sdm630", "carlo_gavazzi_em340", "janitza_umg604", "shelly_pro_3em"]
REGISTER_METERS = METERS[:3]


@pytest.mark.parametrize("name", METERS)
def test_a_meter_has_no_finding_and_gives_every_phase_with_each_cycle(name: str) -> None:
    assert check_profile(shipped_profiles()[name]) == []
    profile = load_profile(name)
    fast = {point for point, each in profile.points.items() if each.poll is PollGroup.FAST}
    assert {
        "power_w",
        *(f"{what}_l{phase}_{unit}" for what, unit in (("power", "w"), ("current", "a")) for phase in (1, 2, 3)),
    } <= fast
    assert {"energy_import_wh", "energy_export_wh", "frequency_hz", "voltage_v"} <= set(profile.points)
    assert profile.control is None


@pytest.mark.parametrize(
    ("name", "table", "first", "count"),
    [
        ("eastron_sdm630", "input", 0x06, 48),
        ("carlo_gavazzi_em340", "input", 0x0C, 30),
        ("janitza_umg604", "holding", 19012, 16),
    ],
)
def test_a_cycle_takes_one_request(name: str, table: str, first: int, count: int) -> None:
    assert requests(load_profile(name))[PollGroup.FAST] == [(table, first, count)]


def check(samples: dict[str, Any], expected: dict[str, float]) -> None:
    assert {name: samples[name].quality for name in expected} == dict.fromkeys(expected, Quality.GOOD)
    assert {name: samples[name].value for name in expected} == pytest.approx(expected)


def test_an_eastron_speaks_in_floats_and_kilowatt_hours() -> None:
    words = {
        0x0000: "4366 199A 4366 0000 4365 E666",  # 230.1 V, 230 V, 229.9 V
        0x0006: "417E 6666 4120 0000 0000 0000",  # 15.9 A, 10 A, 0 A
        0x000C: "C5B0 8000 451C 4000 447A 0000",  # -5648 W, 2500 W, 1000 W
        0x002A: "4366 0000",
        0x0034: "C506 4000",  # -2148 W
        0x0046: "4247 EB85",  # 49.98 Hz
        0x0048: "44BB 9000 4148 0000",  # 1500.5 kWh, 12.5 kWh
    }
    expected = {
        "power_w": -2148.0,
        "power_l1_w": -5648.0,
        "power_l2_w": 2500.0,
        "power_l3_w": 1000.0,
        "current_l1_a": 15.9,
        "current_l2_a": 10.0,
        "current_l3_a": 0.0,
        "voltage_v": 230.0,
        "voltage_l1_v": 230.1,
        "voltage_l3_v": 229.9,
        "frequency_hz": 49.98,
        "energy_import_wh": 1_500_500.0,
        "energy_export_wh": 12_500.0,
    }
    check(decoded(load_profile("eastron_sdm630"), words), expected)


def test_a_carlo_gavazzi_sends_the_low_word_first() -> None:
    words = {
        0x0000: "08FD 0000 08FC 0000 08FB 0000",  # 2301, 2300, 2299 tenths of a volt
        0x000C: "3E1C 0000 2710 0000 0000 0000",  # 15900, 10000, 0 mA
        0x0012: "CFC7 FFFF 61A8 0000 0001 0001",  # -12345, 25000, 65537 tenths of a watt
        0x0024: "08FC 0000",
        0x0028: "CFC7 FFFF",
        0x0031: "FC2C",  # -980 thousandths
        0x0033: "01F4",  # 500 tenths of a hertz
        0x0034: "E240 0001",  # 123456 tenths of a kilowatt hour
        0x004E: "0007 0000",
    }
    expected = {
        "power_w": -1234.5,
        "power_l1_w": -1234.5,
        "power_l2_w": 2500.0,
        "power_l3_w": 6553.7,
        "current_l1_a": 15.9,
        "current_l2_a": 10.0,
        "voltage_v": 230.0,
        "voltage_l1_v": 230.1,
        "voltage_l3_v": 229.9,
        "power_factor": -0.98,
        "frequency_hz": 50.0,
        "energy_import_wh": 12_345_600.0,
        "energy_export_wh": 700.0,
    }
    check(decoded(load_profile("carlo_gavazzi_em340"), words), expected)


def test_a_carlo_gavazzi_that_cannot_show_a_value_gives_none() -> None:
    samples = decoded(load_profile("carlo_gavazzi_em340"), {0x0028: "FFFF 7FFF", 0x0034: "FFFF 7FFF"})
    assert samples["power_w"].quality is samples["energy_import_wh"].quality is Quality.BAD


def test_a_janitza_speaks_in_floats_and_watt_hours() -> None:
    words = {
        19000: "4366 199A 4366 0000 4365 E666",
        19012: "417E 6666 4120 0000 0000 0000",
        19020: "C5B0 8000 451C 4000 447A 0000",
        19026: "C506 4000",
        19050: "4247 EB85",
        19068: "49B7 2D20",  # 1500580 Wh
        19076: "4643 5000",  # 12500 Wh
    }
    expected = {
        "power_w": -2148.0,
        "power_l1_w": -5648.0,
        "power_l2_w": 2500.0,
        "power_l3_w": 1000.0,
        "current_l1_a": 15.9,
        "voltage_v": 230.1,
        "voltage_l2_v": 230.0,
        "frequency_hz": 49.98,
        "energy_import_wh": 1_500_580.0,
        "energy_export_wh": 12_500.0,
    }
    check(decoded(load_profile("janitza_umg604"), words), expected)


@pytest.mark.parametrize(("name", "address"), [("eastron_sdm630", 0x0034), ("janitza_umg604", 19026)])
@pytest.mark.parametrize("word", ["7FC0 0000", "FFFF FFFF", "7F80 0000", "FF80 0000"])
def test_what_is_no_number_is_no_power(name: str, address: int, word: str) -> None:
    assert decoded(load_profile(name), {address: word})["power_w"].quality is Quality.BAD


STATUS: dict[str, Any] = {
    "id": 0,
    "a_current": 4.029,
    "a_voltage": 236.1,
    "a_act_power": -951.2,
    "a_freq": 50.0,
    "b_current": 0.5,
    "b_voltage": 235.0,
    "b_act_power": 100.4,
    "c_current": 0.0,
    "c_voltage": 234.2,
    "c_act_power": 0.0,
    "n_current": None,
    "total_current": 4.529,
    "total_act_power": -850.8,
    "total_aprt_power": 1069.4,
    "user_calibrated_phase": [],
}
ENERGY = {"id": 0, "total_act": 1264150.5, "total_act_ret": 144792.28}


def shelly(point: str, message: bytes) -> float | str | None:
    profile = load_profile("shelly_pro_3em").points[point]
    assert profile.mqtt is not None
    found = Payload(message).at(profile.mqtt.json_path)
    return None if found is NOTHING else TypedCodec(profile, text=profile.mqtt.type == "text").decode(found)


@pytest.mark.parametrize(
    ("point", "status", "value"),
    [
        ("power_w", STATUS, -850.8),
        ("power_l1_w", STATUS, -951.2),
        ("power_l2_w", STATUS, 100.4),
        ("power_l3_w", STATUS, 0.0),
        ("current_l1_a", STATUS, 4.029),
        ("current_n_a", STATUS, None),
        ("voltage_v", STATUS, 236.1),
        ("voltage_l3_v", STATUS, 234.2),
        ("frequency_hz", STATUS, 50.0),
        ("apparent_power_va", STATUS, 1069.4),
        ("energy_import_wh", ENERGY, 1_264_150.5),
        ("energy_export_wh", ENERGY, 144_792.28),
    ],
)
def test_a_shelly_says_what_is_returned_with_a_minus(point: str, status: dict[str, Any], value: float | None) -> None:
    assert shelly(point, json.dumps(status).encode()) == value


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"true",
        b"{",
        b'{"total_act_power": null, "errors": ["power_meter_failure"]}',
        b'{"total_act_power": NaN}',
        b'{"total_act_power": "many"}',
        b'{"total_act_power": 1e9}',
        b'{"id": 0}',
    ],
)
def test_a_shelly_that_has_no_power_to_tell_gives_none(message: bytes) -> None:
    assert shelly("power_w", message) is None


def test_a_shelly_is_told_apart_by_its_topic_prefix_and_gone_by_its_last_will() -> None:
    profile = load_profile("shelly_pro_3em")
    assert profile.parameters == ("topic_prefix",)
    topics = {each.mqtt.topic for each in profile.points.values() if each.mqtt is not None}
    assert topics == {"{topic_prefix}/status/em:0", "{topic_prefix}/status/emdata:0"}
    assert profile.availability is not None
    assert (profile.availability.topic, profile.availability.online) == ("{topic_prefix}/online", "true")
