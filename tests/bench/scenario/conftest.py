"""Scenarios written by a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SCENARIO = """\
scenario: trial
title: A trial
source: a document of this test, version 1
site: demo
overrides:
  simulation: {acceleration: 1, load: {series: null, constant_w: 5000}, load_steps: null, clouds: null}
  devices:
    charger_1: {twin: {evs: []}}
    charger_2: {twin: {evs: []}}
    charger_3: {twin: {evs: []}}
duration_s: 9
mode: lockstep
sabotage: limits
events:
  - {at_s: 0.5, name: sell, dispatch: {net_power_pu: -0.5}}
  - {at_s: 2, until_s: 8, name: export_20, limit: {quantity: net_export_w, value_pu: 0.2}}
checks:
  - {check: limits_kept, limit: 0.5}
  - {check: limit_reached, limit: 1}
  - {check: orders_answered}
"""

Edit = tuple[str, str]


@pytest.fixture
def scenario_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes the scenario with edits; an edit that finds nothing, or more than one place, is a wrong test."""

    def write(*edits: Edit, name: str = "trial") -> Path:
        text = SCENARIO
        for old, new in edits:
            assert text.count(old) == 1, f"{text.count(old)} times: {old}"
            text = text.replace(old, new)
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
