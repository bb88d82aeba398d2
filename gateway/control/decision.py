"""The decision of one cycle: from the image and the orders in force to a setpoint for each device, with its cause."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from config.vocabulary import Absent, DeviceKind, Quantity
from gateway.control.allocation import GroupLimit, Steps, allocate
from gateway.control.bridging import Part, Wanted, bridge
from gateway.control.clearing import Bid
from gateway.control.connection import ConnectionState, SumBounds, initial_connection, sum_bounds, worst_excess_a
from gateway.control.envelope import Envelope, walk
from gateway.control.judgement import binding_of, missed, shortfall
from gateway.control.meter_trust import Trust
from gateway.control.model import SiteModel
from gateway.control.orders_in_force import OrdersInForce
from gateway.control.planned import planned_price, with_plan
from gateway.control.resources import TAKES_LITTLE, Resource, ResourceMemory, build_resources, ceiling_headroom_w
from gateway.control.trajectory import LN_10, Span
from gateway.image import Image

METER_PATIENCE_S: Final = 5.0
"""Before the first meter reading nothing is written for this long: a bumpless start comes before a blind one."""


class _Shares(NamedTuple):
    """Where each usable device goes in the end, what is asked of it now, and what shaped that."""

    final_w: tuple[float, ...]
    asked_w: tuple[float, ...]
    side: str
    binding: str


class DeviceSetpoint(NamedTuple):
    """The power asked of one device and why."""

    device: str
    power_w: float
    cause: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What one cycle decided and everything needed to say why.

    `net_w` is None without a good meter. `binding` names the bound or target that shaped the shares, empty where the
    price alone did; `side` says which way it presses: "upper", "lower", "target" or "". `unmet` names what cannot be
    kept; empty means that everything can. `meter` says why the meter is not believed; empty while it is.
    """

    now_s: float
    setpoints: tuple[DeviceSetpoint, ...]
    envelope: Envelope
    resources: tuple[Resource, ...]
    net_w: float | None
    rest_lower_w: float | None
    rest_upper_w: float | None
    lambda_per_kwh: float | None
    binding: str
    side: str
    unmet: tuple[str, ...]
    meter: str = ""


@dataclass(slots=True)
class ControlState:
    """What one cycle leaves for the next; nothing else is remembered."""

    connection: ConnectionState
    memory: ResourceMemory = field(default_factory=ResourceMemory)
    stepped_w: dict[str, float] = field(default_factory=dict)
    misses: dict[str, tuple[float, float]] = field(default_factory=dict)
    dispatch_from: tuple[str, float] | None = None
    released: str = ""
    started_s: float | None = None
    last_s: float | None = None


def initial_state(model: SiteModel) -> ControlState:
    """The state before the first cycle."""
    return ControlState(initial_connection(model))


