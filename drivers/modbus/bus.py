"""One connection to several units: what one of them does costs the others no more than its turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from drivers.driver import LinkStats
from drivers.modbus.bus_queue import BusQueue
from drivers.modbus.connection import QUEUE_CAPACITY, Connection
from drivers.modbus.framing import Framing, StreamBroken, WrongReply
from drivers.modbus.request import EXCEPTION, Failure, Request, exception_failure, exception_text
from drivers.modbus.unit import Unit

# So many time-outs in a row, of every unit or of several, and it is not the units that are gone but the way to them.
_SILENT_IN_A_ROW: Final = 3
_SILENT_UNITS: Final = 5


class BusConnection(Connection):
    """A time-out ends the request alone, for `framing` tells its late answer from any other's. It counts against the
    unit: when the unit's breaker opens, or its write went unanswered, its session ends and what waits for it fails; the
    others go on. The connection itself ends when nobody answers any more.

    `grace_timeouts`: a gateway often waits for its silent unit longer than we do, and takes up the next request only
    then; so the request after a time-out gets so many of those time-outs more.
    """

    grace_timeouts: ClassVar[float] = 2.0

    def __init__(
        self, framing: Framing, stats: LinkStats, on_first_reply: Callable[[], None], units: Mapping[int, Unit]
    ) -> None:
        super().__init__(framing, stats, 0.0, on_first_reply)
        self._units = units
        self._waiting = BusQueue(QUEUE_CAPACITY, self._is_ready)
        self._queue = self._waiting
        self._silent: list[int] = []
        self._grace_s = 0.0

    def submit(self, request: Request) -> None:
        """Queue a request; it fails at once outside the unit's session or when the connection is closed."""
        unit = self._units[request.unit]
        if self._closed.done():
            request.failed(Failure.LOST, self._closed.result())
        elif not unit.serving:
            request.failed(Failure.LOST, unit.reason)
        else:
            dropped = self._queue.push(request)
            if dropped is not None:
                self._stats.dropped += 1
                dropped.failed(Failure.DROPPED, "too many requests wait on this link")
            self._send_next()

    def data_received(self, data: bytes) -> None:
        request = self._in_flight
        try:
            reply = self._framing.feed(data)
        except WrongReply as wrong:
            self._count_strays()
            self._reject(str(wrong))
            return
        except StreamBroken as broken:
            self._stats.rejected += 1
            self.close(str(broken))
            return
        self._count_strays()
        if reply is not None and request is not None:
            self._take(request, reply)

    def _take(self, request: Request, reply: bytes) -> None:
        pdu, unit = request.pdu, self._units[request.unit]
        if len(reply) == pdu.reply_length and reply.startswith(pdu.reply_prefix):
            self._stop_in_flight()
            self._answered(unit)
            request.succeeded(reply)
            self._go_on(unit)
        elif len(reply) == 2 and reply[0] == pdu.data[0] | EXCEPTION:
            self._refused(request, unit, reply[1])
        else:
            self._reject(f"function {reply[0]} with {len(reply)} bytes answers function {pdu.data[0]}")

    def _refused(self, request: Request, unit: Unit, code: int) -> None:
        self._stop_in_flight()
        self._stats.exceptions += 1
        failure = exception_failure(code)
        if failure is Failure.UNREACHED:
            self._link_lives()
            self._unanswered(request, unit, exception_text(code))
        else:
            self._answered(unit)
            request.failed(failure, exception_text(code))
        self._go_on(unit)

    def _timed_out(self, request: Request) -> None:
        self._stats.timeouts += 1
        unit, reason = self._units[request.unit], f"no answer within {request.timeout_s:g} s to {request.name}"
        self._stop_in_flight()
        self._grace_s = 0.0 if self._silent else self.grace_timeouts * request.timeout_s
        self._silent.append(unit.number)
        self._unanswered(request, unit, reason)
        if self._nobody_answers():
            self.close(reason)
        self._go_on(unit)

    def _reject(self, detail: str) -> None:
        self._stats.rejected += 1
        request = self._in_flight
        if request is None:
            return
        unit = self._units[request.unit]
        self._stop_in_flight()
        request.failed(Failure.REJECTED, detail)
        if request.writes:
            self._end(unit, f"{request.name}: {detail}")
        self._go_on(unit)

    def _answered(self, unit: Unit) -> None:
        self._link_lives()
        self._stats.paused -= unit.breaker.is_open
        unit.breaker.answered()

    def _link_lives(self) -> None:
        self._silent.clear()
        self._grace_s = 0.0
        self._first_reply()

    def _unanswered(self, request: Request, unit: Unit, reason: str) -> None:
        was_open = unit.breaker.is_open
        opens = unit.breaker.unanswered(request.writes)
        self._stats.paused += unit.breaker.is_open - was_open
        request.failed(Failure.UNANSWERED, reason)
        if opens or request.writes:
            self._end(unit, reason)

    def _end(self, unit: Unit, reason: str) -> None:
        unit.end(reason)
        for waiting in self._waiting.take_unit(unit.number):
            waiting.failed(Failure.LOST, reason)

    def _nobody_answers(self) -> bool:
        if all(unit.breaker.is_open for unit in self._units.values()):
            return True
        silent = set(self._silent)
        serving = {unit.number for unit in self._units.values() if unit.serving}
        return len(self._silent) >= _SILENT_IN_A_ROW and (serving <= silent or len(silent) >= _SILENT_UNITS)

    def _send(self, request: Request) -> None:
        super()._send(request)
        self._deadline += self._grace_s

    def _stop_in_flight(self) -> None:
        """The request in flight is done with; nothing is sent until `_go_on`, whatever its callbacks submit."""
        self._in_flight = None
        self._held = True

    def _go_on(self, unit: Unit) -> None:
        if self._closed.done():
            return
        unit.ready_s = max(unit.ready_s, self._loop.time() + unit.request_gap_s)
        self._rest_line(unit.line_gap_s)

    def _rest_line(self, gap_s: float) -> None:
        """Send the next request after a pause of the whole line."""
        if gap_s > 0.0:
            self._pause_for(gap_s, self.release)
        else:
            self.release()

    def _send_next(self) -> None:
        while self._in_flight is None and not self._held and not self._closed.done():
            request = self._queue.pop()
            if request is None:
                self._wait_for_units()
                return
            if request.before_send():
                self._send(request)

    def _wait_for_units(self) -> None:
        """Look again when the first of the units that requests wait for may be asked."""
        ready_s = min((self._units[number].ready_s for number in self._waiting.waiting_units()), default=None)
        if ready_s is not None:
            self._pause_for(max(0.0, ready_s - self._loop.time()), self._send_next)

    def _pause_for(self, pause_s: float, then: Callable[[], None]) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._pause = self._loop.call_later(pause_s, then)

    def _is_ready(self, number: int) -> bool:
        return self._units[number].ready_s <= self._loop.time()
