"""What cars are offered beyond what they are expected to take: where there is room for it, and after the room is there.

The sharing counts on what each car shows. A ceiling above that lets a car begin, or take more; it is granted only if
the sharing of what they all might take leaves it. A ceiling is raised only once the power that it may bring fits beside
what the devices still have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from config.vocabulary import DeviceKind
from gateway.control.allocation import GroupLimit, Steps, allocate, group_excess
from gateway.control.chargers import charger_step_w
from gateway.control.clearing import Bid
from gateway.control.connection import SumBounds
from gateway.control.model import DeviceModel
from gateway.control.orders_in_force import OverrideInForce
from gateway.control.resource_memory import LONGEST_ROOM_S, ResourceMemory, Session
from gateway.control.resources import Resource
from gateway.control.yielding import Wish, within_limits

OPEN_AGAIN_PU: Final = 0.05
"""Ceilings that are not open are opened only with this part of the cars' power to spare."""

ROOM_S: Final = 3.0
"""Room has to be there for so long before a ceiling is raised into it."""

PATIENT_ROOM_S: Final = LONGEST_ROOM_S
PATIENT_STEPS: Final = 3.0
"""A raise that had to be taken back before comes again after a while, or where there was room for so many steps for so
long."""

NEAR_W: Final = 1.0

# Attributes of an enumeration cost as much as a call, and `Steps(...)` three times as much as this.
_CHARGER: Final = DeviceKind.CHARGER
_INVERTER: Final = DeviceKind.INVERTER
_new: Final = tuple.__new__


class Granted(NamedTuple):
    """The shares, no car's above its ceiling, and each car's ceiling by its index."""

    shares_w: tuple[float, ...]
    ceilings_w: dict[int, float]
    restricted: frozenset[int]


@dataclass(frozen=True, slots=True)
class Sharing:
    """What the shares of this cycle came from; `bounds` without a target where the price decides."""

    usable: Sequence[Resource]
    bids: Sequence[Bid]
    bounds: SumBounds
    price_per_kwh: float
    groups: Sequence[GroupLimit]
    wished: Sequence[Wish]
    overrides: Mapping[str, OverrideInForce]
    memory: ResourceMemory
    now_s: float

    def again(self, bids: list[Bid], steps: Mapping[int, Steps], upper_w: float) -> tuple[float, ...]:
        """The shares of other bids under the same bounds, or a lower upper one."""
        bounds = self.bounds._replace(upper_w=max(upper_w, self.bounds.lower_w))
        bids = within_limits(bids, self.wished, bounds, self.groups)
        return allocate(bids, *bounds, self.price_per_kwh, self.groups, steps).shares_w


class _Car(NamedTuple):
    """A charger with a car. `unrestricted`: it may have all that was counted on; `want_w`: the ceiling it is to get."""

    at: int
    model: DeviceModel
    session: Session
    unrestricted: bool
    want_w: float


class _Others(NamedTuple):
    """All that are no cars: what the sun gives, as shared, and what the others have now, or are to have if more."""

    sun_w: float
    taken_w: float


def charger_steps(usable: Sequence[Resource], memory: ResourceMemory) -> dict[int, Steps]:
    """Chargers move in whole steps of current."""
    steps = {}
    for index, (model, *_) in enumerate(usable):
        if model.kind is not _CHARGER:
            continue
        known, step_w = memory.devices[model.name], charger_step_w(model)
        session, least_w = known.session, max(model.minimum_w, step_w)
        if session is None:
            steps[index] = _new(Steps, (step_w, least_w, known.asked_w, model.max_w, inf, 0.0))
            continue
        steps[index] = _new(Steps, (step_w, least_w, known.asked_w, model.max_w, session.takes_w, session.turn))
    return steps