def decide(model: SiteModel, image: Image, orders: OrdersInForce, state: ControlState) -> Decision:
    """One cycle of control; changes `state` and nothing else."""
    dt_s = 0.0 if state.last_s is None else max(image.now_s - state.last_s, 0.0)
    state.started_s = image.now_s if state.started_s is None else state.started_s
    state.last_s = image.now_s
    connection, rest = state.connection, state.connection.rest
    _release(orders, state)
    resources = with_plan(build_resources(model.devices, image, model.stale_after_s, state.memory), orders.plan)
    meter_good = connection.measure(model, image, resources, dt_s)
    envelope = _walk(model, orders, image, state)
    net_w = connection.net_w if meter_good else None
    if rest.lower_w is None:
        if image.now_s - state.started_s < METER_PATIENCE_S:
            reason = ("waiting for the first meter reading",)
            return Decision(image.now_s, (), envelope, tuple(resources), net_w, None, None, None, "", "", reason)
        rest.unknown_for(0.0)
    usable = [resource for resource in resources if resource.usable]
    bounds, rest_unmet = sum_bounds(
        model, envelope, rest, connection.reserve(resources, image), connection.unseen(resources, image)
    )
    connection.integrate(model, usable, image.now_s)
    corrected = bounds.shifted(-connection.integral.value_w)
    groups, price = _groups(model, orders, resources, usable, connection), _price(model, orders)
    bids = _bids(usable, orders)
    local = planned_price(orders.plan, bids, rest, corrected)
    if local is not None:
        price, corrected = local.lambda_per_kwh, corrected._replace(target_w=local.total_w)
    permitted = _permitted(usable, orders, corrected, price, groups, state)
    allocation = allocate(bids, *corrected, price, groups, _steps(usable, state))
    total_w = sum(allocation.shares_w)
    side, binding = binding_of(envelope, corrected, total_w, allocation)
    asked_w = _bridged(model, connection, usable, bids, allocation.shares_w, corrected, groups, image.now_s)
    connection.intend(model, usable, asked_w, image.now_s)
    connection.bound = bool(binding)
    state.memory.import_presses = side == "upper"
    shares = _Shares(allocation.shares_w, asked_w, side, binding)
    setpoints = _setpoints(usable, shares, orders, state, permitted)
    short = shortfall(model, envelope, corrected, total_w)
    misses = missed(model, envelope, groups, usable, net_w, state.misses, image.now_s)
    return Decision(
        image.now_s,
        setpoints,
        envelope,
        tuple(resources),
        net_w,
        rest.lower_w,
        rest.upper_w,
        allocation.lambda_per_kwh if local is None or binding else price,
        binding,
        side,
        tuple(filter(None, (*envelope.unmet, rest_unmet, short, *misses))),
        connection.trust.reason,
    )


def _release(orders: OrdersInForce, state: ControlState) -> None:
    """An operator's word that the meter is good holds once."""
    if orders.meter_released and orders.meter_released != state.released:
        state.connection.trust.release()
        state.released = orders.meter_released


def _walk(model: SiteModel, orders: OrdersInForce, image: Image, state: ControlState) -> Envelope:
    """The envelope; a meter that proved wrong brings the fallback."""
    trust = state.connection.trust
    if trust.state is Trust.LATCHED:
        reasons = (orders.fallback_reason, trust.reason)
        orders = replace(orders, fallback_reason="; ".join(filter(None, reasons)))
    envelope = walk(model, orders, image.now_s, _dispatch_from(orders, state), worst_excess_a(model, image))
    target_w = envelope.target.value_w if envelope.target is not None else None
    trust.ask(image.now_s, envelope.lower.value_w, envelope.upper.value_w, target_w)
    return envelope


def _bridged(
    model: SiteModel,
    connection: ConnectionState,
    usable: list[Resource],
    bids: list[Bid],
    shares_w: tuple[float, ...],
    bounds: SumBounds,
    groups: list[GroupLimit],
    now_s: float,
) -> tuple[float, ...]:
    """The shares, and what fast devices stand in for slow ones that are not there yet."""
    if not connection.mixed:
        return shares_w
    parts = [_part(one, bid, share_w) for one, bid, share_w in zip(usable, bids, shares_w, strict=True)]

    def expect(index: int, ahead_s: float) -> Span:
        resource, share_w = usable[index], shares_w[index]
        span = connection.trajectory(resource.model).towards(share_w, now_s, now_s + ahead_s, resource.model.rating_w)
        return span if span is not None else Span(share_w, share_w, share_w)

    return bridge(parts, expect, Wanted(*bounds, model.margin_w), groups)


def _part(resource: Resource, bid: Bid, share_w: float) -> Part:
    """Cars are lowered at most to the least current: bridging neither pauses nor starts one."""
    model = resource.model
    stepped = model.step_w is not None and model.minimum_w > 0.0
    bridges = model.kind is not DeviceKind.RELAY and (not stepped or share_w > model.minimum_w)
    return Part(
        share_w,
        max(bid.lower_w, model.minimum_w) if stepped else bid.lower_w,
        bid.upper_w,
        model.response_s,
        model.dead_time_s + model.tr90_s / LN_10,
        bridges and resource.upper.source != TAKES_LITTLE,
        model.step_w or 0.0 if stepped else 0.0,
    )


