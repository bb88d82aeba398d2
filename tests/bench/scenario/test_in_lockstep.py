"""Scenarios on virtual time: those that are short pass here, and fail without the function that they are about."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from config.scenario import Function, Mode
from gateway.bench.scenario.loading import Changes, load_scenario, shipped_scenarios
from gateway.bench.scenario.plan import Plan
from gateway.bench.scenario.reporting import ScenarioReport, verdict_of, write_scenario_report
from gateway.bench.scenario.running import RunOptions, run_scenario

SHORT_S = 100.0
"""What is longer is run by `make soak`, which sets SOAK."""

SOAK = "LAMINA_SOAK"
REAL_DEVICES_PROTOCOLS = ("faults_opcua", "faults_mqtt", "faults_parent_wire", "faults_short")
"""Faults between processes, which lockstep does not have."""


def run(path: Path, out: Path, *, sabotage: bool = False, seed: int | None = None) -> ScenarioReport:
    loaded = load_scenario(path, Changes(mode=Mode.LOCKSTEP, seed=seed))
    run_scenario(loaded, out, RunOptions(sabotage=sabotage))
    return write_scenario_report(Plan(loaded), out, sabotaged=sabotage)


PAIRWISE = ("faults_link", "faults_modbus", "faults_values")
"""Every fault with every kind of device at least once: always run whole."""


def shipped(*always: str) -> list[object]:
    found: list[object] = []
    for name, path in shipped_scenarios().items():
        if name in REAL_DEVICES_PROTOCOLS:
            continue
        is_long = load_scenario(path).scenario.duration_s > SHORT_S and SOAK not in os.environ and name not in always
        marks = [pytest.mark.skip(reason="make soak runs it")] if is_long else []
        found.append(
            pytest.param(path, id=name, marks=[*marks, pytest.mark.timeout(3600 if SOAK in os.environ else 180)])
        )
    return found


@pytest.mark.parametrize("path", shipped(*PAIRWISE))
def test_a_shipped_scenario_passes(path: Path, tmp_path: Path) -> None:
    report = run(path, tmp_path)
    assert report.passed, report.summary()["checks"]


@pytest.mark.parametrize("path", shipped())
def test_a_shipped_scenario_fails_without_the_function_under_test(path: Path, tmp_path: Path) -> None:
    report = run(path, tmp_path, sabotage=True)
    assert not report.passed
    assert verdict_of(report) == "failed, as it must", report.summary()["checks"]


def test_the_same_seed_gives_the_same_report_byte_for_byte_and_another_seed_another(
    scenario_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = scenario_file(("load_steps: null", "load_steps: {mean_interval_s: 2, size_w: 4000}"))
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        run(path, tmp_path / name, seed=seed)
    one, two, other = ((tmp_path / name / "physics.csv").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other
    assert (tmp_path / "one" / "report.json").read_bytes() == (tmp_path / "two" / "report.json").read_bytes()


def test_what_a_report_holds(scenario_file: Callable[..., Path], tmp_path: Path) -> None:
    report = run(scenario_file(), tmp_path)
    assert report.passed
    said = json.loads((tmp_path / "report.json").read_text())
    assert said["name"] == "trial"
    assert said["mode"] == "lockstep"
    assert said["faults"] == []
    assert [check["name"] for check in said["checks"]] == [
        "whole_run",
        "limits_kept",
        "limit_reached",
        "orders_answered",
    ]
    assert all(check.keys() == {"name", "limit", "measured", "passed"} for check in said["checks"])
    assert "process" not in said
    assert all("received_to_written_ms" not in order for order in said["orders"])
    perf = json.loads((tmp_path / "report.perf.json").read_text())
    assert perf.keys() >= {"cycle_ms", "jitter_ms", "process", "received_to_written_ms"}
    nothing = {"p50": None, "p99": None, "max": None}
    assert perf["cycle_ms"] == perf["jitter_ms"] == nothing, "on virtual time a cycle takes none"
    assert perf["missed_cycles"] is None
    assert set(perf["received_to_written_ms"].values()) == {None}
    assert perf["memory_mb_per_h"] is None
    page = (tmp_path / "report.html").read_text()
    assert "Missed cycles" not in page
    assert "nothing is random" in page
    assert "trial: A trial" in page
    assert "a document of this test" in page


def test_everything_that_can_happen_happens(scenario_file: Callable[..., Path], tmp_path: Path) -> None:
    events = """\
  - {at_s: 2.5, until_s: 4, load_step_w: 3000}
  - {at_s: 2.5, until_s: 4, irradiance_pu: 0.2}
  - {at_s: 3, until_s: 5, grid: {voltage_v: 240, frequency_hz: 50.2}}
  - {at_s: 3, until_s: 6, plug_in: {device: charger_2, needed_wh: 5000}}
  - {at_s: 3.5, until_s: 4.5, name: mute, fault: {fault: no_answer, device: battery_a}}
  - {at_s: 3.5, until_s: 4.5, name: idle, fault: {fault: refuse, device: pv}}
  - {at_s: 6.5, gateway: restart}
