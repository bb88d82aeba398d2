"""From a state to a plan, with the solver: what comes back, what is kept, and what is said where it can't be had."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

pytest.importorskip("cvxpy")

from typer.testing import CliRunner

from config.planning import InterchangePrices, PriceBand
from gateway.bench.machine.plan_bench import PlanBenchRequest, SyntheticMicrogrid, run_plan_bench
from gateway.cli.plan import hourly
from gateway.planning.history import FILE_NAME
from gateway.planning.messages import MeasuredStep, checked_curves
from gateway.planning.model import PlanInput, Tariff
from gateway.planning.planner import Planner
from gateway.planning.problem import NoPlanError, PlanProblem, Shape
from tests.planning.states import NOON_S, battery, car, planning, state

EVENING = InterchangePrices(
    import_per_kwh=0.2,
    export_per_kwh=0.1,
    bands=(PriceBand(from_h=14.0, until_h=16.0, import_per_kwh=0.6, export_per_kwh=0.1),),
)
BOUNDS_W = {"battery": (-10e3, 10e3), "car": (0.0, 11e3)}


def test_a_plan_comes_with_curves_that_control_takes() -> None:
    given = state(batteries=(battery(),), cars=(car(),), planning=planning(interchange=EVENING))
    plan = Planner(None).plan(given)
    assert (plan.id, plan.status, plan.given_up) == (1, "optimal", {})
    curves = dict(checked_curves(plan, BOUNDS_W))
    assert set(curves) == {"battery", "car"}
    series = plan.series
    assert len(series.net_w) == 16
    assert series.net_w[10] == pytest.approx(0.0, abs=5.0), "the store carries the dear hours"
    assert sum(series.cars_w) / 4.0 == pytest.approx(10e3, rel=1e-3)
    for at, net_w in enumerate(series.net_w):
        parts = series.load_p50_w[at] + series.sun_w[at] + series.battery_w[at] + series.cars_w[at]
        assert net_w == pytest.approx(parts, abs=2.0)
    rows = hourly(plan.model_dump(mode="json"))
    assert [row["from"] for row in rows] == ["09 Jun 12:00", "09 Jun 13:00", "09 Jun 14:00", "09 Jun 15:00"]
    assert rows[2]["import"] == pytest.approx(0.6)


def test_what_cannot_be_had_is_given_up_and_named() -> None:
    plan = Planner(None).plan(state(cars=(car(needed_wh=90e3),)))
    assert plan.status == "optimal"
    assert plan.given_up["cars' energy"] == pytest.approx(90.0 - 22.0, abs=0.1)
    (curve,) = plan.curves
    assert curve.prices_per_kwh[-1] > 9.0, "a car that is short of energy takes it at any price"


def test_a_plan_without_anything_to_plan_is_a_plan() -> None:
    plan = Planner(None).plan(state(sun_rating_w=0.0, sun_pu=None, rest_w=None))
    assert (plan.status, plan.curves) == ("optimal", ())


def test_a_solver_that_has_no_time_says_so() -> None:
    given = SyntheticMicrogrid(96, 70).at(0.0)
    problem = PlanProblem(Shape.of(given))
    with pytest.raises(NoPlanError, match="user_limit"):
        problem.solve(given, time_limit_s=0.0)
    assert problem.solve(given).status == "optimal", "the next time it has"
    failed = Planner(None).plan(state(batteries=(battery(),), planning=planning(time_limit_s=1e-6)))
    assert (failed.status, failed.curves) == ("failed", ())


def test_a_dispatch_that_was_promised_is_planned_for() -> None:
    steps = (1e3,) * 4
    prices = Tariff((0.1,) * 4, (0.05,) * 4)
    given = PlanInput(900.0, steps, prices, dispatch_w=(None, 5e3, None, 1e3))
    plan = PlanProblem(Shape.of(given)).solve(given)
    assert plan.given_up["the dispatch"] == pytest.approx(1.0, abs=1e-3)
    assert plan.net_w == pytest.approx((1e3,) * 4, abs=1.0)


def test_the_history_is_kept_from_one_planner_to_the_next(tmp_path: Path) -> None:
    measured = tuple(MeasuredStep(begin_utc_s=NOON_S - at * 900.0, rest_w=3e3, sun_pu=0.1) for at in range(1, 4 * 96))
    assert Planner(tmp_path).plan(state(measured=measured)).assumptions == ()
    assert (tmp_path / FILE_NAME).exists()
    plan = Planner(tmp_path).plan(state())
    assert plan.assumptions == ()
    assert plan.series.load_p50_w[0] == pytest.approx(3e3)


def test_the_program_stays_while_its_shape_does() -> None:
    planner = Planner(None)
    planner.plan(state(batteries=(battery(),)))
    first = planner._problem
    planner.plan(state(id=2, batteries=(battery(soc=0.7),)))
    assert planner._problem is first
    planner.plan(state(id=3, batteries=(battery(),), cars=(car(),)))
    assert planner._problem is not first


def test_the_bench_counts_what_it_says() -> None:
    figures = run_plan_bench(PlanBenchRequest(12, 8, 2, 10.0), lambda _: None)
    assert {"first_solve_ms", "resolve_ms", "rebuilt_ms"} <= figures.keys()
    assert figures["resolve_ms"].keys() == {"p50", "p99", "max"}
    assert figures["balanced"] is True


def test_the_commands_answer_without_a_gateway() -> None:
    app = importlib.import_module("gateway.cli.main").app
    done = CliRunner().invoke(app, ["plan", "demo", "--offline", "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert made["planner"] is None
    assert made["plan"]["status"] == "optimal"
    assert made["plan"]["assumptions"] == []
    table = CliRunner().invoke(app, ["plan", "demo", "--offline"])
    assert "local price" in table.stdout
    nobody = CliRunner().invoke(app, ["plan", "demo", "--state", "/nonexistent"])
    assert nobody.exit_code == 1
    assert "is the gateway running" in nobody.output
