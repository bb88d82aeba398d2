"""What was in force when: limits, fallback and targets over time, rebuilt from what the DSO sent.

Rules. A limit holds from the later of its receipt and its start; it replaces the one on the same quantity at that
moment, and until then the earlier one holds. After its end comes what `on_end` says. The fallback holds before the
first heartbeat, from a time-out after the last heartbeat, and while a limit is `unknown`; it comes on top of the
limits, which stay in force, and is lifted with the next heartbeat. The installer's limits always hold. Of all that
holds on a quantity, the tightest counts. Without a parent in the site file there is no heartbeat to wait for, and no
fallback.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from math import inf
from typing import NamedTuple, TypeAlias

from config.messages import DispatchOrder, Down, LimitOrder, RegulationSignal
from config.site import Site
from config.vocabulary import Quantity
from gateway.bench.dso_orders import DsoOrder, heartbeat_times
from gateway.bench.run_files import Run

FALLBACK = "fallback"
INSTALLER = "installer"


class Hold(NamedTuple):
    """A value that holds over a time and who set it; the value is a magnitude or a target."""

    start_s: float
    end_s: float
    value: float
    source: str


class Step(NamedTuple):
    """From `start_s` until the next step this value holds; None: no limit, or no target."""

    start_s: float
    value: float | None
    source: str


Steps: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class InForce:
    """Everything in force over a run.

    `limits` are magnitudes by quantity. `orders` gives the time over which each order, by its place in the run's
    orders, was in force. `target` is what dispatch and regulation together ask of the net power, before limits.
    """

    limits: Mapping[Quantity, Steps]
    orders: Mapping[int, tuple[float, float]]
    target: Steps
    regulated: tuple[tuple[float, float], ...]
    fallback: tuple[tuple[float, float], ...]


def tightest(holds: Iterable[Hold]) -> Steps:
    """The smallest value that holds at each time."""
    waiting = deque(sorted(hold for hold in holds if hold.start_s < hold.end_s))
    moments = {time for hold in waiting for time in (hold.start_s, hold.end_s) if time < inf} | {-inf}
    active: list[tuple[float, float, str]] = []
    steps: list[Step] = []
    for at_s in sorted(moments):
        while waiting and waiting[0].start_s <= at_s:
            hold = waiting.popleft()
            heappush(active, (hold.value, hold.end_s, hold.source))
        while active and active[0][1] <= at_s:
            heappop(active)
        step = Step(at_s, active[0][0], active[0][2]) if active else Step(at_s, None, "")
        if not steps or steps[-1][1:] != step[1:]:
            steps.append(step)
    return tuple(steps)


def loosened(steps: Steps, grace_s: float) -> Steps:
    """The loosest limit of the last `grace_s` at each time: a tighter one counts once it is that old."""
    result: list[Step] = []
    ends = [step.start_s for step in steps[1:]] + [inf]
    for at_s in sorted({step.start_s for step in steps} | {step.start_s + grace_s for step in steps}):
        recent = [
            step for step, end_s in zip(steps, ends, strict=True) if step.start_s <= at_s and end_s > at_s - grace_s
        ]
        loosest = max(recent, key=lambda step: inf if step.value is None else step.value)
        step = Step(at_s, loosest.value, loosest.source)
        if not result or result[-1][1:] != step[1:]:
            result.append(step)
    return tuple(result)


def sampled(steps: Steps, times: Sequence[float]) -> list[float | None]:
    """The value in force at each of ascending times."""
    result: list[float | None] = []
    index, value = -1, None
    for now in times:
        while index + 1 < len(steps) and steps[index + 1].start_s <= now:
            index += 1
            value = steps[index].value
        result.append(value)
    return result


def step_at(steps: Steps, at_s: float) -> Step:
    """The step that holds at a time; one without a value before the first."""
    found = bisect_right(steps, at_s, key=lambda step: step.start_s)
    return steps[found - 1] if found else Step(-inf, None, "")


def in_force(run: Run, orders: Sequence[DsoOrder], site: Site) -> InForce:
    """Rebuild what was in force over a run; `orders` in the order of receipt."""
    terms: dict[int, tuple[float, float]] = {}
    holds: dict[Quantity, list[Hold]] = {quantity: [] for quantity in Quantity}
    fallback = _fallback_times(run, site)
    for quantity in Quantity:
        chosen = {
            index: order
            for index, order in enumerate(orders)
            if order.binds and isinstance(order.message, LimitOrder) and order.message.quantity is quantity
        }
        for index, order, follows_s in _replacing(chosen):
            terms[index] = (order.begins_s, min(order.ends_s, follows_s))
            holds[quantity] += _limit_hold(order, terms[index])
            fallback += _unknown_times(order, terms[index], follows_s)
    for start_s, end_s in fallback:
        for quantity, value in fallback_limits(site).items():
            holds[quantity].append(Hold(start_s, end_s, value, FALLBACK))
    for quantity, value in installer_limits(site).items():
        holds[quantity].append(Hold(-inf, inf, value, INSTALLER))
    target, regulated = _targets(orders, terms)
    return InForce(
        limits={quantity: tightest(items) for quantity, items in holds.items() if items},
        orders=terms,
        target=target,
        regulated=regulated,
        fallback=_joined(fallback),
    )


def installer_limits(site: Site) -> dict[Quantity, float]:
    """The site file's own limits, which no order relaxes."""
    rating = site.connection.rating_w
    given = {
        Quantity.NET_IMPORT_W: site.connection.max_import_w,
        Quantity.NET_EXPORT_W: site.connection.max_export_w,
    }
    return {quantity: rating if value is None else value for quantity, value in given.items()}


