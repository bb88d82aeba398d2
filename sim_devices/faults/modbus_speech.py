"""Modbus understood: which registers a frame reads or writes, what they mean to a profile, and faults of their values.

Source: MODBUS Application Protocol V1.1b3, sections 6.3, 6.4, 6.6 and 6.12.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sim_devices.faults.effects import Fate, Passage
from sim_devices.faults.fault_set import ActiveFault
from sim_devices.faults.frames import Frame, Framing, MbapFraming, framing_of
from sim_devices.faults.places import Place, Registers, plain_places, preload, sunspec_places
from sim_devices.faults.points import KnownDevice
from sim_devices.faults.registry import Direction
from sim_devices.faults.speech import OWN_TIMEOUT_S, Speech
from sim_devices.faults.values import FROZEN, change_of
from sim_devices.modbus.pdu import READ_HOLDING, READ_INPUT, WRITE_MULTIPLE, WRITE_SINGLE

_READS: Final = {READ_HOLDING: "holding", READ_INPUT: "input"}
_WRITES: Final = (WRITE_SINGLE, WRITE_MULTIPLE)
_HEADER_READ: Final = 2
"""Registers in the read of a SunSpec model's head, or of the marker."""

_MOST_ASKED: Final = 64


class _Asked(NamedTuple):
    """A request that is under way; `pdu` is as the driver sent it."""

    transaction: int
    unit: int
    first: int
    registers: int
    pdu: bytes


class _Own(NamedTuple):
    """A request that the proxy makes itself."""

    unit: int
    pdu: bytes


@dataclass(slots=True)
class _Device:
    """A device behind the link: its registers as they were last read, and where its points are in them."""

    known: KnownDevice
    placed: list[Place]
    tables: dict[str, Registers] = field(default_factory=lambda: {"holding": {}, "input": {}})
    chain_grew: bool = False

    @property
    def places(self) -> list[Place]:
        """The places of its points, as far as they are known."""
        if self.chain_grew:
            self.chain_grew = False
            self.placed = [*plain_places(self.known), *sunspec_places(self.known, self.tables["holding"])]
        return self.placed

    def note(self, table: str, address: int, data: bytes) -> None:
        """Registers were read."""
        count = len(data) // 2
        self.tables[table].update(zip(range(address, address + count), struct.unpack(f">{count}H", data), strict=True))
        self.chain_grew |= table == "holding" and count == _HEADER_READ


class ModbusUnderstanding:
    """The devices behind a Modbus link, over its connections."""

    def __init__(self, protocol: str, devices: Sequence[KnownDevice]) -> None:
        for device in devices:
            preload(device)
        self.devices = {device.name: _Device(device, plain_places(device)) for device in devices}
        self.own: deque[_Own] = deque()
        framing = framing_of(protocol)
        assert framing is not None
        self.framing: Framing = framing

    def speech(self) -> Speech:
        """For a new connection."""
        return ModbusSpeech(self)

    def struck(self, active: ActiveFault) -> None:
        """Let a device lose its setpoint: what it then goes to is written behind the driver's back."""
        device = self.devices.get(active.fault.device)
        if active.name not in ("reversion", "reboot") or device is None or device.known.unit is None:
            return
        told = active.fault.parameters["power_pu"]
        released_w = device.known.released_w() if active.name == "reversion" else device.known.open_w()
        power_w = (released_w or 0.0) if told is None else told * device.known.rating_w
        places = {place.point.name: place for place in device.places}
        for point, value in device.known.commands(power_w):
            place = places.get(point)
            if place is not None and place.code and place.table == "holding":
                registers = place.data(place.raw_of(value, device.tables["holding"]))
                self.own.append(_Own(device.known.unit, _write(place.address, registers)))
        if self.own:
            active.acted += 1


