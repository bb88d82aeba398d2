"""What a decision came to: which bound shaped it, what the devices cannot reach, and what the measurement misses."""

from __future__ import annotations

from typing import Final

from gateway.control.allocation import Allocation, GroupLimit, group_excess
from gateway.control.connection import SumBounds
from gateway.control.envelope import Envelope
from gateway.control.model import SiteModel
from gateway.control.resources import Resource

MISS_PU: Final = 0.01
MISS_S: Final = 2.0
"""A bound or target that is missed by more than `MISS_PU` of the rating for longer than this is unmet."""


def binding_of(envelope: Envelope, bounds: SumBounds, total_w: float, allocation: Allocation) -> tuple[str, str]:
    """Which way the shares were pressed, and by whom."""
    if bounds.target_w is not None and envelope.target is not None:
        return "target", envelope.target.source
    if total_w >= bounds.upper_w - 1.0:
        return "upper", envelope.upper.source
    if total_w <= bounds.lower_w + 1.0:
        return "lower", envelope.lower.source
    if allocation.binding:
        return "target", ", ".join(allocation.binding)
    return "", ""


def shortfall(model: SiteModel, envelope: Envelope, bounds: SumBounds, total_w: float) -> str:
    """What the devices cannot reach, by more than 1 % of the connection's rating."""
    tolerance_w = 0.01 * model.rating_w
    if total_w > bounds.upper_w + tolerance_w:
        return f"{envelope.upper.source}: {total_w - bounds.upper_w:.0f} W more than the devices can take away"
    if total_w < bounds.lower_w - tolerance_w:
        return f"{envelope.lower.source}: {bounds.lower_w - total_w:.0f} W more than the devices can take up"
    if bounds.target_w is not None and envelope.target and abs(total_w - bounds.target_w) > tolerance_w:
        return (
            f"{envelope.target.source}: missed by {total_w - bounds.target_w:+.0f} W, the devices are at their bounds"
        )
    return ""


def missed(
    model: SiteModel,
    envelope: Envelope,
    groups: list[GroupLimit],
    usable: list[Resource],
    net_w: float | None,
    misses: dict[str, tuple[float, float]],
    now_s: float,
) -> list[str]:
    """What the measurement misses by more than `MISS_PU` of the rating for `MISS_S`: what was planned is no proof.

    `misses`: since when each source is missed, and at which value; a source that changes its value gets its time anew.
    """
    now_missed: dict[str, tuple[float, float]] = {}
    tolerance_w = MISS_PU * model.rating_w
    if net_w is not None:
        upper, lower, target = envelope.upper, envelope.lower, envelope.target
        if net_w > upper.value_w + tolerance_w:
            now_missed[upper.source] = upper.value_w, net_w - upper.value_w
        if net_w < lower.value_w - tolerance_w:
            now_missed[lower.source] = lower.value_w, net_w - lower.value_w
        if target is not None and abs(net_w - target.value_w) > tolerance_w:
            now_missed[target.source.partition(" regulation ")[0]] = 0.0, net_w - target.value_w
    for group in groups:
        excess_w = group_excess(group, [resource.power_w or 0.0 for resource in usable])
        if excess_w > tolerance_w:
            now_missed[group.source] = 0.0, excess_w
    texts = []
    for source in list(misses):
        if source not in now_missed or misses[source][1] != now_missed[source][0]:
            del misses[source]
    for source, (value_w, by_w) in now_missed.items():
        since_s, _ = misses.setdefault(source, (now_s, value_w))
        if now_s - since_s > MISS_S:
            texts.append(f"{source}: measured {by_w:+.0f} W beside it for {now_s - since_s:.0f} s")
    return texts
