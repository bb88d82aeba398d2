"""Two tiers over real brokers: a dispatch that answers an offer is cleared on its curves, and goes on downward.

The operator, the upper layer's order desk, its driver of the layer below and that layer's order desk speak over a
broker; one decision of control lies between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import aiomqtt
import pytest

from config.messages import Acknowledgement, DispatchOrder, Down, Offer, down_topic
from config.planning import Planning
from config.site import MqttBroker
from drivers.cancellation import ended
from gateway.cli.sites import loaded
from gateway.control.clearing import Bid, clear
from gateway.journal import Journal
from gateway.orders.book import OrderBook, ParentState
from gateway.orders.desk import OrderDesk
from gateway.parent.aggregate import flexibility, offer
from gateway.parent.mqtt_parent import MqttParent
from gateway.planning.desk import PlanDesk
from gateway.planning.messages import OfferMessage, encode
from tests.layers.field import layer, parent
from tests.layers.test_child_resource import FREE, Tier, tier
from tests.system.processes import until

UPPER, OPERATOR = "campus", "dso"
AWARD_W = 20_000.0


@dataclass
class Upper:
    """The upper layer without its cycle: orders in, the plan's side of control, and a plant."""

    plant: Tier
    orders: OrderDesk
    planner: PlanDesk
    woken: asyncio.Event

    def offer(self) -> Offer:
        """Offer what is measured now, and what is planned."""
        decision = self.plant.cycle(FREE)
        found = flexibility(self.plant.model, self.plant.image(), decision)
        assert found is not None
        made = offer(found, self.planner.utc(), "campus-1", self.planner.offers.planned())
        self.planner.offers.told(made)
        return made


@asynccontextmanager
async def upper(broker: MqttBroker, folder: Path) -> AsyncIterator[Upper]:
    await asyncio.to_thread(folder.mkdir)
    journal, woken, plant = Journal(folder, time.monotonic, time.time), asyncio.Event(), tier()
    book = OrderBook(100e3, {OPERATOR: ParentState(5.0, True)}, time.monotonic, time.time)

    def acknowledge(_: str, message: Acknowledgement) -> None:
        link.acknowledge(message)

    orders = OrderDesk(book, journal, time.time, acknowledge, lambda _: woken.set())
    link = MqttParent(
        UPPER, OPERATOR, broker, lambda kind, payload, retained: orders.handle(OPERATOR, kind, payload, retained),
        time.time, 0.3, 10,
    )  # fmt: skip
    model = replace(plant.model, fallback_import_w=None, fallback_export_w=None)
    planner = PlanDesk(
        loaded("tiers_microgrid")[1], Planning(), model, time.monotonic, time.time, lambda *_, **__: None, book.held,
        dict,
    )  # fmt: skip
    running = asyncio.create_task(link.run(), name="upper layer's parent")
    try:
        await until(lambda: link.connected, "the upper layer connects")
        yield Upper(plant, orders, planner, woken)
    finally:
        await ended((running,))
        await journal.close()


def planned_interval(begin_s: float) -> OfferMessage:
    """What the planner has made: the child takes 30 to -20 kW between 0.1 and 0.5, the battery 20 to -20 kW above."""
    curves = [
        {"device": "child", "prices_per_kwh": (0.1, 0.5), "powers_w": (30e3, -20e3)},
        {"device": "battery", "prices_per_kwh": (0.4, 0.6), "powers_w": (20e3, -20e3)},
    ]
    values = {
        "id": 1, "begin_utc_s": begin_s, "length_s": 900.0, "prices_per_kwh": (0.1, 0.6), "powers_w": (60e3, -30e3),
        "lower_w": -30e3, "upper_w": 60e3, "error_w": 500.0, "energy_up_wh": 0.0, "energy_down_wh": 0.0,
        "forecast_w": (0.0, 0.0, 0.0), "price_step_per_kwh": 0.01, "curves": curves,
    }  # fmt: skip
    return OfferMessage.model_validate(values)


async def test_an_award_is_cleared_on_the_curves_of_its_offer_and_reaches_the_child_with_the_same_decision(
    broker: MqttBroker, tmp_path: Path
) -> None:
    async with (
        layer(broker, tmp_path / "child") as below,
        parent(broker) as driver,
        upper(broker, tmp_path / "upper") as above,
        aiomqtt.Client(broker.host, broker.port) as operator,
    ):
        assert await driver.until_answered(driver.ask(0.0)) == "acknowledged"
        above.plant.run(2.0, FREE)
        begin_s = round(time.time() + 30.0)
        above.planner.take(encode(planned_interval(begin_s)))
        made = above.offer()
        assert len(made.intervals) == 2
        # The interval has begun.
        above.planner.utc = above.planner.offers.utc = lambda: time.time() + 40.0
        award = DispatchOrder(id="award", issued_at=datetime.now(UTC), epoch=0, net_power_w=AWARD_W, offer_id=made.id)
        await operator.publish(down_topic(UPPER, OPERATOR, Down.DISPATCH), award.model_dump_json(exclude_none=True), 1)
        async with asyncio.timeout(5.0):
            await above.woken.wait()
        # One cycle: what holds, one decision, and the shares go out.
        orders = above.planner.direct(replace(above.orders.in_force(), fallback_reason=""))
        decision = above.plant.cycle(orders)
        assert decision.lambda_per_kwh is not None
        asked = {one.device: one.power_w for one in decision.setpoints}
        answer = driver.ask(asked["child"], decision.lambda_per_kwh)
        assert await driver.until_answered(answer) == "acknowledged"

        assert below.asked_w == pytest.approx(asked["child"], abs=0.1)
        assert orders.plan is not None
        assert orders.plan.source == "offer campus-1"
        curves = dict(orders.plan.curves)
        rest_w = ((decision.rest_lower_w or 0.0) + (decision.rest_upper_w or 0.0)) / 2.0
        shares = clear([Bid(curves["child"], -20e3, 30e3), Bid(curves["battery"], -20e3, 20e3)], AWARD_W - rest_w)
        assert asked["child"] == pytest.approx(shares.shares_w[0], abs=400.0)
        assert sum(asked.values()) == pytest.approx(AWARD_W - rest_w, abs=400.0)
        told = below.book.in_force().dispatch
        assert told is not None
        assert told.lambda_per_kwh == pytest.approx(decision.lambda_per_kwh, abs=1e-5)