def _dispatch_from(orders: OrdersInForce, state: ControlState) -> float | None:
    """The net power when the dispatch in force began."""
    if orders.dispatch is None:
        state.dispatch_from = None
        return None
    if state.dispatch_from is None or state.dispatch_from[0] != orders.dispatch.order_id:
        state.dispatch_from = (orders.dispatch.order_id, state.connection.net_w or 0.0)
    return state.dispatch_from[1]


def _bids(usable: list[Resource], orders: OrdersInForce) -> list[Bid]:
    """The resources' curves and bounds; an operator's word on a device narrows its bounds."""
    bids = [Bid(curve, lower.value_w, upper.value_w) for _, _, _, _, _, lower, upper, curve in usable]
    for override in orders.overrides:
        for index, resource in enumerate(usable):
            if override.device == resource.model.name:
                curve, lower_w, upper_w = bids[index]
                least_w, most_w = (min(max(w, lower_w), upper_w) for w in (override.lower_w, override.upper_w))
                bids[index] = Bid(curve, least_w, most_w)
    return bids


def _price(model: SiteModel, orders: OrdersInForce) -> float:
    dispatch = orders.dispatch
    return model.price_per_kwh if dispatch is None or dispatch.lambda_per_kwh is None else dispatch.lambda_per_kwh


def _groups(
    model: SiteModel,
    orders: OrdersInForce,
    resources: list[Resource],
    usable: list[Resource],
    connection: ConnectionState,
) -> list[GroupLimit]:
    """Limits on parts of the site, less what the uncontrolled rest and the unusable devices already take of them."""
    rest = connection.rest
    rest_low_w, rest_high_w = rest.lower_w or 0.0, rest.upper_w or 0.0
    idle = [resource for resource in resources if not resource.usable and resource.power_w is not None]
    # The rest has the idle devices in it, which count here by what each takes or gives.
    idle_w = sum(resource.power_w or 0.0 for resource in idle)
    everyone = tuple(range(len(usable)))
    groups = []
    for limit in orders.limits:
        if isinstance(limit.value, Absent):
            continue
        source = f"{limit.source} {limit.order_id}"
        if limit.quantity is Quantity.GENERATION_W:
            taken = max(idle_w - rest_low_w, 0.0) + sum(max(-(resource.power_w or 0.0), 0.0) for resource in idle)
            groups.append(GroupLimit(everyone, "generation", max(limit.value - taken, 0.0), source))
        elif limit.quantity is Quantity.LOAD_W:
            taken = max(rest_high_w - idle_w, 0.0) + sum(max(resource.power_w or 0.0, 0.0) for resource in idle)
            groups.append(GroupLimit(everyone, "load", max(limit.value - taken, 0.0), source))
        elif limit.quantity is Quantity.CONTROLLABLE_LOAD_W:
            taken = sum(max(resource.power_w or 0.0, 0.0) for resource in idle if resource.model.controllable)
            groups.append(GroupLimit(everyone, "load", max(limit.value - taken, 0.0), source))
    if model.real_connection:
        seen = tuple(index for index, resource in enumerate(usable) if resource.model.seen_by_meter)
        groups.append(GroupLimit(seen, "net_upper", model.max_import_w - rest_high_w, "real connection"))
        groups.append(GroupLimit(seen, "net_lower", -model.max_export_w - rest_low_w, "real connection"))
    return groups


def _steps(usable: list[Resource], state: ControlState) -> dict[int, Steps]:
    """Chargers move in whole steps of current."""
    return {
        index: Steps(model.step_w, model.minimum_w, state.stepped_w.get(model.name), model.max_w)
        for index, resource in enumerate(usable)
        if (model := resource.model).step_w is not None
        and model.minimum_w > 0.0
        and resource.upper.source != TAKES_LITTLE
    }


