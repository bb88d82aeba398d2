"""Devices that should be there by now and are not: asked for their share as ever, and counted with what they show.

A device that ignores a write, or is cut short, is beside everything that it was asked for within the longest time that
its declared lag allows. Others take its share at once, and hand it back as it is seen to arrive: a slow device loses
nothing by it. One that stands still for longer is left as it is (`DeviceMemory.stuck`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from config.vocabulary import SETPOINT_READBACK_W, DeviceKind
from gateway.control.chargers import charger_step_w
from gateway.control.clearing import Bid
from gateway.control.model import DeviceModel
from gateway.control.resource_memory import FAR_PU, DeviceMemory, ResourceMemory
from gateway.control.resources import DOES_NOT_FOLLOW, SLOW_POINT_STALE_S, Resource
from gateway.control.trajectory import Trajectory
from gateway.image import DeviceImage, Image

DOES_NOT_FOLLOW_YET: Final = "does not follow yet"

BACK_PU: Final = 0.05
"""Of the rating: a late device this close to what it is asked for has arrived."""

SHOWN_WITHIN_S: Final = 0.3
"""So long after a command a device that takes it shows it in its read-back."""

OTHER_PU: Final = 0.02
"""A read-back further than this part of the rating from all that was written is another value."""

_LAYER: Final = DeviceKind.LAYER


def late_devices(
    usable: Sequence[Resource],
    trajectories: Mapping[str, Trajectory],
    memory: ResourceMemory,
    image: Image,
    before: Container[str],
) -> dict[int, float]:
    """The power of each late device by its index; `before` are those of the last cycle."""
    late: dict[int, float] = {}
    for index, (model, power_w, measured_s, _, _, lower, *_) in enumerate(usable):
        known = memory.devices.get(model.name)
        if known is None or known.asked_w is None or power_w is None or model.kind is _LAYER:
            continue
        beside_w = power_w - known.asked_w
        if model.ceiling and abs(power_w) <= abs(known.asked_w):
            continue
        was_late = model.name in before
        if abs(beside_w) <= (BACK_PU if was_late else FAR_PU) * model.rating_w or lower.source == DOES_NOT_FOLLOW:
            continue
        shown_w = abs(power_w) if model.ceiling else power_w
        trajectory, now_s = trajectories[model.name], min(measured_s, image.now_s)
        if (
            was_late
            or _beyond(_asked(model, known, trajectory, now_s), shown_w, FAR_PU * model.rating_w)
            or _ignored(image.devices[model.name], model, trajectory, image.now_s)
        ):
            late[index] = power_w
    return late


def _asked(model: DeviceModel, known: DeviceMemory, trajectory: Trajectory, measured_s: float) -> Sequence[float]:
    """What a sample of that time may still answer, of ceilings the magnitudes; empty where nobody knows."""
    since_s = measured_s - trajectory.arrival_s - model.write_interval_s
    if not model.ceiling:
        known_since = trajectory.commanded_s and trajectory.commanded_s[0] <= since_s
        return trajectory.asked_since(since_s) if known_since else ()
    asked = []
    for at_s, ceiling_w in reversed(known.ceilings):
        asked.append(ceiling_w)
        if at_s <= since_s:
            return asked
    return ()


def _beyond(asked_w: Sequence[float], power_w: float, by_w: float) -> bool:
    return bool(asked_w) and (power_w > max(asked_w) + by_w or power_w < min(asked_w) - by_w)


def _ignored(device: DeviceImage, model: DeviceModel, trajectory: Trajectory, now_s: float) -> bool:
    """Whether the device reads back something else than all that it may have been told when it was read."""
    read_w = device.number(SETPOINT_READBACK_W, now_s, SLOW_POINT_STALE_S)
    if read_w is None or not trajectory.commanded_s:
        return False
    told_s = device.sample(SETPOINT_READBACK_W).measured_s - SHOWN_WITHIN_S - model.write_interval_s
    if trajectory.commanded_s[0] > told_s:
        return False
    by_w = OTHER_PU * model.rating_w + model.deadband_w
    return all(abs(read_w - asked_w) > by_w for asked_w in trajectory.asked_since(told_s))


def counted_as_shown(bids: Sequence[Bid], late: Mapping[int, float]) -> list[Bid]:
    """The bids in which the late devices take what they show, whatever they are asked for."""
    result = list(bids)
    for index, power_w in late.items():
        result[index] = result[index]._replace(lower_w=power_w, upper_w=power_w)
    return result


def told_late(usable: Sequence[Resource], late: Iterable[int], shares_w: Sequence[float]) -> dict[int, float]:
    """What each late device is asked for all the same: its share of a sharing in which it is as good as any."""
    told = {}
    for index in late:
        model, share_w = usable[index].model, shares_w[index]
        if model.kind is DeviceKind.CHARGER:
            step_w = charger_step_w(model)
            share_w = int(share_w / step_w + 1e-6) * step_w
            share_w = share_w if share_w >= model.minimum_w - 1e-6 else 0.0
        told[index] = share_w
    return told
