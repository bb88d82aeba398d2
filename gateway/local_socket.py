"""Local commands: JSON lines over a Unix socket in the state directory. One request a line, one answer a line."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

MOST_WATCHERS: Final = 16
LONGEST_REQUEST: Final = 65_536

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Takes a request and returns its answer; raises ValueError with a text for the user."""


@asynccontextmanager
async def local_socket(path: Path, answer: Answer, snapshot: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Serve while the context lasts.

    `{"command": "watch", "interval_s": x}` streams snapshots until the peer leaves; everything else goes to `answer`.
    """
    watchers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(watchers) >= MOST_WATCHERS:
            writer.close()
            return
        task.set_name("local socket client")
        watchers.add(task)
        try:
            # Streams report a cancelled handler as an error; only our own end cancels one, so it ends quietly.
            with suppress(ConnectionError, asyncio.CancelledError):
                await _converse(reader, writer, answer, snapshot)
        finally:
            watchers.discard(task)
            writer.close()

    _remove(path)
    server = await asyncio.start_unix_server(serve, str(path), limit=LONGEST_REQUEST)
    os.chmod(path, 0o660)  # noqa: PTH101 (one system call, not worth a thread)
    try:
        yield
    finally:
        server.close()
        for watcher in list(watchers):
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        _remove(path)


def _remove(path: Path) -> None:
    """A socket file that a killed predecessor left; the site's lock says that nobody serves on it."""
    path.unlink(missing_ok=True)


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer, snapshot: Callable[[], dict[str, Any]]
) -> None:
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            return
        if not line:
            return
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("a request is a JSON object")
            if request.get("command") == "watch":
                interval_s = float(request.get("interval_s", 0.5))
                await _stream(writer, snapshot, min(max(interval_s, 0.05), 60.0))
                return
            reply = await answer(request)
        except (ValueError, TypeError) as error:
            reply = {"error": str(error)}
        await _send(writer, reply)


async def _stream(writer: asyncio.StreamWriter, snapshot: Callable[[], dict[str, Any]], interval_s: float) -> None:
    while not writer.is_closing():
        await _send(writer, snapshot())
        await asyncio.sleep(interval_s)


async def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message, default=str).encode() + b"\n")
    await writer.drain()
