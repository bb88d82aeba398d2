"""The meter twin that speaks as a Carlo Gavazzi EM340.

Source, seen: Carlo Gavazzi Controls, "EM300 Series and ET300 Series Communication Protocol", version 2 revision 9:
section 1.2 (functions 3 and 4 have the same effect, 6 writes, at most 50 registers a request), 2.1 (low word first),
2.2 (signs in bidirectional mode), 2.3 (7FFFFFFFh where there is no value to show), table 2.4-1 (by variable) and the
table of the same values by phase, 2.5 and 2.6 (version and identification, a word at a time), 2.7 (parameters).
Revisions 11 and 17 (2021-07-05), seen in excerpts, have the same sections.

The EM340 is connected directly, without current transformers, and measures in both directions (1103h: mode B), so that
currents have the sign of the power. Exported energy by phase and hours are of the ET series alone: 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from zlib import crc32

from config.vocabulary import Clock
from sim_devices.modbus.family import ModbusModel, of_kind
from sim_devices.modbus.meters.quantities import Get, Quantities
from sim_devices.modbus.pdu import READ_HOLDING, READ_INPUT, WRITE_SINGLE, ExceptionCode, Table
from sim_devices.modbus.register_table import RegisterTable
from sim_devices.modbus.table_unit import ReadOnlyUnit
from sim_devices.models import MeterModel

MOST_REGISTERS: Final = 50
FUNCTIONS: Final = frozenset({READ_HOLDING, READ_INPUT, WRITE_SINGLE})
OVERFLOW: Final = {"i": 0x7FFF_FFFF, "h": 0x7FFF}

# Table 2.6-2: EM340-DIN AV2 3 X S1 X.
IDENTIFICATION: Final = 341
# Sections 2.5 to 2.7 by address: version A, revision 2; three phases with neutral; mode B.
SINGLE_WORDS: Final[Mapping[int, int]] = {0x000B: IDENTIFICATION, 0x0302: 0, 0x0303: 2, 0x1002: 0, 0x1103: 1}


class Em340Unit(ReadOnlyUnit):
    """Tables of measurements, and words that are read one at a time: 000Bh is a voltage's half in longer reads."""

    def __init__(self, measurements: RegisterTable) -> None:
        super().__init__(FUNCTIONS, {Table.INPUT: measurements, Table.HOLDING: measurements}, MOST_REGISTERS)

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        if count == 1 and address in SINGLE_WORDS:
            return SINGLE_WORDS[address].to_bytes(2, "big")
        return super().read(table, address, count)


def make(model: ModbusModel, clock: Clock, serial: str) -> Em340Unit:
    """The unit that shows a meter as an EM340 does."""
    of = Quantities(of_kind(MeterModel, model))
    table = RegisterTable("low word first", absent=OVERFLOW)
    _by_variable(table, of)
    _by_phase(table, of)
    # Section 2.7.9: serial number, seven registers from 5000h, two characters each.
    table.put_text(0x5000, 7, f"{crc32(serial.encode()) % 10**13:013d}")
    return Em340Unit(table)


def _by_variable(table: RegisterTable, of: Quantities) -> None:
    """Table 2.4-1, 0000h to 0099h; what the EM340 hasn't reads 0."""
    for phase in range(3):
        at = 2 * phase
        rows: tuple[tuple[int, Get, float], ...] = (
            (0x0000 + at, of.voltage_v(phase), 10),
            (0x0006 + at, of.line_voltage_v(phase), 10),
            (0x000C + at, of.current_a(phase, signed=True), 1000),
            (0x0012 + at, of.power_w(phase), 10),
            (0x0018 + at, of.apparent_va(phase), 10),
            (0x001E + at, of.nothing(), 10),
            (0x0040 + at, of.imported_wh(1 / 3), 0.01),
        )
        for address, get, weight in rows:
            table.put(address, "i", get, weight)
        table.put(0x002E + phase, "h", of.factor(phase), 1000)
    for address, get, weight in _sums(of, 0x0024):
        table.put(address, "i", get, weight)
    table.put(0x0031, "h", of.factor(), 1000)
    table.put(0x0032, "h", 0)
    table.put(0x0033, "h", of.frequency_hz(), 10)
    table.put(0x0034, "i", of.imported_wh(), 0.01)
    table.put(0x0036, "i", 0)
    table.put(0x0038, "i", of.power_w(), 10)
    table.put(0x003C, "i", of.imported_wh(), 0.01)
    table.put(0x0046, "i", of.imported_wh(), 0.01)
    table.put(0x004E, "i", of.exported_wh(), 0.01)
    table.fill(0x0000, 0x0099)


def _sums(of: Quantities, at: int) -> tuple[tuple[int, Get, float], ...]:
    """V L-N sys, V L-L sys, kW sys, kVA sys, kvar sys: in this order in both tables."""
    return (
        (at, of.mean_voltage_v(), 10),
        (at + 2, of.mean_line_voltage_v(), 10),
        (at + 4, of.power_w(), 10),
        (at + 6, of.apparent_va(), 10),
        (at + 8, of.nothing(), 10),
    )


def _by_phase(table: RegisterTable, of: Quantities) -> None:
    """The same values grouped by phase, 00F6h to 01B5h."""
    for address, get, weight in _sums(of, 0x0102):
        table.put(address, "i", get, weight)
    table.put(0x010C, "i", of.factor(), 1000)
    table.put(0x0110, "i", of.frequency_hz(), 10)
    table.put(0x0112, "i", of.imported_wh(), 0.01)
    table.put(0x0116, "i", of.exported_wh(), 0.01)
    table.put(0x011A, "i", of.power_w(), 10)
    for phase in range(3):
        at = 0x011E + 14 * phase
        table.put(at, "i", of.line_voltage_v(phase), 10)
        table.put(at + 2, "i", of.voltage_v(phase), 10)
        table.put(at + 4, "i", of.current_a(phase, signed=True), 1000)
        table.put(at + 6, "i", of.power_w(phase), 10)
        table.put(at + 8, "i", of.apparent_va(phase), 10)
        table.put(at + 10, "i", of.nothing(), 10)
        table.put(at + 12, "i", of.factor(phase), 1000)
        table.put(0x014C + 2 * phase, "i", of.imported_wh(1 / 3), 0.01)
    table.put(0x0148, "i", of.imported_wh(), 0.01)
    table.put(0x0152, "i", of.imported_wh(), 0.01)
    table.fill(0x00F6, 0x01B5)
