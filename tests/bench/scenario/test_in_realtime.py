"""A scenario in real time: processes, sockets and a broker; both modes agree, and a kill leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.scenario import Mode
from gateway.bench.scenario.loading import Changes, load_scenario
from gateway.bench.scenario.plan import Plan
from gateway.bench.scenario.reporting import write_scenario_report
from gateway.bench.scenario.running import RunOptions, run_scenario
from tests.system.processes import Started, until

EVENTS = """\
  - {at_s: 2.5, until_s: 5, load_step_w: 3000}
  - {at_s: 3, until_s: 6, plug_in: {device: charger_2, needed_wh: 5000}}
  - {at_s: 3.5, until_s: 4.5, fault: {fault: black_hole, device: battery_a}}
  - {at_s: 5, until_s: 6.5, gateway: kill}
checks:
"""
BENCH_PROCESSES = (
    "sim_devices.broker",
    "sim_devices.process",
    "sim_devices.faults.world",
    "sim_devices.dso",
    "gateway run",
)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    with Started(tmp_path) as started:
        yield started


async def test_a_scenario_runs_as_processes_and_agrees_with_lockstep(
    started: Started, scenario_file: Callable[..., Path]
) -> None:
    # Long enough for a gateway to start again on a busy machine before the run ends.
    path = scenario_file(("checks:\n", EVENTS), ("duration_s: 9", "duration_s: 13"))
    running = started.run(
        "scenario", "gateway", "scenario", "run", str(path), "--mode", "realtime", "--json", "--out", "out"
    )
    assert await running.ended(within_s=50.0) in (0, 1), (running.out, running.errors)
    assert running.alive() == {}
    (said,) = json.loads(running.out)
    assert said["mode"] == "realtime"
    assert said["faults"] == [["black_hole", "battery"]]
    assert said["checks"][0] == {"name": "whole_run", "limit": 0.0, "measured": 0.0, "passed": True}
    journal = [json.loads(line) for line in (started.folder / "out/trial/gateway.jsonl").read_text().splitlines()]
    assert sum(entry["event"] == "start" for entry in journal) == 2, "killed, and started again"
    rows = (started.folder / "out/trial/physics.csv").read_text().splitlines()
    column = rows[0].split(",").index("charger_2_w")
    assert max(float(row.split(",")[column]) for row in rows[1:]) > 1000.0, "the car has charged"

    other = await asyncio.to_thread(in_lockstep, path, started.folder / "lockstep")
    assert by_physics(said) == by_physics(other)


def by_physics(said: dict[str, Any]) -> dict[str, bool]:
    """The verdicts but for that on telemetry, which a gateway's own start interrupts for as long as it takes."""
    return {check["name"]: check["passed"] for check in said["checks"] if check["name"] != "orders_answered"}


def in_lockstep(path: Path, out: Path) -> dict[str, Any]:
    loaded = load_scenario(path, Changes(mode=Mode.LOCKSTEP))
    run_scenario(loaded, out, RunOptions())
    return write_scenario_report(Plan(loaded), out, sabotaged=False).summary()


async def test_a_killed_scenario_takes_its_processes_with_it(
    started: Started, scenario_file: Callable[..., Path]
) -> None:
    path = scenario_file(("mode: lockstep", "mode: realtime"), ("checks:\n", EVENTS))
    running = started.run("scenario", "gateway", "scenario", "run", str(path), "--out", "out")

    def all_there() -> bool:
        lines = list(running.alive().values())
        return all(any(process in line for line in lines) for process in BENCH_PROCESSES)

    await until(all_there, lambda: (running.alive(), running.errors), within_s=40.0)
    running.send(signal.SIGKILL)
    await running.ended()
    await until(lambda: running.alive() == {}, lambda: running.alive(), within_s=10.0)


async def test_bad_input_ends_with_2_and_nothing_starts(started: Started, scenario_file: Callable[..., Path]) -> None:
    path = scenario_file(("site: demo", "site: dmo"))
    running = started.run(
        "scenario", "gateway", "scenario", "run", str(path), "nothing_like_it", "--json", "--out", "out"
    )
    assert await running.ended() == 2
    findings = json.loads(running.out)
    assert [finding["line"] for finding in findings] == [4, None]
    assert not (started.folder / "out").exists()
    assert "Traceback" not in running.errors
