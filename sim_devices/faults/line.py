"""The core of the fault proxy: bytes and times in, bytes and breaks with their delays out. No sockets, no clock."""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from sim_devices.faults.effects import Fate, Passage, apply
from sim_devices.faults.fault_set import ActiveFault, FaultSet
from sim_devices.faults.frames import Frame, FrameTracker, framing_of
from sim_devices.faults.registry import Direction
from sim_devices.faults.speech import Speech

MOST_LATE: Final = 64
"""Replies that wait for a next request; the oldest are lost."""

MOST_HELD: Final = 1024
"""Pieces that wait for the proxy's own requests; when more come, these are given up."""

_AT_ONCE: Final = ("reset", "half_open")


class Close(Enum):
    """How one side learns that the other is gone."""

    END = "end"
    """No more bytes come from there; what is said to it still arrives."""

    RESET = "reset"


Payload: TypeAlias = bytes | Close


class Act(NamedTuple):
    """What is to reach the side that `direction` leads to, after `delay_s`."""

    delay_s: float
    direction: Direction
    what: Payload


class _Lane:
    """One direction of a line."""

    __slots__ = ("direction", "ended", "free_s", "stalled", "tracker")

    def __init__(self, direction: Direction, tracker: FrameTracker) -> None:
        self.direction = direction
        self.tracker = tracker
        self.free_s = -math.inf
        self.stalled: deque[Payload] = deque()
        self.ended = False

    @property
    def waiting(self) -> int:
        return self.tracker.held + sum(len(what) for what in self.stalled if isinstance(what, bytes))


