"""A regulation signal every 4 s, scored at the top of three tiers against what it asked for there.

Every tier is a process of its own, with a real broker between them; this process is the operator. What the top's
connection did is the physics' word. Signal and response are averaged over the same 10 s before they are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from config.messages import AuthorityOrder, DispatchOrder, Down, Heartbeat, RegulationSignal, down_topic, up_topic
from config.site import MqttBroker
from config.strict import Strict
from gateway.bench.children import ChildFailedError
from gateway.bench.run_directory import prepare
from gateway.bench.run_files import read_run
from gateway.bench.scores import averaged, regulation_score
from gateway.bench.scores.regulation import AVERAGE_S
from gateway.bench.tiers.demo import TiersRequest, TiersRun, all_measure, shipped_tiers, start_tiers
from sim_devices.dso.link import BrokerLink
from sim_devices.dso.script import load_signal

OPERATOR: Final = "dso"
SERIES: Final = "regulation_3h_2s.csv"
SERIES_STEP_S: Final = 2.0
FIRST_ROW: Final = 193
EPOCH: Final = 1
HEARTBEAT_S: Final = 1.0
SIGNAL_S: Final = 4.0
LOST_AFTER_S: Final = 12.0
SETTLE_S: Final = 10.0
"""Until the base is reached, before the first signal."""

CAPACITY_PU: Final = 0.15
REACH: Final = 0.92


@dataclass
class Regulating:
    """The operator: takes authority, dispatches a base with capacity around it, and signals. All of one connection."""

    link: BrokerLink
    layer: str
    capacity_w: float
    told: list[tuple[float, float]] = field(default_factory=list)
    _sequence: int = field(default_factory=lambda: int(time.time()))

    async def beat(self) -> None:
        """Heartbeats until cancelled."""
        await self.link.connected.wait()
        while True:
            self._sequence += 1
            await self._publish(Down.HEARTBEAT, Heartbeat(sequence=self._sequence, issued_at=datetime.now(UTC)), 0)
            await asyncio.sleep(HEARTBEAT_S)

    async def begin(self) -> None:
        """Authority, and a base of nothing with capacity to either side."""
        now = datetime.now(UTC)
        await self._publish(Down.AUTHORITY, AuthorityOrder(id="r-a", issued_at=now, parent=OPERATOR, epoch=EPOCH), 1)
        order = DispatchOrder(
            id="r-d",
            issued_at=now,
            epoch=EPOCH,
            net_power_w=0.0,
            regulation_up_w=self.capacity_w,
            regulation_down_w=self.capacity_w,
        )
        await self._publish(Down.DISPATCH, order, 1)

    async def signals(self, values: Sequence[float]) -> None:
        """One each `SIGNAL_S`; what each asked for is kept with its time."""
        begin_s = time.monotonic()
        for number, value in enumerate(values):
            self._sequence += 1
            message = RegulationSignal(
                epoch=EPOCH,
                sequence=self._sequence,
                issued_at=datetime.now(UTC),
                signal=value,
                lost_after_s=LOST_AFTER_S,
            )
            self.told.append((time.monotonic(), -value * self.capacity_w))
            await self._publish(Down.REGULATION, message, 0)
            await asyncio.sleep(max(begin_s + (number + 1) * SIGNAL_S - time.monotonic(), 0.0))

    async def _publish(self, kind: Down, message: Strict, qos: int) -> None:
        payload = message.model_dump_json(exclude_none=True).encode()
        await self.link.publish(down_topic(self.layer, OPERATOR, kind), payload, qos)


async def measure(duration_s: float, out: Path) -> dict[str, Any]:
    """The figures of a run into `out`; raises ChildFailedError where a process does not come up."""
    async with AsyncExitStack() as stack:
        run = TiersRun(TiersRequest(0.0, out, headless=True), shipped_tiers())
        for tier in run.tiers:
            prepare(run.folder(tier))
        top = run.tiers[0]
        broker = await start_tiers(run, stack)
        await all_measure(run)
        host, _, port = broker.rpartition(":")
        link = BrokerLink(
            MqttBroker(host=host, port=int(port)),
            up_topic(top.name, OPERATOR, "+"),
            identifier="tiers-operator",
            on_message=lambda _: None,
            on_state=lambda _, __: None,
        )
        operator = Regulating(link, top.name, CAPACITY_PU * top.site.connection.rating_w)
        for each, name in ((link.run(), "operator's link"), (operator.beat(), "operator's heartbeat")):
            stack.push_async_callback(_ended, asyncio.create_task(each, name=name))
        async with asyncio.timeout(SETTLE_S):
            await link.connected.wait()
        # The fallback ends with the first heartbeat.
        await asyncio.sleep(HEARTBEAT_S)
        await operator.begin()
        await asyncio.sleep(SETTLE_S)
        every = round(SIGNAL_S / SERIES_STEP_S)
        rows = load_signal(SERIES)[FIRST_ROW::every][: max(round(duration_s / SIGNAL_S), 1)]
        await operator.signals(rows)
        end_s = time.monotonic()
        for child in run.lasting:
            if child.process.returncode is not None:
                raise ChildFailedError(f"{child.name} ended by itself{child.last_words()}")
    recorded = read_run(out / top.name).physics
    return scored(operator.told, end_s, recorded.times, recorded.column("net_w") or ()) | {"problems": run.problems}


def scored(
    told: Sequence[tuple[float, float]], end_s: float, times: Sequence[float], net_w: Sequence[float]
) -> dict[str, Any]:
    """What was asked of the connection, base 0, from each time on, against what it did until `end_s`."""
    begins = [at_s for at_s, _ in told]
    seen = [(now, power) for now, power in zip(times, net_w, strict=True) if begins[0] <= now <= end_s]
    asked_w = [told[bisect_right(begins, now) - 1][1] for now, _ in seen]
    at_s, done_w = [now for now, _ in seen], [power for _, power in seen]
    windows = (averaged(at_s, each, at_s[0], at_s[-1], AVERAGE_S) for each in (asked_w, done_w)) if seen else ((), ())
    pairs = [(a, d) for a, d in zip(*windows, strict=True) if a is not None and d is not None]
    whole_w = sum(abs(asked) for asked, _ in pairs)
    score = regulation_score(at_s, asked_w, done_w)
    precision = 1.0 - sum(abs(asked - done) for asked, done in pairs) / whole_w if whole_w else None
    return {
        "signals": len(told),
        "windows": len(pairs),
        "mean_asked_w": round(whole_w / len(pairs), 1) if pairs else None,
        "precision": None if precision is None else round(precision, 4),
        "score": None if score is None else round(score.score, 4),
        "reached": precision is not None and precision >= REACH,
    }


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures as one JSON object; returns the exit code: 0 reached, 1 not reached, 2 it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.tiers.regulation", description=__doc__)
    parser.add_argument("--duration", type=float, default=240.0, help="seconds; the score needs more than 600")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="lamina-tiers-") as folder:
        try:
            figures = asyncio.run(measure(options.duration, options.out or Path(folder)))
        except (ChildFailedError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            return 2
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["reached"] else 1


if __name__ == "__main__":
    sys.exit(main())
