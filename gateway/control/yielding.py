"""What yields to a limit: bounds that somebody would like to keep, and that no limit is broken for.

A charger's least time on and its cap of pauses yield first, then the operator's word on a device: limits come before
the operator, the operator before a dispatch. Each is moved by the least that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from config.vocabulary import DeviceKind
from gateway.control.allocation import GroupLimit
from gateway.control.clearing import Bid
from gateway.control.connection import SumBounds
from gateway.control.orders_in_force import OverrideInForce
from gateway.control.resource_memory import ResourceMemory
from gateway.control.resources import Resource

NEAR_W: Final = 1.0


class Wish(NamedTuple):
    """How far the bounds of a bid may be given up, and for whom: an operator's, or a charger's."""

    at: int
    lower_w: float
    upper_w: float
    override: OverrideInForce | None
    turn: float = 0.0


def wishes(
    usable: Sequence[Resource], chargers: Iterable[int], overrides: Sequence[OverrideInForce], memory: ResourceMemory
) -> list[Wish]:
    """Every bound of this cycle that yields to limits; `chargers` by their indexes."""
    found = []
    held = {override.device: override for override in overrides}
    for index in chargers:
        model = usable[index].model
        session = memory.devices[model.name].session
        if session is not None and session.keeps_on and model.name not in held:
            found.append(Wish(index, 0.0, usable[index].upper.value_w, None, session.turn))
    if held:
        for index, resource in enumerate(usable):
            override = held.get(resource.model.name)
            if override is not None:
                least_w = 0.0 if resource.model.kind is DeviceKind.CHARGER else resource.lower.value_w
                found.append(Wish(index, *_as_far_as(override, least_w, resource.upper.value_w), override))
    return found


def _as_far_as(override: OverrideInForce, least_w: float, most_w: float) -> tuple[float, float]:
    """How far an operator's order may give way: a power at which to hold as far as the device goes, bounds only to 0 W.

    Whoever stops or bounds a device may be standing at it: no limit makes it give or take what it may not.
    """
    if override.holds and override.lower_w != 0.0:
        return least_w, most_w
    return max(least_w, min(override.lower_w, 0.0)), min(most_w, max(override.upper_w, 0.0))


def within_limits(
    bids: list[Bid], wished: Sequence[Wish], bounds: SumBounds, groups: Sequence[GroupLimit]
) -> list[Bid]:
    """The bids with their wishes given up as far as the bounds and the groups need it, each by the least."""
    if not wished:
        return bids
    least_w, most_w = sum([lower_w for _, lower_w, _ in bids]), sum([upper_w for _, _, upper_w in bids])
    if not groups and least_w <= bounds.upper_w and most_w >= bounds.lower_w:
        return bids
    result = list(bids)
    everyone = GroupLimit(tuple(range(len(bids))), "net_upper", bounds.upper_w, "")
    for group in (*groups, everyone, everyone._replace(side="net_lower", value_w=bounds.lower_w)):
        downward = group.side in ("load", "net_upper")
        _give_way(result, wished, group) if downward else _come_up(result, wished, group)
    return result


def _counted(power_w: float, side: str) -> float:
    """What of a power counts against a group's limit."""
    if side == "load":
        return max(power_w, 0.0)
    return min(power_w, 0.0) if side == "generation" else power_w


def _weights(group: GroupLimit) -> dict[int, float]:
    return dict(zip(group.members, group.weights or [1.0] * len(group.members), strict=True))


def _give_way(bids: list[Bid], wished: Sequence[Wish], group: GroupLimit) -> None:
    """Lower what is wished for at least, until the least sum is inside the limit: chargers first, the last in turn."""
    weights = _weights(group)
    excess_w = sum(weights[index] * _counted(bids[index].lower_w, group.side) for index in group.members)
    excess_w -= group.value_w
    inside = [one for one in wished if one.at in weights]
    for one in sorted((one for one in inside if one.override is None), key=lambda one: -one.turn):
        bid = bids[one.at]
        if excess_w > 0.0 and bid.lower_w > one.lower_w:
            excess_w -= weights[one.at] * (bid.lower_w - one.lower_w)
            bids[one.at] = bid._replace(lower_w=one.lower_w)
    held = [one for one in inside if one.override is not None]
    rooms = [
        _counted(bids[one.at].lower_w, group.side) - _counted(min(one.lower_w, bids[one.at].lower_w), group.side)
        for one in held
    ]
    room_w = sum(weights[one.at] * room for one, room in zip(held, rooms, strict=True))
    if excess_w > 0.0 and room_w > 0.0:
        part = min(excess_w / room_w, 1.0)
        for one, room in zip(held, rooms, strict=True):
            bid = bids[one.at]
            bids[one.at] = bid._replace(lower_w=bid.lower_w - part * room)


def _come_up(bids: list[Bid], wished: Sequence[Wish], group: GroupLimit) -> None:
    """Raise what the operator allows at most, until the greatest sum is inside the limit."""
    weights = _weights(group)
    value_w = -group.value_w if group.side == "generation" else group.value_w
    short_w = value_w - sum(weights[index] * _counted(bids[index].upper_w, group.side) for index in group.members)
    held = [one for one in wished if one.override is not None and one.at in weights]
    rooms = [
        _counted(max(one.upper_w, bids[one.at].upper_w), group.side) - _counted(bids[one.at].upper_w, group.side)
        for one in held
    ]
    room_w = sum(weights[one.at] * room for one, room in zip(held, rooms, strict=True))
    if short_w > 0.0 and room_w > 0.0:
        part = min(short_w / room_w, 1.0)
        for one, room in zip(held, rooms, strict=True):
            bid = bids[one.at]
            bids[one.at] = bid._replace(upper_w=bid.upper_w + part * room)


def overruled(usable: Sequence[Resource], wished: Sequence[Wish], before: Sequence[Bid], after: Sequence[Bid],
              shares_w: Sequence[float], source: str) -> list[str]:  # fmt: skip
    """Each operator's order that a limit has moved a device away from, and by how much."""
    told = []
    for one in wished:
        wanted, given, share_w = before[one.at], after[one.at], shares_w[one.at]
        if one.override is None or wanted == given:
            continue
        by_w = min(share_w - wanted.lower_w, 0.0) or max(share_w - wanted.upper_w, 0.0)
        if abs(by_w) > NEAR_W:
            order, device = f"{one.override.source} {one.override.order_id}", usable[one.at].model.name
            told.append(f"{order}: {device} is {by_w:+.0f} W beside it, for {source or 'a limit'}")
    return told
