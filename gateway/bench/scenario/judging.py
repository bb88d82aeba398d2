"""The checks of a scenario, computed from the physics' record of a run and from what the operator sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from config import scenario_checks as checks
from config.messages import DispatchOrder, Down
from config.vocabulary import Quantity
from gateway.bench.metrics import Excursion, excursions, settled_s
from gateway.bench.realtime import OPERATOR_FAILED
from gateway.bench.scenario.memory import LEAST_SLOPE_S
from gateway.bench.scenario.plan import Plan
from gateway.bench.scenario.trial import Span, Term, Trial, limit_w
from gateway.bench.scores import (
    PriceStep,
    RegulationScore,
    energy_cost,
    energy_taken_wh,
    excursion_stages,
    overshoot_pu,
    regulation_score,
    step_shortfall_pu,
    swing_w,
    tracking_error,
    unserved_wh,
)
from gateway.bench.timeline import fallback_limits, sampled

DIGITS: Final = 6
WHOLE_RUN: Final = "whole_run"
FAULTS_ACTED: Final = "faults_acted"

LEAST_STEP_PU: Final = 0.02
"""A smaller change of the net power, of the rating, is no step that a response could be read off."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check. `measured` is None where there was nothing to measure, which fails; `words` say why.

    `at_least`: the limit is a floor.
    """

    name: str
    check: str
    what: str
    limit: float
    measured: float | None
    at_least: bool = False
    words: str = ""

    @property
    def passed(self) -> bool:
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def judge(trial: Trial) -> list[CheckResult]:
    """Every check of the scenario, whether the run was what was planned, and whether each fault of it acted."""
    problems = [problem for problem in trial.assessment.run.problems if problem != OPERATOR_FAILED]
    what = "What went wrong with the run as such."
    whole = CheckResult(WHOLE_RUN, WHOLE_RUN, what, 0.0, float(len(problems)), words="; ".join(problems))
    own = [whole, *([_acted(trial)] if trial.plan.loaded.faults() else [])]
    return [*own, *(_result(trial, check) for check in trial.plan.loaded.scenario.checks)]


def _acted(trial: Trial) -> CheckResult:
    """A fault that was ordered and did nothing has shown nothing."""
    never = trial.unacted
    what = "How many of the faults that were ordered never acted: nothing passed that they could have changed."
    words = f"never acted: {', '.join(_struck(trial.plan, name) for name in never)}" if never else ""
    return CheckResult(FAULTS_ACTED, FAULTS_ACTED, what, 0.0, float(len(never)), words=words)


def _struck(plan: Plan, name: str) -> str:
    event = plan.loaded.events[plan.names.index(name)]
    told = f"{event.fault.fault} at {event.fault.device}" if event.fault is not None else "silence of the parent"
    return f"{told} ({name})" if event.name is not None else f"{told} (at {event.at_s:g} s)"


def _result(trial: Trial, check: Any) -> CheckResult:
    measured = _MEASURES[type(check)](trial, check) if trial.times else None
    what = (type(check).__doc__ or "").strip()
    at_least = isinstance(check, checks.RegulationBase)
    rounded = None if measured is None else round(measured, DIGITS)
    words = _why_not_measured(trial, check) if measured is None else ""
    return CheckResult(check.name or check.check, check.check, what, check.limit, rounded, at_least, words)


def _why_not_measured(trial: Trial, check: Any) -> str:
    if not trial.times:
        return "the physics left no record"
    if isinstance(check, _ABOUT_LIMITS):
        return "no limit took force in the time that is judged"
    if isinstance(check, checks.OrdersAnswered):
        return "the operator's own checks are not in its log"
    if isinstance(check, checks.MemoryGrowth):
        return f"the gateway's memory was watched for less than {LEAST_SLOPE_S:g} s"
    return "nothing of what it measures happened in the time that is judged"


def _worst(values: Iterable[float | None], never: float) -> float | None:
    """The largest; `never` in the place of None, None where there is none at all."""
    return max((never if value is None else value for value in values), default=None)


# Limits


def _excursions(trial: Trial, check: Any, grace_s: float, quantity: Quantity | None = None) -> list[Excursion] | None:
    span = trial.span(check.from_s, check.until_s)
    found: list[Excursion] = []
    judged = False
    if not trial.took_force(span, quantity):
        return None
    for each, steps in trial.limits(grace_s, quantity):
        judged = True
        excess = trial.excess(each, steps, span)
        found += excursions(trial.times, excess, check.tolerance_pu * trial.rating_w)
    return sorted(found, key=lambda excursion: excursion.start_s) if judged else None


def _limits_kept(trial: Trial, check: checks.LimitsKept) -> float | None:
    found = _excursions(trial, check, check.grace_s, check.quantity)
    return None if found is None else max((excursion.duration_s for excursion in found), default=0.0)


def _excursion_stage(trial: Trial, check: checks.ExcursionStage) -> float | None:
    found = _excursions(trial, check, 0.0)
    return None if found is None else float(excursion_stages(found).stage)


def _limit_reached(trial: Trial, check: checks.LimitReached) -> float | None:
    span = trial.span(check.from_s, check.until_s)
    terms = list(trial.terms(Down.LIMITS, check.orders, span))
    return _worst((_time_to_limit(trial, check, term) for term in terms), trial.end_s - trial.zero_s)


def _time_to_limit(trial: Trial, check: checks.LimitReached, term: Term) -> float | None:
    limit, quantity = limit_w(term.order), getattr(term.order.message, "quantity", None)
    power = trial.assessment.powers.get(quantity) if quantity is not None else None
    if limit is None or power is None:
        return 0.0 if limit is None else None
    places = trial.inside(Span(term.start_s, term.end_s))
    errors = [abs(power[at] - limit) if check.follows else max(0.0, power[at] - limit) for at in places]
    return _time_to_stay(trial, places, errors, term, check.tolerance_pu, check.hold_s)


def _time_to_stay(
    trial: Trial, places: range, errors: Sequence[float], term: Term | Span, tolerance_pu: float, hold_s: float | None
) -> float | None:
    """Seconds from a begin until the errors are within the tolerance and stay: for `hold_s`, else to the end."""
    times = trial.times[places.start : places.stop]
    band_w = tolerance_pu * trial.rating_w
    if hold_s is not None:
        return settled_s(times, errors, term.start_s, term.end_s, band_w, hold_s)
    if not errors or errors[-1] > band_w:
        return None
    last = max((index for index, error in enumerate(errors) if error > band_w), default=None)
    return 0.0 if last is None else times[last + 1] - term.start_s


def _fallback_reached(trial: Trial, check: checks.FallbackReached) -> float | None:
    bounds = fallback_limits(trial.assessment.site)
    columns = [(trial.assessment.powers[quantity], value) for quantity, value in bounds.items()]

    def reached(span: Span) -> float | None:
        places = trial.inside(Span(span.start_s, min(span.end_s, trial.end_s)))
        errors = [max(0.0, *(power[at] - value for power, value in columns)) for at in places]
        return _time_to_stay(trial, places, errors, span, check.tolerance_pu, None)

    judged = trial.span(check.from_s, check.until_s)
    lost = [span for span in trial.lost if judged.start_s <= span.start_s < judged.end_s]
    return _worst((reached(span) for span in lost), trial.end_s - trial.zero_s)


# Dispatch


def _dispatches(trial: Trial, check: Any) -> list[Term]:
    """Dispatches, each until regulation begins to move it."""
    regulated = [start_s for start_s, _ in trial.assessment.in_force.regulated]
    terms = []
    for term in trial.terms(Down.DISPATCH, check.orders, trial.span(check.from_s, check.until_s)):
        end_s = min([term.end_s, *(start_s for start_s in regulated if start_s > term.start_s)])
        terms.append(term._replace(end_s=end_s))
    return terms


def _dispatch_settled(trial: Trial, check: checks.DispatchSettled) -> float | None:
    def settled(term: Term) -> float | None:
        places = trial.inside(Span(term.start_s, term.end_s))
        target = trial.assessment.target_w
        errors = [abs((trial.net_w or ())[at] - (target[at] or 0.0)) for at in places]
        return _time_to_stay(trial, places, errors, term, check.tolerance_pu, check.hold_s)

    return _worst((settled(term) for term in _dispatches(trial, check)), trial.end_s - trial.zero_s)


def _steps(trial: Trial, check: Any) -> Iterator[tuple[Term, float, float]]:
    """Dispatches that are steps: where each begins and ends, in watts."""
    net = trial.net_w
    for term in _dispatches(trial, check):
        places = trial.inside(Span(term.start_s, term.end_s))
        if net is not None and places and isinstance(term.order.message, DispatchOrder):
            from_w, to_w = net[max(places.start - 1, 0)], term.order.message.net_power_w
            if abs(to_w - from_w) > LEAST_STEP_PU * trial.rating_w:
                yield term, from_w, to_w


def _overshoot(trial: Trial, check: checks.Overshoot) -> float | None:
    beyond = (
        overshoot_pu(trial.times, trial.net_w or (), term.start_s, term.end_s, from_w, to_w)
        for term, from_w, to_w in _steps(trial, check)
    )
    return _worst(beyond, 1.0)


def _step_response(trial: Trial, check: checks.StepResponse) -> float | None:
    behind = (
        step_shortfall_pu(
            trial.times, trial.net_w or (), term.start_s + check.dead_time_s, term.end_s, from_w, to_w, check.tr90_s
        )
        for term, from_w, to_w in _steps(trial, check)
    )
    return _worst(behind, 1.0)


def _tracking(trial: Trial, check: checks.TrackingErrorCheck) -> float | None:
    span = trial.span(check.from_s, check.until_s)
    places = trial.inside(span)
    part = slice(places.start, places.stop)
    error = tracking_error(trial.times[part], (trial.net_w or ())[part], trial.assessment.target_w[part])
    return None if error is None else error.mean_w / trial.rating_w


# Regulation


def _score(trial: Trial, check: checks.RegulationBase) -> RegulationScore | None:
    if trial.regulated is None or trial.net_w is None:
        return None
    judged = trial.span(check.from_s, check.until_s)
    span = Span(max(trial.regulated.start_s, judged.start_s), min(trial.regulated.end_s, judged.end_s))
    places = trial.inside(span)
    times = trial.times[places.start : places.stop]
    base, target = trial.base_at(times), sampled(trial.assessment.in_force.target, times)
    net = trial.net_w[places.start : places.stop]
    signal = [0.0 if b is None or t is None else b - t for b, t in zip(base, target, strict=True)]
    response = [0.0 if b is None else b - value for b, value in zip(base, net, strict=True)]
    return regulation_score(
        times, signal, response, average_s=check.average_s, window_s=check.window_s, longest_shift_s=check.shift_s
    )


def _precision(trial: Trial, check: checks.RegulationPrecision) -> float | None:
    score = _score(trial, check)
    return None if score is None else score.precision


def _scored(trial: Trial, check: checks.RegulationScored) -> float | None:
    score = _score(trial, check)
    return None if score is None else score.score


# Power and energy


def _steady(trial: Trial, check: checks.Steady) -> float | None:
    swing = swing_w(trial.times, trial.net_w or (), *trial.span(check.from_s, check.until_s))
    return None if swing is None else swing / trial.rating_w


def _outside(trial: Trial, check: Any, column: str, least: float | None, most: float | None) -> float | None:
    """Furthest that a column was outside a range."""
    values = trial.assessment.run.physics.column(column)
    places = trial.inside(trial.span(check.from_s, check.until_s))
    if not values or not places:
        return None
    low = 0.0 if least is None else max(least - values[at] for at in places)
    high = 0.0 if most is None else max(values[at] - most for at in places)
    return max(0.0, low, high)


def _net_power(trial: Trial, check: checks.NetPower) -> float | None:
    rating_w = trial.rating_w
    least, most = (None if share is None else share * rating_w for share in (check.least_pu, check.most_pu))
    found = _outside(trial, check, "net_w", least, most)
    return None if found is None else found / rating_w


def _device_power(trial: Trial, check: checks.DevicePower) -> float | None:
    return _outside(trial, check, f"{check.device}_w", check.least_w, check.most_w)


def _state_of_charge(trial: Trial, check: checks.StateOfCharge) -> float | None:
    return _outside(trial, check, f"{check.device}_soc", check.least, check.most)


def _unserved(trial: Trial, check: checks.UnservedEnergy) -> float | None:
    """Of the cars of the scenario's events; those of the site file come by another clock."""
    missing = []
    for event in trial.plan.loaded.events:
        if event.plug_in is not None:
            power = trial.assessment.run.physics.column(f"{event.plug_in.device}_w")
            if power is None:
                return None
            span = trial.span(event.at_s, event.until_s)
            missing.append(unserved_wh(event.plug_in.needed_wh, energy_taken_wh(trial.times, power, *span)))
    return sum(missing) if missing else None


