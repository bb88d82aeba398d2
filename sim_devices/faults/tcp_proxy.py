"""The fault proxy between a driver and a device that are joined by TCP."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

from sim_devices.faults.fault_set import FaultSet
from sim_devices.faults.line import Close, Payload
from sim_devices.faults.registry import MODBUS_TCP, Direction
from sim_devices.faults.running import RunningLine
from sim_devices.faults.speech import Understanding

_LISTEN_AGAIN_S: Final = 0.02
_LINGER_0: Final = struct.pack("ii", 1, 0)
"""Makes the closing of a socket a reset."""


@dataclass(slots=True)
class ProxyCounts:
    """What a proxy has seen since its start. `unreached`: connections for which the device could not be had."""

    connections: int = 0
    unreached: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0


class TcpFaultProxy:
    """Forwards every connection to `target` and lets the faults of `faults` happen to what passes.

    `protocol`, as the site file names it, says whether frames can be told apart; `understanding` what they mean. A
    target that can't be reached resets the driver's connection. While new connections are refused, the port stays
    reserved. `called_by_device`: the device calls, and `target` is whoever drives it. Needs of its loop no more than
    `create_server`, `create_connection` and timers.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        protocol: str = MODBUS_TCP,
        seed: int | str = 0,
        understanding: Understanding | None = None,
        called_by_device: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.target = target
        self.accepts = Direction.REPLY if called_by_device else Direction.REQUEST
        """The direction of what comes by the connections that are accepted."""
        self.faults = FaultSet(protocol, self._loop.time, seed)
        self.understanding = understanding
        if understanding is not None:
            self.faults.struck = understanding.struck
            self.faults.understood = True
        self.counts = ProxyCounts()
        self.host = ""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self._opening: asyncio.Task[None] | None = None
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._refusal_ends: asyncio.TimerHandle | None = None

    @property
    def endpoint(self) -> dict[str, Any]:
        """Where a driver finds the device behind this proxy."""
        return {"host": self.host, "port": self.port}

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Accept connections; return the port. Raises OSError when the address can't be had."""
        if self.host:
            raise RuntimeError("the proxy listens already")
        self._server = await self._listening(host, port)
        self.host, self.port = host, _port_of(self._server) or port
        self.faults.listeners.append(self._changed)
        self._open_or_refuse()
        return self.port

    async def close(self) -> None:
        """Stop listening and break off every connection; return when the last one is gone."""
        if self._changed in self.faults.listeners:
            self.faults.listeners.remove(self._changed)
        if self._refusal_ends is not None:
            self._refusal_ends.cancel()
        tasks = [*self._tasks, *([self._opening] if self._opening is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._release()
        for pair in tuple(self._pairs):
            pair.abort()
        await self._none_left.wait()
        if server is not None:
            await server.wait_closed()

    def state(self) -> dict[str, Any]:
        """What it does and has seen."""
        return {"connected": len(self._pairs), **asdict(self.counts), "faults": self.faults.as_json()}

    def joined(self, pair: _Pair) -> None:
        """Told by a connection when its driver's side is there."""
        self._pairs.add(pair)
        self._none_left.clear()
        self.counts.connections += 1
        task = self._loop.create_task(self._join(pair), name=f"fault proxy {self.port}: connect")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def parted(self, pair: _Pair) -> None:
        """Told by a connection when both of its sides are gone."""
        self._pairs.discard(pair)
        if not self._pairs:
            self._none_left.set()

    def _changed(self) -> None:
        self._open_or_refuse()
        for pair in tuple(self._pairs):
            pair.changed()

    def _open_or_refuse(self) -> None:
        now_s = self._loop.time()
        refusing = self.faults.refusing(now_s)
        if refusing and self._server is not None:
            server, self._server = self._server, None
            is_real = all(hasattr(listening, "fileno") for listening in server.sockets)
            server.close()
            if is_real:
                self._loop.call_soon(self._reserve)
        elif not refusing and self._server is None and self._opening is None:
            self._opening = self._loop.create_task(self._reopen(), name=f"fault proxy {self.port}: listen")
        if self._refusal_ends is not None:
            self._refusal_ends.cancel()
            self._refusal_ends = None
        end_s = self.faults.next_end_s(now_s)
        if refusing and end_s < math.inf:
            self._refusal_ends = self._loop.call_at(end_s, self._look_again, end_s)

    def _look_again(self, end_s: float) -> None:
        if self._loop.time() < end_s:
            # The loop's timer was early by its resolution.
            self._refusal_ends = self._loop.call_later(0.001, self._look_again, end_s)
        else:
            self._open_or_refuse()

    async def _listening(self, host: str, port: int) -> asyncio.Server:
        return await self._loop.create_server(lambda: _Side(_Pair(self), self.accepts), host, port)

    async def _reopen(self) -> None:
        """Listen again, as soon as the port can be had."""
        try:
            while self._server is None:
                self._release()
                try:
                    self._server = await self._listening(self.host, self.port)
                except OSError:
                    await asyncio.sleep(_LISTEN_AGAIN_S)
        finally:
            self._opening = None
        self._open_or_refuse()

    def _reserve(self) -> None:
        """Keep the port: a socket that is bound and doesn't listen has the kernel refuse connections to it."""
        if self._server is None and self._opening is None and self._reserved is None:
            with contextlib.suppress(OSError):
                self._reserved = _bound(self.host, self.port)

    def _release(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    async def _join(self, pair: _Pair) -> None:
        """Connect to the device: what the driver says meanwhile waits in its socket."""
        try:
            await self._loop.create_connection(lambda: _Side(pair, self.accepts.back), *self.target)
            pair.begin()
        except OSError:
            self.counts.unreached += 1
            pair.abort()
        except asyncio.CancelledError:
            pair.abort()
            raise


class _Pair:
    """A driver's connection and the one to the device that goes with it.

    What happens on one side before the other is there is kept until then.
    """

    def __init__(self, proxy: TcpFaultProxy) -> None:
        speech = None if proxy.understanding is None else proxy.understanding.speech()
        self._line = RunningLine(proxy.faults, self._deliver, self.regulate, speech)
        self._proxy = proxy
        self._early: list[Callable[[], None]] | None = []
        self._sides: dict[Direction, _Side] = {}
        """By the direction of what each is sent."""

    def opened(self, side: _Side) -> None:
        """A side is there; it is read from when both are."""
        self._sides[side.reads.back] = side
        side.read_on(False)
        if side.reads is self._proxy.accepts:
            self._proxy.joined(self)

    def begin(self) -> None:
        """Both sides are there."""
        early, self._early = self._early or [], None
        self._line.changed()
        for happened in early:
            happened()

    def changed(self) -> None:
        """The faults have changed."""
        if self._early is None:
            self._line.changed()

    def received(self, direction: Direction, data: bytes) -> None:
        """Bytes have come from a side."""
        if self._early is not None:
            self._early.append(lambda: self.received(direction, data))
            return
        if direction is Direction.REQUEST:
            self._proxy.counts.request_bytes += len(data)
        else:
            self._proxy.counts.reply_bytes += len(data)
        self._line.feed(direction, data)

    def ended(self, direction: Direction) -> None:
        """A side will say nothing more."""
        if self._early is not None:
            self._early.append(lambda: self.ended(direction))
        else:
            self._line.ended(direction)

    def lost(self, side: _Side, exc: Exception | None) -> None:
        """A side is gone; after both, nothing of the pair is left."""
        if self._early is not None:
            self._early.append(lambda: self.lost(side, exc))
            return
        self._sides.pop(side.reads.back, None)
        self._line.nobody_hears(side.reads.back)
        if not self._sides:
            self._line.close()
            self._proxy.parted(self)
        elif not side.aborted:
            self._line.ended(side.reads, reset=exc is not None)

    def abort(self) -> None:
        """Break both sides off, if they are there."""
        self._line.close()
        early, self._early = self._early or [], None
        for side in tuple(self._sides.values()):
            side.reset()
        for happened in early:
            happened()

    def _deliver(self, direction: Direction, what: Payload) -> None:
        side = self._sides.get(direction)
        if side is None:
            return
        if isinstance(what, bytes):
            side.send(what)
        elif what is Close.RESET:
            side.reset()
        else:
            side.end()
            if all(each.is_ended for each in self._sides.values()):
                for each in self._sides.values():
                    each.close()

    def regulate(self) -> None:
        """Read from each side as fast as the other takes it."""
        for direction, reader in tuple((side.reads, side) for side in self._sides.values()):
            writer = self._sides.get(direction)
            reader.read_on(not (self._line.is_full(direction) or (writer is not None and writer.is_full)))


class _Side(asyncio.Protocol):
    """One of the two connections; it `reads` what goes in that direction, and is sent what goes in the other."""

    def __init__(self, pair: _Pair, reads: Direction) -> None:
        self.reads = reads
        self.is_full = False
        self.is_ended = False
        self.aborted = False
        self._pair = pair
        self._reading = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pair.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self.aborted:
            self._pair.received(self.reads, data)

    def eof_received(self) -> bool:
        if not self.aborted:
            self._pair.ended(self.reads)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._pair.lost(self, exc)

    def pause_writing(self) -> None:
        self.is_full = True
        self._pair.regulate()

    def resume_writing(self) -> None:
        self.is_full = False
        self._pair.regulate()

    def send(self, data: bytes) -> None:
        """Write, unless its end has been said already."""
        if self._transport is not None and not self.is_ended:
            self._transport.write(data)

    def end(self) -> None:
        """Say that nothing more comes, after what was sent."""
        if self._transport is not None and not (self.is_ended or self._transport.is_closing()):
            # Where the other end is gone already, `connection_lost` is on its way.
            with contextlib.suppress(OSError):
                self._transport.write_eof()
        self.is_ended = True

    def close(self) -> None:
        """Both directions have ended."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Break off, so that the other end notices."""
        self.aborted = True
        if self._transport is None:
            return
        if not self._transport.is_closing():
            _reset_on_close(self._transport.get_extra_info("socket"))
        self._transport.abort()

    def read_on(self, reading: bool) -> None:
        """Read, or don't."""
        if self._transport is None or reading is self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()


def _port_of(server: asyncio.Server) -> int:
    """The port of a server that has sockets; 0 for one that has none, as in a loop without a network."""
    for listening in server.sockets:
        return int(listening.getsockname()[1])
    return 0


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made


def _reset_on_close(connection: Any) -> None:
    """`connection` is a socket or what a loop gives out as one."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
