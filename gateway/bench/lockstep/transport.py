"""Both ends of a connection in the virtual network: transports, as asyncio's own look, without sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

Address: TypeAlias = tuple[str, int]

HIGH_WATER: Final = 65_536
LOW_WATER: Final = 16_384


@dataclass(slots=True)
class Wire:
    """What is between the two ends of a connection. While it is blocked, what is said waits, as TCP repeats it."""

    server: Address
    blocked: bool = False
    held: list[Callable[[], None]] = field(default_factory=list)
    ends: tuple[VirtualTransport, ...] = ()

    def pass_on(self, said: Callable[[], None]) -> None:
        """Keep something for later."""
        self.held.append(said)

    def unblock(self) -> None:
        """Let through what was kept, and what comes."""
        self.blocked = False
        held, self.held = self.held, []
        for said in held:
            said()


class VirtualSocket:
    """What a transport or a server gives out as its socket: addresses, and the option that makes a closing a reset."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = socket.IPPROTO_TCP

    def __init__(self, own: Address, peer: Address | None = None) -> None:
        self._own = own
        self._peer = peer
        self.resets = False

    def getsockname(self) -> Address:
        """Its address."""
        return self._own

    def getpeername(self) -> Address:
        """The other end's address; raises OSError for a listener."""
        if self._peer is None:
            raise os_error(errno.ENOTCONN)
        return self._peer

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Only SO_LINGER means anything here."""
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER) and isinstance(value, bytes):
            lingers, seconds = struct.unpack("ii", value)
            self.resets = bool(lingers) and seconds == 0


class VirtualTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wire: Wire, own: Address, peer: Address) -> None:
        self._socket = VirtualSocket(own, peer)
        super().__init__({"socket": self._socket, "sockname": own, "peername": peer})
        self.is_lost = False
        self._loop = loop
        self._wire = wire
        self._peer: VirtualTransport | None = None
        self._protocol: Any = None
        self._closing = False
        self._said_end = False
        self._reading = True
        self._unread: list[bytes | None] = []
        """What has come while reading was paused; None: the end."""
        self._ahead = 0
        """Bytes written and not yet read by the other end."""
        self._paused = False
        self._tell_lost: Callable[[], None] = lambda: None
        self._context = copy_context()

    # Of the network

    def join(self, peer: VirtualTransport) -> None:
        """Be the other end of `peer`, and it of this one."""
        self._peer, peer._peer = peer, self

    def on_lost(self, tell: Callable[[], None]) -> None:
        """Whom to tell of the end."""
        self._tell_lost = tell

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """Serve a protocol from now on."""
        self._protocol = protocol
        protocol.connection_made(self)

    def lose(self, error: Exception | None) -> None:
        """End at once, for whatever reason; the other end is not told."""
        self._closing = True
        self._loop.call_soon(self._lost, error)

    # Of asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; what is sent after the end is lost."""
        if self._closing or self._said_end or not data:
            return
        peer, said = self._peer, bytes(data)
        assert peer is not None
        self._ahead += len(said)
        if self._wire.blocked:
            self._wire.pass_on(lambda: self._arrive(said))
        else:
            self._loop.call_soon(peer._receive, said, context=self._context)
        if self._ahead > HIGH_WATER and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """Send all of them."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Say that nothing more comes."""
        if not (self._said_end or self._closing):
            self._said_end = True
            self._say(None)

    def can_write_eof(self) -> bool:
        """It can."""
        return True

    def get_write_buffer_size(self) -> int:
        """Bytes that the other end has not read."""
        return self._ahead

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """They are fixed."""

    def is_closing(self) -> bool:
        """Whether it has been closed."""
        return self._closing

    def close(self) -> None:
        """End after what was sent."""
        if not self._closing:
            self.write_eof()
            self.lose(None)

    def abort(self) -> None:
        """End now; the other end is reset if the socket's option says so."""
        if self._closing:
            return
        if self._socket.resets:
            self._closing = True
            self._say(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        else:
            self.write_eof()
        self.lose(None)

    def is_reading(self) -> bool:
        """Whether what comes is handed on."""
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        """Keep what comes."""
        self._reading = False

    def resume_reading(self) -> None:
        """Hand on what was kept, and what comes."""
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._read_on)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whom it serves."""
        assert isinstance(self._protocol, asyncio.BaseProtocol)
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Serve another one."""
        self._protocol = protocol

    # Between the ends

    def _say(self, end: ConnectionResetError | None) -> None:
        """Tell the other end that nothing more comes, or that there is no connection any more."""
        peer = self._peer
        assert peer is not None

        def tell() -> None:
            if end is not None:
                peer.lose(end)
            else:
                self._loop.call_soon(peer._receive, None)

        if self._wire.blocked:
            self._wire.pass_on(tell)
        else:
            tell()

    def _arrive(self, said: bytes) -> None:
        assert self._peer is not None
        self._loop.call_soon(self._peer._receive, said)

    def _receive(self, data: bytes | None) -> None:
        if self._closing:
            return
        if not self._reading or self._unread:
            self._unread.append(data)
        elif data is None:
            self._end()
        else:
            self._taken(len(data))
            self._protocol.data_received(data)

    def _read_on(self) -> None:
        while self._unread and self._reading and not self._closing:
            data = self._unread.pop(0)
            if data is None:
                self._end()
            else:
                self._taken(len(data))
                self._protocol.data_received(data)

    def _taken(self, size: int) -> None:
        """Tell the writer that this much was read."""
        peer = self._peer
        assert peer is not None
        peer._ahead -= size
        if peer._paused and peer._ahead <= LOW_WATER and not peer._closing:
            peer._paused = False
            peer._protocol.resume_writing()

    def _end(self) -> None:
        if not self._protocol.eof_received():
            self.close()

    def _lost(self, error: Exception | None) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._unread.clear()
            self._protocol.connection_lost(error)
            self._tell_lost()


def os_error(number: int) -> OSError:
    """The error that a system call would raise."""
    return OSError(number, os.strerror(number))
