"""A bench in real time: broker, twins, faults, gateway and operator as processes of their own, watched and ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from config.site import Site
from gateway.bench.children import Child
from gateway.bench.fault_proxies import FaultProxies
from gateway.bench.run_directory import begin_run
from gateway.bench.run_files import END_FILE, JITTER_FILE
from gateway.bench.twins import TwinsProcess

SCRIPT_OVERRUN_S: Final = 30.0
"""How much longer than its duration the script may take, until it is ended."""


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What is run. `twins`: devices that are twins, empty for all; the others are real.

    `script`: the operator's, None for the shipped demo. `gateway_module` is run in place of `gateway`, with
    `gateway_options` before its own. `bare_loop`: an empty loop of the same period is measured beside.
    """

    path: Path
    site: Site
    out: Path
    duration_s: float
    broker: str | None = None
    twins: tuple[str, ...] = ()
    script: Path | None = None
    faults: bool = False
    seed: int = 1
    gateway_module: tuple[str, ...] = ("gateway",)
    gateway_options: tuple[str, ...] = ()
    bare_loop: bool = False


@dataclass(slots=True)
class Bench:
    """A bench that runs: its processes, and what went wrong with the run as such."""

    plan: BenchPlan
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    problems: list[str] = field(default_factory=list)
    twins_control: tuple[str, int] | None = None
    faults_control: tuple[str, int] | None = None
    gateway: Child | None = None
    gateway_away: bool = False
    run: str = ""
    _parent_broker: str = ""
    _gateway_changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def log(self) -> Path:
        """Where the operator writes what it sends and hears."""
        return self.plan.out / "dso.jsonl"

    # The gateway, which a scenario may end and start

    async def start_gateway(self) -> None:
        """Start the gateway; its messages go behind those of earlier ones."""
        plan = self.plan
        arguments = [
            *(*plan.gateway_module, "run", str(plan.path), "--broker", self._parent_broker, "--trace", "--until-eof"),
            *("--state", str(plan.out), "--addresses", str(plan.out / "endpoints.json")),
            *(item for name in plan.twins or ("all",) for item in ("--twin", name)),
            *plan.gateway_options,
        ]
        self.gateway = await Child.start("gateway", arguments, plan.out / "gateway.log", append=self.gateway_away)
        self.gateway_away = False
        self._gateway_changed.set()

    async def end_gateway(self, *, kill: bool = False) -> None:
        """Take the gateway away: orderly, or as by kill -9."""
        if self.gateway is None or self.gateway_away:
            return
        self.gateway_away = True
        self._gateway_changed.set()
        if kill:
            await self.gateway.kill()
        else:
            await self._stopped(self.gateway)

    async def _stopped(self, gateway: Child) -> None:
        code = await gateway.stop()
        if code:
            self.problems.append(f"the gateway ended with code {code}; see {gateway.log}")

    async def close_gateway(self) -> None:
        """End the gateway with the run."""
        if self.gateway is not None and not self.gateway_away:
            await self._stopped(self.gateway)

    def tell_end(self) -> None:
        """Write down what went wrong with the run as such."""
        end = {"run": self.run, "planned_s": self.plan.duration_s, "problems": self.problems}
        (self.plan.out / END_FILE).write_text(json.dumps(end))

    async def gateway_ended(self) -> int:
        """The exit code of a gateway that ended by itself."""
        while True:
            self._gateway_changed.clear()
            if self.gateway is None or self.gateway_away:
                await self._gateway_changed.wait()
                continue
            child = self.gateway
            code = await child.wait()
            if child is self.gateway and not self.gateway_away:
                return code


async def run_bench(
    bench: Bench,
    beside: Sequence[Callable[[Bench], Awaitable[None]]] = (),
    at_end: Callable[[Bench], Awaitable[None]] | None = None,
) -> None:
    """Run the operator's script against the site to its end, until `bench.stop`, or until a process ends by itself.

    `beside` runs with it; what it raises ends the run and is raised. `at_end` is awaited when it is over and everything
    still serves. Afterwards every process has ended and the run directory is complete. The caller holds the directory.
    Raises ChildFailedError for a process that does not come up.
    """
    plan = bench.plan
    bench.run = begin_run(plan.out, time.monotonic())
    async with AsyncExitStack() as stack:
        twins = await TwinsProcess.start(
            plan.path, plan.twins, "free", plan.out, broker=plan.broker, trace=plan.out / "physics.csv"
        )
        stack.push_async_callback(twins.stop)
        lasting = [*twins.children]
        endpoints: Mapping[str, Any] = twins.endpoints
        broker = f"{twins.broker.host}:{twins.broker.port}"
        (plan.out / "endpoints.json").write_text(json.dumps(endpoints))
        bench.twins_control = _address(endpoints["control"])
        bench._parent_broker = broker
        if plan.faults:
            faults = await _start_faults(bench, twins)
            stack.push_async_callback(faults.stop)
            lasting.append(faults)
        if plan.bare_loop:
            bare_loop = await Child.start("bare loop", _bare_loop(plan), plan.out / "bare_loop.log")
            stack.push_async_callback(bare_loop.stop)
        stack.push_async_callback(bench.close_gateway)
        await bench.start_gateway()
        operator = await Child.start("operator", _operator(plan, broker), plan.out / "dso.log")
        stack.push_async_callback(operator.stop)
        await _watch_over(bench, lasting, operator, beside)
        if at_end is not None:
            await at_end(bench)
    bench.tell_end()


