"""A serial line: one request at a time, silence between frames, and late answers kept apart (MODBUS over Serial Line
V1.02, sections 2.4 and 2.5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from config.vocabulary import WritePriority
from drivers.driver import LinkStats
from drivers.modbus.bus import BusConnection
from drivers.modbus.overdue import Overdue
from drivers.modbus.request import Failure, Pdu, Request
from drivers.modbus.rtu_framing import LineTiming, RtuFraming
from drivers.modbus.unit import Unit

# After an answer that is missing or wrong, the rest of it may come in pieces: USB adapters hold bytes back for 16 ms.
_DRAIN_S: Final = 0.02
_NEVER_SILENT_S: Final = 2.0
# Timers of uvloop step by 1 ms and may be as much too early.
_TIMER_STEP_S: Final = 0.001
_LEFT_ALONE_TIMEOUTS: Final = 2.0


class RtuConnection(BusConnection):
    """`timing` is the line's, `overdue` outlives the connection. The time-out of a reply begins when the request has
    gone out at the line's speed, and the reply has the time that its bytes take besides.
    """

    grace_timeouts = 0.0

    def __init__(
        self,
        timing: LineTiming,
        overdue: Overdue,
        stats: LinkStats,
        on_first_reply: Callable[[], None],
        units: Mapping[int, Unit],
    ) -> None:
        super().__init__(RtuFraming(overdue), stats, on_first_reply, units)
        self._timing = timing
        self._overdue = overdue
        self._last_byte_s = float("-inf")
        self._silence_s = timing.silence_s
        self._noise_ends_s = 0.0
        self._noisy = False

    def data_received(self, data: bytes) -> None:
        self._last_byte_s = self._loop.time()
        if self._in_flight is not None:
            super().data_received(data)
            return
        if not self._noisy:
            self._noisy = True
            self._stats.rejected += 1
        if not self._held:
            self._rest_line(_DRAIN_S)

    def release(self) -> None:
        """Begin to send once the line is silent."""
        self._rest_line(self._timing.silence_s)

    def close(self, reason: str, failure: Failure = Failure.LOST) -> None:
        if self._in_flight is not None and not self._closed.done():
            self._overdue.add(self._in_flight.unit, self._in_flight.pdu)
        super().close(reason, failure)

    def _send(self, request: Request) -> None:
        if self._overdue.fits(request.unit, request.pdu):
            probe = self._overdue.probe(request.unit, request.pdu)
            if probe is None:
                self._leave_alone(request)
                return
            request = _Probe(request, probe, self._queue.push_first, self._leave_alone)
        super()._send(request)
        self._deadline += self._timing.character_s * (len(request.pdu.data) + request.pdu.reply_length + 6)

    def _leave_alone(self, request: Request) -> None:
        """Ask the unit again when what it owes can't come any more; meanwhile the others have the line."""
        pause_s = self._overdue.void_in_s(request.unit, _LEFT_ALONE_TIMEOUTS * request.timeout_s)
        self._units[request.unit].ready_s = self._loop.time() + pause_s
        self._queue.push_first(request)

    def _timed_out(self, request: Request) -> None:
        self._drain(request)
        super()._timed_out(request)

    def _reject(self, detail: str) -> None:
        if self._in_flight is not None:
            self._drain(self._in_flight)
        super()._reject(detail)

    def _drain(self, request: Request) -> None:
        self._overdue.add(request.unit, request.pdu)
        self._last_byte_s = self._loop.time()
        self._silence_s = max(_DRAIN_S, 2.0 * self._timing.silence_s)

    def _rest_line(self, gap_s: float) -> None:
        """Send the next request after the line was silent for long enough; what comes meanwhile is dropped."""
        self._held = True
        self._silence_s = max(self._silence_s, gap_s, self._timing.silence_s)
        self._noise_ends_s = self._loop.time() + self._silence_s + _NEVER_SILENT_S
        self._listen()

    def _listen(self) -> None:
        now_s = self._loop.time()
        left_s = self._last_byte_s + self._silence_s - now_s
        if left_s > 0.0 and now_s < self._noise_ends_s:
            self._pause_for(left_s + _TIMER_STEP_S, self._listen)
        elif left_s > 0.0:
            self.close(f"the line has not been silent for {_NEVER_SILENT_S:g} s")
        else:
            self._held = self._noisy = False
            self._silence_s = self._timing.silence_s
            self._send_next()


class _Probe(Request):
    """Asked before a request whose answer could be mistaken for one that is overdue."""

    __slots__ = ("_leave_alone", "_original", "_resume")

    def __init__(
        self, original: Request, pdu: Pdu, resume: Callable[[Request], None], leave_alone: Callable[[Request], None]
    ) -> None:
        super().__init__(original.name, original.unit, WritePriority.FAST_POLL, original.timeout_s, pdu)
        self._original = original
        self._resume = resume
        self._leave_alone = leave_alone

    @property
    def writes(self) -> bool:
        return self._original.writes

    def succeeded(self, reply: bytes) -> None:
        self._resume(self._original)

    def failed(self, failure: Failure, detail: str) -> None:
        if failure in (Failure.EXCEPTION, Failure.BUSY, Failure.UNDER_WAY):
            self._leave_alone(self._original)
        else:
            self._original.failed(failure, detail)
