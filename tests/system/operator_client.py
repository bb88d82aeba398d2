"""A distribution system operator as anybody could write one: a plain MQTT client, topics and messages by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import aiomqtt

from tests.system.processes import until

BEAT_S = 0.3
UP = ("acknowledgement", "telemetry", "offer", "heartbeat")


def ago(seconds: float = 0.0) -> str:
    """A time in UTC, as messages carry it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


class Operator:
    """Knows the layer `demo` as the parent `dso`; keeps everything that the layer says, oldest first."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self._sequence = count(1)
        self.heard: dict[str, list[dict[str, Any]]] = {kind: [] for kind in UP}

    async def say(self, kind: str, message: dict[str, Any] | bytes, *, retain: bool = False) -> None:
        """Publish to the layer."""
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        await self._client.publish(f"lamina/v1/demo/dso/down/{kind}", payload, qos=1, retain=retain, timeout=10)

    async def order(self, kind: str, *, retain: bool = False, **fields: Any) -> str:
        """Publish an order issued now, of which `fields` say more; its id."""
        message = {"id": f"{kind}-{uuid.uuid4().hex[:8]}", "issued_at": ago(), **fields}
        await self.say(kind, message, retain=retain)
        return str(message["id"])

    async def accepted(self, kind: str, **fields: Any) -> str:
        """Publish an order and wait until the layer has taken it; its id."""
        order_id = await self.order(kind, **fields)
        answer = await self.answer(order_id)
        assert answer["status"] == "accepted", answer
        return order_id

    async def limit(self, quantity: str, value: float | str, **fields: Any) -> str:
        """A limit that the layer has taken; its id."""
        return await self.accepted("limits", quantity=quantity, value=value, **fields)

    async def authority(self, epoch: int = 1) -> None:
        """Take the right to dispatch."""
        await self.accepted("authority", parent="dso", epoch=epoch)

    async def dispatch(self, net_power_w: float, epoch: int = 1) -> str:
        """A dispatch that the layer has taken; its id."""
        return await self.accepted("dispatch", net_power_w=net_power_w, epoch=epoch)

    def answers(self, order_id: str) -> list[dict[str, Any]]:
        """The acknowledgements of an order so far."""
        return [said for said in self.heard["acknowledgement"] if said["order_id"] == order_id]

    async def answer(self, order_id: str, number: int = 1) -> dict[str, Any]:
        """The first, second, ... acknowledgement of an order."""
        await until(lambda: len(self.answers(order_id)) >= number, f"acknowledgement {number} of {order_id!r}")
        return self.answers(order_id)[number - 1]

    async def next_answer(self, answered: int) -> dict[str, Any]:
        """The acknowledgement that follows the first `answered`, whatever it names."""
        said = self.heard["acknowledgement"]
        await until(lambda: len(said) > answered, f"acknowledgement {answered + 1} of all")
        return said[answered]

    async def listen(self) -> None:
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            self.heard[message.topic.value.rpartition("/")[2]].append(json.loads(message.payload))

    async def beat(self) -> None:
        while True:
            await self.say("heartbeat", {"sequence": next(self._sequence), "issued_at": ago()})
            await asyncio.sleep(BEAT_S)


@contextlib.asynccontextmanager
async def operator_at(port: int, *, beats: bool = True) -> AsyncIterator[Operator]:
    """An operator that is connected, listens and, unless told otherwise, lives."""
    async with aiomqtt.Client("127.0.0.1", port, timeout=10) as client:
        operator = Operator(client)
        await client.subscribe("lamina/v1/demo/dso/up/+", qos=1)
        tasks = [asyncio.create_task(operator.listen(), name="operator listens")]
        if beats:
            tasks.append(asyncio.create_task(operator.beat(), name="operator beats"))
        try:
            yield operator
        finally:
            for task in tasks:
                task.cancel()
            # A broker that was killed ends the tasks before we do.
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, aiomqtt.MqttError):
                    raise result
