"""The memory that the gateway's process holds, over a run in real time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from gateway.bench.realtime import Bench
from gateway.bench.run_files import MEMORY_FILE

LOOK_S: Final = 5.0
SETTLED_SHARE: Final = 0.1
"""The first tenth of a run is not counted: what is made once is made by then."""

LEAST_SLOPE_S: Final = 600.0
"""A slope over less is that of caches and buffers that fill, told as MB an hour."""


async def watch_memory(bench: Bench) -> None:
    """Write down the resident memory of the gateway until cancelled."""
    with (bench.plan.out / MEMORY_FILE).open("w", encoding="ascii") as file:
        file.write("monotonic_s,resident_mb\n")
        while True:
            resident_mb = None if bench.gateway is None or bench.gateway_away else _resident_mb(bench.gateway.pid)
            if resident_mb is not None:
                file.write(f"{time.monotonic():.3f},{resident_mb:.3f}\n")
                file.flush()
            await asyncio.sleep(LOOK_S)


def _resident_mb(pid: int) -> float | None:
    """What `/proc` says; None where the process has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) / 1024.0 for line in lines if line.startswith("VmRSS:")), None)


def memory_slope(out: Path) -> float | None:
    """MB an hour by which the resident memory grew, by least squares.

    None without a record of it, and where it was watched for less than `LEAST_SLOPE_S`.
    """
    try:
        lines = (out / MEMORY_FILE).read_text(encoding="ascii").splitlines()[1:]
        rows = [(float(at_s), float(mb)) for at_s, mb in (line.split(",") for line in lines)]
    except (OSError, ValueError):
        return None
    if not rows or rows[-1][0] - rows[0][0] < LEAST_SLOPE_S:
        return None
    rows = rows[int(SETTLED_SHARE * len(rows)) :]
    mean_s = sum(at_s for at_s, _ in rows) / len(rows)
    spread = sum((at_s - mean_s) ** 2 for at_s, _ in rows)
    return sum((at_s - mean_s) * mb for at_s, mb in rows) / spread * 3600.0 if spread else None
