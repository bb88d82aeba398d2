"""The way into running fault proxies: JSON lines over loopback TCP, each answered by one line.

`{"device": NAME, "fault": FAULT, "parameters": {...}}` puts a fault in force, with the options of `make_fault`; the
answer is `{"set": ID}`. `{"device": NAME, "clear": WHAT}` takes it out again, where WHAT is its name, its id or `all`,
and `{"clear": "all"}` all of all devices; the answer is `{"cleared": HOW_MANY}`, of those still in force.
`{"status": true}` tells of each device what passed and its faults, `{"list": true}` the faults there are. What can't be
used is answered by `{"error": WHY}` and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from sim_devices.faults.board import FaultBoard
from sim_devices.faults.fault import FaultError
from sim_devices.faults.registry import FAULTS

HOST: Final = "127.0.0.1"
MAX_LINE: Final = 65_536
VERBS: Final = ("fault", "clear", "status", "list")
_KNOWN: Final = {"device", "parameters", *VERBS}


def answer(board: FaultBoard, line: bytes) -> dict[str, Any]:
    """Do what one line says; the answer."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "not JSON"}
    if not isinstance(request, dict) or not request.keys() <= _KNOWN:
        return {"error": f"expected an object with one of {', '.join(VERBS)}, and device and parameters with them"}
    verbs = [verb for verb in VERBS if verb in request]
    if len(verbs) != 1:
        return {"error": f"expected exactly one of {', '.join(VERBS)}"}
    try:
        return _done(board, verbs[0], request)
    except FaultError as error:
        return {"error": str(error)}


def _done(board: FaultBoard, verb: str, request: dict[str, Any]) -> dict[str, Any]:
    if verb == "list":
        return {"faults": [kind.as_json() for kind in FAULTS.values()]}
    if verb == "status":
        return board.status()
    if verb == "clear":
        return {"cleared": board.clear(request.get("device"), request["clear"])}
    if "device" not in request:
        raise FaultError(f"name the device that is meant: {', '.join(board.placed)}")
    return {"set": board.set(request["device"], request["fault"], request.get("parameters"))}


class FaultControl:
    """Serves the control port of a board, on a port of loopback; `port` says which after `start`."""

    def __init__(self, board: FaultBoard) -> None:
        self.host = HOST
        self.port = 0
        self._board = board
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultControl:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self, port: int = 0) -> None:
        """Listen. Raises OSError when the port can't be had."""
        self._server = await asyncio.start_server(self._serve, HOST, port, limit=MAX_LINE)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            # The task ends here either way: the stream's own callback reports a cancelled handler as an error.
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                line = b""
                writer.write(json.dumps({"error": f"a line is longer than {MAX_LINE} bytes"}).encode() + b"\n")
            if not line:
                await writer.drain()
                return
            writer.write(json.dumps(answer(self._board, line)).encode() + b"\n")
            await writer.drain()
