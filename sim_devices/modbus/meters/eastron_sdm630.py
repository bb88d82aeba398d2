"""The meter twin that speaks as an Eastron SDM630.

Source, seen: Eastron, "SDM630Modbus Smart Meter Modbus Protocol Implementation", V1.7: section 1.1 (IEEE 754 floats,
most significant register first), table 1.2.1 (input registers, function 4), table 1.3.1 (holding registers, functions
3 and 16), section 3.11.1 (exception 2 for an address that isn't there and for a part of a value).

Where the document leaves a choice:

- Section 1.1 allows 60 registers in a request, section 1.2 40 parameters: the twin takes the fewer.
- A single register is answered with "an instrument type specific value" that is not told: exception 2 here.
- Whether the gaps between parameters can be read isn't said. OpenEMS (MeterEastronSdm630) reads across them in
  operation, as 0: so it is here, up to the last parameter.
- Note 1 gives the sign of the flow to the power factor: currents are magnitudes. Power is positive for import, as the
  counters of import and export have it.
- The demand period is 0, with which demands show the present value (table 1.3.1, 40003); there are no maxima.

The configuration can be read, and is not changed here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from config.vocabulary import Clock
from sim_devices.modbus.family import ModbusModel, of_kind
from sim_devices.modbus.meters.quantities import Get, Quantities
from sim_devices.modbus.pdu import READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, Table
from sim_devices.modbus.register_table import RegisterTable
from sim_devices.modbus.table_unit import ReadOnlyUnit
from sim_devices.models import MeterModel

MOST_REGISTERS: Final = 60
LAST_INPUT: Final = 0x017D
FUNCTIONS: Final = frozenset({READ_HOLDING, READ_INPUT, WRITE_MULTIPLE})

# Table 1.3.1: demand period 0, three phases and four wires, 100 ms, no parity, node 1, divisor 0, 9600 baud, export.
CONFIGURATION: Final[Mapping[int, float]] = {
    0x0002: 0,
    0x000A: 3,
    0x000C: 100,
    0x000E: 0,
    0x0012: 0,
    0x0014: 1,
    0x0016: 0,
    0x001C: 2,
    0x0056: 4,
}


def make(model: ModbusModel, clock: Clock, serial: str) -> ReadOnlyUnit:
    """The unit that shows a meter as an SDM630 does."""
    of = Quantities(of_kind(MeterModel, model))
    inputs = RegisterTable(whole=True)
    for address, get in (_now(of) | _energies(of)).items():
        inputs.put(address, "f", get)
    inputs.fill(0, LAST_INPUT)
    holdings = RegisterTable(whole=True)
    for address, value in CONFIGURATION.items():
        holdings.put_bytes(address, struct.pack(">f", value))
    return ReadOnlyUnit(FUNCTIONS, {Table.INPUT: inputs, Table.HOLDING: holdings}, MOST_REGISTERS)


def _now(of: Quantities) -> dict[int, Get]:
    """Table 1.2.1, parameters 1 to 36, 43, 51, 53, 101 to 118 and 130 to 132."""
    each: dict[int, Get] = {}
    for phase in range(3):
        at = 2 * phase
        each |= {
            0x0000 + at: of.voltage_v(phase),
            0x0006 + at: of.current_a(phase, signed=False),
            0x000C + at: of.power_w(phase),
            0x0012 + at: of.apparent_va(phase),
            0x0018 + at: of.nothing(),
            0x001E + at: of.factor(phase),
            0x0024 + at: of.angle_deg(phase),
            0x00C8 + at: of.line_voltage_v(phase),
            0x0102 + at: of.current_a(phase, signed=False),
        }
    current_sum = of.current_sum_a()
    return each | {
        0x002A: of.mean_voltage_v(),
        0x002E: lambda: None if (value := current_sum()) is None else value / 3,
        0x0030: current_sum,
        0x0034: of.power_w(),
        0x0038: of.apparent_va(),
        0x003C: of.nothing(),
        0x003E: of.factor(),
        0x0042: of.angle_deg(),
        0x0046: of.frequency_hz(),
        0x0054: of.power_w(),
        0x0064: of.apparent_va(),
        0x0068: of.neutral_current_a(),
        0x00CE: of.mean_line_voltage_v(),
        0x00E0: of.neutral_current_a(),
    }


def _energies(of: Quantities) -> dict[int, Get]:
    """Table 1.2.1, parameters 37, 38, 41 and 172 to 182, in kWh; total is import plus export (note 3)."""
    kilo = 1e-3
    each: dict[int, Get] = {
        0x0048: of.imported_wh(kilo),
        0x004A: of.exported_wh(kilo),
        0x0050: of.turned_over_wh(kilo),
        0x0156: of.turned_over_wh(kilo),
    }
    for phase in range(3):
        at = 2 * phase
        each |= {
            0x015A + at: of.imported_wh(kilo / 3),
            0x0160 + at: of.exported_wh(kilo / 3),
            0x0166 + at: of.turned_over_wh(kilo / 3),
        }
    return each
