"""Chargers and their cars: what a car is expected to take, what it may be offered, what it needs, and when it rests.

A charger takes 0 or `minimum_w` and more, in whole steps (IEC 61851-1, annex A: the current offered is a ceiling of 6 A
and more, or none). Only what a car shows is counted on; what it may take besides is granted where there is room for it
(`granting.py`).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, inf
from typing import Final, NamedTuple

from config.vocabulary import CHARGING_STATE, SESSION_ENERGY_WH, ChargingState, Quality
from gateway.control.ceilings import ceiling_headroom_w, grown_w, held_back
from gateway.control.clearing import Curve, make_curve
from gateway.control.envelope import Bound
from gateway.control.model import DeviceModel
from gateway.control.resource_memory import DeviceMemory, ResourceMemory, Session
from gateway.image import DeviceImage

SLOW_POINT_STALE_S: Final = 30.0
"""State of charge and charging state are polled slowly; older than this they are not believed."""

WAKE_S: Final = 6.0
"""A car that draws nothing for this long while it may is taken to want nothing; slow cars need about 5 s."""

NOT_WOKEN_S: Final = 60.0
"""A car that drew power before a pause and draws none for this long after it has not woken."""

NEED_PRICE_PER_KWH: Final = 10.0
"""What a car's power is worth up to what its departure needs: above every battery, below no limit."""

BEHIND_S: Final = 60.0
"""A car that gets less than its departure needs for this long is named."""

CURVES_KEPT: Final = 4096

TAKES_LITTLE: Final = "the car takes less than the least current"
NOT_WOKEN: Final = "not woken"
PAUSED: Final = "paused"
PAUSED_OFTEN: Final = "paused often enough"
LEAST_TIME_ON: Final = "least time on"
TAKES: Final = "what the car takes"

_BAD: Final = Quality.BAD
_WITH_A_CAR: Final = frozenset(state.value for state in (ChargingState.B, ChargingState.C, ChargingState.D))
_NO_CAR: Final = Bound(0.0, "no car")
_STATE_UNKNOWN: Final = Bound(0.0, "charging state unknown")
_PAUSED: Final = Bound(0.0, PAUSED)
_NOTHING: Final = Bound(0.0, "site file")
# Half of the time of `Bound(...)`.
_new: Final = tuple.__new__


class Cycle(NamedTuple):
    """What a charger is looked at with: now, when its power was measured, and that power."""

    now_s: float
    measured_s: float
    power_w: float


def charger_bounds(
    model: DeviceModel, device: DeviceImage, cycle: Cycle, known: DeviceMemory, memory: ResourceMemory
) -> tuple[Bound, Bound, Curve]:
    """An idle socket is held at 0; a car is expected to take what it shows, and what its departure needs is worth most.

    The lower bound is the least current of a car that should not be paused now; limits come before it.
    """
    now_s = cycle.now_s
    value, quality, measured_s = device.sample(CHARGING_STATE)
    believed = quality is not _BAD and now_s - measured_s <= SLOW_POINT_STALE_S
    if not believed or value not in _WITH_A_CAR:
        known.session = None
        nothing = _NO_CAR if believed else _STATE_UNKNOWN
        return nothing, nothing, model.curve
    session = known.session
    if session is None:
        session = known.session = Session(now_s)
    if now_s < session.paused_until_s:
        session.takes_w, session.may_w, session.keeps_on, session.need_w = inf, 0.0, False, 0.0
        return _PAUSED, _PAUSED, model.curve
    upper = _expected(model, cycle, known, session, memory)
    _take_turns(model, known, session, now_s)
    lower = _NOTHING
    if session.keeps_on:
        why = PAUSED_OFTEN if session.pauses >= model.most_pauses else LEAST_TIME_ON
        lower = _new(Bound, (min(model.minimum_w, upper.value_w), why))
    if model.needed_wh is None or model.stay_s is None:
        return lower, upper, model.curve
    charged_wh = device.number(SESSION_ENERGY_WH, now_s, SLOW_POINT_STALE_S) or 0.0
    return lower, upper, _with_departure(model, session, known, charged_wh, now_s)


def _expected(model: DeviceModel, cycle: Cycle, known: DeviceMemory, session: Session, memory: ResourceMemory) -> Bound:
    """What the car is expected to take at most; sets what it may be offered."""
    now_s, measured_s, power_w = cycle
    step_w = charger_step_w(model)
    most_w, least_w = max(model.max_w, 0.0), model.minimum_w
    if power_w < least_w - step_w:
        return _idle(model, cycle, known, session, memory.import_presses)
    session.offered_since_s = None
    session.drew, session.sleeps, session.not_woken, session.wants_nothing = True, False, False, False
    if not held_back(known, model, measured_s, power_w):
        session.takes_w = power_w
        session.may_w = min(max(_room_above(power_w, known.asked_w or 0.0, step_w), least_w), most_w)
        return _new(Bound, (min(power_w, most_w), TAKES))
    more_w = max(grown_w(known, model, now_s, measured_s, power_w), least_w)
    session.may_w = min(max(_up_to_a_step(more_w, step_w), least_w), most_w)
    if memory.export_presses:
        # What it may yet take must not be exported meanwhile.
        more_w = power_w
    elif known.seldom(now_s, measured_s):
        # Until it tells, it is taken to have what it is offered.
        more_w = session.may_w
    session.takes_w = more_w = min(more_w, most_w)
    return _site(most_w) if more_w == most_w else _new(Bound, (more_w, TAKES))


