"""`gateway bench dispatch`: from the operator's publication of a dispatch to the last register that it changes.

Everything runs as in the field, each in its own process: servers, broker, and `gateway run` with its order desk,
journal, cycle and drivers. This process is the operator. The clock is the host's monotonic one, which all processes
share: the time of publication is kept here, the time of the last acknowledgement stands in the gateway's journal.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from config.messages import DispatchOrder, Down, Heartbeat, down_topic, up_topic
from config.strict import Strict
from gateway.bench.broker import BenchBroker, start_broker
from gateway.bench.children import Child, ChildFailedError
from gateway.bench.machine.cycle_bench import RATING_W, bench_profile_data
from gateway.bench.machine.floor import written_at
from gateway.cycle import Figures
from sim_devices.dso.link import BrokerLink

LAYER: Final = "bench"
JOURNAL: Final = "gateway.jsonl"
OPERATOR: Final = "operator"
WARM_UP: Final = 10
HEARTBEAT_S: Final = 1.0
READY_S: Final = 30.0
WRITTEN_S: Final = 5.0
LEAST_PAUSE_S: Final = 0.06


@dataclass(frozen=True, slots=True)
class DispatchBenchRequest:
    """`embedded`: the embedded broker even where mosquitto is installed."""

    devices: int
    period_ms: int
    dispatches: int
    embedded: bool = False


def bench_site_data(ports: list[int], period_ms: int) -> dict[str, Any]:
    """A site of as many devices as there are ports but one, which is the meter's; one operator dispatches."""
    meter, *devices = ports
    names = {"meter": ("bench_meter.yaml", meter)}
    names |= {f"device_{index}": ("bench_device.yaml", port) for index, port in enumerate(devices)}
    return {
        "site": LAYER,
        "connection": {"rating_w": len(devices) * RATING_W, "meter": "meter"},
        "fallback": {"net_import_w": "unlimited", "net_export_w": "unlimited"},
        "control": {"period_ms": period_ms},
        "parents": [{"name": OPERATOR, "dispatch": True, "broker": {"host": "127.0.0.1", "port": 1883}}],
        "devices": {
            name: {
                "profile": profile,
                "address": {"driver": "modbus_tcp", "host": "127.0.0.1", "port": port, "unit": 1},
                "rating_w": RATING_W,
            }
            for name, (profile, port) in names.items()
        },
    }


def meter_profile_data() -> dict[str, Any]:
    """The bench's device without its setpoint."""
    data = bench_profile_data()
    points = {name: point for name, point in data["points"].items() if name != "setpoint_w"}
    kept = {key: value for key, value in data.items() if key not in ("control", "response")}
    return {**kept, "profile": "bench_meter", "title": "The meter of a bench", "kind": "meter", "points": points}


@dataclass
class Operator:
    """Publishes dispatches and remembers when; each moves every device."""

    link: BrokerLink
    rating_w: float
    published_s: dict[str, float] = field(default_factory=dict)
    _beats: int = 0

    async def beat(self) -> None:
        """Heartbeats until cancelled."""
        while True:
            await self._publish(Down.HEARTBEAT, Heartbeat(sequence=self._beats, issued_at=datetime.now(UTC)), qos=0)
            self._beats += 1
            await asyncio.sleep(HEARTBEAT_S)

    async def dispatch(self, number: int) -> None:
        """Publish one, of another power than the one before."""
        name = f"bench-{number}"
        net_w = (0.2 + 0.6 * (number * 0.382 % 1.0)) * self.rating_w
        order = DispatchOrder(id=name, issued_at=datetime.now(UTC), epoch=0, net_power_w=net_w)
        payload = order.model_dump_json(exclude_none=True).encode()
        self.published_s[name] = time.monotonic()
        await self.link.publish(down_topic(LAYER, OPERATOR, Down.DISPATCH), payload, qos=1)

    async def _publish(self, kind: Down, message: Strict, qos: int) -> None:
        await self.link.publish(down_topic(LAYER, OPERATOR, kind), message.model_dump_json().encode(), qos=qos)


