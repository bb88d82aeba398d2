"""The scenarios that come with Lamina: every one is right, says where it is from, and what it takes out of control."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.bench.scenario.loading import LoadedScenario, load_scenario, shipped_scenarios
from gateway.bench.scenario.plan import Plan

SHIPPED = shipped_scenarios()
WANTED = ("limit_steps", "excursion", "step_response", "comms_loss", "heartbeat_loss", "dispatch", "regulation")
WANTED += ("faults_link", "faults_modbus", "faults_values", "faults_parent", "cloud_day", "car_park", "soak")


@pytest.fixture(params=SHIPPED.values(), ids=SHIPPED.keys(), scope="module")
def loaded(request: pytest.FixtureRequest) -> LoadedScenario:
    path: Path = request.param
    return load_scenario(path)


def test_a_shipped_scenario_loads_and_its_script_can_be_played(loaded: LoadedScenario) -> None:
    script = Plan(loaded).script
    assert script.phases[0].start == 0.0
    assert loaded.scenario.title
    assert len(loaded.scenario.source) > 20


def test_a_scenario_for_a_run_beside_others_is_short(loaded: LoadedScenario) -> None:
    if loaded.name.endswith("_short"):
        assert loaded.scenario.duration_s <= 60.0
        assert not loaded.scenario.soak


@pytest.mark.parametrize("stem", WANTED)
def test_there_is_a_scenario_for(stem: str) -> None:
    assert any(name.startswith(stem) for name in SHIPPED)
