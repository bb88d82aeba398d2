"""The writes of one device: its newest setpoint, sent in order over whatever connection there is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from config.vocabulary import Setpoint, WriteResult, WriteStatus
from drivers.commands import Command, rest_commands, setpoint_commands
from drivers.encoding import EncodeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from contextlib import AbstractAsyncContextManager

    from config.vocabulary import Clock, FieldSink
    from drivers.binding import DeviceBinding
    from drivers.driver import LinkStats

_COUNTER_MODULUS: Final = 1 << 16
_SHORTEST_TIMER_S: Final = 0.001


class Encoded(NamedTuple):
    """A command as it goes over the wire."""

    point: str
    raw: bool | int | float


class Outcome(NamedTuple):
    """What became of commands that were sent together."""

    status: WriteStatus
    detail: str = ""


class ConnectionBroken(Exception):  # noqa: N818 - the name says what happened, as the link reads it
    """The connection can't be used any more: drop it with everything in it, and make a new one."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timed_out = timed_out


def first_broken(group: BaseExceptionGroup[BaseException]) -> ConnectionBroken:
    """What broke a connection that several tasks serve; raises the group again if that was something else."""
    others = group.split(ConnectionBroken)[1]
    if others is not None:
        raise others
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ConnectionBroken)
    return error


Encode: TypeAlias = Callable[[Command], Encoded]
"""Raises `EncodeError` for what must not be sent."""

Send: TypeAlias = "Callable[[Sequence[Encoded]], Awaitable[Outcome]]"
"""Sends in order over one connection and waits for the answer. `ConnectionBroken`: none came, and what was sent must
not be able to land later by this connection."""


