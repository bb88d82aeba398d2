"""Running a bench command as its user does, and servers that keep count of what reaches them."""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from types import TracebackType
from typing import Any

THREE = {"p50", "p99", "max"}
LONGEST_S = 50.0


class Run:
    """A bench command that has ended."""

    def __init__(self, code: int | None, output: bytes, errors: bytes) -> None:
        self.code, self.output, self.errors = code, output.decode(), errors.decode()
        assert "Traceback" not in self.errors, self.errors

    def figures(self) -> dict[str, Any]:
        assert self.code == 0, self.errors
        printed: dict[str, Any] = json.loads(self.output)
        return printed


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gateway", "bench", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end(process: asyncio.subprocess.Process) -> Run:
    async with asyncio.timeout(LONGEST_S):
        output, errors = await process.communicate()
    return Run(process.returncode, output, errors)


async def run(*arguments: str) -> Run:
    return await end(await start(*arguments))


class Servers:
    """Devices as the cycle's bench expects them, in a row of ports. `written` has each one's writes, by connection."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.first_port = 0
        self.written: list[dict[int, list[bytes]]] = [{} for _ in range(count)]
        self.silent: set[int] = set()
        self.any_written = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._writers: list[list[asyncio.StreamWriter]] = [[] for _ in range(count)]

    async def __aenter__(self) -> Servers:
        while not self._servers:
            try:
                await self._listen()
            except OSError:
                await self._close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.first_port}"

    def by_connection(self, at: int) -> list[list[bytes]]:
        return [values for values in self.written[at].values() if values]

    def cut(self, at: int) -> None:
        """The server ends, and its connections with it."""
        self._servers[at].close()
        for writer in self._writers[at]:
            writer.transport.abort()

    async def _listen(self) -> None:
        port = 0
        for at in range(self.count):
            server = await asyncio.start_server(lambda r, w, at=at: self._serve(at, r, w), "127.0.0.1", port)
            self._servers.append(server)
            bound: int = server.sockets[0].getsockname()[1]
            self.first_port = self.first_port if at else bound
            port = bound + 1

    async def _close(self) -> None:
        for at, server in enumerate(self._servers):
            self.cut(at)
            await server.wait_closed()
        self._servers.clear()

    async def _serve(self, at: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers[at].append(writer)
        values = self.written[at].setdefault(len(self.written[at]), [])
        try:
            while True:
                head = await reader.readexactly(6)
                body = await reader.readexactly(struct.unpack(">H", head[4:])[0])
                if at not in self.silent:
                    writer.write(self._answer(head, body, values))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, head: bytes, body: bytes, values: list[bytes]) -> bytes:
        unit, function, address, count = struct.unpack(">BBHH", body[:6])
        assert unit == 1
        if function == 3:
            assert (address, count) == (0, 60)
            return head[:4] + struct.pack(">HBBB", 3 + 2 * count, unit, function, 2 * count) + bytes(2 * count)
        assert (function, address, count) == (16, 100, 2)
        values.append(body[7:])
        self.any_written.set()
        return head[:4] + struct.pack(">H", 6) + body[:6]
