"""A kilowatt promised twice: the second award is refused with its reason, and told upward as a compliance state."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from config.messages import DispatchOrder
from gateway.orders.admission import Refused
from gateway.orders.book import OrderBook
from gateway.orders.held import ParentState
from gateway.parent.aggregate import compliance
from tests.layers.messages import NOW, interval, offer
from tests.layers.test_child_resource import FREE, tier

LATER = NOW + timedelta(seconds=300)


def book() -> OrderBook:
    """A layer with two parents, which has offered -20 to 30 kW now and -5 to 10 kW in five minutes."""
    made = OrderBook(
        100e3, {"dso": ParentState(60.0, True), "market": ParentState(60.0, False)}, lambda: 0.0, NOW.timestamp
    )
    small = interval(LATER, -5e3, 10e3)
    made.promises.told(offer(NOW, interval(NOW), small, id="o-1"))
    return made


def award(order_id: str, net_w: float, **changes: Any) -> DispatchOrder:
    values: dict[str, Any] = {
        "id": order_id, "issued_at": NOW, "epoch": 0, "net_power_w": net_w, "offer_id": "o-1", "start": LATER,
        "duration_s": 300.0,
    }  # fmt: skip
    return DispatchOrder(**(values | changes))


def refusal(of: OrderBook, source: str, order: DispatchOrder) -> str:
    with pytest.raises(Refused) as caught:
        of.take_dispatch(source, order)
    return str(caught.value)


@pytest.mark.parametrize(
    ("net_w", "changes"),
    [
        (9e3, {}),
        (9e3, {"regulation_down_w": 1e3, "regulation_up_w": 10e3}),
        # The grid and its error are no broken promise.
        (11e3, {}),
        (29e3, {"start": None}),
    ],
)
def test_an_award_inside_the_offer_is_taken(net_w: float, changes: dict[str, Any]) -> None:
    held = book()
    if changes.get("start", LATER) is None:
        changes = changes | {"duration_s": 200.0}
    held.take_dispatch("dso", award("a", net_w, **changes))
    assert not held.promises.stands(NOW.timestamp())


@pytest.mark.parametrize(
    ("net_w", "changes", "words"),
    [
        (20e3, {}, "20000 to 20000 W is beyond the -5000 to 10000 W that o-1 offers"),
        (9e3, {"regulation_down_w": 5e3}, "9000 to 14000 W with its reserve is beyond"),
        (-4e3, {"regulation_up_w": 5e3}, "-9000 to -4000 W with its reserve is beyond"),
        (29e3, {"start": NOW, "duration_s": 400.0}, "beyond the -5000 to 10000 W"),
    ],
)
def test_an_award_or_its_reserve_beyond_what_was_offered_is_refused(
    net_w: float, changes: dict[str, Any], words: str
) -> None:
    held = book()
    held.take_dispatch("dso", award("first", 5e3))
    assert words in refusal(held, "dso", award("second", net_w, **changes))
    assert [one.message.id for one in held.held()] == ["first"], "what was promised before stands"
    assert held.promises.count == 1
    assert held.promises.stands(NOW.timestamp())
    assert held.promises.stands((LATER + timedelta(seconds=90)).timestamp())
    assert not held.promises.stands((LATER + timedelta(seconds=1000)).timestamp())


def test_a_second_markets_award_for_the_same_time_is_refused_and_told() -> None:
    held = book()
    held.take_dispatch("dso", award("first", 5e3))
    assert "no dispatch authority" in refusal(held, "market", award("second", 5e3))
    assert held.promises.reason == "promised twice: dso holds first for the same time"
    assert [one.message.id for one in held.held()] == ["first"]
    other = book()
    other.take_dispatch("dso", award("first", 5e3))
    refusal(other, "market", award("second", 5e3, start=LATER + timedelta(seconds=300)))
    assert other.promises.count == 0, "another time is another kilowatt"


def test_an_award_for_ever_does_not_mark_the_layer_for_ever() -> None:
    held = book()
    refusal(held, "dso", award("second", 20e3, duration_s=1e6))
    assert not held.promises.stands((NOW + timedelta(seconds=3601)).timestamp())


def test_a_share_of_the_control_cycle_and_an_unknown_offer_are_no_awards() -> None:
    held = book()
    held.take_dispatch("dso", award("share", 40e3, start=None, duration_s=None))
    held.take_dispatch("dso", award("unknown", 40e3, offer_id="o-9"))
    assert held.promises.count == 0


def test_it_is_a_compliance_state_that_names_no_device() -> None:
    decision = tier().cycle(FREE)
    assert decision.unmet == ()
    told = compliance(decision, promised_twice=True)
    assert (told.state, told.reason) == ("bypassed", "a kilowatt was promised twice; the second award is refused")
