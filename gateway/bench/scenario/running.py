"""Runs a scenario, in either mode, into a run directory that does not tell which one it was."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from config.lags import lags_path
from config.scenario import Function, Mode
from gateway.bench.demo import INTERRUPTED, stop_at_signals
from gateway.bench.realtime import Bench, BenchPlan, run_bench
from gateway.bench.run_directory import prepare
from gateway.bench.run_files import END_FILE
from gateway.bench.scenario.conduct import conduct, look_at_faults
from gateway.bench.scenario.control_line import HappeningFailedError
from gateway.bench.scenario.fault_log import FaultLog
from gateway.bench.scenario.loading import LoadedScenario, write_site
from gateway.bench.scenario.memory import watch_memory
from gateway.bench.scenario.plan import Plan

ALL: Final = "all"
SITE_FILE: Final = "site.yaml"
SCRIPT_FILE: Final = "script.json"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says of a run. `twins`: empty for all; the other devices are real.

    `sabotage`: without the function under test.
    """

    twins: tuple[str, ...] = ()
    sabotage: bool = False
    allow_real_writes: bool = False
    broker: str | None = None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended: what kept it from being a whole one, and whether that was the user's Ctrl-C."""

    problems: tuple[str, ...]
    interrupted: bool = False


def cannot_run(loaded: LoadedScenario, options: RunOptions) -> str:
    """Why the options contradict the scenario; empty where they don't."""
    unknown = sorted(set(options.twins) - set(loaded.site.devices) - {ALL})
    if unknown:
        there = ", ".join(loaded.site.devices)
        return f"--twin {', '.join(unknown)}: no such device in {loaded.name}; allowed: all, {there}"
    if loaded.scenario.mode is Mode.LOCKSTEP and options.twins and set(options.twins) != {ALL}:
        return f"{loaded.name}: real devices have a clock of their own; run it with --mode realtime"
    return ""


def run_scenario(loaded: LoadedScenario, out: Path, options: RunOptions) -> RunEnd:
    """Run a scenario into `out`, to its end or to Ctrl-C.

    The caller holds the directory. Raises ChildFailedError and OSError where it cannot be run.
    """
    prepare(out)
    write_site(loaded, out / SITE_FILE)
    plan = Plan(loaded)
    without = loaded.under_test if options.sabotage else None
    if loaded.scenario.mode is Mode.LOCKSTEP:
        return _in_lockstep(plan, out, without)
    return asyncio.run(_in_realtime(plan, out, options, without))


def _in_lockstep(plan: Plan, out: Path, without: Function | None) -> RunEnd:
    from gateway.bench.scenario.in_lockstep import run_in_lockstep

    try:
        return RunEnd(tuple(run_in_lockstep(plan, out, without)))
    except KeyboardInterrupt:
        ended = RunEnd((f"{INTERRUPTED} the scenario",), interrupted=True)
    except HappeningFailedError as error:
        ended = RunEnd((str(error),))
    end = {"planned_s": plan.loaded.scenario.duration_s, "problems": ended.problems}
    (out / END_FILE).write_text(json.dumps(end), encoding="utf-8")
    return ended


async def _in_realtime(plan: Plan, out: Path, options: RunOptions, without: Function | None) -> RunEnd:
    loaded = plan.loaded
    script = out / SCRIPT_FILE
    script.write_text(json.dumps(plan.script_data, indent=1), encoding="utf-8")
    lags = lags_path(loaded.site_path)
    more = ["--lags", str(lags)] if lags.exists() else []
    more += ["--allow-real-writes"] if options.allow_real_writes else []
    module = ("gateway",) if without is None else ("gateway.bench.scenario.sabotaged_gateway", without.value)
    bench = Bench(
        BenchPlan(
            path=out / SITE_FILE,
            site=loaded.site,
            out=out,
            duration_s=loaded.scenario.duration_s,
            broker=options.broker,
            twins=() if ALL in options.twins else options.twins,
            script=script,
            faults=plan.has_faults,
            seed=loaded.site.simulation.seed,
            gateway_module=module,
            gateway_options=tuple(more),
        )
    )
    stop_at_signals(bench, "the scenario")
    log = FaultLog()
    try:
        await run_bench(bench, [partial(conduct, plan, log), watch_memory], look_at_faults(log))
    except HappeningFailedError as error:
        bench.problems.append(str(error))
        bench.tell_end()
    log.write(out, plan)
    return RunEnd(tuple(bench.problems), bench.stop.is_set())