checks:
  - {check: device_power, device: charger_2, limit: 0, from_s: 6.5, most_w: 0}
  - {check: net_power, name: load_is_seen, limit: 0.05, from_s: 2, until_s: 6, least_pu: -0.2, most_pu: -0.15}
  - {check: limits_kept, name: none_yet, limit: 1, until_s: 1.5}
"""
    path = scenario_file(("checks:\n", events))
    report = run(path, tmp_path)
    journal = [json.loads(line) for line in (tmp_path / "gateway.jsonl").read_text().splitlines()]
    assert sum(entry["event"] == "start" for entry in journal) == 2
    checks = {check.name: check for check in report.checks}
    assert checks["device_power"].passed, "nothing is charged after the car has left"

    said = report.summary()
    assert said["faults"] == [["no_answer", "battery"]], "nobody asked for a connection that could be refused"
    (acted, none_yet) = (each for each in said["checks"] if each["name"] in ("faults_acted", "none_yet"))
    assert acted == {
        "name": "faults_acted",
        "limit": 0.0,
        "measured": 1.0,
        "passed": False,
        "words": "never acted: refuse at pv (idle)",
    }
    assert none_yet["measured"] is None
    assert none_yet["words"] == "no limit took force in the time that is judged"

    events = {event["name"]: event for event in json.loads((tmp_path / "report.json").read_text())["events"]}
    assert (events["mute"]["what"], events["mute"]["at"], events["mute"]["by"]) == (
        "no_answer",
        "battery_a",
        "the bench",
    )
    assert events["mute"]["acted"] > 0
    assert events["idle"]["acted"] == 0
    assert {event["at"] for event in events.values()} == {
        "battery_a",
        "pv",
        "load",
        "all PV",
        "grid",
        "charger_2",
        "gateway",
    }
    page = (tmp_path / "report.html").read_text()
    assert "Faults and events" in page
    assert "never acted" in page


@pytest.mark.parametrize("function", [Function.CONTROL, Function.STALENESS, Function.FEEDBACK])
def test_every_function_can_be_taken_out(
    function: Function, scenario_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = scenario_file(("sabotage: limits", f"sabotage: {function}"))
    report = run(path, tmp_path, sabotage=True)
    assert report.sabotaged
    assert report.passed == (function is not Function.CONTROL)


def test_a_fault_that_lockstep_has_no_wire_for_is_refused(scenario_file: Callable[..., Path]) -> None:
    fault = "checks:\n"
    path = scenario_file((fault, "  - {at_s: 3, fault: {fault: black_hole, device: battery_b}}\nchecks:\n"))
    with pytest.raises(Exception, match="lockstep"):
        load_scenario(path)
