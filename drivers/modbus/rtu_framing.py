"""Modbus frames on a serial line, and the times that characters and silences take (MODBUS over Serial Line
Specification and Implementation Guide V1.02, sections 2.2, 2.5.1 and 6.2.2).

Own code, for a reply is taken only if it is exactly what is due; a test holds it against pymodbus's `FramerRTU`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from drivers.modbus.framing import WrongReply
from drivers.modbus.overdue import Overdue
from drivers.modbus.request import EXCEPTION, Pdu, Request

_FAST_BAUD: Final = 19_200
_FAST_SILENCE_S: Final = 0.00175
_EXCEPTION_FRAME: Final = 5
_ADDRESSES: Final = bytes(range(1, 248))
_NO_ADDRESSES: Final = bytes({*range(256)} - {*_ADDRESSES})


class LineTiming(NamedTuple):
    """How long one character takes (0 where that isn't known), and the silence that ends a frame."""

    character_s: float
    silence_s: float


# Behind a device server nobody says how fast the line is: 3.5 characters at 9,600 baud.
UNKNOWN_TIMING: Final = LineTiming(0.0, 0.004)


def line_timing(baud: int, parity: str, stop_bits: int) -> LineTiming:
    """The timing of a line; above 19,200 baud the silence is fixed, so as not to burden receivers."""
    character_s = (9 + (parity != "none") + stop_bits) / baud
    return LineTiming(character_s, _FAST_SILENCE_S if baud > _FAST_BAUD else 3.5 * character_s)


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_CRC: Final = _crc_table()


def check_sum(data: bytes) -> bytes:
    """The CRC of a frame's unit and PDU, as it goes on the line: the low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


class RtuFraming:
    """Unit, PDU and CRC. Implements `framing.Framing`.

    A frame is taken for the reply only if it comes from the unit that was asked, begins as the reply has to begin, has
    its length and a right CRC. Late answers that `overdue` knows of are counted in `strays` and passed over, so that
    another unit's request still gets its own. Bytes that are no unit's address are skipped before a frame: lines whose
    bias is weak give one or two whenever a sender lets go.
    """

    __slots__ = ("_buffer", "_overdue", "_pdu", "_unit", "strays")

    def __init__(self, overdue: Overdue) -> None:
        self._overdue = overdue
        self._buffer = b""
        self._unit = 0
        self._pdu: Pdu | None = None
        self.strays = 0

    def wrap(self, request: Request) -> bytes:
        self._unit = request.unit
        self._pdu = request.pdu
        self._buffer = b""
        frame = bytes((request.unit,)) + request.pdu.data
        return frame + check_sum(frame)

    def feed(self, data: bytes) -> bytes | None:
        pdu = self._pdu
        if pdu is None:
            self.strays += 1
            return None
        self._buffer += data
        while True:
            buffer = self._buffer = self._buffer.lstrip(_NO_ADDRESSES)
            if len(buffer) < 2:
                return None
            answered = self._answered(buffer, pdu)
            length = _frame_length(buffer, answered)
            if len(buffer) < length:
                return None
            frame, self._buffer = buffer[:length], buffer[length:]
            if check_sum(frame[:-2]) != frame[-2:]:
                raise self._wrong(f"unit {frame[0]} answers with a wrong check sum")
            if answered is pdu:
                return self._reply(frame[1:-2], pdu)
            self.strays += 1
            self._overdue.came(frame[0], answered)

    def _answered(self, buffer: bytes, pdu: Pdu) -> Pdu:
        """Which request this begins to answer: the one in flight, or one that was given up; else `WrongReply`."""
        unit = buffer[0]
        if unit == self._unit and _may_answer(buffer, pdu):
            return pdu
        for late in self._overdue.of(unit):
            if _may_answer(buffer, late):
                return late
        if unit != self._unit:
            raise self._wrong(f"unit {unit} answers for unit {self._unit}")
        raise self._wrong(f"function {buffer[1]}, {buffer[2:3].hex()} does not answer function {pdu.data[0]}")

    def _reply(self, reply: bytes, pdu: Pdu) -> bytes:
        self._pdu = None
        if self._buffer:
            self.strays += 1
            self._buffer = b""
        self._overdue.answered(self._unit, pdu, bool(reply[0] & EXCEPTION))
        return reply

    def _wrong(self, detail: str) -> WrongReply:
        self._pdu = None
        self._buffer = b""
        return WrongReply(detail)


def _may_answer(buffer: bytes, pdu: Pdu) -> bool:
    """Whether a frame that begins so can be the reply to a request, or the exception to it."""
    if buffer[1] == pdu.data[0] | EXCEPTION:
        return True
    begins = buffer[1 : 1 + len(pdu.reply_prefix)]
    return pdu.reply_prefix.startswith(begins)


def _frame_length(buffer: bytes, pdu: Pdu) -> int:
    return _EXCEPTION_FRAME if buffer[1] & EXCEPTION else 1 + pdu.reply_length + 2
