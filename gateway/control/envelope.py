"""The walk of the control functions over the net power at the connection point.

Each function may narrow the interval that those before it left, and may choose a target inside what is left. The
order is fixed: connection protection, fallback, limits, grid support, dispatch, regulation. Device protection and the
operator's word on a device come before all of them, as the resources' bounds. Where a narrowing would leave nothing,
the earlier function keeps its bound and the later one is reported as unmet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from config.vocabulary import Absent, Quantity
from gateway.control.model import SiteModel
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce

REGULATION_RAMP_S = 5.0
"""A lost regulation signal fades to the base in this time."""


class Bound(NamedTuple):
    """A bound in watts and who set it."""

    value_w: float
    source: str


_OPEN_BELOW = Bound(-inf, "none")
_OPEN_ABOVE = Bound(inf, "none")


class Target(NamedTuple):
    """A net power chosen inside the envelope and who chose it."""

    value_w: float
    source: str


class Step(NamedTuple):
    """What one control function left: the interval after it, and the target if there is one."""

    function: str
    lower: Bound
    upper: Bound
    target: Target | None


@dataclass(slots=True)
class Envelope:
    """The interval of net power in force, with the source of each bound and the trace of how it came about.

    The margins are how far inside each bound to stay at least, where more than the site's declared margin is asked for.
    """

    lower: Bound = _OPEN_BELOW
    upper: Bound = _OPEN_ABOVE
    target: Target | None = None
    steps: list[Step] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    lower_margin_w: float = 0.0
    upper_margin_w: float = 0.0

    def at_most(self, value_w: float, source: str) -> None:
        """Lower the upper bound; below the lower bound it stops there, and the source is unmet."""
        if value_w < self.lower.value_w:
            self.unmet.append(f"{source}: {value_w:.0f} W is below {self.lower.value_w:.0f} W ({self.lower.source})")
            value_w = self.lower.value_w
        if value_w < self.upper.value_w:
            self.upper = Bound(value_w, source)

    def at_least(self, value_w: float, source: str) -> None:
        """Raise the lower bound; above the upper bound it stops there, and the source is unmet."""
        if value_w > self.upper.value_w:
            self.unmet.append(f"{source}: {value_w:.0f} W is above {self.upper.value_w:.0f} W ({self.upper.source})")
            value_w = self.upper.value_w
        if value_w > self.lower.value_w:
            self.lower = Bound(value_w, source)

    def aim(self, value_w: float, source: str) -> None:
        """Choose a target, held inside the interval and the margins that are asked for."""
        most_w = (self.upper.value_w - self.lower.value_w) / 4.0
        lower_w = self.lower.value_w + min(self.lower_margin_w, most_w)
        upper_w = self.upper.value_w - min(self.upper_margin_w, most_w)
        self.target = Target(min(max(value_w, lower_w), upper_w), source)

    def note(self, function: str) -> None:
        """Record what the function left."""
        self.steps.append(Step(function, self.lower, self.upper, self.target))


class SupportBounds(NamedTuple):
    """What grid support leaves of net active power, watts; None: no bound."""

    lower_w: float | None = None
    lower_source: str = ""
    upper_w: float | None = None
    upper_source: str = ""


def walk(
    model: SiteModel,
    orders: OrdersInForce,
    now_s: float,
    dispatch_from_w: float | None,
    worst_excess_a: float,
    support: SupportBounds | None = None,
) -> Envelope:
    """The envelope of this cycle.

    `dispatch_from_w`: the net power when the dispatch in force began, from which its ramp runs. `worst_excess_a`: by
    how much the most loaded phase exceeds the mean of the phases, amperes. `support` None: none is asked for.
    """
    envelope = Envelope()
    if orders.margins is not None:
        envelope.lower_margin_w, envelope.upper_margin_w = orders.margins.lower_w, orders.margins.upper_w
    _protect_connection(envelope, model, worst_excess_a)
    _apply_fallback(envelope, model, orders)
    _apply_limits(envelope, model, orders.limits, worst_excess_a)
    if support is not None:
        _support_the_grid(envelope, support)
    _follow_dispatch(envelope, orders, now_s, dispatch_from_w)
    if orders.plan is not None:
        # It narrows nothing: it says at which price, and so chooses inside of what the others have left.
        envelope.note("plan")
    return envelope


def _current_as_power(model: SiteModel, current_a: float, worst_excess_a: float) -> float:
    """The net power at which the most loaded phase carries `current_a`, our own change being the same on each phase."""
    return max(current_a - worst_excess_a, 0.0) * model.phases * model.nominal_voltage_v


def _protect_connection(envelope: Envelope, model: SiteModel, worst_excess_a: float) -> None:
    envelope.at_most(model.max_import_w, "connection import limit")
    envelope.at_least(-model.max_export_w, "connection export limit")
    if model.fuse_a is not None:
        power = _current_as_power(model, model.fuse_a, worst_excess_a)
        envelope.at_most(power, "fuse")
        envelope.at_least(-power, "fuse")
    envelope.note("connection protection")


def _apply_fallback(envelope: Envelope, model: SiteModel, orders: OrdersInForce) -> None:
    reason = orders.fallback_reason
    if not reason:
        unknown = next((limit for limit in orders.limits if limit.value is Absent.UNKNOWN), None)
        reason = f"{unknown.source} says unknown" if unknown else ""
    if reason:
        _narrow_to_fallback(envelope, model, f"fallback ({reason})")
    envelope.note("fallback")


def _narrow_to_fallback(envelope: Envelope, model: SiteModel, source: str) -> None:
    if model.fallback_import_w is not None:
        envelope.at_most(model.fallback_import_w, source)
    if model.fallback_export_w is not None:
        envelope.at_least(-model.fallback_export_w, source)


def _apply_limits(
    envelope: Envelope, model: SiteModel, limits: tuple[LimitInForce, ...], worst_excess_a: float
) -> None:
    for limit in limits:
        if isinstance(limit.value, Absent):
            continue
        source = f"{limit.source} {limit.order_id}"
        if limit.quantity is Quantity.NET_IMPORT_W:
            envelope.at_most(limit.value, source)
        elif limit.quantity is Quantity.NET_EXPORT_W:
            envelope.at_least(-limit.value, source)
        elif limit.quantity is Quantity.CURRENT_PER_PHASE_A:
            power = _current_as_power(model, limit.value, worst_excess_a)
            envelope.at_most(power, source)
            envelope.at_least(-power, source)
    envelope.note("limits")


def _support_the_grid(envelope: Envelope, support: SupportBounds) -> None:
    if support.lower_w is not None:
        envelope.at_least(support.lower_w, support.lower_source)
    if support.upper_w is not None:
        envelope.at_most(support.upper_w, support.upper_source)
    envelope.note("grid support")


def ramped_w(dispatch: DispatchInForce, now_s: float, from_w: float | None) -> float:
    """Where a dispatch's ramp stands now; its net power once the ramp is through or where there is none."""
    if dispatch.ramp_w_per_s is None or from_w is None:
        return dispatch.net_power_w
    reach = dispatch.ramp_w_per_s * max(now_s - dispatch.since_s, 0.0)
    return from_w + min(max(dispatch.net_power_w - from_w, -reach), reach)


def regulation_signal(orders: OrdersInForce, now_s: float) -> float:
    """The signal in force: the newest one, fading to 0 within `REGULATION_RAMP_S` once it is lost."""
    regulation = orders.regulation
    if regulation is None:
        return 0.0
    lost_for_s = now_s - regulation.received_s - regulation.lost_after_s
    return regulation.signal * min(max(1.0 - lost_for_s / REGULATION_RAMP_S, 0.0), 1.0)


def _follow_dispatch(envelope: Envelope, orders: OrdersInForce, now_s: float, dispatch_from_w: float | None) -> None:
    dispatch = orders.dispatch
    if dispatch is None:
        envelope.note("dispatch")
        return
    base = ramped_w(dispatch, now_s, dispatch_from_w)
    source = f"{dispatch.source} {dispatch.order_id}"
    envelope.aim(base, source)
    envelope.note("dispatch")
    signal = regulation_signal(orders, now_s)
    if signal and orders.regulation is not None:
        capacity = dispatch.regulation_up_w if signal > 0 else dispatch.regulation_down_w
        envelope.aim(base - signal * capacity, f"{source} regulation {orders.regulation.sequence}")
    envelope.note("regulation")
