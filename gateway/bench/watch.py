"""Watching a running gateway through its local socket."""

from __future__ import annotations

import asyncio
import json
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
                    sys.stdout.write(json.dumps(snapshot) + "\n")
                    sys.stdout.flush()
                return 0
            with Live(console=Console(), screen=True, auto_refresh=False) as live:
                async for snapshot in stream:
                    live.update(render(snapshot), refresh=True)
    except OSError as error:
        sys.stderr.write(f"{socket}: {error.strerror or error}; is the gateway running, with this state directory?\n")
        return 2
    sys.stderr.write("the gateway ended\n")
    return 0
