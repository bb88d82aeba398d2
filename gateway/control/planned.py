"""What a plan gives control: curves in the place of the default ones, and the outside's price in the clearing."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.control.clearing import Bid
from gateway.control.connection import SumBounds
from gateway.control.feedback import RestEstimate
from gateway.control.interchange import LocalPrice, local_price
from gateway.control.orders_in_force import PlanInForce
from gateway.control.resources import Resource


def with_plan(resources: list[Resource], plan: PlanInForce | None) -> list[Resource]:
    """The resources with the plan's curves, where it has any."""
    if plan is None or not plan.curves:
        return resources
    curves = dict(plan.curves)
    return [one._replace(curve=curves[one.model.name]) if one.model.name in curves else one for one in resources]


def planned_price(
    plan: PlanInForce | None, bids: Sequence[Bid], rest: RestEstimate, bounds: SumBounds
) -> LocalPrice | None:
    """The price of the clearing with the outside, and the devices' sum at it; None where something else decides.

    A dispatch comes before the plan: where it has set a target there is nothing left to choose.
    """
    if plan is None or bounds.target_w is not None:
        return None
    rest_w = ((rest.lower_w or 0.0) + (rest.upper_w or 0.0)) / 2.0
    middle = (plan.import_per_kwh + plan.export_per_kwh) / 2.0
    cost = plan.cost._replace(spread_per_kwh=(plan.import_per_kwh - plan.export_per_kwh) / 2.0)
    return local_price(bids, middle, cost, rest_w, bounds.lower_w, bounds.upper_w)
