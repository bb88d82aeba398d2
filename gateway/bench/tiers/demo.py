"""The demo of three tiers: an operator above a microgrid above buildings above devices, each tier a process of its own.

What is asked at the top is kept at the top's connection point by devices two tiers below; a broker is all that the
tiers have in common.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from config.loading import load_site, shipped_sites
from config.site import ChildLayer, Site
from gateway.bench.broker import start_broker
from gateway.bench.children import Child, ChildFailedError
from gateway.bench.live import render
from gateway.bench.realtime import SCRIPT_OVERRUN_S
from gateway.bench.run_directory import held_run_directory, prepare
from gateway.bench.tiers.report import write_tiers_report
from gateway.bench.watch import snapshots
from gateway.state_directory import SOCKET_NAME

TOP: Final = "tiers_microgrid"
SCRIPT: Final = "tiers_orders.yaml"
HEADLESS_LINE_S: Final = 5.0
READY_S: Final = 40.0
LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class TiersRequest:
    """What the command line asked for; `broker` None: one starts."""

    duration_s: float
    out: Path
    headless: bool
    broker: str | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """One site of the example: how far it is below the top, its file, and its site."""

    depth: int
    path: Path
    site: Site

    @property
    def name(self) -> str:
        return self.site.site


@dataclass(slots=True)
class TiersRun:
    """A run: its tiers from the top downward, its processes, and what went wrong with it as such."""

    request: TiersRequest
    tiers: Sequence[Tier]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    problems: list[str] = field(default_factory=list)
    lasting: list[Child] = field(default_factory=list)
    newest: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def folder(self, tier: Tier) -> Path:
        """Where everything of one tier is written."""
        return self.request.out / tier.name


def shipped_tiers(top: str = TOP) -> list[Tier]:
    """The example's sites: the top, then those below it by their layers' names, to any depth."""
    paths = shipped_sites()
    found = [Tier(0, paths[top], load_site(paths[top]))]
    for tier in found:
        for device in tier.site.devices.values():
            if isinstance(device.address, ChildLayer):
                path = paths[device.address.layer]
                found.append(Tier(tier.depth + 1, path, load_site(path)))
    return found


async def run_tiers_demo(request: TiersRequest) -> int:
    """Run to the end or to Ctrl-C, then report: 0 if everything held, 1 if a check failed, 2 if it cannot run."""
    run = TiersRun(request, shipped_tiers())
    _stop_at_signals(run)
    try:
        with held_run_directory(request.out):
            for tier in run.tiers:
                prepare(run.folder(tier))
            await _play(run)
            broken = await asyncio.to_thread(write_tiers_report, request.out, [(t.depth, t.site) for t in run.tiers])
    except ChildFailedError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"--out {request.out}: {error.strerror or error}\n")
        return 2
    for problem in (*run.problems, *broken):
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(f"report: {request.out / 'report.html'}\n")
    return 1 if run.problems or broken else 0


def _stop_at_signals(run: TiersRun) -> None:
    def interrupt() -> None:
        if not run.stop.is_set():
            run.problems.append("interrupted before the end of the script")
        run.stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, interrupt)


async def _play(run: TiersRun) -> None:
    """Start everything from the bottom upward, play the operator's script, and end everything."""
    out, duration_s = run.request.out, run.request.duration_s
    async with AsyncExitStack() as stack:
        broker = await start_tiers(run, stack)
        await all_measure(run)
        top = run.tiers[0]
        operator = await Child.start("operator", _operator(top, broker, run.folder(top), duration_s), out / "dso.log")
        stack.push_async_callback(operator.stop)
        await _watch_over(run, operator)
    for tier in run.tiers:
        end = {"planned_s": duration_s, "problems": run.problems}
        (run.folder(tier) / "end.json").write_text(json.dumps(end))


