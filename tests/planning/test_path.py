"""The path of prices ahead: announced in rounds until it stands, remembered below, and planned against."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("cvxpy")

from config.planning import InterchangePrices, OfferSettings, PathSettings, PriceBand
from config.vocabulary import Quantity
from gateway.planning.messages import ChildInterval, ChildState, DispatchState, LimitState, OfferMessage
from gateway.planning.path import PathAhead, PathHeard
from gateway.planning.planner import Planner
from tests.planning.states import NOON_S, battery, connection, planning, state

STEP_S = 900.0


def path(**settings: Any) -> PathAhead:
    return PathAhead(PathSettings(**settings), STEP_S)


def test_it_goes_half_of_the_way_in_each_round_and_stands_when_it_moves_no_more() -> None:
    ahead = path(tolerance_per_kwh=0.01, rounds=10)
    assert ahead.take(NOON_S, (0.2, 0.2, 0.2), NOON_S)
    assert list(ahead.prices) == [NOON_S + STEP_S, NOON_S + 2 * STEP_S]
    told = []
    for _ in range(8):
        ahead.take(NOON_S, (0.2, 0.6, 0.2), NOON_S)
        told.append(ahead.prices[NOON_S + STEP_S])
    assert told[:3] == pytest.approx([0.4, 0.5, 0.55])
    assert told[-1] == told[-2] > 0.59
    assert ahead.rounds == 6


def test_a_path_that_swings_is_left_after_the_stated_number_of_rounds() -> None:
    ahead = path(rounds=3)
    ahead.take(NOON_S, (0.2,) * 3, NOON_S)
    moved = [ahead.take(NOON_S, ((0.2, 0.6)[at % 2],) * 3, NOON_S) for at in range(1, 8)]
    assert moved == [True, True, True, False, False, False, False]
    # In the next interval it may go on, and is longer by a step in any case.
    assert ahead.take(NOON_S + STEP_S, (0.2,) * 3, NOON_S + STEP_S)
    assert max(ahead.prices) == NOON_S + 3 * STEP_S
    assert min(ahead.prices) == NOON_S + 2 * STEP_S


def share(from_s: float, *prices: float) -> DispatchState:
    return DispatchState(
        net_power_w=1e3, regulation_up_w=0.0, regulation_down_w=0.0, from_utc_s=from_s, until_utc_s=None,
        lambda_per_kwh=0.5, path_per_kwh=prices, until_replaced=True,
    )  # fmt: skip


def test_a_path_is_remembered_from_share_to_share_and_moves_on_with_the_clock() -> None:
    heard = PathHeard(STEP_S)
    heard.hear((0.1, 0.2, 0.3), NOON_S + 20.0)
    heard.hear((), NOON_S + 30.0)
    assert heard.fill(share(NOON_S + 60.0)).path_per_kwh == (0.1, 0.2, 0.3)
    assert heard.fill(share(NOON_S + STEP_S + 5.0)).path_per_kwh == (0.2, 0.3)
    assert heard.fill(share(NOON_S + 9 * STEP_S)).path_per_kwh == ()
    heard.forget()
    assert heard.fill(share(NOON_S + 60.0)).path_per_kwh == ()


def test_a_share_until_replaced_asks_for_the_present_step_and_its_path_for_those_to_come() -> None:
    flat = InterchangePrices(import_per_kwh=0.3, export_per_kwh=0.3)
    given = state(
        utc_s=NOON_S + 60.0, dispatches=(share(NOON_S + 30.0, 0.1, 0.9),), planning=planning(interchange=flat)
    )
    plan = Planner(None).plan(given)
    assert plan.series.import_per_kwh[:4] == pytest.approx((0.5, 0.1, 0.9, 0.3))
    assert plan.series.net_w[1] != pytest.approx(1e3), "nobody has asked for anything there"


def test_the_path_of_a_parent_and_its_child_comes_to_stand() -> None:
    """The child fills the parent's cheap hour up to its limit and no further, once it has heard what that costs."""
    child, parent, ahead = Planner(None), Planner(None), path(rounds=12, tolerance_per_kwh=0.003)
    limit = LimitState(
        quantity=Quantity.NET_IMPORT_W, value=12e3, from_utc_s=NOON_S + 900.0, until_utc_s=NOON_S + 2700.0
    )
    cheap = InterchangePrices(
        import_per_kwh=0.3,
        export_per_kwh=0.3,
        bands=(PriceBand(from_h=12.25, until_h=12.75, import_per_kwh=0.1, export_per_kwh=0.1),),
    )
    heard, moved = PathHeard(STEP_S), []
    for number in range(1, 10):
        utc_s = NOON_S + number
        below = state(
            id=number, utc_s=utc_s, rest_w=6e3, sun_rating_w=0.0, batteries=(battery(),), offers=True,
            dispatches=(heard.fill(share(utc_s)),), connection=connection(rating_w=50e3),
            planning=planning(
                interchange=InterchangePrices(import_per_kwh=0.3, export_per_kwh=0.3),
                offer=OfferSettings(intervals=4, every_s=1.0),
            ),
        )  # fmt: skip
        child.plan(below)
        offers = [work for work in child.offers() if isinstance(work, OfferMessage)]
        above = state(
            id=number, utc_s=utc_s, rest_w=1e3, sun_rating_w=0.0, children=(as_child(offers),), limits=(limit,),
            planning=planning(interchange=cheap),
        )  # fmt: skip
        plan = parent.plan(above)
        assert "the import limit" not in plan.given_up
        ahead.take(plan.begin_utc_s, plan.series.lambda_per_kwh, utc_s)
        moved.append(ahead.moved_per_kwh or 0.0)
        heard.hear(tuple(ahead.prices[at] for at in sorted(ahead.prices)), utc_s)
        if number > 1 and moved[-1] <= ahead.settings.tolerance_per_kwh:
            break
    assert moved[-1] <= ahead.settings.tolerance_per_kwh, moved
    assert plan.series.net_w[1] == pytest.approx(12e3, abs=600.0)


def as_child(offers: list[OfferMessage]) -> ChildState:
    """As the parent knows it: by its offers alone."""
    told = [
        ChildInterval(
            prices_per_kwh=one.prices_per_kwh, powers_w=one.powers_w, lower_w=one.lower_w, upper_w=one.upper_w
        )
        for one in offers
    ]
    base = (6e3, *(one.forecast_w[1] for one in offers))
    return ChildState(
        name="house", begin_utc_s=NOON_S, base_w=base + base[-1:] * 12, intervals=(None, *told),
        energy_up_wh=offers[0].energy_up_wh, energy_down_wh=offers[0].energy_down_wh,
    )  # fmt: skip
