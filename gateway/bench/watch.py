"""Watching a running gateway through its local socket."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from gateway.bench.live import render
from gateway.local_socket import LONGEST_REQUEST

REFRESH_S = 0.25
PIPED_WIDTH = 120
"""A pipe gets one screen."""


@asynccontextmanager
async def snapshots(socket: Path, interval_s: float = REFRESH_S) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """A stream of snapshots; raises OSError where nobody serves."""
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=64 * LONGEST_REQUEST)
    try:
        writer.write(json.dumps({"command": "watch", "interval_s": interval_s}).encode() + b"\n")
        await writer.drain()
        yield _lines(reader)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    while line := await reader.readline():
        yield json.loads(line)


async def watch_gateway(socket: Path, *, as_json: bool) -> int:
    """Show snapshots until Ctrl-C or until the gateway ends; the exit code."""
    try:
        async with snapshots(socket) as stream:
            if as_json:
                async for snapshot in stream:
                    if not _print_line(json.dumps(snapshot)):
                        return 0
                return 0
            if not sys.stdout.isatty():
                Console(width=PIPED_WIDTH).print(render(await anext(stream)))
                return 0
            with Live(console=Console(), screen=True, auto_refresh=False) as live:
                async for snapshot in stream:
                    live.update(render(snapshot), refresh=True)
    except OSError as error:
        sys.stderr.write(f"{socket}: {error.strerror or error}; is the gateway running, with this state directory?\n")
        return 1
    sys.stderr.write("the gateway ended\n")
    return 0


def _print_line(line: str) -> bool:
    """Print at once; False when the reader has left, as `head` does."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would be told of again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
