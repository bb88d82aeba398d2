"""What devices may do that cannot be asked, or that may not have heard: their possible power, reserved in both bounds.

A lost device keeps its last command until its own timer reverts it. A write without an answer may have landed or not.
While the meter is good, what such a device draws is inside the measured rest; what is reserved is what it may still
change by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from config.vocabulary import SETPOINT_READBACK_W
from gateway.control.model import DeviceModel
from gateway.control.resources import SLOW_POINT_STALE_S, Resource
from gateway.control.trajectory import Trajectory
from gateway.image import Image

UNHEARD_S: Final = 2.0
"""Commands of the last seconds before a device was lost may or may not have reached it."""

READBACK_PU: Final = 0.02
"""A read-back within this part of the rating is the value that was written."""


class Reserve(NamedTuple):
    """By how much the devices' sum may rise and fall without being asked, watts, magnitudes."""

    up_w: float
    down_w: float


def is_lost(resource: Resource) -> bool:
    """Whether control would ask it for power and cannot."""
    return resource.model.controllable and not resource.usable


def possible_w(model: DeviceModel, known: Trajectory | None, now_s: float, ahead_s: float) -> tuple[float, float]:
    """The least and most power that a lost device may have by `ahead_s` from now.

    One that was never heard may have anything, or what its reversion leaves it.
    """
    reverted = model.reverted_w
    if known is None or not known.times_s:
        return reverted if reverted is not None else (min(model.min_w, 0.0), max(model.max_w, 0.0))
    heard_s = known.times_s[-1]
    if reverted is not None and now_s >= heard_s + model.reverts_by_s + known.arrival_s:
        return reverted
    here = known.at(now_s)
    powers_w = [known.powers_w[-1], *known.asked_since(heard_s - UNHEARD_S)]
    if here is not None:
        powers_w += [here.low_w, here.high_w]
    if reverted is not None and now_s + ahead_s >= heard_s + model.reverts_from_s:
        powers_w += reverted
    return min(powers_w), max(powers_w)


def lost_reserve(
    model: DeviceModel, known: Trajectory | None, measured_s: float, now_s: float, ahead_s: float
) -> Reserve:
    """What a lost device may still change by, seen from the meter's sample at `measured_s`.

    Nothing once it has come to rest, or to its reverted range: what it then does, it does by itself, as the rest does.
    """
    if known is None or not known.times_s:
        return Reserve(0.0, 0.0)
    heard_s = known.times_s[-1]
    ends_s = model.reverts_by_s if model.reverted_w is not None else 0.0
    if measured_s >= heard_s + ends_s + known.arrival_s:
        return Reserve(0.0, 0.0)
    then = known.at(measured_s)
    low_w, high_w = possible_w(model, known, now_s, ahead_s)
    expected_w = known.powers_w[-1] if then is None else then.expected_w
    return Reserve(max(high_w - expected_w, 0.0), max(expected_w - low_w, 0.0))


def unanswered_reserve(resource: Resource, known: Trajectory | None, image: Image) -> Reserve:
    """The other value of a write that was not answered, until an answer or the read-back tells."""
    at_s = image.unanswered.get(resource.model.name)
    if at_s is None or known is None or not known.commands_w:
        return Reserve(0.0, 0.0)
    asked_w = known.commands_w[-1]
    readback = image.devices[resource.model.name].sample(SETPOINT_READBACK_W)
    value_w = image.devices[resource.model.name].number(SETPOINT_READBACK_W, image.now_s, SLOW_POINT_STALE_S)
    near_w = READBACK_PU * resource.model.rating_w
    if value_w is not None and readback.measured_s > at_s and abs(value_w - asked_w) <= near_w:
        return Reserve(0.0, 0.0)
    powers_w = known.asked_since(at_s - UNHEARD_S)
    return Reserve(max(powers_w) - asked_w, asked_w - min(powers_w))


def reserved(
    resources: list[Resource], known: Mapping[str, Trajectory], image: Image, measured_s: float, ahead_s: float
) -> Reserve:
    """What all of them may change by while the meter is good."""
    up_w = down_w = 0.0
    for resource in resources:
        if resource.usable:
            if not image.unanswered:
                continue
            one = unanswered_reserve(resource, known.get(resource.model.name), image)
        elif resource.model.controllable and resource.model.seen_by_meter:
            one = lost_reserve(resource.model, known.get(resource.model.name), measured_s, image.now_s, ahead_s)
        else:
            continue
        up_w += one.up_w
        down_w += one.down_w
    return Reserve(up_w, down_w)
