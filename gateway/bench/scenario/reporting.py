"""The report of a scenario: its checks, the figures of the run, and apart from them those of the wall clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.scenario import Mode
from gateway.bench.reports.page import Verdicts, page
from gateway.bench.reports.report import HTML_FILE, JSON_FILE, make_report, write_text
from gateway.bench.reports.report_schema import Percentiles, ProcessFigures, Report
from gateway.bench.reports.wording import NOT_MEASURED
from gateway.bench.run_files import RUN_FILE, read_mark, read_run
from gateway.bench.scenario.chance import what_is_random
from gateway.bench.scenario.fault_log import read_fault_log
from gateway.bench.scenario.happened import events_of
from gateway.bench.scenario.judging import FAULTS_ACTED, WHOLE_RUN, CheckResult, judge
from gateway.bench.scenario.memory import memory_slope
from gateway.bench.scenario.plan import Plan
from gateway.bench.scenario.trial import Trial, make_trial

PERF_FILE: Final = "report.perf.json"
OF_THE_WALL_CLOCK: Final = ("cycle_ms", "jitter_ms", "bare_loop_jitter_ms", "missed_cycles", "process")
"""Figures of the machine that a run was made on; the others are of the run itself."""


@dataclass(frozen=True, slots=True)
class ScenarioReport:
    """What is said of one run of a scenario."""

    trial: Trial
    checks: tuple[CheckResult, ...]
    figures: Report
    sabotaged: bool
    memory_mb_per_h: float | None = None
    run: str | None = None

    @property
    def plan(self) -> Plan:
        return self.trial.plan

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def summary(self) -> dict[str, Any]:
        """Name, mode, verdict, faults and checks, as the command line prints them."""
        loaded = self.plan.loaded
        return {
            "name": loaded.name,
            "mode": loaded.scenario.mode.value,
            "passed": self.passed,
            "faults": [list(pair) for pair in self.acted()],
            "checks": [_told(check) for check in self.checks],
        }

    def acted(self) -> list[tuple[str, str]]:
        """Each fault that acted, with the kind of what it struck, once."""
        plan = self.plan
        named = zip(plan.names, plan.loaded.events, strict=True)
        found = (plan.loaded.fault_of(event) for name, event in named if name not in self.trial.unacted)
        return list(dict.fromkeys(pair for pair in found if pair is not None))

    def of_the_run(self) -> dict[str, Any]:
        """Everything but what the wall clock has measured."""
        loaded = self.plan.loaded
        figures = self.figures.model_dump(mode="json", exclude=set(OF_THE_WALL_CLOCK))
        for order in figures["orders"]:
            del order["received_to_written_ms"]
        events = [event.model_dump(mode="json") for event in events_of(self.trial)]
        told: dict[str, Any] = {
            "title": loaded.scenario.title,
            "source": loaded.scenario.source,
            "site": loaded.site.site,
            "seed": loaded.site.simulation.seed,
            "random": list(what_is_random(loaded)),
            "sabotaged": loaded.under_test.value if self.sabotaged else None,
            "events": events,
        }
        return self.summary() | told | figures

    def of_the_wall_clock(self) -> dict[str, Any]:
        """What depends on the machine."""
        figures = self.figures.model_dump(mode="json", include=set(OF_THE_WALL_CLOCK))
        times = {order.id: order.received_to_written_ms for order in self.figures.orders}
        more = {"memory_mb_per_h": self.memory_mb_per_h, "received_to_written_ms": times}
        return {"name": self.plan.loaded.name, "run": self.run, **figures, **more}


def write_scenario_report(plan: Plan, out: Path, *, sabotaged: bool) -> ScenarioReport:
    """Judge the run in `out` and write its reports beside its files; raises OSError."""
    growth = memory_slope(out)
    trial = make_trial(plan, read_run(out), growth, read_fault_log(out))
    figures = make_report(trial.assessment)
    if plan.loaded.scenario.mode is Mode.LOCKSTEP:
        figures = _without_wall_clock(figures)
    mark = read_mark(out / RUN_FILE)
    run = None if mark is None else mark.run
    report = ScenarioReport(trial, tuple(judge(trial)), figures, sabotaged, growth, run)
    for name, content in ((JSON_FILE, report.of_the_run()), (PERF_FILE, report.of_the_wall_clock())):
        write_text(out / name, json.dumps(content, indent=2) + "\n")
    write_text(out / HTML_FILE, page(trial.assessment, report.figures, _verdicts(report)))
    return report


def _without_wall_clock(figures: Report) -> Report:
    """On virtual time a cycle takes none: what the wall clock would have measured was not measured."""
    nothing = Percentiles(p50=None, p99=None, max=None)
    spreads = dict.fromkeys(("cycle_ms", "jitter_ms", "bare_loop_jitter_ms"), nothing)
    process = ProcessFigures(rss_mb=None, cpu_pct=None, first_setpoint_s=None)
    orders = tuple(order.model_copy(update={"received_to_written_ms": None}) for order in figures.orders)
    return figures.model_copy(update={**spreads, "missed_cycles": None, "process": process, "orders": orders})


def verdict_of(report: ScenarioReport) -> str:
    """The verdict in words; of a sabotaged run, whether it failed as it must."""
    if not report.sabotaged:
        return "passed" if report.passed else "FAILED"
    failed = {check.name for check in report.checks if not check.passed}
    if WHOLE_RUN in failed:
        return "FAILED as a run, which shows nothing"
    # A fault that never acted shows nothing of the function that was taken out either.
    return "failed, as it must" if failed - {FAULTS_ACTED} else "PASSED ALTHOUGH SABOTAGED"


def _verdicts(report: ScenarioReport) -> Verdicts:
    loaded = report.plan.loaded
    seed = f"seed {loaded.site.simulation.seed}" + ("" if what_is_random(loaded) else " (nothing is random)")
    facts = [loaded.scenario.mode.value, seed, loaded.scenario.source]
    if report.sabotaged:
        facts.append(f"sabotaged: without {loaded.under_test.value}")
    title = f"{loaded.name}: {loaded.scenario.title}"
    said = verdict_of(report)
    rows = tuple(_row(check) for check in report.checks)
    is_real = loaded.scenario.mode is Mode.REALTIME
    return Verdicts(title, tuple(facts), rows, f"{said[0].upper()}{said[1:]}.", events_of(report.trial), is_real)


def _told(check: CheckResult) -> dict[str, Any]:
    """A check as programs read it; `words` are there where it failed for what they say."""
    told = {key: getattr(check, key) for key in ("name", "limit", "measured", "passed")}
    return told | ({"words": check.words} if check.words and not check.passed else {})


def _row(check: CheckResult) -> tuple[str, str, str, str, bool]:
    limit = f"{'at least' if check.at_least else 'at most'} {check.limit:g}"
    measured = NOT_MEASURED if check.measured is None else f"{check.measured:.4g}"
    what = f"{check.what} {check.words[:1].upper()}{check.words[1:]}." if check.words else check.what
    return check.name, what, limit, measured, check.passed


def summaries(reports: Sequence[ScenarioReport]) -> str:
    """One JSON array, an object for each scenario."""
    return json.dumps([report.summary() for report in reports])
