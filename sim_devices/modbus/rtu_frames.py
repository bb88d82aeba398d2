"""Frames of Modbus on a serial line: the check sum, and the times that characters and silences take.

Source: MODBUS over Serial Line Specification and Implementation Guide V1.02, 2006, sections 2.5.1 and 6.2.2.
"""

from __future__ import annotations

from typing import Final

SHORTEST: Final = 4
"""Unit, function and the check sum."""

LONGEST: Final = 256

FAST_BAUD: Final = 19_200
FAST_SILENCE_S: Final = 0.00175
"""Above 19,200 baud the silence between frames is fixed, so as not to burden receivers."""


def _table() -> tuple[int, ...]:
    entries: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
        entries.append(value)
    return tuple(entries)


_TABLE: Final = _table()


def check_sum(data: bytes) -> bytes:
    """The check sum of a frame's unit and PDU, as it is sent: the low byte first."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value.to_bytes(2, "little")


def framed(unit: int, pdu: bytes) -> bytes:
    """Unit and PDU with their check sum."""
    body = bytes((unit,)) + pdu
    return body + check_sum(body)


def is_whole(frame: bytes) -> bool:
    """Whether these bytes are one frame: of a possible length, with the right check sum."""
    return SHORTEST <= len(frame) <= LONGEST and check_sum(frame[:-2]) == frame[-2:]


def character_s(baud: int, bits: int) -> float:
    """How long one character takes; `bits` counts start, parity and stop bits as well: 11 by the standard."""
    return bits / baud


def silence_s(baud: int, bits: int) -> float:
    """The silence that ends a frame: three and a half characters."""
    return FAST_SILENCE_S if baud > FAST_BAUD else 3.5 * character_s(baud, bits)
