"""A run's directory: one run at a time, and nothing of an earlier one is read as its own."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from gateway.bench.run_directory import RunDirectoryHeldError, begin_run, held_run_directory, prepare
from gateway.bench.run_files import NO_END, read_run

PHASE = '{{"event": "phase", "monotonic_s": {at}, "name": "start"}}\n'


def test_a_second_run_is_refused_until_the_first_one_has_ended(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with held_run_directory(out):
        with pytest.raises(RunDirectoryHeldError, match="another run"), held_run_directory(out):
            pass
        assert list(out.iterdir()) == [], "the lock leaves no file behind"
    with held_run_directory(out):
        pass


def test_a_gateway_that_outlives_its_bench_holds_the_directory(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        with pytest.raises(RunDirectoryHeldError, match="process 4711"), held_run_directory(tmp_path):
            pass
    with held_run_directory(tmp_path):
        pass


def test_rows_from_before_the_begin_of_a_run_are_another_ones(tmp_path: Path) -> None:
    run = begin_run(tmp_path, 100.0)
    (tmp_path / "physics.csv").write_text("monotonic_s,net_w\n99.9,-1\n100.1,5\n100.2,6\n")
    (tmp_path / "dso.jsonl").write_text(PHASE.format(at=50.0) + PHASE.format(at=101.0))
    (tmp_path / "gateway.jsonl").write_text(
        '{"event": "start", "monotonic_s": 99}\n{"event": "ready", "monotonic_s": 100.5}\n'
    )
    (tmp_path / "end.json").write_text(json.dumps({"run": run, "problems": []}))
    found = read_run(tmp_path)
    assert list(found.physics.times) == [100.1, 100.2]
    assert [event.at_s for event in found.dso or ()] == [101.0]
    assert [event.name for event in found.gateway] == ["ready"]
    assert found.problems == ()


def test_the_end_of_another_run_is_no_end(tmp_path: Path) -> None:
    first = begin_run(tmp_path, 1.0)
    (tmp_path / "end.json").write_text(json.dumps({"run": first, "problems": []}))
    assert begin_run(tmp_path, 2.0) != first
    assert read_run(tmp_path).problems == (NO_END,)
    prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []
