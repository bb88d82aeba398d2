"""Real time and lockstep held together: the demo in both, from the same surroundings, gives the same verdicts, and net
power runs within 3 % of the rating of each other for 95 % of the time.

Left out is half a second after each step, of the target, a limit or the load by more than 1 % of the rating: there a
phase of the control cycle is seen, which is nobody's in real time. The demo's script is played in half its least time,
with a heartbeat's time-out to match: every order and every check of it is there.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.loading import shipped_sites
from config.site import Site
from gateway.bench.assessment import assess
from gateway.bench.realtime import Bench, BenchPlan, run_bench
from gateway.bench.reports.report import make_report
from gateway.bench.reports.report_schema import OrderFigures, Report
from gateway.bench.run_files import read_physics, read_run
from sim_devices.dso.script import Script, load_script
from tests.bench.lockstep.conftest import Lockstep

BAND_PU = 0.03
SHARE_WITHIN = 0.95
STEP_PU = 0.01
LEFT_OUT_S = 0.5
SCRIPT_S = 15.0
HEARTBEAT_TIMEOUT_S = 1.2
FIRST_WORD_S = 0.1
"""From the gateway's start to its first word on virtual time: one control period."""


class Trajectory:
    """Net power and load from the script's begin on, and when the gateway's envelope or target stepped."""

    def __init__(self, run: Path, rating_w: float) -> None:
        physics = read_physics(run / "physics.csv")
        lines = [json.loads(line) for line in (run / "dso.jsonl").read_text().splitlines()]
        self.began_s = next(line["monotonic_s"] for line in lines if line["event"] == "phase")
        self.physics_began_s = physics.times[0]
        self.times = [at_s - self.began_s for at_s in physics.times]
        self.net_w = physics.columns["net_w"]
        self.load_w = physics.columns["load_w"]
        journal = [json.loads(line) for line in (run / "gateway.jsonl").read_text().splitlines()]
        envelopes = (entry for entry in journal if entry["event"] == "envelope")
        self.steps_s = [entry["monotonic_s"] - self.began_s for entry in envelopes]
        for at, (before_w, after_w) in enumerate(zip(self.load_w, self.load_w[1:], strict=False), start=1):
            if abs(after_w - before_w) > STEP_PU * rating_w:
                self.steps_s.append(self.times[at])
        self.checks = {line["name"]: line["passed"] for line in lines if line["event"] == "check"}

    def at(self, at_s: float) -> float:
        return float(self.net_w[min(bisect_left(self.times, at_s), len(self.times) - 1)])


def verdicts(report: Report) -> list[tuple[str, str, str]]:
    """Each order with what became of it; regulation and runs have numbers of their own."""

    def of(order: OrderFigures) -> tuple[str, str, str]:
        name = order.kind if order.kind == "regulation" else order.id.rpartition("-")[0]
        return (name, str(order.kind), str(order.status))

    return [of(order) for order in report.orders]


def report(run: Path, site: Site) -> Report:
    return make_report(assess(read_run(run), site))


def hurried(site: dict[str, Any]) -> None:
    for parent in site["parents"]:
        parent["heartbeat_timeout_s"] = HEARTBEAT_TIMEOUT_S


async def in_processes(site: Site, script: Script, folder: Path) -> Path:
    """The demo's run in real time, without its live table and its page; where its files are."""
    out, path, orders = folder / "realtime", folder / "site.yaml", folder / "script.json"
    out.mkdir()
    data = yaml.safe_load(shipped_sites()["demo"].read_text(encoding="utf-8"))
    hurried(data)
    path.write_text(yaml.safe_dump(data))
    orders.write_text(script.model_dump_json(exclude_unset=True))
    bench = Bench(BenchPlan(path, site, out, SCRIPT_S, script=orders))
    await run_bench(bench)
    assert bench.problems == []
    return out


@pytest.mark.timeout(120)
def test_the_demo_in_real_time_and_in_lockstep(lockstep: Lockstep, tmp_path: Path) -> None:
    lockstep.change(hurried)
    script = load_script().model_copy(update={"shortest_s": SCRIPT_S})
    real = asyncio.run(in_processes(lockstep.site, script, tmp_path))
    rating_w = lockstep.site.connection.rating_w
    in_real_time = Trajectory(real, rating_w)
    after_s = in_real_time.began_s - in_real_time.physics_began_s - FIRST_WORD_S
    step_ms = 20
    lockstep.run(SCRIPT_S, script=script, gateway_after_s=max(after_s, 0.0), step_ms=step_ms)
    in_lockstep = Trajectory(lockstep.out, rating_w)

    assert in_lockstep.checks == in_real_time.checks
    assert verdicts(report(lockstep.out, lockstep.site)) == verdicts(report(real, lockstep.site))

    steps_s = sorted([*in_real_time.steps_s, *in_lockstep.steps_s])
    compared = apart = 0
    for at_s, net_w in zip(in_lockstep.times, in_lockstep.net_w, strict=True):
        before = bisect_left(steps_s, at_s)
        recent = before > 0 and at_s - steps_s[before - 1] <= LEFT_OUT_S
        if 0.0 <= at_s <= SCRIPT_S - 0.5 and not recent:
            compared += 1
            apart += abs(in_real_time.at(at_s) - net_w) > BAND_PU * rating_w
    assert compared > 100
    assert apart <= (1.0 - SHARE_WITHIN) * compared, (apart, compared)
