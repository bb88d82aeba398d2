"""What each fault does to a piece of the stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from sim_devices.faults.fault_set import ActiveFault
from sim_devices.faults.frames import Frame, Framing
from sim_devices.faults.registry import Direction
from sim_devices.modbus.pdu import ERROR_BIT, READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, WRITE_SINGLE


class Fate(Enum):
    """What becomes of a piece, its bytes apart."""

    PASSES = "passes"
    VANISHES = "vanishes"
    BREAKS = "breaks"
    """The connection breaks off in its place."""

    ANSWERED = "answered"
    """It goes back, as `raw`, to where it came from."""

    AFTER_NEXT_REPLY = "after next reply"
    AFTER_NEXT_REQUEST = "after next request"


@dataclass(slots=True)
class Passage:
    """A piece on its way: the bytes to arrive, and how. `frame` is what they are, as long as they are a whole frame.

    `also` goes out right after it. `service_s`: how long whoever passes it on is busy with it.
    """

    direction: Direction
    raw: bytes
    frame: Frame | None
    fate: Fate = Fate.PASSES
    copies: int = 1
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    slice_size: int = 0
    gap_s: float = 0.0
    service_s: float = 0.0
    also: list[tuple[Direction, bytes]] = field(default_factory=list)


Effect: TypeAlias = Callable[[ActiveFault, Passage], bool]
"""Changes the passage; whether there was anything to change."""

Alteration: TypeAlias = Callable[[ActiveFault, Frame, Framing], bytes]
"""The bytes of a frame that has gone wrong; the same bytes where the fault can't happen to such a frame."""

Damage: TypeAlias = Callable[[ActiveFault, bytes], bytes]
"""The bytes that arrive of a frame's, right or altered."""


def _fate(fate: Fate) -> Effect:
    def decide(_: ActiveFault, passage: Passage) -> bool:
        passage.fate = fate
        return True

    return decide


def _latency(active: ActiveFault, passage: Passage) -> bool:
    passage.delay_s += active.number("delay_s") + active.rng.random() * active.number("jitter_s")
    return True


def _bandwidth(active: ActiveFault, passage: Passage) -> bool:
    speed = active.number("bytes_per_s")
    passage.bytes_per_s = min(speed, passage.bytes_per_s or speed)
    return True


def _slicing(active: ActiveFault, passage: Passage) -> bool:
    passage.slice_size = int(active.number("size"))
    passage.gap_s = active.number("gap_s")
    return True


def _duplicate(_: ActiveFault, passage: Passage) -> bool:
    passage.copies += 1
    return True


def _slow(active: ActiveFault, passage: Passage) -> bool:
    passage.service_s += active.number("delay_s")
    return True


EFFECTS: Final[Mapping[str, Effect]] = {
    "cut": _fate(Fate.BREAKS),
    "black_hole": _fate(Fate.VANISHES),
    "no_answer": _fate(Fate.VANISHES),
    "reorder": _fate(Fate.AFTER_NEXT_REPLY),
    "late_answer": _fate(Fate.AFTER_NEXT_REQUEST),
    "latency": _latency,
    "bandwidth": _bandwidth,
    "slicing": _slicing,
    "duplicate": _duplicate,
    "out_of_order": _fate(Fate.AFTER_NEXT_REPLY),
    "broker_slow": _slow,
}

_COUNTERPARTS: Final = {
    READ_HOLDING: READ_INPUT,
    READ_INPUT: READ_HOLDING,
    WRITE_SINGLE: WRITE_MULTIPLE,
    WRITE_MULTIPLE: WRITE_SINGLE,
}


def _exception(active: ActiveFault, frame: Frame, framing: Framing) -> bytes:
    return framing.made_over(frame, pdu=bytes((frame.function | ERROR_BIT, int(active.number("code")))))


def _wrong_unit(active: ActiveFault, frame: Frame, framing: Framing) -> bytes:
    told = active.fault.parameters["as_unit"]
    return framing.made_over(frame, unit=frame.unit % 247 + 1 if told is None else int(told))


