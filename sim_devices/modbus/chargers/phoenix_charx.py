"""The charger twin that speaks as a Phoenix Contact CHARX SEC: a group of one charging point.

Source, as transcribed: Phoenix Contact, "UM EN CHARX SEC" (109999_en), revision 08, appendix B3, "Modbus communication
and register overview", pages 167 to 174, in klconsultancy/aiophoenixcontactcharx (every register; Modbus address 1;
high word first); the addresses, units and orders that evcc (charger/phoenix-charx.go) and a test against revision 09,
appendix 8.4, use are the same. The manual itself was not seen, but for its pages on web-based management (section
"Via Modbus: The release is issued and withdrawn via the Modbus registers").

- Holding and input registers have the same values (evcc).
- Release mode (x120) is Modbus: charging needs x300 = 1, and it is 0 at the start.
- x301 takes 6 to 80 A; "the charging release is withdrawn if the value is exceeded or fallen below" (the manual's words
  in evcc's pull request 23178). evcc stops with 0 and goes on with 6 or more, without writing x300 again.
- x306 and x307: after so many seconds without a new value the current of x306 holds; 65535 s, the start value, is
  never. Which writes restart the timer isn't said: here those of x300, x301, x306 and x307. Outside 6 to 80 A, x306
  withdraws the release as x301 does.
- x299 is the state of IEC 61851-1 with 1 without and 2 with a pilot signal, or 0 for E and F.
- Not served: digital outputs, locking and unlocking, load management (167), resets: they read 0 and take no write. The
  duration of charging (x287) reads 0; that of the connection (x285) counts from the request that found the car.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from zlib import crc32

from config.vocabulary import ChargingState, Clock
from sim_devices.modbus.chargers.outlet import Outlet
from sim_devices.modbus.family import ModbusModel, of_kind
from sim_devices.modbus.pdu import READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, WRITE_SINGLE, ExceptionCode, Table
from sim_devices.modbus.register_table import RegisterTable
from sim_devices.modbus.table_unit import Command, execute
from sim_devices.models import MINIMUM_CURRENT_A, ChargerModel, Failsafe

FUNCTIONS: Final = frozenset({READ_HOLDING, READ_INPUT, WRITE_SINGLE, WRITE_MULTIPLE})
POINT: Final = 1000
"""Start address of the first charging point."""

LEAST_A, MOST_A = 6, 80
NEVER: Final = 0xFFFF
MODBUS_RELEASE: Final = 5
EXTERNAL_METER: Final = 6
"""x112: a Carlo Gavazzi EM340."""


class CharxUnit:
    """A CHARX SEC with one charging point."""

    functions: Final = FUNCTIONS

    def __init__(self, model: ChargerModel, clock: Clock, serial: str) -> None:
        self._model = model
        self._clock = clock
        self._session = 0
        self._connected_since_s = 0.0
        self._released = False
        self._current_a = int(model.max_current_a)
        self._watchdog_a = LEAST_A
        self._watchdog_s = NEVER
        self._table = RegisterTable()
        self._put_group()
        self._put_configuration(serial)
        self._put_status(Outlet(model))
        self._put_control()
        self._commands: Mapping[int, Command] = {
            POINT + 300: Command("H", lambda value: value in (0, 1), self._release),
            POINT + 301: Command("H", lambda _: True, self._set_current),
            POINT + 304: Command("H", lambda value: value in (0, 1), self._set_available),
            POINT + 306: Command("H", lambda _: True, self._set_watchdog_current),
            POINT + 307: Command("H", lambda s: s > 0, self._set_watchdog_time),
        }
        self._apply()

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        if self._model.sessions != self._session:
            self._session, self._connected_since_s = self._model.sessions, self._clock()
        return self._table.read(address, count)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """Commands to the charging point."""
        return execute(self._commands, address, data)

    def _put_group(self) -> None:
        """Registers 100 to 167."""
        table, model = self._table, self._model
        table.put_text(100, 10, "CHARX SEC-3150")
        table.put_text(110, 4, "1.7.3")
        table.put(114, "H", 1)
        table.put(148, "H", lambda: int(model.state in (ChargingState.E, ChargingState.F)))
        table.put(149, "H", lambda: int(model.state is ChargingState.A))
        table.put(150, "H", lambda: int(model.state in (ChargingState.B, ChargingState.C, ChargingState.D)))
        table.put(151, "H", lambda: int(model.state in (ChargingState.C, ChargingState.D)))
        table.put(152, "I", lambda: model.power_w, 1000)
        table.put(156, "I", lambda: model.power_w, 1000)
        for phase in range(3):
            table.put(158 + 2 * phase, "i", Outlet(model).current_a(phase), 1000)
        table.put(164, "H", lambda: int(not model.faulted))
        table.put(167, "H", model.max_current_a)
        table.fill(100, 167)

    def _put_configuration(self, serial: str) -> None:
        """Registers x100 to x123: a connector, of so many amperes."""
        table = self._table
        table.put(POINT + 100, "H", 1)
        table.put(POINT + 101, "H", self._model.max_current_a)
        table.put(POINT + 102, "H", LEAST_A)
        table.put(POINT + 109, "H", 1)
        table.put(POINT + 112, "H", EXTERNAL_METER)
        table.put_text(POINT + 113, 3, f"{crc32(serial.encode()) % 1_000_000:06d}")
        table.put(POINT + 120, "H", MODBUS_RELEASE)
        table.fill(POINT + 100, POINT + 123)

    def _put_status(self, of: Outlet) -> None:
        """Registers x232 to x299."""
        table, model = self._table, self._model
        for phase in range(3):
            table.put(POINT + 232 + 2 * phase, "I", of.voltage_v(phase), 1000)
            table.put(POINT + 238 + 2 * phase, "i", of.current_a(phase), 1000)
        table.put(POINT + 244, "i", lambda: model.power_w, 1000)
        table.put(POINT + 248, "I", lambda: model.power_w, 1000)
        table.put(POINT + 250, "Q", lambda: model.energy_import_wh)
        table.put(POINT + 258, "Q", lambda: model.energy_import_wh)
        table.put(POINT + 285, "I", lambda: self._clock() - self._connected_since_s if model.ev is not None else 0)
        table.put(POINT + 289, "Q", lambda: model.session_energy_wh)
        table.put(POINT + 296, "H", lambda: _duty_pct(model.offered_current_a))
        table.put(POINT + 297, "H", lambda: model.offered_current_a)
        table.put(POINT + 298, "H", lambda: model.max_current_a if model.ev is not None else 0)
        table.put_text(POINT + 299, 1, self._vehicle_status)
        table.fill(POINT + 232, POINT + 299)

    def _put_control(self) -> None:
        """Registers x300 to x308."""
        table = self._table
        table.put(POINT + 300, "H", lambda: int(self._released))
        table.put(POINT + 301, "H", lambda: self._current_a)
        table.put(POINT + 304, "H", lambda: int(not self._model.faulted))
        table.put(POINT + 306, "H", lambda: self._watchdog_a)
        table.put(POINT + 307, "H", lambda: self._watchdog_s)
        table.fill(POINT + 300, POINT + 308)

    def _vehicle_status(self) -> str:
        state = self._model.state
        if state in (ChargingState.E, ChargingState.F):
            return f"{state}0"
        if state is ChargingState.B:
            return "B2" if self._model.offered_current_a >= MINIMUM_CURRENT_A else "B1"
        return "A1" if state is ChargingState.A else f"{state}2"

    def _apply(self) -> None:
        failsafe = None
        if self._watchdog_s != NEVER:
            failsafe = Failsafe(float(self._watchdog_s), _within_range(self._watchdog_a))
        self._model.enabled = self._released
        self._model.set_current(_within_range(self._current_a), failsafe, self._clock())

    def _release(self, value: float) -> None:
        self._released = value == 1
        self._apply()

    def _set_current(self, current_a: float) -> None:
        self._current_a = int(current_a)
        self._apply()

    def _set_available(self, value: float) -> None:
        self._model.faulted = value == 0

    def _set_watchdog_current(self, current_a: float) -> None:
        self._watchdog_a = int(current_a)
        self._apply()

    def _set_watchdog_time(self, timeout_s: float) -> None:
        self._watchdog_s = int(timeout_s)
        self._apply()


def _within_range(current_a: int) -> float:
    """What a register's current comes to: outside the range the release is withdrawn."""
    return float(current_a) if LEAST_A <= current_a <= MOST_A else 0.0


def _duty_pct(current_a: float) -> float:
    """Duty cycle of the pilot signal for a current, IEC 61851-1 annex A."""
    if current_a < MINIMUM_CURRENT_A:
        return 0.0
    return current_a / 0.6 if current_a <= 51 else current_a / 2.5 + 64.0


def make(model: ModbusModel, clock: Clock, serial: str) -> CharxUnit:
    """The unit that shows a charger as a CHARX SEC does."""
    return CharxUnit(of_kind(ChargerModel, model), clock, serial)
