"""The decision of one cycle: from the image and the orders in force to a setpoint for each device, with its cause."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import Final, NamedTuple

from config.vocabulary import Absent, DeviceKind, Quantity
from gateway.control.allocation import GroupLimit, allocate
from gateway.control.bridging import Part, Wanted, bridge
from gateway.control.ceilings import released_w
from gateway.control.chargers import NOT_WOKEN, TAKES_LITTLE, charger_notices, charger_step_w
from gateway.control.clearing import Bid
from gateway.control.connection import ConnectionState, SumBounds, initial_connection, sum_bounds, worst_excess_a
from gateway.control.envelope import Envelope, walk
from gateway.control.granting import Granted, Sharing, charger_steps, grant
from gateway.control.grid_support import GridSupportState
from gateway.control.judgement import binding_of, missed, shortfall
from gateway.control.late import DOES_NOT_FOLLOW_YET, counted_as_shown, late_devices, told_late
from gateway.control.meter_trust import Trust
from gateway.control.model import SiteModel
from gateway.control.orders_in_force import OrdersInForce, OverrideInForce
from gateway.control.phases import loads_unevenly, phase_groups
from gateway.control.planned import planned_price, with_plan
from gateway.control.reserve_kept import with_lasting_storage, with_room_kept
from gateway.control.resource_memory import ResourceMemory
from gateway.control.resources import Resource, build_resources
from gateway.control.trajectory import LN_10, Span
from gateway.control.yielding import overruled, wishes, within_limits
from gateway.image import Image

_INVERTER: Final = DeviceKind.INVERTER

METER_PATIENCE_S: Final = 5.0
"""Before the first meter reading nothing is written for this long: a bumpless start comes before a blind one."""


class _Shares(NamedTuple):
    """Where each usable device goes in the end, what is asked of it now, and what shaped that.

    `room_w`: how much more may be exported before anything presses. `told_w`: what late devices are asked for by their
    index, whatever is counted on.
    """

    granted: Granted
    asked_w: tuple[float, ...]
    told_w: dict[int, float]
    side: str
    binding: str
    room_w: float


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
    kept; empty means that everything can. `meter` says why the meter is not believed; empty while it is. `notices` are
    for whoever runs the site: cars that do not wake, or will leave without their energy.
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
    notices: tuple[str, ...] = ()


@dataclass(slots=True)
class ControlState:
    """What one cycle leaves for the next; nothing else is remembered."""

    connection: ConnectionState
    memory: ResourceMemory = field(default_factory=ResourceMemory)
    misses: dict[str, tuple[float, float]] = field(default_factory=dict)
    dispatch_from: tuple[str, float] | None = None
    grid_support: GridSupportState = field(default_factory=GridSupportState)
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
    resources = with_lasting_storage(resources, orders, image)
    meter_good = connection.measure(model, image, resources, dt_s)
    envelope = _walk(model, orders, image, state, dt_s)
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
    corrected = bounds.shifted(-connection.integral.value_w - connection.beside_w())
    groups, price = _groups(model, orders, resources, usable, connection), _price(model, orders)
    if loads_unevenly(model):
        groups += phase_groups(model, orders.limits, image, usable, connection.shared_w, rest)
    steps = charger_steps(usable, state.memory)
    wanted, wished = _bids(usable, orders), wishes(usable, steps, orders.overrides, state.memory)
    bids = within_limits(wanted, wished, corrected, groups)
    corrected, moved = with_room_kept(corrected, bids, orders, image.now_s, model.rating_w)
    local = planned_price(orders.plan, bids, rest, corrected)
    if local is not None:
        price, corrected = local.lambda_per_kwh, corrected._replace(target_w=local.total_w)
    allocation = allocate(bids, *corrected, price, groups, steps)
    given, late = bids, late_devices(usable, connection.trajectories, state.memory, image, connection.late)
    told_w = told_late(usable, late, allocation.shares_w)
    connection.late = frozenset([usable[index].model.name for index in late])
    if late:
        bids, steps = counted_as_shown(bids, late), {at: one for at, one in steps.items() if at not in late}
        allocation = allocate(bids, *corrected, price, groups, steps)
    total_w = sum(allocation.shares_w)
    side, binding = binding_of(envelope, corrected, total_w, allocation)
    free = corrected if envelope.target is not None else corrected._replace(target_w=None)
    held = {override.device: override for override in orders.overrides}
    sharing = Sharing(usable, bids, free, price, groups, wished, held, state.memory, image.now_s)
    granted = grant(sharing, allocation.shares_w, steps)
    asked_w = _bridged(model, connection, usable, bids, granted.shares_w, corrected, groups, image.now_s)
    asked_w = tuple([told_w.get(index, power_w) for index, power_w in enumerate(asked_w)])
    connection.intend(model, usable, asked_w, image.now_s)
    connection.bound = bool(binding)
    state.memory.import_presses = side == "upper"
    state.memory.export_presses = total_w <= corrected.lower_w + 1.0
    shares = _Shares(granted, asked_w, told_w, side, binding, total_w - corrected.lower_w)
    setpoints = _setpoints(usable, shares, orders, state)
    connection.told(usable, [one.power_w for one in setpoints], image.now_s)
    short = shortfall(model, envelope, corrected, total_w)
    against = overruled(usable, wished, wanted, given, allocation.shares_w, binding)
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
        tuple(filter(None, (*envelope.unmet, rest_unmet, moved, short, *misses, *against))),
        connection.trust.reason,
        _notices(usable, granted, state),
    )


def _release(orders: OrdersInForce, state: ControlState) -> None:
    """An operator's word that the meter is good holds once."""
    if orders.meter_released and orders.meter_released != state.released:
        state.connection.trust.release()
        state.released = orders.meter_released


