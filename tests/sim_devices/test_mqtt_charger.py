"""The go-e charger as a plain MQTT client sees it, over the embedded broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import pytest

from config.twin import DeviceTwin, EvTwin
from sim_devices.broker import EmbeddedBroker
from sim_devices.models import ChargerModel
from sim_devices.mqtt_charger import GoeKeys, MqttCharger
from sim_devices.until import ended

BASE = "go-eCharger/012345"


def charger_with_a_car() -> ChargerModel:
    return ChargerModel("charger", 22_000.0, DeviceTwin(tr90_s=0.1, evs=(EvTwin(wake_s=0.1),)))


class Bench:
    """A charger twin on a broker, and what another client has heard of it."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.model = charger_with_a_car()
        self.now_s = 50.0
        self.twin = MqttCharger(
            self.model, lambda: self.now_s, serial="012345", host=broker.host, port=broker.port, publish_interval_s=0.02
        )
        self.heard: dict[str, Any] = {}
        self.news = asyncio.Condition()
        self.client: aiomqtt.Client

    def run(self, seconds: float) -> None:
        for i in range(round(seconds * 100)):
            self.model.step(0.01, i * 0.01)

    async def listen(self) -> None:
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            key = str(message.topic).removeprefix(f"{BASE}/")
            text = message.payload.decode()
            async with self.news:
                self.heard[key] = text if key.endswith("/result") else json.loads(text)
                self.news.notify_all()

    async def hears(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(5), self.news:
            await self.news.wait_for(lambda: wanted(self.heard))

    async def write(self, key: str, payload: str) -> str:
        await self.hears(lambda heard: heard.get("mcc") is True)
        self.heard.pop(f"{key}/result", None)
        await self.client.publish(f"{BASE}/{key}/set", payload)
        await self.hears(lambda heard: f"{key}/result" in heard)
        return str(self.heard[f"{key}/result"])


@asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        await ended(task)


@asynccontextmanager
async def listening(it: Bench) -> AsyncIterator[None]:
    async with aiomqtt.Client(it.broker.host, it.broker.port) as it.client:
        await it.client.subscribe(f"{BASE}/+")
        await it.client.subscribe(f"{BASE}/+/result")
        async with running(it.listen()):
            yield


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with EmbeddedBroker() as broker:
        it = Bench(broker)
        async with running(it.twin.run()), listening(it):
            yield it


async def test_every_key_is_there_for_who_comes_late() -> None:
    async with EmbeddedBroker() as broker:
        it = Bench(broker)
        async with running(it.twin.run()):
            async with listening(it):
                await it.hears(lambda heard: "eto" in heard)
            it.heard.clear()
            async with listening(it):
                await it.hears(lambda heard: heard.keys() >= {"mcc", "amp", "frc", "car", "nrg", "wh", "alw", "psm"})
                assert it.heard["mcc"] is True
                assert (it.heard["amp"], it.heard["frc"], it.heard["alw"]) == (32, 0, True)
                assert it.heard["sse"] == "012345"


async def test_where_nothing_changes_the_time_since_boot_does() -> None:
    async with bench() as it:
        await it.hears(lambda heard: heard.get("rbt") == 0)
        it.now_s += 2.5
        await it.hears(lambda heard: heard["rbt"] == 2000)


async def test_a_charging_car_shows_in_state_power_and_energy() -> None:
    async with bench() as it:
        await it.hears(lambda heard: heard.get("car") == 1)
        it.run(5.0)
        await it.hears(lambda heard: heard.get("car") == 2 and heard["nrg"][11] > 22_000)
        voltages, currents, powers = it.heard["nrg"][0:3], it.heard["nrg"][4:7], it.heard["nrg"][7:10]
        assert voltages == [230.0] * 3
        assert currents == [32.0] * 3
        assert sum(powers) == pytest.approx(it.heard["nrg"][11], abs=0.2)
        assert len(it.heard["nrg"]) == 16
        await it.hears(lambda heard: heard["wh"] == pytest.approx(it.model.session_energy_wh, abs=0.01))


async def test_writes_are_answered_and_followed() -> None:
    async with bench() as it:
        it.run(2.0)
        assert await it.write("amp", "16") == "success"
        await it.hears(lambda heard: heard.get("amp") == 16 and heard.get("acu") == 16)
        assert it.model.requested_current_a == 16.0
        assert await it.write("frc", "1") == "success"
        await it.hears(lambda heard: heard.get("alw") is False and heard.get("modelStatus") == 4)
        it.run(2.0)
        await it.hears(lambda heard: heard.get("car") == 3 and heard["nrg"][11] == 0)
        assert await it.write("frc", "0") == "success"
        assert await it.write("psm", "1") == "success"
        it.run(3.0)
        await it.hears(lambda heard: heard["nrg"][7:10] == [pytest.approx(16 * 230.0, rel=0.01), 0.0, 0.0])


@pytest.mark.parametrize(
    ("key", "payload"),
    [
        ("amp", "5"),
        ("amp", "33"),
        ("amp", "-1"),
        ("amp", "16.5"),
        ("amp", "true"),
        ("amp", '"16"'),
        ("amp", "null"),
        ("amp", ""),
        ("amp", "NaN"),
        ("amp", "[" * 60),
        ("amp", "1" * 10_000),
        ("frc", "3"),
        ("psm", "9"),
        ("wh", "0"),
        ("nonsense", "1"),
    ],
)
def test_what_can_not_be_taken_is_answered_and_changes_nothing(key: str, payload: str) -> None:
    keys = GoeKeys(charger_with_a_car(), "012345", lambda: 0.0)
    before = keys.values()
    assert keys.write(key, payload.encode()) != "success"
    assert keys.write(key, b"\xff\xfe") != "success"
    assert keys.values() == before


async def test_an_orderly_end_tells_that_the_charger_is_away() -> None:
    async with EmbeddedBroker() as broker:
        it = Bench(broker)
        async with listening(it):
            async with running(it.twin.run()):
                await it.hears(lambda heard: heard.get("mcc") is True)
            await it.hears(lambda heard: heard.get("mcc") is False)


async def test_the_charger_finds_a_restarted_broker_and_keeps_its_current() -> None:
    async with EmbeddedBroker() as broker:
        it = Bench(broker)
        async with running(it.twin.run()):
            async with listening(it):
                assert await it.write("amp", "10") == "success"
            await broker.close()
            await broker.start()
            it.heard.clear()
            async with listening(it):
                await it.hears(lambda heard: heard.get("mcc") is True and heard.get("amp") == 10)
        assert it.twin.connections == 2
        assert it.model.requested_current_a == 10.0


async def test_a_broker_that_is_away_is_waited_for_and_the_wait_can_be_cancelled() -> None:
    async with EmbeddedBroker() as broker:
        port = broker.port
    twin = MqttCharger(charger_with_a_car(), lambda: 0.0, serial="1", host="127.0.0.1", port=port)
    async with running(twin.run()) as task:
        async with EmbeddedBroker(port=port) as broker, aiomqtt.Client(broker.host, port) as client:
            await client.subscribe("go-eCharger/1/mcc")
            async with asyncio.timeout(5):
                async for message in client.messages:
                    assert message.payload == b"true"
                    break
        assert not task.done()
