"""A layer as small as the interface allows, to hold the DSO twin against: it answers, reports and falls back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest
from aiomqtt import Client, Message, MqttError
from pydantic import ValidationError

from config.messages import DOWN_SCHEMAS, MAX_PAYLOAD_BYTES, DispatchOrder, Down, LimitOrder, OrderMessage
from sim_devices.until import ended

REPORT_INTERVAL_S = 0.02


def utc_now(offset_s: float = 0.0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=offset_s)).isoformat()


class FakeLayer:
    """Connects as layer `demo`. The traits make it a bad one: each is a way of breaking the interface."""

    def __init__(self, port: int, heartbeat_timeout_s: float, *traits: str) -> None:
        self.traits = set(traits)
        self.down: list[tuple[str, bytes]] = []
        self.accepted: dict[str, OrderMessage] = {}
        self.heard = asyncio.Event()
        self.stop = asyncio.Event()
        self._port = port
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._heard_s = -1e9
        self._echo: int | None = None
        self._epoch = 0
        self._sequence = 0
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._outbox: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    async def run(self) -> None:
        """Serve until `stop` is set; reconnects."""
        while not self.stop.is_set():
            try:
                async with Client("127.0.0.1", self._port, timeout=2) as client:
                    await self._serve(client)
            except MqttError:
                await asyncio.sleep(REPORT_INTERVAL_S)

    async def _serve(self, client: Client) -> None:
        await client.subscribe("lamina/v1/demo/dso/down/+", qos=1)
        tasks = [
            asyncio.create_task(self._report(client), name="fake layer reports"),
            asyncio.create_task(self._listen(client), name="fake layer listens"),
            asyncio.create_task(self.stop.wait(), name="fake layer stops"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(*tasks)
        wrong = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
        if wrong:
            raise wrong[0]

    async def _listen(self, client: Client) -> None:
        async for message in client.messages:
            self._receive(message)

    def close(self) -> None:
        for timer in self._ends.values():
            timer.cancel()

    async def _report(self, client: Client) -> None:
        next_offer_s = 0.0
        while True:
            if "mute" not in self.traits:
                await self._publish(client, "telemetry", self._telemetry())
                self._sequence += 1
                await self._publish(client, "heartbeat", {"sequence": self._sequence, "issued_at": utc_now()})
                if time.monotonic() > next_offer_s:
                    next_offer_s = time.monotonic() + 0.5
                    await self._publish(client, "offer", offer())
            deadline_s = time.monotonic() + REPORT_INTERVAL_S
            while (left_s := deadline_s - time.monotonic()) > 0:
                try:
                    async with asyncio.timeout(left_s):
                        kind, message = await self._outbox.get()
                except TimeoutError:
                    break
                await self._publish(client, kind, message)

    async def _publish(self, client: Client, kind: str, message: dict[str, Any]) -> None:
        await client.publish(f"lamina/v1/demo/dso/up/{kind}", json.dumps(message), qos=0)

    def _telemetry(self) -> dict[str, Any]:
        fallback = time.monotonic() - self._heard_s > self._heartbeat_timeout_s
        state = "fallback" if fallback and "careless" not in self.traits else "compliant"
        message: dict[str, Any] = {
            "issued_at": utc_now(),
            "measured_at": utc_now(),
            "net_power_w": 1000.0,
            "quality": "good",
            "connection": "connected",
            "regulation_sequence": None if "no_echo" in self.traits else self._echo,
            "compliance": {"state": state},
        }
        if "talkative" in self.traits:
            message["battery_a_w"] = -5000.0
        return message

    def _receive(self, message: Message) -> None:
        kind = message.topic.value.rpartition("/")[2]
        assert isinstance(message.payload, bytes)
        self.down.append((kind, message.payload))
        self.heard.set()
        if kind == "heartbeat":
            self._heard_s = time.monotonic()
        elif kind == "regulation":
            self._echo = json.loads(message.payload)["sequence"]
        else:
            order_id, reason = self._judge(kind, message.payload)
            self._acknowledge(order_id, kind, reason)

    def _judge(self, kind: str, payload: bytes) -> tuple[str, str]:
        if len(payload) > MAX_PAYLOAD_BYTES:
            return "", "oversized"
        try:
            order_id = str(json.loads(payload)["id"])
        except (ValueError, KeyError):
            return "", "malformed"
        try:
            order = DOWN_SCHEMAS[Down(kind)].model_validate_json(payload, strict=True)
        except ValidationError as error:
            return order_id, str(error.errors()[0]["msg"])
        assert isinstance(order, OrderMessage)
        return order_id, self._take(order)

    def _take(self, order: OrderMessage) -> str:
        """Why the order is refused; empty when it is taken."""
        if order.id in self.accepted:
            return "duplicate"
        if order.ends_at is not None and order.ends_at <= datetime.now(UTC):
            return "expired"
        if isinstance(order, DispatchOrder):
            if order.epoch != self._epoch:
                return "epoch"
            for earlier in [i for i, taken in self.accepted.items() if isinstance(taken, DispatchOrder)]:
                if earlier in self._ends:
                    self._end(earlier, "dispatch", "superseded")
        elif not isinstance(order, LimitOrder):
            self._epoch = order.model_dump()["epoch"]
        self.accepted[order.id] = order
        if order.duration_s is not None:
            kind = "dispatch" if isinstance(order, DispatchOrder) else "limits"
            loop = asyncio.get_running_loop()
            self._ends[order.id] = loop.call_later(order.duration_s, self._end, order.id, kind, "completed")
        return ""

    def _end(self, order_id: str, kind: str, status: str) -> None:
        self._ends.pop(order_id).cancel()
        if "forgetful" not in self.traits:
            self._outbox.put_nowait(("acknowledgement", acknowledgement(order_id, kind, status, "")))

    def _acknowledge(self, order_id: str, kind: str, reason: str) -> None:
        if "deaf" in self.traits:
            return
        if "gullible" in self.traits:
            reason = ""
        status = "rejected" if reason else "accepted"
        if "wordless" in self.traits:
            reason = ""
        self._outbox.put_nowait(("acknowledgement", acknowledgement(order_id, kind, status, reason)))


def acknowledgement(order_id: str, kind: str, status: str, reason: str) -> dict[str, Any]:
    return {"order_id": order_id, "kind": kind, "status": status, "reason": reason, "issued_at": utc_now()}


def offer() -> dict[str, Any]:
    interval = {
        "start": utc_now(),
        "duration_s": 900,
        "curve": [{"price_per_kwh": 0.1, "power_w": 40000}, {"price_per_kwh": 0.4, "power_w": -30000}],
        "lower_w": -50000,
        "upper_w": 60000,
        "energy_up_wh": 10000,
        "energy_down_wh": 20000,
    }
    return {
        "id": "offer-1",
        "issued_at": utc_now(),
        "expires_at": utc_now(900),
        "intervals": [interval],
        "response_s": 0.5,
        "power_step_w": 1000,
        "price_step_per_kwh": 0.01,
        "error_bound_w": 500,
    }


@asynccontextmanager
async def _layer_at(port: int, heartbeat_timeout_s: float, *traits: str) -> AsyncIterator[FakeLayer]:
    layer = FakeLayer(port, heartbeat_timeout_s, *traits)
    task = asyncio.create_task(layer.run(), name="fake layer")
    try:
        yield layer
    finally:
        layer.stop.set()
        await task
        layer.close()


class BrokerProcess:
    """The embedded broker in a process of its own, as in the demo; it ends with our end of its standard input."""

    def __init__(self, port: int = 0) -> None:
        command = [sys.executable, "-m", "sim_devices.broker", "--until-eof", "--port", str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port: int = json.loads(self._process.stdout.readline())["endpoints"]["mqtt"]["port"]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="session")
def dso_broker() -> Iterator[BrokerProcess]:
    """One broker for all tests of the DSO twin."""
    broker = BrokerProcess()
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def broker_process() -> type[BrokerProcess]:
    """To start brokers that may be killed."""
    return BrokerProcess


LayerAt: TypeAlias = Callable[..., AbstractAsyncContextManager[FakeLayer]]


@pytest.fixture(scope="session")
def layer_at() -> LayerAt:
    """`async with layer_at(port, heartbeat_timeout_s, *traits) as layer`: a fake layer, connected."""
    return _layer_at
