"""From the state that control sends, and the forecasts, to what a plan is made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final

from config.vocabulary import Quantity
from gateway.planning.child_plan import CHILD_STEPS, ChildPlan, ChildStep, child_step
from gateway.planning.forecast import Band
from gateway.planning.messages import ChildState, ConnectionState, DispatchState, LimitState, StateMessage
from gateway.planning.model import LASTING_S, BatteryPlan, PlanInput, Reserve, Series, SolarPlan, Tariff, VehiclePlan

SUN: Final = "sun"
"""All inverters as one resource: what is free is curtailed anywhere alike."""

UNPLANNED_S: Final = 3600.0
"""A car of which nobody knows what it needs is taken to go on for so long."""

PRICE_SAMPLES: Final = 5
BELIEVED_PER_KWH: Final = 9.0
"""A price from another layer counts up to this: beyond it a car would be left without its energy for the sake of it."""


@dataclass(slots=True)
class Horizon:
    """When the plan's steps are: the first begins now."""

    begin_utc_s: float
    step_s: float
    steps: int

    def during(self, from_utc_s: float, until_utc_s: float | None) -> Iterator[int]:
        """The steps of which more than half lies in an interval."""
        for step in range(self.steps):
            middle_s = self.begin_utc_s + (step + 0.5) * self.step_s
            if from_utc_s <= middle_s and (until_utc_s is None or middle_s < until_utc_s):
                yield step

    def clock_step(self, step: int, begin_utc_s: float) -> int:
        """How many of the clock's steps after the one that began then the middle of a step lies."""
        return int((self.begin_utc_s + (step + 0.5) * self.step_s - begin_utc_s) // self.step_s)


@dataclass(slots=True)
class Limits:
    """What bounds net power in each step, as magnitudes, the sun, and what had to be left out."""

    import_w: list[float]
    export_w: list[float]
    sun_w: list[float]
    left_out: set[str] = field(default_factory=set)


def horizon_of(state: StateMessage) -> Horizon:
    """From the state's own time on."""
    return Horizon(state.utc_s, float(state.planning.step_s), state.planning.steps)


def plan_input(state: StateMessage, load: Band, sun: Band) -> tuple[PlanInput, set[str]]:
    """The program's numbers, and what of the state it can't say.

    `load` without the unplanned, `sun` as magnitudes of all inverters.
    """
    horizon = horizon_of(state)
    limits = _limits(state, horizon)
    available = tuple(min(power, most) for power, most in zip(sun.p50_w, limits.sun_w, strict=True))
    solar = (SolarPlan(SUN, available),) if state.sun_rating_w > 0.0 else ()
    going_on = round(UNPLANNED_S / horizon.step_s)
    given = PlanInput(
        horizon.step_s,
        tuple(power + (state.unplanned_w if step < going_on else 0.0) for step, power in enumerate(load.p50_w)),
        _tariff(state, horizon),
        tuple(limits.import_w),
        tuple(limits.export_w),
        _batteries(state),
        _vehicles(state, horizon),
        solar,
        children=_children(state, horizon),
        reserve=_reserve(state, horizon),
        dispatch_w=_dispatched(state, horizon),
    )
    return given, limits.left_out


def _batteries(state: StateMessage) -> tuple[BatteryPlan, ...]:
    return tuple(
        BatteryPlan(
            one.name,
            one.capacity_wh,
            one.soc,
            one.charge_w,
            one.discharge_w,
            one.soc_min,
            one.soc_max,
            one.settings.charge_efficiency_pu,
            one.settings.discharge_efficiency_pu,
            one.settings.wear_per_kwh,
            one.settings.target_soc,
        )
        for one in state.batteries
    )


def _vehicles(state: StateMessage, horizon: Horizon) -> tuple[VehiclePlan, ...]:
    """A car that leaves within a step still gets what it can in it."""
    found = []
    for one in state.cars:
        until = int((one.leaves_utc_s - horizon.begin_utc_s) / horizon.step_s)
        found.append(VehiclePlan(one.name, one.max_w, one.needed_wh, 0, min(max(until, 1), horizon.steps)))
    return tuple(found)


def _children(state: StateMessage, horizon: Horizon) -> tuple[ChildPlan, ...]:
    """Each of the plan's steps is the clock's step in which its middle lies."""
    found = []
    for child in state.children:
        at = [horizon.clock_step(step, child.begin_utc_s) for step in range(horizon.steps)]
        base = [child.base_w[min(max(one, 0), len(child.base_w) - 1)] for one in at]
        steps = [_child_step(child, one, base[step]) for step, one in enumerate(at[:CHILD_STEPS])]
        found.append(
            ChildPlan(
                child.name, tuple(base), tuple(steps), child.energy_up_wh, child.energy_down_wh, child.ramp_w_per_s
            )
        )
    return tuple(found)


def _child_step(child: ChildState, at: int, base_w: float) -> ChildStep | None:
    offered = child.intervals[at] if 0 <= at < len(child.intervals) else None
    if offered is None:
        return None
    points = tuple(zip(map(_believed, offered.prices_per_kwh), offered.powers_w, strict=True))
    return child_step(points, offered.lower_w, offered.upper_w, base_w, child.delivered_pu)


def _believed(price_per_kwh: float) -> float:
    return min(max(price_per_kwh, -BELIEVED_PER_KWH), BELIEVED_PER_KWH)


def tariff_prices(state: StateMessage, horizon: Horizon) -> tuple[Series, Series]:
    """Import and export price by step: the tariff's mean over it, or the parent's price and half the spread."""
    imports, exports = [], []
    for step in range(horizon.steps):
        begin_s = horizon.begin_utc_s + step * horizon.step_s
        each = [
            state.planning.prices_at(begin_s + (at + 0.5) / PRICE_SAMPLES * horizon.step_s)
            for at in range(PRICE_SAMPLES)
        ]
        imports.append(sum(one.import_per_kwh for one in each) / PRICE_SAMPLES)
        exports.append(sum(one.export_per_kwh for one in each) / PRICE_SAMPLES)
    for dispatch in state.dispatches:
        for step, told in _announced(dispatch, horizon):
            price = _believed(told)
            spread = (imports[step] - exports[step]) / 2.0
            imports[step], exports[step] = price + spread, price - spread
    return tuple(imports), tuple(exports)


def _announced(dispatch: DispatchState, horizon: Horizon) -> Iterator[tuple[int, float]]:
    """The parent's price by step: its lambda while the dispatch holds, then its path in intervals as long."""
    if dispatch.lambda_per_kwh is None:
        return
    if dispatch.until_replaced:
        yield from _by_the_clock(dispatch, dispatch.lambda_per_kwh, horizon)
        return
    path = (dispatch.lambda_per_kwh, *dispatch.path_per_kwh)
    if dispatch.until_utc_s is None:
        path = path[:1]
    length_s = inf if dispatch.until_utc_s is None else max(dispatch.until_utc_s - dispatch.from_utc_s, 1.0)
    for step in horizon.during(dispatch.from_utc_s, None):
        since_s = horizon.begin_utc_s + (step + 0.5) * horizon.step_s - dispatch.from_utc_s
        at = 0 if length_s == inf else int(since_s // length_s)
        if at < len(path):
            yield step, path[at]


def _by_the_clock(dispatch: DispatchState, price: float, horizon: Horizon) -> Iterator[tuple[int, float]]:
    """The price of the clock's step in which the dispatch was given, then the path's."""
    path = (price, *dispatch.path_per_kwh)
    for step in horizon.during(dispatch.from_utc_s, None):
        at = horizon.clock_step(step, dispatch.from_utc_s // horizon.step_s * horizon.step_s)
        if at < len(path):
            yield step, path[at]


def _tariff(state: StateMessage, horizon: Horizon) -> Tariff:
    imports, exports = tariff_prices(state, horizon)
    demand = state.planning.interchange
    return Tariff(imports, exports, demand.demand_per_kw, demand.peak_so_far_w)


def _limits(state: StateMessage, horizon: Horizon) -> Limits:
    point, steps = state.connection, horizon.steps
    limits = Limits([point.max_import_w] * steps, [point.max_export_w] * steps, [inf] * steps)
    if point.fallback_holds:
        _fall_back(limits, point, range(steps))
    for limit in state.limits:
        held = list(horizon.during(limit.from_utc_s, limit.until_utc_s))
        if limit.value == "unknown":
            _fall_back(limits, point, held)
        elif isinstance(limit.value, float):
            _narrow(limits, point, limit, limit.value, held)
        if limit.then_fallback and limit.until_utc_s is not None:
            _fall_back(limits, point, horizon.during(limit.until_utc_s, None))
    return limits


def _fall_back(limits: Limits, point: ConnectionState, steps: Iterator[int] | range | list[int]) -> None:
    for step in steps:
        if point.fallback_import_w is not None:
            limits.import_w[step] = min(limits.import_w[step], point.fallback_import_w)
        if point.fallback_export_w is not None:
            limits.export_w[step] = min(limits.export_w[step], point.fallback_export_w)


def _narrow(limits: Limits, point: ConnectionState, limit: LimitState, value: float, steps: list[int]) -> None:
    sides = {
        Quantity.NET_IMPORT_W: ((limits.import_w, value),),
        Quantity.NET_EXPORT_W: ((limits.export_w, value),),
        Quantity.GENERATION_W: ((limits.sun_w, value),),
        Quantity.CURRENT_PER_PHASE_A: tuple(
            (side, value * point.watts_per_a) for side in (limits.import_w, limits.export_w)
        ),
    }.get(limit.quantity)
    if sides is None:
        limits.left_out.add(f"a limit on {limit.quantity} is left to control")
        return
    for side, most_w in sides:
        for step in steps:
            side[step] = min(side[step], most_w)


def _dispatched(state: StateMessage, horizon: Horizon) -> tuple[float | None, ...]:
    """The net power that a parent has asked for; None where it leaves the choice. Empty: nowhere."""
    asked: list[float | None] = [None] * horizon.steps
    for dispatch in sorted(state.dispatches, key=lambda one: one.from_utc_s):
        for step in horizon.during(dispatch.from_utc_s, _asks_until_s(dispatch, horizon)):
            asked[step] = dispatch.net_power_w
    return tuple(asked) if any(power is not None for power in asked) else ()


def _asks_until_s(dispatch: DispatchState, horizon: Horizon) -> float | None:
    """A share that is replaced with every cycle stands for the step that begins now, and for no later interval."""
    if not dispatch.until_replaced:
        return dispatch.until_utc_s
    next_s = (dispatch.from_utc_s // horizon.step_s + 1.0) * horizon.step_s
    return horizon.begin_utc_s + horizon.step_s if horizon.begin_utc_s < next_s else next_s


def _reserve(state: StateMessage, horizon: Horizon) -> Reserve | None:
    """What the site file keeps free, and what dispatches have promised where that is more."""
    kept = state.planning.reserve
    up = [kept.up_w if kept is not None else 0.0] * horizon.steps
    down = [kept.down_w if kept is not None else 0.0] * horizon.steps
    for dispatch in state.dispatches:
        for step in horizon.during(dispatch.from_utc_s, dispatch.until_utc_s):
            up[step] = max(up[step], dispatch.regulation_up_w)
            down[step] = max(down[step], dispatch.regulation_down_w)
    if not any(up) and not any(down):
        return None
    return Reserve(tuple(up), tuple(down), kept.lasting_s if kept is not None else LASTING_S)
