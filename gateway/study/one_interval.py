"""One interval without storage: clearing by layers against the one optimum, which it has to equal.

Devices are curves. The value of power is the area under a curve, so the layers' shares and the central program, a
quadratic one in the curves' pieces, are compared by what they cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final, NamedTuple

import clarabel
import numpy as np
from scipy import sparse

from gateway.control.clearing import Bid, Curve, make_curve
from gateway.control.interchange import InterchangeCost
from gateway.study.fleet import Area, Building, Tier
from gateway.study.tree_clearing import Outside, area_bid, clear_tree

TOLERANCE: Final = 1e-11
EQUAL: Final = 1e-6
"""Costs that differ by less, of the larger of one and the cost, are equal."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A network with each building's devices as bids, and what the outside costs."""

    root: Area
    devices: Mapping[str, tuple[Bid, ...]]
    outside: Outside


class Piece(NamedTuple):
    """A part of a device's curve: power from one value per kWh to another, from its highest to its lowest."""

    width_w: float
    first_per_kwh: float
    last_per_kwh: float


def make_interval(seed: int) -> Interval:
    """Three tiers of random curves, with jumps and slopes, and limits of which some bind."""
    random = Random(seed)
    devices: dict[str, tuple[Bid, ...]] = {}
    feeders: list[Area] = []
    for at in range(random.randint(1, 3)):
        microgrids: list[Area] = []
        for _ in range(random.randint(1, 3)):
            names = [f"building-{len(devices) + more + 1}" for more in range(random.randint(1, 4))]
            for name in names:
                devices[name] = tuple(_device(random) for _ in range(random.randint(1, 4)))
            buildings = tuple(Building(name, *_limits(random, devices[name]), load_w=(0.0,)) for name in names)
            inside = [bid for name in names for bid in devices[name]]
            microgrids.append(
                Area(f"microgrid-{at}-{len(microgrids)}", Tier.MICROGRID, *_limits(random, inside), (), buildings)
            )
        inside = [bid for area in microgrids for one in area.buildings for bid in devices[one.name]]
        feeders.append(Area(f"feeder-{at}", Tier.FEEDER, *_limits(random, inside), tuple(microgrids)))
    whole = [bid for bids in devices.values() for bid in bids]
    root = Area("substation", Tier.SUBSTATION, *_limits(random, whole), tuple(feeders))
    cost = InterchangeCost(spread_per_kwh=random.choice((0.0, 0.02, 0.05)))
    return Interval(root, devices, Outside(random.uniform(0.05, 0.35), cost))


def _device(random: Random) -> Bid:
    """A load, a sun, or both ways; its lowest price takes all that it can."""
    lower_w = random.choice((0.0, -random.uniform(1e3, 8e3)))
    upper_w = random.uniform(1e3, 9e3) if lower_w == 0.0 or random.random() < 0.6 else 0.0
    count = random.randint(1, 4)
    prices = sorted(round(random.uniform(-0.05, 0.5), 3) for _ in range(count + 1))
    if random.random() < 0.5:
        prices = sorted(random.choice(prices) for _ in prices)
    shares = sorted((random.random() for _ in range(count - 1)), reverse=True)
    powers = [upper_w, *(lower_w + share * (upper_w - lower_w) for share in shares), lower_w]
    return Bid(make_curve(list(zip(prices, powers, strict=True))), lower_w, upper_w)


def _limits(random: Random, bids: Sequence[Bid]) -> tuple[float, float]:
    """Limits that can be kept: nothing at all is always possible."""
    import_w = sum(bid.upper_w for bid in bids) * random.uniform(0.3, 1.1)
    export_w = -sum(bid.lower_w for bid in bids) * random.uniform(0.3, 1.1)
    return max(import_w, 0.0), max(export_w, 0.0)


