"""The faults there are, as data: what each is called, where it can happen, what it does and what can be set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
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
OCPP: Final = "ocpp"
PARENT: Final = "parent"
"""What a parent of the site says, on its topics."""

MODBUS: Final = (MODBUS_TCP, MODBUS_RTU, MODBUS_RTU_TCP)
CONNECTIONS: Final = (MODBUS_TCP, MODBUS_RTU_TCP, OPCUA, MQTT, OCPP)
EVERY: Final = (*MODBUS, OPCUA, MQTT, OCPP)
PARENTS: Final = (PARENT,)

REQUEST: Final = (Direction.REQUEST,)
REPLY: Final = (Direction.REPLY,)
BOTH: Final = (Direction.REQUEST, Direction.REPLY)

EXCEPTION_CODES: Final = (1, 2, 3, 4, 5, 6, 10, 11)
"""MODBUS Application Protocol V1.1b3, section 7, without 8, which is of files."""


CALL_ERRORS: Final = (
    "NotImplemented", "NotSupported", "InternalError", "ProtocolError", "SecurityError", "FormationViolation",
    "PropertyConstraintViolation", "OccurenceConstraintViolation", "TypeConstraintViolation", "GenericError",
)  # fmt: skip
"""OCPP-J 1.6, table 7, spelled as there."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a fault can be given; None as default: the fault chooses, or does without."""

    default: float | None
    low: float
    high: float
    what: str
    whole: bool = True
    choices: tuple[int, ...] = ()


