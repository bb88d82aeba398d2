"""The slope of the gateway's memory, and that there is none of a short run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.bench.run_files import MEMORY_FILE
from gateway.bench.scenario.memory import LEAST_SLOPE_S, memory_slope


def watched(out: Path, seconds: float) -> None:
    rows = [f"{at_s:.3f},{80.0 + at_s / 360.0:.3f}" for at_s in range(0, int(seconds) + 1, 5)]
    (out / MEMORY_FILE).write_text("\n".join(["monotonic_s,resident_mb", *rows]) + "\n")


def test_the_slope_is_in_megabytes_an_hour(tmp_path: Path) -> None:
    watched(tmp_path, 2.0 * LEAST_SLOPE_S)
    assert memory_slope(tmp_path) == pytest.approx(10.0, abs=0.05)


def test_a_short_run_and_one_without_a_record_have_none(tmp_path: Path) -> None:
    assert memory_slope(tmp_path) is None
    watched(tmp_path, LEAST_SLOPE_S - 5.0)
    assert memory_slope(tmp_path) is None
