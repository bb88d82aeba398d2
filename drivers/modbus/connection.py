"""One connection, for as long as it lasts: requests in order of priority, one in flight, every reply checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from config.vocabulary import WritePriority
from drivers.driver import LinkStats
from drivers.modbus.framing import Framing, StreamBroken, WrongReply
from drivers.modbus.request import (
    EXCEPTION,
    AwaitedRequest,
    Failure,
    Request,
    exception_failure,
    exception_text,
    read_pdu,
)
from drivers.modbus.request_queue import RequestQueue
from drivers.reach import ended

QUEUE_CAPACITY: Final = 256


class Connection(asyncio.Protocol):
    """Sends the next request straight from the arrival of the reply before, without a task or a future in between.

    A time-out or a wrong answer to a write ends the connection: what was sent may still take effect, and its late
    answer must never be taken for another's. Nothing that arrives can raise.
    """

    def __init__(
        self, framing: Framing, stats: LinkStats, request_gap_s: float, on_first_reply: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._framing = framing
        self._stats = stats
        self._gap_s = request_gap_s
        self._on_first_reply: Callable[[], None] | None = on_first_reply
        self._queue = RequestQueue(QUEUE_CAPACITY)
        self._transport: asyncio.Transport | None = None
        self._in_flight: Request | None = None
        self._deadline = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._watch_ends = 0.0
        self._pause: asyncio.TimerHandle | None = None
        self._held = True
        self._closed: asyncio.Future[str] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def release(self) -> None:
        """Begin to send; until then requests wait, as for a device that needs a pause after connecting."""
        if not self._closed.done():
            self._held = False
            self._send_next()

    def submit(self, request: Request) -> None:
        """Send now if nothing is in the way, else queue; a request that finds the connection closed fails at once."""
        if self._in_flight is None and not self._held:
            if request.before_send():
                self._send(request)
        elif self._closed.done():
            request.failed(Failure.LOST, self._closed.result())
        else:
            dropped = self._queue.push(request)
            if dropped is not None:
                self._stats.dropped += 1
                dropped.failed(Failure.DROPPED, "too many requests wait on this link")

    def submit_next(self, request: Request) -> None:
        """Queue the continuation of a sequence, from within the answer to its last part."""
        if self._closed.done():
            request.failed(Failure.LOST, self._closed.result())
        else:
            self._queue.push_first(request)

    async def read(self, name: str, unit: int, timeout_s: float, table: str, first: int, count: int) -> bytes:
        """Read registers and wait for them; `RequestFailed` if they don't come."""
        request = AwaitedRequest(name, unit, timeout_s, read_pdu(table, first, count))
        self.submit(request)
        return await request.reply

    @property
    def was_answered(self) -> bool:
        """Whether anybody has answered on this connection."""
        return self._on_first_reply is None

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._closed.done()

    async def wait_closed(self) -> str:
        """Wait for the end of the connection; its reason."""
        # `wait` leaves the future alone when the waiting task is cancelled.
        await asyncio.wait((self._closed,))
        return self._closed.result()

    def reprioritize(self, request: Request, priority: WritePriority) -> None:
        """Change the priority of a request, whether it waits or not."""
        waited = self._queue.remove(request)
        request.priority = priority
        if waited:
            self._queue.push(request)

    def data_received(self, data: bytes) -> None:
        framing = self._framing
        try:
            reply = framing.feed(data)
        except WrongReply as wrong:
            self._count_strays()
            self._reject(str(wrong))
            return
        except StreamBroken as broken:
            self._stats.rejected += 1
            self.close(str(broken))
            return
        if framing.strays:
            self._count_strays()
        request = self._in_flight
        if reply is None or request is None:
            return
        pdu = request.pdu
        if len(reply) == pdu.reply_length and reply.startswith(pdu.reply_prefix):
            if self._on_first_reply is not None:
                self._first_reply()
            request.succeeded(reply)
            self._next()
        elif len(reply) == 2 and reply[0] == pdu.data[0] | EXCEPTION:
            self._stats.exceptions += 1
            if self._on_first_reply is not None:
                self._first_reply()
            request.failed(exception_failure(reply[1]), exception_text(reply[1]))
            self._next()
        else:
            self._reject(
                f"function {reply[0]} with {len(reply)} bytes answers function {pdu.data[0]}, "
                f"where {pdu.reply_length} bytes are due"
            )

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.close("closed by the device")
        else:
            self.close(f"connection lost: {ended(exc) if isinstance(exc, OSError) else exc}")

    def close(self, reason: str, failure: Failure = Failure.LOST) -> None:
        """End the connection, once, and tell everybody who waits."""
        if self._closed.done():
            return
        self._closed.set_result(reason)
        self._held = True
        for handle in (self._watch, self._pause):
            if handle is not None:
                handle.cancel()
        if self._transport is not None:
            self._transport.abort()
        request, self._in_flight = self._in_flight, None
        if request is not None:
            request.failed(failure, reason)
        for waiting in self._queue.drain():
            waiting.failed(Failure.LOST, reason)

    def _first_reply(self) -> None:
        tell, self._on_first_reply = self._on_first_reply, None
        if tell is not None:
            tell()

    def _reject(self, detail: str) -> None:
        self._stats.rejected += 1
        request = self._in_flight
        if request is None:
            return
        if request.writes:
            self.close(f"{request.name}: {detail}", Failure.REJECTED)
        else:
            request.failed(Failure.REJECTED, detail)
            self._next()

    def _count_strays(self) -> None:
        self._stats.rejected += self._framing.strays
        self._framing.strays = 0

    def _send(self, request: Request) -> None:
        self._in_flight = request
        deadline = self._deadline = self._loop.time() + request.timeout_s
        if self._watch is None or deadline < self._watch_ends:
            self._watch_until(deadline)
        assert self._transport is not None  # `release` comes after `connection_made`
        self._transport.write(self._framing.wrap(request))

    def _next(self) -> None:
        """The request in flight is done with; a callback may have closed the connection meanwhile."""
        self._in_flight = None
        if self._gap_s > 0.0 and not self._closed.done():
            self._held = True
            self._pause = self._loop.call_later(self._gap_s, self.release)
        else:
            self._send_next()

    def _send_next(self) -> None:
        while self._in_flight is None and not self._held:
            request = self._queue.pop()
            if request is None:
                return
            if request.before_send():
                self._send(request)

    def _look(self) -> None:
        """The one timer: re-armed for the request then in flight, instead of being set and cancelled for each."""
        self._watch = None
        request = self._in_flight
        if request is None:
            return
        if self._loop.time() < self._deadline:
            self._watch_until(self._deadline)
            return
        self._timed_out(request)

    def _watch_until(self, deadline: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_at(deadline, self._look)
        self._watch_ends = deadline

    def _timed_out(self, request: Request) -> None:
        self._stats.timeouts += 1
        self.close(f"no answer within {request.timeout_s:g} s to {request.name}", Failure.TIMEOUT)
