"""Connections without sockets, as protocols and streams see them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from gateway.bench.lockstep.network import VirtualNetwork
from gateway.bench.lockstep.transport import HIGH_WATER, Address
from gateway.bench.lockstep.virtual_loop import BEGIN_S, VirtualLoop

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def network() -> VirtualNetwork:
    return cast(VirtualLoop, asyncio.get_running_loop()).network


class End(asyncio.Protocol):
    """Notes what happens to it."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.heard: list[Any] = []
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)

    def eof_received(self) -> bool:
        self.heard.append("end")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append("lost" if exc is None else type(exc).__name__)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False


async def joined() -> tuple[End, End, Address]:
    """A client's end, the server's, and the server's address."""
    loop = asyncio.get_running_loop()
    ends: list[End] = []
    server = await loop.create_server(lambda: ends.append(End()) or ends[-1], "twin", 0)
    address = server.sockets[0].getsockname()
    _, client = await loop.create_connection(End, *address)
    return client, ends[0], address


async def settled() -> None:
    await asyncio.sleep(0.001)


def test_streams_talk_and_no_time_passes(on_virtual_time: Run) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(echo, "twin", 502)
        reader, writer = await asyncio.open_connection("twin", 502)
        writer.write(b"hello\n")
        assert await reader.read() == b"hello\n"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert asyncio.get_running_loop().time() == BEGIN_S

    on_virtual_time(story())


def test_bytes_arrive_whole_in_order_and_before_the_end(on_virtual_time: Run) -> None:
    async def story() -> None:
        client, server, _ = await joined()
        client.transport.write(b"one")
        client.transport.writelines([b"two", b"three"])
        client.transport.close()
        client.transport.write(b"too late")
        await settled()
        assert server.heard == [b"one", b"twothree", "end", "lost"]
        assert client.heard == ["lost"]

    on_virtual_time(story())


def test_an_abort_ends_the_other_side_and_with_the_sockets_option_resets_it(on_virtual_time: Run) -> None:
    async def story() -> None:
        client, server, _ = await joined()
        client.transport.abort()
        await settled()
        assert (client.heard, server.heard) == (["lost"], ["end", "lost"])
        client, server, _ = await joined()
        option = struct.pack("ii", 1, 0)
        client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        client.transport.abort()
        await settled()
        assert (client.heard, server.heard) == (["lost"], ["ConnectionResetError"])

    on_virtual_time(story())


def test_nobody_there_and_an_address_taken_are_errors_as_of_sockets(on_virtual_time: Run) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(End, "twin", 502)
        server = await loop.create_server(End, "twin", 502)
        with pytest.raises(OSError, match="in use"):
            await loop.create_server(End, "twin", 502)
        server.close()
        await loop.create_server(End, "twin", 502)

    on_virtual_time(story())


def test_a_reader_that_pauses_holds_its_writer_back(on_virtual_time: Run) -> None:
    async def story() -> None:
        client, server, _ = await joined()
        server.transport.pause_reading()
        client.transport.write(b"x" * (HIGH_WATER + 1))
        client.transport.write(b"y")
        await settled()
        assert client.paused
        assert server.heard == []
        server.transport.resume_reading()
        await settled()
        assert not client.paused
        assert b"".join(server.heard) == b"x" * (HIGH_WATER + 1) + b"y"

    on_virtual_time(story())


def test_a_moved_server_leaves_its_address_to_a_proxy(on_virtual_time: Run) -> None:
    async def story() -> None:
        client, server, address = await joined()
        moved = network().move(address)
        await settled()
        assert (client.heard, server.heard) == (["ConnectionResetError"], ["ConnectionResetError"])
        loop = asyncio.get_running_loop()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(End, *address)
        await loop.create_connection(End, *moved)
        await loop.create_server(End, *address)
        assert network().connections(moved) == 1

    on_virtual_time(story())


def test_a_blocked_address_is_silent_until_it_is_restored(on_virtual_time: Run) -> None:
    async def story() -> None:
        client, server, address = await joined()
        network().block(address)
        client.transport.write(b"asked")
        server.transport.write(b"answered")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.get_running_loop().create_connection(End, *address)
        assert client.heard == server.heard == []
        network().restore(address)
        await settled()
        assert (client.heard, server.heard) == ([b"answered"], [b"asked"])

    on_virtual_time(story())


def test_an_address_that_refuses_keeps_the_connections_it_has(on_virtual_time: Run) -> None:
    async def story() -> None:
        client, server, address = await joined()
        network().refuse(address)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.get_running_loop().create_connection(End, *address)
        client.transport.write(b"still here")
        await settled()
        assert server.heard == [b"still here"]
        network().restore(address)
        await asyncio.get_running_loop().create_connection(End, *address)

    on_virtual_time(story())
