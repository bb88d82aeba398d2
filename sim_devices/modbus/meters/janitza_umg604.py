"""The meter twin that speaks as a Janitza UMG 604.

Source, seen: Janitza electronics, "Power Analyser UMG 604, Modbus-address and Formulary", doc. no. 1.033.033.g, from
firmware release 2.x: functions 3, 4, 6, 16 (and 23, which no twin has), byte sequence (big endian; the same values in
little endian at the address plus 32768), formulary (effective values are magnitudes), address list "Frequently required
readings" (19000 to 19121), measured values of 200 ms (1317 to 1382, 1423 to 1440, 1449), energy (9807 to 9866), device
name (10072), serial number (10176), firmware release (13437).

The list has no word on gaps and on other addresses: exception 2. "Real energy" without a further word is taken as
consumption less supply. The device renews its registers every 200 ms: the site's `sample_interval_s` says how often.
Not served: everything else, above all means, extremes and harmonics. Input L4 has no transformer: 0.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from config.vocabulary import Clock
from sim_devices.modbus.family import ModbusModel, of_kind
from sim_devices.modbus.meters.quantities import Get, Quantities
from sim_devices.modbus.pdu import READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, WRITE_SINGLE, ExceptionCode, Table
from sim_devices.modbus.register_table import Order, RegisterTable
from sim_devices.modbus.table_unit import ReadOnlyUnit
from sim_devices.models import MeterModel

FUNCTIONS: Final = frozenset({READ_HOLDING, READ_INPUT, WRITE_SINGLE, WRITE_MULTIPLE})
LITTLE_ENDIAN: Final = 32768
RELEASE: Final = "2.040"


class Umg604Unit(ReadOnlyUnit):
    """Two tables of the same values: most significant byte first, and from 32768 least significant byte first."""

    def __init__(self, big: RegisterTable, little: RegisterTable) -> None:
        super().__init__(FUNCTIONS, {Table.INPUT: big, Table.HOLDING: big})
        self._little = little

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        if address >= LITTLE_ENDIAN:
            return self._little.read(address - LITTLE_ENDIAN, count)
        return super().read(table, address, count)


def make(model: ModbusModel, clock: Clock, serial: str) -> Umg604Unit:
    """The unit that shows a meter as an UMG 604 does."""
    meter = of_kind(MeterModel, model)
    return Umg604Unit(*(_table(meter, serial, order) for order in _ORDERS))


_ORDERS: Final[tuple[Order, Order]] = ("high word first", "low byte first")


def _table(meter: MeterModel, serial: str, order: Order) -> RegisterTable:
    table = RegisterTable(order)
    of = Quantities(meter)
    for address, get in (_frequently_required(of) | _measured(of) | _energies(of)).items():
        table.put(address, "f", get)
    table.put_text(10072, 32, meter.name)
    table.put(10176, "I", crc32(serial.encode()) % 100_000_000)
    table.put_text(13437, 8, RELEASE)
    return table


def _frequently_required(of: Quantities) -> dict[int, Get]:
    """Addresses 19000 to 19120: energies in Wh, THD in percent."""
    each: dict[int, Get] = {}
    for phase in range(3):
        at, third = 2 * phase, 1 / 3
        each |= {
            19000 + at: of.voltage_v(phase),
            19006 + at: of.line_voltage_v(phase),
            19012 + at: of.current_a(phase, signed=False),
            19020 + at: of.power_w(phase),
            19028 + at: of.apparent_va(phase),
            19036 + at: of.nothing(),
            19044 + at: of.factor(phase),
            19054 + at: of.net_wh(third),
            19062 + at: of.imported_wh(third),
            19070 + at: of.exported_wh(third),
            19078 + at: of.turned_over_wh(third),
        }
    each |= dict.fromkeys(range(19086, 19122, 2), of.nothing())
    return each | {
        19018: of.neutral_current_a(),
        19026: of.power_w(),
        19034: of.apparent_va(),
        19042: of.nothing(),
        19050: of.frequency_hz(),
        19052: lambda: 1.0,
        19060: of.net_wh(),
        19068: of.imported_wh(),
        19076: of.exported_wh(),
        19084: of.turned_over_wh(),
    }


def _measured(of: Quantities) -> dict[int, Get]:
    """Addresses 1317 to 1381, 1423 to 1429, 1439 and 1449; the fourth of each four is input L4."""
    each: dict[int, Get] = dict.fromkeys(range(1317, 1383, 2), of.nothing())
    for phase in range(3):
        at = 2 * phase
        each |= {
            1317 + at: of.voltage_v(phase),
            1325 + at: of.current_a(phase, signed=False),
            1333 + at: of.power_w(phase),
            1349 + at: of.apparent_va(phase),
            1357 + at: of.line_voltage_v(phase),
            1423 + at: of.factor(phase),
        }
    return each | {
        1363: of.neutral_current_a(),
        1365: of.neutral_current_a(),
        1367: of.apparent_va(),
        1369: of.power_w(),
        1373: of.factor(),
        1375: of.apparent_va(),
        1377: of.power_w(),
        1379: of.nothing(),
        1381: of.factor(),
        1429: of.nothing(),
        1439: of.frequency_hz(),
        1449: lambda: 1.0,
    }


def _energies(of: Quantities) -> dict[int, Get]:
    """Addresses 9807 to 9865 in groups of six: L1, L2, L3, L4, L1 to L3, L1 to L4."""
    kinds = (of.turned_over_wh, of.net_wh, None, of.imported_wh, of.exported_wh)
    each: dict[int, Get] = {}
    for start, kind in zip(range(9807, 9867, 12), kinds, strict=True):
        for index, share in enumerate((1 / 3, 1 / 3, 1 / 3, 0.0, 1.0, 1.0)):
            each[start + 2 * index] = of.nothing() if kind is None else kind(share)
    return each
