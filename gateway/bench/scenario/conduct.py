"""Makes the happenings of a scenario happen in real time, beside the operator's script."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.bench.realtime import Bench
from gateway.bench.scenario.control_line import HappeningFailedError, tell
from gateway.bench.scenario.fault_log import FaultLog
from gateway.bench.scenario.plan import Happening, Plan

LOOK_S: Final = 0.02


async def conduct(plan: Plan, log: FaultLog, bench: Bench) -> None:
    """Wait for the script's start, then do everything in its time; `log` is told which faults were set."""
    zero_s = await _script_start(bench.log)
    for happening in plan.happenings:
        await asyncio.sleep(max(0.0, zero_s + happening.at_s - time.monotonic()))
        await _do(happening, bench, log)


def look_at_faults(log: FaultLog) -> Callable[[Bench], Awaitable[None]]:
    """At the end of a bench: hear what the proxies have done."""

    async def look(bench: Bench) -> None:
        # Without an answer nothing is known of what they did, which the judge says.
        with suppress(HappeningFailedError):
            await _hear(bench, log)

    return look


async def _script_start(log: Path) -> float:
    """The monotonic time at which the operator's script began."""
    while True:
        found = script_start(log)
        if found is not None:
            return found
        await asyncio.sleep(LOOK_S)


def script_start(log: Path) -> float | None:
    """When the operator's first phase began, by its own log; None where it has not."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError:
        return None
    for line in lines:
        if line.endswith("\n") and '"phase"' in line:
            said = json.loads(line)
            if said.get("event") == "phase":
                return float(said["monotonic_s"])
    return None


async def _do(happening: Happening, bench: Bench, log: FaultLog) -> None:
    if happening.twins is not None:
        await tell(bench.twins_control, {**happening.twins, "state": True}, happening.what)
    elif happening.fault is not None:
        if "clear" in happening.fault:
            await _hear(bench, log)
        log.set(happening, await tell(bench.faults_control, happening.fault, happening.what))
    match happening.gateway:
        case "restart":
            await bench.end_gateway()
            await bench.start_gateway()
        case "kill":
            await bench.end_gateway(kill=True)
        case "start":
            await bench.start_gateway()


async def _hear(bench: Bench, log: FaultLog) -> None:
    """Ask the proxies what their faults have done."""
    if bench.faults_control is not None:
        log.hear(await tell(bench.faults_control, {"status": True}, "status of the faults"))
