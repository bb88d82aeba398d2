"""The orders that hold in one cycle, as plain values; the order book makes them, control only reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from config.vocabulary import LimitValue, Quantity
from gateway.control.clearing import Curve
from gateway.control.interchange import InterchangeCost


class LimitInForce(NamedTuple):
    """One source's limit on one quantity: a magnitude, unlimited or unknown (the fallback applies)."""

    source: str
    order_id: str
    quantity: Quantity
    value: LimitValue


class DispatchInForce(NamedTuple):
    """Net power asked of the site since `since_s` (monotonic), reached by `ramp_w_per_s` where one is given."""

    source: str
    order_id: str
    net_power_w: float
    since_s: float
    ramp_w_per_s: float | None
    regulation_up_w: float
    regulation_down_w: float
    lambda_per_kwh: float | None


class RegulationInForce(NamedTuple):
    """The newest regulation signal in [-1, 1] and when it came; lost `lost_after_s` later."""

    source: str
    sequence: int
    signal: float
    received_s: float
    lost_after_s: float


class OverrideInForce(NamedTuple):
    """An operator's word on one device: keep its power within these bounds, load convention; equal to hold it there."""

    source: str
    order_id: str
    device: str
    lower_w: float
    upper_w: float

    @property
    def holds(self) -> bool:
        """Whether it leaves one power alone."""
        return self.lower_w == self.upper_w


class MarginsInForce(NamedTuple):
    """How far inside the lower and the upper bound on net power to stay; the site's declared margin is the least."""

    source: str
    lower_w: float
    upper_w: float


class PlanInForce(NamedTuple):
    """The prices of the interchange now, and the curves by device of a plan that has not expired; none without one.

    `cost` are the terms of the interchange's cost beside the spread between the two prices.
    """

    source: str
    import_per_kwh: float
    export_per_kwh: float
    curves: tuple[tuple[str, Curve], ...] = ()
    cost: InterchangeCost = InterchangeCost()


@dataclass(frozen=True, slots=True)
class OrdersInForce:
    """Everything from outside that directs this cycle; `fallback_reason` is empty while every parent is heard.

    `meter_released`: the id of an operator's word that the meter is good, which ends a latched fail-safe once.
    """

    limits: tuple[LimitInForce, ...] = ()
    dispatch: DispatchInForce | None = None
    regulation: RegulationInForce | None = None
    overrides: tuple[OverrideInForce, ...] = ()
    fallback_reason: str = ""
    meter_released: str = ""
    margins: MarginsInForce | None = None
    plan: PlanInForce | None = None