def _permitted(
    usable: list[Resource],
    orders: OrdersInForce,
    bounds: SumBounds,
    price_per_kwh: float,
    groups: list[GroupLimit],
    state: ControlState,
) -> frozenset[str]:
    """Chargers whose cars take less than the least current, and which may be offered it: there is room if they take it.

    Their own power is all that is expected of them, but they are asked as if they took what they may: else an offer
    that a limit takes back would be made again as soon as the car has stopped.
    """
    little = {index for index, resource in enumerate(usable) if resource.upper.source == TAKES_LITTLE}
    if not little:
        return frozenset()
    bids, steps = _bids(usable, orders), _steps(usable, state)
    for index in little:
        bid, model = bids[index], usable[index].model
        if model.step_w is not None:
            room_w = min(model.minimum_w + ceiling_headroom_w(model), model.max_w)
            bids[index] = Bid(bid.curve, bid.lower_w, max(room_w, bid.lower_w))
            steps[index] = Steps(model.step_w, model.minimum_w, state.stepped_w.get(model.name), model.max_w)
    shares = allocate(bids, *bounds, price_per_kwh, groups, steps).shares_w
    return frozenset(usable[index].model.name for index in little if shares[index] > 0.0)


def _setpoints(
    usable: list[Resource],
    shares: _Shares,
    orders: OrdersInForce,
    state: ControlState,
    permitted: frozenset[str],
) -> tuple[DeviceSetpoint, ...]:
    held = {override.device: override for override in orders.overrides}
    chosen_by = shares.binding or (orders.plan.source if orders.plan is not None else "")
    setpoints = []
    for resource, share_w, asked_w in zip(usable, shares.final_w, shares.asked_w, strict=True):
        name = resource.model.name
        cause = _cause(resource, share_w, chosen_by, held)
        if name in held:
            power_w = asked_w
        elif resource.upper.source == TAKES_LITTLE:
            power_w = resource.model.minimum_w if name in permitted else 0.0
        elif asked_w != share_w:
            power_w, cause = asked_w, f"{shares.binding or cause} (bridging)"
        else:
            power_w = _released(resource, share_w, shares.side)
        if resource.model.step_w is not None:
            state.stepped_w[name] = power_w
        state.memory.asked(resource.model, state.last_s or 0.0, asked_w, power_w)
        setpoints.append(DeviceSetpoint(name, power_w, cause))
    return tuple(setpoints)


def _released(resource: Resource, share_w: float, side: str) -> float:
    """The ceiling for a ceiling device: open unless something presses its way, else its share.

    A device that may have all that it shows gets a little more, so that it can show more.
    """
    model = resource.model
    if not model.ceiling or resource.lower.value_w == resource.upper.value_w:
        return share_w
    inverter = model.kind is DeviceKind.INVERTER
    shown_w = abs(resource.lower.value_w if inverter else resource.upper.value_w)
    if abs(share_w) < shown_w - (model.step_w or 0.0) - 1.0:
        return share_w
    open_w, own_side = (model.min_w, "lower") if inverter else (model.max_w, "upper")
    if side not in (own_side, "target"):
        return open_w
    if resource.power_w is None or shown_w > abs(resource.power_w) + 1.0:
        return share_w
    headroom_w = ceiling_headroom_w(model)
    return max(share_w - headroom_w, open_w) if inverter else min(share_w + headroom_w, open_w)


def _cause(resource: Resource, share_w: float, binding: str, held: Container[str]) -> str:
    """Why this power: the operator, the device's own bound, the binding order, or the price."""
    if resource.model.name in held:
        return "operator"
    if resource.lower.value_w == resource.upper.value_w:
        return resource.lower.source
    if abs(share_w - resource.lower.value_w) < 1.0 and resource.lower.source != "site file":
        return resource.lower.source
    if abs(share_w - resource.upper.value_w) < 1.0 and resource.upper.source != "site file":
        return resource.upper.source
    return binding or "price"
