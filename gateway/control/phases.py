"""Phases as limits of their own: what each phase of the connection carries, where devices load them unevenly.

A device on one phase loads that one with all of its power, a device on three each with a third (nominal voltage, unity
power factor). A fuse and a limit on the current per phase then bound each phase's sum. Where every device is on all
phases, the bound on net power less the measured imbalance says the same (`envelope.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from config.vocabulary import CURRENT_A_BY_PHASE, Absent, Quantity
from gateway.control.allocation import GroupLimit
from gateway.control.feedback import RestEstimate
from gateway.control.model import SiteModel
from gateway.control.orders_in_force import LimitInForce
from gateway.control.resources import Resource
from gateway.image import Image


def loads_unevenly(model: SiteModel) -> bool:
    """Whether a device that can be asked is on some of the phases only."""
    return model.phases > 1 and any(len(one.phases) < model.phases and one.controllable for one in model.devices)


def phase_groups(
    model: SiteModel,
    limits: Sequence[LimitInForce],
    image: Image,
    usable: Sequence[Resource],
    shared_w: Mapping[str, float],
    rest: RestEstimate,
) -> list[GroupLimit]:
    """Both bounds of every phase for the fuse and each limit on current, less what the uncontrolled rest takes of it.

    `shared_w`: the devices' power at the time of the meter's sample. Without phase currents the rest counts as even.
    """
    limits_a = [(model.fuse_a, "fuse")] if model.fuse_a is not None else []
    limits_a += [
        (limit.value, f"{limit.source} {limit.order_id}")
        for limit in limits
        if limit.quantity is Quantity.CURRENT_PER_PHASE_A and not isinstance(limit.value, Absent)
    ]
    if not limits_a:
        return []
    groups = []
    rests_w = _rests_w(model, image, usable, shared_w, rest)
    margin_w = model.margin_w / model.phases
    for phase, (low_w, high_w) in enumerate(rests_w, start=1):
        members = [(index, one) for index, one in enumerate(usable) if phase in one.model.phases]
        indexes = tuple([index for index, _ in members])
        weights = tuple([1.0 / len(one.model.phases) for _, one in members])
        for limit_a, source in limits_a:
            most_w, name = limit_a * model.nominal_voltage_v, f"{source} L{phase}"
            groups.append(GroupLimit(indexes, "net_upper", most_w - margin_w - high_w, name, weights))
            groups.append(GroupLimit(indexes, "net_lower", margin_w - most_w - low_w, name, weights))
    return groups


def _rests_w(
    model: SiteModel,
    image: Image,
    usable: Sequence[Resource],
    shared_w: Mapping[str, float],
    rest: RestEstimate,
) -> list[tuple[float, float]]:
    """The least and the most of the rest on each phase."""
    even_w = (rest.lower_w or 0.0) / model.phases, (rest.upper_w or 0.0) / model.phases
    meter = image.devices.get(model.meter)
    if meter is None or not rest.known:
        return [even_w] * model.phases
    measured_a = [meter.number(point, image.now_s, model.stale_after_s) for point in CURRENT_A_BY_PHASE]
    currents_a = [current_a for current_a in measured_a if current_a is not None and isfinite(current_a)]
    if len(currents_a) != model.phases:
        return [even_w] * model.phases
    net_w = (rest.lower_w or 0.0) + sum(shared_w.values())
    if net_w < 0.0 and min(currents_a) >= 0.0:
        # A meter that tells magnitudes: while all is exported, so is each phase.
        currents_a = [-current_a for current_a in currents_a]
    rests_w = []
    for phase, current_a in enumerate(currents_a, start=1):
        ours_w = sum(
            shared_w.get(one.model.name, 0.0) / len(one.model.phases) for one in usable if phase in one.model.phases
        )
        rest_w = current_a * model.nominal_voltage_v - ours_w
        rests_w.append((rest_w, rest_w))
    return rests_w