def fallback_limits(site: Site) -> dict[Quantity, float]:
    """The fallback of the site file, where it is a number."""
    given = {
        Quantity.NET_IMPORT_W: site.fallback.net_import_w,
        Quantity.NET_EXPORT_W: site.fallback.net_export_w,
    }
    return {quantity: value for quantity, value in given.items() if not isinstance(value, str)}


def lost_times(heartbeats: Sequence[float], timeout_s: float) -> list[tuple[float, float]]:
    """When a parent counts as lost: before its first heartbeat, and from a time-out after one until the next."""
    if not heartbeats:
        return [(-inf, inf)]
    lost = [(-inf, heartbeats[0])]
    lost += [(last + timeout_s, following) for last, following in pairwise(heartbeats) if following - last > timeout_s]
    return [*lost, (heartbeats[-1] + timeout_s, inf)]


def _fallback_times(run: Run, site: Site) -> list[tuple[float, float]]:
    heartbeats = heartbeat_times(run)
    if heartbeats is not None:
        parent = next((parent for parent in site.parents if parent.dispatch), next(iter(site.parents), None))
        return lost_times(heartbeats, parent.heartbeat_timeout_s) if parent else []
    # Without the DSO's log the gateway's own word is all there is.
    times: list[tuple[float, float]] = []
    since_s: float | None = -inf
    modes = [event for event in run.gateway if event.name == "mode"]
    for event in modes:
        if event.text("state") == FALLBACK:
            since_s = event.at_s if since_s is None else since_s
        elif since_s is not None:
            times.append((since_s, event.at_s))
            since_s = None
    return [*times, (since_s, inf)] if modes and since_s is not None else times


def _replacing(chosen: Mapping[int, DsoOrder]) -> list[tuple[int, DsoOrder, float]]:
    """Each order with its place and the time at which the next one replaces it (inf: never)."""
    by_begin = sorted(chosen.items(), key=lambda item: (item[1].begins_s, item[0]))
    follows = (*(order.begins_s for _, order in by_begin[1:]), inf)
    return [(index, order, follows_s) for (index, order), follows_s in zip(by_begin, follows, strict=False)]


def _limit_hold(order: DsoOrder, term: tuple[float, float]) -> list[Hold]:
    assert isinstance(order.message, LimitOrder)
    value = order.message.value
    return [] if isinstance(value, str) else [Hold(*term, value, order.id)]


def _unknown_times(order: DsoOrder, term: tuple[float, float], follows_s: float) -> list[tuple[float, float]]:
    assert isinstance(order.message, LimitOrder)
    times = [term] if order.message.value == "unknown" else []
    if order.message.on_end == "fallback" and order.ends_s < follows_s:
        times.append((order.ends_s, follows_s))
    return times


def _targets(
    orders: Sequence[DsoOrder], terms: dict[int, tuple[float, float]]
) -> tuple[Steps, tuple[tuple[float, float], ...]]:
    """The net power asked over time, and the times in which a regulation signal moved it. Adds to `terms`."""
    followed = {index: order for index, order in enumerate(orders) if order.binds and not order.refused}
    bases: list[tuple[float, float, DispatchOrder, str]] = []
    for index, order, follows_s in _replacing({i: o for i, o in followed.items() if o.kind is Down.DISPATCH}):
        assert isinstance(order.message, DispatchOrder)
        terms[index] = (order.begins_s, min(order.ends_s, follows_s))
        bases.append((*terms[index], order.message, order.id))
    holds: list[Hold] = []
    for index, order, follows_s in _replacing({i: o for i, o in followed.items() if o.kind is Down.REGULATION}):
        assert isinstance(order.message, RegulationSignal)
        start_s, end_s = order.begins_s, min(order.ends_s, follows_s)
        terms[index] = (start_s, end_s)
        for from_s, until_s, dispatch, name in bases:
            overlap = max(start_s, from_s), min(end_s, until_s)
            reserved = dispatch.regulation_up_w or dispatch.regulation_down_w
            if reserved and overlap[0] < overlap[1]:
                holds.append(Hold(*overlap, regulated_w(dispatch, order.message.signal), f"{name}, regulation"))
    regulated = _joined([(hold.start_s, hold.end_s) for hold in holds])
    holds += _outside(bases, regulated)
    return tightest(holds), regulated


def regulated_w(dispatch: DispatchOrder, signal: float) -> float:
    """base - signal x capacity; a signal above 0 asks for more generation and uses the capacity up."""
    return dispatch.net_power_w - signal * (dispatch.regulation_up_w if signal > 0 else dispatch.regulation_down_w)


def _outside(
    bases: Sequence[tuple[float, float, DispatchOrder, str]], regulated: Sequence[tuple[float, float]]
) -> list[Hold]:
    """Dispatches, in the times that no signal moves them."""
    holds: list[Hold] = []
    for from_s, until_s, dispatch, name in bases:
        at_s = from_s
        for start_s, end_s in (*regulated, (until_s, until_s)):
            if at_s < min(start_s, until_s):
                holds.append(Hold(at_s, min(start_s, until_s), dispatch.net_power_w, name))
            at_s = max(at_s, end_s)
    return holds


def _joined(times: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Overlapping and touching times made one, ascending."""
    result: list[tuple[float, float]] = []
    for start_s, end_s in sorted(times):
        if result and start_s <= result[-1][1]:
            result[-1] = (result[-1][0], max(end_s, result[-1][1]))
        elif start_s < end_s:
            result.append((start_s, end_s))
    return tuple(result)
