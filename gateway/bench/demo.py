"""The demo: broker, twins, gateway and the operator's twin as processes of their own, watched, ended and reported."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from config.site import Site
from gateway.bench.children import Child, ChildFailedError
from gateway.bench.live import render
from gateway.bench.report import write_report
from gateway.bench.run_files import END_FILE
from gateway.bench.twins import TwinsProcess
from gateway.bench.watch import snapshots
from gateway.state_directory import SOCKET_NAME

OLD_FILES: Final = (
    "physics.csv",
    "gateway.jsonl",
    "gateway.1.jsonl",
    "dso.jsonl",
    "jitter.json",
    "orders.json",
    "endpoints.json",
    END_FILE,
    "report.json",
    "report.html",
)
HEADLESS_LINE_S: Final = 5.0
SCRIPT_OVERRUN_S: Final = 30.0
"""How much longer than its duration the script may take, until it is ended."""


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """What the command line asked for."""

    path: Path
    site: Site
    duration_s: float
    out: Path
    headless: bool
    broker: str | None


@dataclass(slots=True)
class _Demo:
    request: DemoRequest
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    interrupted: bool = False
    problems: list[str] = field(default_factory=list)

    def interrupt(self) -> None:
        self.interrupted = True
        self.stop.set()


async def run_demo(request: DemoRequest) -> int:
    """Run to the end or to Ctrl-C, then report: 0 if everything held, 1 if a check failed, 2 if it cannot run."""
    demo = _Demo(request)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, demo.interrupt)
    try:
        _prepare(request.out)
        await _run(demo)
        if demo.interrupted:
            demo.problems.append("interrupted before the end of the script")
        end = {"planned_s": request.duration_s, "problems": demo.problems}
        (request.out / END_FILE).write_text(json.dumps(end))
        await asyncio.to_thread(write_report, request.out, request.site)
    except ChildFailedError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"--out {request.out}: {error.strerror or error}\n")
        return 2
    for problem in demo.problems:
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(f"report: {request.out / 'report.html'}\n")
    return 1 if demo.problems else 0


def _prepare(out: Path) -> None:
    """An empty place for this run: what an earlier one left there by name is removed, nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    for name in OLD_FILES:
        (out / name).unlink(missing_ok=True)


async def _run(demo: _Demo) -> None:
    request = demo.request
    async with AsyncExitStack() as stack:
        twins = await TwinsProcess.start(
            request.path, (), "free", request.out, broker=request.broker, trace=request.out / "physics.csv"
        )
        stack.push_async_callback(twins.stop)
        broker = f"{twins.broker.host}:{twins.broker.port}"
        (request.out / "endpoints.json").write_text(json.dumps(twins.endpoints))
        bare_loop = await Child.start("bare loop", _bare_loop(request), request.out / "bare_loop.log")
        stack.push_async_callback(bare_loop.stop)
        gateway = await Child.start("gateway", _gateway(request, broker), request.out / "gateway.log")
        stack.push_async_callback(_stop_checked, demo, gateway)
        operator = await Child.start("operator", _operator(request, broker), request.out / "dso.log")
        stack.push_async_callback(operator.stop)
        await _watch_over(demo, [*twins.children, gateway], operator)


def _bare_loop(request: DemoRequest) -> list[str]:
    out = request.out / "jitter.json"
    seconds = request.duration_s + SCRIPT_OVERRUN_S
    period = str(request.site.control.period_ms)
    return ["gateway.bench.bare_loop", "--period-ms", period, "--seconds", str(seconds), "--out", str(out)]


def _gateway(request: DemoRequest, broker: str) -> list[str]:
    return [
        *("gateway", "run", str(request.path), "--twin", "all", "--broker", broker, "--trace", "--until-eof"),
        *("--state", str(request.out), "--addresses", str(request.out / "endpoints.json")),
    ]


def _operator(request: DemoRequest, broker: str) -> list[str]:
    parent = next(item for item in request.site.parents if item.dispatch)
    return [
        *("sim_devices.dso", "--broker", broker, "--layer", request.site.site, "--source", parent.name),
        *("--duration", str(request.duration_s), "--rating-w", str(request.site.connection.rating_w)),
        *("--heartbeat-timeout", str(parent.heartbeat_timeout_s), "--log", str(request.out / "dso.jsonl")),
        *("--until-eof", "--start-after-ready"),
    ]


async def _watch_over(demo: _Demo, lasting: list[Child], operator: Child) -> None:
    """Show the run until the operator's script ends, Ctrl-C, or a process ends that should not."""
    started_s = time.monotonic()
    ended: dict[asyncio.Task[int], Child] = {}
    for child in [*lasting, operator]:
        ended[asyncio.create_task(child.wait(), name=child.name)] = child
    stopped = asyncio.create_task(demo.stop.wait(), name="stop")
    view = asyncio.create_task(_view(demo), name="view")
    try:
        done, _ = await asyncio.wait(
            [*ended, stopped],
            return_when=asyncio.FIRST_COMPLETED,
            timeout=demo.request.duration_s + SCRIPT_OVERRUN_S,
        )
        if not done:
            demo.problems.append("the operator's script did not end")
        for task, child in ended.items():
            if task not in done:
                continue
            code = task.result()
            if child is not operator:
                demo.problems.append(f"{child.name} ended by itself with code {code}; see {child.log}")
            elif code not in (0, 1):
                demo.problems.append(f"the operator's process ended by itself with code {code}; see {child.log}")
            elif code:
                demo.problems.append("a check of the operator's failed; see the report and dso.jsonl")
            elif time.monotonic() - started_s < 0.9 * demo.request.duration_s:
                demo.problems.append("the operator's script was ended early")
    finally:
        tasks: list[asyncio.Task[Any]] = [view, stopped, *ended]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stop_checked(demo: _Demo, gateway: Child) -> None:
    code = await gateway.stop()
    if code:
        demo.problems.append(f"the gateway ended with code {code}; see {gateway.log}")


async def _view(demo: _Demo) -> None:
    """The live table, or a line every few seconds; comes back when the gateway comes back."""
    request = demo.request
    live = None if request.headless else Live(console=Console(), screen=True, auto_refresh=False)
    started_s, told_s = time.monotonic(), 0.0
    with live if live is not None else nullcontext():
        while True:
            with suppress(OSError):
                async with snapshots(request.out / SOCKET_NAME) as stream:
                    async for snapshot in stream:
                        elapsed_s = time.monotonic() - started_s
                        if live is not None:
                            live.update(render(snapshot), refresh=True)
                        elif elapsed_s - told_s >= HEADLESS_LINE_S:
                            told_s = elapsed_s
                            sys.stdout.write(_line(elapsed_s, request.duration_s, snapshot) + "\n")
                            sys.stdout.flush()
            await asyncio.sleep(0.1)


def _line(elapsed_s: float, duration_s: float, snapshot: dict[str, Any]) -> str:
    """The connection point in one line."""
    connection = snapshot["connection"]
    net_w, lower_w, upper_w = (connection.get(key) for key in ("net_w", "lower_w", "upper_w"))
    if net_w is None or lower_w is None or upper_w is None:
        return f"{elapsed_s:5.0f} of {duration_s:.0f} s  waiting for the meter"
    target_w = connection.get("target_w")
    aim = f", target {target_w / 1e3:+.1f} kW" if target_w is not None else ""
    return (
        f"{elapsed_s:5.0f} of {duration_s:.0f} s  net {net_w / 1e3:+6.1f} kW, allowed {lower_w / 1e3:+.1f} "
        f"to {upper_w / 1e3:+.1f} kW{aim}  {connection.get('binding') or 'free'}"
    )