def _cost(trial: Trial, check: checks.EnergyCost) -> float | None:
    places = trial.inside(trial.span(check.from_s, check.until_s))
    part = slice(places.start, places.stop)
    prices = [PriceStep(trial.zero_s, check.import_per_kwh, check.export_per_kwh)]
    return energy_cost(trial.times[part], (trial.net_w or ())[part], prices) if places else None


# Faults and the interface


def _survived(trial: Trial, check: checks.FaultsSurvived) -> float | None:
    """After the faults that acted, when none of them is in force any more, until the next begins or the time ends."""
    spans: list[Span] = []
    for name, event in zip(trial.plan.names, trial.plan.loaded.events, strict=True):
        if event.fault is None or name in trial.unacted:
            continue
        span = Span(trial.zero_s + event.at_s, trial.end_s if event.until_s is None else trial.zero_s + event.until_s)
        if spans and span.start_s <= spans[-1].end_s:
            spans[-1] = Span(spans[-1].start_s, max(spans[-1].end_s, span.end_s))
        else:
            spans.append(span)
    judged = trial.span(check.from_s, check.until_s)
    begins = [*(span.start_s for span in spans[1:]), judged.end_s]
    free = [Span(span.end_s, begin_s) for span, begin_s in zip(spans, begins, strict=False) if span.end_s < begin_s]

    def settled(span: Span) -> float | None:
        places = trial.inside(span)
        return _time_to_stay(trial, places, trial.distance(places), span, check.tolerance_pu, check.hold_s)

    return _worst((settled(span) for span in free), trial.end_s - trial.zero_s)


