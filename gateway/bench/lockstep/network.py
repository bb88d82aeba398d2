"""The network of a virtual loop: listeners by address, and transports that hand bytes to each other in the loop.

What is written arrives in the next turn of the loop, whole and in order. An address is a host, which is any text, and a
port.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeAlias

from gateway.bench.lockstep.transport import Address, VirtualSocket, VirtualTransport, Wire, os_error

Factory: TypeAlias = Callable[[], asyncio.BaseProtocol]

FIRST_FREE_PORT: Final = 20_000
UNREACHED_S: Final = 127.0
"""How long Linux tries to connect to nobody, by default (tcp(7), tcp_syn_retries)."""


@dataclass(slots=True)
class _Listener:
    factory: Factory
    refusing: bool = False


class VirtualNetwork:
    """Listeners and connections; what is done to an address is done to the connections of the server there."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._listeners: dict[Address, _Listener] = {}
        self._wires: dict[int, Wire] = {}
        self._blocked: set[Address] = set()
        self._free_ports = count(FIRST_FREE_PORT)
        self._numbers = count()

    # Of the loop

    def listen(self, factory: Factory, host: str | None, port: int) -> Address:
        """Take an address; port 0 takes a free one. Raises OSError for one that is taken."""
        address = (host or "0.0.0.0", port or self._free_port())
        if address in self._listeners:
            raise os_error(errno.EADDRINUSE)
        self._listeners[address] = _Listener(factory)
        return address

    def unlisten(self, address: Address) -> None:
        """Free an address; its connections last."""
        self._listeners.pop(address, None)

    async def connect(self, factory: Factory, host: str, port: int) -> tuple[VirtualTransport, asyncio.BaseProtocol]:
        """Connect to an address. Raises OSError where nobody listens there, or nobody answers."""
        await asyncio.sleep(0)
        address = (host, port)
        if address in self._blocked:
            await asyncio.sleep(UNREACHED_S)
            raise os_error(errno.ETIMEDOUT)
        listener = self._listeners.get(address)
        if listener is None or listener.refusing:
            raise os_error(errno.ECONNREFUSED)
        wire = Wire(address)
        number = next(self._numbers)
        own = (host, FIRST_FREE_PORT + number)
        client = VirtualTransport(self.loop, wire, own, address)
        server = VirtualTransport(self.loop, wire, address, own)
        client.join(server)
        wire.ends = (client, server)
        self._wires[number] = wire
        for end in wire.ends:
            end.on_lost(lambda: self._forget(number))
        protocol = factory()
        server.begin(listener.factory())
        client.begin(protocol)
        return client, protocol

    # Of the bench

    def move(self, address: Address) -> Address:
        """Give the server at `address` another address, which is returned; the old one is free, its connections end.

        For a proxy, which listens where the server was. Raises KeyError where nobody listens.
        """
        listener = self._listeners.pop(address)
        moved = (address[0], self._free_port())
        self._listeners[moved] = listener
        self.reset(address)
        return moved

    def refuse(self, address: Address) -> None:
        """Refuse new connections. Raises KeyError where nobody listens."""
        self._listeners[address].refusing = True

    def block(self, address: Address) -> None:
        """Let nothing through, in either direction, and no new connection be made or refused."""
        self._blocked.add(address)
        for wire in self._of(address):
            wire.blocked = True

    def reset(self, address: Address) -> None:
        """Reset the connections that there are."""
        for wire in self._of(address):
            for end in wire.ends:
                end.lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def restore(self, address: Address) -> None:
        """Undo `refuse` and `block`; what was held back arrives now."""
        if address in self._listeners:
            self._listeners[address].refusing = False
        self._blocked.discard(address)
        for wire in self._of(address):
            wire.unblock()

    def connections(self, address: Address) -> int:
        """How many there are to a server."""
        return len(self._of(address))

    def _of(self, address: Address) -> list[Wire]:
        return [wire for wire in self._wires.values() if wire.server == address]

    def _forget(self, number: int) -> None:
        wire = self._wires.get(number)
        if wire is not None and all(end.is_lost for end in wire.ends):
            del self._wires[number]

    def _free_port(self) -> int:
        taken = {port for _, port in self._listeners}
        return next(port for port in self._free_ports if port not in taken)


class VirtualServer(asyncio.AbstractServer):
    """A listener, as asyncio's own servers look."""

    def __init__(self, network: VirtualNetwork, address: Address) -> None:
        self._network = network
        self._address = address
        self._listening = True

    @property
    def sockets(self) -> tuple[VirtualSocket, ...]:
        """One, with the address."""
        return (VirtualSocket(self._address),) if self._listening else ()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of its network."""
        return self._network.loop

    def is_serving(self) -> bool:
        """Whether it listens."""
        return self._listening

    async def serve_forever(self) -> None:
        """Until cancelled."""
        await self._network.loop.create_future()

    async def start_serving(self) -> None:
        """It does from the beginning."""

    def close(self) -> None:
        """Stop listening; connections last."""
        if self._listening:
            self._listening = False
            self._network.unlisten(self._address)

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""
