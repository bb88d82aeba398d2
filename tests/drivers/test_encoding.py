"""Raw registers to values and back."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.profile import PointProfile, RegisterType
from drivers.encoding import EncodeError, RegisterCodec, Rounding, TextCodec, register_codec, round_raw

WHOLE = ["int16", "uint16", "int32", "uint32", "int64", "uint64", "bits16", "bits32"]
FORMATS = dict(zip(WHOLE, "hHiIqQHI", strict=True)) | {"float32": "f", "float64": "d"}


def point(kind: str = "uint16", word_order: str = "big", byte_order: str = "big", **more: object) -> PointProfile:
    address = {"address": 0, "type": kind, "word_order": word_order, "byte_order": byte_order}
    if kind == "string":
        address["length"] = more.pop("length")
    return PointProfile.model_validate({"modbus": address, "source": "test", **more})


def codec(kind: str = "uint16", **more: object) -> RegisterCodec:
    made = register_codec(point(kind, **more))
    assert isinstance(made, RegisterCodec)
    return made


def decode(made: RegisterCodec | TextCodec, registers: bytes) -> float | str | None:
    return made.decode(struct.unpack(f">{made.format}", registers)[0])


def limits(kind: str) -> tuple[int, int]:
    bits = 16 * RegisterCodec(point(kind), RegisterType(kind)).registers
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind.startswith("int") else (0, (1 << bits) - 1)


@given(st.data(), st.sampled_from(WHOLE), st.sampled_from(["big", "little"]), st.sampled_from(["big", "little"]))
def test_every_whole_number_survives_in_every_order(
    data: st.DataObject, kind: str, word_order: str, byte_order: str
) -> None:
    low, high = limits(kind)
    raw = data.draw(st.integers(max(low, -(1 << 53)), min(high, 1 << 53)))
    made = codec(kind, word_order=word_order, byte_order=byte_order)
    registers = made.encode(float(raw))
    assert decode(made, registers) == raw
    words = [registers[at : at + 2] for at in range(0, len(registers), 2)]
    if word_order == "little":
        words.reverse()
    if byte_order == "little":
        words = [word[::-1] for word in words]
    assert b"".join(words) == struct.pack(f">{FORMATS[kind]}", raw)


@given(
    st.integers(-30000, 30000),
    st.sampled_from([0.001, 0.01, 0.1, 1.0, 10.0, 690.0]),
    st.floats(-1000, 1000),
    st.sampled_from(["load", "generator"]),
)
def test_a_value_that_was_read_is_written_back_as_the_same_registers(
    raw: int, scale: float, offset: float, sign: str
) -> None:
    made = codec("int16", scale=scale, offset=offset, sign=sign)
    registers = struct.pack(">h", raw)
    value = decode(made, registers)
    assert isinstance(value, float)
    assert made.encode(value) == registers
    assert made.encode(value, Rounding.TOWARD_ZERO) == registers


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floating_point_survives(value: float) -> None:
    assert decode(codec("float32"), codec("float32").encode(value)) == value
    assert decode(codec("float64", word_order="little"), codec("float64", word_order="little").encode(value)) == value


@given(st.binary(min_size=8, max_size=8), st.sampled_from(sorted(FORMATS)))
def test_no_bytes_decode_to_anything_but_a_finite_number_or_nothing(data: bytes, kind: str) -> None:
    made = codec(kind, scale=1e3)
    value = decode(made, data[: 2 * made.registers])
    assert value is None or (isinstance(value, float) and math.isfinite(value))


def test_scale_and_offset_come_before_the_sign() -> None:
    assert decode(codec("int16", scale=10, offset=5, sign="generator"), struct.pack(">h", 20)) == -205.0


def test_a_zero_of_the_generator_convention_is_a_plain_zero() -> None:
    zero = decode(codec("int16", sign="generator"), bytes(2))
    assert isinstance(zero, float)
    assert math.copysign(1.0, zero) == 1.0


@pytest.mark.parametrize(
    ("kind", "invalid", "registers"),
    [
        ("int16", 0x8000, "8000"),
        ("int16", -32768, "8000"),
        ("uint16", 0xFFFF, "ffff"),
        ("int32", 0x80000000, "80000000"),
    ],
)
def test_what_the_profile_calls_invalid_is_bad(kind: str, invalid: int, registers: str) -> None:
    made = codec(kind, invalid=[invalid])
    assert decode(made, bytes.fromhex(registers)) is None
    with pytest.raises(EncodeError, match="takes for no value"):
        made.encode(float(int.from_bytes(bytes.fromhex(registers), signed=kind.startswith("int"))))


@pytest.mark.parametrize("raw", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_bad(raw: float) -> None:
    assert decode(codec("float32"), struct.pack(">f", raw)) is None
    with pytest.raises(EncodeError, match="not a number"):
        codec("float32").encode(raw)


def test_what_is_out_of_range_is_bad_and_is_not_sent() -> None:
    made = codec("uint16", scale=0.01, range=[0, 1])
    assert decode(made, struct.pack(">H", 100)) == 1.0
    assert decode(made, struct.pack(">H", 101)) is None
    with pytest.raises(EncodeError, match="outside 0 to 1"):
        made.encode(1.01)


@pytest.mark.parametrize(("kind", "value"), [("uint16", -1), ("uint16", 65536), ("int16", 32768), ("int32", 2.0**31)])
def test_what_the_type_cannot_hold_is_not_sent(kind: str, value: float) -> None:
    with pytest.raises(EncodeError, match="outside"):
        codec(kind).encode(value)


def test_what_a_float_cannot_hold_is_not_sent() -> None:
    with pytest.raises(EncodeError, match="too large"):
        codec("float32").encode(1e39)


def test_encoding_rounds_before_it_checks() -> None:
    made = codec("uint16", scale=0.01)
    assert made.encode(1.15) == struct.pack(">H", 115)
    assert codec("uint16", scale=0.001, range=[6, 63]).encode(63.0000001) == struct.pack(">H", 63000)
    assert codec("uint16").encode(-0.4) == bytes(2)


def test_rounding_towards_zero_keeps_a_ceiling() -> None:
    made = codec("int16", scale=600.0, sign="generator")
    assert made.encode(-35_999.0, Rounding.TOWARD_ZERO) == struct.pack(">h", 59)
    assert made.encode(-36_000.0, Rounding.TOWARD_ZERO) == struct.pack(">h", 60)


@given(st.integers(-(10**6), 10**6), st.sampled_from([3.0, 7.0, 10.0, 100.0, 1000.0]))
def test_rounding_towards_zero_does_not_lose_a_step_to_floats(raw: int, steps: float) -> None:
    assert round_raw((raw * (1 / steps)) / (1 / steps), Rounding.TOWARD_ZERO) == raw


def test_an_enumeration_gives_its_meaning_and_nothing_for_what_it_does_not_name() -> None:
    made = codec("uint32", values={3: "C", 5: "B"})
    assert decode(made, struct.pack(">I", 5)) == "B"
    assert decode(made, struct.pack(">I", 4)) is None


def test_text_ends_at_its_padding() -> None:
    made = register_codec(point("string", length=4))
    assert decode(made, b"P30 c\0\0\0") == "P30 c"
    assert decode(made, bytes(8)) is None
    assert decode(made, b"\xff\xfe\xfd\xfc\0\0\0\0") is None
    assert decode(register_codec(point("string", length=2, byte_order="little")), b"NS24") == "SN42"
