"""Sharing a target among resources: `clear`, limits on groups of resources, and the second stage for whole steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from operator import mul
from typing import Final, NamedTuple

from gateway.control.clearing import Bid, Clearing, Curve, clear, taken_at

STEP_HYSTERESIS: Final = 0.3
"""A step up is taken only when the share exceeds it by this part of a step, so that noise at an edge moves nothing."""

SCALED_KEPT: Final = 4096


class GroupLimit(NamedTuple):
    """A limit on the summed consumption (or generation) of some bids: indexes, magnitude in watts, and its source.

    `side` "load" bounds the sum of the positive shares from above, "generation" the sum of the negative ones from
    below, "net_upper" and "net_lower" the plain sum, with `value_w` then a signed power. `weights`: which part of each
    member's power counts, above 0, with the plain sums only; empty: all of it.
    """

    members: tuple[int, ...]
    side: str
    value_w: float
    source: str
    weights: tuple[float, ...] = ()


class Steps(NamedTuple):
    """How one resource moves: in whole `step_w`, 0 or at least `minimum_w`; `held_w` is its present step.

    `takes_w`: it takes no more than this of any step, and a share of that much is not rounded. `turn`: whose is lower
    is raised from 0 first.
    """

    step_w: float
    minimum_w: float
    held_w: float | None
    most_w: float = inf
    takes_w: float = inf
    turn: float = 0.0


class Allocation(NamedTuple):
    """Shares in the order of the bids, the clearing price, and the groups that bound."""

    shares_w: tuple[float, ...]
    lambda_per_kwh: float
    binding: tuple[str, ...]


Share = Callable[[Sequence[Bid], float], Clearing]
"""Shares bids under the bounds in force, with so much power beside them."""


def allocate(
    bids: Sequence[Bid],
    lower_w: float,
    upper_w: float,
    target_w: float | None,
    price_per_kwh: float,
    groups: Sequence[GroupLimit] = (),
    steps: Mapping[int, Steps] | None = None,
) -> Allocation:
    """Share power so that the sum lies within `lower_w` to `upper_w`, at the target if there is one, else at the price.

    Sums are of the bids alone. Where the bids' bounds cannot reach the interval the nearest sum is taken. Group limits
    hold before the interval does.
    """

    def share(current: Sequence[Bid], beside_w: float) -> Clearing:
        least_w, most_w = lower_w - beside_w, upper_w - beside_w
        if target_w is not None:
            return clear(current, min(max(target_w - beside_w, least_w), most_w))
        free = taken_at(current, price_per_kwh)
        if least_w <= free.total_w <= most_w:
            return free
        return clear(current, min(max(free.total_w, least_w), most_w))

    current = list(bids)
    clearing = share(current, 0.0)
    binding = []
    for group in groups:
        if _exceeds(group, clearing.shares_w):
            _tighten(current, group)
            clearing = share(current, 0.0)
            binding.append(group.source)
    shares = clearing.shares_w
    if steps:
        shares = _second_stage(bids, current, shares, steps, share, upper_w, groups)
    return Allocation(shares, clearing.lambda_per_kwh, tuple(binding))


def _measure(group: GroupLimit, shares_w: Sequence[float]) -> float:
    powers = [shares_w[index] for index in group.members]
    if group.weights:
        return float(sum(map(mul, powers, group.weights)))
    if group.side == "load":
        return sum(max(power, 0.0) for power in powers)
    if group.side == "generation":
        return -sum(min(power, 0.0) for power in powers)
    return sum(powers)


def group_excess(group: GroupLimit, powers_w: Sequence[float]) -> float:
    """By how much powers (in the order of the bids) exceed a group's limit; not above 0 where they keep it."""
    measured = _measure(group, powers_w)
    return group.value_w - measured if group.side == "net_lower" else measured - group.value_w


def _exceeds(group: GroupLimit, shares_w: Sequence[float]) -> bool:
    return group_excess(group, shares_w) > 1e-6


def _tighten(bids: list[Bid], group: GroupLimit) -> None:
    """Give each member the share it has when the group alone is cleared at its limit, as its bound."""
    members = [bids[index] for index in group.members]
    if group.side == "load":
        parts = [Bid(bid.curve, max(bid.lower_w, 0.0), max(bid.upper_w, 0.0)) for bid in members]
        caps = clear(parts, group.value_w).shares_w
    elif group.side == "generation":
        parts = [Bid(bid.curve, min(bid.lower_w, 0.0), min(bid.upper_w, 0.0)) for bid in members]
        caps = clear(parts, -group.value_w).shares_w
    elif group.weights:
        parts = [_part_of(bid, weight) for bid, weight in zip(members, group.weights, strict=True)]
        counted = clear(parts, group.value_w).shares_w
        caps = tuple([cap / weight for cap, weight in zip(counted, group.weights, strict=True)])
    else:
        caps = clear(members, group.value_w).shares_w
    upper_side = group.side in ("load", "net_upper")
    for index, cap in zip(group.members, caps, strict=True):
        bid = bids[index]
        if upper_side:
            upper = max(min(bid.upper_w, cap), bid.lower_w)
            bids[index] = Bid(bid.curve, bid.lower_w, upper)
        else:
            lower = min(max(bid.lower_w, cap), bid.upper_w)
            bids[index] = Bid(bid.curve, lower, bid.upper_w)


