"""Layers against the central optimum on random fleets: what is left of the savings, with the path and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Any, Final

from gateway.parent.aggregate import POWER_GRID_PU
from gateway.study.accounts import cost_of, impossible, violations
from gateway.study.central import solve_centrally
from gateway.study.fleet import Fleet
from gateway.study.made_fleet import STEPS, make_fleet
from gateway.study.no_control import uncontrolled_w
from gateway.study.offers import POWER_STEP_PU
from gateway.study.one_interval import EQUAL, central_cost, layered_cost, make_interval
from gateway.study.total_dso import run_total_dso

WITH_PATH: Final = "with_path"
WITHOUT_PATH: Final = "without_path"
ON_CONTROL_GRID: Final = "on_control_grid"
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    WITH_PATH: {},
    WITHOUT_PATH: {"with_path": False},
    ON_CONTROL_GRID: {"power_step_pu": POWER_GRID_PU},
}
"""The reach itself, the negative case, and the same on the coarser grid of the control scale's offer."""

LEAST_DEVICES: Final = 10
MOST_DEVICES: Final = 16
COST_REACH: Final = 0.01
SAVINGS_REACH: Final = 0.95
INTERVALS_A_FLEET: Final = 4

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """One variant on one fleet: cost beyond the optimum by part of it, attained part of the savings, broken limits."""

    cost_gap: float
    attained: float
    violations: int
    violation_wh: float
    impossible: int
    rounds: int


def run_trials(fleet: Fleet, variants: Iterable[str] = tuple(VARIANTS)) -> dict[str, Trial]:
    """Variants on one fleet; raises NoOptimumError, NoSitePlanError."""
    best = cost_of(fleet, solve_centrally(fleet).powers_w).total
    alone = {
        one.name: uncontrolled_w(one, fleet.steps, fleet.step_s) for each in fleet.buildings for one in each.devices
    }
    attainable = cost_of(fleet, alone).total - best
    found = {}
    for name in variants:
        result = run_total_dso(fleet, **VARIANTS[name])
        beyond = cost_of(fleet, result.powers_w).total - best
        broken = violations(fleet, result.powers_w)
        found[name] = Trial(
            beyond / best,
            1.0 - beyond / attainable,
            len(broken),
            sum(one.beyond_wh for one in broken),
            len(impossible(fleet, result.powers_w)),
            result.rounds,
        )
    return found


def run_layered(fleets: int, seed: int, tell: Progress = lambda _: None, steps: int = STEPS) -> dict[str, Any]:
    """The figures over so many random fleets, and four single intervals a fleet; `reached` says whether all hold."""
    started_s = time.perf_counter()
    trials: dict[str, list[Trial]] = {name: [] for name in VARIANTS}
    random = Random(seed)
    for at in range(fleets):
        fleet = make_fleet(random.randint(LEAST_DEVICES, MOST_DEVICES), random.randrange(1 << 30), steps=steps)
        for name, trial in run_trials(fleet).items():
            trials[name].append(trial)
        last = trials[WITH_PATH][-1]
        tell(f"fleet {at + 1} of {fleets}: {fleet.size} devices, {last.attained:.2%} of the savings")
    gaps = [_interval_gap(seed + at) for at in range(fleets * INTERVALS_A_FLEET)]
    figures: dict[str, Any] = {"fleets": fleets, "seed": seed, "power_step_pu": POWER_STEP_PU}
    figures |= {name: _summed_up(each) for name, each in trials.items()}
    figures["one_interval"] = {
        "intervals": len(gaps),
        "largest_cost_gap": max(gap for gap, _ in gaps),
        "largest_violation_w": max(broken_w for _, broken_w in gaps),
    }
    figures["reached"] = _reached(trials[WITH_PATH]) and all(gap <= EQUAL and broken <= EQUAL for gap, broken in gaps)
    figures["wall_s"] = round(time.perf_counter() - started_s, 1)
    return figures


def _interval_gap(seed: int) -> tuple[float, float]:
    """How far apart the costs of one interval are, by part, and by how many watts the worst limit is broken."""
    interval = make_interval(seed)
    best = central_cost(interval)
    cost, broken_w = layered_cost(interval)
    return abs(cost - best) / max(abs(best), 1.0), broken_w


def _reached(trials: list[Trial]) -> bool:
    return all(
        one.violations == 0 and one.impossible == 0 and one.cost_gap <= COST_REACH and one.attained >= SAVINGS_REACH
        for one in trials
    )


def _summed_up(trials: list[Trial]) -> dict[str, Any]:
    return {
        "cost_gap_median": round(median(one.cost_gap for one in trials), 6),
        "cost_gap_max": round(max(one.cost_gap for one in trials), 6),
        "attained_median": round(median(one.attained for one in trials), 5),
        "attained_min": round(min(one.attained for one in trials), 5),
        "fleets_below_reach": sum(one.cost_gap > COST_REACH or one.attained < SAVINGS_REACH for one in trials),
        "violations": sum(one.violations for one in trials),
        "violation_wh": round(sum((one.violation_wh for one in trials), 0.0), 3),
        "impossible": sum(one.impossible for one in trials),
        "rounds_max": max(one.rounds for one in trials),
    }
