"""Offers made by the plan: the site's net curve in each interval to come, by solving the plan again at some prices.

The local price of one step takes the place of the tariff there, the rest of the horizon stays; what the net power then
is, is the layer's own curve, and what each resource takes is its part of it. Imports the solver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import hypot
from typing import Final

from gateway.parent.intervals import POWER_GRID_PU
from gateway.planning.messages import MOST_POINTS, CurveMessage, OfferMessage, OutlookMessage, StateMessage
from gateway.planning.model import Plan, PlanInput, Reserve, Tariff
from gateway.planning.problem import NoPlanError, PlanProblem, Shape
from gateway.planning.published import Grid, published
from gateway.planning.tracing import CurveTrace, fewer_points
from gateway.price.interchange_cost import terms_of

FIRST_PRICES: Final = 9
EXTREME_PER_KWH: Final = 2.5
"""The ends of the envelope are what the site takes at this price: above every price of energy, below what it costs to
leave a reserve, comfort or a car without."""

NO_SPREAD_PER_KWH: Final = 1e-4
"""Between import and export at a local price, so that power is not turned round at the meter."""

MOST_INTERVALS: Final = 96
"""So many intervals are told, those with a curve first: more would not go into a message."""

Work = OfferMessage | OutlookMessage | None
"""What comes of one solution: a message that is finished, or nothing yet."""


@dataclass(slots=True)
class _Solved:
    """The present interval of a round: everything that was solved for it, by local price."""

    plans: dict[float, Plan]
    step: int


class OfferRound:
    """One round of offers, from the input at the first interval's begin on; `load` and `sun` bands are in `spread_w`.

    `run` solves once between two items, so that whoever runs it can do something else in between.
    """

    def __init__(self, state: StateMessage, given: PlanInput, spread_w: Sequence[tuple[float, float]]) -> None:
        self._state, self._spread_w = state, spread_w
        reserve = given.reserve or Reserve((0.0,) * given.steps, (0.0,) * given.steps)
        self._given = replace(given, reserve=reserve)
        rating_w, settings = state.connection.scale_w, state.planning.offer
        self._grid = Grid(POWER_GRID_PU * rating_w, settings.price_step_per_kwh)
        self._error_w = settings.error_pu * rating_w
        self._settings = settings

    def run(self, problem: PlanProblem) -> Iterator[Work]:
        """The offers of the intervals in their order, then the outlook; ends early where there is no plan at all."""
        try:
            base = self._solve(problem, self._given)
        except NoPlanError:
            return
        yield None
        for step in range(min(self._settings.intervals, self._given.steps)):
            yield from self._interval(problem, base, step)
        yield self._outlook(base)

    def shape(self) -> Shape:
        """What the round's program has to be built for; the same for all of its intervals."""
        return Shape.of(self._given)

    def _solve(self, problem: PlanProblem, given: PlanInput) -> Plan:
        return problem.solve(given, self._state.planning.time_limit_s)

    def _free(self, step: int) -> PlanInput:
        """The input in which a step's net power is nobody's yet."""
        given = self._given
        asked = tuple(None if at == step else power for at, power in enumerate(given.dispatch_w))
        return replace(given, dispatch_w=asked)

    def _interval(self, problem: PlanProblem, base: Plan, step: int) -> Iterator[Work]:
        free, solved = self._free(step), _Solved({}, step)
        fits_w = max(self._error_w - self._grid.power_step_w / 2.0, self._grid.power_step_w / 4.0)
        prices = _first_prices(free.tariff, step, self._grid.price_step_per_kwh)
        trace = CurveTrace(prices, self._grid.price_step_per_kwh / 2.0, fits_w, self._settings.solves)
        while (price := trace.next_price()) is not None:
            plan = self._at_price(problem, free, step, price)
            if plan is not None:
                solved.plans[price] = plan
            trace.add(None if plan is None else plan.net_w[step])
            yield None
        if len(trace.points()) < 2:
            return
        extreme = max(EXTREME_PER_KWH, *(2.0 * abs(price) for price in prices))
        ends = []
        for price in (-extreme, extreme):
            plan = self._at_price(problem, free, step, price)
            ends += [plan.net_w[step]] if plan is not None else []
            yield None
        powers_w = [power for _, power in trace.points()] + ends
        point = self._state.connection
        envelope_w = (
            min(max(min(powers_w), -point.max_export_w), point.max_import_w),
            max(min(max(powers_w), point.max_import_w), -point.max_export_w),
        )
        capacity = _capacity_w(self._given, base, step, envelope_w, self._grid)
        reserve_price = self._reserve_price(problem, base, step, capacity)
        yield None
        yield self._offer(trace, solved, base, envelope_w, capacity, reserve_price, fits_w)

    def _at_price(self, problem: PlanProblem, free: PlanInput, step: int, price: float) -> Plan | None:
        """The plan in which a step's energy has one local price, whichever way it flows; None where there is none."""
        tariff = free.tariff
        imports, exports = list(tariff.import_per_kwh), list(tariff.export_per_kwh)
        imports[step], exports[step] = price + NO_SPREAD_PER_KWH / 2.0, price - NO_SPREAD_PER_KWH / 2.0
        changed = replace(tariff, import_per_kwh=tuple(imports), export_per_kwh=tuple(exports))
        try:
            return self._solve(problem, replace(free, tariff=changed))
        except NoPlanError:
            return None

    def _reserve_price(
        self, problem: PlanProblem, base: Plan, step: int, capacity: tuple[float, float]
    ) -> float | None:
        """What keeping the capacity costs, per kW and hour, by planning with it; None where it can't be kept."""
        reserve, hours = self._given.reserve, self._given.step_s / 3600.0
        if reserve is None or not any(capacity):
            return None
        up, down = list(reserve.up_w), list(reserve.down_w)
        up[step], down[step] = max(up[step], capacity[0]), max(down[step], capacity[1])
        kept = replace(self._given, reserve=replace(reserve, up_w=tuple(up), down_w=tuple(down)))
        try:
            plan = self._solve(problem, kept)
        except NoPlanError:
            return None
        costs = max(plan.cost - base.cost, 0.0) / (sum(capacity) / 1e3 * hours)
        return self._grid.price_above(costs)

    def _offer(
        self,
        trace: CurveTrace,
        solved: _Solved,
        base: Plan,
        envelope_w: tuple[float, float],
        capacity: tuple[float, float],
        reserve_price: float | None,
        fits_w: float,
    ) -> OfferMessage:
        step, given, grid = solved.step, self._given, self._grid
        tariff, settings = given.tariff, self._state.planning
        spread = (tariff.import_per_kwh[step] - tariff.export_per_kwh[step]) / 2.0
        cost = terms_of(settings.interchange.cost, spread)
        made = published(trace.points(), cost, envelope_w, grid, fits_w, trace.unknown_w())
        up_wh, down_wh = _energy_wh(given, base, step)
        up_w, down_w = capacity if reserve_price is not None else (0.0, 0.0)
        return OfferMessage(
            id=self._state.id,
            begin_utc_s=self._begin_s(step),
            length_s=given.step_s,
            prices_per_kwh=tuple(price for price, _ in made.points),
            powers_w=tuple(power for _, power in made.points),
            lower_w=made.lower_w,
            upper_w=made.upper_w,
            error_w=made.error_w,
            energy_up_wh=grid.floored(up_wh),
            energy_down_wh=grid.floored(down_wh),
            regulation_up_w=up_w,
            regulation_down_w=down_w,
            regulation_price_per_kwh=reserve_price if any((up_w, down_w)) else None,
            forecast_w=self._forecast(base, step),
            price_step_per_kwh=grid.price_step_per_kwh,
            solves=len(solved.plans),
            curves=_resource_curves(given, solved),
        )

    def _begin_s(self, step: int) -> float:
        return self._state.utc_s + step * self._given.step_s

    def _forecast(self, base: Plan, step: int) -> tuple[float, float, float]:
        below_w, above_w = self._spread_w[step]
        middle_w = base.net_w[step]
        low, middle, high = (self._grid.power(power) for power in (middle_w - below_w, middle_w, middle_w + above_w))
        return low, middle, high

    def _outlook(self, base: Plan) -> OutlookMessage | None:
        first = min(self._settings.intervals, self._given.steps)
        steps = range(first, min(self._given.steps, MOST_INTERVALS))
        if not steps:
            return None
        low, middle, high = zip(*(self._forecast(base, step) for step in steps), strict=True)
        return OutlookMessage(
            id=self._state.id,
            begin_utc_s=self._begin_s(first),
            length_s=self._given.step_s,
            p10_w=low,
            p50_w=middle,
            p90_w=high,
        )


