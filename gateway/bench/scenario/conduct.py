"""Makes the happenings of a scenario happen in real time, beside the operator's script."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.bench.realtime import Bench
from gateway.bench.scenario.plan import Happening, Plan

LOOK_S: Final = 0.02
ANSWER_S: Final = 5.0


class HappeningFailedError(Exception):
    """A part of the bench did not do what the scenario says; the text is for the user."""


async def conduct(plan: Plan, bench: Bench) -> None:
    """Wait for the script's start, then do everything in its time."""
    zero_s = await _script_start(bench.log)
    for happening in plan.happenings:
        await asyncio.sleep(max(0.0, zero_s + happening.at_s - time.monotonic()))
        await _do(happening, bench)


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


async def _do(happening: Happening, bench: Bench) -> None:
    if happening.twins is not None:
        await _tell(bench.twins_control, {**happening.twins, "state": True}, happening.what)
    elif happening.fault is not None:
        await _tell(bench.faults_control, happening.fault, happening.what)
    match happening.gateway:
        case "restart":
            await bench.end_gateway()
            await bench.start_gateway()
        case "kill":
            await bench.end_gateway(kill=True)
        case "start":
            await bench.start_gateway()


async def _tell(address: tuple[str, int] | None, line: Mapping[str, Any], what: str) -> None:
    """Say a line to a control port and hear that it was taken."""
    if address is None:
        raise HappeningFailedError(f"{what}: nobody is there to do it")
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(*address, limit=1 << 20)
            try:
                writer.write(json.dumps(line).encode() + b"\n")
                answer = json.loads(await reader.readline() or b"{}")
            finally:
                writer.close()
    except (OSError, ValueError) as error:
        raise HappeningFailedError(f"{what}: {error}") from error
    if "error" in answer:
        raise HappeningFailedError(f"{what}: {answer['error']}")
