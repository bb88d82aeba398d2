"""What the demo's exit code rests on: the verdict of its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from config.site import Site
from gateway.bench.reports.page import verdict_words
from gateway.bench.reports.report import write_report


def test_limits_that_were_kept(simulate: Callable[..., Path], demo_site: Site) -> None:
    words = verdict_words(write_report(simulate(duration_s=60.0), demo_site))
    assert words.kept
    assert words.said in ("Every limit was kept.", "Limits kept but for passing excursions.")


def test_a_limit_that_was_broken(simulate: Callable[..., Path], demo_site: Site) -> None:
    words = verdict_words(write_report(simulate(duration_s=60.0, control_delay_s=6.0), demo_site))
    assert not words.kept
    assert words.said == "A limit was broken."


def test_a_run_that_nobody_recorded(tmp_path: Path, demo_site: Site) -> None:
    assert not verdict_words(write_report(tmp_path, demo_site)).kept