class JournalReader:
    """Reads on in a journal that another process writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.present: set[str] = set()
        self.written: dict[str, dict[str, Any]] = {}

    def read_on(self) -> None:
        """Take in what has come since; half a line waits for its end."""
        for event in self._events():
            if event["event"] == "device" and event["present"]:
                self.present.add(event["name"])
            elif event["event"] == "written":
                self.written[event["id"]] = event

    def _events(self) -> Iterator[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._read += len(line)
                    yield json.loads(line)
        except FileNotFoundError:
            return

    async def until(self, done: Callable[[], bool], within_s: float) -> bool:
        """Read on until `done`, or for so long; whether it came to that."""
        until_s = time.monotonic() + within_s
        while True:
            self.read_on()
            if done():
                return True
            if time.monotonic() >= until_s:
                return False
            await asyncio.sleep(0.02)


async def run_dispatch_bench(request: DispatchBenchRequest, progress: Callable[[str], None]) -> dict[str, Any]:
    """The figures as the command prints them; raises ChildFailedError where a process does not come up."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="lamina-bench-")))
        servers = await Child.start(
            "servers", ["gateway.bench.machine.floor", "--devices", str(request.devices + 1)], folder / "servers.log"
        )
        stack.push_async_callback(servers.stop)
        ports = (await servers.ready())["ports"]
        broker = await start_broker(folder, embedded=request.embedded)
        stack.push_async_callback(broker.child.stop)
        site = _write_site(folder, ports, request.period_ms)
        gateway = await Child.start("gateway", _gateway(site, folder, broker), folder / "gateway.log")
        stack.push_async_callback(gateway.stop)
        journal = JournalReader(folder / "state" / JOURNAL)
        link = BrokerLink(
            broker.address,
            up_topic(LAYER, OPERATOR, "+"),
            identifier="bench-operator",
            on_message=lambda _: None,
            on_state=lambda _, __: None,
        )
        progress(f"waiting for {request.devices + 1} devices, broker {broker.name}")
        operator = Operator(link, request.devices * RATING_W)
        await _operate(operator, journal, gateway, request, progress)
        _, changes = await written_at(servers)
        return _figures(request, broker.name, operator, journal) | {"least_changes_at_a_server": min(changes[1:])}


def _write_site(folder: Path, ports: list[int], period_ms: int) -> Path:
    files = {
        "bench_device.yaml": bench_profile_data(),
        "bench_meter.yaml": meter_profile_data(),
        "site.yaml": bench_site_data(ports, period_ms),
    }
    for name, data in files.items():
        (folder / name).write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "site.yaml"


def _gateway(site: Path, folder: Path, broker: BenchBroker) -> list[str]:
    endpoint = f"{broker.address.host}:{broker.address.port}"
    state = str(folder / "state")
    return ["gateway", "run", str(site), "--allow-real-writes", "--broker", endpoint, "--state", state, "--until-eof"]


async def _operate(
    operator: Operator,
    journal: JournalReader,
    gateway: Child,
    request: DispatchBenchRequest,
    progress: Callable[[str], None],
) -> None:
    """Connect, wait for the field, and publish dispatches at any phase of the cycle."""
    rng, link = random.Random(request.dispatches), asyncio.create_task(operator.link.run(), name="operator's link")
    beating: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(READY_S):
            await operator.link.connected.wait()
        if not await journal.until(lambda: len(journal.present) == request.devices + 1, READY_S):
            came = f"{len(journal.present)} of {request.devices + 1} devices came up"
            raise ChildFailedError(came + gateway.last_words())
        beating = asyncio.create_task(operator.beat(), name="operator's heartbeat")
        for number in range(WARM_UP + request.dispatches):
            if number % 50 == WARM_UP:
                progress(f"{number - WARM_UP} of {request.dispatches} dispatches")
            await operator.dispatch(number)
            await asyncio.sleep(LEAST_PAUSE_S + rng.random() * request.period_ms / 1e3)
            if number == 0 and not await journal.until(lambda: bool(journal.written), WRITTEN_S):
                raise ChildFailedError(f"the first dispatch was not written{gateway.last_words()}")
        await journal.until(lambda: len(journal.written) >= len(operator.published_s), WRITTEN_S)
    finally:
        for task in (beating, link):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def _figures(request: DispatchBenchRequest, broker: str, operator: Operator, journal: JournalReader) -> dict[str, Any]:
    latency_ms, to_gateway_ms, to_registers_ms = Figures(), Figures(), Figures()
    for name, published_s in list(operator.published_s.items())[WARM_UP:]:
        event = journal.written.get(name)
        if event is not None:
            latency_ms.add((event["written_s"] - published_s) * 1e3)
            to_gateway_ms.add((event["received_s"] - published_s) * 1e3)
            to_registers_ms.add((event["written_s"] - event["received_s"]) * 1e3)
    return {
        "devices": request.devices,
        "period_ms": request.period_ms,
        "broker": broker,
        "dispatches": request.dispatches,
        "written": len(latency_ms),
        "latency_ms": latency_ms.summary(),
        "published_to_received_ms": to_gateway_ms.summary(),
        "received_to_acknowledged_ms": to_registers_ms.summary(),
    }
