"""`gateway bench children`: one parent above many children, under regulation and a market, and what it takes.

Each in a process of its own: the broker, the children as messages (`many_children`), and `gateway run` as in the field.
This process is the operator above: it beats, dispatches with regulation capacity at each market interval, and signals
every 4 s. Processor time and memory are the parent's alone, as the kernel counts them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from config.messages import DispatchOrder, Down, Heartbeat, RegulationSignal, down_topic, up_topic
from config.strict import Strict
from gateway.bench.broker import BenchBroker, start_broker
from gateway.bench.children import Child, ChildFailedError
from gateway.bench.machine.dispatch_bench import JournalReader
from gateway.bench.machine.many_children import METER_TOPIC, RATING_W, SOURCE, child_name
from gateway.cycle import Figures
from sim_devices.dso.link import BrokerLink

LAYER: Final = "bench"
OPERATOR: Final = "operator"
HEARTBEAT_S: Final = 1.0
SIGNAL_S: Final = 4.0
INTERVAL_S: Final = 300.0
READY_S: Final = 60.0
STALE_AFTER_S: Final = 3.5
"""As the layers' telemetry: each second, and three missing ones are a loss."""

LEAST_SETTLE_S: Final = 1.0
SETTLED_PER_S: Final = 200.0
"""Until every child has given authority, made its offer, and follows its first share: so many children a second."""

CAPACITY_PU: Final = 0.2
"""Of the children's ratings, either way: what a signal moves."""


@dataclass(frozen=True, slots=True)
class ChildrenBenchRequest:
    """`period_ms` is the parent's control cycle."""

    children: int
    duration_s: float
    period_ms: int = 1000
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """What a process has used so far, and the moment of asking (monotonic)."""

    cpu_s: float
    rss_mb: float
    peak_mb: float
    at_s: float


def use_of(pid: int) -> Use:
    """Processor time and memory of another process, from the kernel (proc(5)); raises OSError without /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) / 1024.0 for name, _, rest in (line.partition(":") for line in lines)
             if name in ("VmRSS", "VmHWM")}  # fmt: skip
    return Use(ticks / os.sysconf("SC_CLK_TCK"), sizes["VmRSS"], sizes["VmHWM"], time.monotonic())


def meter_profile() -> dict[str, Any]:
    """A meter that is a message: its power as text."""
    power = {
        "mqtt": {"topic": METER_TOPIC}, "unit": "W", "range": [-1e9, 1e9], "poll": "fast", "max_age_s": 3.5,
        "source": "bench",
    }  # fmt: skip
    return {
        "profile": "bench_meter",
        "title": "The meter of a bench",
        "kind": "meter",
        "protocol": "mqtt",
        "source": {"document": "gateway/bench/machine/many_children.py", "version": "1", "publisher": "Lamina"},
        "pace": {"timeout_s": 1.0, "silence_s": 3.5},
        "points": {"power_w": power},
    }


def site_data(request: ChildrenBenchRequest, host: str, port: int) -> dict[str, Any]:
    """A parent of so many layers and nothing else but its meter."""
    broker = {"host": host, "port": port}
    devices: dict[str, Any] = {
        "meter": {
            "profile": "bench_meter.yaml",
            "address": {"driver": "mqtt", **broker},
            "rating_w": request.children * RATING_W,
        }
    }
    for at in range(request.children):
        devices[child_name(at)] = {
            "profile": "child_layer",
            "address": {"driver": "layer", **broker, "layer": child_name(at), "source": SOURCE},
            "rating_w": RATING_W,
            "acknowledged_on_silence": True,
        }
    return {
        "site": LAYER,
        "connection": {"rating_w": request.children * RATING_W, "meter": "meter"},
        "fallback": {"net_import_w": "unlimited", "net_export_w": "unlimited"},
        "control": {"period_ms": request.period_ms, "stale_after_s": STALE_AFTER_S},
        "parents": [{"name": OPERATOR, "dispatch": True, "broker": broker}],
        "devices": devices,
    }


@dataclass
class Operator:
    """Beats, dispatches each interval, signals every 4 s; remembers when each signal went out."""

    link: BrokerLink
    capacity_w: float
    signals_s: list[float] = field(default_factory=list)
    _sequence: int = field(default_factory=lambda: int(time.time()))
    _orders: int = 0

    async def beat(self) -> None:
        """Heartbeats until cancelled."""
        await self.link.connected.wait()
        while True:
            self._sequence += 1
            await self._publish(Down.HEARTBEAT, Heartbeat(sequence=self._sequence, issued_at=datetime.now(UTC)), 0)
            await asyncio.sleep(HEARTBEAT_S)

    async def dispatch(self) -> None:
        """The market's order for an interval, with capacity reserved around it."""
        self._orders += 1
        order = DispatchOrder(
            id=f"bench-{self._orders}",
            issued_at=datetime.now(UTC),
            duration_s=2.0 * INTERVAL_S,
            epoch=0,
            net_power_w=0.25 * self.capacity_w * (-1.0) ** self._orders,
            lambda_per_kwh=0.2,
            regulation_up_w=self.capacity_w,
            regulation_down_w=self.capacity_w,
        )
        await self._publish(Down.DISPATCH, order, 1)

    async def signal(self, value: float) -> None:
        """One regulation signal."""
        self._sequence += 1
        message = RegulationSignal(
            epoch=0, sequence=self._sequence, issued_at=datetime.now(UTC), signal=value, lost_after_s=3.0 * SIGNAL_S
        )
        self.signals_s.append(time.monotonic())
        await self._publish(Down.REGULATION, message, 0)

    async def _publish(self, kind: Down, message: Strict, qos: int) -> None:
        payload = message.model_dump_json(exclude_none=True).encode()
        await self.link.publish(down_topic(LAYER, OPERATOR, kind), payload, qos)


