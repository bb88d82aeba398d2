"""The floor of a Modbus TCP control cycle on this machine: bare protocol work with nothing around it.

N servers answer reads of 60 registers and writes of 2; a bare client sweeps them: one read to every server at once,
wait for all, one write to every server at once, wait for all. A gateway's cycle is quoted as a ratio to that, both
measured in alternating blocks of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import sys
import time
from typing import Final, cast

import uvloop

READ_COUNT: Final = 60
WRITE_ADDRESS: Final = 100
_READ: Final = struct.pack(">BBHH", 1, 3, 0, READ_COUNT)
_WRITE: Final = struct.pack(">BBHHBI", 1, 16, WRITE_ADDRESS, 2, 4, 1)


class FloorServer(asyncio.Protocol):
    """Answers whole and pipelined requests: zeros to reads, an echo to writes."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast and no check: uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data, replies = self._rest + data, []
        while len(data) >= 12:
            length = 6 + int.from_bytes(data[4:6], "big")
            if len(data) < length:
                break
            if data[7] in (3, 4):
                size = 2 * int.from_bytes(data[10:12], "big")
                replies.append(data[:4] + struct.pack(">HBBB", 3 + size, data[6], data[7], size) + bytes(size))
            else:
                replies.append(data[:4] + b"\x00\x06" + data[6:12])
            data = data[length:]
        self._rest = data
        if replies:
            self._transport.write(b"".join(replies))


class FloorClient(asyncio.Protocol):
    """One connection with one request in flight."""

    def __init__(self) -> None:
        self._rest = b""
        self._transaction = 0
        self._reply: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast and no check: uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) >= 6:
            end = 6 + int.from_bytes(self._rest[4:6], "big")
            if len(self._rest) >= end:
                self._rest = self._rest[end:]
                if self._reply is not None and not self._reply.done():
                    self._reply.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError("a floor server closed its connection"))

    def ask(self, body: bytes) -> asyncio.Future[None]:
        """Send a request; the future ends with its reply."""
        self._transaction = (self._transaction + 1) & 0xFFFF
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(struct.pack(">HHH", self._transaction, 0, len(body)) + body)
        return self._reply

    def close(self) -> None:
        self._transport.close()


class Floor:
    """Bare clients on `devices` servers from `port` on; `sweep` returns one whole cycle's milliseconds."""

    def __init__(self, clients: list[FloorClient]) -> None:
        self._clients = clients

    @classmethod
    async def connect(cls, host: str, ports: list[int]) -> Floor:
        loop = asyncio.get_running_loop()
        return cls([(await loop.create_connection(FloorClient, host, port))[1] for port in ports])

    async def sweep(self) -> float:
        started = time.perf_counter()
        for body in (_READ, _WRITE):
            for reply in [client.ask(body) for client in self._clients]:
                await reply
        return (time.perf_counter() - started) * 1e3

    def close(self) -> None:
        for client in self._clients:
            client.close()


async def serve(devices: int) -> None:
    """Serve on free ports until standard input ends; prints the ports as one JSON line."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(FloorServer, "127.0.0.1", 0) for _ in range(devices)]
    sys.stdout.write(json.dumps({"ports": [server.sockets[0].getsockname()[1] for server in servers]}) + "\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument("--core", type=int, help="run on this processor core alone")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    uvloop.run(serve(arguments.devices))


if __name__ == "__main__":
    main()
