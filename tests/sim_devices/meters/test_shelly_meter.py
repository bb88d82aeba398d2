"""The Shelly Pro 3EM as a plain MQTT client sees it, over the embedded broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import pytest

from config.twin import DeviceTwin
from sim_devices.broker import EmbeddedBroker
from sim_devices.models import MeterModel
from sim_devices.shelly_meter import ENERGY_S, ShellyComponents, ShellyMeter, passes_threshold
from sim_devices.until import ended

PREFIX = "site/shellypro3em-0123456789ab"


def metered(*powers_w: float) -> MeterModel:
    model = MeterModel("meter", 100_000.0, DeviceTwin())
    measure(model, *powers_w)
    return model


def measure(model: MeterModel, *powers_w: float, valid: bool = True) -> None:
    one, two, three = powers_w
    model.measure((one, two, three), (230.0,) * 3, 50.0, valid, 36.0, 1.0)


class Bench:
    """A meter on a broker, and what another client has heard of it."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self.broker = broker
        self.model = metered(4_600.0, -2_300.0, 230.0)
        self.now_s = 0.0
        self.twin = ShellyMeter(
            self.model, lambda: self.now_s, topic_prefix=PREFIX, host=broker.host, port=broker.port, look_s=0.01
        )
        self.heard: dict[str, list[Any]] = {}
        self.news = asyncio.Condition()
        self.client: aiomqtt.Client

    async def listen(self) -> None:
        async for message in self.client.messages:
            assert isinstance(message.payload, bytes)
            async with self.news:
                key = str(message.topic).removeprefix(f"{PREFIX}/")
                self.heard.setdefault(key, []).append(json.loads(message.payload))
                self.news.notify_all()

    async def hears(self, wanted: Callable[[dict[str, list[Any]]], bool]) -> None:
        async with asyncio.timeout(5), self.news:
            await self.news.wait_for(lambda: wanted(self.heard))

    async def ask(self, request: Any) -> Any:
        """The answer to an RPC."""
        self.heard.pop("tester/rpc", None)
        await self.client.publish(f"{PREFIX}/rpc", json.dumps(request))
        await self.hears(lambda heard: "tester/rpc" in heard)
        return self.heard["tester/rpc"][0]


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
        for topic in (f"{PREFIX}/status/+", f"{PREFIX}/online", f"{PREFIX}/events/rpc", "tester/rpc"):
            await it.client.subscribe(topic)
        async with running(it.listen()):
            yield


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with EmbeddedBroker() as broker:
        it = Bench(broker)
        async with listening(it), running(it.twin.run()):
            await it.hears(lambda heard: "status/emdata:0" in heard)
            yield it


async def test_it_says_that_it_is_there_and_all_it_measures() -> None:
    async with bench() as it:
        assert it.heard["online"] == [True]
        em = it.heard["status/em:0"][0]
        assert [em[f"{phase}_act_power"] for phase in "abc"] == [4600.0, -2300.0, 230.0]
        assert [em[f"{phase}_current"] for phase in "abc"] == [20.0, 10.0, 1.0], "magnitudes"
        assert (em["total_act_power"], em["total_aprt_power"], em["n_current"]) == (2530.0, 7130.0, None)
        energy = it.heard["status/emdata:0"][0]
        assert (energy["total_act"], energy["total_act_ret"]) == (25.3, 0.0)
        notified = it.heard["events/rpc"][0]
        assert (notified["method"], notified["src"]) == ("NotifyStatus", PREFIX)
        assert notified["params"] == {"em:0": em}


async def test_it_reports_a_step_at_once_and_the_rest_when_it_is_time() -> None:
    async with bench() as it:
        measure(it.model, 4_600.0, -2_300.0, 3_000.0)
        await it.hears(lambda heard: heard["status/em:0"][-1]["total_act_power"] == 5300.0)
        before = len(it.heard["status/emdata:0"])
        it.now_s += ENERGY_S
        await it.hears(lambda heard: len(heard["status/emdata:0"]) > before)
        assert it.heard["status/emdata:0"][-1]["total_act"] == 78.3