async def _start_faults(bench: Bench, twins: TwinsProcess) -> Child:
    """Put proxies in front of every device and the broker; the gateway is given their addresses."""
    plan = bench.plan
    proxies = await FaultProxies.start(plan.path, twins.endpoints, twins.broker, plan.out, seed=plan.seed)
    said = proxies.endpoints
    given = json.dumps({"endpoints": said["endpoints"], "control": said["control"]})
    (plan.out / "endpoints.json").write_text(given)
    bench.faults_control = _address(said["faults"])
    if proxies.broker is not None:
        bench._parent_broker = f"{proxies.broker.host}:{proxies.broker.port}"
    return proxies.child


def _address(given: Mapping[str, Any]) -> tuple[str, int]:
    return given["host"], given["port"]


def _text(given: Any) -> str:
    if isinstance(given, str):
        return given
    host, port = (given["host"], given["port"]) if isinstance(given, Mapping) else given
    return f"{host}:{port}"


def _bare_loop(plan: BenchPlan) -> list[str]:
    seconds = plan.duration_s + SCRIPT_OVERRUN_S
    period = str(plan.site.control.period_ms)
    out = str(plan.out / JITTER_FILE)
    return ["gateway.bench.bare_loop", "--period-ms", period, "--seconds", str(seconds), "--out", out]


def _operator(plan: BenchPlan, broker: str) -> list[str]:
    parent = next(item for item in plan.site.parents if item.dispatch)
    script = [] if plan.script is None else ["--script", str(plan.script)]
    return [
        *("sim_devices.dso", "--broker", broker, "--layer", plan.site.site, "--source", parent.name),
        *("--duration", str(plan.duration_s), "--rating-w", str(plan.site.connection.rating_w)),
        *("--heartbeat-timeout", str(parent.heartbeat_timeout_s), "--log", str(plan.out / "dso.jsonl")),
        *("--until-eof", "--start-after-ready", *script),
    ]


async def _watch_over(
    bench: Bench, lasting: Sequence[Child], operator: Child, beside: Sequence[Callable[[Bench], Awaitable[None]]]
) -> None:
    """Wait until the operator's script ends, a stop, or a process ends that should not."""
    started_s = time.monotonic()
    ended: dict[asyncio.Task[int], Child] = {}
    for child in [*lasting, operator]:
        ended[asyncio.create_task(child.wait(), name=child.name)] = child
    gateway = asyncio.create_task(bench.gateway_ended(), name="gateway")
    stopped = asyncio.create_task(bench.stop.wait(), name="stop")
    others = [asyncio.create_task(_run_beside(bench, run), name="beside") for run in beside]
    tasks: list[asyncio.Task[Any]] = [*others, stopped, gateway, *ended]
    try:
        limit_s = started_s + bench.plan.duration_s + SCRIPT_OVERRUN_S
        await _first_end([gateway, stopped, *ended], others, limit_s)
        if not any(task.done() for task in (gateway, stopped, *ended)):
            bench.problems.append("the operator's script did not end")
        if gateway.done():
            log = bench.plan.out / "gateway.log"
            bench.problems.append(f"gateway ended by itself with code {gateway.result()}; see {log}")
        for task, child in ended.items():
            if task.done():
                bench.problems += _ending(bench, child, operator, task.result(), time.monotonic() - started_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_beside(bench: Bench, run: Callable[[Bench], Awaitable[None]]) -> None:
    await run(bench)


async def _first_end(
    watched: Sequence[asyncio.Task[Any]], others: Sequence[asyncio.Task[None]], limit_s: float
) -> None:
    """Return when one that is watched has ended, or at the limit; raise what one of the others raises."""
    waiting = {*watched, *others}
    while waiting:
        left_s = max(limit_s - time.monotonic(), 0.0)
        done, waiting = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return
        for task in done.intersection(others):
            task.result()
        if done.intersection(watched):
            return


def _ending(bench: Bench, child: Child, operator: Child, code: int, lasted_s: float) -> list[str]:
    """What there is to say of a process that has ended."""
    if child is not operator:
        return [f"{child.name} ended by itself with code {code}; see {child.log}"]
    if code not in (0, 1):
        return [f"the operator's process ended by itself with code {code}; see {child.log}"]
    if code:
        return [OPERATOR_FAILED]
    early = lasted_s < 0.9 * bench.plan.duration_s
    return ["the operator's script was ended early"] if early else []


OPERATOR_FAILED: Final = "a check of the operator's failed; see the report and dso.jsonl"
