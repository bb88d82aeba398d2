"""lambda = w + g'(n) + mu, by the clearing that control uses."""

from __future__ import annotations

from math import inf, isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from config.planning import InterchangePrices
from config.price import AddedForm, InterchangeForm, QuadraticForm, RootForm, SpreadForm
from gateway.control.clearing import Bid, make_curve
from gateway.control.interchange import InterchangeCost
from gateway.price.formation import form_price
from gateway.price.interchange_cost import cost_per_h, curvature_per_kwh_w, half_effect_w, outside_effect, terms_of

LIMIT_W = 20_000.0
FINE = 512


def battery(at_per_kwh: float = 0.20, reach_per_kwh: float = 0.10, rating_w: float = 10_000.0) -> Bid:
    """Charges below a price, discharges above it, in a straight line."""
    points = [(at_per_kwh - reach_per_kwh, rating_w), (at_per_kwh + reach_per_kwh, -rating_w)]
    return Bid(make_curve(points), -rating_w, rating_w)


def test_a_layer_that_imports_pays_the_outside_s_price_and_the_spread() -> None:
    found = form_price([battery()], 12_000.0, 0.15, InterchangeCost(spread_per_kwh=0.02), LIMIT_W, LIMIT_W)
    assert found.lambda_per_kwh == pytest.approx(0.17)
    assert found.net_w == pytest.approx(12_000.0 + 3_000.0)
    assert (found.mu_per_kwh, found.at_limit, found.outside_effect) == (0.0, "", 1.0)


def test_between_the_two_prices_nothing_is_traded_and_the_price_is_its_own() -> None:
    for outside in (0.15, 0.20, 0.25):
        found = form_price([battery()], 0.0, outside, InterchangeCost(spread_per_kwh=0.06), LIMIT_W, LIMIT_W)
        assert found.net_w == 0.0
        assert found.lambda_per_kwh == pytest.approx(0.20)
        assert found.outside_effect == 0.0


def test_an_interface_that_is_full_has_a_price_of_its_own() -> None:
    cheap = form_price([battery()], 4_000.0, 0.05, InterchangeCost(spread_per_kwh=0.02), 5_000.0, 5_000.0)
    assert (cheap.at_limit, cheap.net_w) == ("import", pytest.approx(5_000.0))
    assert cheap.lambda_per_kwh == pytest.approx(0.19)
    assert cheap.mu_per_kwh == pytest.approx(0.19 - 0.07)
    dear = form_price([battery()], -4_000.0, 0.40, InterchangeCost(spread_per_kwh=0.02), 5_000.0, 5_000.0)
    assert (dear.at_limit, dear.net_w) == ("export", pytest.approx(-5_000.0))
    assert dear.mu_per_kwh == pytest.approx(0.21 - 0.38)


def test_an_island_has_no_outside_price() -> None:
    found = form_price([battery()], 2_000.0, None, InterchangeCost(spread_per_kwh=0.02), LIMIT_W, LIMIT_W)
    assert (found.net_w, found.mu_per_kwh, found.at_limit, found.outside_effect) == (0.0, None, "islanded", 0.0)
    assert found.lambda_per_kwh == pytest.approx(0.22)


def test_a_layer_that_would_change_nothing_is_called_illiquid() -> None:
    fixed = Bid(make_curve([(0.0, 1_000.0)]), 0.0, 5_000.0)
    found = form_price([fixed], 0.0, 0.20, InterchangeCost(spread_per_kwh=0.02), LIMIT_W, LIMIT_W)
    assert found.illiquid
    assert found.response_w == 0.0
    assert not form_price([battery()], 0.0, 0.2, InterchangeCost(), LIMIT_W, LIMIT_W).illiquid
    assert form_price([], 1_000.0, 0.2, InterchangeCost(), LIMIT_W, LIMIT_W).illiquid


@pytest.mark.parametrize("outside", [-1e6, -0.5, 0.0, 1e6])
def test_prices_may_be_negative_or_huge(outside: float) -> None:
    found = form_price([battery()], 0.0, outside, InterchangeCost(spread_per_kwh=0.02), LIMIT_W, LIMIT_W)
    assert abs(found.net_w) == pytest.approx(10_000.0)
    assert found.lambda_per_kwh == pytest.approx(outside + (0.02 if outside < 0.2 else -0.02))


