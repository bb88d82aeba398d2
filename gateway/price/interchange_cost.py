"""The forms of the interchange cost g(n) as terms of the clearing, and how far the outside's price reaches inside.

With n(lambda) a layer's net demand and S' = -dn/dlambda its response, lambda = w + g'(n) + mu gives
dlambda/dw = 1 / (1 + g''(n) S').
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Final

from config.price import AddedForm, InterchangeForm, QuadraticForm, RootForm, SpreadForm
from gateway.control.interchange import InterchangeCost

W_PER_KW: Final = 1000.0


def terms_of(form: InterchangeForm, spread_per_kwh: float = 0.0) -> InterchangeCost:
    """A site file's form and the tariff's spread (half of import less export price) as terms in watts."""
    match form:
        case SpreadForm():
            return InterchangeCost(spread_per_kwh)
        case RootForm():
            return InterchangeCost(spread_per_kwh, root_per_kwh=form.tau_per_kwh_sqrt_kw / sqrt(W_PER_KW))
        case AddedForm():
            return InterchangeCost(spread_per_kwh, added_per_kwh=form.distribution_per_kwh)
        case QuadraticForm():
            return InterchangeCost(spread_per_kwh, quadratic_per_kwh_w=form.slope_per_kwh_kw / W_PER_KW)


def curvature_per_kwh_w(cost: InterchangeCost, net_w: float) -> float:
    """g''(n), price per watt; infinite at balance where a spread or a root bends there."""
    if net_w == 0.0:
        return inf if cost.spread_per_kwh > 0.0 or cost.root_per_kwh > 0.0 else cost.quadratic_per_kwh_w
    return cost.quadratic_per_kwh_w + cost.root_per_kwh / (2.0 * sqrt(abs(net_w)))


def cost_per_h(cost: InterchangeCost, net_w: float) -> float:
    """g(n), money per hour of a net power that lasts."""
    size_w = abs(net_w)
    watts = cost.spread_per_kwh * size_w + cost.added_per_kwh * net_w
    watts += cost.quadratic_per_kwh_w * net_w * net_w / 2.0 + cost.root_per_kwh * size_w * sqrt(size_w) * 2.0 / 3.0
    return watts / W_PER_KW


def outside_effect(cost: InterchangeCost, net_w: float, response_w: float) -> float:
    """dlambda/dw of a layer with response S' (watts per price of 1 per kWh, at least 0): 0 none, 1 all of it."""
    if response_w <= 0.0:
        return 1.0
    curvature = curvature_per_kwh_w(cost, net_w)
    return 0.0 if curvature == inf else 1.0 / (1.0 + curvature * response_w)


def half_effect_w(cost: InterchangeCost, response_w: float) -> float:
    """n_half = (tau S' / 2)^2, the interchange at which a root form lets half of the outside's price through."""
    return (cost.root_per_kwh * response_w / 2.0) ** 2
