"""The charger twin that speaks as an ABB Terra AC wallbox.

Source, seen: ABB, "Terra AC Wallbox, TAC Modbus Communication, Modbus RTU - RS485 and TCP/IP", version 1.11, March
2025: section 4 (silence of the primary device), 5 (register map), 5.1 to 5.19 (registers), 7.1 (big endian; functions
3, 6 and 16; exceptions). 4022h came with version 1.8 of the document, 4024h and 4109h with 1.9.

- Silence is no operation at all, read or write, for the timeout of 4106h (5.18). Then the fallback limit of 4109h
  holds; while that is FFh, its default, the charger "could get into error state and stop the charging session" (4): it
  does here, with error code 4000h, which the integration JernejHren/ABB-Terra-AC knows as lost Modbus communication.
  The document doesn't say when that ends: here, with the next current limit that is written. The timer runs from the
  first request on.
- Registers 4021h and 4023h are in no row; the same integration reads 4000h to 4024h at once, and they read 0 here. It
  also finds the state where section 5.6 has it: in byte 1 of 400Ch and 400Dh.
- A limit below 6 A pauses the session (5.15). A paused session shows as C1 while the car waits for the pilot signal:
  the document names no other state for it. A stopped or failed one shows as 5, others.
- Bit 7 of the state (5.6) is read as: it charges, and with less than the limit that was written.
- Write only registers can't be read: exception 2. Firmware upgrade (5.20): not served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from zlib import crc32

from config.vocabulary import ChargingState, Clock
from sim_devices.modbus.chargers.outlet import Outlet
from sim_devices.modbus.family import ModbusModel, of_kind
from sim_devices.modbus.pdu import READ_HOLDING, WRITE_MULTIPLE, WRITE_SINGLE, ExceptionCode, Table
from sim_devices.modbus.register_table import RegisterTable
from sim_devices.modbus.table_unit import Command, execute
from sim_devices.models import MINIMUM_CURRENT_A, ChargerModel, Failsafe

FUNCTIONS: Final = frozenset({READ_HOLDING, WRITE_SINGLE, WRITE_MULTIPLE})
DEFAULT_TIMEOUT_S: Final = 60
LEAST_TIMEOUT_S: Final = 10
NO_FALLBACK: Final = 0xFF
COMMUNICATION_LOST: Final = 0x4000
OTHER_ERROR: Final = 0x0002

# Section 5.1: type 2 socket, 22 kW, plant 4, spare; section 5.2: 1.8.33.
SERIAL_PREFIX: Final = bytes((0x54, 0x22, 0x04, 0x00))
FIRMWARE: Final = bytes((0x01, 0x08, 0x21, 0x00))

# Section 5.5, with a socket.
UNPLUGGED: Final = 0x0000
LOCKED_IN_BOTH: Final = 0x0111

# Section 5.6.
IDLE, PENDING, READY, WAITING, CHARGING, OTHERS = range(6)
_BELOW_LIMIT: Final = 1 << 15
_TOLERANCE_A: Final = 0.5


class TerraAcUnit:
    """A Terra AC as a Modbus unit."""

    functions: Final = FUNCTIONS

    def __init__(self, model: ChargerModel, clock: Clock, serial: str) -> None:
        self._model = model
        self._clock = clock
        self._reversions = model.reversions
        self._limit_a = model.max_current_a
        self._timeout_s = DEFAULT_TIMEOUT_S
        self._fallback_a = NO_FALLBACK
        self._stopped = False
        self._lost = False
        self._heard_before = False
        self._table = RegisterTable()
        self._put(Outlet(model), serial)
        self._commands: Mapping[int, Command] = {
            0x4100: Command("I", lambda _: True, self._set_limit),
            0x4103: Command("H", lambda value: value in (0, 1), lambda _: None),
            0x4105: Command("H", lambda value: value in (0, 1), self._start_or_stop),
            0x4106: Command("H", lambda s: s >= LEAST_TIMEOUT_S, self._set_timeout),
            0x4109: Command("H", lambda a: a <= NO_FALLBACK, self._set_fallback),
        }

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        self._heard()
        return self._table.read(address, count)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """Commands."""
        self._heard()
        return execute(self._commands, address, data)

    def _put(self, of: Outlet, serial: str) -> None:
        """Section 5: the readable registers."""
        table, model = self._table, self._model
        table.put_bytes(0x4000, SERIAL_PREFIX + _packed_decimal(crc32(serial.encode()) % 100_000_000))
        table.put_bytes(0x4004, FIRMWARE)
        table.put(0x4006, "I", model.max_current_a, 1000)
        table.put(0x4008, "I", self._error)
        table.put(0x400A, "I", lambda: LOCKED_IN_BOTH if model.ev is not None else UNPLUGGED)
        table.put(0x400C, "I", self._state)
        table.put(0x400E, "I", lambda: model.offered_current_a, 1000)
        for phase in range(3):
            table.put(0x4010 + 2 * phase, "I", of.current_a(phase), 1000)
            table.put(0x4016 + 2 * phase, "I", of.voltage_v(phase), 10)
        table.put(0x401C, "I", lambda: model.power_w)
        table.put(0x401E, "I", lambda: model.session_energy_wh)
        table.put(0x4020, "H", lambda: self._timeout_s)
        table.put(0x4022, "I", lambda: self._limit_a, 1000)
        table.put(0x4024, "H", lambda: self._fallback_a)
        table.fill(0x4000, 0x4024)

    def _heard(self) -> None:
        """Any operation shows that the primary device lives."""
        if self._model.reversions != self._reversions:
            self._reversions = self._model.reversions
            self._lost = self._fallback_a == NO_FALLBACK
        if self._heard_before:
            self._model.refresh(self._clock())
            return
        self._heard_before = True
        self._apply()

    def _apply(self) -> None:
        fallback_a = 0 if self._fallback_a == NO_FALLBACK else self._fallback_a
        failsafe = Failsafe(float(self._timeout_s), float(fallback_a))
        self._model.set_current(self._limit_a, failsafe, self._clock())

    def _set_limit(self, current_ma: float) -> None:
        self._limit_a = current_ma / 1000
        self._lost = False
        self._apply()

    def _start_or_stop(self, value: float) -> None:
        self._stopped = value == 1
        self._model.enabled = not self._stopped

    def _set_timeout(self, timeout_s: float) -> None:
        self._timeout_s = int(timeout_s)
        self._apply()

    def _set_fallback(self, current_a: float) -> None:
        self._fallback_a = int(current_a)
        self._apply()

    def _error(self) -> int:
        if self._lost:
            return COMMUNICATION_LOST
        return OTHER_ERROR if self._model.state in (ChargingState.E, ChargingState.F) else 0

    def _state(self) -> int:
        model, state = self._model, self._charging_state()
        below = state == CHARGING and max(map(abs, model.current_a_by_phase)) < model.requested_current_a - _TOLERANCE_A
        return (_BELOW_LIMIT if below else 0) | state << 8

    def _charging_state(self) -> int:
        model = self._model
        match model.state:
            case ChargingState.A:
                return IDLE
            case ChargingState.C | ChargingState.D:
                return CHARGING
            case ChargingState.B if not (self._stopped or self._lost):
                return READY if model.offered_current_a >= MINIMUM_CURRENT_A else WAITING
            case _:
                return OTHERS


def _packed_decimal(number: int) -> bytes:
    """Eight decimal digits, two a byte."""
    return bytes.fromhex(f"{number:08d}")


def make(model: ModbusModel, clock: Clock, serial: str) -> TerraAcUnit:
    """The unit that shows a charger as a Terra AC does."""
    return TerraAcUnit(of_kind(ChargerModel, model), clock, serial)
