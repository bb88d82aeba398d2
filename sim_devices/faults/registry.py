"""The faults there are, as data: what each is called, where it can happen, what it does and what can be set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class Direction(StrEnum):
    """Which way bytes go."""

    REQUEST = "request"
    """From the driver to the device."""

    REPLY = "reply"
    """From the device to the driver."""

    @property
    def back(self) -> Direction:
        """The other way."""
        return Direction.REPLY if self is Direction.REQUEST else Direction.REQUEST


MODBUS_TCP: Final = "modbus_tcp"
MODBUS_RTU: Final = "modbus_rtu"
MODBUS_RTU_TCP: Final = "modbus_rtu_tcp"
OPCUA: Final = "opcua"
MQTT: Final = "mqtt"

MODBUS: Final = (MODBUS_TCP, MODBUS_RTU, MODBUS_RTU_TCP)
CONNECTIONS: Final = (MODBUS_TCP, MODBUS_RTU_TCP, OPCUA, MQTT)
EVERY: Final = (*MODBUS, OPCUA, MQTT)

REQUEST: Final = (Direction.REQUEST,)
REPLY: Final = (Direction.REPLY,)
BOTH: Final = (Direction.REQUEST, Direction.REPLY)

EXCEPTION_CODES: Final = (1, 2, 3, 4, 5, 6, 10, 11)
"""MODBUS Application Protocol V1.1b3, section 7, without 8, which is of files."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a fault can be given; None as default: the fault chooses, or does without."""

    default: float | None
    low: float
    high: float
    what: str
    whole: bool = True
    choices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One fault. `applies_to`: protocols as the site file names them.

    `default` and `allowed` are the directions it acts in; `frames`: it acts on whole frames, never on loose bytes;
    `selects`: it can be told unit and function, count and probability; without, it holds for the link as a whole.
    `at_once`: it strikes the connections there are when it is set.
    """

    name: str
    applies_to: tuple[str, ...]
    what: str
    default: tuple[Direction, ...] = BOTH
    allowed: tuple[Direction, ...] = BOTH
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    frames: bool = False
    selects: bool = True
    at_once: bool = False
    lasts: bool = True

    def as_json(self) -> dict[str, Any]:
        """What a list of faults says of it."""
        return {"name": self.name, "applies_to": list(self.applies_to), "what": self.what}


_SECONDS: Final = 3600.0

_LINK: Final = (
    FaultKind(
        "refuse", EVERY, "new connections are refused; a serial line is not there", selects=False,
    ),
    FaultKind(
        "reset", EVERY, "the connections there are break off at once; a serial adapter is pulled out and put back",
        selects=False, at_once=True, lasts=False,
    ),
    FaultKind(
        "cut", EVERY, "the connection breaks off in place of the bytes that were to pass", default=REPLY,
    ),
    FaultKind(
        "black_hole", EVERY, "bytes vanish and the connection stays",
    ),
    FaultKind(
        "stall", EVERY, "bytes wait, and pass all at once when the fault ends, as after a cut that TCP survives",
        selects=False,
    ),
    FaultKind(
        "half_open", CONNECTIONS,
        "the far side of the connections there are forgets them without a word: bytes vanish, and break the connection "
        "off once the fault has ended",
        selects=False, at_once=True,
    ),
    FaultKind(
        "latency", EVERY, "bytes arrive later, in order",
        parameters={
            "delay_s": Parameter(0.1, 0.0, _SECONDS, "least delay", whole=False),
            "jitter_s": Parameter(0.0, 0.0, _SECONDS, "most that comes on top, evenly distributed", whole=False),
        },
    ),
    FaultKind(
        "bandwidth", EVERY, "bytes pass no faster than this",
        parameters={"bytes_per_s": Parameter(1000.0, 1.0, 1e9, "the speed", whole=False)},
    ),
    FaultKind(
        "slicing", EVERY, "bytes arrive in small pieces",
        parameters={
            "size": Parameter(1, 1, 65_536, "bytes in a piece"),
            "gap_s": Parameter(0.0005, 0.0, 10.0, "time between two pieces", whole=False),
        },
    ),
    FaultKind("duplicate", MODBUS, "a frame arrives twice", default=REPLY, frames=True),
    FaultKind("reorder", MODBUS, "a reply arrives after the one that follows it", REPLY, REPLY, frames=True),
)  # fmt: skip

_FRAMES: Final = (
    FaultKind(
        "no_answer", MODBUS,
        "the reply is lost after the device has acted; in direction request, the device hears nothing",
        default=REPLY, frames=True,
    ),
    FaultKind(
        "exception", MODBUS, "the request is answered by an exception and does not reach the device", REQUEST, REQUEST,
        parameters={"code": Parameter(4, 1, 11, "exception code", choices=EXCEPTION_CODES)}, frames=True,
    ),
    FaultKind(
        "wrong_unit", MODBUS, "the frame names another unit", default=REPLY, frames=True,
        parameters={"as_unit": Parameter(None, 0, 255, "the unit it names; default another")},
    ),
    FaultKind(
        "wrong_function", MODBUS, "the frame names another function", default=REPLY, frames=True,
        parameters={"as_function": Parameter(None, 1, 127, "the function it names; default its counterpart")},
    ),
    FaultKind(
        "wrong_transaction", (MODBUS_TCP,), "the frame names another transaction", default=REPLY, frames=True,
        parameters={"by": Parameter(1, -65_535, 65_535, "how far off it is")},
    ),
    FaultKind(
        "wrong_length", MODBUS, "the frame says that it is longer or shorter than it is (serial: its byte count)",
        default=REPLY, frames=True,
        parameters={"by": Parameter(1, -255, 65_535, "how many bytes off it is")},
    ),
    FaultKind(
        "wrong_count", MODBUS, "the reply to a read is well formed and has more or fewer registers than asked for",
        REPLY, REPLY, frames=True,
        parameters={"by": Parameter(1, -125, 125, "how many registers off it is")},
    ),
    FaultKind(
        "wrong_crc", (MODBUS_RTU, MODBUS_RTU_TCP), "the frame's check sum is wrong", default=REPLY, frames=True,
    ),
    FaultKind(
        "truncated", MODBUS, "only the first bytes of the frame arrive", default=REPLY, frames=True,
        parameters={"keep": Parameter(None, 0, 259, "how many arrive; default half")},
    ),
    FaultKind(
        "extra_bytes", MODBUS, "random bytes follow the frame", default=REPLY, frames=True,
        parameters={"size": Parameter(3, 1, 65_536, "how many")},
    ),
    FaultKind(
        "late_answer", MODBUS, "the reply arrives when the next request has gone", REPLY, REPLY, frames=True,
    ),
)  # fmt: skip

FAULTS: Final[Mapping[str, FaultKind]] = {kind.name: kind for kind in (*_LINK, *_FRAMES)}
"""Every fault by name."""
