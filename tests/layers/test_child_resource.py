"""A layer below in control: shared with by its offer, held flat without one, reserved for when it is lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest

from config.vocabulary import (
    AUTHORITY,
    AUTHORITY_HELD,
    OFFER_CURVE,
    OFFER_LOWER_W,
    OFFER_RESPONSE_S,
    OFFER_UPPER_W,
    DeviceKind,
    Quality,
    Quantity,
    Sample,
)
from gateway.control.clearing import make_curve
from gateway.control.model import DeviceModel
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce
from gateway.control.resources import Resource
from gateway.image import DeviceImage, Image
from gateway.recording import Recorder, header, replay
from tests.control.plant import Plant, device, site

FREE = OrdersInForce()
FLAT = make_curve([(0.0, 0.0)])
CHILD = DeviceModel("child", DeviceKind.LAYER, 50e3, -50e3, 50e3, FLAT, tr90_s=0.3, reverts_by_s=3.0, stale_after_s=3.5)
BATTERY = device("battery", DeviceKind.BATTERY, 20e3)
CURVE = ((0.0, 30e3), (0.5, -20e3))


def imports_at_most(limit_w: float) -> OrdersInForce:
    return OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.NET_IMPORT_W, limit_w),))


def asks_for(net_w: float, price: float | None = None) -> OrdersInForce:
    return OrdersInForce(dispatch=DispatchInForce("dso", "d", net_w, 0.0, None, 0.0, 0.0, price))


@dataclass
class Tier(Plant):
    """A plant with a layer below in it."""

    curve: Iterable[tuple[float, float]] | None = CURVE
    lower_w: float = -20e3
    upper_w: float = 30e3
    authority: str = AUTHORITY_HELD
    response_s: float = 0.3
    images: list[Image] = field(default_factory=list)

    def image(self) -> Image:
        image = super().image()
        child = image.devices["child"]
        if child.present:
            child = DeviceImage({**child.samples, **self._told()}, True)
        image = Image(image.now_s, MappingProxyType({**image.devices, "child": child}))
        self.images.append(image)
        return image

    def _told(self) -> dict[str, Sample]:
        told: dict[str, float | str | None] = {AUTHORITY: self.authority}
        offered = self.curve is not None
        told[OFFER_CURVE] = json.dumps(list(self.curve or ())) if offered else None
        told |= {OFFER_LOWER_W: self.lower_w, OFFER_UPPER_W: self.upper_w, OFFER_RESPONSE_S: self.response_s}
        quality = {True: Quality.GOOD, False: Quality.BAD}
        return {
            name: Sample(value if offered or name == AUTHORITY else None, quality[value is not None], self.now_s)
            for name, value in told.items()
        }

    @property
    def child(self) -> Resource:
        assert self.decision is not None
        return next(one for one in self.decision.resources if one.model.name == "child")


def tier(**changes: object) -> Tier:
    return Tier(site(CHILD, BATTERY), **changes)  # type: ignore[arg-type]


def test_its_offer_is_its_curve_and_its_bounds() -> None:
    plant = tier()
    plant.run(3.0, FREE)
    # At the site's price of 0.25 its curve takes half way between 30 and -20 kW.
    assert plant.setpoints_w["child"] == pytest.approx(5e3)
    assert (plant.child.lower, plant.child.upper) == ((-20e3, "its offer"), (30e3, "its offer"))


def test_a_dispatch_from_above_is_passed_on_in_the_same_cycle() -> None:
    plant = tier()
    plant.run(3.0, FREE)
    decision = plant.cycle(asks_for(40e3))
    asked = {one.device: one.power_w for one in decision.setpoints}
    assert sum(asked.values()) == pytest.approx(30e3, abs=300), "10 kW are the uncontrolled rest's"
    assert asked["child"] > 15e3
    plant.run(3.0, asks_for(40e3))
    assert plant.net_w == pytest.approx(40e3, abs=300)


def test_a_limit_that_binds_is_shared_by_clearing_and_the_envelope_is_kept() -> None:
    plant = tier()
    plant.run(4.0, imports_at_most(0.0))
    assert plant.net_w <= 0.0
    assert plant.setpoints_w["child"] > -20e3
    plant.run(4.0, asks_for(-60e3))
    assert plant.setpoints_w["child"] == pytest.approx(-20e3), "no more than it offers is asked of it"


def test_without_an_offer_it_stays_where_it_is_and_is_the_last_to_be_asked() -> None:
    plant = tier()
    plant.run(3.0, asks_for(20e3))
    here_w = plant.powers_w["child"]
    plant.curve = None
    plant.run(5.0, FREE)
    assert plant.setpoints_w["child"] == pytest.approx(here_w, abs=10)
    # The battery does what it can, and the limit is kept all the same.
    plant.run(4.0, imports_at_most(-30e3 + here_w))
    assert plant.net_w <= -30e3 + here_w
    assert plant.setpoints_w["battery"] == pytest.approx(-20e3)
    assert plant.setpoints_w["child"] < here_w


def test_nothing_is_shared_with_a_layer_that_somebody_else_dispatches() -> None:
    plant = tier(authority="refused: aggregator has")
    plant.powers_w["child"] = 8e3
    plant.setpoints_w["child"] = 8e3
    decision = plant.cycle(imports_at_most(5e3))
    assert [one.device for one in decision.setpoints] == ["battery"]
    assert plant.child.lower.source == "authority is not held"
    plant.run(3.0, imports_at_most(5e3))
    assert plant.net_w <= 5e3, "its power is part of the rest"


def test_the_envelope_of_a_lost_layer_is_reserved_until_its_own_fallback_holds() -> None:
    limit = imports_at_most(30e3)
    plant = tier(rest_w=5e3)
    plant.run(4.0, asks_for(20e3))
    there_w = plant.powers_w["battery"]
    plant.lost.add("child")
    plant.deaf.add("child")
    plant.run(0.5, limit)
    # It may go up to the 30 kW that it offered: the battery makes room for that before it happens.
    assert plant.setpoints_w["battery"] < min(there_w, 0.0)
    assert plant.child.model.reverted_w == (-20e3, 30e3)
    plant.run(6.0, limit)
    assert plant.net_w == pytest.approx(plant.powers_w["child"] + plant.powers_w["battery"] + 5e3)
    assert plant.setpoints_w["battery"] > -1.0, "what it does from then on is the measured rest's"


def test_a_layer_that_does_not_deliver_is_measured_and_others_take_its_share() -> None:
    plant = tier()
    plant.run(3.0, FREE)
    plant.deaf.add("child")
    plant.run(20.0, asks_for(25e3))
    assert plant.child.lower.source == "does not follow"
    assert plant.net_w == pytest.approx(25e3, abs=500)


def test_its_own_response_is_believed_where_it_is_slower() -> None:
    plant = tier(response_s=2.0)
    plant.run(0.3, FREE)
    assert plant.child.model.response_s == pytest.approx(2.0)
    plant.response_s = 0.1
    plant.run(0.3, FREE)
    assert plant.child.model.response_s == pytest.approx(0.3)


def test_garbage_in_place_of_a_curve_is_no_offer() -> None:
    plant = tier()
    plant.run(1.0, FREE)
    plant.curve = ((0.5, 1.0), (0.0, 5.0))
    plant.cycle(FREE)
    assert plant.child.lower.source == "site file"


def test_what_was_decided_with_a_layer_can_be_decided_again() -> None:
    plant, recorder = tier(), Recorder()
    lines = [json.dumps(header(plant.model))]
    for orders in (FREE, asks_for(30e3), imports_at_most(3e3)):
        for _ in range(10):
            decision = plant.cycle(orders)
            lines.append(json.dumps(recorder.take(plant.images[-1], orders, decision)))
    assert [each.differs for each in replay(plant.model, lines)] == [""] * 30
