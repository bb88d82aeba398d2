"""Scenarios run one after another by `gateway scenario run`, and what is told of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.bench.broker_probe import BrokerSilentError, probe_broker
from gateway.bench.children import ChildFailedError
from gateway.bench.lockstep.request import LockstepError
from gateway.bench.run_directory import held_run_directory
from gateway.bench.scenario.chance import what_is_random
from gateway.bench.scenario.loading import LoadedScenario
from gateway.bench.scenario.plan import Plan
from gateway.bench.scenario.reporting import ScenarioReport, summaries, verdict_of, write_scenario_report
from gateway.bench.scenario.running import RunEnd, RunOptions, run_scenario
from gateway.cli.sites import BAD_INPUT, FAILED, INTERRUPTED


class _CannotRunError(Exception):
    """A scenario can't be run here; the text is for the user."""


def run_series(
    scenarios: Sequence[LoadedScenario], out: Path, options: RunOptions, *, seed_given: bool, as_json: bool
) -> int:
    """Run them in their order; the exit code. With `as_json` the only output is an array of those that have ended."""
    reports: list[ScenarioReport] = []
    code = 0
    try:
        asyncio.run(probe_broker(options.broker))
        for each in scenarios:
            if seed_given and not what_is_random(each):
                said = sys.stderr if as_json else sys.stdout
                said.write(f"{each.name}: nothing in it is random; --seed changes nothing\n")
            report, ended = _run(each, out / each.name, options)
            if not as_json:
                _tell(report, ended, out / each.name)
            if ended.interrupted:
                code = INTERRUPTED
                break
            reports.append(report)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (_CannotRunError, BrokerSilentError) as error:
        sys.stderr.write(f"{error}\n")
        code = BAD_INPUT
    if as_json:
        if reports or code != BAD_INPUT:
            sys.stdout.write(summaries(reports) + "\n")
    elif code == INTERRUPTED or len(scenarios) > 1:
        _table(reports, scenarios, interrupted=code == INTERRUPTED)
    return code or (0 if all(report.passed for report in reports) else FAILED)


def _run(loaded: LoadedScenario, directory: Path, options: RunOptions) -> tuple[ScenarioReport, RunEnd]:
    """Run one and write its report; raises _CannotRunError."""
    try:
        with held_run_directory(directory):
            ended = run_scenario(loaded, directory, options)
            return write_scenario_report(Plan(loaded), directory, sabotaged=options.sabotage), ended
    except (ChildFailedError, LockstepError) as error:
        raise _CannotRunError(f"{loaded.name}: {error}") from error
    except OSError as error:
        raise _CannotRunError(f"{loaded.name}: {error.filename or directory}: {error.strerror or error}") from error


def _tell(report: ScenarioReport, ended: RunEnd, directory: Path) -> None:
    """One line a check, as soon as a scenario has ended."""
    loaded = report.plan.loaded
    mode = loaded.scenario.mode.value
    without = f", without {loaded.under_test.value}" if report.sabotaged else ""
    verdict = "interrupted" if ended.interrupted else verdict_of(report)
    sys.stdout.write(f"{loaded.name}: {verdict} ({mode}{without})\n")
    for check in report.checks:
        measured = "not measured" if check.measured is None else f"{check.measured:.4g}"
        bound = "at least" if check.at_least else "at most"
        word = "passed" if check.passed else "FAILED"
        words = f"  {check.words}" if check.words else ""
        sys.stdout.write(f"  {word:6} {check.name:24} {measured:>12}  {bound} {check.limit:g}{words}\n")
    said = [check.words for check in report.checks]
    for problem in ended.problems:
        if not any(problem in words for words in said):
            sys.stdout.write(f"  {problem}\n")
    sys.stdout.write(f"  report: {directory / 'report.html'}\n")
    sys.stdout.flush()


def _table(reports: Sequence[ScenarioReport], scenarios: Sequence[LoadedScenario], *, interrupted: bool) -> None:
    """All that have ended, one line each."""
    head = f"interrupted: {len(reports)} of {len(scenarios)} have ended" if interrupted else f"{len(reports)} scenarios"
    sys.stdout.write(f"\n{head}\n")
    for report in reports:
        failed = ", ".join(check.name for check in report.checks if not check.passed)
        sys.stdout.write(f"  {report.plan.loaded.name:28} {verdict_of(report)}{f'  {failed}' if failed else ''}\n")
    sys.stdout.flush()
