"""The floor of a Modbus TCP control cycle on this machine: bare protocol work with nothing around it.

N servers answer reads of 60 registers and writes of 2; a bare client sweeps them: one read to every server at once,
wait for all, one write to every server at once, wait for all. A gateway's cycle is quoted as a ratio to that, both
measured in alternating blocks of one run. The servers count what is written to them, and say so when they are asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import uvloop

from gateway.bench.children import Child, ChildFailedError

READ_COUNT: Final = 60
WRITE_ADDRESS: Final = 100
ANSWER_S: Final = 5.0
CLOSED: Final = "a server closed the floor's connection"
_READ: Final = struct.pack(">BBHH", 1, 3, 0, READ_COUNT)
_WRITE: Final = struct.pack(">BBHHBI", 1, 16, WRITE_ADDRESS, 2, 4, 1)


@dataclass(slots=True)
class Seen:
    """What was written: how often, and how often another value than the one before on the same connection."""

    writes: int = 0
    changes: int = 0


class FloorServer(asyncio.Protocol):
    """Answers whole and pipelined requests: zeros to reads, an echo to writes, which it counts in `seen`."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._rest = self._last = b""

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
                self._count(data[8:length])
            data = data[length:]
        self._rest = data
        if replies:
            self._transport.write(b"".join(replies))

    def _count(self, written: bytes) -> None:
        self._seen.writes += 1
        if written != self._last:
            self._last = written
            self._seen.changes += 1


class FloorClient(asyncio.Protocol):
    """One connection with one request in flight."""

    def __init__(self) -> None:
        self._rest = b""
        self._transaction = 0
        self._lost = False
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
        self._lost = True
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError(CLOSED))
            # Whoever sweeps may have failed at another server; nobody has to collect this one then.
            self._reply.exception()

    def ask(self, body: bytes) -> asyncio.Future[None]:
        """Send a request; the future ends with its reply. Raises ConnectionError where there is no connection."""
        if self._lost:
            raise ConnectionError(CLOSED)
        self._transaction = (self._transaction + 1) & 0xFFFF
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(struct.pack(">HHH", self._transaction, 0, len(body)) + body)
        return self._reply

    def close(self) -> None:
        self._transport.close()


class Floor:
    """Bare clients, one a server; `sweep` returns one whole cycle's milliseconds, `sweeps` counts them.

    Raises ConnectionError where a server closes its connection.
    """

    def __init__(self) -> None:
        self._clients: list[FloorClient] = []
        self.sweeps = 0

    async def connect(self, host: str, port: int) -> None:
        """Add a server; raises OSError where there is none."""
        self._clients.append((await asyncio.get_running_loop().create_connection(FloorClient, host, port))[1])

    async def sweep(self) -> float:
        self.sweeps += 1
        started = time.perf_counter()
        for body in (_READ, _WRITE):
            for reply in [client.ask(body) for client in self._clients]:
                await reply
        return (time.perf_counter() - started) * 1e3

    def close(self) -> None:
        for client in self._clients:
            client.close()


async def serve(devices: int) -> None:
    """Serve on free ports until standard input ends; prints the ports as one JSON line, and for each line that comes
    in one with what was written so far, server by server.
    """
    loop, seen = asyncio.get_running_loop(), [Seen() for _ in range(devices)]
    servers = [await loop.create_server(partial(FloorServer, one), "127.0.0.1", 0) for one in seen]
    _say({"ports": [server.sockets[0].getsockname()[1] for server in servers]})
    while await loop.run_in_executor(None, sys.stdin.readline):
        _say({"writes": [one.writes for one in seen], "changes": [one.changes for one in seen]})


async def written_at(servers: Child) -> tuple[list[int], list[int]]:
    """How often each server of such a process was written to, and how often with a change.

    Raises ChildFailedError where the process doesn't say.
    """
    assert servers.process.stdin is not None and servers.process.stdout is not None
    servers.process.stdin.write(b"\n")
    try:
        async with asyncio.timeout(ANSWER_S):
            seen = json.loads(await servers.process.stdout.readline())
    except (TimeoutError, ValueError):
        raise ChildFailedError(f"the servers do not say what was written to them{servers.last_words()}") from None
    return seen["writes"], seen["changes"]


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


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
