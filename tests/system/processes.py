"""Real processes of Lamina: started, heard, told apart from all others on the machine, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 20.0
"""A bound on waiting, not an expectation: the machine may be busy with other things."""

INTERVAL_S = 0.02
FAMILY = "LAMINA_TEST_FAMILY"
"""An environment variable that children inherit: it finds them again whoever their parent is by then."""

# Below the range that the kernel draws outgoing ports from: a client that knocks at a closed port of that range may in
# the end be connected to itself.
_PORTS = range(20_000, 32_000)


def closed_port() -> int:
    """A port of loopback at which nobody listens now."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def is_open(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex((host, port)) == 0


What = str | Callable[[], object]
"""What is waited for, in words; or what there was instead, asked for when the time is over."""


async def until(condition: Callable[[], T | None], what: What, within_s: float = PATIENCE_S) -> T:
    """The first truthy value of a condition that no event tells."""
    deadline_s = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {_in_words(what)}"
        await asyncio.sleep(INTERVAL_S)


async def lasting(condition: Callable[[], bool], for_s: float, what: What, within_s: float = PATIENCE_S) -> None:
    """Return once a condition has held at every look for so long."""
    deadline_s, since_s = time.monotonic() + within_s, time.monotonic()
    while time.monotonic() - since_s < for_s:
        if not condition():
            since_s = time.monotonic()
        assert time.monotonic() < deadline_s, f"not for {for_s:g} s within {within_s:g} s: {_in_words(what)}"
        await asyncio.sleep(INTERVAL_S)


def _in_words(what: What) -> object:
    return what if isinstance(what, str) else what()


class Running:
    """One process in a session of its own, and its family: every process that came of it.

    Its standard input is our pipe, which closes with us; what it says goes to files.
    """

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, **environment: str) -> None:
        self.name = name
        self.family = uuid.uuid4().hex
        stem = f"{name}-{self.family[:6]}"
        self._out, self._errors = folder / f"{stem}.out", folder / f"{stem}.err"
        with self._out.open("wb") as out, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
                cwd=folder,
                env={**os.environ, FAMILY: self.family, **environment},
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        return self._errors.read_text(encoding="utf-8")

    @property
    def code(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.poll()

    def announced(self) -> dict[str, Any] | None:
        """The JSON object on its first line, once that is there."""
        line, newline, _ = self.out.partition("\n")
        if newline:
            said: dict[str, Any] = json.loads(line)
            return said
        assert self.code is None, f"{self.name} ended with {self.code}: {self.errors}"
        return None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self, within_s: float = PATIENCE_S) -> int:
        """The exit code, when it has ended by itself or by our signal."""
        await until(lambda: self.code is not None, f"{self.name} ends", within_s)
        assert self.code is not None
        return self.code

    def alive(self) -> dict[int, str]:
        """The processes of its family that run now, itself included: their command lines by pid."""
        return dict(_family(self.family))

    def close(self) -> None:
        """End it and its family, whatever state they are in."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self.code is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10.0)
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10.0)


def _family(mark: str) -> Iterator[tuple[int, str]]:
    wanted = f"{FAMILY}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        # A process may end while it is looked at, others are not ours to read, and a zombie has no environment.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


class Started:
    """Starts processes in a folder and ends them, the last one first, at the end of the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[Running] = []

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        while self._running:
            self._running.pop().close()

    def run(self, name: str, *arguments: str, **environment: str) -> Running:
        """`python -m ARGUMENTS`."""
        return self._add(Running(name, arguments, self.folder, **environment))

    def _add(self, running: Running) -> Running:
        self._running.append(running)
        return running

    async def broker(self, port: int = 0) -> Broker:
        """An MQTT broker, when it serves."""
        running = self.run("broker", "sim_devices.broker", "--port", str(port), "--until-eof")
        return Broker(running, await until(running.announced, "the broker serves"))

    async def twins(self, site: Path, *names: str, ports: str = "free", broker: Broker | None = None) -> Twins:
        """One process with the twins named (none: all), when they serve."""
        arguments = [argument for name in names for argument in ("--twin", name)]
        if broker is not None:
            arguments += ["--mqtt", broker.address]
        arguments += ["--ports", ports, "--until-eof"]
        running = self.run("twins", "sim_devices.process", str(site), *arguments)
        return Twins(running, await until(running.announced, "the twins serve"))

    def gateway(
        self, site: Path, state: Path, *options: str, broker: str | None = None, twins: Twins | None = None
    ) -> Gateway:
        """`gateway run SITE`, against these twins if any are given; at once, ready or not."""
        arguments = ["gateway", "run", str(site), "--state", str(state), "--until-eof", *options]
        if broker is not None:
            arguments += ["--broker", broker]
        if twins is not None:
            endpoints = self.folder / f"endpoints-{twins.running.family[:6]}.json"
            endpoints.write_text(json.dumps(twins.said))
            arguments += ["--addresses", str(endpoints)]
        return Gateway(self.run("gateway", *arguments), state)


