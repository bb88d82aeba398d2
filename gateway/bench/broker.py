"""The broker of a bench, in a process of its own: mosquitto where it is installed, else the embedded one.

Run as a module it is mosquitto's keeper: it says where mosquitto listens, and ends it with its own standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from config.site import MqttBroker
from gateway.bench.children import Child

START_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 5.0
SYSTEM_PATH: Final = "/usr/sbin:/usr/local/sbin"


class BenchBroker(NamedTuple):
    """A running broker; `name` is mosquitto or amqtt."""

    name: str
    address: MqttBroker
    child: Child


def mosquitto_program() -> str | None:
    """Where mosquitto is, if it is."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=SYSTEM_PATH)


async def start_broker(logs: Path, *, embedded: bool = False) -> BenchBroker:
    """Start a broker on a free port of this host; raises ChildFailedError."""
    program = None if embedded else mosquitto_program()
    if program is None:
        name, arguments = "amqtt", ["sim_devices.broker", "--port", "0", "--until-eof"]
    else:
        name, arguments = "mosquitto", ["gateway.bench.broker", "--mosquitto", program]
    child = await Child.start("broker", arguments, logs / "broker.log")
    said = (await child.ready())["endpoints"]["mqtt"]
    return BenchBroker(name, MqttBroker(host=said["host"], port=said["port"]), child)


async def keep_mosquitto(program: str) -> int:
    """Serve until SIGTERM, until standard input ends, or until mosquitto does; the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with TemporaryDirectory(prefix="lamina-mosquitto-") as folder:
        port = _free_port()
        settings = Path(folder) / "mosquitto.conf"
        settings.write_text(_settings(port))
        process = await asyncio.create_subprocess_exec(program, "-c", str(settings))
        try:
            if not await _listens(port, process):
                return 1
            sys.stdout.write(json.dumps({"endpoints": {"mqtt": {"host": "127.0.0.1", "port": port}}}) + "\n")
            sys.stdout.flush()
            _stop_at_end_of_input(stop)
            await _first_of(stop, process)
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
    return 0


def _settings(port: int) -> str:
    # As root it would become a user who may not read the settings.
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false", "user root"]
    return "\n".join([*lines, "set_tcp_nodelay true", "log_dest stderr", "log_type notice", "log_type error"]) + "\n"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    def look() -> None:
        if not os.read(0, 4096):
            asyncio.get_running_loop().remove_reader(0)
            stop.set()

    asyncio.get_running_loop().add_reader(0, look)


async def _listens(port: int, process: asyncio.subprocess.Process) -> bool:
    """Wait until the port takes connections; False where mosquitto ends before, or doesn't get to it."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + START_TIMEOUT_S
    while process.returncode is None and loop.time() < until_s:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return True
    return False


async def _first_of(stop: asyncio.Event, process: asyncio.subprocess.Process) -> None:
    """Wait for either."""
    tasks = [
        asyncio.create_task(stop.wait(), name="stop"),
        asyncio.create_task(process.wait(), name="mosquitto"),
    ]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mosquitto", required=True, metavar="PROGRAM")
    return asyncio.run(keep_mosquitto(parser.parse_args().mosquitto))


if __name__ == "__main__":
    sys.exit(main())
