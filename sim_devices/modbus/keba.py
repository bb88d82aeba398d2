"""The charger twin that speaks KEBA's Modbus TCP: KeContact P30, c-series and x-series.

Source: KEBA, "KeContact P30 Charging Station, Modbus TCP Programmers Guide", V1.02 to V1.07 (2025-12): chapter 2
(unit 255, functions 3 and 6 alone, one value of at most two registers for each read), chapter 3 (readable), chapter 4
(writeable). The guide doesn't state the order of the two registers; field reports agree on the high word first. Where
the versions differ:

- Energies (1036, 1502) count tenths of a watt-hour; the versions before V1.06 said watt-hours by mistake.
- 5016 to 5020 (failsafe, with their ranges) came with V1.03; 1550, 1552, 1600 and 1602 with V1.04.
- 5004 takes 6000 to 63000 mA; 0 suspends, as the guide for the P40 (V1.02, section 4.1) says of the same register.

What restarts the failsafe timer, and what it does when it runs out, is said in "KeContact P30 UDP Programmers Guide",
V2.01, section 3.3.3, about the same function: setting the current or the enable command, not reading; with a failsafe
current of 0 the station is disabled as by the enable command, and both current and enable have to be set again.

Not served: 5010 (energy target), 5012 (unlock), 5050 and 5052 (phase switching need a KeContact S10): exception 2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from config.vocabulary import ChargingState, Clock
from sim_devices.modbus.pdu import READ_HOLDING, WRITE_SINGLE, ExceptionCode, Table
from sim_devices.models import ChargerModel, Failsafe

UNIT_ID: Final = 255

# Section 3.1: 0 start-up, 1 not ready, 2 ready and waiting for the car, 3 charging, 4 error, 5 suspended.
NOT_READY: Final = 1
READY: Final = 2
CHARGING: Final = 3
ERROR: Final = 4
SUSPENDED: Final = 5

# Section 3.2: 0 no cable, 1 in the station, 3 and locked there, 5 in station and car, 7 and locked.
UNPLUGGED: Final = 0
LOCKED_IN_CAR: Final = 7

# Section 3.3: the upper 16 bits are the group.
ERROR_CODE: Final = 0x0004_0001

# Section 3.8: KC-P30, socket, 32 A, c-series, uncalibrated meter, no RFID.
PRODUCT: Final = 304_110
# Section 3.9: one byte each for 3.10.16, then 0.
FIRMWARE: Final = 0x03_0A_10_00

MIN_CURRENT_MA: Final = 6_000
MAX_CURRENT_MA: Final = 63_000
MAX_FAILSAFE_CURRENT_MA: Final = 32_000
MIN_FAILSAFE_S: Final = 10
MAX_FAILSAFE_S: Final = 600

_UINT32: Final = struct.Struct(">I")
_UINT16: Final = struct.Struct(">H")


class _Command(NamedTuple):
    allowed: Callable[[int], bool]
    act: Callable[[int], None]


class KebaP30Unit:
    """A KeContact P30 as a Modbus unit.

    Exception 1 for other functions than 3 and 6, 2 for addresses that aren't a value's first register, for reads that
    aren't exactly one value, and for writes to what is read-only; 3 for values out of range.
    """

    functions: Final = frozenset({READ_HOLDING, WRITE_SINGLE})

    def __init__(self, model: ChargerModel, clock: Clock, serial: int = 0) -> None:
        self._model = model
        self._clock = clock
        self._reversions = model.reversions
        self.failsafe_current_ma = 0
        self.failsafe_timeout_s = 0
        self.persisted_failsafe = (0, 0)
        """Failsafe timeout and current that a restart would keep; (0, 0): none."""
        self._readable = self._readable_registers(serial)
        self._writeable: Mapping[int, _Command] = {
            5004: _Command(lambda ma: ma == 0 or MIN_CURRENT_MA <= ma <= MAX_CURRENT_MA, self._set_current),
            5014: _Command(lambda value: value in (0, 1), self._enable),
            5016: _Command(lambda ma: ma == 0 or MIN_CURRENT_MA <= ma <= MAX_FAILSAFE_CURRENT_MA, self._set_fallback),
            5018: _Command(lambda s: s == 0 or MIN_FAILSAFE_S <= s <= MAX_FAILSAFE_S, self._set_timeout),
            5020: _Command(lambda value: value in (0, 1), self._persist),
        }

    def _readable_registers(self, serial: int) -> Mapping[int, Callable[[], float]]:
        """Chapter 3, register by register."""
        model = self._model

        def current_ma(phase: int) -> Callable[[], float]:
            return lambda: abs(model.current_a_by_phase[phase]) * 1000.0

        def voltage_v(phase: int) -> Callable[[], float]:
            return lambda: model.voltage_v_by_phase[phase] if phase + 1 in model.phases else 0

        return {
            1000: self._charging_state,
            1004: lambda: LOCKED_IN_CAR if model.ev is not None else UNPLUGGED,
            1006: lambda: ERROR_CODE if self._charging_state() == ERROR else 0,
            **{1008 + 2 * phase: current_ma(phase) for phase in range(3)},
            1014: lambda: serial,
            1016: lambda: PRODUCT,
            1018: lambda: FIRMWARE,
            1020: lambda: model.power_w * 1000.0,
            1036: lambda: model.energy_import_wh * 10.0,
            **{1040 + 2 * phase: voltage_v(phase) for phase in range(3)},
            1046: lambda: 1000 if model.power_w > 0 else 0,
            1100: lambda: model.requested_current_a * 1000.0,
            1110: lambda: model.max_current_a * 1000.0,
            1500: lambda: 0,
            1502: lambda: model.session_energy_wh * 10.0,
            1550: lambda: 0,
            1552: lambda: 3 if len(model.phases) == 3 else 1,
            1600: lambda: self.failsafe_current_ma,
            1602: lambda: self.failsafe_timeout_s,
        }

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """One value: both registers of it."""
        get = self._readable.get(address)
        if get is None or count != 2:
            return ExceptionCode.ILLEGAL_ADDRESS
        self._settle()
        return _UINT32.pack(min(max(round(get()), 0), 0xFFFF_FFFF))

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """One command."""
        command = self._writeable.get(address)
        if command is None:
            return ExceptionCode.ILLEGAL_ADDRESS
        (value,) = _UINT16.unpack(data)
        if not command.allowed(value):
            return ExceptionCode.ILLEGAL_VALUE
        self._settle()
        command.act(value)
        return None

    def _charging_state(self) -> int:
        model = self._model
        state = model.state
        if state in (ChargingState.E, ChargingState.F):
            return ERROR
        if state is ChargingState.A:
            return NOT_READY
        if state in (ChargingState.C, ChargingState.D):
            return CHARGING
        return READY if model.offered_current_a > 0 else SUSPENDED

    def _failsafe(self) -> Failsafe | None:
        if not self.failsafe_timeout_s:
            return None
        return Failsafe(float(self.failsafe_timeout_s), self.failsafe_current_ma / 1000.0)

    def _set_current(self, current_ma: int) -> None:
        self._model.set_current(current_ma / 1000.0, self._failsafe(), self._clock())

    def _enable(self, value: int) -> None:
        self._model.enabled = value == 1
        self._model.refresh(self._clock())

    def _set_fallback(self, current_ma: int) -> None:
        self.failsafe_current_ma = current_ma
        self._arm()

    def _set_timeout(self, timeout_s: int) -> None:
        self.failsafe_timeout_s = timeout_s
        self._arm()

    def _arm(self) -> None:
        self._model.set_current(self._model.requested_current_a, self._failsafe(), self._clock())

    def _persist(self, value: int) -> None:
        if value == 1:
            self.persisted_failsafe = (self.failsafe_timeout_s, self.failsafe_current_ma)

    def _settle(self) -> None:
        """Take note of a failsafe that has run out since the last request."""
        if self._model.reversions == self._reversions:
            return
        self._reversions = self._model.reversions
        if self.failsafe_current_ma == 0:
            self._model.enabled = False