class Broker:
    """A broker's process."""

    def __init__(self, running: Running, said: dict[str, Any]) -> None:
        self.running = running
        self.host: str = said["endpoints"]["mqtt"]["host"]
        self.port: int = said["endpoints"]["mqtt"]["port"]
        self.address = f"{self.host}:{self.port}"


class Twins:
    """A twins' process, what it announced, and the way into its physics."""

    def __init__(self, running: Running, said: dict[str, Any]) -> None:
        self.running = running
        self.said = said
        self._control = (said["control"]["host"], said["control"]["port"])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say one line, with `state` in it, to the control port; its answer."""
        with socket.create_connection(self._control, timeout=PATIENCE_S) as connection:
            connection.sendall(json.dumps({**request, "state": True}).encode() + b"\n")
            with connection.makefile() as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
        return answer

    def state(self) -> dict[str, Any]:
        """Every model's state."""
        return self.ask({})

    def device(self, name: str) -> dict[str, Any]:
        """One model's state."""
        device: dict[str, Any] = self.state()["devices"][name]
        return device

    @property
    def net_w(self) -> float:
        """Net power at the connection point, as the physics has it."""
        return float(self.state()["net_w"])


class Gateway:
    """A gateway's process as its neighbours on the machine see it: its local socket, its journal, its log."""

    def __init__(self, running: Running, state: Path) -> None:
        self.running = running
        self.socket = state / "control.sock"
        self._journal = state / "gateway.jsonl"

    def snapshot(self) -> dict[str, Any]:
        """The present state, by the local socket; raises OSError where nobody serves."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(self.socket))
            connection.sendall(b'{"command": "snapshot"}\n')
            with connection.makefile() as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
        return answer

    def device(self, name: str) -> dict[str, Any]:
        """What the gateway shows of one device."""
        return next(item for item in self.snapshot()["devices"] if item["name"] == name)

    def link_of(self, device: str) -> dict[str, Any]:
        """What it shows of the link that a device is on."""
        return next(item for item in self.snapshot()["links"] if device in item["devices"])

    def order_ids(self) -> set[str]:
        return {order["id"] for order in self.snapshot()["orders"]}

    def mode(self) -> str:
        return str(self.snapshot()["mode"]["state"])

    def journal(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The journal's entries of one kind, whole lines only."""
        if not self._journal.exists():
            return []
        text = self._journal.read_text(encoding="utf-8")
        entries = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [e for e in entries if e["event"] == event and all(e[key] == value for key, value in fields.items())]

    def logged(self, *words: str) -> list[str]:
        """The lines of its log that have all these words."""
        return [line for line in self.running.errors.splitlines() if all(word in line for word in words)]

    async def ready(self) -> None:
        """It serves and has decided."""
        await until(self._has_decided, f"the gateway decides; it said: {self.running.errors}")

    def _has_decided(self) -> bool:
        assert self.running.code is None, f"the gateway ended with {self.running.code}: {self.running.errors}"
        try:
            return bool(self.snapshot()["devices"])
        except (FileNotFoundError, ConnectionRefusedError):
            return False
