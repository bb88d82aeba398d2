"""An empty loop that ticks at a period: how late a machine wakes a process that has nothing to do.

Run beside a gateway, it gives the floor that the gateway's own jitter is compared with. It ends after its time, at
SIGTERM or SIGINT, or when its standard input is a pipe that closes, and writes the percentiles of what it has.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import stat
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import uvloop

from config.vocabulary import Clock
from gateway.bench.metrics import spread


async def tick(period_s: float, duration_s: float, jitter_ms: array[float], clock: Clock = time.monotonic) -> None:
    """Wake at every multiple of the period for `duration_s`, adding each tick's distance from its due time in ms.

    A tick that falls due while a late one is served is skipped.
    """
    start_s = clock()
    number = 1
    while number * period_s <= duration_s:
        due_s = start_s + number * period_s
        await asyncio.sleep(max(due_s - clock(), 0.0))
        now_s = clock()
        jitter_ms.append(abs(now_s - due_s) * 1000.0)
        number = max(number + 1, int((now_s - start_s) / period_s) + 1)


async def measure(period_s: float, duration_s: float) -> array[float]:
    """Tick until the time is over or the process is told to end; the jitter of every tick in ms."""
    jitter_ms: array[float] = array("d")
    ticking = asyncio.create_task(tick(period_s, duration_s, jitter_ms), name="bare loop")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ticking.cancel)
    watched = _watch_parent(loop, ticking.cancel)
    try:
        await asyncio.wait({ticking})
        if not ticking.cancelled():
            ticking.result()
    finally:
        if watched is not None:
            loop.remove_reader(watched)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return jitter_ms


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> int | None:
    """Call `stop` at the end of standard input where it is a pipe or socket; the watched descriptor."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return None

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop()

    loop.add_reader(descriptor, read)
    return descriptor


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the jitter of an empty loop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.bare_loop", description=main.__doc__)
    parser.add_argument("--period-ms", type=_positive, required=True)
    parser.add_argument("--seconds", type=_positive, required=True, help="how long at most")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for p50, p99 and max in ms")
    options = parser.parse_args(arguments)
    gc.freeze()
    jitter_ms = uvloop.run(measure(options.period_ms / 1000.0, options.seconds))
    partial = options.out.with_name(f".{options.out.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(asdict(spread(jitter_ms))) + "\n", encoding="utf-8")
        partial.replace(options.out)
    except OSError as error:
        sys.stderr.write(f"{options.out}: {error.strerror or error}\n")
        return 2
    return 0


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1e9:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main())
