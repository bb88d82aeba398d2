"""Offers made by the plan: the curve holds what it says on random sites, and its parts add up to it."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pytest

pytest.importorskip("cvxpy")

from hypothesis import given as given_any
from hypothesis import strategies as st

from config.planning import InterchangePrices, OfferSettings, StorageSettings
from config.price import AddedForm, InterchangeForm, SpreadForm
from gateway.control.clearing import Bid, clear, make_curve
from gateway.planning.forecast import Band
from gateway.planning.messages import OfferMessage, OutlookMessage, StateMessage
from gateway.planning.model import PlanInput
from gateway.planning.offering import OfferRound, at_begin, never_rising, next_begin_s
from gateway.planning.problem import PlanProblem, Shape
from gateway.planning.site_input import plan_input
from tests.planning.states import NOON_S, battery, car, connection, planning, state

SITES = int(os.environ.get("LAMINA_OFFER_SITES", "8"))
"""LAMINA_OFFER_SITES=200 makes the whole check."""

HELD_PRICES = 6
ONE = planning(offer=OfferSettings(intervals=1))


class Made(NamedTuple):
    """A round's first interval, and what it was made from; `problem` is the site's own, not the round's."""

    state: StateMessage
    given: PlanInput
    offer: OfferMessage
    outlook: OutlookMessage | None
    problem: PlanProblem


def made(state_: StateMessage, load_w: list[float], sun_w: list[float]) -> Made:
    load = Band(*(tuple(load_w) for _ in range(3)))
    sun = Band(*(tuple(sun_w) for _ in range(3)))
    given, _ = plan_input(state_, load, sun)
    round_ = OfferRound(state_, given, [(500.0, 1000.0)] * given.steps)
    found = [one for one in round_.run(PlanProblem(round_.shape())) if one is not None]
    assert isinstance(found[0], OfferMessage)
    outlook = found[-1] if isinstance(found[-1], OutlookMessage) else None
    return Made(state_, given, found[0], outlook, PlanProblem(Shape.of(given)))


def random_site(seed: int, form: InterchangeForm | None = None) -> Made:
    rng = random.Random(seed)
    hours = rng.choice((3, 4, 6))
    exports = rng.uniform(-0.02, 0.12)
    interchange = InterchangePrices(
        import_per_kwh=exports + rng.choice((0.0, 0.05, 0.22)), export_per_kwh=exports, cost=form or SpreadForm()
    )
    settings = planning(
        horizon_h=hours, interchange=interchange, offer=OfferSettings(intervals=1, price_step_per_kwh=0.01)
    )
    batteries = tuple(
        battery(
            name=f"b{at}",
            capacity_wh=rng.uniform(3e3, 40e3),
            soc=rng.uniform(0.1, 0.9),
            charge_w=rng.uniform(1e3, 15e3),
            discharge_w=rng.uniform(1e3, 15e3),
            settings=StorageSettings(
                charge_efficiency_pu=rng.uniform(0.9, 0.99),
                wear_per_kwh=rng.choice((0.0, 0.01, 0.03)),
                target_soc=rng.choice((None, 0.5, 0.8)),
            ),
        )
        for at in range(rng.randint(0, 3))
    )
    cars = tuple(
        car(name=f"c{at}", needed_wh=rng.uniform(1e3, 20e3), leaves_utc_s=NOON_S + rng.uniform(0.3, 6.0) * 3600.0)
        for at in range(rng.randint(0, 3))
    )
    given_ = state(planning=settings, batteries=batteries, cars=cars, connection=connection(rating_w=60e3))
    steps = hours * 4
    load_w = [rng.uniform(0.0, 12e3) for _ in range(steps)]
    sun_w = [rng.uniform(0.0, 25e3) for _ in range(steps)]
    return made(given_, load_w, sun_w)


