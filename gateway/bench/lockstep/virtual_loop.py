"""An event loop on virtual time: what can be done now is done now, and then time jumps to the next timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final, TypeVar, TypeVarTuple

from gateway.bench.lockstep.network import VirtualNetwork, VirtualServer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

BEGIN_S: Final = 1000.0
"""Virtual time begins here: away from 0, which some take for never."""

MOST_AT_ONCE: Final = 1_000_000
"""Calls at one instant; a task that waits for time in a circle would go on for ever."""


class StandstillError(RuntimeError):
    """Virtual time can't go on: nobody waits for it, or somebody works without end at one instant."""


class _Ready(asyncio.Handle):
    """asyncio's own asks the loop for its debug mode, each time."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: Sequence[Any], loop: VirtualLoop, context: Context | None
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs tasks on virtual time, in the order in which they became ready; timers of one instant as they were set.

    Connections and servers are those of its `network`. Work for a thread is done at once. Nothing here waits, reads a
    clock or watches a descriptor.
    """

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.network = VirtualNetwork(self)
        self._now_s = BEGIN_S
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As every loop does."""
        handle = _Ready(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As every loop does."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As every loop does."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Do it at once: a thread's results would come in an order of their own."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 (it belongs to whoever awaits the result)
            done.set_exception(error)
        return done

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """Connect in the virtual network. Raises OSError as sockets do."""
        _refuse_tls(options)
        return await self.network.connect(protocol_factory, host, port)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """Listen in the virtual network. Raises OSError as sockets do."""
        _refuse_tls(options)
        return VirtualServer(self.network, self.network.listen(protocol_factory, host, port or 0))

    def close(self) -> None:
        """Forget whatever waits."""
        self._timers.clear()
        super().close()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Left where it is: it is dropped when its time comes."""

    def _run_once(self) -> None:
        """Everything that is to be done at one instant."""
        ready = self._ready
        if not ready and not self._stopping:
            self._jump()
        for _ in range(MOST_AT_ONCE):
            if not ready:
                return
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
                if self._stopping:
                    return
        raise StandstillError(f"{MOST_AT_ONCE} calls at {self._now_s:.6f} s of virtual time: {ready[0]!r}")

    def _jump(self) -> None:
        """Go to the next timer, and make everything ready that is due by then."""
        timers, ready = self._timers, self._ready
        while timers and timers[0][2].cancelled():
            heappop(timers)
        if not timers:
            raise StandstillError(f"nothing will ever happen any more after {self._now_s:.6f} s of virtual time")
        self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            ready.append(heappop(timers)[2])


def _refuse_tls(options: dict[str, Any]) -> None:
    if options.get("ssl") is not None:
        raise NotImplementedError("the virtual network has no TLS")
