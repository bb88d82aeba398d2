"""The report of a scenario: its checks, the figures of the run, and apart from them those of the wall clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.bench.page import Verdicts, page
from gateway.bench.report import HTML_FILE, JSON_FILE, make_report, write_text
from gateway.bench.report_schema import Report
from gateway.bench.run_files import read_run
from gateway.bench.scenario.judging import CheckResult, judge
from gateway.bench.scenario.memory import memory_slope
from gateway.bench.scenario.plan import Plan
from gateway.bench.scenario.trial import make_trial
from gateway.bench.wording import NOT_MEASURED

PERF_FILE: Final = "report.perf.json"
OF_THE_WALL_CLOCK: Final = ("cycle_ms", "jitter_ms", "bare_loop_jitter_ms", "missed_cycles", "process")
"""Figures of the machine that a run was made on; the others are of the run itself."""


@dataclass(frozen=True, slots=True)
class ScenarioReport:
    """What is said of one run of a scenario."""

    plan: Plan
    checks: tuple[CheckResult, ...]
    figures: Report
    sabotaged: bool
    memory_mb_per_h: float | None = None

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def summary(self) -> dict[str, Any]:
        """Name, mode, verdict, faults and checks, as the command line prints them."""
        loaded = self.plan.loaded
        keys = ("name", "limit", "measured", "passed")
        return {
            "name": loaded.name,
            "mode": loaded.scenario.mode.value,
            "passed": self.passed,
            "faults": [list(pair) for pair in loaded.faults()],
            "checks": [{key: getattr(check, key) for key in keys} for check in self.checks],
        }

    def of_the_run(self) -> dict[str, Any]:
        """Everything but what the wall clock has measured."""
        loaded = self.plan.loaded
        figures = self.figures.model_dump(mode="json", exclude=set(OF_THE_WALL_CLOCK))
        for order in figures["orders"]:
            del order["received_to_written_ms"]
        told: dict[str, Any] = {
            "title": loaded.scenario.title,
            "source": loaded.scenario.source,
            "site": loaded.site.site,
            "seed": loaded.site.simulation.seed,
            "sabotaged": loaded.under_test.value if self.sabotaged else None,
        }
        return self.summary() | told | figures

    def of_the_wall_clock(self) -> dict[str, Any]:
        """What depends on the machine."""
        figures = self.figures.model_dump(mode="json", include=set(OF_THE_WALL_CLOCK))
        times = {order.id: order.received_to_written_ms for order in self.figures.orders}
        more = {"memory_mb_per_h": self.memory_mb_per_h, "received_to_written_ms": times}
        return {"name": self.plan.loaded.name, **figures, **more}


def write_scenario_report(plan: Plan, out: Path, *, sabotaged: bool) -> ScenarioReport:
    """Judge the run in `out` and write its reports beside its files; raises OSError."""
    growth = memory_slope(out)
    trial = make_trial(plan, read_run(out), growth)
    report = ScenarioReport(plan, tuple(judge(trial)), make_report(trial.assessment), sabotaged, growth)
    for name, content in ((JSON_FILE, report.of_the_run()), (PERF_FILE, report.of_the_wall_clock())):
        write_text(out / name, json.dumps(content, indent=2) + "\n")
    write_text(out / HTML_FILE, page(trial.assessment, report.figures, _verdicts(report)))
    return report


def _verdicts(report: ScenarioReport) -> Verdicts:
    loaded = report.plan.loaded
    facts = [loaded.scenario.mode.value, f"seed {loaded.site.simulation.seed}", loaded.scenario.source]
    if report.sabotaged:
        facts.append(f"sabotaged: without {loaded.under_test.value}")
    title = f"{loaded.name}: {loaded.scenario.title}"
    return Verdicts(title, tuple(facts), tuple(_row(check) for check in report.checks))


def _row(check: CheckResult) -> tuple[str, str, str, str, bool]:
    limit = f"{'at least' if check.at_least else 'at most'} {check.limit:g}"
    measured = NOT_MEASURED if check.measured is None else f"{check.measured:.4g}"
    return check.name, check.what, limit, measured, check.passed


def summaries(reports: Sequence[ScenarioReport]) -> str:
    """One JSON array, an object for each scenario."""
    return json.dumps([report.summary() for report in reports])
