"""Hardware in the loop: tells the twins' physics what the real devices measure, each cycle, newest value only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from gateway.local_socket import LONGEST_REQUEST


class TwinWorld:
    """A connection to the twins' control port. While it is down the twins see the values go stale, as they must."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._powers: dict[str, float] = {}
        self._news = asyncio.Event()

    def tell(self, powers_w: Mapping[str, float]) -> None:
        """The real devices' measured power, load convention."""
        if powers_w:
            self._powers = dict(powers_w)
            self._news.set()

    async def run(self) -> None:
        """Send until cancelled; ends with OSError when the connection breaks."""
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=LONGEST_REQUEST)
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                writer.write(json.dumps({"real_power_w": self._powers}).encode() + b"\n")
                await writer.drain()
        finally:
            writer.close()
            del reader
