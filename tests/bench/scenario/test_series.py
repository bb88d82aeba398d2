"""`gateway scenario run` as its user sees it: refusals before anything starts, sabotage in words, Ctrl-C."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.bench.run_directory import held_run_directory
from gateway.cli.scenario import scenario_app
from tests.system.processes import Started, closed_port, until

ScenarioFile = Callable[..., Path]
LONG = ("duration_s: 9", "duration_s: 80000")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    with Started(tmp_path) as started:
        yield started


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(scenario_app, ["run", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_folder_in_which_another_run_is_at_work_is_refused(scenario_file: ScenarioFile, tmp_path: Path) -> None:
    path = scenario_file()
    with held_run_directory(tmp_path / "out" / "trial"):
        code, out, errors = run(path, "--out", tmp_path / "out")
    assert code == 2
    assert out == ""
    assert errors.count("\n") == 1
    assert "another run writes its records there" in errors


def test_a_broker_that_nobody_serves_is_refused_before_anything_starts(
    scenario_file: ScenarioFile, tmp_path: Path
) -> None:
    path = scenario_file(("mode: lockstep", "mode: realtime"))
    code, _, errors = run(path, "--out", tmp_path / "out", "--broker", f"127.0.0.1:{closed_port()}")
    assert code == 2
    assert errors.startswith("--broker 127.0.0.1:")
    assert not (tmp_path / "out").exists()


def test_a_scenario_named_twice_is_refused(scenario_file: ScenarioFile, tmp_path: Path) -> None:
    path = scenario_file()
    code, _, errors = run(path, path, "--out", tmp_path / "out")
    assert (code, errors) == (2, "named twice: trial; each scenario has one folder in --out\n")


def test_sabotage_is_told_in_words_and_a_seed_that_changes_nothing(scenario_file: ScenarioFile, tmp_path: Path) -> None:
    code, out, _ = run(scenario_file(), "--out", tmp_path / "out", "--sabotage", "--seed", "5")
    assert code == 1
    assert "trial: nothing in it is random; --seed changes nothing" in out
    assert "trial: failed, as it must (lockstep, without limits)" in out
    assert "Failed, as it must." in (tmp_path / "out" / "trial" / "report.html").read_text()

    unnoticed = scenario_file(("sabotage: limits", "sabotage: regulation"))
    code, out, _ = run(unnoticed, "--out", tmp_path / "out", "--sabotage")
    assert "trial: PASSED ALTHOUGH SABOTAGED (lockstep, without regulation)" in out


async def test_ctrl_c_in_lockstep_tells_what_has_ended(started: Started, scenario_file: ScenarioFile) -> None:
    short, long = scenario_file(), scenario_file(LONG, ("scenario: trial", "scenario: long"), name="long")
    command = ("scenario", "gateway", "scenario", "run", str(short), str(long), "--out", "out")
    in_words, as_json = started.run(*command), started.run(*command[:-1], "out_json", "--json")
    for running, out in ((in_words, "out"), (as_json, "out_json")):
        journal = started.folder / out / "long" / "gateway.jsonl"
        await until(lambda journal=journal: journal.exists() and journal.stat().st_size > 0, running.errors, 40.0)
        running.send(signal.SIGINT)
    for running in (in_words, as_json):
        assert await running.ended(within_s=30.0) == 130, running.errors
        assert running.errors == "", "no traceback"
    assert "trial: passed (lockstep)" in in_words.out
    assert "long: interrupted (lockstep)" in in_words.out
    assert "interrupted: 1 of 2 have ended" in in_words.out
    assert [said["name"] for said in json.loads(as_json.out)] == ["trial"]
