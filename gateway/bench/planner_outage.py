"""The demo site with a planner that is taken away: killed, stalled, or without a solution, while limits bind.

In lockstep the planner is part of the run: it is asked on virtual time and answers at once, so an hour takes a minute
and the same seed is the same run. In real time it is the gateway's own process, killed or stopped again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, get_args

import yaml

from config.loading import load_profiles, load_site, shipped_sites
from config.site import Site
from gateway.bench.children import ChildFailedError
from gateway.bench.lockstep.request import LockstepRequest
from gateway.bench.lockstep.run import run_lockstep
from gateway.bench.lockstep.world import LockstepWorld
from gateway.bench.realtime import Bench, BenchPlan, run_bench
from gateway.bench.reports.page import LONGEST_EXCURSION_S
from gateway.bench.reports.report import write_report
from gateway.bench.run_directory import held_run_directory, prepare
from gateway.bench.run_files import Event, read_problems, read_run
from gateway.planning.desk import ANSWER_SLACK_S
from gateway.planning.link import STALLED_S
from gateway.planning.messages import PlanMessage, StateMessage, encode
from sim_devices.dso.script import Script

Outage = Literal["none", "killed", "stalled", "infeasible"]
"""`none`: it is never away, for comparison."""

SITE: Final = "demo"
BEFORE_S: Final = 120.0
AFTER_S: Final = 60.0
EVERY_S: Final = 60.0
"""An operator's order each minute, and a limit in each that it would break."""

VALID_S: Final = 30.0
REPLAN_S: Final = 10.0
LOOK_S: Final = 0.05
UNLIMITED_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class OutageRequest:
    """The planner is away from `before_s` on for `outage_s`, and back for `after_s`."""

    outage: Outage
    outage_s: float
    before_s: float = BEFORE_S
    after_s: float = AFTER_S

    @property
    def duration_s(self) -> float:
        """Of the whole run."""
        return self.before_s + self.outage_s + self.after_s

    def is_away(self, now_s: float) -> bool:
        """Whether the planner is away, so many seconds after the run's begin."""
        return self.outage != "none" and self.before_s <= now_s < self.before_s + self.outage_s


def planned_site() -> Site:
    """The demo site with a planner whose curves soon expire without it."""
    data = load_site(shipped_sites()[SITE]).model_dump()
    data["planning"] = {"replan_s": REPLAN_S, "curves_valid_s": VALID_S, "time_limit_s": 10.0}
    # As fast as time: the batteries outlast an hour of orders.
    data["simulation"].update(acceleration=1.0)
    return Site.model_validate(data)


def outage_script(duration_s: float, every_s: float = EVERY_S) -> Script:
    """Orders to the end: each asks for more than the limit that follows it allows, import and export in turn."""

    def at(seconds: float) -> float:
        return round(seconds / duration_s, 9)

    orders: list[dict[str, Any]] = [{"name": "authority", "at": 0.0, "authority": {}}]
    for number in range(int(duration_s / every_s)):
        begin_s = number * every_s + 0.1 * every_s
        until = at(begin_s + 0.8 * every_s)
        sign, quantity = (1.0, "net_import_w") if number % 2 else (-1.0, "net_export_w")
        asked = {"net_power_pu": 0.25 * sign, "lambda_per_kwh": 0.20 if number % 2 else 0.30}
        limit = {"quantity": quantity, "value_pu": 0.08 if number % 2 else 0.10}
        orders.append({"name": f"order_{number}", "at": at(begin_s), "until": until, "dispatch": asked})
        orders.append({"name": f"limit_{number}", "at": at(begin_s + 0.2 * every_s), "until": until, "limit": limit})
    return Script.model_validate({"phases": [{"name": "orders", "start": 0.0}], "orders": orders})


# Virtual time


@dataclass(slots=True)
class FedPlanner:
    """Asks the gateway's desk in the planner's rhythm and answers at once, unless it is away."""

    request: OutageRequest
    answered: int = 0
    _since_s: float = float("-inf")

    async def serve(self, world: LockstepWorld) -> None:
        """Until cancelled."""
        from gateway.planning.planner import Planner

        planner, site = Planner(None), world.site
        assert site.planning is not None
        most_s = site.planning.time_limit_s + ANSWER_SLACK_S + STALLED_S
        while True:
            desk = None if world.gateway is None else world.gateway.planner
            if desk is not None:
                if desk.waits_s is not None and desk.waits_s > most_s:
                    # As the link does to a planner that owes an answer.
                    desk.refuse(f"no answer for {desk.waits_s:.0f} s")
                    desk.drop_request()
                away = self.request.is_away(world.now_s)
                if not (away and self.request.outage == "killed") and desk.waits_s is None:
                    state = desk.request(self._since_s)
                    if state is not None and not (away and self.request.outage == "stalled"):
                        desk.take(encode(self._answer(planner, state, away=away)))
            await asyncio.sleep(site.planning.replan_s)

    def _answer(self, planner: Any, state: StateMessage, *, away: bool) -> PlanMessage:
        if away:
            return PlanMessage(id=state.id, status="failed", reason="the solver ended with infeasible")
        if state.measured:
            self._since_s = state.measured[-1].begin_utc_s
        # On virtual time the wall clock sets no limit.
        unlimited = state.planning.model_copy(update={"time_limit_s": UNLIMITED_S})
        made: PlanMessage = planner.plan(state.model_copy(update={"planning": unlimited, "offers": False}))
        self.answered += 1
        # How long the solver took differs from run to run.
        return made.model_copy(update={"solve_s": 0.0})