def taken_w(site: Made, price: float, added: float = 0.0) -> float:
    """What the site takes in the interval if the parent's price is this, by its program alone, spread and all."""
    tariff = site.given.tariff
    spread = (tariff.import_per_kwh[0] - tariff.export_per_kwh[0]) / 2.0
    imports = (price + added + spread, *tariff.import_per_kwh[1:])
    exports = (price + added - spread, *tariff.export_per_kwh[1:])
    changed = replace(tariff, import_per_kwh=imports, export_per_kwh=exports)
    return site.problem.solve(replace(site.given, tariff=changed)).net_w[0]


def excess_w(offer: OfferMessage, price: float, power_w: float) -> float:
    """By how much a power lies outside of what the offer says of its price, within its step of price."""
    curve = make_curve(list(zip(offer.prices_per_kwh, offer.powers_w, strict=True)))
    held_w = min(max(power_w, offer.lower_w), offer.upper_w)
    most_w = curve.limits_at(price - offer.price_step_per_kwh)[0]
    least_w = curve.limits_at(price + offer.price_step_per_kwh)[1]
    return max(held_w - most_w, least_w - held_w, 0.0)


@pytest.mark.parametrize("seed", range(SITES))
def test_the_error_is_within_what_the_offer_says(seed: int) -> None:
    added = 0.03 if seed % 3 == 1 else 0.0
    form = AddedForm(form="lmp_plus_d", distribution_per_kwh=added) if added else None
    site, rng = random_site(seed, form), random.Random(-seed)
    offer = site.offer
    assert len(offer.prices_per_kwh) <= 20
    assert list(offer.prices_per_kwh) == sorted(offer.prices_per_kwh)
    assert list(offer.powers_w) == sorted(offer.powers_w, reverse=True)
    for _ in range(HELD_PRICES):
        price = rng.uniform(offer.prices_per_kwh[0], offer.prices_per_kwh[-1])
        power_w = taken_w(site, price, added)
        assert excess_w(offer, price, power_w) <= offer.error_w + 1.0, price
    on_grid = (*offer.powers_w, offer.lower_w, offer.upper_w, offer.regulation_up_w, offer.regulation_down_w)
    assert all(abs(number / 600.0 - round(number / 600.0)) < 1e-9 for number in on_grid)


@pytest.mark.parametrize("seed", range(3))
def test_a_dispatch_inside_the_offer_is_met_by_clearing_the_curves_that_made_it(seed: int) -> None:
    site = random_site(seed + 100)
    offer, rest_w = site.offer, site.given.load_w[0] - site.given.solar[0].available_w[0]
    bids = []
    for one in offer.curves:
        curve = make_curve(list(zip(one.prices_per_kwh, one.powers_w, strict=True)))
        bids.append(Bid(curve, min(one.powers_w), max(one.powers_w)))
    if not bids:
        return
    least_w, most_w = rest_w + sum(bid.lower_w for bid in bids), rest_w + sum(bid.upper_w for bid in bids)
    spread = (site.given.tariff.import_per_kwh[0] - site.given.tariff.export_per_kwh[0]) / 2.0
    for price, power_w in zip(offer.prices_per_kwh, offer.powers_w, strict=True):
        if not least_w < power_w < most_w or price < 0.05:
            continue
        found = clear(bids, power_w - rest_w)
        assert found.total_w == pytest.approx(power_w - rest_w, abs=1.0)
        # The local price is the parent's with the interchange's marginal cost on it, in a grid's step or two.
        side = spread if power_w > 0.0 else -spread
        took_w = taken_w(site, found.lambda_per_kwh - side)
        assert excess_w(offer, price, took_w) <= 2.0 * offer.error_w + 1.0 or abs(power_w) < 600.0


rows_of_powers = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.floats(-1e5, 1e5), min_size=width, max_size=width), min_size=2, max_size=12)
)


