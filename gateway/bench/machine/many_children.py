"""A thousand layers below, as messages: each says and answers what a gateway does, and has a power and nothing else.

A process of its own that speaks over the broker alone. For each line on its standard input it writes what it has heard,
with the host's monotonic time, to the file that it was given, and says so; it ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

from config.messages import Down, Up, down_topic, up_topic
from gateway.bench.machine.plain_mqtt import PlainMqtt

SOURCE: Final = "parent"
METER_TOPIC: Final = "bench/meter/power"
RATING_W: Final = 10_000.0
STEP_S: Final = 0.01
TELEMETRY_S: Final = 1.0
OFFER_S: Final = 60.0
HEARTBEAT_S: Final = 20.0
METER_S: Final = 0.25
RESPONSE_S: Final = 0.2
INTERVAL_S: Final = 300.0
INTERVALS: Final = 12
A_CONNECTION: Final = 20
"""Children that share a connection: a broker holds only so many messages for one."""

MOVED_PU: Final = 0.02
"""A dispatch that moves a child by this much of its rating is one of those that a signal caused."""

CURVE: Final = tuple({"price_per_kwh": 0.05 * at, "power_w": 8000.0 - 2000.0 * at} for at in range(9))


def child_name(at: int) -> str:
    """The layer's name."""
    return f"child_{at}"


def _stamp(now: datetime) -> str:
    return now.isoformat().replace("+00:00", "Z")


