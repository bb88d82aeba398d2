"""Devices whose setpoint is a ceiling: what they show that they have, and how far their ceiling is opened.

A device that stays below its ceiling shows what it has, by its samples. One that runs at its ceiling may have more. One
that reports seldom is predicted between its samples: what it was given it is taken to take, and it is given no more
before a sample has answered.
"""

from __future__ import annotations

from typing import Final

from config.vocabulary import DeviceKind
from gateway.control.model import DeviceModel
from gateway.control.resource_memory import DeviceMemory

SAMPLE_SLACK_S: Final = 0.2
"""A sample may be this much older than the ceilings it is compared with."""

CEILING_HEADROOM_PU: Final = 0.02
"""A held ceiling stays this part of the rating above what the device shows, so that more supply shows itself."""

SELDOM_GROWTH_PU: Final = 0.2
"""How much of its rating more a device that reports seldom is given at once."""

_INVERTER: Final = DeviceKind.INVERTER


def ceiling_headroom_w(model: DeviceModel) -> float:
    """How far above what a ceiling device shows its held ceiling stays: two steps, or a part of the rating.

    Two, because one would stay within the hysteresis of a step up.
    """
    return 2.0 * model.step_w if model.step_w is not None else CEILING_HEADROOM_PU * model.rating_w


def held_back(known: DeviceMemory, model: DeviceModel, measured_s: float, magnitude_w: float) -> bool:
    """Whether a device runs at its ceiling, so that there may be more; unknown counts as held back.

    It is not when it stays below every ceiling of its response window.
    """
    since_s = measured_s - model.dead_time_s - 2.0 * model.tr90_s - SAMPLE_SLACK_S
    reached_w = magnitude_w + ceiling_headroom_w(model) / 2.0
    for at_s, ceiling_w in reversed(known.ceilings):
        if at_s <= measured_s and reached_w >= ceiling_w:
            return True
        if at_s <= since_s:
            return False
    return True


def answers(known: DeviceMemory, model: DeviceModel, measured_s: float) -> bool:
    """Whether a sample of that time shows what the present ceiling came to."""
    window_s = model.dead_time_s + 2.0 * model.tr90_s + SAMPLE_SLACK_S
    return not known.ceilings or known.ceilings[-1][0] <= measured_s - window_s


def grown_w(known: DeviceMemory, model: DeviceModel, now_s: float, measured_s: float, magnitude_w: float) -> float:
    """What a device that is held back is expected to have, as soon as it may."""
    if not known.seldom(now_s, measured_s):
        return magnitude_w + ceiling_headroom_w(model)
    if not answers(known, model, measured_s):
        return max(magnitude_w, known.ceilings[-1][1])
    return magnitude_w + max(ceiling_headroom_w(model), SELDOM_GROWTH_PU * model.rating_w)


def available_w(known: DeviceMemory, model: DeviceModel, now_s: float, measured_s: float, power_w: float) -> float:
    """What an inverter has, a magnitude: what it shows, and more while its ceiling holds it back."""
    shown_w = abs(power_w)
    if not held_back(known, model, measured_s, shown_w):
        return shown_w
    return grown_w(known, model, now_s, measured_s, shown_w)


def released_w(
    model: DeviceModel, power_w: float | None, has_w: float, share_w: float, side: str, room_w: float
) -> float:
    """The ceiling of an inverter: open unless something presses its way, else its share.

    `has_w` is the magnitude it is expected to have; one that may give all of it gets a little more, so that it can show
    more. `room_w`: how much more may be exported; infinite for one that is seen at once when it gives more.
    """
    if abs(share_w) < has_w - (model.step_w or 0.0) - 1.0:
        return share_w
    if side not in ("lower", "target") and room_w >= share_w - model.min_w:
        return model.min_w
    if power_w is None or has_w > abs(power_w) + 1.0:
        return share_w
    return max(share_w - ceiling_headroom_w(model), model.min_w)
