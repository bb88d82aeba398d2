"""The writes of one device: its newest setpoint as register writes, in the order that its profile states."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Final

from config.vocabulary import Clock, FieldSink, Setpoint, WritePriority, WriteResult, WriteStatus
from drivers.binding import DeviceBinding
from drivers.commands import resolved_power_w
from drivers.driver import LinkStats
from drivers.encoding import EncodeError
from drivers.modbus.block import PlacedPoint
from drivers.modbus.connection import Connection
from drivers.modbus.request import Failure, Pdu, Request
from drivers.modbus.write_plan import Segment, WritePlan

_NOTHING: Final = Pdu(b"", b"", 0)
_COUNTER_MODULUS: Final = 1 << 16
_FAIL_SAFE: Final = WritePriority.FAIL_SAFE
_SETPOINT: Final = WritePriority.SETPOINT
_ACKNOWLEDGED: Final = WriteStatus.ACKNOWLEDGED
_BUSY_PAUSE_S: Final = 0.2
# A device that answers reads and no write is written to ever less often, so that its reads go on.
_FIRST_HOLD_OFF_S: Final = 1.0
_LONGEST_HOLD_OFF_S: Final = 10.0


class _Sequence:
    """Segments on their way. `setpoint` None: a rest state, or a setpoint sent again, of which nobody is told."""

    __slots__ = ("at", "expires_s", "rest", "segments", "setpoint")

    def __init__(self, segments: Sequence[Segment], setpoint: Setpoint | None, expires_s: float, rest: bool) -> None:
        self.segments = segments
        self.setpoint = setpoint
        self.expires_s = expires_s
        self.rest = rest
        self.at = 0


class SetpointWriter(Request):
    """Takes setpoints at any time; stands in the link's queue itself and decides what to send when its turn comes.

    Each setpoint gets exactly one result. A newer one supersedes one that has not begun; one that has begun is finished
    first. Expiry is looked at right before each request. The first write of every connection is the current setpoint
    unless it has expired, told or not told before: the device may have restarted, or hold either of two values.

    `connection`: by which the device can be written, if it can.
    """

    __slots__ = (
        "_acknowledged",
        "_binding",
        "_clock",
        "_control",
        "_counter",
        "_current",
        "_doubtful",
        "_expiry",
        "_hold_off_ends_s",
        "_pending",
        "_plan",
        "_queued",
        "_remembers",
        "_renew",
        "_rest",
        "_rest_plan",
        "_resting",
        "_retry",
        "_sequence",
        "_sink",
        "_stats",
        "_takes",
        "connection",
    )

    def __init__(self, binding: DeviceBinding, unit: int, sink: FieldSink, stats: LinkStats, clock: Clock) -> None:
        timeout_s = binding.profile.pace.timeout_s
        super().__init__(f"the write of {binding.name}", unit, WritePriority.SETPOINT, timeout_s, _NOTHING)
        self._binding = binding
        self._control = binding.profile.control if binding.writable else None
        self._sink = sink
        self._stats = stats
        self._clock = clock
        self._plan: WritePlan | None = None
        self._rest_plan: WritePlan | None = None
        self.connection: Connection | None = None
        self._pending: Setpoint | None = None
        self._current: Setpoint | None = None
        self._sequence: _Sequence | None = None
        self._rest: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._acknowledged: dict[str, bytes] = {}
        self._counter = 0
        self._doubtful = 0
        self._hold_off_ends_s = float("-inf")
        self._retry: asyncio.TimerHandle | None = None
        self._queued = False
        self._remembers = True
        self._renew = False
        self._resting = False
        self._takes = self._control is not None

    def put(self, setpoint: Setpoint) -> None:
        """Take a setpoint to be written next, in place of one that has not begun."""
        if not self._takes or not isfinite(setpoint.power_w):
            self._tell(setpoint, WriteStatus.REFUSED, self._refusal(setpoint))
            return
        if self._pending is not None:
            self._tell(self._pending, WriteStatus.SUPERSEDED, f"by {setpoint.sequence}")
        self._pending = self._current = setpoint
        if self.connection is None:
            self._watch_expiry()
        else:
            self._enqueue()

    def forget(self) -> None:
        """Write the next setpoint whole, whatever the device acknowledged before."""
        self._acknowledged.clear()

    def begin(self, connection: Connection, places: Mapping[str, PlacedPoint]) -> None:
        """The device can be written from now on; `places` are its points on this connection."""
        if self.connection is connection or self._clock() < self._hold_off_ends_s:
            return
        self._stop_watching()
        self.connection = connection
        if self._control is not None:
            self._remembers = any(write.when_changed for write in (*self._control.writes, *self._control.rest))
            self._plan = WritePlan(self._control, self._control.writes, self._binding, places)
            self._rest_plan = WritePlan(self._control, self._control.rest, self._binding, places)
        self._acknowledged.clear()
        self._renew = self._current is not None
        self._enqueue()

    def end(self) -> None:
        """The connection is gone, and with it the request that stood in its queue."""
        self.connection = None
        self._queued = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
            self.failed(Failure.LOST, "the connection ended while the device was busy")
        self._rest_is_done()
        if self._pending is not None:
            self._watch_expiry()

    def rest(self) -> asyncio.Future[None] | None:
        """Write the rest state next and nothing after it; done when answered. None: there is nothing to write."""
        if self._pending is not None:
            self._drop_pending(WriteStatus.SUPERSEDED, "by the rest state")
        self._current = None
        self._resting, self._takes = True, False
        connection = self.connection
        if self._control is None or not self._control.rest or connection is None:
            return None
        if self._rest is None:
            self._rest = asyncio.get_running_loop().create_future()
            self._enqueue()
        return self._rest

    def before_send(self) -> bool:
        """Choose what to send, at the last moment."""
        self._queued = False
        sequence = self._sequence
        if sequence is None:
            sequence = self._start()
            if sequence is None:
                return False
        if self._clock() >= sequence.expires_s:
            done, of = sequence.at, len(sequence.segments)
            self._finish(
                WriteStatus.INDETERMINATE if done else WriteStatus.EXPIRED, f"expired after {done} of {of} requests"
            )
            return False
        self.pdu = sequence.segments[sequence.at].pdu
        return True

    def succeeded(self, reply: bytes) -> None:
        sequence = self._sequence
        assert sequence is not None  # it was sent by `before_send`
        if self._remembers:
            self._acknowledged.update(sequence.segments[sequence.at].points)
        self._doubtful = 0
        sequence.at += 1
        if sequence.at == len(sequence.segments):
            self._finish(_ACKNOWLEDGED, "")
        elif self.connection is not None:
            self._queued = True
            self.connection.submit_next(self)

    def failed(self, failure: Failure, detail: str) -> None:
        self._queued = False
        sequence = self._sequence
        if sequence is None:
            return
        if failure is Failure.BUSY:
            self._retry = asyncio.get_running_loop().call_later(_BUSY_PAUSE_S, self._send_again)
            return
        if failure in (Failure.TIMEOUT, Failure.UNANSWERED, Failure.REJECTED):
            self._doubt()
        for name, _ in sequence.segments[sequence.at].points:
            self._acknowledged.pop(name, None)
        if failure is Failure.EXCEPTION:
            names = ", ".join(name for name, _ in sequence.segments[sequence.at].points)
            self._finish(WriteStatus.REFUSED, f"{detail} at {names}")
        else:
            self._finish(WriteStatus.INDETERMINATE, detail)

    def _send_again(self) -> None:
        """A busy device has not taken the write: offer it again, until it expires."""
        self._retry = None
        if self.connection is not None:
            self._queued = True
            self.connection.submit(self)

    def _doubt(self) -> None:
        """Nobody knows whether the device took this. The next write goes out at once, those after it when reads have
        had their time.
        """
        self._doubtful += 1
        if self._doubtful > 1:
            pause_s = min(_FIRST_HOLD_OFF_S * 2.0 ** (self._doubtful - 2), _LONGEST_HOLD_OFF_S)
            self._hold_off_ends_s = self._clock() + pause_s

    def _enqueue(self) -> None:
        connection = self.connection
        if connection is None or self._sequence is not None:
            return
        setpoint = self._pending
        if setpoint is None and not self._renew and (self._rest is None or not self._rest_is_due()):
            return
        priority = self._priority(setpoint or self._current)
        if self._queued:
            if priority != self.priority:
                connection.reprioritize(self, priority)
            return
        self.priority = priority
        self._queued = True
        connection.submit(self)

    def _priority(self, setpoint: Setpoint | None) -> WritePriority:
        if self._rest is not None and self._rest_is_due():
            return _FAIL_SAFE
        return _FAIL_SAFE if setpoint is not None and setpoint.priority is _FAIL_SAFE else _SETPOINT

    def _start(self) -> _Sequence | None:
        """Begin the rest state, the pending setpoint or the current one again; None if there is nothing to send."""
        control, plan, rest_plan = self._control, self._plan, self._rest_plan
        if control is None or plan is None or rest_plan is None:
            return None
        self._counter = (self._counter + 1) % _COUNTER_MODULUS
        if self._rest is not None and self._rest_is_due():
            return self._begin(rest_plan, 0.0, None, inf, True)
        told = self._pending
        setpoint = told if told is not None or not self._renew else self._current
        self._pending, self._renew = None, False
        if setpoint is None:
            return None
        power_w = resolved_power_w(control, setpoint.power_w, self._binding.rating_w)
        return self._begin(plan, power_w, told, setpoint.expires_s, False)

    def _begin(
        self, plan: WritePlan, power_w: float, told: Setpoint | None, expires_s: float, rest: bool
    ) -> _Sequence | None:
        try:
            segments = plan.segments(power_w, self._counter, self._acknowledged)
        except EncodeError as error:
            self._sequence = _Sequence((), told, expires_s, rest)
            self._finish(WriteStatus.REFUSED, str(error))
            return None
        sequence = self._sequence = _Sequence(segments, told, expires_s, rest)
        if segments:
            return sequence
        self._finish(_ACKNOWLEDGED, "nothing has changed")
        return None

    def _finish(self, status: WriteStatus, detail: str) -> None:
        sequence, self._sequence = self._sequence, None
        assert sequence is not None  # only called with one under way
        if sequence.rest:
            self._rest_is_done()
        elif status is WriteStatus.REFUSED and self._pending is None:
            self._current = None
        if sequence.setpoint is not None or status is not _ACKNOWLEDGED:
            self._count(status)
        self._tell(sequence.setpoint, status, detail)
        self._enqueue()

    def _count(self, status: WriteStatus) -> None:
        if status is _ACKNOWLEDGED:
            self._stats.writes_acknowledged += 1
        elif status in (WriteStatus.REFUSED, WriteStatus.INDETERMINATE):
            self._stats.writes_failed += 1

    def _tell(self, setpoint: Setpoint | None, status: WriteStatus, detail: str) -> None:
        if setpoint is not None:
            self._sink.write_result(WriteResult(setpoint.device, setpoint.sequence, status, self._clock(), detail))

    def _refusal(self, setpoint: Setpoint) -> str:
        if not self._binding.writable:
            return "read-only"
        if self._control is None:
            return "the profile has no control"
        if not isfinite(setpoint.power_w):
            return f"{setpoint.power_w} is not a power"
        return "the driver is at rest" if self._resting else ""

    def _rest_is_due(self) -> bool:
        return self._rest is not None and not self._rest.done()

    def _rest_is_done(self) -> None:
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)

    def _drop_pending(self, status: WriteStatus, detail: str) -> None:
        setpoint, self._pending = self._pending, None
        self._stop_watching()
        self._tell(setpoint, status, detail)

    def _watch_expiry(self) -> None:
        """While nothing can be sent, the setpoint that waits is answered when its time is over."""
        self._stop_watching()
        if self._pending is not None:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(max(0.0, self._pending.expires_s - self._clock()), self._expire)

    def _stop_watching(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _expire(self) -> None:
        self._expiry = None
        if self._pending is not None and self.connection is None:
            held_off = self._clock() < self._hold_off_ends_s
            why = "its last writes were not answered" if held_off else "the device has not been read yet"
            self._drop_pending(WriteStatus.EXPIRED, self._stats.reason or why)