def _walk(model: SiteModel, orders: OrdersInForce, image: Image, state: ControlState, dt_s: float) -> Envelope:
    """The envelope; a meter that proved wrong brings the fallback."""
    trust = state.connection.trust
    if trust.state is Trust.LATCHED:
        reasons = (orders.fallback_reason, trust.reason)
        orders = replace(orders, fallback_reason="; ".join(filter(None, reasons)))
    excess_a = 0.0 if loads_unevenly(model) else worst_excess_a(model, image)
    support = None
    if model.grid_support is not None:
        support = state.grid_support.bounds(model, image, *state.connection.parts_w, dt_s)
    envelope = walk(model, orders, image.now_s, _dispatch_from(orders, state), excess_a, support)
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

    whole = [group for group in groups if not group.weights]
    return bridge(parts, expect, Wanted(*bounds, model.margin_w), whole)


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
        bridges and resource.upper.source not in (TAKES_LITTLE, NOT_WOKEN),
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


def _setpoints(
    usable: list[Resource], shares: _Shares, orders: OrdersInForce, state: ControlState
) -> tuple[DeviceSetpoint, ...]:
    held = {override.device: override for override in orders.overrides}
    chosen_by = shares.binding or (orders.plan.source if orders.plan is not None else "")
    granted, now_s, remembered = shares.granted, state.last_s or 0.0, state.memory.devices
    setpoints = []
    for index, (resource, share_w, asked_w) in enumerate(zip(usable, granted.shares_w, shares.asked_w, strict=True)):
        model = resource.model
        cause = _cause(resource, share_w, chosen_by, held.get(model.name))
        power_w = asked_w
        known = remembered[model.name]
        if index in shares.told_w:
            cause = DOES_NOT_FOLLOW_YET
        elif asked_w != share_w:
            cause = f"{shares.binding or cause} (bridging)"
            if index in granted.ceilings_w:
                step_w = charger_step_w(model)
                power_w = int(asked_w / step_w + 1e-6) * step_w
        elif index in granted.ceilings_w:
            power_w = granted.ceilings_w[index]
        elif model.kind is _INVERTER and model.ceiling and model.name not in held:
            room_w = shares.room_w if known.seldom(now_s, resource.measured_s) else inf
            power_w = released_w(model, resource.power_w, -resource.lower.value_w, share_w, shares.side, room_w)
        known.asked(model, now_s, asked_w, power_w, index in granted.restricted)
        setpoints.append(DeviceSetpoint(model.name, power_w, cause))
    return tuple(setpoints)


def _notices(usable: list[Resource], granted: Granted, state: ControlState) -> tuple[str, ...]:
    notices: list[str] = []
    for index in granted.ceilings_w:
        model = usable[index].model
        session = state.memory.session(model.name)
        if session is not None and (session.need_w > 0.0 or session.not_woken):
            notices += charger_notices(model, session, granted.shares_w[index], state.last_s or 0.0)
    return tuple(notices)


def _cause(resource: Resource, share_w: float, binding: str, override: OverrideInForce | None) -> str:
    """Why this power: the operator, the device's own bound, the binding order, or the price."""
    if override is not None:
        return _operators_cause(resource, share_w, binding, override)
    if resource.lower.value_w == resource.upper.value_w:
        return resource.lower.source
    if abs(share_w - resource.lower.value_w) < 1.0 and resource.lower.source != "site file":
        return resource.lower.source
    if abs(share_w - resource.upper.value_w) < 1.0 and resource.upper.source != "site file":
        return resource.upper.source
    return binding or "price"


def _operators_cause(resource: Resource, share_w: float, binding: str, override: OverrideInForce) -> str:
    """The operator, and what keeps the device from the power that was ordered."""
    if override.lower_w - 1.0 <= share_w <= override.upper_w + 1.0:
        return "operator"
    own = resource.upper if share_w < override.lower_w else resource.lower
    return f"operator, limited by {own.source if abs(share_w - own.value_w) < 1.0 else binding or 'a limit'}"
