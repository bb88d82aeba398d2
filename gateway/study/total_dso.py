"""Total DSO: every layer optimizes its own inside and shows its parent one curve.

Before the day the path of prices is announced and made again until it rests: each building answers it with what it
would do, each layer adds up and clears, and the prices that come out are the next path. This is the alternating
direction method of multipliers with the layers' clearing as one of its two steps (Boyd et al. 2011, section 7.3), so it
ends at the central optimum. Then each interval is traded: offers of some twenty prices go up, the quantity comes down,
and binds; the path ahead is made again from what has come of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final

from gateway.control.clearing import Bid
from gateway.control.interchange import InterchangeCost
from gateway.planning.model import Series
from gateway.study.building_layer import STEADYING_PER_KWH, UNSTEADIED_PER_KWH, BuildingLayer
from gateway.study.central import start_of
from gateway.study.fleet import Area, Building, Fleet, Tier
from gateway.study.offers import (
    POWER_STEP_PU,
    Grid,
    Wire,
    fewer_points,
    make_dispatch,
    make_offer,
    nearest_points,
    offer_prices,
    offered,
    with_margins,
)
from gateway.study.tree_clearing import Outcome, Outside, Publish, clear_tree

MOST_ROUNDS: Final = 60
RESTS_PER_KWH: Final = 0.0002
"""A path that moves less than this from one round to the next is at rest."""

ROUNDS_BETWEEN: Final = 10
"""After each interval the path ahead is made again, in at most so many rounds."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LayeredResult:
    """Each device's power, the local price of each area and building, and what it took."""

    powers_w: Mapping[str, Series]
    prices_per_kwh: Mapping[str, Series]
    rounds: int
    moved_per_kwh: float
    plans_solved: int
    wire: Wire
    solve_s: float


def run_total_dso(
    fleet: Fleet, *, with_path: bool = True, power_step_pu: float = POWER_STEP_PU, tell: Progress = lambda _: None
) -> LayeredResult:
    """A day of layers; without the path each building knows the market's prices alone. Raises NoSitePlanError."""
    started_s = time.process_time()
    day = _Day(fleet, with_path=with_path, power_step_pu=power_step_pu)
    rounds, moved = day.settle_path(0, MOST_ROUNDS) if with_path else (0, 0.0)
    tell(f"path of prices: {rounds} rounds, moved by {moved:.5f} per kWh in the last")
    for step in range(fleet.steps):
        day.trade(step)
        if with_path and step + 1 < fleet.steps:
            day.settle_path(step + 1, ROUNDS_BETWEEN)
        if step % 6 == 5:
            tell(f"traded {step + 1} of {fleet.steps} intervals")
    solved = sum(layer.solved for layer in day.layers.values())
    elapsed_s = time.process_time() - started_s
    return LayeredResult(day.schedule(), day.prices(), rounds, moved, solved, day.wire, elapsed_s)


