"""Two markets above each other as processes on a real broker, with layers as small as the interface allows below."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiomqtt import Client

from config.messages import DOWN_SCHEMAS, AuthorityOrder, DispatchOrder, Down
from sim_devices.until import ended
from tests.sim_devices.market.children import BATTERY, offer, utc

INTERVAL_S = 2.0
WITHIN_S = 40.0


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, "-m", "sim_devices.broker", "--until-eof", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as broker:
        assert broker.stdout is not None
        yield json.loads(broker.stdout.readline())["endpoints"]["mqtt"]["port"]
        broker.communicate(timeout=10)


class Layer:
    """Takes every order that the interface's schemas take, does what it is told, and offers a battery."""

    def __init__(self, name: str, source: str, delivers_pu: float = 1.0) -> None:
        self.name, self.delivers_pu = name, delivers_pu
        self.power_w = 0.0
        self.dispatches: list[DispatchOrder] = []
        self.news = asyncio.Event()
        self._topic = f"lamina/v1/{name}/{source}"

    async def run(self, port: int) -> None:
        async with Client("127.0.0.1", port, timeout=5) as client:
            await client.subscribe(f"{self._topic}/down/+", qos=1)
            reporting = asyncio.create_task(self._report(client), name=f"{self.name} reports")
            try:
                async for message in client.messages:
                    assert isinstance(message.payload, bytes)
                    await self._take(client, Down(message.topic.value.rpartition("/")[2]), message.payload)
            finally:
                await ended(reporting)

    async def _take(self, client: Client, kind: Down, payload: bytes) -> None:
        order = DOWN_SCHEMAS[kind].model_validate_json(payload)
        if isinstance(order, DispatchOrder):
            self.dispatches.append(order)
            self.power_w = self.delivers_pu * order.net_power_w
            self.news.set()
        if isinstance(order, DispatchOrder | AuthorityOrder):
            answer = {"order_id": order.id, "kind": kind, "status": "accepted", "issued_at": utc(time.time())}
            await client.publish(f"{self._topic}/up/acknowledgement", json.dumps(answer), qos=1)

    async def _report(self, client: Client) -> None:
        sequence = 0
        while True:
            now_s, sequence = time.time(), sequence + 1
            telemetry = {
                "issued_at": utc(now_s),
                "measured_at": utc(now_s),
                "net_power_w": self.power_w,
                "quality": "good",
                "compliance": {"state": "compliant"},
            }
            beat = {"sequence": sequence, "issued_at": utc(now_s)}
            await client.publish(f"{self._topic}/up/heartbeat", json.dumps(beat))
            await client.publish(f"{self._topic}/up/telemetry", json.dumps(telemetry))
            begin_s = now_s // 300.0 * 300.0
            made = offer(BATTERY, begin_s, issued_s=now_s, intervals=2, offer_id=f"o-{sequence}")
            await client.publish(f"{self._topic}/up/offer", made)
            await asyncio.sleep(0.2)


@asynccontextmanager
async def running(port: int, *layers: Layer) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(layer.run(port), name=layer.name) for layer in layers]
    try:
        yield
    finally:
        await ended(*tasks)


async def told(layer: Layer, condition: Callable[[DispatchOrder], bool]) -> DispatchOrder:
    """The first dispatch of a kind, within a bound that no busy machine misses."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            found = next((one for one in layer.dispatches if condition(one)), None)
            if found is not None:
                return found
            layer.news.clear()
            await layer.news.wait()


class MarketProcess:
    """One market; leaving ends it."""

    def __init__(self, port: int, log: Path, *options: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "sim_devices.market", "--broker", f"127.0.0.1:{port}", "--log", str(log)]
        command += ["--interval", str(INTERVAL_S), "--until-eof", *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> MarketProcess:
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["role"] == "market"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)
        assert self._process.returncode == 0

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["event"] == name]


async def test_a_tso_s_price_reaches_layers_below_a_dso(port: int, tmp_path: Path) -> None:
    north, south = Layer("north", "dso"), Layer("south", "dso")
    tso_options = ["--source", "tso", "--child", "feeder:9000:9000", "--price", "0.10", "--gate", "1.0"]
    dso_options = ["--child", "north:3000:50000", "--child", "south:50000:50000", "--price", "0.30", "--gate", "0.4"]
    dso_options += ["--parent", "tso", "--layer", "feeder", "--rating-w", "20000"]
    tso = MarketProcess(port, tmp_path / "tso.jsonl", *tso_options)
    dso = MarketProcess(port, tmp_path / "dso.jsonl", *dso_options)
    with tso, dso:
        async with running(port, north, south):
            # Alone the DSO would pay 0.30 and give; the TSO's 0.10 makes it take all that its interface carries.
            full = await told(south, lambda one: one.net_power_w == pytest.approx(6_000.0, abs=1.0))
            held = await told(north, lambda one: one.net_power_w == pytest.approx(3_000.0, abs=1.0))
    assert full.duration_s == INTERVAL_S
    assert full.epoch == 1
    assert held.lambda_per_kwh is not None
    assert held.offer_id is not None
    assert any(line["at_limit"] == ["feeder"] for line in tso.events("round"))
    assert any("north" in line["at_limit"] for line in dso.events("round"))
    assert dso.events("done")[0]["refused"].get("broken", 0) == 0


async def test_a_layer_that_does_not_deliver_is_reported_and_the_other_takes_over(port: int, tmp_path: Path) -> None:
    east, west = Layer("east", "grid"), Layer("west", "grid", delivers_pu=0.5)
    options = ["--source", "grid", "--child", "east:50000:50000", "--child", "west:50000:50000", "--gate", "0.4"]
    options += ["--supply", "0.1:6000", "--supply", "0.4:6000"]
    market = MarketProcess(port, tmp_path / "grid.jsonl", *options)
    with market:
        async with running(port, east, west):
            await told(west, lambda one: one.net_power_w == pytest.approx(3_000.0, abs=1.0))
            await told(east, lambda one: one.net_power_w > 3_500.0)
    assert any(line["child"] == "west" and line["missed_w"] < -1_000.0 for line in market.events("shortfall"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gate", "200"], "at most half of an interval"),
        (["--child", "north:1:1"], "a name stands twice"),
        (["--supply", "0.2:5", "--supply", "0.1:9"], "must not fall"),
        (["--child", "North:1:1"], "a name of a-z"),
        (["--password-env", "NOWHERE_AT_ALL", "--username", "a"], "NOWHERE_AT_ALL"),
        (["--log", "/dev/null/log"], "--log /dev/null/log"),
    ],
)
def test_a_mistake_is_told_in_a_line(tmp_path: Path, options: list[str], words: str) -> None:
    command = [sys.executable, "-m", "sim_devices.market", "--broker", "127.0.0.1:1", "--child", "north:1:1"]
    command += ["--log", str(tmp_path / "log"), *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=os.environ)
    assert (ran.returncode, words in ran.stderr, "Traceback" in ran.stderr) == (2, True, False), ran.stderr