def outage_in_lockstep(request: OutageRequest, out: Path) -> dict[str, Any]:
    """The run's figures; raises LockstepError where it can't begin."""
    site = planned_site()
    path = shipped_sites()[SITE]
    by_name = load_profiles(site, path)
    planner = FedPlanner(request)
    run_lockstep(
        LockstepRequest(
            site=site,
            profiles={name: by_name[one.profile] for name, one in site.devices.items()},
            out=out,
            duration_s=request.duration_s,
            script=outage_script(request.duration_s),
            actions=[(0.0, planner.serve)],
            trace=False,
        )
    )
    return _judged(request, out, site)


# Real time


async def outage_in_real_time(request: OutageRequest, out: Path) -> dict[str, Any]:
    """The run's figures; raises ChildFailedError where a process does not come up."""
    if request.outage == "infeasible":
        raise ChildFailedError("a real planner always has a solution: infeasible is for virtual time")
    site, files = planned_site(), out / "site"
    files.mkdir(parents=True, exist_ok=True)
    (files / "site.yaml").write_text(json.dumps(site.model_dump(mode="json", exclude_none=True)))
    script = outage_script(request.duration_s).model_dump(mode="json", exclude_none=True)
    (files / "script.yaml").write_text(yaml.safe_dump(script))
    plan = BenchPlan(files / "site.yaml", site, out, request.duration_s, script=files / "script.yaml")
    away_s: list[float] = []
    with held_run_directory(out):
        prepare(out)
        await run_bench(Bench(plan), beside=[partial(_take_away, request, away_s)])
    missed = _missed(read_run(out).gateway, site.control.period_ms / 1e3, away_s)
    return _judged(request, out, site) | {"missed_while_away": missed}


def _missed(gateway: Sequence[Event], period_s: float, away_s: Sequence[float]) -> int | None:
    """Ticks of the traced cycles that were left out between the first and the last of some times; None without them."""
    if not away_s:
        return None
    ticks = [event.at_s for event in gateway if event.name == "cycle" and event.number("start_jitter_ms") is not None]
    within = [at_s for at_s in ticks if away_s[0] <= at_s <= away_s[-1]]
    return sum(max(round((later - earlier) / period_s) - 1, 0) for earlier, later in pairwise(within))


async def _take_away(request: OutageRequest, away_s: list[float], bench: Bench) -> None:
    """Each planner that starts while it is to be away is killed, or stopped until the outage is over.

    `away_s` is given the monotonic times at which the outage was looked after.
    """
    began_s, read, running, stopped = time.monotonic(), 0, 0, set[int]()
    journal = bench.plan.out / "gateway.jsonl"
    while True:
        await asyncio.sleep(LOOK_S)
        pids, read = await asyncio.to_thread(_planners, journal, read)
        running = pids[-1] if pids else running
        now_s = time.monotonic() - began_s
        if request.is_away(now_s):
            away_s.append(time.monotonic())
        if request.is_away(now_s) and running and running not in stopped:
            stopped.add(running)
            with suppress(ProcessLookupError):
                os.kill(running, signal.SIGKILL if request.outage == "killed" else signal.SIGSTOP)
        elif now_s >= request.before_s + request.outage_s and request.outage == "stalled":
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            stopped.clear()


def _planners(journal: Path, read: int) -> tuple[list[int], int]:
    """Whom the gateway has started since that place in its journal, and how far it has been read."""
    found: list[int] = []
    try:
        with journal.open("rb") as lines:
            lines.seek(read)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                read += len(line)
                if b'"planner started"' in line:
                    found.append(int(json.loads(line)["pid"]))
    except FileNotFoundError:
        pass
    return found, read


# Figures


def _judged(request: OutageRequest, out: Path, site: Site) -> dict[str, Any]:
    report = write_report(out, site)
    run = read_run(out)
    plans = [event for event in run.gateway if event.name == "plan"]
    taken = [event.at_s for event in plans if event.text("state") == "taken"]
    begin_s = next((event.at_s for event in run.gateway if event.name == "start"), 0.0)
    gaps = [later - earlier for earlier, later in pairwise(taken)]
    excursions = report.excursions
    return {
        "outage": request.outage,
        "outage_s": request.outage_s,
        "duration_s": request.duration_s,
        "limits": sum(order.kind == "limits" for order in report.orders),
        "plans_taken": len(taken),
        "longest_without_plan_s": round(max(gaps, default=0.0), 1),
        "expired": _count(plans, "expired"),
        "failed": _count(plans, "failed"),
        "refused": _count(plans, "refused"),
        "planner_ended": _count(plans, "planner ended"),
        "first_plan_s": round(taken[0] - begin_s, 1) if taken else None,
        "cycles": report.cycles,
        "missed_cycles": report.missed_cycles,
        "excursions": excursions.count,
        "longest_excursion_s": excursions.longest_s,
        "kept": excursions.longest_s is not None and excursions.longest_s < LONGEST_EXCURSION_S,
        "problems": list(read_problems(out / "end.json")),
    }


def _count(plans: Sequence[Event], state: str) -> int:
    return sum(event.text("state") == state for event in plans)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures as one JSON object; returns 0, 1 for a limit not kept or a cycle missed, 2 if it can't run."""
    parser = argparse.ArgumentParser(prog="python -m gateway.bench.planner_outage", description=__doc__)
    parser.add_argument("outage", choices=get_args(Outage))
    parser.add_argument("--outage-s", type=float, default=3600.0)
    parser.add_argument("--real-time", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    request = OutageRequest(options.outage, options.outage_s)
    with TemporaryDirectory(prefix="lamina-outage-") as folder:
        out = options.out or Path(folder) / "run"
        try:
            if options.real_time:
                figures = asyncio.run(outage_in_real_time(request, out))
            else:
                figures = outage_in_lockstep(request, out)
        except (ChildFailedError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            return 2
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["kept"] and figures["missed_cycles"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
