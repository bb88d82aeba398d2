"""From what control says to the program's numbers: limits, dispatches and prices at their times."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.planning import InterchangePrices, Planning, PriceBand, ReserveSettings
from config.strict import BrokenRulesError
from config.vocabulary import Quantity
from gateway.planning.curves import SLOPE_PER_KWH, battery_curve, taker_curve
from gateway.planning.forecast import Band
from gateway.planning.messages import DispatchState, LimitState, StateMessage
from gateway.planning.model import BatteryPlan, PlanInput
from gateway.planning.site_input import plan_input
from tests.planning.states import NOON_S, battery, car, connection, planning, state

HOUR_S = 3600.0


def made(given_: StateMessage) -> PlanInput:
    steps = given_.planning.steps
    flat = Band(*((1e3,) * steps for _ in range(3)))
    sun = Band(*((20e3,) * steps for _ in range(3)))
    return plan_input(given_, flat, sun)[0]


def limit(quantity: Quantity, value: float | str, from_h: float, until_h: float | None, **more: Any) -> LimitState:
    until = None if until_h is None else NOON_S + until_h * HOUR_S
    values = {"quantity": quantity, "value": value, "from_utc_s": NOON_S + from_h * HOUR_S, "until_utc_s": until}
    return LimitState(**values, **more)


def dispatch(from_h: float, until_h: float | None, **more: Any) -> DispatchState:
    values: dict[str, Any] = {
        "net_power_w": 5e3,
        "regulation_up_w": 0.0,
        "regulation_down_w": 0.0,
        "lambda_per_kwh": None,
        "path_per_kwh": (),
        "from_utc_s": NOON_S + from_h * HOUR_S,
        "until_utc_s": None if until_h is None else NOON_S + until_h * HOUR_S,
    }
    return DispatchState(**(values | more))


def test_limits_hold_from_their_start_to_their_end() -> None:
    limits = (
        limit(Quantity.NET_IMPORT_W, 8e3, 1.0, 2.0),
        limit(Quantity.NET_EXPORT_W, 3e3, 3.0, None),
        limit(Quantity.GENERATION_W, 6e3, 0.0, 1.0),
        limit(Quantity.CURRENT_PER_PHASE_A, 10.0, 2.0, 3.0),
    )
    given_ = made(state(limits=limits))
    assert given_.import_limit_w[::4] == (50e3, 8e3, 6.9e3, 50e3)
    assert given_.export_limit_w[::4] == (40e3, 40e3, 6.9e3, 3e3)
    assert [one.available_w[::4] for one in given_.solar] == [(6e3, 20e3, 20e3, 20e3)]
    assert given_.problems() == []


def test_the_fallback_holds_while_nobody_is_heard_and_where_an_order_says_so() -> None:
    lost = made(state(connection=connection(fallback_holds=True)))
    assert set(lost.import_limit_w) == {10e3}
    assert set(lost.export_limit_w) == {40e3}, "the fallback leaves export open"
    unknown = limit(Quantity.NET_IMPORT_W, "unknown", 1.0, 2.0)
    then = limit(Quantity.NET_IMPORT_W, "unlimited", 2.0, 3.0, then_fallback=True)
    assert made(state(limits=(unknown, then))).import_limit_w[::4] == (50e3, 10e3, 50e3, 10e3)


def test_what_a_plan_cannot_say_is_named() -> None:
    given_ = state(limits=(limit(Quantity.CONTROLLABLE_LOAD_W, 4e3, 0.0, None),))
    flat = Band(*((1e3,) * given_.planning.steps for _ in range(3)))
    assert plan_input(given_, flat, flat)[1] == {"a limit on controllable_load_w is left to control"}


def test_a_dispatch_is_promised_and_its_regulation_is_kept_free() -> None:
    orders = (dispatch(0.0, 1.0, regulation_up_w=4e3), dispatch(2.0, 3.0, net_power_w=-2e3))
    reserve = ReserveSettings(up_w=1e3, down_w=2e3, lasting_s=600.0)
    given_ = made(state(dispatches=orders, planning=planning(reserve=reserve)))
    assert given_.dispatch_w[::4] == (5e3, None, -2e3, None)
    assert given_.reserve is not None
    assert given_.reserve.up_w[::4] == (4e3, 1e3, 1e3, 1e3)
    assert set(given_.reserve.down_w) == {2e3}
    assert given_.reserve.lasting_s == 600.0
    assert made(state()).reserve is None
    assert made(state()).dispatch_w == ()


def test_the_parents_price_and_its_path_stand_in_the_place_of_the_tariff() -> None:
    given_ = made(state(dispatches=(dispatch(0.0, 1.0, lambda_per_kwh=0.5, path_per_kwh=(0.2,)),)))
    assert given_.tariff.import_per_kwh[::4] == pytest.approx((0.61, 0.31, 0.30, 0.30))
    assert given_.tariff.export_per_kwh[::4] == pytest.approx((0.39, 0.09, 0.08, 0.08))


def test_cars_and_loads_of_which_nothing_is_known_have_their_time() -> None:
    cars = (car(), car(name="gone", leaves_utc_s=NOON_S + 60.0), car(name="stays", leaves_utc_s=NOON_S + 1e6))
    given_ = made(state(cars=cars, batteries=(battery(),), unplanned_w=7e3))
    assert [(one.from_step, one.until_step) for one in given_.vehicles] == [(0, 8), (0, 1), (0, 16)]
    assert given_.load_w[:5] == (8e3, 8e3, 8e3, 8e3, 1e3)
    assert given_.batteries[0].soc == 0.5


# The tariff


BANDS = (
    PriceBand(from_h=17.0, until_h=21.0, days="working", import_per_kwh=0.5, export_per_kwh=0.2),
    PriceBand(from_h=0.0, until_h=24.0, days="weekend", import_per_kwh=0.2, export_per_kwh=0.1),
)


def test_the_first_band_that_fits_the_local_time_holds() -> None:
    berlin = Planning(time_zone="Europe/Berlin", interchange=InterchangePrices(bands=BANDS))
    at = [berlin.prices_at(NOON_S + hour * HOUR_S).import_per_kwh for hour in (2.9, 3.1, 6.9, 7.1, 48.0)]
    assert at == [0.3, 0.5, 0.5, 0.3, 0.2], "12:00 UTC is 14:00 there; two days later is Saturday"
    assert berlin.offset_s(NOON_S) == 7200.0
    assert made(state(planning=planning(interchange=InterchangePrices(bands=BANDS)))).tariff.import_per_kwh[0] == 0.3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"time_zone": "Atlantis"}, "is not a time zone"),
        ({"latitude": 48.0}, "go together"),
        ({"curves_valid_s": 60.0}, "not above replan_s"),
        ({"interchange": {"import_per_kwh": 0.1, "export_per_kwh": 0.2}}, "above import_per_kwh"),
    ],
)
def test_settings_that_contradict_themselves_are_told(values: dict[str, Any], words: str) -> None:
    with pytest.raises((BrokenRulesError, ValueError), match=words):
        Planning.model_validate(values)


# Curves


STORE = BatteryPlan("b", 10e3, 0.5, 5e3, 4e3)


def test_a_store_buys_below_its_value_and_sells_above() -> None:
    points = battery_curve(STORE, 0.3)
    assert points[0][1] == 5e3
    assert points[-1][1] == -4e3
    assert 0.27 < points[1][0] < 0.3 < points[2][0] < 0.33
    assert (points[1][1], points[2][1]) == (0.0, 0.0)


def test_at_the_edge_the_plan_s_own_power_decides() -> None:
    points = dict(taker_curve(11e3, 0.3, (0.301, 4e3)))
    assert points[0.301] == 4e3
    assert dict(taker_curve(11e3, 0.3, (0.5, 4e3))) == dict(taker_curve(11e3, 0.3))


@given(
    value=st.floats(-1.0, 12.0),
    price=st.floats(-1.0, 12.0),
    power_w=st.floats(-2e4, 2e4),
    wear=st.floats(0.0, 0.1),
    efficiency=st.floats(0.6, 1.0),
)
def test_a_curve_never_rises(value: float, price: float, power_w: float, wear: float, efficiency: float) -> None:
    store = BatteryPlan("b", 10e3, 0.5, 5e3, 4e3, 0.0, 1.0, efficiency, efficiency, wear)
    for points in (battery_curve(store, value, (price, power_w)), taker_curve(5e3, value, (price, power_w))):
        assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in pairwise(points))
        assert all(-4e3 <= power <= 5e3 for _, power in points)
        assert points[-1][0] - points[0][0] <= abs(value) * 1.1 + 2 * wear + 4 * SLOPE_PER_KWH + 1e-9