def next_begin_s(utc_s: float, step_s: float) -> float:
    """When the next interval begins; the clock's steps are the intervals."""
    return (utc_s // step_s + 1.0) * step_s


def at_begin(state: StateMessage, plan: Plan, begin_utc_s: float) -> StateMessage:
    """The state as it will be when an interval begins, if until then everything goes as planned.

    `plan` is the one that was made from the state.
    """
    share = min(max((begin_utc_s - state.utc_s) / plan.step_s, 0.0), 1.0)
    by_name = {one.name: one for one in plan.resources}
    batteries = []
    for battery in state.batteries:
        stored = by_name[battery.name].stored_wh
        held_wh = stored[0] + share * (stored[1] - stored[0])
        soc = min(max(held_wh / battery.capacity_wh, 0.0), 1.0)
        batteries.append(battery.model_copy(update={"soc": soc}))
    hours = share * plan.step_s / 3600.0
    cars = []
    for car in state.cars:
        left_wh = max(car.needed_wh - by_name[car.name].power_w[0] * hours, 0.0)
        if car.leaves_utc_s > begin_utc_s and left_wh > 0.0:
            cars.append(car.model_copy(update={"needed_wh": left_wh}))
    changes = {"utc_s": begin_utc_s, "batteries": tuple(batteries), "cars": tuple(cars), "measured": ()}
    return state.model_copy(update=changes)


def spread_of(load: Sequence[Sequence[float]], sun: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """By step: how far net power's p10 lies below its p50, and p90 above; load and sun as p10, p50 and p90."""
    return [
        (hypot(l50 - l10, s90 - s50), hypot(l90 - l50, s50 - s10))
        for l10, l50, l90, s10, s50, s90 in zip(*load, *sun, strict=True)
    ]


def _first_prices(tariff: Tariff, step: int, grid_per_kwh: float) -> list[float]:
    """From below the least price of the horizon to above the highest, where losses and wear still leave a gain."""
    least, most = min(tariff.export_per_kwh), max(tariff.import_per_kwh)
    span = max(most - least, 4.0 * grid_per_kwh)
    least, most = min(least - 0.25 * span, -2.0 * grid_per_kwh), most + 0.35 * span
    evenly = [least + at * (most - least) / (FIRST_PRICES - 1) for at in range(FIRST_PRICES)]
    return [*evenly, tariff.import_per_kwh[step], tariff.export_per_kwh[step]]


def _energy_wh(given: PlanInput, base: Plan, step: int) -> tuple[float, float]:
    """What batteries could give (up) and take (down) when a step begins."""
    by_name = {one.name: one for one in base.resources}
    up = down = 0.0
    for one in given.batteries:
        held_wh = by_name[one.name].stored_wh[step]
        up += max(held_wh - one.soc_min * one.capacity_wh, 0.0)
        down += max(one.soc_max * one.capacity_wh - held_wh, 0.0)
    return up, down


def _capacity_w(
    given: PlanInput, base: Plan, step: int, envelope_w: tuple[float, float], grid: Grid
) -> tuple[float, float]:
    """Regulation capacity up and down about what is planned: room in power, and energy for as long as it lasts."""
    assert given.reserve is not None
    hours, by_name = given.reserve.lasting_s / 3600.0, {one.name: one for one in base.resources}
    flow_w = sum(by_name[one.name].power_w[step] for one in given.batteries)
    up_wh, down_wh = _energy_wh(given, base, step)
    lower_w, upper_w = grid.inside(*envelope_w)
    up_w = min(sum(one.discharge_w for one in given.batteries) + flow_w, up_wh / hours, base.net_w[step] - lower_w)
    down_w = min(sum(one.charge_w for one in given.batteries) - flow_w, down_wh / hours, upper_w - base.net_w[step])
    return grid.floored(up_w), grid.floored(down_w)


def _resource_curves(given: PlanInput, solved: _Solved) -> tuple[CurveMessage, ...]:
    """Each resource's part of the curve, by local price: with the sum that was found, and none that rises."""
    prices = sorted(solved.plans)
    names = [one.name for one in solved.plans[prices[0]].resources]
    rows = [[one.power_w[solved.step] for one in solved.plans[price].resources] for price in prices]
    fixed = {one.name for one in given.solar}
    found = []
    for name, powers in zip(names, zip(*never_rising(rows), strict=True), strict=True):
        if name in fixed:
            continue
        points = fewer_points(tuple(zip(prices, powers, strict=True)), 0.0, MOST_POINTS)
        found.append(
            CurveMessage(
                device=name, prices_per_kwh=tuple(at for at, _ in points), powers_w=tuple(power for _, power in points)
            )
        )
    return tuple(found)


def never_rising(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Rows of powers by price, changed as little as it takes that no column rises; the rows' sums stay.

    The program says what all take together, and only that falls with the price: among storages that cost the same, one
    may rise while another falls by more. What one may not rise by, those who fell have fallen by less.
    """
    found = [list(rows[0])]
    for row in rows[1:]:
        last = found[-1]
        cut = [min(power, most) for power, most in zip(row, last, strict=True)]
        missing, room = sum(row) - sum(cut), sum(last) - sum(cut)
        share = min(max(missing / room, 0.0), 1.0) if room > 0.0 else 0.0
        # What is rounded up by a last digit would rise.
        found.append([min(power + share * (most - power), most) for power, most in zip(cut, last, strict=True)])
    return found
