"""Register images: encoding, "not implemented", reads that touch parts, writes that are all or nothing."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_devices.modbus import ExceptionCode
from sim_devices.modbus.registers import TYPES, RegisterImage, Setting, decode, encode
from sim_devices.modbus.sunspec_layout import chain, layout, scale_for

INTEGERS = ["int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize(
    ("kind", "exponent", "value", "raw"),
    [
        ("int16", -2, 1.15, 115),
        ("int16", -1, -1.15, -12),
        ("int16", 1, -327_670.0, -32767),
        ("int16", 1, -327_675.1, -32768),
        ("int16", 0, None, -32768),
        ("int16", 0, math.nan, -32768),
        ("int16", 0, math.inf, -32768),
        ("uint16", 0, -1, 65535),
        ("uint16", 0, 65534, 65534),
        ("uint16", 0, 65535, 65535),
        ("uint32", -3, 50.0, 50_000),
        ("int32", 0, -(2**31), -(2**31)),
        ("uint64", 0, None, 2**64 - 1),
        ("acc32", 0, None, 0),
        ("acc32", 0, 2**32 + 5, 5),
        ("bitfield32", 0, None, 0xFFFF_FFFF),
        ("bitfield16", 0, 0x8000, 0xFFFF),
        ("enum16", 0, None, 0xFFFF),
        ("sunssf", 0, 11, -32768),
        ("sunssf", 0, -3, -3),
    ],
)
def test_values_are_rounded_then_checked(kind: str, exponent: int, value: float | None, raw: int) -> None:
    assert encode(TYPES[kind], exponent, value) == raw


def test_a_float_that_is_not_a_number_is_the_not_implemented_value() -> None:
    image = RegisterImage(0, 4)
    image.put(0, TYPES["float32"], 0, 1.5)
    image.put(2, TYPES["float32"], 0, None)
    assert image.read(0, 4) == bytes.fromhex("3fc00000 7fc00000")


@given(st.sampled_from(INTEGERS), st.integers(-3, 3), st.floats(-1e5, 1e5))
def test_what_is_encoded_decodes_to_within_half_a_step(kind: str, exponent: int, value: float) -> None:
    raw = encode(TYPES[kind], exponent, value)
    if raw == TYPES[kind].absent:
        half_a_step = 0.5 * 10.0**exponent
        assert not TYPES[kind].low * 10.0**exponent <= value <= TYPES[kind].high * 10.0**exponent - half_a_step
    else:
        assert abs(decode(TYPES[kind], exponent, raw) - value) <= 0.5 * 10.0**exponent * (1 + 1e-9)


def an_image(values: dict[str, float]) -> RegisterImage:
    image = RegisterImage(10, 8)
    image.put(10, TYPES["int32"], 0, lambda: values["power"])
    image.put(12, TYPES["int16"], -1, lambda: values["voltage"])
    image.put_setting("limit", 13, TYPES["uint16"], -2, Setting(100.0, lambda value: 0 <= value <= 100))
    image.put_setting("target", 14, TYPES["int32"], 0, Setting(0, lambda value: -500 <= value <= 500))
    image.put_text(16, 2, "twins")
    return image


def test_a_read_takes_all_its_values_at_one_instant_and_may_cut_them() -> None:
    values = {"power": -2.0, "voltage": 230.0}
    image = an_image(values)
    assert image.read(10, 8) == struct.pack(">ihHi4s", -2, 2300, 10_000, 0, b"twin")
    values["power"] = 65_537.0
    assert image.read(11, 1) == b"\x00\x01"
    assert image.read(11, 2) == b"\x00\x01" + struct.pack(">h", 2300)


@pytest.mark.parametrize(("address", "count"), [(9, 1), (10, 9), (17, 2), (18, 1), (0, 5)])
def test_reading_outside_is_refused(address: int, count: int) -> None:
    assert an_image({}).read(address, count) is ExceptionCode.ILLEGAL_ADDRESS


def test_a_write_brings_all_its_settings_or_none() -> None:
    image = an_image({})
    assert image.decode_write(13, struct.pack(">Hi", 5_000, -500)) == {"limit": 50.0, "target": -500}
    assert image.decode_write(13, struct.pack(">Hi", 10_001, 0)) is ExceptionCode.ILLEGAL_VALUE
    assert image.decode_write(13, struct.pack(">Hi", 5_000, 501)) is ExceptionCode.ILLEGAL_VALUE
    assert image.settings == {"limit": 100.0, "target": 0}


@pytest.mark.parametrize(
    ("address", "registers"),
    [(12, 1), (12, 2), (13, 2), (14, 1), (15, 1), (14, 3), (16, 1), (9, 1), (60_000, 1)],
)
def test_read_only_registers_and_parts_of_values_are_not_written(address: int, registers: int) -> None:
    assert an_image({}).decode_write(address, bytes(2 * registers)) is ExceptionCode.ILLEGAL_ADDRESS


def test_many_different_ranges_do_not_fill_the_memory() -> None:
    image = RegisterImage(0, 400)
    for address in range(300):
        for count in (1, 2, 3):
            assert isinstance(image.read(address, count), bytes)
    assert len(image._plans) <= 256


def test_a_table_with_a_gap_or_a_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="B is at 4, not 3"):
        layout(9, 3, "a test", "2 A int16; 4 B int16;")
    with pytest.raises(ValueError, match="take 2 registers, not 3"):
        layout(9, 3, "a test", "2 A int16; 3 B int16;")


def test_a_value_for_a_point_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="no point X"):
        chain([(layout(9, 1, "a test", "2 A int16;"), {"X": 1})])


@pytest.mark.parametrize(
    ("highest", "kind", "finest", "exponent"),
    [(130_000, "int16", -1, 1), (32_767, "int16", 0, 0), (32_768, "int16", 0, 1), (60_000, "uint16", 0, 0)],
)
def test_the_finest_scale_factor_that_holds(highest: float, kind: str, finest: int, exponent: int) -> None:
    assert scale_for(highest, kind, finest) == exponent
