"""Sharing a target among resources: `clear`, limits on groups of resources, and the second stage for whole steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from gateway.control.clearing import Bid, Clearing, clear, taken_at

STEP_HYSTERESIS: Final = 0.3
"""A step up is taken only when the share exceeds it by this part of a step, so that noise at an edge moves nothing."""


class GroupLimit(NamedTuple):
    """A limit on the summed consumption (or generation) of some bids: indexes, magnitude in watts, and its source.

    `side` "load" bounds the sum of the positive shares from above, "generation" the sum of the negative ones from
    below, "net_upper" and "net_lower" the plain sum, with `value_w` then a signed power.
    """

    members: tuple[int, ...]
    side: str
    value_w: float
    source: str


@dataclass(frozen=True, slots=True)
class Steps:
    """How one resource moves: in whole `step_w`, 0 or at least `minimum_w`; `held_w` is its present step."""

    step_w: float
    minimum_w: float
    held_w: float | None
    most_w: float = inf


class Allocation(NamedTuple):
    """Shares in the order of the bids, the clearing price, and the groups that bound."""

    shares_w: tuple[float, ...]
    lambda_per_kwh: float
    binding: tuple[str, ...]


Share = Callable[[Sequence[Bid]], Clearing]


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

    def share(current: Sequence[Bid]) -> Clearing:
        if target_w is not None:
            return clear(current, min(max(target_w, lower_w), upper_w))
        free = taken_at(current, price_per_kwh)
        if lower_w <= free.total_w <= upper_w:
            return free
        return clear(current, min(max(free.total_w, lower_w), upper_w))

    current = list(bids)
    clearing = share(current)
    binding = []
    for group in groups:
        if _exceeds(group, clearing.shares_w):
            _tighten(current, group)
            clearing = share(current)
            binding.append(group.source)
    shares = clearing.shares_w
    if steps:
        shares = _second_stage(current, shares, steps, upper_w, sum(shares))
    return Allocation(shares, clearing.lambda_per_kwh, tuple(binding))


def _measure(group: GroupLimit, shares_w: Sequence[float]) -> float:
    powers = [shares_w[index] for index in group.members]
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


def whole_steps(share_w: float, steps: Steps) -> float:
    """The step at or below a share, with hysteresis upwards from the held one; below the minimum it is 0."""
    count = int(share_w / steps.step_w + 1e-9)
    held = steps.held_w
    if held is not None and count * steps.step_w > held + 1e-6 and share_w < steps.most_w - 1.0:
        count = max(int((share_w - STEP_HYSTERESIS * steps.step_w) / steps.step_w + 1e-9), round(held / steps.step_w))
    power = count * steps.step_w
    return power if power >= steps.minimum_w - 1e-6 and power > 0.0 else 0.0


def _second_stage(
    bids: Sequence[Bid], shares_w: Sequence[float], steps: Mapping[int, Steps], upper_w: float, total_w: float
) -> tuple[float, ...]:
    """Round stepped resources down, let the others take up what that leaves, and raise steps they cannot take up.

    The sum never passes `upper_w` by rounding; it falls short of `total_w` by less than one largest step.
    """
    result = list(shares_w)
    for index, one in steps.items():
        result[index] = max(whole_steps(shares_w[index], one), _least_step(bids[index].lower_w, one))
    others = [index for index in range(len(bids)) if index not in steps]
    left_w = total_w - sum(result[index] for index in steps)
    for index, power in zip(others, clear([bids[index] for index in others], left_w).shares_w, strict=True):
        result[index] = power
    short_w = min(total_w, upper_w) - sum(result)

    def raised_w(index: int) -> float:
        return result[index] + steps[index].step_w if result[index] > 0.0 else steps[index].minimum_w

    # What was up stays up, then whoever lost most by rounding.
    for index in sorted(
        steps, key=lambda index: (steps[index].held_w != raised_w(index), result[index] - shares_w[index])
    ):
        more_w = raised_w(index)
        if more_w - result[index] <= short_w + 1e-6 and more_w <= bids[index].upper_w + 1e-6:
            short_w -= more_w - result[index]
            result[index] = more_w
    return tuple(result)


def _least_step(lower_w: float, steps: Steps) -> float:
    if lower_w <= 0.0:
        return 0.0
    count = -int(-lower_w / steps.step_w)
    return max(count * steps.step_w, steps.minimum_w)