def _part_of(bid: Bid, weight: float) -> Bid:
    return Bid(_scaled(bid.curve, weight), bid.lower_w * weight, bid.upper_w * weight)


@lru_cache(SCALED_KEPT)
def _scaled(curve: Curve, weight: float) -> Curve:
    return Curve(curve.prices_per_kwh, tuple([power * weight for power in curve.powers_w]))


def whole_steps(share_w: float, steps: Steps) -> float:
    """The step at or below a share, with hysteresis upwards from the held one; below the minimum it is 0."""
    step_w, minimum_w, held_w, most_w, takes_w, _ = steps
    if share_w >= takes_w - 1.0:
        return takes_w
    count = int(share_w / step_w + 1e-9)
    if held_w is not None and count * step_w > held_w + 1e-6 and share_w < most_w - 1.0:
        count = max(int((share_w - STEP_HYSTERESIS * step_w) / step_w + 1e-9), round(held_w / step_w))
    power = count * step_w
    return power if power >= minimum_w - 1e-6 and power > 0.0 else 0.0


@dataclass(slots=True)
class _Room:
    """What a group's limit still leaves to be raised, and by how much each member uses it."""

    weights: Mapping[int, float]
    left_w: float


def _rooms(groups: Sequence[GroupLimit], shares_w: Sequence[float]) -> list[_Room]:
    return [
        _Room(
            dict(zip(group.members, group.weights or [1.0] * len(group.members), strict=True)),
            -group_excess(group, shares_w),
        )
        for group in groups
        if group.side in ("load", "net_upper")
    ]


def _second_stage(
    free: Sequence[Bid],
    bids: Sequence[Bid],
    shares_w: Sequence[float],
    steps: Mapping[int, Steps],
    share: Share,
    upper_w: float,
    groups: Sequence[GroupLimit],
) -> tuple[float, ...]:
    """Round stepped resources down, share the rest anew beside them, and raise steps for what that leaves.

    `free` are the bids before the groups tightened them to `bids`. The sum never passes `upper_w`, nor a group its
    limit, by rounding; it falls short of the shares' by less than one largest step, except
    where the price decides and the sum has no target.
    """
    result, total_w = list(shares_w), sum(shares_w)
    for index, one in steps.items():
        result[index] = max(whole_steps(shares_w[index], one), _least_step(bids[index].lower_w, one))
    others = [index for index in range(len(bids)) if index not in steps]
    beside_w = sum([result[index] for index in steps])
    for index, power in zip(others, share([bids[index] for index in others], beside_w).shares_w, strict=True):
        result[index] = power
    short_w = min(total_w, upper_w) - sum(result)
    rooms = _rooms(groups, result)
    while short_w > 1.0:
        before_w = short_w
        short_w = _raised(free, shares_w, steps, result, short_w, rooms)
        if short_w == before_w:
            break
    return tuple(result)


def _raised(
    bids: Sequence[Bid],
    shares_w: Sequence[float],
    steps: Mapping[int, Steps],
    result: list[float],
    short_w: float,
    rooms: Sequence[_Room],
) -> float:
    """Raise by a step each who may be: first from 0, in turn; then what was up, then whoever lost most by rounding."""
    ways = []
    for index, one in steps.items():
        power_w, most_w = result[index], min(bids[index].upper_w, one.takes_w)
        to_w = min(power_w + one.step_w if power_w > 0.0 else min(one.minimum_w, one.takes_w), one.takes_w)
        if to_w > power_w and to_w <= most_w + 1e-6:
            held = one.held_w == to_w
            key = (power_w > 0.0, one.turn if power_w <= 0.0 else 0.0, not held, power_w - shares_w[index], index)
            ways.append((key, to_w))
    for (*_, index), to_w in sorted(ways):
        more_w = to_w - result[index]
        if more_w <= short_w + 1e-6 and all(room.weights.get(index, 0.0) * more_w <= room.left_w for room in rooms):
            short_w -= more_w
            result[index] = to_w
            for room in rooms:
                room.left_w -= room.weights.get(index, 0.0) * more_w
    return short_w


def _least_step(lower_w: float, steps: Steps) -> float:
    if lower_w <= 0.0:
        return 0.0
    count = -int(-lower_w / steps.step_w)
    return min(max(count * steps.step_w, steps.minimum_w), steps.takes_w)
