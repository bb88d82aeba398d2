"""The charger twin that speaks as an Alfen Eve: a socket at its own unit, and its station at unit 200.

Source, seen as a transcription of the whole text: Alfen, "Implementation of Modbus Slave TCP/IP for Alfen NG9xx
platform", version 2.3, 30-10-2020, firmware 4.10: section 1 (units 200, and 1 or 2; big endian), 1.1 (functions 3, 6
and 16; validity time 60 s), 1.2 (what is reserved or unavailable reads FFFFh), 1.3 (a value is written whole),
1.3.1 (maximum current, validity time, safe current), tables 3.1 to 3.4, and 3.4.1 (mode 3 states).

- Each write of the maximum current restarts its validity time; when that has run out, and after every start, the
  socket goes by the safe current (1.3.1). The installer sets both; here they are what the constants say, with the safe
  current at the least that a car can charge with.
- "Delivered" energy (362 to 377) is what went to the car, as evcc reads it. Energies by phase are not metered.
- Reading across the gap between the tables (426 to 1199) isn't spoken of: exception 2, as for every other address.
- The station closes a connection on which nothing comes for 60 s, and has two at most: not the twin.
- Registers 1417 to 1422 (maximum currents of a smart charging network) are for mode SCN; this station is in mode
  socket, has no such network, and takes no writes at unit 200.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final
from zlib import crc32

from config.vocabulary import ChargingState, Clock
from sim_devices.modbus.chargers.outlet import Outlet
from sim_devices.modbus.family import ModbusModel, of_kind
from sim_devices.modbus.pdu import READ_HOLDING, WRITE_MULTIPLE, WRITE_SINGLE, ExceptionCode, Table, Unit
from sim_devices.modbus.register_table import ALL_BITS, RegisterTable
from sim_devices.modbus.table_unit import Command, ReadOnlyUnit, execute
from sim_devices.models import MINIMUM_CURRENT_A, ChargerModel, Failsafe

STATION_UNIT: Final = 200
FUNCTIONS: Final = frozenset({READ_HOLDING, WRITE_SINGLE, WRITE_MULTIPLE})
VALIDITY_S: Final = 60.0
SAFE_CURRENT_A: Final = MINIMUM_CURRENT_A

# Table 3.4, 300 (initialised, updated) and 305 (other).
METER_STATE: Final = 0x03
METER_TYPE: Final = 4


class AlfenSocket:
    """One socket: its meter, its state, and the maximum current that is written to it."""

    functions: Final = FUNCTIONS

    def __init__(self, model: ChargerModel, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self.safe_current_a = SAFE_CURRENT_A
        """What the installer has set; holds from the next write of a maximum current."""
        self._asked_a = 0.0
        self._all_phases = model.phases
        self._table = RegisterTable()
        self._put_meter(Outlet(model))
        self._put_status()
        self._table.fill(300, 425, ALL_BITS)
        self._commands: Mapping[int, Command] = {
            1210: Command("f", lambda a: math.isfinite(a) and a >= 0, self._set_current),
            1215: Command("H", lambda phases: phases in (1, len(self._all_phases)), self._use_phases),
        }
        model.set_current(SAFE_CURRENT_A, None, clock())

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        return self._table.read(address, count)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """The maximum current, or the number of phases."""
        return execute(self._commands, address, data)

    def _put_meter(self, of: Outlet) -> None:
        """Table 3.4, 300 to 425."""
        table, model = self._table, self._model
        table.put(300, "H", METER_STATE)
        table.put(301, "Q", 0)
        table.put(305, "H", METER_TYPE)
        for phase in range(3):
            at = 2 * phase
            table.put(306 + at, "f", of.voltage_v(phase))
            table.put(312 + at, "f", of.line_voltage_v(phase))
            table.put(320 + at, "f", of.current_a(phase))
            table.put(328 + at, "f", 1)
            table.put(338 + at, "f", of.power_w(phase))
            table.put(346 + at, "f", of.power_w(phase))
            table.put(354 + at, "f", 0)
        table.put(326, "f", lambda: sum(model.current_a_by_phase))
        table.put(334, "f", 1)
        table.put(336, "f", lambda: model.frequency_hz)
        table.put(344, "f", lambda: model.power_w)
        table.put(352, "f", lambda: model.power_w)
        table.put(360, "f", 0)
        table.put(374, "d", lambda: model.energy_import_wh)
        table.put(390, "d", lambda: model.energy_export_wh)

    def _put_status(self) -> None:
        """Table 3.4, 1200 to 1215."""
        table, model = self._table, self._model
        table.put(1200, "H", lambda: int(model.connected and not model.faulted))
        table.put_text(1201, 5, self._mode_3_state)
        table.put(1206, "f", lambda: model.requested_current_a)
        table.put(1208, "I", lambda: math.ceil(self._valid_s()))
        table.put(1210, "f", lambda: self._asked_a)
        table.put(1212, "f", lambda: self.safe_current_a)
        table.put(1214, "H", lambda: int(self._valid_s() > 0))
        table.put(1215, "H", lambda: len(model.phases))

    def _valid_s(self) -> float:
        return self._model.reversion_remaining_s(self._clock()) or 0.0

    def _mode_3_state(self) -> str:
        """Section 3.4.1: 1 without a pilot signal, 2 with one."""
        state = self._model.state
        if state is ChargingState.B:
            return "B2" if self._model.offered_current_a >= MINIMUM_CURRENT_A else "B1"
        return f"{state}2" if state in (ChargingState.C, ChargingState.D) else str(state)

    def _set_current(self, current_a: float) -> None:
        self._asked_a = current_a
        self._model.set_current(current_a, Failsafe(VALIDITY_S, self.safe_current_a), self._clock())

    def _use_phases(self, phases: float) -> None:
        self._model.use_phases(self._all_phases[: int(phases)])


def make(model: ModbusModel, clock: Clock, serial: str) -> AlfenSocket:
    """The unit of a socket."""
    return AlfenSocket(of_kind(ChargerModel, model), clock)


def make_station(model: ModbusModel, clock: Clock, serial: str) -> Mapping[int, Unit]:
    """The station of a socket, at its own unit: tables 3.1 to 3.3 without the network and the clock."""
    charger = of_kind(ChargerModel, model)
    table = RegisterTable()
    table.put_text(100, 17, "ALF_1000")
    table.put_text(117, 5, "Alfen NV")
    table.put(122, "h", 1)
    table.put_text(123, 17, "4.10.0-2990")
    table.put_text(140, 17, "NG910")
    table.put_text(157, 11, f"ACE{crc32(serial.encode()) % 10_000_000:07d}")
    table.put(174, "Q", clock, 1000)
    table.put(1100, "f", charger.max_current_a)
    table.put(1102, "f", 25)
    table.put(1104, "H", 0)
    table.put(1105, "H", 1)
    table.fill(100, 178, ALL_BITS)
    table.fill(1400, 1431, ALL_BITS)
    return {STATION_UNIT: ReadOnlyUnit(FUNCTIONS, {Table.HOLDING: table})}