def _wrong_function(active: ActiveFault, frame: Frame, framing: Framing) -> bytes:
    told = active.fault.parameters["as_function"]
    function = _COUNTERPARTS.get(frame.function, READ_HOLDING) if told is None else int(told)
    return framing.made_over(frame, pdu=bytes((function | frame.pdu[0] & ERROR_BIT,)) + frame.pdu[1:])


def _wrong_transaction(active: ActiveFault, frame: Frame, framing: Framing) -> bytes:
    transaction = int.from_bytes(frame.raw[:2]) + int(active.number("by"))
    return (transaction & 0xFFFF).to_bytes(2) + frame.raw[2:]


def _wrong_length(active: ActiveFault, frame: Frame, framing: Framing) -> bytes:
    by = int(active.number("by"))
    if not framing.resynchronizes:
        length = min(max(int.from_bytes(frame.raw[4:6]) + by, 0), 0xFFFF)
        return frame.raw[:4] + length.to_bytes(2) + frame.raw[6:]
    at = _byte_count_at(frame)
    if at is None:
        return frame.raw
    said = min(max(frame.pdu[at] + by, 0), 0xFF)
    return framing.made_over(frame, pdu=frame.pdu[:at] + bytes((said,)) + frame.pdu[at + 1 :])


def _byte_count_at(frame: Frame) -> int | None:
    """Where a PDU says how many bytes of registers it has: replies to reads, and requests of function 16."""
    if frame.pdu[0] in (READ_HOLDING, READ_INPUT) and len(frame.pdu) == 2 + frame.pdu[1]:
        return 1
    return 5 if frame.pdu[0] == WRITE_MULTIPLE and len(frame.pdu) > 6 else None


def _wrong_count(active: ActiveFault, frame: Frame, framing: Framing) -> bytes:
    if frame.pdu[0] not in (READ_HOLDING, READ_INPUT):
        return frame.raw
    registers = frame.pdu[2:]
    size = min(max(len(registers) + 2 * int(active.number("by")), 0), 250)
    return framing.made_over(frame, pdu=bytes((frame.pdu[0], size)) + registers[:size].ljust(size, b"\0"))


ALTERATIONS: Final[Mapping[str, Alteration]] = {
    "exception": _exception,
    "wrong_unit": _wrong_unit,
    "wrong_function": _wrong_function,
    "wrong_transaction": _wrong_transaction,
    "wrong_length": _wrong_length,
    "wrong_count": _wrong_count,
}


def _wrong_crc(active: ActiveFault, raw: bytes) -> bytes:
    return raw[:-1] + bytes((raw[-1] ^ active.rng.randrange(1, 256),)) if raw else raw


def _truncated(active: ActiveFault, raw: bytes) -> bytes:
    told = active.fault.parameters["keep"]
    return raw[: len(raw) // 2 if told is None else int(told)]


def _extra_bytes(active: ActiveFault, raw: bytes) -> bytes:
    return raw + active.rng.randbytes(int(active.number("size")))


DAMAGES: Final[Mapping[str, Damage]] = {
    "wrong_crc": _wrong_crc,
    "truncated": _truncated,
    "extra_bytes": _extra_bytes,
}


def apply(active: ActiveFault, passage: Passage, framing: Framing | None) -> bool:
    """Let a fault act on a piece that it meets; whether it has changed anything."""
    effect = EFFECTS.get(active.name)
    if effect is not None:
        return effect(active, passage)
    before = passage.raw
    damage = DAMAGES.get(active.name)
    if damage is not None:
        passage.raw = damage(active, before)
        passage.frame = None
        return passage.raw != before
    alteration = ALTERATIONS.get(active.name)
    if alteration is None or framing is None or passage.frame is None:
        return False
    passage.raw = alteration(active, passage.frame, framing)
    if active.name == "exception":
        passage.fate = Fate.ANSWERED
    whole = framing.length(passage.direction, passage.raw) == len(passage.raw)
    passage.frame = framing.take(passage.raw) if whole else None
    return passage.raw != before