def grant(sharing: Sharing, shares_w: tuple[float, ...], steps: Mapping[int, Steps]) -> Granted:
    """Each car's ceiling, from the shares of what all are expected to take."""
    cars = [car for index in steps if (car := _car(sharing, index, shares_w[index])) is not None]
    if not cars:
        return Granted(shares_w, {}, frozenset())
    others = _others(sharing, cars, shares_w)
    restricted = frozenset([car.at for car in cars if not car.unrestricted])
    ceilings_w = _open(sharing, cars, shares_w)
    if ceilings_w is None:
        ceilings_w = {car.at: car.want_w for car in cars}
        more_w = sum([car.want_w - shares_w[car.at] for car in cars if car.unrestricted])
        upper_w = sharing.bounds.upper_w
        if sharing.bounds.target_w is None:
            upper_w = min(sharing.memory.room.lasting_w(sharing.now_s - ROOM_S) + others.sun_w, upper_w)
        if more_w > NEAR_W and not _fits(sharing, shares_w, ceilings_w, upper_w - more_w):
            second = _what_is_left(sharing, cars, steps, upper_w)
            restricted |= {index for index, ceiling in second.items() if ceiling < ceilings_w[index] - NEAR_W}
            ceilings_w = second
        _wait_for_room(sharing, cars, shares_w, ceilings_w, others)
    result = list(shares_w)
    for index, ceiling_w in ceilings_w.items():
        if ceiling_w < result[index]:
            result[index] = ceiling_w
    return Granted(tuple(result), ceilings_w, restricted)


def _others(sharing: Sharing, cars: Sequence[_Car], shares_w: Sequence[float]) -> _Others:
    """What is beside the cars. What load and sun leave to all others is remembered, unless a target decides."""
    if sharing.bounds.target_w is not None:
        sharing.memory.room.seen.clear()
        return _Others(0.0, 0.0)
    mine = {car.at for car in cars}
    sun_w = taken_w = 0.0
    for index, (resource, share_w) in enumerate(zip(sharing.usable, shares_w, strict=True)):
        if index in mine:
            continue
        power_w = resource.power_w or 0.0
        if resource.model.kind is _INVERTER:
            sun_w += share_w
            taken_w += max(power_w - share_w, 0.0)
        else:
            taken_w += max(power_w, share_w)
    sharing.memory.room.see(sharing.now_s, sharing.bounds.upper_w - sun_w)
    return _Others(sun_w, taken_w)


def _car(sharing: Sharing, index: int, share_w: float) -> _Car | None:
    resource = sharing.usable[index]
    model = resource.model
    session = sharing.memory.session(model.name)
    if session is None or session.may_w <= 0.0:
        return None
    bid, override = sharing.bids[index], sharing.overrides.get(model.name)
    may_w = session.may_w
    step_w = charger_step_w(model)
    if override is not None:
        may_w = int(min(max(override.upper_w, 0.0), model.max_w) / step_w + 1e-6) * step_w
        may_w = may_w if may_w >= model.minimum_w - NEAR_W else 0.0
    unrestricted = share_w >= min(bid.upper_w, session.takes_w) - NEAR_W or share_w + step_w > bid.upper_w
    return _Car(index, model, session, unrestricted, may_w if unrestricted and may_w > share_w - NEAR_W else share_w)


def _open(sharing: Sharing, cars: Sequence[_Car], shares_w: Sequence[float]) -> dict[int, float] | None:
    """Ceilings that hold nothing back, if all of it had room at once; cars that report seldom get theirs by steps."""
    if sharing.bounds.target_w is not None or sharing.groups:
        return None
    room_w = sharing.bounds.upper_w - sum(shares_w)
    most_w = sum([car.model.max_w for car in cars])
    full_w = sum([car.model.max_w - shares_w[car.at] for car in cars if car.unrestricted])
    memory = sharing.memory
    if not memory.opening.allowed(
        sharing.now_s, full_w + (0.0 if memory.opening.open else OPEN_AGAIN_PU * most_w) <= room_w
    ):
        return None
    ceilings_w = {}
    for car in cars:
        free = car.unrestricted and car.model.name not in sharing.overrides and not _held(sharing, car)
        ceilings_w[car.at] = car.model.max_w if free else car.want_w
    return ceilings_w


def _held(sharing: Sharing, car: _Car) -> bool:
    """Whether a ceiling stays near what the car shows: it has not begun, or its power is seldom told."""
    known = sharing.memory.of(car.model)
    idle = car.session.takes_w < car.model.minimum_w - charger_step_w(car.model)
    return idle or known.seldom(sharing.now_s, sharing.usable[car.at].measured_s)


