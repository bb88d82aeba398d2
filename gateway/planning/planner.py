"""The planner's work: from a state to a plan. Imports the solver; only the planner's process and commands import it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import inf
from pathlib import Path

from gateway.planning.clear_sky import ClearSky
from gateway.planning.curves import curves
from gateway.planning.expectation import Expectation, clear_sky_of, expect
from gateway.planning.history import FILE_NAME, SiteHistory
from gateway.planning.messages import CurveMessage, PlanMessage, PlannedSeries, ScoreMessage, StateMessage
from gateway.planning.model import Plan, PlanInput
from gateway.planning.offering import OfferRound, Work, at_begin, next_begin_s, spread_of
from gateway.planning.problem import NoPlanError, PlanProblem, Shape
from gateway.planning.site_input import plan_input


class Planner:
    """Plans from state to state; keeps its program while the shape stays, and its history in a directory if any."""

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / FILE_NAME
        self._history: SiteHistory | None = None
        self._problem: PlanProblem | None = None
        self._sky: tuple[tuple[float | None, float | None], ClearSky | None] | None = None
        self._trouble = ""
        self._offer_problem: PlanProblem | None = None
        self._offered_s = self._under_way_until_s = -inf
        self._round: Iterator[Work] = iter(())

    def plan(self, state: StateMessage) -> PlanMessage:
        """The plan that answers a state; `failed` with the reason where there is none."""
        history = self._remembered(state)
        expected = expect(state, history, self._sky_above(state))
        scores = {name: ScoreMessage(**made._asdict(), steps=steps) for name, (made, steps) in history.scores().items()}
        given, left_out = plan_input(state, expected.load, expected.sun)
        said = tuple(filter(None, (*expected.assumptions, *sorted(left_out), self._trouble)))
        try:
            plan = self._solved(given, state.planning.time_limit_s)
        except NoPlanError as error:
            reason = str(error)[:300]
            return PlanMessage(id=state.id, status="failed", reason=reason, assumptions=said, scores=scores)
        self._offer_next(state, plan)
        return PlanMessage(
            id=state.id,
            status="incumbent" if plan.status == "incumbent" else "optimal",
            begin_utc_s=state.utc_s,
            step_s=given.step_s,
            valid_s=state.planning.curves_valid_s,
            solve_s=plan.solve_s,
            cost=plan.cost,
            repairs=plan.repairs,
            given_up=dict(plan.given_up),
            assumptions=said,
            curves=_curve_messages(given, plan),
            series=_series(given, plan, expected),
            scores=scores,
        )

    def offers(self) -> Iterator[Work]:
        """The round of offers that is under way: each item is one solution, and a message where one is finished."""
        return self._round

    def _offer_next(self, state: StateMessage, plan: Plan) -> None:
        """Begin a round where one is due; one that is under way goes on while its first interval has not begun."""
        due = not 0.0 <= state.utc_s - self._offered_s < state.planning.offer.every_s
        if not state.offers or not due or state.utc_s < self._under_way_until_s:
            return
        later = at_begin(state, plan, next_begin_s(state.utc_s, float(state.planning.step_s)))
        self._offered_s, self._under_way_until_s = state.utc_s, later.utc_s
        self._round = self._rounds(later)

    def _rounds(self, later: StateMessage) -> Iterator[Work]:
        expected = expect(later, self._remembered(later), self._sky_above(later), scored=False)
        given, _ = plan_input(later, expected.load, expected.sun)
        made = OfferRound(later, given, spread_of(expected.load, expected.sun))
        if self._offer_problem is None or self._offer_problem.shape != made.shape():
            self._offer_problem = PlanProblem(made.shape())
            yield None
        yield from made.run(self._offer_problem)
        self._under_way_until_s = -inf

    def _solved(self, given: PlanInput, time_limit_s: float) -> Plan:
        shape = Shape.of(given)
        if self._problem is None or self._problem.shape != shape:
            self._problem = PlanProblem(shape)
        return self._problem.solve(given, time_limit_s)

    def _sky_above(self, state: StateMessage) -> ClearSky | None:
        """The same from plan to plan: it remembers the days that it has computed."""
        place = state.planning.latitude, state.planning.longitude
        if self._sky is None or self._sky[0] != place:
            self._sky = place, clear_sky_of(state)
        return self._sky[1]

    def _remembered(self, state: StateMessage) -> SiteHistory:
        """The history, with what the state has brought; on disk whenever there is more of it."""
        step_s = float(state.planning.step_s)
        if self._history is None or self._history.step_s != step_s:
            self._history, self._trouble = (
                (SiteHistory(step_s), "") if self._path is None else SiteHistory.load(self._path, step_s)
            )
            if self._trouble:
                sys.stderr.write(f"{self._trouble}\n")
        if self._history.take(state.measured) and self._path is not None:
            try:
                self._history.save(self._path)
            except OSError as error:
                self._trouble = f"the history is not kept: {error.strerror}"
        return self._history


def _curve_messages(given: PlanInput, plan: Plan) -> tuple[CurveMessage, ...]:
    """Of storages and cars; what the sun gives is control's own."""
    planned = {*(one.name for one in given.batteries), *(one.name for one in given.vehicles)}
    return tuple(
        CurveMessage(
            device=name, prices_per_kwh=tuple(at for at, _ in points), powers_w=tuple(power for _, power in points)
        )
        for name, points in curves(given, plan).items()
        if name in planned
    )


def _series(given: PlanInput, plan: Plan, expected: Expectation) -> PlannedSeries:
    by_name = {one.name: one for one in plan.resources}

    def total(names: list[str]) -> tuple[float, ...]:
        return tuple(sum(powers) for powers in zip(*(by_name[name].power_w for name in names), strict=True))

    stored = [by_name[one.name].stored_wh[1:] for one in given.batteries]
    return PlannedSeries(
        net_w=plan.net_w,
        lambda_per_kwh=plan.lambda_per_kwh,
        import_per_kwh=given.tariff.import_per_kwh,
        export_per_kwh=given.tariff.export_per_kwh,
        load_p10_w=expected.load.p10_w,
        load_p50_w=expected.load.p50_w,
        load_p90_w=expected.load.p90_w,
        sun_p10_w=expected.sun.p10_w,
        sun_p50_w=expected.sun.p50_w,
        sun_p90_w=expected.sun.p90_w,
        sun_w=total([one.name for one in given.solar]),
        battery_w=total([one.name for one in given.batteries]),
        cars_w=total([one.name for one in given.vehicles]),
        stored_wh=tuple(sum(each) for each in zip(*stored, strict=True)),
    )