async def run_children_bench(request: ChildrenBenchRequest, progress: Callable[[str], None]) -> dict[str, Any]:
    """The figures as the command prints them; raises ChildFailedError where a process does not come up, OSError."""
    if not sys.platform.startswith("linux"):
        raise ChildFailedError("the parent's processor time and memory are read from /proc, which is Linux's")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="lamina-bench-")))
        broker = await start_broker(folder, embedded=request.embedded)
        stack.push_async_callback(broker.child.stop)
        children = await Child.start("children", _children(request, broker, folder), folder / "children.log")
        stack.push_async_callback(children.stop)
        await children.ready()
        gateway = await Child.start("gateway", _gateway(request, broker, folder), folder / "gateway.log")
        stack.push_async_callback(gateway.stop)
        link = BrokerLink(
            broker.address,
            up_topic(LAYER, OPERATOR, "+"),
            identifier="bench-operator",
            on_message=lambda _: None,
            on_state=lambda _, __: None,
        )
        progress(f"waiting for {request.children} children, broker {broker.name}")
        operator = Operator(link, CAPACITY_PU * request.children * RATING_W)
        for each, name in ((link.run(), "operator's link"), (operator.beat(), "operator's heartbeat")):
            stack.push_async_callback(_ended, asyncio.create_task(each, name=name))
        journal = JournalReader(folder / "state" / "gateway.jsonl")
        await _until_all_follow(operator, journal, gateway, request)
        span = await _measured(operator, gateway, children, folder / "children.json", request, progress)
        await gateway.stop()
        summary = _summary(folder / "state" / "gateway.jsonl")
    return {
        "children": request.children,
        "period_ms": request.period_ms,
        "duration_s": round(span.after.at_s - span.before.at_s, 1),
        "broker": broker.name,
        "cpu_pct": round(100.0 * (span.after.cpu_s - span.before.cpu_s) / (span.after.at_s - span.before.at_s), 1),
        "rss_mb": round(span.after.rss_mb, 1),
        "peak_mb": round(span.after.peak_mb, 1),
        **_latencies(operator.signals_s, span.last["moved"], request.children),
        **_rates(span),
        "links_lost": sum(link["lost"] for link in summary.get("links", {}).values()),
        "missed_cycles": summary.get("missed_cycles"),
        "cycle_ms": summary.get("cycle_ms"),
    }


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _children(request: ChildrenBenchRequest, broker: BenchBroker, folder: Path) -> list[str]:
    endpoint = f"{broker.address.host}:{broker.address.port}"
    count, out = str(request.children), str(folder / "children.json")
    return ["gateway.bench.machine.many_children", "--broker", endpoint, "--children", count, "--out", out]


def _gateway(request: ChildrenBenchRequest, broker: BenchBroker, folder: Path) -> list[str]:
    site = folder / "site.yaml"
    (folder / "bench_meter.yaml").write_text(yaml.safe_dump(meter_profile(), sort_keys=False))
    data = site_data(request, broker.address.host, broker.address.port)
    site.write_text(json.dumps(data), encoding="utf-8")
    state = str(folder / "state")
    return ["gateway", "run", str(site), "--allow-real-writes", "--state", state, "--until-eof"]