def _answered(trial: Trial, _: checks.OrdersAnswered) -> float | None:
    said = [event for event in trial.assessment.run.dso or () if event.name == "check"]
    return float(sum(event.data.get("passed") is not True for event in said)) if said else None


def _memory(trial: Trial, _: checks.MemoryGrowth) -> float | None:
    return trial.memory_mb_per_h


_ABOUT_LIMITS: Final = (checks.LimitsKept, checks.ExcursionStage, checks.LimitReached)

_MEASURES: Final[dict[type, Callable[[Trial, Any], float | None]]] = {
    checks.LimitsKept: _limits_kept,
    checks.LimitReached: _limit_reached,
    checks.ExcursionStage: _excursion_stage,
    checks.DispatchSettled: _dispatch_settled,
    checks.Overshoot: _overshoot,
    checks.StepResponse: _step_response,
    checks.RegulationPrecision: _precision,
    checks.RegulationScored: _scored,
    checks.TrackingErrorCheck: _tracking,
    checks.Steady: _steady,
    checks.NetPower: _net_power,
    checks.DevicePower: _device_power,
    checks.StateOfCharge: _state_of_charge,
    checks.UnservedEnergy: _unserved,
    checks.EnergyCost: _cost,
    checks.FallbackReached: _fallback_reached,
    checks.FaultsSurvived: _survived,
    checks.OrdersAnswered: _answered,
    checks.MemoryGrowth: _memory,
}
