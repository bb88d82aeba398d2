"""What crosses the layers' interfaces in a study: the gateway's own messages, on a published grid, each one counted."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import asinh, ceil, floor
from typing import Final

from config.messages import CurvePointMessage, DispatchOrder, Offer, OfferInterval
from gateway.control.clearing import Bid, make_curve
from gateway.study.fleet import Area, Building, Device, Fleet, Tier
from gateway.study.tree_clearing import limited

PRICE_STEP_PER_KWH: Final = 1e-4
POWER_STEP_PU: Final = 5e-4
"""Of the connection's rating. On the 1 % of the control scale's offer, what a car or a store needs before its time is
out is missed by up to a step in each interval; `gateway study layered` measures what that costs."""

NEAR_PER_KWH: Final = (0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.12)
LEAST_PER_KWH: Final = -0.05
FAR_PER_KWH: Final = (LEAST_PER_KWH, 0.0, 0.6, 2.5, 100.0)
"""Prices of an offer: about the announced price, closer together near it, and what the ends of the envelope take.

The least is above the price at which a battery would be paid for charging and discharging at once."""

MOST_POINTS: Final = 22
"""Of what a layer of layers offers; a building has one for each price that it solves for."""

MOST_IN_A_MESSAGE: Final = 200
"""As the layer interface has it."""

FOCUS_PER_KWH: Final = 0.02
RESPONSE_S: Final = 1.0
EPOCH: Final = 1
NO_VALUES: Final = frozenset({"id", "issued_at", "expires_at", "start", "duration_s", "intervals"})
"""Fields of an offer that say nothing of the layer."""


@dataclass(slots=True)
class Wire:
    """Counts the messages of a run, and the named points that left what they belong to: each once, however often."""

    messages: int = 0
    points: set[tuple[str, str]] = field(default_factory=set)

    def offer(self, message: Offer, sender: str) -> Offer:
        """An offer goes up."""
        self.messages += 1
        named = (message.model_fields_set | message.intervals[0].model_fields_set) - NO_VALUES
        self.points |= {(sender, name) for name in named}
        return message

    def dispatch(self, message: DispatchOrder) -> DispatchOrder:
        """A dispatch, or a path ahead, goes down."""
        self.messages += 1
        return message

    def declare(self, one: Device | Building | Area, *, limits: bool = True) -> None:
        """Everything of a device, or of a connection without its devices, is told to whoever runs the whole."""
        self.messages += 1
        apart = {"name", "tier", "areas", "buildings", "batteries", "vehicles", "solar", "thermal"}
        apart |= set() if limits else {"import_limit_w", "export_limit_w"}
        self.points |= {(one.name, each.name) for each in fields(one) if each.name not in apart}

    def report(self, devices: Iterable[Device]) -> None:
        """The state of each device is told once more."""
        self.messages += sum(1 for _ in devices)

    def order(self, devices: Iterable[Device]) -> None:
        """Each device gets a setpoint from outside its building."""
        self.messages += sum(1 for _ in devices)


@dataclass(frozen=True, slots=True)
class Grid:
    """The published grid of one interface."""

    power_step_w: float
    price_step_per_kwh: float = PRICE_STEP_PER_KWH

    @property
    def error_w(self) -> float:
        """By how much a power on the grid differs from the one that it stands for."""
        return self.power_step_w / 2.0

    @classmethod
    def of(cls, at: Area | Building, power_step_pu: float = POWER_STEP_PU) -> Grid:
        """The grid of a connection: a part of its rating."""
        return cls(power_step_pu * max(at.import_limit_w, at.export_limit_w))

    def price(self, price_per_kwh: float) -> float:
        """The nearest price."""
        return round(round(price_per_kwh / self.price_step_per_kwh) * self.price_step_per_kwh, 6)

    def snapped(self, bid: Bid) -> Bid:
        """The bid on the grid, its bounds to the inside; an envelope with no step in it becomes the nearest step."""
        curve, step_w = limited(bid), self.power_step_w
        lower_w, upper_w = ceil(bid.lower_w / step_w - 1e-9) * step_w, floor(bid.upper_w / step_w + 1e-9) * step_w
        if lower_w > upper_w:
            lower_w = upper_w = round((bid.lower_w + bid.upper_w) / 2.0 / step_w) * step_w
        points = [
            (self.price(price), min(max(round(power / step_w) * step_w, lower_w), upper_w))
            for price, power in zip(curve.prices_per_kwh, curve.powers_w, strict=True)
        ]
        return Bid(make_curve(points), lower_w, upper_w)


def with_margins(area: Area, grids: Mapping[str, Grid]) -> tuple[Area, float]:
    """The area with its limits drawn in by what its children's offers may be wrong by, and what its own may be.

    What nobody in a building can change lies between two steps of the grid, and comes all the same.
    """
    below = [with_margins(each, grids) for each in area.areas]
    error_w = sum(each[1] for each in below) + sum(grids[one.name].error_w for one in area.buildings)
    kept = replace(
        area,
        import_limit_w=max(area.import_limit_w - error_w, 0.0),
        export_limit_w=max(area.export_limit_w - error_w, 0.0),
        areas=tuple(each[0] for each in below),
    )
    return kept, error_w + (0.0 if area.tier is Tier.FEEDER else grids[area.name].error_w)


def fewer_points(bid: Bid, about_per_kwh: float, most: int = MOST_POINTS) -> Bid:
    """The bid with at most so many breakpoints: each one added is where the curve was missed by most.

    Prices near `about_per_kwh` count for more, as that is where the layer expects to be dispatched.
    """
    curve = limited(bid)
    points = list(zip(curve.prices_per_kwh, curve.powers_w, strict=True))
    at = [asinh((price - about_per_kwh) / FOCUS_PER_KWH) for price, _ in points]
    kept = [0, len(points) - 1]
    while len(kept) < min(most, len(points)):
        worst = max((_missed(at, points, first, last) for first, last in pairwise(kept)), default=(0.0, 0))
        if worst[0] <= 0.0:
            break
        insort(kept, worst[1])
    return Bid(make_curve([points[one] for one in sorted(set(kept))]), bid.lower_w, bid.upper_w)


def nearest_points(bid: Bid, about_per_kwh: float, most: int = MOST_IN_A_MESSAGE) -> Bid:
    """The bid with no more breakpoints than a message may have: its ends, and those nearest to a price."""
    curve = limited(bid)
    points = list(zip(curve.prices_per_kwh, curve.powers_w, strict=True))
    if len(points) <= most:
        return bid
    middle = bisect_left(curve.prices_per_kwh, about_per_kwh)
    first = min(max(middle - (most - 2) // 2, 1), len(points) - most + 1)
    return Bid(make_curve([points[0], *points[first : first + most - 2], points[-1]]), bid.lower_w, bid.upper_w)


def _missed(at: Sequence[float], points: Sequence[tuple[float, float]], first: int, last: int) -> tuple[float, int]:
    """The greatest rectangle between a point and the straight line from `first` to `last`, and which point it is."""
    width, fall = at[last] - at[first], points[first][1] - points[last][1]
    if width <= 0.0 or fall <= 0.0:
        return 0.0, first
    found = 0.0, first
    for one in range(first + 1, last):
        along, down = (at[one] - at[first]) / width, (points[first][1] - points[one][1]) / fall
        missed = (along - down) ** 2 * width * fall
        found = max(found, (missed, one))
    return found


def offer_prices(announced_per_kwh: float) -> tuple[float, ...]:
    """Some twenty prices about the announced one, ascending and on the grid."""
    near = [announced_per_kwh + sign * off for off in NEAR_PER_KWH for sign in (-1.0, 1.0)]
    steps = {round(price / PRICE_STEP_PER_KWH) for price in (*FAR_PER_KWH, announced_per_kwh, *near)}
    return tuple(
        round(step * PRICE_STEP_PER_KWH, 6) for step in sorted(steps) if step * PRICE_STEP_PER_KWH >= LEAST_PER_KWH
    )


def instant(fleet: Fleet, step: int) -> datetime:
    """When an interval of the fleet's day begins."""
    return datetime.fromisoformat(fleet.day).replace(tzinfo=UTC) + timedelta(seconds=step * fleet.step_s)