@given_any(rows_of_powers)
def test_parts_that_may_not_rise_keep_their_sum(rows: list[list[float]]) -> None:
    falling = sorted(rows, key=sum, reverse=True)
    found = never_rising(falling)
    for before, after in pairwise(found):
        assert all(b <= a for a, b in zip(before, after, strict=True))
    for wanted, got in zip(falling, found, strict=True):
        assert sum(got) == pytest.approx(sum(wanted), abs=1e-6)


def test_the_envelope_the_energies_and_the_capacity_fit_each_other() -> None:
    site = made(
        state(batteries=(battery(soc=0.5),), planning=ONE, connection=connection(rating_w=50e3)),
        [4e3] * 16, [0.0] * 16,
    )  # fmt: skip
    offer = site.offer
    assert (offer.lower_w, offer.upper_w) == (-6e3, 14e3)
    assert (offer.energy_up_wh, offer.energy_down_wh) == (9e3, 9e3)
    assert offer.forecast_w[0] <= offer.forecast_w[1] <= offer.forecast_w[2]
    base_w = offer.forecast_w[1]
    assert base_w - offer.regulation_up_w >= offer.lower_w - 500.0
    assert base_w + offer.regulation_down_w <= offer.upper_w + 500.0
    assert offer.regulation_up_w > 0.0
    assert offer.regulation_price_per_kwh is not None
    assert site.outlook is not None
    assert len(site.outlook.p50_w) == 16 - 1
    assert site.outlook.begin_utc_s == site.state.utc_s + 900.0


def test_a_site_with_nothing_to_choose_offers_what_it_takes() -> None:
    site = made(state(planning=ONE, sun_rating_w=0.0), [4e3] * 16, [0.0] * 16)
    assert set(site.offer.powers_w) == {4e3}
    assert (site.offer.lower_w, site.offer.upper_w) == (4e3, 4e3)
    assert site.offer.regulation_price_per_kwh is None


def test_other_devices_with_the_same_aggregate_offer_the_same() -> None:
    whole = {"capacity_wh": 40e3, "charge_w": 20e3, "discharge_w": 20e3}
    parts = {name: value / 4.0 for name, value in whole.items()}
    told = []
    for batteries in ((battery(**whole),), tuple(battery(name=f"b{at}", **parts) for at in range(4))):
        given_ = state(planning=ONE, batteries=batteries, connection=connection(rating_w=60e3))
        offer = made(given_, [4.3e3] * 16, [1.1e3] * 16).offer
        told.append(offer.model_dump(exclude={"curves", "solves"}))
    assert told[0] == told[1]


def test_a_load_beyond_the_connection_is_offered_at_the_connections_limit() -> None:
    given_ = state(planning=ONE, batteries=(battery(),), connection=connection(max_import_w=20e3, rating_w=50e3))
    site = made(given_, [45e3] * 16, [0.0] * 16)
    assert site.offer.upper_w == 20e3
    assert max(site.offer.powers_w) <= 20e3


def test_the_state_at_an_intervals_begin_is_what_the_plan_makes_of_it() -> None:
    given_ = state(
        utc_s=NOON_S + 300.0, batteries=(battery(),), cars=(car(), car(name="gone", leaves_utc_s=NOON_S + 400))
    )
    begin_s = next_begin_s(given_.utc_s, 900.0)
    assert begin_s == NOON_S + 900.0
    given, _ = plan_input(given_, *(Band(*((1e3,) * 16 for _ in range(3))) for _ in range(2)))
    plan = PlanProblem(Shape.of(given)).solve(given)
    later = at_begin(given_, plan, begin_s)
    planned = {one.name: one for one in plan.resources}
    stored = planned["battery"].stored_wh
    assert later.utc_s == begin_s
    assert later.batteries[0].soc * 20e3 == pytest.approx(stored[0] + (stored[1] - stored[0]) * 2.0 / 3.0)
    assert [one.name for one in later.cars] == ["car"]
    assert later.cars[0].needed_wh == pytest.approx(10e3 - planned["car"].power_w[0] / 6.0)