def _fits(sharing: Sharing, shares_w: Sequence[float], ceilings_w: Mapping[int, float], most_w: float) -> bool:
    """Whether all wanted ceilings have room beside the shares of all others, which may come to `most_w`."""
    if sharing.bounds.target_w is not None or sum(shares_w) > most_w:
        return False
    powers_w = [ceilings_w.get(index, share) for index, share in enumerate(shares_w)]
    return all(group_excess(group, powers_w) <= NEAR_W for group in sharing.groups)


def _what_is_left(
    sharing: Sharing, cars: Sequence[_Car], steps: Mapping[int, Steps], upper_w: float
) -> dict[int, float]:
    """The sharing of what every car might take, of what has had room for a while; who wants nothing comes last."""
    bids, whole = list(sharing.bids), dict(steps)
    for car in cars:
        bid, least_w = bids[car.at], car.model.minimum_w if car.session.keeps_on else 0.0
        most_w = 0.0 if car.session.wants_nothing else max(car.want_w, bid.lower_w)
        bids[car.at] = Bid(bid.curve, min(max(bid.lower_w, least_w), most_w), most_w)
        whole[car.at] = steps[car.at]._replace(takes_w=inf, most_w=most_w)
    shares_w = sharing.again(bids, whole, upper_w)
    ceilings_w = {car.at: _whole(car, min(car.want_w, shares_w[car.at])) for car in cars}
    idle = [car for car in cars if car.session.wants_nothing]
    if not idle:
        return ceilings_w
    if sharing.bounds.target_w is not None:
        for car in idle:
            bids[car.at] = Bid(bids[car.at].curve, 0.0, car.want_w)
            whole[car.at] = whole[car.at]._replace(most_w=car.want_w)
        shares_w = sharing.again(bids, whole, upper_w)
        return ceilings_w | {car.at: car.want_w if shares_w[car.at] > 0.0 else 0.0 for car in idle}
    powers_w, left_w = list(shares_w), upper_w - sum(shares_w)
    for car in sorted(idle, key=lambda car: car.session.turn):
        powers_w[car.at] = car.want_w
        fits = car.want_w <= left_w and all(group_excess(group, powers_w) <= NEAR_W for group in sharing.groups)
        powers_w[car.at] = ceilings_w[car.at] = car.want_w if fits else 0.0
        left_w -= ceilings_w[car.at]
    return ceilings_w


def _whole(car: _Car, ceiling_w: float) -> float:
    """A ceiling without the rounding errors of the clearing."""
    step_w = charger_step_w(car.model)
    return car.want_w if ceiling_w > car.want_w - NEAR_W else round(ceiling_w / step_w) * step_w


def _wait_for_room(
    sharing: Sharing, cars: Sequence[_Car], shares_w: Sequence[float], ceilings_w: dict[int, float], others: _Others
) -> None:
    """Hold back raises until what they may bring has had room for a while, beside what all have now; by turns."""
    if sharing.bounds.target_w is not None:
        return
    raised, taken_w = [], others.taken_w
    for car in cars:
        asked_w, power_w = sharing.memory.of(car.model).asked_w, sharing.usable[car.at].power_w or 0.0
        to_w = min(shares_w[car.at], ceilings_w[car.at])
        if asked_w is not None and ceilings_w[car.at] > asked_w + NEAR_W:
            raised.append((car.session.turn, car.at, asked_w, car))
            to_w = min(to_w, asked_w)
        taken_w += max(power_w, to_w)
    room, now_s = sharing.memory.room, sharing.now_s
    for _, index, asked_w, car in sorted(raised):
        step_w, least_w = charger_step_w(car.model), max(asked_w + charger_step_w(car.model), car.model.minimum_w)
        patient = asked_w > 0.0 and car.session.patient(now_s)
        left_w = room.lasting_w(now_s - (PATIENT_ROOM_S if patient else ROOM_S)) - taken_w
        has_w = max(sharing.usable[index].power_w or 0.0, min(shares_w[index], asked_w))
        to_w = ceilings_w[index]
        if to_w - has_w > left_w:
            to_w = int((has_w + left_w) / step_w + 1e-6) * step_w
        if to_w < least_w - NEAR_W or (patient and left_w < PATIENT_STEPS * step_w):
            to_w = asked_w
        taken_w += max(to_w - has_w, 0.0)
        ceilings_w[index] = to_w