class DeviceWriter:
    """Takes setpoints at any time and sends the newest whenever a connection serves it.

    Every setpoint gets exactly one result: SUPERSEDED by a newer one before it went out, EXPIRED at the moment its time
    is over, or what the device said. Expiry is looked at again right before each thing that is sent; a sequence that
    expires half-way is INDETERMINATE. Everything is encoded before the first of it is sent. A mode or an enable waits
    until the values before it are acknowledged, so that a refused value is never enabled.

    The first write of every connection is the current setpoint, if it has not expired: the newest given, or else the
    last one sent, since the device may have forgotten it, or a lost answer may have left it with an older one.
    """

    def __init__(self, binding: DeviceBinding, sink: FieldSink, stats: LinkStats, clock: Clock, encode: Encode) -> None:
        self._binding = binding
        self._control = binding.profile.control if binding.writable else None
        self._sink = sink
        self._stats = stats
        self._clock = clock
        self._encode = encode
        self._wake = asyncio.Event()
        self._pending: Setpoint | None = None
        self._current: Setpoint | None = None
        self._repeat = False
        self._rest: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._acknowledged: dict[str, float] = {}
        self._counter = 0

    def put(self, setpoint: Setpoint) -> None:
        """Take a setpoint to be sent next, in place of one that has not gone out."""
        refusal = self._refusal(setpoint)
        if refusal is not None:
            self._tell(setpoint, Outcome(WriteStatus.REFUSED, refusal))
            return
        self._drop_pending(Outcome(WriteStatus.SUPERSEDED, f"by setpoint {setpoint.sequence}"))
        self._pending = setpoint
        self._look_at_expiry()
        self._wake.set()

    def forget(self) -> None:
        """Write the next setpoint whole, whatever the device acknowledged before."""
        self._acknowledged.clear()

    def repeat(self) -> None:
        """Send the current setpoint again, because the device was away and may have forgotten it."""
        self._acknowledged.clear()
        self._repeat = True
        self._wake.set()

    def request_rest(self) -> asyncio.Future[None] | None:
        """Ask for the rest state to be written next; done when it is, or can't be. None: the device has none."""
        if self._control is None or not self._control.rest:
            return None
        if self._rest is None:
            self._rest = asyncio.get_running_loop().create_future()
            self._drop_pending(Outcome(WriteStatus.SUPERSEDED, "by the rest state"))
            self._wake.set()
        return self._rest

    def stop(self) -> None:
        """The driver ends: nothing that waits will go out."""
        self._drop_pending(Outcome(WriteStatus.EXPIRED, "the driver stopped before it went out"))

    async def serve(self, send: Send, turn: AbstractAsyncContextManager[object] | None = None) -> None:
        """Send what there is and what comes, until cancelled; `ConnectionBroken` as `send` raises it.

        `turn` is entered before it is decided what goes out, and left when that is answered: for a connection that
        takes one request at a time from several askers.
        """
        self.repeat()
        try:
            while True:
                self._wake.clear()
                if self._rest is None and self._pending is None and not self._repeat:
                    await self._wake.wait()
                    continue
                async with turn or nullcontext():
                    await self._send_next(send)
        finally:
            self._rest_is_done()

    async def _send_next(self, send: Send) -> None:
        if self._rest is not None:
            await self._send_rest(send)
        elif self._pending is not None:
            await self._send_pending(send)
        elif self._repeat:
            await self._send_current(send)

    async def _send_pending(self, send: Send) -> None:
        setpoint = self._pending
        assert setpoint is not None
        self._forget_pending()
        self._repeat = False
        self._current = setpoint
        try:
            outcome = await self._send(send, setpoint)
        except ConnectionBroken as broken:
            self._tell(setpoint, Outcome(WriteStatus.INDETERMINATE, broken.reason))
            raise
        except asyncio.CancelledError:
            self._tell(setpoint, Outcome(WriteStatus.INDETERMINATE, "the connection was dropped meanwhile"))
            raise
        if outcome.status is WriteStatus.REFUSED:
            self._current = None
        self._tell(setpoint, outcome)

    async def _send_current(self, send: Send) -> None:
        self._repeat = False
        if self._current is not None:
            await self._send(send, self._current)

    async def _send_rest(self, send: Send) -> None:
        assert self._control is not None
        self._current = None
        self._repeat = False
        commands = rest_commands(self._control, self._binding, self._next_count())
        await self._send_commands(send, commands, math.inf)
        self._rest_is_done()

    async def _send(self, send: Send, setpoint: Setpoint) -> Outcome:
        assert self._control is not None
        commands = setpoint_commands(self._control, setpoint.power_w, self._binding, self._next_count())
        return await self._send_commands(send, commands, setpoint.expires_s)

    async def _send_commands(self, send: Send, commands: Sequence[Command], expires_s: float) -> Outcome:
        due = [c for c in commands if not (c.when_changed and self._acknowledged.get(c.point) == c.value)]
        try:
            encoded = [self._encode(command) for command in due]
        except EncodeError as error:
            return Outcome(WriteStatus.REFUSED, str(error))
        for start, end in _groups(due):
            if self._clock() >= expires_s:
                if start == 0:
                    return Outcome(WriteStatus.EXPIRED, "before it went out")
                return Outcome(WriteStatus.INDETERMINATE, f"expired after {start} of {len(due)} writes")
            for command in due[start:end]:
                self._acknowledged.pop(command.point, None)
            outcome = await send(encoded[start:end])
            if outcome.status is not WriteStatus.ACKNOWLEDGED:
                return outcome
            self._acknowledged.update((command.point, command.value) for command in due[start:end])
        return Outcome(WriteStatus.ACKNOWLEDGED)

    def _refusal(self, setpoint: Setpoint) -> str | None:
        if not self._binding.writable:
            return "the device is read-only"
        if self._control is None:
            return f"profile {self._binding.profile.profile} has no control"
        if not math.isfinite(setpoint.power_w):
            return f"{setpoint.power_w} W is not a power"
        return None

    def _look_at_expiry(self) -> None:
        if self._pending is None:
            return
        left_s = self._pending.expires_s - self._clock()
        if left_s <= 0:
            self._drop_pending(Outcome(WriteStatus.EXPIRED, f"before it went out; link {self._stats.state}"))
        else:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(max(left_s, _SHORTEST_TIMER_S), self._look_at_expiry)

    def _drop_pending(self, outcome: Outcome) -> None:
        if self._pending is not None:
            self._tell(self._pending, outcome)
        self._forget_pending()

    def _forget_pending(self) -> None:
        self._pending = None
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _rest_is_done(self) -> None:
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)
        self._rest = None

    def _next_count(self) -> int:
        self._counter = (self._counter + 1) % _COUNTER_MODULUS
        return self._counter

    def _tell(self, setpoint: Setpoint, outcome: Outcome) -> None:
        if outcome.status is WriteStatus.ACKNOWLEDGED:
            self._stats.writes_acknowledged += 1
        elif outcome.status in (WriteStatus.REFUSED, WriteStatus.INDETERMINATE):
            self._stats.writes_failed += 1
        result = WriteResult(setpoint.device, setpoint.sequence, outcome.status, self._clock(), outcome.detail)
        self._sink.write_result(result)


def _groups(commands: Sequence[Command]) -> Iterator[tuple[int, int]]:
    """Start and end of what may go out together: each gate begins a group of its own."""
    starts = [at for at, command in enumerate(commands) if at == 0 or command.gate]
    return pairwise([*starts, len(commands)])