async def start_tiers(run: TiersRun, stack: AsyncExitStack) -> str:
    """Broker, twins and gateways, each tier after those below it; where the broker is. Raises ChildFailedError."""
    broker = run.request.broker or await _broker(run, stack)
    await _start_twins(run, stack, broker)
    for tier in reversed(run.tiers):
        await _start_gateway(run, stack, tier, broker)
    return broker


async def _broker(run: TiersRun, stack: AsyncExitStack) -> str:
    broker = await start_broker(run.request.out)
    stack.push_async_callback(broker.child.stop)
    run.lasting.append(broker.child)
    return f"{broker.address.host}:{broker.address.port}"


async def _start_twins(run: TiersRun, stack: AsyncExitStack, broker: str) -> None:
    """The twins of all sites in one process; each gateway is told where its own are."""
    out = run.request.out
    arguments = ["sim_devices.tiers", *(str(tier.path) for tier in run.tiers), "--mqtt", broker, "--until-eof"]
    twins = await Child.start("twins", [*arguments, "--traces", str(out)], out / "twins.log")
    stack.push_async_callback(twins.stop)
    run.lasting.append(twins)
    said = (await twins.ready(READY_S))["sites"]
    for tier in run.tiers:
        # Without the way into the physics: what the children draw is summed there already.
        endpoints = {"endpoints": said[tier.name]["endpoints"]}
        (run.folder(tier) / "endpoints.json").write_text(json.dumps(endpoints))


async def _start_gateway(run: TiersRun, stack: AsyncExitStack, tier: Tier, broker: str) -> None:
    folder = run.folder(tier)
    arguments = [
        *("gateway", "run", str(tier.path), "--broker", broker, "--trace", "--until-eof", "--twin", "all"),
        # The children are no twins; theirs are.
        *("--state", str(folder), "--addresses", str(folder / "endpoints.json"), "--allow-real-writes"),
    ]
    child = await Child.start(f"gateway of {tier.name}", arguments, folder / "gateway.log")
    stack.push_async_callback(child.stop)
    run.lasting.append(child)


def _operator(top: Tier, broker: str, folder: Path, duration_s: float) -> list[str]:
    parent = next(item for item in top.site.parents if item.dispatch)
    script = next(path for path in shipped_scripts() if path.name == SCRIPT)
    return [
        *("sim_devices.dso", "--broker", broker, "--layer", top.name, "--source", parent.name),
        *("--duration", str(duration_s), "--rating-w", str(top.site.connection.rating_w)),
        *("--heartbeat-timeout", str(parent.heartbeat_timeout_s), "--log", str(folder / "dso.jsonl")),
        *("--until-eof", "--start-after-ready", "--script", str(script)),
    ]


def shipped_scripts() -> list[Path]:
    """The operators' scripts that come with Lamina."""
    folder = shipped_sites()[TOP].parent.parent / "scripts"
    return sorted(folder.glob("*_orders.yaml"))


