"""From a dispatch published at the top to the registers of the devices two tiers below, over the shipped example.

Every tier is a process of its own, with a real broker between them; this process is the operator. All share the host's
monotonic clock: the publication is timed here, the last acknowledged register stands in each building's journal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from config.messages import AuthorityOrder, DispatchOrder, Down, Heartbeat, down_topic, up_topic
from config.site import MqttBroker
from config.strict import Strict
from gateway.bench.children import ChildFailedError
from gateway.bench.run_directory import prepare
from gateway.bench.run_files import read_events
from gateway.bench.tiers.demo import TiersRequest, TiersRun, all_measure, shipped_tiers, start_tiers
from gateway.cycle import Figures
from sim_devices.dso.link import BrokerLink

OPERATOR: Final = "dso"
EPOCH: Final = 1
WARM_UP: Final = 3
HEARTBEAT_S: Final = 1.0
LEAST_PAUSE_S: Final = 0.6
"""Longer than what follows a dispatch: the feedback's own corrections are other dispatches."""

LATEST_S: Final = 0.5
SETTLE_S: Final = 5.0


async def measure(dispatches: int) -> dict[str, Any]:
    """The figures in milliseconds; raises ChildFailedError where a process does not come up."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="lamina-tiers-")))
        run = TiersRun(TiersRequest(0.0, folder, headless=True), shipped_tiers())
        for tier in run.tiers:
            prepare(run.folder(tier))
        broker = await start_tiers(run, stack)
        await all_measure(run)
        published = await _operate(run.tiers[0].name, run.tiers[0].site.connection.rating_w, broker, dispatches)
        await asyncio.sleep(LATEST_S)
        written = {
            tier.name: [
                (event.number("received_s") or 0.0, event.number("written_s") or 0.0)
                for event in read_events(run.folder(tier) / "gateway.jsonl")
                if event.name == "written"
            ]
            for tier in run.tiers
        }
        depths = {tier.name: tier.depth for tier in run.tiers}
    return _figures(published[WARM_UP:], written, depths)


async def _operate(layer: str, rating_w: float, broker: str, dispatches: int) -> list[float]:
    """Take authority, beat, and publish dispatches at any phase of the cycles; when each was published."""
    host, _, port = broker.rpartition(":")
    link = BrokerLink(
        MqttBroker(host=host, port=int(port)),
        up_topic(layer, OPERATOR, "+"),
        identifier="tiers-operator",
        on_message=lambda _: None,
        on_state=lambda _, __: None,
    )

    async def publish(kind: Down, message: Strict, qos: int) -> None:
        payload = message.model_dump_json(exclude_none=True).encode()
        await link.publish(down_topic(layer, OPERATOR, kind), payload, qos)

    async def beat() -> None:
        count = 0
        while True:
            count += 1
            await publish(Down.HEARTBEAT, Heartbeat(sequence=count, issued_at=datetime.now(UTC)), 0)
            await asyncio.sleep(HEARTBEAT_S)

    rng, published = random.Random(dispatches), []
    running = [asyncio.create_task(link.run(), name="operator's link")]
    try:
        async with asyncio.timeout(SETTLE_S):
            await link.connected.wait()
        running.append(asyncio.create_task(beat(), name="operator's heartbeat"))
        authority = AuthorityOrder(id="tiers-a", issued_at=datetime.now(UTC), parent=OPERATOR, epoch=EPOCH)
        await publish(Down.AUTHORITY, authority, 1)
        await asyncio.sleep(SETTLE_S)
        for number in range(WARM_UP + dispatches):
            net_w = (0.15 if number % 2 else -0.15) * rating_w * (0.8 + 0.4 * rng.random())
            now = datetime.now(UTC)
            order = DispatchOrder(id=f"tiers-{number}", issued_at=now, epoch=EPOCH, net_power_w=net_w)
            published.append(time.monotonic())
            await publish(Down.DISPATCH, order, 1)
            await asyncio.sleep(LEAST_PAUSE_S + 0.1 * rng.random())
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return published


def _figures(
    published: Sequence[float], written: dict[str, list[tuple[float, float]]], depths: dict[str, int]
) -> dict[str, Any]:
    """Per tier, until the last site of that depth has answered the first dispatch it got after each publication."""
    figures: dict[int, Figures] = {}
    for depth in sorted(set(depths.values())):
        figures[depth] = Figures()
        sites = [name for name in depths if depths[name] == depth]
        for start_s, next_s in pairwise((*published, published[-1] + LATEST_S)):
            ends = [
                next((done_s for heard_s, done_s in written[name] if start_s <= heard_s < next_s), None)
                for name in sites
            ]
            last_s = max((end_s for end_s in ends if end_s is not None), default=None)
            if last_s is not None and None not in ends:
                figures[depth].add((last_s - start_s) * 1e3)
    return {
        "dispatches": len(published),
        "registers_ms": {
            f"tier_{depth}": {"measured": len(found), **found.summary()} for depth, found in figures.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures as one JSON object; returns the exit code: 0 done, 2 it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.tiers.dispatch", description=__doc__)
    parser.add_argument("--dispatches", type=int, default=50)
    options = parser.parse_args(arguments)
    try:
        figures = asyncio.run(measure(options.dispatches))
    except (ChildFailedError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