def _idle(model: DeviceModel, cycle: Cycle, known: DeviceMemory, session: Session, import_presses: bool) -> Bound:
    """A car that draws less than the least current: its own power is all to expect, and it is offered the least.

    One that was offered it keeps its room for `WAKE_S` while an import limit presses: slow cars need so long to begin.
    """
    now_s, measured_s, power_w = cycle
    session.may_w = min(model.minimum_w, model.max_w)
    session.takes_w = max(power_w, 0.0)
    if (known.asked_w or 0.0) < model.minimum_w:
        session.offered_since_s, session.not_woken = None, False
        if session.wants_nothing and now_s - session.tried_s > model.turn_s:
            session.wants_nothing = False
        return _new(Bound, (min(session.takes_w, model.max_w), TAKES_LITTLE))
    if session.offered_since_s is None:
        session.offered_since_s = now_s
    waited_s = measured_s - session.offered_since_s - model.dead_time_s - model.tr90_s
    if waited_s <= WAKE_S and import_presses:
        session.takes_w = inf
        return _new(Bound, (session.may_w, "a car that may begin"))
    if waited_s > WAKE_S and not session.wants_nothing:
        session.wants_nothing, session.tried_s = True, now_s
    session.not_woken = session.sleeps and waited_s > NOT_WOKEN_S
    return _new(Bound, (min(session.takes_w, model.max_w), NOT_WOKEN if session.not_woken else TAKES_LITTLE))


def charger_step_w(model: DeviceModel) -> float:
    """By how much a charger's ceiling moves: a step, or as good as continuously."""
    return model.step_w or ceiling_headroom_w(model) / 2.0


def _up_to_a_step(power_w: float, step_w: float) -> float:
    return ceil(power_w / step_w - 1e-6) * step_w


def _room_above(power_w: float, ceiling_w: float, step_w: float) -> float:
    """A ceiling two steps above what is taken; the present one, while it is about that far."""
    if power_w + 1.25 * step_w <= ceiling_w <= power_w + 3.5 * step_w:
        return ceiling_w
    return _up_to_a_step(power_w + 2.0 * step_w, step_w)


@lru_cache(CURVES_KEPT)
def _site(most_w: float) -> Bound:
    return Bound(most_w, "site file")


def _take_turns(model: DeviceModel, known: DeviceMemory, session: Session, now_s: float) -> None:
    """Who is on stays on for its turn; then whoever has waited longest comes first."""
    if (known.asked_w or 0.0) <= 0.0:
        if session.waiting_since_s is None:
            session.waiting_since_s = now_s
        session.turn = session.waiting_since_s
        session.keeps_on = session.pauses >= model.most_pauses
        return
    on_s = now_s - session.started_s
    session.turn = -inf if on_s < model.turn_s else now_s
    session.keeps_on = on_s < model.least_on_s or session.pauses >= model.most_pauses


def _with_departure(
    model: DeviceModel, session: Session, known: DeviceMemory, charged_wh: float, now_s: float
) -> Curve:
    """The curve with what the departure needs, in whole steps; below the least current that, once half of it is due."""
    assert model.needed_wh is not None and model.stay_s is not None
    session.left_wh = max(0.0, model.needed_wh - charged_wh)
    session.left_s = session.since_s + model.stay_s - now_s
    session.need_w = 0.0
    if session.left_wh <= 0.0 or session.left_s <= 0.0:
        return model.curve
    session.need_w = average_w = session.left_wh * 3600.0 / session.left_s
    if average_w < model.minimum_w:
        on = (known.asked_w or 0.0) > 0.0
        average_w = model.minimum_w if on or average_w >= 0.5 * model.minimum_w else 0.0
    if model.step_w is not None:
        average_w = _up_to_a_step(average_w, model.step_w)
    return curve_with_need(model.curve, min(average_w, model.max_w))


@lru_cache(CURVES_KEPT)
def curve_with_need(curve: Curve, need_w: float) -> Curve:
    """The curve with its power up to `need_w` raised to `NEED_PRICE_PER_KWH`."""
    if need_w <= 0.0:
        return curve
    points = [(price, max(power, need_w)) for price, power in zip(curve.prices_per_kwh, curve.powers_w, strict=True)]
    return make_curve([*points, (NEED_PRICE_PER_KWH, need_w), (NEED_PRICE_PER_KWH, 0.0)])


def charger_notices(model: DeviceModel, session: Session, takes_w: float, now_s: float) -> list[str]:
    """What somebody should know of a car: that it has not woken, or that it will leave without its energy.

    `takes_w`: the power that it gets.
    """
    notices = []
    if session.not_woken:
        notices.append(f"{model.name}: the car has not woken after a pause")
    if session.need_w <= 0.0:
        session.behind_since_s = None
        return notices
    best_w = model.max_w
    if takes_w + (model.step_w or 0.0) < session.need_w:
        if session.behind_since_s is None:
            session.behind_since_s = now_s
        if now_s - session.behind_since_s >= BEHIND_S:
            best_w = takes_w
    else:
        session.behind_since_s = None
    short_wh = session.left_wh - best_w * session.left_s / 3600.0
    if short_wh > 0.01 * (model.needed_wh or 0.0):
        notices.append(f"{model.name}: {short_wh / 1e3:.1f} kWh will be missing at departure")
    return notices