def make_offer(
    fleet: Fleet, step: int, bids: Sequence[Bid], grid: Grid, energy_wh: tuple[float, float], error_w: float
) -> Offer:
    """A layer's offer from an interval on, a bid for each; `energy_wh` it could give (up) and take (down) now.

    `error_w`: by how much what it does may differ from a dispatch inside the offer.
    """
    floors = [floor(each / grid.power_step_w) * grid.power_step_w for each in energy_wh]
    intervals = tuple(
        OfferInterval(
            start=instant(fleet, step + at),
            duration_s=fleet.step_s,
            curve=tuple(
                CurvePointMessage(price_per_kwh=price, power_w=power)
                for price, power in zip(bid.curve.prices_per_kwh, bid.curve.powers_w, strict=True)
            ),
            lower_w=bid.lower_w,
            upper_w=bid.upper_w,
            energy_up_wh=max(floors[0], 0.0),
            energy_down_wh=max(floors[1], 0.0),
        )
        for at, bid in enumerate(bids)
    )
    return Offer(
        id=f"offer-{step}",
        issued_at=instant(fleet, step),
        expires_at=instant(fleet, step + len(bids)),
        intervals=intervals,
        response_s=RESPONSE_S,
        power_step_w=grid.power_step_w,
        price_step_per_kwh=grid.price_step_per_kwh,
        error_bound_w=error_w,
    )


def offered(offer: Offer) -> list[Bid]:
    """The bids in an offer, as its receiver has them."""
    return [
        Bid(make_curve([(point.price_per_kwh, point.power_w) for point in one.curve]), one.lower_w, one.upper_w)
        for one in offer.intervals
    ]


def make_dispatch(fleet: Fleet, step: int, power_w: float, path_per_kwh: Sequence[float]) -> DispatchOrder:
    """The quantity and the price of an interval, and the prices of those that follow."""
    prices = [round(price, 6) for price in path_per_kwh]
    return DispatchOrder(
        id=f"dispatch-{step}",
        issued_at=instant(fleet, step),
        duration_s=fleet.step_s,
        epoch=EPOCH,
        net_power_w=power_w,
        offer_id=f"offer-{step}",
        lambda_per_kwh=prices[0],
        lambda_path_per_kwh=tuple(prices[1:]),
    )
