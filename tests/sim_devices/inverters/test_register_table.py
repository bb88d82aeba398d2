"""Register tables: values at their addresses, in the device's order, refused whole or taken whole."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_devices.modbus.inverters.register_table import Holes, RegisterTable, Values, WordOrder, WriteOnly, rows
from sim_devices.modbus.pdu import ExceptionCode
from sim_devices.modbus.registers import Setting

TABLE = rows("10 power_w int32;  12 soc_pct uint16 -1;  15 name string:2;  20 limit_w uint32 1;  22 mode uint16;")


def anything(value: float) -> bool:
    return True


def test_a_read_may_begin_and_end_inside_a_value() -> None:
    table = RegisterTable(TABLE, {"power_w": 0x0001_0002, "soc_pct": lambda: 55.5})
    assert table.read(11, 2) == struct.pack(">HH", 2, 555)
    assert table.read(10, 1) == b"\0\1"


def test_what_belongs_to_no_value_is_an_exception_or_a_filler() -> None:
    values: Values = {"power_w": 1, "soc_pct": 2.0, "name": "AB"}
    assert RegisterTable(TABLE, values).read(12, 4) is ExceptionCode.ILLEGAL_ADDRESS
    filled = RegisterTable(TABLE, values, holes=Holes(0xFFFF, 2))
    assert filled.read(12, 4) == bytes.fromhex("0014 FFFF FFFF") + b"AB"
    assert filled.read(13, 2) is ExceptionCode.ILLEGAL_ADDRESS, "nothing but holes"
    assert filled.read(15, 6) is ExceptionCode.ILLEGAL_ADDRESS, "too long a hole"
    assert filled.read(11, 2) == bytes.fromhex("0001 0014")


def test_a_value_that_is_not_known_says_so() -> None:
    table = RegisterTable(TABLE, {"power_w": lambda: float("nan"), "soc_pct": None})
    assert table.read(10, 3) == bytes.fromhex("8000 0000 FFFF")


def test_a_write_is_taken_whole_or_not_at_all() -> None:
    settings = {"limit_w": Setting(50, lambda watts: watts <= 1000), "mode": Setting(0, lambda mode: mode in (0, 1))}
    table = RegisterTable(TABLE, settings)
    assert table.decode_write(20, struct.pack(">IH", 20, 1)) == {"limit_w": 200, "mode": 1}
    assert table.decode_write(20, struct.pack(">IH", 20, 2)) is ExceptionCode.ILLEGAL_VALUE
    assert table.decode_write(20, struct.pack(">H", 20)) is ExceptionCode.ILLEGAL_ADDRESS
    assert table.decode_write(21, struct.pack(">HH", 20, 1)) is ExceptionCode.ILLEGAL_ADDRESS
    assert table.decode_write(10, struct.pack(">I", 20)) is ExceptionCode.ILLEGAL_ADDRESS
    assert table.settings == {"limit_w": 50, "mode": 0}
    with pytest.raises(KeyError):
        table.store({"power_w": 1})


def test_a_write_only_register_keeps_its_value_to_itself() -> None:
    table = RegisterTable(TABLE, {"limit_w": WriteOnly(0, anything)})
    written = table.decode_write(20, struct.pack(">I", 7))
    assert written == {"limit_w": 70}
    table.store({"limit_w": 70})
    assert table.read(20, 2) == bytes.fromhex("FFFF FFFF")


@given(st.integers(-(2**31) + 1, 2**31 - 1), st.sampled_from(["big", "little"]))
def test_what_is_written_is_what_is_read_in_either_order(number: int, words: WordOrder) -> None:
    row = rows("5 x int32;")
    table = RegisterTable(row, {"x": Setting(0, anything)}, words=words)
    high, low = struct.unpack(">HH", struct.pack(">i", number))
    data = struct.pack(">HH", *((high, low) if words == "big" else (low, high)))
    written = table.decode_write(5, data)
    assert written == {"x": number}
    table.store({"x": number})
    assert table.read(5, 2) == data


def test_a_table_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="is not behind"):
        rows("1 a uint32; 2 b uint16;")
    with pytest.raises(ValueError, match="no type uint24"):
        rows("1 a uint24;")
    with pytest.raises(ValueError, match="no row other"):
        RegisterTable(TABLE, {"other": 1})
    with pytest.raises(ValueError, match="overlaps"):
        RegisterTable((*TABLE, *rows("11 again uint16;")), {})
    with pytest.raises(ValueError, match="text in a number"):
        RegisterTable(TABLE, {"mode": "on"})