@dataclass(slots=True)
class SimulatedChild:
    """One layer: its present power, and the dispatch that it follows."""

    at: int
    mqtt: PlainMqtt
    power_w: float = 0.0
    asked_w: float = 0.0
    order_id: str | None = None
    epoch: int | None = None
    moves_at_s: float = float("inf")
    topics: dict[Up, str] = field(init=False)

    def __post_init__(self) -> None:
        self.topics = {kind: up_topic(child_name(self.at), SOURCE, kind) for kind in Up}

    def telemetry(self, now: datetime) -> bytes:
        """As docs/layer_interface.md has it."""
        stamp = _stamp(now)
        order = "null" if self.order_id is None else f'"{self.order_id}"'
        return (
            f'{{"issued_at":"{stamp}","measured_at":"{stamp}","net_power_w":{self.power_w:.1f},'
            '"energy_import_wh":1250400.0,"energy_export_wh":310020.0,"voltage_v":231.4,"frequency_hz":49.98,'
            f'"connection":"connected","quality":"good","regulation_sequence":null,"dispatch_id":{order},'
            '"compliance":{"state":"compliant","reason":""}}'
        ).encode()

    @staticmethod
    def acknowledgement(order_id: str, kind: Down, status: str, now: datetime) -> bytes:
        """Accepted or superseded."""
        return (
            f'{{"order_id":"{order_id}","kind":"{kind}","status":"{status}","reason":"",'
            f'"issued_at":"{_stamp(now)}","result":null}}'
        ).encode()

    def offer(self, number: int, now: datetime) -> bytes:
        """The same curve for each of an hour's intervals, the present one first."""
        begin = datetime.fromtimestamp(now.timestamp() // INTERVAL_S * INTERVAL_S, UTC)
        intervals = [
            {
                "start": _stamp(begin + timedelta(seconds=INTERVAL_S * at)),
                "duration_s": INTERVAL_S,
                "curve": CURVE,
                "lower_w": -8000.0,
                "upper_w": 8000.0,
                "energy_up_wh": 10_000.0,
                "energy_down_wh": 10_000.0,
            }
            for at in range(INTERVALS)
        ]
        whole = {
            "id": f"offer-{self.at}-{number}",
            "issued_at": _stamp(now),
            "expires_at": _stamp(begin + timedelta(seconds=INTERVAL_S * INTERVALS)),
            "intervals": intervals,
            "response_s": 0.2,
            "power_step_w": 100.0,
            "price_step_per_kwh": 0.05,
            "error_bound_w": 50.0,
        }
        return json.dumps(whole).encode()


@dataclass(slots=True)
class ManyChildren:
    """All of them. `moved` has each dispatch that moved a child: when it came, and which."""

    connections: list[PlainMqtt]
    children: list[SimulatedChild]
    moved: list[tuple[float, int]] = field(default_factory=list)
    heard: dict[str, int] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)

    async def run(self) -> None:
        """Speak and listen until cancelled, or until the connection ends."""
        async with asyncio.TaskGroup() as group:
            for at, mqtt in enumerate(self.connections):
                group.create_task(mqtt.hear(self._take), name=f"hear {at}")
                group.create_task(mqtt.keep_alive(), name=f"keep alive {at}")
            group.create_task(self._speak(), name="speak")

    async def _speak(self) -> None:
        """Every child in its own turn of each second, minute and heartbeat, all spread evenly."""
        loop = asyncio.get_running_loop()
        begin_s, step = loop.time(), 0
        while True:
            now = datetime.now(UTC)
            self._due(step, TELEMETRY_S, now, self._tell)
            self._due(step, OFFER_S, now, self._offer)
            self._due(step, HEARTBEAT_S, now, self._beat)
            self._move(now)
            if step % round(METER_S / STEP_S) == 0:
                self.connections[0].publish(
                    METER_TOPIC, f"{sum(child.power_w for child in self.children):.1f}".encode()
                )
            step += 1
            await asyncio.sleep(max(begin_s + step * STEP_S - loop.time(), 0.0))

    def _due(self, step: int, period_s: float, now: datetime, say: Callable[[SimulatedChild, datetime], None]) -> None:
        turns, many = round(period_s / STEP_S), len(self.children)
        turn = step % turns
        for child in self.children[-(-turn * many // turns) : -(-(turn + 1) * many // turns)]:
            say(child, now)

    def _move(self, now: datetime) -> None:
        """Whoever was dispatched has got there by now, and says so at once, as a gateway does."""
        now_s = time.monotonic()
        for child in self.children:
            if child.moves_at_s <= now_s:
                child.moves_at_s, child.power_w = float("inf"), child.asked_w
                self._tell(child, now)

    def _tell(self, child: SimulatedChild, now: datetime) -> None:
        child.mqtt.publish(child.topics[Up.TELEMETRY], child.telemetry(now))

    def _offer(self, child: SimulatedChild, now: datetime) -> None:
        if child.epoch is not None:
            child.mqtt.publish(child.topics[Up.OFFER], child.offer(next(self._numbers), now), qos=1)

    def _beat(self, child: SimulatedChild, now: datetime) -> None:
        payload = f'{{"sequence":{next(self._numbers)},"issued_at":"{_stamp(now)}"}}'
        child.mqtt.publish(child.topics[Up.HEARTBEAT], payload.encode())

    def _take(self, topic: str, payload: bytes) -> None:
        _, _, layer, _, _, kind = topic.split("/")
        self.heard[kind] = self.heard.get(kind, 0) + 1
        child = self.children[int(layer.removeprefix("child_"))]
        if kind == Down.DISPATCH:
            self._dispatched(child, json.loads(payload))
        elif kind == Down.AUTHORITY:
            order = json.loads(payload)
            now = datetime.now(UTC)
            child.epoch = order["epoch"]
            self._acknowledge(child, order["id"], Down.AUTHORITY, "accepted", now)
            self._offer(child, now)

    def _dispatched(self, child: SimulatedChild, order: dict[str, Any]) -> None:
        now_s, now, asked_w = time.monotonic(), datetime.now(UTC), float(order["net_power_w"])
        if abs(asked_w - child.asked_w) >= MOVED_PU * RATING_W:
            self.moved.append((now_s, child.at))
        self._acknowledge(child, order["id"], Down.DISPATCH, "accepted", now)
        if child.order_id is not None:
            self._acknowledge(child, child.order_id, Down.DISPATCH, "superseded", now)
        child.order_id, child.asked_w = order["id"], asked_w
        child.moves_at_s = min(child.moves_at_s, now_s + RESPONSE_S)

    def _acknowledge(self, child: SimulatedChild, order_id: str, kind: Down, status: str, now: datetime) -> None:
        payload = child.acknowledgement(order_id, kind, status, now)
        child.mqtt.publish(child.topics[Up.ACKNOWLEDGEMENT], payload, qos=1)

    def told(self) -> dict[str, Any]:
        """What they have heard and said."""
        published = sum(mqtt.published for mqtt in self.connections)
        return {"moved": self.moved, "heard": self.heard, "published": published}


async def serve(host: str, port: int, children: int, out: Path) -> None:
    """Serve until standard input ends; raises OSError or ExceptionGroup where the broker is lost."""
    connections: list[PlainMqtt] = []
    try:
        for first in range(0, children, A_CONNECTION):
            connections.append(await PlainMqtt.connect(host, port, f"bench-children-{first}"))
            for at in range(first, min(first + A_CONNECTION, children)):
                await connections[-1].subscribe(down_topic(child_name(at), SOURCE, "+"))
        many = ManyChildren(
            connections, [SimulatedChild(at, connections[at // A_CONNECTION]) for at in range(children)]
        )
        _say({"children": children})
        speaking = asyncio.create_task(many.run(), name="children")
        asking = asyncio.create_task(_answer(many, out), name="questions")
        done, _ = await asyncio.wait((speaking, asking), return_when=asyncio.FIRST_COMPLETED)
        for task in (speaking, asking):
            task.cancel()
        await asyncio.gather(speaking, asking, return_exceptions=True)
        for task in done:
            task.result()
    finally:
        for mqtt in connections:
            mqtt.close()


async def _answer(many: ManyChildren, out: Path) -> None:
    """Write what was heard whenever a line comes; returns at the end of standard input."""
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        await asyncio.to_thread(out.write_text, json.dumps(many.told()))
        _say({"out": str(out)})


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 where the broker was lost."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.machine.many_children", description=__doc__)
    parser.add_argument("--broker", required=True, metavar="HOST:PORT")
    parser.add_argument("--children", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    host, _, port = options.broker.rpartition(":")
    try:
        asyncio.run(serve(host, int(port), options.children, options.out))
    except (OSError, ExceptionGroup) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
