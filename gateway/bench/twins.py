"""The twins of a site as child processes, with a broker for those that speak MQTT."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from config.site import MqttBroker
from gateway.bench.children import Child, ChildFailedError

ANNOUNCEMENT: Final = "twins.json"
"""In the state directory: where the twins that run for the site are, and their control port."""


class TwinsProcess:
    """The twins' process and, unless one was named, a broker's; `endpoints` is what the twins printed.

    What they printed is also in the file `ANNOUNCEMENT`, as long as they run.
    """

    def __init__(self, children: list[Child], endpoints: dict[str, Any], broker: MqttBroker) -> None:
        self.children, self.endpoints, self.broker = children, endpoints, broker

    @classmethod
    async def start(
        cls,
        site: Path,
        names: Sequence[str],
        ports: str,
        logs: Path,
        *,
        broker: str | None = None,
        trace: Path | None = None,
        broker_port: int = 0,
        replay: Sequence[str] = (),
        announce: Path | None = None,
    ) -> TwinsProcess:
        """Start the twins named (none: all) and wait until they serve; raises ChildFailedError.

        `announce`: the folder of the announcement, None for `logs`. `replay`: options of the twins' process that make
        it serve a recording instead.
        """
        children: list[Child] = []
        try:
            if broker is None:
                wanted = broker_port if ports == "declared" else 0
                arguments = ["sim_devices.broker", "--port", str(wanted), "--until-eof"]
                child = await Child.start("broker", arguments, logs / "broker.log")
                children.append(child)
                said = (await child.ready())["endpoints"]["mqtt"]
                broker = f"{said['host']}:{said['port']}"
            arguments = ["sim_devices.process", str(site), "--ports", ports, "--mqtt", broker, "--until-eof", *replay]
            arguments += ["--announce", str((announce or logs) / ANNOUNCEMENT)]
            for name in names:
                arguments += ["--twin", name]
            if trace is not None:
                arguments += ["--trace", str(trace)]
            child = await Child.start("twins", arguments, logs / "twins.log")
            children.append(child)
            endpoints = await child.ready()
        except BaseException:
            for child in reversed(children):
                await child.stop()
            raise
        host, _, port = broker.rpartition(":")
        return cls(children, endpoints, MqttBroker(host=host, port=int(port)))

    async def stop(self) -> list[int]:
        """Stop all, the twins before their broker; their exit codes."""
        return [await child.stop() for child in reversed(self.children)]


async def serve_twins(
    site: Path,
    names: Sequence[str],
    ports: str,
    broker: str | None,
    broker_port: int = 0,
    replay: Sequence[str] = (),
    announce: Path | None = None,
    serving: Callable[[dict[str, Any]], None] = lambda _: None,
) -> int:
    """`gateway twins`: print the endpoints, serve until a signal or until the twins end; the exit code.

    `broker_port`: where MQTT twins are declared to be found; 0: anywhere. `replay`, `announce` as for
    `TwinsProcess.start`. `serving` is called with what was printed.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="lamina-twins-") as logs:
        try:
            twins = await TwinsProcess.start(
                site,
                names,
                ports,
                Path(logs),
                broker=broker,
                broker_port=broker_port,
                replay=replay,
                announce=announce,
            )
        except ChildFailedError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        try:
            sys.stdout.write(json.dumps(twins.endpoints) + "\n")
            sys.stdout.flush()
            serving(twins.endpoints)
            ended = [asyncio.create_task(child.wait(), name=child.name) for child in twins.children]
            stopped = asyncio.create_task(stop.wait(), name="signal")
            await asyncio.wait([*ended, stopped], return_when=asyncio.FIRST_COMPLETED)
            failed = not stop.is_set()
            stopped.cancel()
            await asyncio.gather(stopped, return_exceptions=True)
        finally:
            await twins.stop()
        await asyncio.gather(*ended)
    if failed:
        sys.stderr.write("the twins ended by themselves\n")
    return 1 if failed else 0
