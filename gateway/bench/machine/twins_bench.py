"""`gateway bench twins`: many Modbus twins of one process in real time, asked from another process.

Requests come spread evenly, and in bursts in which every twin is asked at once. The floor is servers of the same number
that answer as many registers with zeros, asked by the same client in alternating blocks of the same run.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from gateway.bench.children import Child, ChildFailedError
from gateway.bench.machine.even_client import Asked, EvenClient, SilentServerError
from gateway.cycle import percentile

BLOCKS: Final = 5
WARM_S: Final = 0.5
FLOOR_SHARE: Final = 0.4
BURST_EVERY_S: Final = 0.02
RATING_W: Final = 10_000.0
MEASUREMENTS: Final = (40_070, 60)
"""First register and number: the model behind the common one, which has the measurements (SunSpec)."""

READY_S: Final = 60.0
STATE_BYTES: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class TwinsBenchRequest:
    """`rate_per_s` over all twins together; `bursts` in each of the blocks."""

    devices: int
    rate_per_s: float
    duration_s: float
    bursts: int = 10


def bench_site(devices: int) -> dict[str, Any]:
    """A meter, and inverters and batteries in turn, as a site file says it; every port is a free one."""
    kinds: list[dict[str, Any]] = [
        {"profile": "sunspec_inverter"},
        {"profile": "sunspec_battery", "capacity_wh": 2.0 * RATING_W},
    ]
    meter: dict[str, Any] = {"profile": "sunspec_meter", "rating_w": devices * RATING_W}
    others = {f"device_{at}": {**kinds[at % 2], "rating_w": RATING_W} for at in range(1, devices)}
    named = {"meter": meter, **others}
    return {
        "site": "bench",
        "connection": {"rating_w": devices * RATING_W, "meter": "meter"},
        "fallback": {"net_import_w": "unlimited", "net_export_w": "unlimited"},
        "devices": {
            name: device | {"address": {"driver": "modbus_tcp", "host": "127.0.0.1", "port": 10_000 + at}}
            for at, (name, device) in enumerate(named.items())
        },
    }


async def run_twins_bench(request: TwinsBenchRequest, progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure in alternating blocks; the figures as the command prints them.

    Raises ChildFailedError where the twins or the floor's servers do not come up, or do not answer.
    """
    with TemporaryDirectory(prefix="lamina-bench-") as name:
        folder = Path(name)
        site = folder / "site.yaml"
        site.write_text(json.dumps(bench_site(request.devices)))
        children: list[Child] = []
        try:
            arguments = ["sim_devices.process", str(site), "--ports", "free", "--until-eof"]
            twins = await Child.start("twins", arguments, folder / "twins.log")
            children.append(twins)
            arguments = ["gateway.bench.machine.floor", "--devices", str(request.devices)]
            floor = await Child.start("floor", arguments, folder / "floor.log")
            children.append(floor)
            told = await twins.ready(READY_S)
            ports = (await floor.ready())["ports"]
            ours = [Asked(at["host"], at["port"], at["unit"], *MEASUREMENTS) for at in told["endpoints"].values()]
            bare = [Asked("127.0.0.1", port, 1, 0, MEASUREMENTS[1]) for port in ports]
            figures = await asyncio.to_thread(_measure, request, ours, bare, twins.pid, progress)
            return figures | {"lost_steps": await _lost_steps(**told["control"])}
        except (OSError, SilentServerError) as error:
            raise ChildFailedError(f"twins: {error}") from None
        finally:
            for child in reversed(children):
                await child.stop()


@dataclass(slots=True)
class _Figures:
    """Milliseconds of every answer, and of the last one of each burst."""

    even: list[float] = field(default_factory=list)
    burst: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def burst_of(self, client: EvenClient) -> None:
        answers = client.at_once()
        self.burst += answers
        self.whole.append(max(answers))


def _measure(
    request: TwinsBenchRequest,
    ours: Sequence[Asked],
    bare: Sequence[Asked],
    pid: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    block_s = request.duration_s / BLOCKS
    told, of_floor = _Figures(), _Figures()
    cpu_s = wall_s = 0.0
    with EvenClient(ours) as twins, EvenClient(bare) as floor:
        for client in (twins, floor):
            client.evenly(request.rate_per_s, WARM_S)
            client.late_ms.clear()
        for block in range(BLOCKS):
            progress(f"block {block + 1} of {BLOCKS}")
            of_floor.even += floor.evenly(request.rate_per_s, block_s * FLOOR_SHARE)
            cpu_0, wall_0 = _cpu_s(pid), time.perf_counter()
            told.even += twins.evenly(request.rate_per_s, block_s)
            cpu_s, wall_s = cpu_s + _cpu_s(pid) - cpu_0, wall_s + time.perf_counter() - wall_0
            for _ in range(request.bursts):
                of_floor.burst_of(floor)
                told.burst_of(twins)
                time.sleep(BURST_EVERY_S)
        late_ms = _three(twins.late_ms)
    response_ms, floor_ms = _three(told.even), _three(of_floor.even)
    return {
        "devices": request.devices,
        "rate_per_s": request.rate_per_s,
        "requests": len(told.even),
        "response_ms": response_ms,
        "floor_ms": floor_ms,
        "ratio_p50": round((response_ms["p50"] or 0.0) / (floor_ms["p50"] or 1.0), 3),
        "sent_late_ms": late_ms,
        "burst_ms": _three(told.burst),
        "burst_whole_ms": _three(told.whole),
        "floor_burst_whole_ms": _three(of_floor.whole),
        "twins_cpu_pct": round(100.0 * cpu_s / wall_s, 1),
        "load_average": round(os.getloadavg()[0], 2),
    }


async def _lost_steps(host: str, port: int) -> int:
    """Steps of the physics that the twins had to leave out."""
    async with asyncio.timeout(READY_S):
        reader, writer = await asyncio.open_connection(host, port, limit=STATE_BYTES)
        try:
            writer.write(b'{"state": true}\n')
            return int(json.loads(await reader.readline())["lost_steps"])
        finally:
            writer.close()


def _three(values: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(values)
    return {"p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99), "max": percentile(ordered, 1.0)}


def _cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
