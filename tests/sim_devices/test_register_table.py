"""Register tables: values at their addresses, in the device's order, refused whole or taken whole."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_devices.modbus.pdu import ExceptionCode
from sim_devices.modbus.register_table import ALL_BITS, Holes, Order, RegisterTable, Values, WriteOnly, rows
from sim_devices.modbus.registers import Setting

TABLE = rows("10 power_w int32;  12 soc_pct uint16 -1;  15 name string:2;  20 limit_w uint32 1;  22 mode uint16;")


def anything(value: float) -> bool:
    return True


def test_a_read_may_begin_and_end_inside_a_value() -> None:
    table = RegisterTable.of_rows(TABLE, {"power_w": 0x0001_0002, "soc_pct": lambda: 55.5})
    assert table.read(11, 2) == struct.pack(">HH", 2, 555)
    assert table.read(10, 1) == b"\0\1"


def test_what_belongs_to_no_value_is_an_exception_or_a_filler() -> None:
    values: Values = {"power_w": 1, "soc_pct": 2.0, "name": "AB"}
    assert RegisterTable.of_rows(TABLE, values).read(12, 4) is ExceptionCode.ILLEGAL_ADDRESS
    filled = RegisterTable.of_rows(TABLE, values, holes=Holes(0xFFFF, 2))
    assert filled.read(12, 4) == bytes.fromhex("0014 FFFF FFFF") + b"AB"
    assert filled.read(13, 2) is ExceptionCode.ILLEGAL_ADDRESS, "nothing but holes"
    assert filled.read(15, 6) is ExceptionCode.ILLEGAL_ADDRESS, "too long a hole"
    assert filled.read(11, 2) == bytes.fromhex("0001 0014")


def test_a_value_that_is_not_known_says_so() -> None:
    table = RegisterTable.of_rows(TABLE, {"power_w": lambda: float("nan"), "soc_pct": None})
    assert table.read(10, 3) == bytes.fromhex("8000 0000 FFFF")


def test_a_write_is_taken_whole_or_not_at_all() -> None:
    settings = {"limit_w": Setting(50, lambda watts: watts <= 1000), "mode": Setting(0, lambda mode: mode in (0, 1))}
    table = RegisterTable.of_rows(TABLE, settings)
    assert table.decode_write(20, struct.pack(">IH", 20, 1)) == {"limit_w": 200, "mode": 1}
    assert table.decode_write(20, struct.pack(">IH", 20, 2)) is ExceptionCode.ILLEGAL_VALUE
    assert table.decode_write(20, struct.pack(">H", 20)) is ExceptionCode.ILLEGAL_ADDRESS
    assert table.decode_write(21, struct.pack(">HH", 20, 1)) is ExceptionCode.ILLEGAL_ADDRESS
    assert table.decode_write(10, struct.pack(">I", 20)) is ExceptionCode.ILLEGAL_ADDRESS
    assert table.settings == {"limit_w": 50, "mode": 0}
    with pytest.raises(KeyError):
        table.store({"power_w": 1})


def test_a_write_only_register_keeps_its_value_to_itself() -> None:
    table = RegisterTable.of_rows(TABLE, {"limit_w": WriteOnly(0, anything)})
    written = table.decode_write(20, struct.pack(">I", 7))
    assert written == {"limit_w": 70}
    table.store({"limit_w": 70})
    assert table.read(20, 2) == bytes.fromhex("FFFF FFFF")


@given(st.integers(-(2**31) + 1, 2**31 - 1), st.sampled_from(["high word first", "low word first", "low byte first"]))
def test_what_is_written_is_what_is_read_in_either_order(number: int, order: Order) -> None:
    row = rows("5 x int32;")
    table = RegisterTable.of_rows(row, {"x": Setting(0, anything)}, order=order)
    a, b, c, d = struct.pack(">i", number)
    arranged = {"high word first": (a, b, c, d), "low word first": (c, d, a, b), "low byte first": (d, c, b, a)}
    data = bytes(arranged[order])
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
        RegisterTable.of_rows(TABLE, {"other": 1})
    with pytest.raises(ValueError, match="overlaps"):
        RegisterTable.of_rows((*TABLE, *rows("11 again uint16;")), {})
    with pytest.raises(ValueError, match="text in a number"):
        RegisterTable.of_rows(TABLE, {"mode": "on"})
    table = RegisterTable()
    table.put(5, "I", 1)
    with pytest.raises(ValueError, match="overlaps"):
        table.put(6, "H", 1)


def test_values_placed_one_by_one_and_rows_are_one_table() -> None:
    table = RegisterTable.of_rows(TABLE, {"power_w": 7, "mode": Setting(3, anything)})
    table.put(30, "f", lambda: 1.5)
    table.put_text(32, 2, lambda: "AB")
    assert table.read(30, 4) == struct.pack(">f", 1.5) + b"AB\0\0"
    assert table.read(10, 2) == struct.pack(">i", 7)
    assert table.decode_write(30, struct.pack(">f", 2.0)) is ExceptionCode.ILLEGAL_ADDRESS
    assert table.decode_write(22, struct.pack(">H", 4)) == {"mode": 4}
    assert table.read(23, 1) is ExceptionCode.ILLEGAL_ADDRESS
    table.fill(22, 24, ALL_BITS)
    assert table.read(22, 3) == bytes.fromhex("0003 FFFF FFFF")


def test_what_a_number_reads_that_has_no_value_or_does_not_fit() -> None:
    table = RegisterTable(absent={"i": 0x7FFF_FFFF})
    table.put(0, "i", lambda: None)
    table.put(2, "h", 1e9)
    table.put(3, "f", None)
    table.put(5, "h", -2.5, per_unit=10)
    assert table.read(0, 3) == bytes.fromhex("7FFFFFFF FFFF")
    assert table.read(3, 2) == struct.pack(">f", float("nan"))
    assert table.read(5, 1) == struct.pack(">h", -25)


@given(first=st.integers(8, 24), count=st.integers(1, 16))
def test_a_table_that_keeps_values_whole_tears_none(first: int, count: int) -> None:
    whole, torn = RegisterTable(whole=True), RegisterTable()
    for table in (whole, torn):
        for address in range(10, 22, 2):
            table.put(address, "I", address)
    cuts = first % 2 == 1 or (first + count) % 2 == 1
    inside = first >= 10 and first + count <= 22
    assert isinstance(torn.read(first, count), bytes) == inside
    assert whole.read(first, count) == (torn.read(first, count) if not cuts else ExceptionCode.ILLEGAL_ADDRESS)