async def test_it_answers_requests_and_refuses_what_it_has_not() -> None:
    async with bench() as it:
        asked = {"id": 7, "src": "tester", "method": "EM.GetStatus", "params": {"id": 0}}
        said = await it.ask(asked)
        assert (said["id"], said["src"], said["dst"]) == (7, PREFIX, "tester")
        assert said["result"]["total_act_power"] == 2530.0
        assert (await it.ask(asked | {"method": "Shelly.GetDeviceInfo"}))["result"]["gen"] == 2
        assert (await it.ask(asked | {"method": "EMData.GetStatus"}))["result"]["total_act"] == 25.3
        assert (await it.ask(asked | {"method": "Switch.Set"}))["error"]["code"] == 404
        before = len(it.heard["status/em:0"])
        await it.client.publish(f"{PREFIX}/command", "status_update")
        await it.hears(lambda heard: len(heard["status/em:0"]) > before)


@pytest.mark.parametrize(
    "request_", [b"", b"\xff", b"[" * 5000, b"[]", b"{}", b'{"src": "#"}', b'{"src": ""}', b'{"src": 1}']
)
def test_what_is_no_request_gets_no_answer(request_: bytes) -> None:
    assert ShellyComponents(metered(1.0, 2.0, 3.0), PREFIX).answer(request_) is None


def test_a_method_that_is_no_name_is_not_found() -> None:
    answer = ShellyComponents(metered(1.0, 2.0, 3.0), PREFIX).answer(b'{"src": "a", "method": ["EM.GetStatus"]}')
    assert answer is not None
    assert answer[1]["error"]["code"] == 404


def test_a_meter_that_fails_names_it_and_shows_nothing() -> None:
    model = metered(1_000.0, 1_000.0, 1_000.0)
    components = ShellyComponents(model, PREFIX)
    before = components.em()
    measure(model, 1_000.0, 1_000.0, 1_000.0, valid=False)
    after = components.em()
    assert (after["errors"], after["total_act_power"], after["a_voltage"]) == (["power_meter_failure"], None, None)
    assert after.keys() == before.keys() | {"errors"}
    assert passes_threshold(before, after)


@pytest.mark.parametrize(
    ("key", "before", "after", "is_news"),
    [
        ("a_act_power", 1000.0, 1049.0, False),
        ("a_act_power", 1000.0, 950.0, True),
        ("b_act_power", 0.0, 9.9, False),
        ("b_act_power", 0.0, 10.0, True),
        ("c_voltage", 230.0, 240.0, False),
        ("c_voltage", 230.0, 242.0, True),
        ("a_current", 0.5, 0.54, False),
        ("a_current", 0.5, 0.56, True),
    ],
)
def test_a_value_is_news_beyond_both_its_thresholds(key: str, before: float, after: float, is_news: bool) -> None:
    em = ShellyComponents(metered(1.0, 2.0, 3.0), PREFIX).em()
    assert passes_threshold(em | {key: before}, em | {key: after}) is is_news


async def test_it_finds_a_restarted_broker() -> None:
    async with EmbeddedBroker() as broker:
        it = Bench(broker)
        async with running(it.twin.run()):
            async with listening(it):
                await it.hears(lambda heard: "status/em:0" in heard)
            await broker.close()
            await broker.start()
            it.heard.clear()
            async with listening(it):
                await it.hears(lambda heard: "status/em:0" in heard and heard.get("online", [None])[-1] is True)
            assert it.twin.connections == 2


async def test_an_orderly_end_says_that_the_meter_is_away() -> None:
    async with EmbeddedBroker() as broker:
        it = Bench(broker)
        async with listening(it):
            async with running(it.twin.run()):
                await it.hears(lambda heard: heard.get("online", [None])[-1] is True)
            await it.hears(lambda heard: heard["online"][-1] is False)