class PointRule(Enum):
    """Which points of a device a fault can be about; the device's profile says which those are."""

    READ = "points that can be read"
    HEARTBEAT = "its heartbeat"
    NUMBER = "numbers that can be read"
    FLOAT = "floating point numbers that can be read"
    SIGNED = "numbers that can be read and negative"
    WIDE = "numbers of two registers and more"
    WRITTEN = "points that a setpoint writes"
    WRITTEN_NUMBER = "points that a setpoint writes a power or current to"


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One fault. `applies_to`: protocols as the site file names them, and `parent`.

    `default` and `allowed` are the directions it acts in; `frames`: it acts on whole frames, never on loose bytes;
    `selects`: it can be told unit and function, count and probability; without, it holds for the link as a whole.
    `lasts`: it goes on after it was set. `understands`: what is said must be understood for it. `points`: which points
    of a device, whose profile must be known, it is about; it then knows `point`. `goes_down`: nobody answers for its
    `down_s`.
    """

    name: str
    applies_to: tuple[str, ...]
    what: str
    default: tuple[Direction, ...] = BOTH
    allowed: tuple[Direction, ...] = BOTH
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    frames: bool = False
    selects: bool = True
    lasts: bool = True
    understands: bool = False
    points: PointRule | None = None
    goes_down: bool = False

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
        selects=False, lasts=False,
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
        selects=False,
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
    FaultKind("duplicate", (*MODBUS, MQTT), "a frame, or a message of MQTT, arrives twice", default=REPLY, frames=True),
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

_VALUED: Final = (*MODBUS, OPCUA, MQTT)
_DOWN_S: Final = Parameter(1.0, 0.0, _SECONDS, "how long nobody answers", whole=False)
_POWER_PU: Final = Parameter(
    None, -1.0, 1.0, "power that it then goes to, of the rating, load convention; default by its profile", whole=False
)


def _value(name: str, what: str, points: PointRule, applies_to: tuple[str, ...] = _VALUED, **more: Any) -> FaultKind:
    return FaultKind(
        name, applies_to, what, **({"default": REPLY, "allowed": REPLY} | more), frames=True, understands=True,
        points=points,
    )  # fmt: skip


_VALUES: Final = (
    _value("frozen_value", "a value stays as it was while everything else goes on", PointRule.READ),
    _value("frozen_heartbeat", "the heartbeat stands still while values go on", PointRule.HEARTBEAT),
    _value("nan", "a floating point number is not a number", PointRule.FLOAT),
    _value(
        "not_implemented", "a value reads as the device says that it has none: SunSpec's or the profile's `invalid`",
        PointRule.READ, MODBUS,
    ),
    _value(
        "scale_factor",
        "the device counts in another unit: raw numbers are 10 ** `by` less, SunSpec's scale factors as much more",
        PointRule.NUMBER, default=BOTH, allowed=BOTH,
        parameters={"by": Parameter(1, -6, 6, "by how many powers of ten")},
    ),
    _value("flipped_sign", "a value has the other sign", PointRule.SIGNED),
    _value(
        "torn_read", "the first half of a value is of the reading before, the second half of this one",
        PointRule.WIDE, MODBUS,
    ),
    _value(
        "write_ignored", "a write is answered as done and does not happen", PointRule.WRITTEN,
        default=BOTH, allowed=BOTH,
        parameters={"shown": Parameter(0, 0, 1, "1: and reads back as if it had happened")},
    ),
    _value(
        "write_clipped", "a written number is cut to a part of the rating, and answered as done",
        PointRule.WRITTEN_NUMBER, default=BOTH, allowed=BOTH,
        parameters={"most_pu": Parameter(0.5, 0.0, 1.0, "the most that is taken, of the rating", whole=False)},
    ),
    FaultKind(
        "reversion", _VALUED, "the device's own timer fires although it is written to: its setpoint is gone",
        selects=False, lasts=False, understands=True, parameters={"power_pu": _POWER_PU},
    ),
    FaultKind(
        "reboot", _VALUED, "the device is gone for a while, and back with its defaults: its setpoint is gone",
        selects=False, understands=True, goes_down=True,
        parameters={"down_s": _DOWN_S, "power_pu": _POWER_PU},
    ),
    _value(
        "drift", "a value moves away from what it is", PointRule.NUMBER,
        parameters={"pu_per_s": Parameter(0.01, -10.0, 10.0, "how fast, of the rating", whole=False)},
    ),
    _value(
        "spikes", "single readings of a value are far off", PointRule.NUMBER,
        parameters={
            "size_pu": Parameter(3.0, 0.0, 1e6, "how far, of the rating, up or down", whole=False),
            "chance": Parameter(0.1, 0.0, 1.0, "how many of the readings", whole=False),
        },
    ),
)  # fmt: skip


def _opcua(name: str, what: str, **more: Any) -> FaultKind:
    settings: dict[str, Any] = {"default": REPLY, "allowed": REPLY, "frames": True}
    return FaultKind(name, (OPCUA,), what, **(settings | more), understands=True)


_OPCUA: Final = (
    _opcua("bad_status", "values come with a status that is bad (Bad_SensorFailure), and are as they were"),
    _opcua("uncertain_status", "values come with a status that is uncertain (Uncertain_LastUsableValue)"),
    _opcua(
        "subscription_stalled", "the subscription says nothing more while the session lives",
        parameters={"keep_alive": Parameter(0, 0, 1, "1: it says, in keep-alives, that nothing changes")},
    ),
    _opcua(
        "session_lost", "the server has forgotten the sessions there are (Bad_SessionIdInvalid), and lets new ones in",
        default=BOTH, allowed=BOTH, selects=False, frames=False,
    ),
    _opcua(
        "server_restart", "the server is gone for a while, and back with its namespaces at other indexes",
        default=BOTH, allowed=BOTH, selects=False, frames=False, goes_down=True,
        parameters={"down_s": _DOWN_S, "by": Parameter(1, 0, 100, "by how many each index has grown")},
    ),
)  # fmt: skip

_MQTT: Final = (
    FaultKind(
        "stale_retained", (MQTT,), "at once and after each subscription the broker hands out, as retained, what was "
        "published first on each topic", REPLY, REPLY, selects=False, understands=True,
    ),
    FaultKind(
        "out_of_order", (MQTT,), "a message arrives after the one that follows it", REPLY, REPLY, frames=True,
        understands=True,
    ),
    FaultKind(
        "broker_restart", (MQTT,), "the broker is gone for a while, and back without what it had retained",
        selects=False, understands=True, goes_down=True,
        parameters={"down_s": _DOWN_S, "keeps_retained": Parameter(0, 0, 1, "1: it has what it had retained")},
    ),
    FaultKind(
        "broker_slow", (MQTT,), "the broker takes its time for each message, one after the other", frames=True,
        understands=True, parameters={"delay_s": Parameter(0.2, 0.0, _SECONDS, "for each message", whole=False)},
    ),
)  # fmt: skip


def _ocpp(name: str, what: str, **more: Any) -> FaultKind:
    settings: dict[str, Any] = {"default": REPLY, "allowed": BOTH, "frames": True}
    return FaultKind(name, (OCPP,), what, **(settings | more), understands=True)


_OCPP: Final = (
    _ocpp(
        "call_error", "a request is answered by a CALLERROR and does not arrive; in direction reply, the charger's own",
        default=REQUEST,
        parameters={"code": Parameter(3, 1, len(CALL_ERRORS), f"1 to {len(CALL_ERRORS)}: {', '.join(CALL_ERRORS)}")},
    ),
    _ocpp("malformed_json", "only the first half of a message arrives, in a frame that is whole"),
    _ocpp("duplicate_id", "a request arrives twice, under the same id"),
    _ocpp(
        "late_result", "the answer to a request arrives later, and what is said meanwhile goes before it",
        parameters={"delay_s": Parameter(10.0, 0.0, _SECONDS, "how much later", whole=False)},
    ),
    _ocpp(
        "charger_reboot", "the charger boots anew (Reset, hard), also in the middle of a transaction", default=BOTH,
        frames=False, selects=False, lasts=False,
    ),
)  # fmt: skip


def _parent(name: str, what: str, **parameters: Parameter) -> FaultKind:
    return FaultKind(
        name, PARENTS, what, REPLY, REPLY, parameters=parameters, frames=True, understands=True
    )  # fmt: skip


_PARENTS: Final = (
    _parent("heartbeat_lost", "the parent's heartbeats are lost, its orders are not"),
    _parent(
        "contradictory_orders",
        "each limit is followed by its withdrawal under the same id, and by a dispatch beyond it; each dispatch by its "
        "opposite under the same id",
    ),
    _parent(
        "stale_epoch", "dispatches and signals come with an epoch that has passed",
        by=Parameter(1, 1, 1_000_000, "how many epochs ago"),
    ),
    _parent(
        "clock_off", "the parent's clock is wrong",
        offset_s=Parameter(3600.0, -1e7, 1e7, "how far it is ahead", whole=False),
    ),
    _parent(
        "clock_back", "the parent's clock is set back: what it says now is older than what it said before",
        step_s=Parameter(3600.0, 0.0, 1e7, "by how much", whole=False),
    ),
)  # fmt: skip

FAULTS: Final[Mapping[str, FaultKind]] = {
    kind.name: kind for kind in (*_LINK, *_FRAMES, *_VALUES, *_OPCUA, *_MQTT, *_OCPP, *_PARENTS)
}
"""Every fault by name."""
