"""The wire of a serial line and the units on it: who hears what, and when an answer has arrived.

Source: MODBUS over Serial Line Specification and Implementation Guide V1.02, 2006, sections 2.1 to 2.5.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sim_devices.modbus.pdu import WRITE_MULTIPLE, WRITE_SINGLE
from sim_devices.modbus.rtu_frames import LONGEST, character_s, framed, is_whole, silence_s
from sim_devices.modbus.server import ModbusServer

BROADCAST: Final = 0
SLICE: Final = 16
"""An answer reaches the master in pieces of this many bytes, as serial adapters hand them on."""


@dataclass(frozen=True, slots=True)
class LineTiming:
    """How fast a line is. `bits` of a character: start, eight of data, parity (or a second stop bit), stop.

    `turnaround_s` is the time from the end of a request to the begin of its answer, a few milliseconds in most devices;
    it may differ by unit. Raises ValueError for a speed that is none.
    """

    baud: int = 19_200
    bits: int = 11
    turnaround_s: float = 0.003
    turnaround_s_by_unit: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.baud <= 0 or self.bits <= 0:
            raise ValueError(f"{self.baud} baud with {self.bits} bits a character is no speed")

    @property
    def character_s(self) -> float:
        """How long one character takes."""
        return character_s(self.baud, self.bits)

    @property
    def silence_s(self) -> float:
        """The silence that ends a frame."""
        return silence_s(self.baud, self.bits)

    def pause_s(self, unit: int) -> float:
        """From the end of a request to the begin of this unit's answer; never less than the silence between frames."""
        return max(self.silence_s, self.turnaround_s_by_unit.get(unit, self.turnaround_s))


@dataclass(slots=True)
class BusCounts:
    """What a line has seen: `garbled` frames had a wrong check sum, `collisions` were two that spoke at once."""

    frames: int = 0
    garbled: int = 0
    collisions: int = 0


class RtuBus:
    """`hear` takes the master's bytes, `say` is given the units'; nothing here knows what leads to the wire.

    Bytes occupy the wire for as long as they take. A frame ends with a silence; one with a wrong check sum, or for a
    unit that isn't there, is met with silence. Broadcasts are obeyed and not answered. A unit doesn't listen while it
    prepares its answer; what two say at once is garbled.
    """

    def __init__(self, server: ModbusServer, say: Callable[[bytes], None], timing: LineTiming) -> None:
        self.server = server
        self.timing = timing
        self.counts = BusCounts()
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._heard = bytearray()
        self._heard_until_s = 0.0
        self._garbled = False
        self._frame_end: asyncio.TimerHandle | None = None
        self._speaking = 0
        self._preparing: set[int] = set()
        self._timers: set[asyncio.TimerHandle] = set()

    def hear(self, data: bytes) -> None:
        """Take what the master sends, from now on at the speed of the line."""
        now_s = self._loop.time()
        if self._frame_end is not None:
            if now_s >= self._frame_end.when():
                self._end_frame()
            else:
                self._frame_end.cancel()
        if self._speaking:
            self.counts.collisions += 1
            self._garbled = True
        self._heard_until_s = max(self._heard_until_s, now_s) + len(data) * self.timing.character_s
        self._heard += data[: LONGEST + 1 - len(self._heard)]
        self._frame_end = self._loop.call_at(self._heard_until_s + self.timing.silence_s, self._end_frame)

    def close(self) -> None:
        """Say nothing any more."""
        if self._frame_end is not None:
            self._frame_end.cancel()
            self._frame_end = None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _end_frame(self) -> None:
        self._frame_end = None
        frame, self._heard = bytes(self._heard), bytearray()
        garbled, self._garbled = self._garbled, False
        if garbled or not is_whole(frame):
            self.counts.garbled += 1
            return
        self.counts.frames += 1
        unit, pdu = frame[0], frame[1:-2]
        if unit == BROADCAST:
            if pdu[0] in (WRITE_SINGLE, WRITE_MULTIPLE):
                for each in self.server.units.keys() - self._preparing:
                    self.server.reply(each, pdu)
        elif unit not in self.server.units:
            # Asked all the same: the server counts requests to units that are not there.
            self.server.reply(unit, pdu)
        elif unit not in self._preparing:
            self._preparing.add(unit)
            self._at(self._heard_until_s + self.timing.pause_s(unit), lambda: self._answer(unit, pdu))

    def _answer(self, unit: int, pdu: bytes) -> None:
        self._preparing.discard(unit)
        reply = self.server.reply(unit, pdu)
        if reply is None:
            return
        frame = framed(unit, reply)
        if self._speaking or self._frame_end is not None:
            self.counts.collisions += 1
            self._garbled = self._frame_end is not None
            frame = bytes(byte ^ 0xFF for byte in frame)
        self._speaking += 1
        begin_s = self._loop.time()
        for start in range(0, len(frame), SLICE):
            piece = frame[start : start + SLICE]
            end = start + len(piece)
            self._at(begin_s + end * self.timing.character_s, self._saying(piece, last=end == len(frame)))

    def _saying(self, piece: bytes, *, last: bool) -> Callable[[], None]:
        def say() -> None:
            if last:
                self._speaking -= 1
            self._say(piece)

        return say

    def _at(self, when_s: float, act: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            act()

        timer = self._loop.call_at(when_s, run)
        self._timers.add(timer)