def layered_cost(interval: Interval) -> tuple[float, float]:
    """What the layers' shares cost per hour, and by how much they break the worst limit, in watts."""
    bids = {}
    for building in interval.root.all_buildings():
        as_area = Area(building.name, Tier.MICROGRID, building.import_limit_w, building.export_limit_w)
        bids[building.name] = area_bid(as_area, interval.devices[building.name])
    outcome = clear_tree(interval.root, bids, interval.outside)
    cost = _interchange(interval.outside, outcome.powers_w[interval.root.name])
    cost -= sum(value_of(bid, outcome.powers_w[name]) for name, bid in bids.items())
    broken_w = 0.0
    for area in interval.root.walk():
        points: list[Area | Building] = [area, *area.buildings]
        for one in points:
            names = [each.name for each in one.all_buildings()] if isinstance(one, Area) else [one.name]
            net_w = sum(outcome.powers_w[name] for name in names)
            broken_w = max(broken_w, net_w - one.import_limit_w, -net_w - one.export_limit_w)
    return cost, broken_w


def central_cost(interval: Interval) -> float:
    """What the one optimum costs per hour; raises ArithmeticError where it is not found."""
    columns, by_building = _columns(interval)
    count = len(columns)
    spread = interval.outside.cost.spread_per_kwh
    price = interval.outside.price_per_kwh
    slopes = [(one.first_per_kwh - one.last_per_kwh) / (one.width_w / 1e3) for one in columns]
    quadratic = sparse.diags([*slopes, 0.0, 0.0], format="csc")
    linear = np.asarray([*(-one.first_per_kwh for one in columns), price + spread, -(price - spread)])
    rows: list[np.ndarray] = []
    right: list[float] = []

    def limit(names: Sequence[str], import_w: float, export_w: float) -> None:
        row, base_w = np.zeros(count + 2), 0.0
        for name in names:
            base_w += sum(bid.lower_w for bid in interval.devices[name])
            row[by_building[name]] = 1.0
        rows.extend((row, -row))
        right.extend(((import_w - base_w) / 1e3, (export_w + base_w) / 1e3))

    for area in interval.root.walk():
        limit([one.name for one in area.all_buildings()], area.import_limit_w, area.export_limit_w)
        for one in area.buildings:
            limit([one.name], one.import_limit_w, one.export_limit_w)
    whole = np.ones(count + 2)
    whole[count:] = -1.0, 1.0
    base_w = sum(bid.lower_w for bids in interval.devices.values() for bid in bids)
    widths = np.asarray([one.width_w / 1e3 for one in columns])
    eye = np.eye(count + 2)
    matrix = sparse.csc_matrix(np.vstack([whole, *rows, -eye, eye[:count]]))
    bounds = np.concatenate([[-base_w / 1e3], right, np.zeros(count + 2), widths])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
    cones = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(len(bounds) - 1)]
    found = clarabel.DefaultSolver(quadratic, linear, matrix, bounds, cones, settings).solve()
    if str(found.status) not in ("Solved", "AlmostSolved"):
        raise ArithmeticError(f"the central program ended with {found.status}")
    return float(found.obj_val)


def _columns(interval: Interval) -> tuple[list[Piece], dict[str, list[int]]]:
    columns: list[Piece] = []
    by_building: dict[str, list[int]] = {}
    for name, bids in interval.devices.items():
        made = [piece for bid in bids for piece in pieces(bid.curve)]
        by_building[name] = list(range(len(columns), len(columns) + len(made)))
        columns += made
    return columns, by_building


def pieces(curve: Curve) -> list[Piece]:
    """The parts of a curve, from its lowest power upward: the last watt that goes is the one valued most."""
    points = list(zip(curve.prices_per_kwh, curve.powers_w, strict=True))
    return [
        Piece(high_w - low_w, high_price, low_price)
        for (low_price, high_w), (high_price, low_w) in reversed(list(pairwise(points)))
        if high_w > low_w
    ]


def value_of(bid: Bid, power_w: float) -> float:
    """What the power is worth per hour, against what the curve's lowest power is."""
    value, left_w = 0.0, power_w - bid.curve.powers_w[-1]
    for piece in pieces(bid.curve):
        taken_w = min(max(left_w, 0.0), piece.width_w)
        fall = (piece.first_per_kwh - piece.last_per_kwh) * taken_w / piece.width_w
        value += (piece.first_per_kwh - fall / 2.0) * taken_w / 1e3
        left_w -= taken_w
    return value


def _interchange(outside: Outside, net_w: float) -> float:
    return (outside.price_per_kwh * net_w + outside.cost.spread_per_kwh * abs(net_w)) / 1e3
