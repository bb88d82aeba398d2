"""An MQTT 3.1.1 broker for demos and tests: anonymous, on loopback, nothing stored. In the field use a real one."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop
from amqtt.broker import Broker
from amqtt.errors import BrokerError

from sim_devices.port_holders import reason
from sim_devices.until import end_of_process

QUIET_LOGGERS: Final = ("amqtt", "transitions")
DROP_S: Final = 1.0
SHUTDOWN_S: Final = 6.0


class EmbeddedBroker:
    """`async with EmbeddedBroker(port=0) as broker` listens on `broker.host`, `broker.port` until left.

    Raises OSError when the port is taken.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self._broker: Any = None
        self._connections: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self._connected: Callable[..., Awaitable[None]]

    async def __aenter__(self) -> EmbeddedBroker:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen; the port taken is in `port` afterwards."""
        for name in QUIET_LOGGERS:
            # It logs each ordinary disconnect as a warning, and a failed start with a traceback.
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        self._connected, broker.stream_connected = broker.stream_connected, self._serve
        retain_for = "_publish_retained_messages_for_subscription"
        setattr(broker, retain_for, _for_own_subscriptions(broker, getattr(broker, retain_for)))
        try:
            await broker.start()
        except BrokerError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from error
            raise
        self._broker = broker
        self.port = broker._servers["default"].instance.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Drop every client and stop listening."""
        if self._broker is None:
            return
        broker, self._broker = self._broker, None
        # Its own shutdown listens to its very end, and can leave a client connected that came or went just before.
        for server in broker._servers.values():
            server.instance.close()
        for writer in self._connections.values():
            writer.transport.abort()
        if self._connections:
            await asyncio.wait(self._connections, timeout=DROP_S)
        for task in self._connections:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                await broker.shutdown()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            await self._connected(reader, writer, listener_name=listener_name)
        finally:
            del self._connections[task]
            writer.transport.abort()


def _for_own_subscriptions(broker: Broker, send: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """amqtt sends each client that connects what is retained for everybody's subscriptions, one after the other."""

    async def send_own(subscription: tuple[str, int], session: Any) -> None:
        subscribers = broker._subscriptions.get(subscription[0], ())
        if any(subscriber is session for subscriber, _ in subscribers):
            await send(subscription, session)

    return send_own


async def serve(host: str, port: int, until_eof: bool) -> None:
    """Run a broker until the process is told to end, after printing where it is as one JSON line."""
    until = end_of_process(until_eof=until_eof)
    async with EmbeddedBroker(host=host, port=port) as broker:
        line = {"endpoints": {"mqtt": {"host": broker.host, "port": broker.port}}, "pid": os.getpid()}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await until.wait()


def main(argv: list[str] | None = None) -> int:
    """The command line of the broker's own process; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sim_devices.broker", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    options = parser.parse_args(argv)
    try:
        uvloop.run(serve(options.host, options.port, options.until_eof))
    except OSError as error:
        sys.stderr.write(f"broker: {options.host}:{options.port}: {reason(error, options.port)}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
