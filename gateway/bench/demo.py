"""The demo: a site with all its twins in real time, an operator's script, a live table, a report."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live

from config.site import Site
from gateway.bench.broker_probe import BrokerSilentError, probe_broker
from gateway.bench.children import ChildFailedError
from gateway.bench.live import render
from gateway.bench.realtime import Bench, BenchPlan, run_bench
from gateway.bench.reports.page import verdict_words
from gateway.bench.reports.report import write_report
from gateway.bench.run_directory import held_run_directory, prepare
from gateway.bench.watch import snapshots
from gateway.state_directory import SOCKET_NAME

HEADLESS_LINE_S: Final = 5.0
INTERRUPTED: Final = "interrupted before the end of"


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """What the command line asked for."""

    path: Path
    site: Site
    duration_s: float
    out: Path
    headless: bool
    broker: str | None


async def run_demo(request: DemoRequest) -> int:
    """Run to the end or to Ctrl-C, then report: 0 if everything held, 1 if a check failed, 2 if it cannot run.

    A limit that was broken, or a run whose power nobody recorded, is a failed check as well.
    """
    plan = BenchPlan(request.path, request.site, request.out, request.duration_s, broker=request.broker, bare_loop=True)
    bench = Bench(plan)
    stop_at_signals(bench, "the script")
    try:
        await probe_broker(request.broker)
        with held_run_directory(request.out):
            prepare(request.out)
            await run_bench(bench, [partial(_view, request)])
            report = await asyncio.to_thread(write_report, request.out, request.site)
    except (ChildFailedError, BrokerSilentError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"--out {request.out}: {error.strerror or error}\n")
        return 2
    words = verdict_words(report)
    for problem in bench.problems:
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(f"{words.said} {words.more}".rstrip() + f"\nreport: {request.out / 'report.html'}\n")
    return 1 if bench.problems or not words.kept else 0


def stop_at_signals(bench: Bench, what: str) -> None:
    """End the bench at SIGTERM and SIGINT, and say so."""

    def interrupt() -> None:
        if not bench.stop.is_set():
            bench.problems.append(f"{INTERRUPTED} {what}")
        bench.stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, interrupt)


async def _view(request: DemoRequest, _: Bench) -> None:
    """The live table, or a line every few seconds; comes back when the gateway comes back."""
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
