"""Requests as the link sees them: bytes to send, the reply that is due, and who is told (Modbus Application Protocol
V1.1b3, sections 6.3, 6.4, 6.6, 6.12 and 7).
"""

from __future__ import annotations

import asyncio
import struct
from enum import Enum
from typing import Final, NamedTuple

from config.vocabulary import WritePriority

READ_HOLDING: Final = 3
READ_INPUT: Final = 4
WRITE_SINGLE: Final = 6
WRITE_MULTIPLE: Final = 16
EXCEPTION: Final = 0x80

EXCEPTION_NAMES: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "server device failure",
    5: "acknowledge",
    6: "server device busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}

_READ = struct.Struct(">BHH")
_WRITE_MULTIPLE = struct.Struct(">BHHB")


class Failure(Enum):
    """Why a request has no answer, split by what the asker does next.

    EXCEPTION and REJECTED: refused, or answered wrongly. BUSY: not taken, ask again later; UNDER_WAY: taken, and its
    end is not known. UNREACHED: a gateway says that the device behind it does not answer. UNANSWERED: neither does the
    device, and the connection goes on; TIMEOUT: likewise, and the connection is closed.
    """

    EXCEPTION = "exception"
    BUSY = "busy"
    UNDER_WAY = "under way"
    UNREACHED = "unreached"
    UNANSWERED = "unanswered"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    LOST = "lost"
    DROPPED = "dropped"


class RequestFailed(Exception):  # noqa: N818 - the name says what happened, as the asker reads it
    """A request that was awaited has no answer."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail


class Pdu(NamedTuple):
    """A request and the reply it is due: these first bytes, and this many in all."""

    data: bytes
    reply_prefix: bytes
    reply_length: int


def read_pdu(table: str, first: int, count: int) -> Pdu:
    """Read `count` registers from the table `holding` (function 3) or `input` (function 4)."""
    function = READ_INPUT if table == "input" else READ_HOLDING
    return Pdu(_READ.pack(function, first, count), bytes((function, 2 * count)), 2 + 2 * count)


def write_pdu(address: int, data: bytes, single: bool) -> Pdu:
    """Write registers: function 6 if `single` (of one register, answered by an echo), else function 16."""
    if single:
        pdu = struct.pack(">BH", WRITE_SINGLE, address) + data
        return Pdu(pdu, pdu, 5)
    size = len(data)
    head = _WRITE_MULTIPLE.pack(WRITE_MULTIPLE, address, size // 2, size)
    return Pdu(head + data, head[:5], 5)


class Request:
    """One exchange with one unit. Subclasses say who is told; a request may be sent again once it is answered."""

    __slots__ = ("name", "pdu", "priority", "timeout_s", "unit")

    def __init__(self, name: str, unit: int, priority: WritePriority, timeout_s: float, pdu: Pdu) -> None:
        self.name = name
        self.unit = unit
        self.priority = priority
        self.timeout_s = timeout_s
        self.pdu = pdu

    @property
    def writes(self) -> bool:
        """Whether this changes the device, so that no answer leaves it in doubt."""
        return self.priority <= WritePriority.SETPOINT

    def before_send(self) -> bool:
        """Called when it is this request's turn; False leaves it out."""
        return True

    def succeeded(self, reply: bytes) -> None:
        """The reply's PDU, already checked for function and length."""
        raise NotImplementedError

    def failed(self, failure: Failure, detail: str) -> None:
        """There will be no answer."""
        raise NotImplementedError


class AwaitedRequest(Request):
    """A request whose reply is awaited: for set-up, not for the cycle."""

    __slots__ = ("reply",)

    def __init__(self, name: str, unit: int, timeout_s: float, pdu: Pdu) -> None:
        super().__init__(name, unit, WritePriority.SLOW_POLL, timeout_s, pdu)
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def succeeded(self, reply: bytes) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)

    def failed(self, failure: Failure, detail: str) -> None:
        if not self.reply.done():
            self.reply.set_exception(RequestFailed(failure, detail))
            # Whoever waited may be cancelled at this very moment; nobody has to collect the failure then.
            self.reply.exception()


_FAILURES: Final = {
    5: Failure.UNDER_WAY,
    6: Failure.BUSY,
    10: Failure.UNREACHED,
    11: Failure.UNREACHED,
}


def exception_failure(code: int) -> Failure:
    """What a device's or gateway's exception means to who asked (Modbus Application Protocol V1.1b3, section 7)."""
    return _FAILURES.get(code, Failure.EXCEPTION)


def exception_text(code: int) -> str:
    """A device's exception in words."""
    return f"exception {code} ({EXCEPTION_NAMES.get(code, 'not in the standard')})"
