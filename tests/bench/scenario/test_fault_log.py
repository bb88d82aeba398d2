"""What is known of faults from the proxies' status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.bench.scenario.fault_log import FaultFigures, FaultLog, read_fault_log
from gateway.bench.scenario.loading import load_scenario
from gateway.bench.scenario.plan import Plan

FAULTS = """\
  - {at_s: 3, until_s: 5, name: slow, fault: {fault: latency, device: pv}}
  - {at_s: 3, until_s: 5, name: shut, fault: {fault: refuse, device: battery_a}}
  - {at_s: 6, until_s: 7, name: late, fault: {fault: latency, device: charger_1}}
checks:
"""


def status(**acted: int) -> dict[str, Any]:
    faults = {
        "pv": [{"id": 1, "fault": "latency", "acted": acted["pv"], "active": True}],
        "battery_a": [{"id": 1, "fault": "refuse", "acted": 0, "active": True}],
    }
    return {
        "devices": {name: {"connected": acted.get("connected", 0), "faults": those} for name, those in faults.items()}
    }


def test_the_most_that_was_heard_of_a_fault_counts(scenario_file: Callable[..., Path], tmp_path: Path) -> None:
    plan = Plan(load_scenario(scenario_file(("checks:\n", FAULTS))))
    log = FaultLog()
    for happening in plan.happenings[:2]:
        log.set(happening, {"set": 1})
    log.hear(status(pv=4, connected=1))
    log.hear(status(pv=0, connected=1))
    log.write(tmp_path, plan)
    assert read_fault_log(tmp_path) == (
        FaultFigures("slow", "latency", "pv", 4),
        FaultFigures("shut", "refuse", "battery_a", 0),
        FaultFigures("late", "latency", "charger_1", None),
    ), "of a fault that was never set nothing is known"


def test_a_refusal_has_acted_where_nobody_is_connected(scenario_file: Callable[..., Path], tmp_path: Path) -> None:
    plan = Plan(load_scenario(scenario_file(("checks:\n", FAULTS))))
    log = FaultLog()
    for happening in plan.happenings[:2]:
        log.set(happening, {"set": 1})
    log.hear(status(pv=0, connected=0))
    log.write(tmp_path, plan)
    assert [figures.acted for figures in read_fault_log(tmp_path)] == [0, 1, None]


def test_a_directory_without_faults_and_a_foreign_file_have_none(tmp_path: Path) -> None:
    assert read_fault_log(tmp_path) == ()
    (tmp_path / "faults.json").write_text('[{"event": 1}]')
    assert read_fault_log(tmp_path) == ()
