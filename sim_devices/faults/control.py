"""The way into running fault proxies: JSON lines over loopback TCP, each answered by one line.

`{"set": {"fault": NAME, ...}}` puts a fault in force, with the options of `make_fault`; the answer is `{"set": ID}`.
`{"clear": ID}` or `{"clear": "all"}` takes it out again; the answer is `{"cleared": HOW_MANY}`, of those still in
force. `{"state": true}` tells each proxy's counts and faults, `{"list": true}` the faults there are. With several
proxies `"proxy": NAME` says which is meant; `{"clear": "all"}` and `{"state": true}` without it mean all of them. What
can't be used is answered by `{"error": WHY}` and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from sim_devices.faults.fault import FaultError
from sim_devices.faults.fault_set import FaultSet
from sim_devices.faults.registry import FAULTS

HOST: Final = "127.0.0.1"
MAX_LINE: Final = 65_536
VERBS: Final = ("set", "clear", "state", "list")


class Proxy(Protocol):
    """What the control port asks of a proxy."""

    faults: FaultSet

    def state(self) -> dict[str, Any]:
        """What it does and has seen."""
        ...


class FaultControl:
    """Serves the control port of the given proxies, on a port of loopback; `port` says which after `start`."""

    def __init__(self, proxies: Mapping[str, Proxy]) -> None:
        self.host = HOST
        self.port = 0
        self._proxies = proxies
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
            writer.write(json.dumps(self.answer(line)).encode() + b"\n")
            await writer.drain()

    def answer(self, line: bytes) -> dict[str, Any]:
        """Do what one line says; the answer."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "not JSON"}
        if not isinstance(request, dict) or not request.keys() <= {"proxy", *VERBS}:
            return {"error": f"expected an object with one of {', '.join(VERBS)}"}
        verbs = [verb for verb in VERBS if verb in request]
        if len(verbs) != 1:
            return {"error": f"expected exactly one of {', '.join(VERBS)}"}
        named = request.get("proxy")
        if named is not None and not (isinstance(named, str) and named in self._proxies):
            return {"error": f"no proxy {named!r}; there are {', '.join(self._proxies)}"}
        chosen = dict(self._proxies) if named is None else {named: self._proxies[named]}
        try:
            return self._do(verbs[0], request[verbs[0]], chosen)
        except FaultError as error:
            return {"error": str(error)}

    def _do(self, verb: str, value: Any, chosen: Mapping[str, Proxy]) -> dict[str, Any]:
        if verb == "list":
            return {"faults": [kind.as_json() for kind in FAULTS.values()]}
        if verb == "state":
            return {"proxies": {name: proxy.state() for name, proxy in chosen.items()}}
        if verb == "clear" and value == "all":
            return {"cleared": sum(proxy.faults.clear() for proxy in chosen.values())}
        if len(chosen) != 1:
            raise FaultError(f"name the proxy that is meant: {', '.join(chosen)}")
        (proxy,) = chosen.values()
        if verb == "set":
            return {"set": _set(proxy.faults, value)}
        if not isinstance(value, int) or isinstance(value, bool):
            raise FaultError(f"clear: expected the id of a fault, or all, not {value!r}")
        return {"cleared": proxy.faults.clear(value)}


def _set(faults: FaultSet, value: Any) -> int:
    if not isinstance(value, dict) or "fault" not in value:
        raise FaultError('set: expected an object with "fault" and its options')
    options = {key: option for key, option in value.items() if key != "fault"}
    return faults.set_by(value["fault"], options).id