class ModbusSpeech(Speech):
    """One connection, or one serial line, of a Modbus link."""

    def __init__(self, understanding: ModbusUnderstanding) -> None:
        self._of = understanding
        self._named = isinstance(understanding.framing, MbapFraming)
        self._asked: deque[_Asked] = deque(maxlen=_MOST_ASKED)
        self._answered: _Asked | None = None
        self._own: tuple[int, float] | None = None
        self._waits_since_s = math.inf

    def hear(self, direction: Direction, frame: Frame, now_s: float) -> bool:
        if direction is Direction.REQUEST:
            if not self._named:
                # One at a time speaks on a serial line.
                self._asked.clear()
            self._asked.append(_asked(frame, self._named))
            return False
        self._answered = self._take_asked(frame)
        if self._own is not None and self._is_own(frame):
            self._own = None
            return True
        asked = self._answered
        if asked is not None and frame.pdu[0] in _READS and len(frame.pdu) == 2 + 2 * asked.registers:
            for device in self._devices(frame.unit):
                device.note(_READS[frame.pdu[0]], asked.first, frame.pdu[2:])
        return False

    def act(self, active: ActiveFault, passage: Passage, now_s: float) -> bool:
        frame, device = passage.frame, self._of.devices.get(active.fault.device)
        if frame is None or device is None or frame.unit != device.known.unit:
            return False
        if active.fault.kind.goes_down:
            is_down = now_s < active.down_until_s
            passage.fate = Fate.VANISHES if is_down else passage.fate
            return is_down
        if passage.direction is Direction.REQUEST:
            asked = _asked(frame, self._named)
            return frame.function in _WRITES and self._act_on_write(active, passage, device, asked, now_s)
        if frame.pdu[0] in _READS:
            return self._act_on_read(active, passage, device, now_s)
        return frame.pdu[0] in _WRITES and self._act_on_echo(active, passage)

    def own_request(self, now_s: float) -> bytes | None:
        if self._own is not None or not self._of.own:
            return None
        if self._asked:
            self._waits_since_s = min(self._waits_since_s, now_s)
            return None
        own = self._of.own.popleft()
        self._waits_since_s = math.inf
        transaction = 0xFF00 | len(self._of.own) & 0xFF
        self._own = (transaction, now_s)
        head = struct.pack(">HHHB", transaction, 0, 0, own.unit) if self._named else b""
        return self._of.framing.made_over(Frame(head, own.unit, own.pdu), pdu=own.pdu)

    @property
    def has_own(self) -> bool:
        return self._own is not None or bool(self._of.own)

    @property
    def own_due_s(self) -> float:
        since_s = self._own[1] if self._own is not None else self._waits_since_s
        return since_s + OWN_TIMEOUT_S

    def give_up(self, now_s: float) -> None:
        if self._own is None:
            self._asked.clear()
        self._own = None
        self._waits_since_s = math.inf

    def _devices(self, unit: int) -> list[_Device]:
        return [device for device in self._of.devices.values() if device.known.unit == unit]

    def _take_asked(self, frame: Frame) -> _Asked | None:
        transaction = int.from_bytes(frame.raw[:2]) if self._named else 0
        for asked in self._asked:
            if asked.transaction == transaction and (self._named or asked.unit == frame.unit):
                self._asked.remove(asked)
                return asked
        return None

    def _is_own(self, frame: Frame) -> bool:
        assert self._own is not None
        return self._answered is None and (not self._named or int.from_bytes(frame.raw[:2]) == self._own[0])

    def _act_on_read(self, active: ActiveFault, passage: Passage, device: _Device, now_s: float) -> bool:
        asked, frame = self._answered, passage.frame
        if asked is None or frame is None or len(frame.pdu) != 2 + 2 * asked.registers:
            return False
        table = _READS[frame.pdu[0]]
        data = bytearray(frame.pdu[2:])
        for place in _meant(active, device):
            at = 2 * (place.address - asked.first)
            if place.table == table and at >= 0 and at + 2 * place.registers <= len(data):
                true = bytes(data[at : at + 2 * place.registers])
                data[at : at + 2 * place.registers] = _as_read(active, place, true, device.tables["holding"], now_s)
        if active.name == "scale_factor" and table == "holding":
            _shift_factors(active, device, asked.first, data)
        if active.name == "write_ignored" and table == "holding":
            _show_written(active, asked.first, data)
        return self._made_over(passage, frame.pdu[:2] + bytes(data))

    def _act_on_write(
        self, active: ActiveFault, passage: Passage, device: _Device, asked: _Asked, now_s: float
    ) -> bool:
        frame = passage.frame
        assert frame is not None
        head = 3 if frame.function == WRITE_SINGLE else 6
        data = bytearray(frame.pdu[head:])
        touched = [
            (place, 2 * (place.address - asked.first))
            for place in _meant(active, device)
            if place.table == "holding"
            and asked.first <= place.address
            and place.address + place.registers <= asked.first + len(data) // 2
        ]
        if active.name == "write_ignored":
            if not touched:
                return False
            for at in range(0, len(data), 2):
                active.memory[asked.first + at // 2] = bytes(data[at : at + 2])
            passage.fate = Fate.ANSWERED
            self._asked.pop()
            return self._made_over(passage, frame.pdu[:5])
        change = change_of(active, Direction.REQUEST)
        for place, at in touched:
            known = device.tables["holding"]
            if change is not None and place.code and place.is_scaled(known):
                raw = change(
                    active, place.raw(bytes(data[at : at + 2 * place.registers])), place.full_raw(known), now_s
                )
                data[at : at + 2 * place.registers] = place.data(raw)
        return self._made_over(passage, frame.pdu[:head] + bytes(data))

    def _act_on_echo(self, active: ActiveFault, passage: Passage) -> bool:
        """A device that takes another value answers with the one that it was asked for."""
        asked, frame = self._answered, passage.frame
        changes = change_of(active, Direction.REQUEST) is not None
        if not changes or asked is None or frame is None or frame.pdu[0] != WRITE_SINGLE:
            return False
        return self._made_over(passage, asked.pdu)

    def _made_over(self, passage: Passage, pdu: bytes) -> bool:
        assert passage.frame is not None
        if pdu == passage.frame.pdu and passage.fate is Fate.PASSES:
            return False
        passage.raw = self._of.framing.made_over(passage.frame, pdu=pdu)
        passage.frame = self._of.framing.take(passage.raw)
        return True


def _asked(frame: Frame, named: bool) -> _Asked:
    pdu = frame.pdu
    address, count = struct.unpack(">HH", pdu[1:5]) if len(pdu) >= 5 else (0, 0)
    transaction = int.from_bytes(frame.raw[:2]) if named else 0
    return _Asked(transaction, frame.unit, address, 1 if pdu[0] == WRITE_SINGLE else count, pdu)


def _meant(active: ActiveFault, device: _Device) -> list[Place]:
    """The places that a fault is about; of a scale factor all that share it."""
    meant = [place for place in device.places if place.point.name in active.fault.points]
    if active.name != "scale_factor":
        return meant
    factors = {place.factor for place in meant} - {None}
    return [place for place in device.places if place in meant or place.factor in factors]


def _as_read(active: ActiveFault, place: Place, true: bytes, known: Registers, now_s: float) -> bytes:
    """The registers of a point as the fault has them arrive."""
    if active.name in FROZEN:
        frozen: bytes = active.memory.setdefault(place.point.name, true)
        return frozen
    if active.name == "torn_read":
        before: bytes = active.memory.get(place.point.name, true)
        active.memory[place.point.name] = true
        half = place.registers // 2 * 2
        return before[:half] + true[half:] if half else true
    if active.name == "not_implemented":
        return b"\0" * len(true) if not place.code else true if place.absent is None else place.data(place.absent)
    change = change_of(active, Direction.REPLY)
    if change is None or not place.code or (active.name == "flipped_sign" and place.code.isupper()):
        return true
    raw = place.raw(true)
    if math.isnan(raw) or raw == place.absent or not place.is_scaled(known):
        return true
    changed = change(active, raw, place.full_raw(known), now_s)
    return true if changed == raw or (math.isnan(changed) and not place.is_float) else place.data(changed)


def _shift_factors(active: ActiveFault, device: _Device, first: int, data: bytearray) -> None:
    """The scale factors of the points, as much greater as their raw numbers are smaller."""
    for address in {place.factor for place in _meant(active, device) if place.factor is not None}:
        at = 2 * (address - first)
        if 0 <= at < len(data):
            shown = int.from_bytes(data[at : at + 2], signed=True) + int(active.number("by"))
            data[at : at + 2] = min(max(shown, -10), 10).to_bytes(2, signed=True)


def _show_written(active: ActiveFault, first: int, data: bytearray) -> None:
    """What was written and did not happen, as if it had."""
    if not active.number("shown"):
        return
    for at in range(0, len(data), 2):
        data[at : at + 2] = active.memory.get(first + at // 2, data[at : at + 2])


def _write(address: int, registers: bytes) -> bytes:
    """A write by function 6 of one register and by function 16 of several, as most devices take it."""
    if len(registers) == 2:
        return struct.pack(">BH", WRITE_SINGLE, address) + registers
    return struct.pack(">BHHB", WRITE_MULTIPLE, address, len(registers) // 2, len(registers)) + registers