@dataclass(frozen=True, slots=True)
class _Span:
    """The measured time: what the parent had used and the children had heard at its beginning and at its end."""

    before: Use
    after: Use
    first: dict[str, Any]
    last: dict[str, Any]


async def _until_all_follow(
    operator: Operator, journal: JournalReader, gateway: Child, request: ChildrenBenchRequest
) -> None:
    """Wait for every child, dispatch for the first time, and let them settle; raises ChildFailedError."""
    async with asyncio.timeout(READY_S):
        await operator.link.connected.wait()
    every = request.children + 1
    await journal.until(lambda: len(journal.present) == every or gateway.process.returncode is not None, READY_S)
    if len(journal.present) != every:
        came = f"{len(journal.present)} of {every} came up"
        raise ChildFailedError(came + gateway.last_words())
    await operator.dispatch()
    await asyncio.sleep(LEAST_SETTLE_S + request.children / SETTLED_PER_S)


async def _measured(
    operator: Operator,
    gateway: Child,
    children: Child,
    out: Path,
    request: ChildrenBenchRequest,
    progress: Callable[[str], None],
) -> _Span:
    """Signals for the measured time."""
    try:
        first, before = await _told(children, out), use_of(gateway.pid)
        await _regulate(operator, request.duration_s, progress)
        return _Span(before, use_of(gateway.pid), first, await _told(children, out))
    except (FileNotFoundError, ProcessLookupError):
        raise ChildFailedError(f"the gateway ended by itself{gateway.last_words()}") from None


async def _regulate(operator: Operator, duration_s: float, progress: Callable[[str], None]) -> None:
    """Signals at any phase of the parent's cycle, each far from the one before, and a market's interval halfway."""
    rng, began_s = random.Random(1), time.monotonic()
    dispatched = False
    for number in range(max(round(duration_s / SIGNAL_S), 1)):
        progress(f"signal {number + 1}")
        if not dispatched and time.monotonic() - began_s >= duration_s / 2.0:
            dispatched = True
            await operator.dispatch()
        jitter_s = 0.4 * SIGNAL_S * rng.random()
        await asyncio.sleep(jitter_s)
        await operator.signal(rng.uniform(0.4, 1.0) * (1.0 if number % 2 else -1.0))
        await asyncio.sleep(max(began_s + (number + 1) * SIGNAL_S - time.monotonic(), 0.0))


async def _told(children: Child, out: Path) -> dict[str, Any]:
    assert children.process.stdin is not None
    children.process.stdin.write(b"\n")
    await children.ready()
    told: dict[str, Any] = json.loads(await asyncio.to_thread(out.read_text))
    return told


def _summary(path: Path) -> dict[str, Any]:
    """The gateway's own last word; empty where it left none."""
    for line in reversed(path.read_text(errors="replace").splitlines()):
        event = json.loads(line)
        if event.get("event") == "summary":
            return dict(event)
    return {}


def _latencies(signals_s: Sequence[float], moved: Sequence[Sequence[float]], children: int) -> dict[str, Any]:
    """From a signal's publication to the first dispatch that moved each child, and to the last of all children's."""
    each, last = Figures(), Figures()
    times = [float(came_s) for came_s, _ in moved]
    ends = [*signals_s[1:], float("inf")]
    for begin_s, end_s in zip(signals_s, ends, strict=True):
        first: dict[int, float] = {}
        for came_s, at in moved[bisect_left(times, begin_s) : bisect_left(times, end_s)]:
            first.setdefault(int(at), came_s - begin_s)
        for latency_s in first.values():
            each.add(latency_s * 1e3)
        if len(first) == children:
            last.add(max(first.values()) * 1e3)
    return {
        "signals": len(signals_s),
        "reached_all": len(last),
        "latency_ms": each.summary(),
        "last_child_ms": last.summary(),
    }


def _rates(span: _Span) -> dict[str, float]:
    """Messages that the parent had to handle a second, of both directions."""
    seconds = span.after.at_s - span.before.at_s
    heard = {name: span.last["heard"].get(name, 0) - span.first["heard"].get(name, 0) for name in span.last["heard"]}
    rates = {f"{name}_out_per_s": round(number / seconds, 1) for name, number in heard.items() if number}
    return {"messages_in_per_s": round((span.last["published"] - span.first["published"]) / seconds, 1), **rates}