class _Day:
    def __init__(self, fleet: Fleet, *, with_path: bool, power_step_pu: float) -> None:
        self.wire = Wire()
        self._fleet = fleet
        both = list(zip(fleet.import_per_kwh, fleet.export_per_kwh, strict=True))
        self._outside = [
            Outside((bought + sold) / 2.0, InterchangeCost(spread_per_kwh=(bought - sold) / 2.0))
            for bought, sold in both
        ]
        market = [one.price_per_kwh for one in self._outside]
        state, steadying = start_of(fleet), STEADYING_PER_KWH if with_path else UNSTEADIED_PER_KWH
        self.layers = {one.name: BuildingLayer(one, state, fleet.hours, market, steadying) for one in fleet.buildings}
        areas = list(fleet.substation.walk())
        points: list[Area | Building] = [*areas, *fleet.buildings]
        self._grids = {one.name: Grid.of(one, power_step_pu) for one in points}
        self._kept, _ = with_margins(fleet.substation, self._grids)
        self._errors = {one.name: self._grids[one.name].error_w for one in fleet.buildings}
        self._errors |= {one.name: with_margins(one, self._grids)[1] for one in areas}
        # What each area expects of its inside: the price that it last announced there.
        self._inner = {one.name: list(market) for one in areas}
        self._powers: dict[str, list[float]] = {one.name: [] for each in fleet.buildings for one in each.devices}
        self._prices: dict[str, list[float]] = {one.name: [] for one in points}

    # The path ahead

    def settle_path(self, step: int, most: int) -> tuple[int, float]:
        """Rounds until the path from an interval on rests, at most so many; how many, and how far the last moved it."""
        rounds, moved = 0, inf
        while rounds < most and moved >= RESTS_PER_KWH:
            moved = self._announce(step)
            rounds += 1
        return rounds, moved

    def _announce(self, begin: int) -> float:
        """One round: every layer answers the path, every interval is cleared, the new path goes down; its move."""
        shown = {name: self._send(name, begin, layer.answer()) for name, layer in self.layers.items()}
        sent: dict[str, list[Bid]] = {one.name: [] for one in self._areas()}
        outcomes = []
        for at, outside in enumerate(self._outside[begin:]):
            bids = {name: each[at] for name, each in shown.items()}
            outcomes.append(clear_tree(self._kept, bids, outside, partial(self._snap, begin, sent)))
        for one in self._areas():
            self._send(one.name, begin, sent[one.name])
            self._told(one.name, begin, outcomes)
            below = one.areas[0].name if one.areas else one.buildings[0].name
            self._inner[one.name][begin:] = [outcome.prices_per_kwh[below] for outcome in outcomes]
        told = {name: self._told(name, begin, outcomes) for name in self.layers}
        return max(layer.hear(told[name], shown[name]) for name, layer in self.layers.items())

    def _snap(self, begin: int, sent: dict[str, list[Bid]], area: Area, bid: Bid) -> Bid:
        """What the area above sees of one; a feeder is inside the DSO."""
        if area.tier is Tier.FEEDER:
            return bid
        fitting = nearest_points(bid, self._inner[area.name][begin + len(sent[area.name])])
        sent[area.name].append(self._grids[area.name].snapped(fitting))
        return sent[area.name][-1]

    def _told(self, name: str, step: int, outcomes: list[Outcome]) -> list[float]:
        """The path as its receiver reads it."""
        path = [outcome.prices_per_kwh[name] for outcome in outcomes]
        message = self.wire.dispatch(make_dispatch(self._fleet, step, outcomes[0].powers_w[name], path))
        return [message.lambda_per_kwh or 0.0, *message.lambda_path_per_kwh]

    # The day

    def trade(self, step: int) -> None:
        """One interval: offers up, the quantity down."""
        shown = {}
        for name, layer in self.layers.items():
            bid = layer.offer(offer_prices(float(layer.path_per_kwh[0])))
            shown[name] = self._send(name, step, [self._grids[name].snapped(bid)])[0]
        publish: Publish = partial(self._published, step)
        outcome = clear_tree(self._kept, shown, self._outside[step], publish)
        for one in self._areas():
            self._dispatch(one.name, step, outcome)
        for name, layer in self.layers.items():
            for device, power in layer.take(self._dispatch(name, step, outcome)).items():
                self._powers[device].append(power)
        for name, price in outcome.prices_per_kwh.items():
            self._prices[name].append(price)

    def _published(self, step: int, area: Area, bid: Bid) -> Bid:
        if area.tier is Tier.FEEDER:
            return bid
        shown = fewer_points(bid, self._inner[area.name][step])
        return self._send(area.name, step, [self._grids[area.name].snapped(shown)])[0]

    def _dispatch(self, name: str, step: int, outcome: Outcome) -> float:
        """The quantity as its receiver reads it; the path ahead was announced and still holds."""
        price, power_w = outcome.prices_per_kwh[name], outcome.powers_w[name]
        return self.wire.dispatch(make_dispatch(self._fleet, step, power_w, [price])).net_power_w

    def _send(self, name: str, step: int, bids: list[Bid]) -> list[Bid]:
        """Bids as the parent reads them out of an offer."""
        inside = self.layers.get(name)
        below = [inside] if inside is not None else self._inside(name)
        energies = [layer.energy_wh() for layer in below]
        energy_wh = sum(each[0] for each in energies), sum(each[1] for each in energies)
        return offered(
            self.wire.offer(make_offer(self._fleet, step, bids, self._grids[name], energy_wh, self._errors[name]), name)
        )

    def _inside(self, name: str) -> list[BuildingLayer]:
        area = next(one for one in self._fleet.substation.walk() if one.name == name)
        return [self.layers[one.name] for one in area.all_buildings()]

    def _areas(self) -> list[Area]:
        """The areas that are layers, parents first."""
        return [one for one in self._fleet.substation.walk() if one.tier is not Tier.FEEDER]

    def schedule(self) -> dict[str, Series]:
        return {name: tuple(powers) for name, powers in self._powers.items()}

    def prices(self) -> dict[str, Series]:
        return {name: tuple(prices) for name, prices in self._prices.items()}