def test_the_forms_say_what_a_tariff_says_in_kilowatts() -> None:
    root = terms_of(RootForm(form="root", tau_per_kwh_sqrt_kw=0.01), 0.03)
    assert root.marginal_per_kwh(4_000.0, 1) == pytest.approx(0.03 + 0.02)
    assert root.marginal_per_kwh(-4_000.0, 1) == pytest.approx(-0.03 - 0.02)
    quadratic = terms_of(QuadraticForm(form="quadratic", slope_per_kwh_kw=0.01))
    assert quadratic.marginal_per_kwh(-4_000.0, 1) == pytest.approx(-0.04)
    assert terms_of(AddedForm(form="lmp_plus_d", distribution_per_kwh=0.05)).marginal_per_kwh(-1.0, 1) == 0.05
    assert terms_of(SpreadForm(), 0.03) == InterchangeCost(0.03)


def test_a_site_file_chooses_the_form() -> None:
    prices = InterchangePrices.model_validate({"cost": {"form": "root", "tau_per_kwh_sqrt_kw": 0.01}})
    assert prices.cost == RootForm(form="root", tau_per_kwh_sqrt_kw=0.01)
    assert InterchangePrices().cost == SpreadForm()
    for wrong in ({"form": "cubic"}, {"form": "root"}, {"form": "spread", "tau_per_kwh_sqrt_kw": 0.01}):
        with pytest.raises(ValidationError):
            TypeAdapter(InterchangeForm).validate_python(wrong)


TERMS = st.builds(
    InterchangeCost,
    spread_per_kwh=st.sampled_from([0.0, 0.02]),
    added_per_kwh=st.sampled_from([0.0, 0.05]),
    quadratic_per_kwh_w=st.sampled_from([0.0, 1e-6]),
    root_per_kwh=st.sampled_from([0.0, 1e-4, 1e-3]),
)


@given(TERMS, st.floats(-20_000.0, 20_000.0).filter(lambda net_w: abs(net_w) > 1.0))
def test_the_marginal_cost_and_its_slope_are_the_cost_s_derivatives(cost: InterchangeCost, net_w: float) -> None:
    h = 1e-3 * abs(net_w)
    slope = (cost_per_h(cost, net_w + h) - cost_per_h(cost, net_w - h)) / (2.0 * h) * 1000.0
    assert slope == pytest.approx(cost.marginal_per_kwh(net_w, 0), rel=1e-4, abs=1e-9)
    bend = (cost.marginal_per_kwh(net_w + h, 0) - cost.marginal_per_kwh(net_w - h, 0)) / (2.0 * h)
    assert bend == pytest.approx(curvature_per_kwh_w(cost, net_w), rel=1e-4, abs=1e-12)


@given(
    st.lists(st.tuples(st.floats(0.05, 0.40), st.floats(0.02, 0.2), st.floats(100.0, 20_000.0)), max_size=5),
    st.floats(-15_000.0, 15_000.0),
    st.floats(-0.1, 0.5),
    TERMS,
    st.floats(0.0, 25_000.0),
)
def test_the_parts_add_up_and_each_is_what_it_is_called(
    batteries: list[tuple[float, float, float]], rest_w: float, outside: float, cost: InterchangeCost, limit_w: float
) -> None:
    bids = [battery(*one) for one in batteries]
    found = form_price(bids, rest_w, outside, cost, limit_w, limit_w, FINE)
    assert found.mu_per_kwh is not None
    assert isclose(found.lambda_per_kwh, outside + found.marginal_per_kwh + found.mu_per_kwh, abs_tol=1e-9)
    can_w = sum(bid.upper_w for bid in bids)
    if abs(rest_w) <= can_w + limit_w:
        assert -limit_w - 1e-6 <= found.net_w <= limit_w + 1e-6
    if bids and not found.at_limit and abs(found.net_w) > 1.0:
        assert found.marginal_per_kwh == pytest.approx(cost.marginal_per_kwh(found.net_w, 0), abs=2e-4)
    if not found.at_limit:
        assert found.mu_per_kwh == 0.0
    elif limit_w > 0.0:
        assert found.mu_per_kwh >= 0.0 if found.at_limit == "import" else found.mu_per_kwh <= 0.0


@given(st.floats(1e-3, 2e4), st.floats(1e3, 1e7), st.floats(1e-5, 1e-2))
def test_the_root_form_lets_half_through_at_its_half(net_w: float, response_w: float, root: float) -> None:
    cost = InterchangeCost(root_per_kwh=root)
    half_w = half_effect_w(cost, response_w)
    expected = sqrt(net_w) / (sqrt(net_w) + sqrt(half_w))
    assert outside_effect(cost, net_w, response_w) == pytest.approx(expected)
    assert outside_effect(cost, -half_w, response_w) == pytest.approx(0.5)
    assert outside_effect(cost, 0.0, response_w) == 0.0
    assert curvature_per_kwh_w(cost, 0.0) == inf
    assert outside_effect(cost, net_w, 0.0) == 1.0
