"""The driver of a layer below, against the gateway's own order desk over a real broker."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiomqtt

from config.messages import AuthorityOrder, DispatchOrder, Down, Up, down_topic, up_topic
from config.site import MqttBroker
from config.strict import Strict
from config.vocabulary import (
    AUTHORITY,
    BYPASS,
    OFFER_CURVE,
    OFFER_LOWER_W,
    OFFER_UPPER_W,
    POWER_W,
    SETPOINT_READBACK_W,
    Quality,
)
from tests.layers.field import CHILD, LAYER, SOURCE, Layer, layer, parent
from tests.layers.messages import interval, offer, telemetry
from tests.system.processes import until


def now(ahead_s: float = 0.0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=ahead_s)


def current_offer(**more: Any) -> Any:
    at = now()
    return offer(at, interval(at - timedelta(seconds=10)), **more)


def dispatch_in_force(child: Layer) -> str | None:
    dispatch = child.book.in_force().dispatch
    return None if dispatch is None else dispatch.order_id


async def publish(broker: MqttBroker, topic: str, *messages: Strict | bytes, retain: bool = False) -> None:
    async with aiomqtt.Client(broker.host, broker.port) as client:
        for message in messages:
            payload = message if isinstance(message, bytes) else message.model_dump_json(exclude_none=True)
            await client.publish(topic, payload, qos=1, retain=retain)


async def test_authority_comes_first_then_a_share_becomes_a_dispatch(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker, epoch=7) as above:
        early = above.ask(12_345.67, price=0.2345678)
        assert await above.until_answered(early) == "acknowledged"
        assert (child.book.dispatcher, child.book.epoch) == (SOURCE, 7)
        dispatch = child.book.in_force().dispatch
        assert dispatch is not None
        assert (dispatch.net_power_w, dispatch.lambda_per_kwh) == (12_345.7, 0.234568)
        # Until it is replaced.
        assert [held.ends_s for held in child.book.held()] == [None]
        second = above.ask(-4000.0)
        assert await above.until_answered(second) == "acknowledged"
        assert child.asked_w == -4000.0


async def test_telemetry_becomes_samples_with_quality_and_time(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker) as above:
        await above.sink.until(lambda: bool(above.sink.links) and above.sink.links[-1][0].value == "up")
        child.link.tell(telemetry(now(), 5000.0, measured_at=now(-0.5), voltage_v=231.0))
        await above.sink.until(lambda: above.value(POWER_W) == 5000.0)
        sample = above.sink.sample(CHILD, POWER_W)
        assert sample.quality is Quality.GOOD
        assert 0.4 < time.monotonic() - sample.measured_s < 5.0
        assert above.value("voltage_v") == 231.0
        assert above.sink.present == [(CHILD, True, "answers")]
        child.link.tell(telemetry(now(), None, quality="bad", measured_at=None))
        await above.sink.until(lambda: above.sink.sample(CHILD, POWER_W).quality is Quality.BAD)


async def test_a_refusal_is_told_with_the_layers_reason(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker) as above:
        beyond = above.ask(60_000.0)
        assert await above.until_answered(beyond) == "refused"
        assert "beyond the connection" in above.sink.results[-1].detail
        # It is still ours: the next share is taken.
        assert await above.until_answered(above.ask(1000.0)) == "acknowledged"
        assert child.book.refused == 1


async def test_no_answer_in_time_is_indeterminate(broker: MqttBroker) -> None:
    """A layer that takes authority and then says nothing."""
    async with parent(broker, timeout_s=0.3) as above, aiomqtt.Client(broker.host, broker.port) as client:
        await client.subscribe(down_topic(LAYER, SOURCE, "+"), qos=1)
        asked = above.ask(1000.0)
        async for message in client.messages:
            if message.topic.value.endswith("authority"):
                order = AuthorityOrder.model_validate_json(message.payload)  # type: ignore[arg-type]
                answer = b'{"order_id": "%s", "kind": "authority", "status": "accepted", "issued_at": "%s"}' % (
                    order.id.encode(),
                    now().isoformat().encode(),
                )
                await client.publish(up_topic(LAYER, SOURCE, Up.ACKNOWLEDGEMENT), answer, qos=1)
            elif message.topic.value.endswith("dispatch"):
                break
        assert await above.until_answered(asked) == "indeterminate"
        assert "no answer within 0.3 s" in above.sink.results[-1].detail


async def test_a_share_that_waits_too_long_expires(broker: MqttBroker) -> None:
    """Nobody is there to confirm our authority."""
    async with parent(broker) as above:
        first, second = above.ask(1000.0, life_s=5.0), above.ask(2000.0, life_s=0.2)
        assert await above.until_answered(second) == "expired"
        assert above.fate(first) == "superseded"


async def test_an_offer_becomes_curve_and_bounds_while_it_holds(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker) as above:
        child.link.tell(telemetry(now()))
        assert await above.until_answered(above.ask(0.0)) == "acknowledged"
        child.link.offer(current_offer())
        child.link.tell(telemetry(now()))
        await above.sink.until(lambda: above.value(OFFER_UPPER_W) == 30_000.0)
        assert above.value(OFFER_LOWER_W) == -20_000.0
        assert above.value(OFFER_CURVE) == "[[0.0, 30000.0], [0.25, 5000.0], [0.5, -20000.0]]"
        # A dispatch names the offer that it answers.
        await above.until_answered(above.ask(500.0))
        message = child.book.held()[-1].message
        assert isinstance(message, DispatchOrder)
        assert message.offer_id is not None


async def test_a_new_path_of_prices_goes_once_with_the_next_share(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker) as above:
        child.link.tell(telemetry(now()))
        assert await above.until_answered(above.ask(0.0)) == "acknowledged"
        at, band = now(), {"p10_w": 0.0, "p50_w": 0.0, "p90_w": 0.0}
        begins = [at + timedelta(seconds=offset) for offset in (-10, 290, 590)]
        child.link.offer(offer(at, *(interval(begin, forecast=band) for begin in begins)))
        child.link.tell(telemetry(now()))
        await above.sink.until(lambda: above.value(OFFER_UPPER_W) == 30_000.0)
        # Steps of 300 s, of which the last ends before the layer's last interval has its middle.
        ahead = {begin.timestamp() - 100.0: 0.1 * (place + 1) for place, begin in enumerate(begins[:2])}
        paths = []
        for version in (1, 1, 2):
            above.driver.announce(ahead, version)
            await above.until_answered(above.ask(100.0 * len(paths)))
            message = child.book.held()[-1].message
            assert isinstance(message, DispatchOrder)
            paths.append(message.lambda_path_per_kwh)
        assert paths == [(0.2,), (), (0.2,)]
        assert set(above.driver.offered()) == {CHILD}


async def test_an_offer_that_has_expired_leaves_nothing(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker) as above:
        assert await above.until_answered(above.ask(0.0)) == "acknowledged"
        child.link.tell(telemetry(now()))
        child.link.offer(current_offer(expires_at=now(0.6)))
        await above.sink.until(lambda: above.value(OFFER_UPPER_W) == 30_000.0)

        async def until_nothing() -> None:
            while above.value(OFFER_CURVE) is not None:
                child.link.tell(telemetry(now()))
                await asyncio.sleep(0.05)

        async with asyncio.timeout(5):
            await until_nothing()
        assert above.sink.sample(CHILD, OFFER_UPPER_W).quality is Quality.BAD


async def test_broken_and_foreign_messages_are_counted_and_change_nothing(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker) as above:
        assert await above.until_answered(above.ask(0.0)) == "acknowledged"
        child.link.tell(telemetry(now(), 700.0))
        await above.sink.until(lambda: above.value(POWER_W) == 700.0)
        offers = up_topic(LAYER, SOURCE, Up.OFFER)
        before = above.driver.stats.rejected
        await publish(broker, offers, b'{"id": "x", "battery": 1}')
        await above.sink.until(lambda: True)
        # Of another layer, and of this one to another source.
        await publish(broker, up_topic("stranger", SOURCE, Up.OFFER), current_offer())
        await publish(broker, up_topic(LAYER, "another", Up.OFFER), current_offer())
        await publish(broker, up_topic(LAYER, SOURCE, Up.TELEMETRY), b"\xff\xfe")
        child.link.tell(telemetry(now(), 800.0))
        await above.sink.until(lambda: above.value(POWER_W) == 800.0)
        assert above.value(OFFER_CURVE) is None
        assert above.driver.stats.rejected - before in (1, 2)


async def test_an_offer_of_an_earlier_epoch_is_refused(broker: MqttBroker, tmp_path: Path) -> None:
    made = offer(now(-5.0), interval(now(-10.0)))
    async with layer(broker, tmp_path / "state") as child, parent(broker) as above:
        assert await above.until_answered(above.ask(0.0)) == "acknowledged"
        before = above.driver.stats.rejected
        child.link.offer(made)
        child.link.tell(telemetry(now(), 300.0))
        await above.sink.until(lambda: above.value(POWER_W) == 300.0 and above.driver.stats.rejected > before)
        assert above.value(OFFER_CURVE) is None


async def test_a_silent_layer_is_lost_and_comes_back(broker: MqttBroker, tmp_path: Path) -> None:
    async with parent(broker) as above:
        async with layer(broker, tmp_path / "state") as child:
            child.link.tell(telemetry(now()))
            assert await above.until_answered(above.ask(1500.0)) == "acknowledged"
        await above.sink.until(lambda: (CHILD, False) in [item[:2] for item in above.sink.present], 8.0)
        assert above.sink.sample(CHILD, POWER_W).quality is Quality.BAD
        async with layer(broker, tmp_path / "state") as child:
            # What it had accepted survived.
            assert child.asked_w == 1500.0
            child.link.tell(telemetry(now()))
            await above.sink.until(lambda: above.sink.present[-1][:2] == (CHILD, True))


async def test_a_layer_that_somebody_else_dispatches_is_not_given_shares(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state", "aggregator", SOURCE) as child, parent(broker) as above:
        asked = above.ask(1000.0)
        assert await above.until_answered(asked) == "refused"
        assert "no authority to hand over; aggregator has" in above.sink.results[-1].detail
        child.link.tell(telemetry(now()))
        await above.sink.until(lambda: str(above.value(AUTHORITY)).startswith("refused"))
        await above.sink.until(lambda: "somebody else dispatches it" in str(above.value(BYPASS)))
        assert child.asked_w is None


async def test_a_newer_run_of_ours_fences_off_the_older_one(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker, epoch=7) as old:
        assert await old.until_answered(old.ask(1000.0)) == "acknowledged"
        child.link.tell(telemetry(now()))
        await old.sink.until(lambda: old.value(POWER_W) is not None)
        async with parent(broker, epoch=8) as new:
            assert await new.until_answered(new.ask(2000.0)) == "acknowledged"
            # The older one is refused, asks once whether it is still in charge, and leaves it at that.
            assert await old.until_answered(old.ask(3000.0)) == "refused"
            await old.sink.until(lambda: str(old.value(AUTHORITY)).startswith("refused"))
            assert await old.until_answered(old.ask(4000.0)) == "refused"
            assert (child.asked_w, child.book.epoch) == (2000.0, 8)


async def test_an_order_under_our_name_is_noticed(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker, epoch=7) as above:
        assert await above.until_answered(above.ask(1000.0)) == "acknowledged"
        child.link.tell(telemetry(now(), dispatch_id=dispatch_in_force(child)))
        await above.sink.until(lambda: above.value(SETPOINT_READBACK_W) == 1000.0)
        assert above.value(BYPASS) == ""
        forged = DispatchOrder(id="forged", issued_at=now(), epoch=7, net_power_w=9000.0)
        await publish(broker, down_topic(LAYER, SOURCE, Down.DISPATCH), forged)

        async def until_told() -> None:
            while not above.value(BYPASS):
                child.link.tell(telemetry(now(), dispatch_id=dispatch_in_force(child)))
                await asyncio.sleep(0.05)

        async with asyncio.timeout(5):
            await until_told()
        assert "a dispatch under our name" in str(above.value(BYPASS))
        # The read-back is of a dispatch that we did not give: it is no number of ours.
        assert above.sink.sample(CHILD, SETPOINT_READBACK_W).quality is Quality.BAD
        # The next share of ours is in force again, and says so.
        assert await above.until_answered(above.ask(1000.0)) == "acknowledged"
        child.link.tell(telemetry(now(), dispatch_id=dispatch_in_force(child)))
        await above.sink.until(lambda: above.value(BYPASS) == "")


async def test_heartbeats_keep_the_layer_out_of_its_fallback(broker: MqttBroker, tmp_path: Path) -> None:
    async with layer(broker, tmp_path / "state") as child, parent(broker) as above:
        await above.sink.until(lambda: bool(above.sink.links))
        await until(lambda: not child.book.in_force().fallback_reason, "a heartbeat")
        await above.driver.rest(1.0)
        assert child.asked_w is None
