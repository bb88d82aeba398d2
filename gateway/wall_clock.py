"""Whether the wall clock can be trusted, as the kernel has it (adjtimex(2), Linux)."""

from __future__ import annotations

import ctypes
from typing import Final, NamedTuple

_TIME_ERROR: Final = 5
_STA_UNSYNC: Final = 0x0040


class _Timex(ctypes.Structure):
    """struct timex up to what is read here; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_byte * 256),
    )


class ClockQuality(NamedTuple):
    """`synchronised` None: the system does not tell. `max_error_s` is the kernel's bound while it is synchronised."""

    synchronised: bool | None
    max_error_s: float | None

    def text(self) -> str:
        """In words."""
        if self.synchronised is None:
            return "unknown"
        if not self.synchronised:
            return "not synchronised"
        return "synchronised" if self.max_error_s is None else f"synchronised within {self.max_error_s:.3f} s"


UNKNOWN: Final = ClockQuality(None, None)


def clock_quality() -> ClockQuality:
    """What the kernel says of the wall clock now; reads alone."""
    try:
        state = _adjtimex(ctypes.byref(timex := _Timex()))
    except (OSError, AttributeError):
        return UNKNOWN
    if state < 0:
        return UNKNOWN
    if state == _TIME_ERROR or timex.status & _STA_UNSYNC:
        return ClockQuality(False, None)
    return ClockQuality(True, timex.maxerror / 1e6)


def _adjtimex(buffer: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    return int(library.adjtimex(buffer))
