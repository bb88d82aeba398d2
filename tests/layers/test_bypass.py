"""Tier bypass: somebody commands a device or a layer behind this layer's back, and it is noticed and told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config.vocabulary import BYPASS, COMPLIANCE, POWER_W, Quality, Sample
from gateway.control.orders_in_force import OrdersInForce
from gateway.image import DeviceImage, Image
from gateway.parent.aggregate import compliance
from gateway.readback import Difference
from gateway.tier_bypass import BypassWatch
from tests.layers.test_child_resource import FREE, Tier, asks_for, tier


def watched(plant: Tier, seconds: float, orders: OrdersInForce, watch: BypassWatch, **told: str) -> list[str]:
    """What is noticed for the first time while the plant runs; `told` are texts that the child's driver adds."""
    signs = []
    for _ in range(round(seconds / plant.period_s)):
        decision = plant.cycle(orders)
        image = plant.images[-1]
        samples = {name: Sample(text, Quality.GOOD, image.now_s) for name, text in told.items()}
        child = DeviceImage({**image.devices["child"].samples, **samples}, True)
        signs += watch.look(Image(image.now_s, {**image.devices, "child": child}), decision, ())
    return [text for _, text in signs]


def pushed(plant: Tier, power_w: float) -> None:
    """Somebody else moves the child, whatever it is asked for."""
    plant.powers_w["child"] = power_w
    plant.deaf.add("child")


def test_a_layer_that_does_as_it_is_told_raises_nothing() -> None:
    plant, watch = tier(), BypassWatch()
    for orders in (FREE, asks_for(30e3), asks_for(-10e3), FREE):
        assert watched(plant, 6.0, orders, watch) == []


def test_a_layer_that_leaves_its_dispatch_moves_against_it() -> None:
    plant, watch = tier(), BypassWatch()
    watched(plant, 5.0, FREE, watch)
    pushed(plant, 20e3)
    (text,) = watched(plant, 6.0, FREE, watch)
    assert text == "child moves against its setpoint: 20000 W, 5000 W was asked for"
    assert dict(watch.found) == {"child": text}


def test_a_layer_that_says_itself_that_it_cannot_is_excused() -> None:
    plant, watch = tier(), BypassWatch()
    watched(plant, 5.0, FREE, watch)
    pushed(plant, 20e3)
    assert watched(plant, 6.0, FREE, watch, **{COMPLIANCE: "unmet"}) == []


def test_what_the_driver_has_noticed_is_passed_on_and_taken_back() -> None:
    plant, watch = tier(), BypassWatch()
    (text,) = watched(plant, 1.0, FREE, watch, **{BYPASS: "it follows x-1, which this gateway did not give"})
    assert text == "child: it follows x-1, which this gateway did not give"
    assert watched(plant, 1.0, FREE, watch, **{BYPASS: ""}) == []
    assert dict(watch.found) == {}


def test_a_read_back_that_differs_is_a_sign_and_a_wrong_rating_is_none() -> None:
    plant, watch = tier(), BypassWatch()
    decision = plant.cycle(FREE)
    written = Difference("battery", "setpoint_w", 5000.0, 1000.0)
    rating = replace_written(written)
    (found,) = watch.look(plant.images[-1], decision, [written, rating])
    assert found == ("battery", "battery: setpoint_w reads 1000, 5000 was written")


def replace_written(difference: Difference) -> Difference:
    return difference._replace(device="other", was_written=False)


@pytest.mark.parametrize(
    ("unmet", "bypassed", "state"), [(False, True, "bypassed"), (True, True, "unmet"), (False, False, "compliant")]
)
def test_it_is_told_upward_as_a_compliance_state_that_names_no_device(unmet: bool, bypassed: bool, state: str) -> None:
    plant = tier()
    decision = replace(plant.cycle(FREE), unmet=("the order",) if unmet else ())
    told = compliance(decision, bypassed=bypassed)
    assert told.state == state
    assert "child" not in told.reason
    assert POWER_W not in told.reason