class FaultyLine:
    """One connection, or one serial line, under the faults of a set.

    Each call returns what is to be done, for each direction in order of time; nothing overtakes in a direction. Between
    calls nothing happens but what `next_due_s` says: then, and whenever the set of faults has changed, call `due`.
    `speech` understands what is said; without it faults of values don't act.
    """

    def __init__(self, faults: FaultSet, speech: Speech | None = None) -> None:
        self._faults = faults
        self._speech = speech
        self._held: deque[Frame | bytes] = deque()
        self._framing = framing_of(faults.protocol)
        self._lanes = {way: _Lane(way, FrameTracker(way, self._framing)) for way in Direction}
        self._late: deque[bytes] = deque(maxlen=MOST_LATE)
        self._overtaken: deque[bytes] = deque(maxlen=MOST_LATE)
        self._seen_id = faults.last_id
        self._severed: ActiveFault | None = None
        self._broken = False

    def feed(self, direction: Direction, data: bytes, now_s: float) -> list[Act]:
        """Bytes have come from the side that `direction` leads away from."""
        acts: list[Act] = []
        if self._broken:
            return acts
        if self._severed is not None:
            if direction is Direction.REQUEST and not self._severed.alive(now_s):
                self._break(acts)
            return acts
        lane = self._lanes[direction]
        if self._speech is None and not self._faults.any_in_force(now_s):
            pieces = lane.tracker.feed(data, now_s, whole=False)
            self._pass_all(lane, pieces, now_s, acts)
            return acts
        for piece in lane.tracker.feed(data, now_s, whole=self._wants_frames(direction, now_s)):
            self._take(lane, piece, now_s, acts)
        return acts

    def ended(self, direction: Direction, now_s: float, *, reset: bool = False) -> list[Act]:
        """No more bytes come in `direction`: its source has ended its side, or broken off."""
        acts: list[Act] = []
        lane = self._lanes[direction]
        if self._broken or (lane.ended and not reset):
            return acts
        if self._severed is not None:
            self._break(acts)
            return acts
        held = b"" if lane.ended else lane.tracker.release()
        lane.ended = True
        if held:
            self._take(lane, held, now_s, acts)
        if self._held and direction is Direction.REQUEST:
            self._let_go(now_s, acts)
        if direction is Direction.REPLY:
            self._catch_up(direction, now_s, acts)
        self._hand_on(lane, Close.RESET if reset else Close.END, now_s, acts)
        return acts

    def due(self, now_s: float) -> list[Act]:
        """Do what has become due, by time or by a change of the faults."""
        acts: list[Act] = []
        self._strike(now_s, acts)
        if self._broken or self._severed is not None:
            return acts
        if self._speech is not None:
            if now_s >= self._speech.own_due_s:
                self._speech.give_up(now_s)
            self._speak(self._speech, now_s, acts)
        for lane in self._lanes.values():
            tracker = lane.tracker
            wanted = self._wants_frames(lane.direction, now_s)
            if tracker.held and (not wanted or now_s >= tracker.release_s):
                self._take(lane, tracker.release(), now_s, acts)
                if self._broken:
                    return acts
            if lane.stalled and self._obstacle(lane, lane.stalled[0], now_s) is None:
                stalled, lane.stalled = lane.stalled, deque()
                for what in stalled:
                    self._hand_on(lane, what, now_s, acts)
        return acts

    def restart(self) -> None:
        """The line is there again after a break, as a serial line is, with nothing left of what was."""
        self._broken = False

    def next_due_s(self, now_s: float) -> float:
        """When `due` has something to do, should nothing else happen; infinite when never."""
        if self._broken or self._severed is not None:
            return math.inf
        lanes = self._lanes.values()
        times = [lane.tracker.release_s for lane in lanes if lane.tracker.held]
        if self._speech is not None:
            times.append(self._speech.own_due_s)
        if times or any(lane.stalled for lane in lanes):
            times.append(self._faults.next_end_s(now_s))
        return min(times, default=math.inf)

    def waiting(self, direction: Direction) -> int:
        """Bytes that are held back in a direction, without those that are merely delayed."""
        return self._lanes[direction].waiting

    def _strike(self, now_s: float, acts: list[Act]) -> None:
        """Let the faults that strike at once do so, each once."""
        new = [active for active in self._faults.in_force(now_s) if active.id > self._seen_id]
        self._seen_id = self._faults.last_id
        for active in new:
            if self._broken or not (active.name in _AT_ONCE or active.fault.cuts_link):
                continue
            active.acted += 1
            if active.name == "reset" or active.fault.cuts_link:
                self._break(acts)
            elif active.name == "half_open" and self._severed is None:
                self._severed = active
                self._forget()
                acts.append(Act(0.0, Direction.REQUEST, Close.RESET))

    def _break(self, acts: list[Act]) -> None:
        """Both sides learn at once that the connection is gone; what was under way is lost."""
        acts.extend(Act(0.0, direction, Close.RESET) for direction in Direction)
        self._broken = True
        self._forget()

    def _forget(self) -> None:
        """Drop all that waits."""
        self._lanes = {way: _Lane(way, FrameTracker(way, self._framing)) for way in Direction}
        self._late.clear()
        self._overtaken.clear()
        self._held.clear()

    def _wants_frames(self, direction: Direction, now_s: float) -> bool:
        return self._speech is not None or self._faults.needs_frames(direction, now_s)

    def _take(self, lane: _Lane, piece: Frame | bytes, now_s: float, acts: list[Act]) -> None:
        """One piece: heard by who understands it, and held back while the proxy asks something itself."""
        speech = self._speech
        if speech is None or self._broken:
            self._pass(lane, piece, now_s, acts)
            return
        if lane.direction is Direction.REQUEST and (self._held or speech.has_own):
            self._held.append(piece)
        elif not (isinstance(piece, Frame) and speech.hear(lane.direction, piece, now_s)):
            self._pass(lane, piece, now_s, acts)
        self._speak(speech, now_s, acts)

    def _speak(self, speech: Speech, now_s: float, acts: list[Act]) -> None:
        """Say what the proxy has to say itself, and let go what waited for that."""
        if self._broken:
            return
        for direction, raw in speech.said(now_s):
            self._emit(self._lanes[direction], Passage(direction, raw, None), now_s, acts)
        raw_request = speech.own_request(now_s)
        if raw_request is not None:
            self._emit(self._lanes[Direction.REQUEST], Passage(Direction.REQUEST, raw_request, None), now_s, acts)
        elif self._held and (not speech.has_own or len(self._held) > MOST_HELD):
            self._let_go(now_s, acts)

    def _let_go(self, now_s: float, acts: list[Act]) -> None:
        held, self._held = self._held, deque()
        for piece in held:
            if isinstance(piece, Frame) and self._speech is not None:
                self._speech.hear(Direction.REQUEST, piece, now_s)
            self._pass(self._lanes[Direction.REQUEST], piece, now_s, acts)

    def _pass_all(self, lane: _Lane, pieces: list[Frame | bytes], now_s: float, acts: list[Act]) -> None:
        """Without faults bytes go on as they came, together."""
        if pieces:
            raw = b"".join([piece.raw if isinstance(piece, Frame) else piece for piece in pieces])
            self._arrive(lane, Passage(lane.direction, raw, None), now_s, acts)

    def _pass(self, lane: _Lane, piece: Frame | bytes, now_s: float, acts: list[Act]) -> None:
        """One piece under the faults in force."""
        if self._broken:
            return
        frame = piece if isinstance(piece, Frame) else None
        passage = Passage(lane.direction, piece.raw if isinstance(piece, Frame) else piece, frame)
        for active in self._faults.in_force(now_s):
            if not active.meets(lane.direction, frame) or not active.strikes():
                continue
            if apply(active, passage, self._framing) or self._understood(active, passage, now_s):
                active.acted += 1
            if passage.fate is not Fate.PASSES:
                break
        if passage.copies > 1 and self._speech is not None:
            self._speech.copied(passage)
        self._arrive(lane, passage, now_s, acts)

    def _understood(self, active: ActiveFault, passage: Passage, now_s: float) -> bool:
        """What a fault does for which the frame must be understood."""
        if self._speech is None or passage.frame is None or not active.fault.kind.understands:
            return False
        return self._speech.act(active, passage, now_s)

    def _arrive(self, lane: _Lane, passage: Passage, now_s: float, acts: list[Act]) -> None:
        """Let a piece have its fate, and the replies that it was to go before."""
        match passage.fate:
            case Fate.PASSES:
                self._emit(lane, passage, now_s, acts)
            case Fate.BREAKS:
                self._break(acts)
                return
            case Fate.ANSWERED:
                self._emit(self._lanes[Direction.REPLY], passage, now_s, acts)
            case Fate.AFTER_NEXT_REPLY:
                self._overtaken.append(passage.raw)
                return
            case Fate.AFTER_NEXT_REQUEST:
                self._late.append(passage.raw)
            case Fate.VANISHES:
                pass
        for direction, raw in passage.also:
            self._emit(self._lanes[direction], Passage(direction, raw, None), now_s, acts)
        if passage.frame is None or passage.frame.is_subject:
            self._catch_up(lane.direction, now_s, acts)

    def _catch_up(self, after: Direction, now_s: float, acts: list[Act]) -> None:
        """Send the replies that waited for a piece in this direction."""
        replies = self._lanes[Direction.REPLY]
        waited = self._overtaken
        if after is Direction.REQUEST:
            waited = self._late
            if self._framing is not None and self._framing.resynchronizes:
                # One at a time speaks on a serial line: a request says that the reply before it is over.
                replies.tracker.forget()
        while waited:
            self._emit(replies, Passage(Direction.REPLY, waited.popleft(), None), now_s, acts)

    def _emit(self, lane: _Lane, passage: Passage, now_s: float, acts: list[Act]) -> None:
        """Hand a piece on, at its speed and in its slices, not before what went before it."""
        raw = passage.raw if self._speech is None else self._speech.pass_on(lane.direction, passage.raw)
        size = passage.slice_size or max(1, len(raw))
        begin_s = max(now_s + passage.delay_s, lane.free_s if passage.service_s else -math.inf) + passage.service_s
        for _ in range(passage.copies):
            for start in range(0, len(raw), size):
                data = raw[start : start + size]
                at_s = max(begin_s, lane.free_s)
                if passage.bytes_per_s:
                    at_s += len(data) / passage.bytes_per_s
                self._hand_on(lane, data, now_s, acts, at_s)
                begin_s = at_s + passage.gap_s

    def _hand_on(self, lane: _Lane, what: Payload, now_s: float, acts: list[Act], at_s: float = -math.inf) -> None:
        obstacle = self._obstacle(lane, what, now_s)
        if obstacle is not None:
            obstacle.acted += 1
        if obstacle is not None or lane.stalled:
            lane.stalled.append(what)
            return
        lane.free_s = max(at_s, lane.free_s, now_s)
        acts.append(Act(lane.free_s - now_s, lane.direction, what))

    def _obstacle(self, lane: _Lane, what: Payload, now_s: float) -> ActiveFault | None:
        """What makes this wait: a stall does, and a black hole does so to the end, of which nobody hears."""
        for active in self._faults.in_force(now_s):
            hole = active.name == "black_hole" and active.fault.is_total and isinstance(what, Close)
            if lane.direction in active.fault.directions and (hole or active.name == "stall"):
                return active
        return None
