"""Bridging: fast devices stand in for slow ones while these move, and hand over as those arrive.

The clearing decides where each device goes in the end. Until the slow ones are there, the sum is another one: what is
missing is added to the shares of faster devices, as far as they have room, and is taken back by itself, cycle by cycle,
as the slow ones are seen to arrive. No more is added than brings the sum inside its bounds or to its target, and
nothing where it is inside already, so that a storage gives no more energy than the limit needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.control.allocation import GroupLimit
from gateway.control.trajectory import Span

SLOWER: Final = 2.0
SLOWER_BY_S: Final = 0.2
"""A device is bridged by others whose response is shorter than half of its own by this at least."""

SAME_TIER: Final = 1.5


class Part(NamedTuple):
    """One device's share and room, watts. `response_s`: dead time and Tr90; `lead_s`: how far ahead it has to act.

    `step_w` above 0: it may only be lowered, in whole steps, and not below `lower_w`.
    """

    share_w: float
    lower_w: float
    upper_w: float
    response_s: float
    lead_s: float
    bridges: bool
    step_w: float = 0.0


class Wanted(NamedTuple):
    """What the sum of all parts is to be, watts; with a target, that; else anything between the bounds."""

    lower_w: float
    upper_w: float
    target_w: float | None
    tolerance_w: float


Expect = Callable[[int, float], Span]
"""The power of a part by its index, so many seconds from now, if its share is asked for now."""


def is_slower(response_s: float, than_s: float) -> bool:
    """Whether a device with this response is bridged by one with that."""
    return response_s > SLOWER * than_s + SLOWER_BY_S


def bridge(
    parts: Sequence[Part], expect: Expect, wanted: Wanted, groups: Sequence[GroupLimit] = ()
) -> tuple[float, ...]:
    """What to ask of each part in this cycle: its share, and what it bridges of slower ones.

    Each stays within its bounds, and no group's limit is exceeded by more than without bridging. Fastest parts first;
    what these cannot, the next faster ones do.
    """
    asked = [part.share_w for part in parts]
    slowest_s = max((part.response_s for part in parts), default=0.0)
    waiting = sorted((part.response_s, index) for index, part in enumerate(parts) if part.bridges)
    while waiting:
        limit_s = SAME_TIER * waiting[0][0] + SLOWER_BY_S / 2.0
        tier = [index for response_s, index in waiting if response_s <= limit_s]
        waiting = waiting[len(tier) :]
        if not is_slower(slowest_s, parts[tier[-1]].response_s):
            break
        _bridge_with(tier, parts, asked, expect, wanted, groups)
    return tuple(asked)


def _bridge_with(
    tier: Sequence[int],
    parts: Sequence[Part],
    asked: list[float],
    expect: Expect,
    wanted: Wanted,
    groups: Sequence[GroupLimit],
) -> None:
    response_s, lead_s = parts[tier[-1]].response_s, max(parts[index].lead_s for index in tier)
    spans = {index: expect(index, lead_s) for index, part in enumerate(parts) if is_slower(part.response_s, response_s)}
    others_w = sum(power for index, power in enumerate(asked) if index not in spans)
    whole = Span(
        others_w + sum(span.low_w for span in spans.values()),
        others_w + sum(span.expected_w for span in spans.values()),
        others_w + sum(span.high_w for span in spans.values()),
    )
    move_w = missing_w(whole, wanted)
    if move_w == 0.0:
        return
    rooms = _Rooms(parts, asked, spans, up=move_w > 0.0)
    for group in groups:
        rooms.narrow(tier, group)
    room_w = [rooms.of(index) for index in tier]
    share = min(abs(move_w) / sum(room_w), 1.0) if sum(room_w) > 0.0 else 0.0
    for index, room in zip(tier, room_w, strict=True):
        asked[index] = _moved(parts[index], asked[index], share * room * (1.0 if move_w > 0.0 else -1.0))


def missing_w(sum_w: Span, wanted: Wanted) -> float:
    """What has to be added to a sum that is known within a span; where it does not fit, its middle counts."""
    lower_w, upper_w, target_w, tolerance_w = wanted
    if target_w is not None:
        return target_w - sum_w.expected_w
    above_w = sum_w.high_w - upper_w if sum_w.high_w > upper_w + tolerance_w else 0.0
    below_w = lower_w - sum_w.low_w if sum_w.low_w < lower_w - tolerance_w else 0.0
    if above_w and sum_w.low_w - above_w >= lower_w:
        return -above_w
    if below_w and sum_w.high_w + below_w <= upper_w:
        return below_w
    if above_w or below_w:
        return (lower_w + upper_w - sum_w.low_w - sum_w.high_w) / 2.0
    return 0.0


def _moved(part: Part, asked_w: float, by_w: float) -> float:
    if part.step_w > 0.0 and by_w < 0.0:
        by_w = -part.step_w * int(-by_w / part.step_w + 1.0 - 1e-9)
        return asked_w + by_w if asked_w + by_w >= part.lower_w else asked_w
    return min(max(asked_w + by_w, part.lower_w), part.upper_w)


@dataclass(slots=True)
class _Rooms:
    """How far each part of a tier can move one way: by its bounds, and by what the groups leave."""

    parts: Sequence[Part]
    asked: Sequence[float]
    spans: dict[int, Span]
    up: bool
    narrowed: dict[int, float] | None = None

    def of(self, index: int) -> float:
        part, asked_w = self.parts[index], self.asked[index]
        if part.step_w > 0.0 and self.up:
            return 0.0
        room_w = max(part.upper_w - asked_w if self.up else asked_w - part.lower_w, 0.0)
        return room_w if self.narrowed is None else min(room_w, self.narrowed.get(index, room_w))

    def narrow(self, tier: Sequence[int], group: GroupLimit) -> None:
        """Leave each member of the tier what the group still has, and what doesn't count in it."""
        if (group.side in ("load", "net_upper")) != self.up:
            return
        left_w = max(group.value_w - self._taken_w(group), 0.0)
        if group.side == "net_lower":
            left_w = max(self._taken_w(group) - group.value_w, 0.0)
        narrowed = dict(self.narrowed or {})
        members = set(group.members)
        for index in tier:
            if index not in members:
                continue
            asked_w = self.asked[index]
            free_w = 0.0
            if group.side in ("load", "generation"):
                free_w = max(-asked_w if self.up else asked_w, 0.0)
            room_w = min(self.of(index), free_w + left_w)
            left_w -= max(room_w - free_w, 0.0)
            narrowed[index] = min(room_w, narrowed.get(index, room_w))
        self.narrowed = narrowed

    def _taken_w(self, group: GroupLimit) -> float:
        """What the members take of a group's limit at most: a slow one what it still has, or what it gets."""
        taken_w = 0.0
        for index in group.members:
            asked_w, span = self.asked[index], self.spans.get(index)
            if self.up:
                power_w = max(asked_w, span.high_w) if span is not None else asked_w
            else:
                power_w = min(asked_w, span.low_w) if span is not None else asked_w
            if group.side == "load":
                taken_w += max(power_w, 0.0)
            elif group.side == "generation":
                taken_w += max(-power_w, 0.0)
            else:
                taken_w += power_w
        return taken_w