async def all_measure(run: TiersRun) -> None:
    """Wait until each gateway has a good meter and the top has heard its children; a bound, not a condition."""

    async def measured(tier: Tier) -> None:
        while True:
            with suppress(OSError):
                async with snapshots(run.folder(tier) / SOCKET_NAME, LOOK_S) as stream:
                    async for snapshot in stream:
                        known = [device["power_w"] is not None for device in snapshot["devices"]]
                        if snapshot["connection"].get("net_w") is not None and known and all(known):
                            return
            await asyncio.sleep(LOOK_S)

    async def all_measured() -> None:
        await asyncio.gather(*(measured(tier) for tier in run.tiers))

    ended = _waits(run.lasting)
    waiting = asyncio.create_task(all_measured(), name="all measure")
    try:
        await asyncio.wait((waiting, *ended), timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        for task, child in ended.items():
            if task.done():
                raise ChildFailedError(f"{child.name} ended with code {task.result()}{child.last_words()}")
        if not waiting.done():
            run.problems.append(f"not every device was heard within {READY_S:g} s")
    finally:
        waiting.cancel()
        for task in ended:
            task.cancel()
        await asyncio.gather(waiting, *ended, return_exceptions=True)


def _waits(children: Sequence[Child]) -> dict[asyncio.Task[int], Child]:
    return {asyncio.create_task(child.wait(), name=child.name): child for child in children}


async def _watch_over(run: TiersRun, operator: Child) -> None:
    """Wait until the script ends, a stop, or a process ends that should not."""
    ended = _waits([*run.lasting, operator])
    stopped = asyncio.create_task(run.stop.wait(), name="stop")
    watched: list[asyncio.Task[Any]] = [stopped, *ended]
    views = [asyncio.create_task(_follow(run, tier), name=f"view {tier.name}") for tier in run.tiers]
    views.append(asyncio.create_task(_view(run), name="view"))
    try:
        limit_s = run.request.duration_s + READY_S + SCRIPT_OVERRUN_S
        done, _ = await asyncio.wait(watched, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            run.problems.append("the operator's script did not end")
        for task, child in ended.items():
            if task.done() and not run.stop.is_set():
                run.problems += _ending(child, operator, task.result())
    finally:
        for each in (*watched, *views):
            each.cancel()
        await asyncio.gather(*watched, *views, return_exceptions=True)


def _ending(child: Child, operator: Child, code: int) -> list[str]:
    if child is not operator or code not in (0, 1):
        return [f"{child.name} ended by itself with code {code}; see {child.log}"]
    return ["a check of the operator's failed; see dso.jsonl of the top"] if code else []


async def _follow(run: TiersRun, tier: Tier) -> None:
    """Keep the newest snapshot of one tier."""
    while True:
        with suppress(OSError):
            async with snapshots(run.folder(tier) / SOCKET_NAME) as stream:
                async for snapshot in stream:
                    run.newest[tier.name] = snapshot
        await asyncio.sleep(LOOK_S)


async def _view(run: TiersRun) -> None:
    """The top's live table with a line for each tier below, or those lines alone every few seconds."""
    live = None if run.request.headless else Live(console=Console(), screen=True, auto_refresh=False)
    started_s, told_s = time.monotonic(), 0.0
    with live if live is not None else nullcontext():
        while True:
            elapsed_s = time.monotonic() - started_s
            if live is not None:
                live.update(tiers_screen(run.tiers, run.newest), refresh=True)
            elif elapsed_s - told_s >= HEADLESS_LINE_S:
                told_s = elapsed_s
                sys.stdout.write(f"{elapsed_s:5.0f} of {run.request.duration_s:.0f} s\n")
                sys.stdout.writelines(f"  {line}\n" for line in tier_lines(run.tiers, run.newest))
                sys.stdout.flush()
            await asyncio.sleep(0.25)


def tiers_screen(tiers: Sequence[Tier], newest: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """The tiers below in a line each, above the top's own table."""
    lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in tier_lines(tiers, newest)]
    top = newest.get(tiers[0].name)
    return Group(*lines[1:], render(top)) if top is not None else Group(*lines)


def tier_lines(tiers: Sequence[Tier], newest: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each tier's connection point in one line."""
    return [f"{'  ' * tier.depth}{tier.name:<20} {_line(newest.get(tier.name, {}))}" for tier in tiers]


def _line(snapshot: Mapping[str, Any]) -> str:
    connection = snapshot.get("connection", {})
    net_w, lower_w, upper_w = (connection.get(key) for key in ("net_w", "lower_w", "upper_w"))
    if net_w is None or lower_w is None or upper_w is None:
        return "waiting for the meter"
    target_w = connection.get("target_w")
    aim = f", asked for {target_w / 1e3:+.1f}" if target_w is not None else ""
    return f"net {net_w / 1e3:+6.1f} kW, allowed {lower_w / 1e3:+.1f} to {upper_w / 1e3:+.1f}{aim}"
