"""The broker within the process, as its clients see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiomqtt
import pytest

from sim_devices.mqtt_in_process import InProcessBroker, InProcessClient


def client(broker: InProcessBroker, name: str, **settings: object) -> InProcessClient:
    return InProcessClient(broker, identifier=name, **settings)  # type: ignore[arg-type]


async def heard(messages: AsyncIterator[aiomqtt.Message], count: int) -> list[tuple[str, bytes, bool]]:
    """The next messages: topic, payload, retained."""
    found = []
    async with asyncio.timeout(1):
        for _ in range(count):
            message = await anext(messages)
            found.append((message.topic.value, bytes(message.payload), bool(message.retain)))
    return found


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("+/b", "a/b", True),
        ("#", "a/b", True),
        ("#", "$SYS/load", False),
        ("a/+", "a", False),
        ("a", "a/b", False),
    ],
)
async def test_filters(topic_filter: str, topic: str, matches: bool) -> None:
    broker = InProcessBroker()
    async with client(broker, "one") as one:
        await one.subscribe(topic_filter)
        broker.publish(topic, b"payload")
        broker.publish("a/b/last", b"")
        await one.subscribe("end")
        broker.publish("end", b"")
        topics = [name for name, _, _ in await heard(one.messages, 1)]
        assert (topics == [topic]) is matches


async def test_messages_come_in_their_order_and_once_for_overlapping_filters() -> None:
    broker = InProcessBroker()
    async with client(broker, "one") as one, client(broker, "two") as two:
        await one.subscribe("a/#", qos=1)
        await one.subscribe("a/b", qos=0)
        for number in range(3):
            await two.publish("a/b", str(number), qos=1)
        assert await heard(one.messages, 3) == [("a/b", b"0", False), ("a/b", b"1", False), ("a/b", b"2", False)]


async def test_what_is_retained_is_marked_replaced_and_taken_away() -> None:
    broker = InProcessBroker()
    async with client(broker, "one") as one:
        await one.publish("kept", b"old", retain=True)
        await one.publish("kept", b"new", retain=True)
        await one.publish("gone", b"old", retain=True)
        await one.publish("gone", b"", retain=True)
        await one.subscribe("+")
        await one.publish("fresh", b"")
        assert await heard(one.messages, 2) == [("kept", b"new", True), ("fresh", b"", False)]


async def test_a_will_is_the_last_word_of_a_client_that_is_cut_off_and_of_no_other() -> None:
    broker = InProcessBroker()
    async with client(broker, "watcher") as watcher:
        await watcher.subscribe("state/+")
        async with client(broker, "orderly", will=aiomqtt.Will("state/orderly", b"dead")):
            pass
        lost = client(broker, "lost", will=aiomqtt.Will("state/lost", b"dead", retain=True))
        async with lost:
            broker.disconnect("lost")
            with pytest.raises(aiomqtt.MqttError):
                await anext(lost.messages)
            with pytest.raises(aiomqtt.MqttError):
                await lost.publish("anything", b"")
        assert await heard(watcher.messages, 1) == [("state/lost", b"dead", False)]
        assert broker.retained == {"state/lost": b"dead"}


async def test_a_second_client_of_a_name_takes_the_firsts_place() -> None:
    broker = InProcessBroker()
    async with client(broker, "name") as first, client(broker, "name"):
        with pytest.raises(aiomqtt.MqttError):
            await anext(first.messages)
        assert broker.clients == ("name",)


async def test_a_broker_that_stops_cuts_everybody_off_and_keeps_what_is_retained() -> None:
    broker = InProcessBroker()
    async with client(broker, "one") as one:
        await one.publish("kept", b"1", retain=True)
        broker.stop()
        with pytest.raises(aiomqtt.MqttError):
            await anext(one.messages)
    with pytest.raises(aiomqtt.MqttError):
        async with client(broker, "one"):
            pass
    broker.start()
    async with client(broker, "one") as one:
        await one.subscribe("kept")
        assert await heard(one.messages, 1) == [("kept", b"1", True)]


async def test_a_client_that_does_not_read_loses_the_newest() -> None:
    broker = InProcessBroker()
    async with client(broker, "slow", waiting=2) as slow:
        await slow.subscribe("t")
        for number in range(5):
            broker.publish("t", str(number).encode())
        assert [payload for _, payload, _ in await heard(slow.messages, 2)] == [b"0", b"1"]
