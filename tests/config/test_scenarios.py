"""The scenarios that come with Lamina: every one is right, says where it is from, and what it takes out of control."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.scenario import Function
from config.scenario_page import with_reference
from gateway.bench.scenario.loading import LoadedScenario, load_scenario, shipped_scenarios
from gateway.bench.scenario.plan import Plan
from sim_devices.faults.registry import FAULTS

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


def test_a_shipped_scenario_cites_a_document_that_is_not_ours(loaded: LoadedScenario) -> None:
    source = loaded.scenario.source
    assert not source.startswith("as "), "its own source, not another scenario's"
    assert "docs/" not in source
    assert re.search(r"[0-9]{4}|V[0-9]|[0-9]\.[0-9]|RFC [0-9]+|model [0-9]+", source), "which one: its version or year"


def test_what_is_under_test_in_a_scenario_of_faults_is_the_guard(loaded: LoadedScenario) -> None:
    if loaded.name.startswith("faults_"):
        assert loaded.scenario.sabotage is not Function.LIMITS


def test_no_two_scenarios_have_one_title() -> None:
    titles = [load_scenario(path).scenario.title for path in SHIPPED.values()]
    assert len(set(titles)) == len(titles)


def test_every_fault_that_the_demo_site_has_a_device_for_is_in_a_scenario() -> None:
    struck = {fault for path in SHIPPED.values() for fault, _ in load_scenario(path).faults()}
    assert {name for name, kind in FAULTS.items() if set(kind.applies_to) != {"ocpp"}} - struck == set()


def test_the_folder_of_scenarios_holds_scenarios_alone() -> None:
    assert {path.name for path in next(iter(SHIPPED.values())).parent.iterdir()} == {f"{name}.yaml" for name in SHIPPED}


def test_three_days_are_three_days() -> None:
    assert load_scenario(SHIPPED["soak_72h"]).scenario.duration_s == 72 * 3600


def test_the_reference_of_the_documentation_is_current() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text(encoding="utf-8")
    assert with_reference(text) == text, "renew it: python -m config.scenario_page docs/scenarios.md"


def test_a_scenario_for_a_run_beside_others_is_short(loaded: LoadedScenario) -> None:
    if loaded.name.endswith("_short"):
        assert loaded.scenario.duration_s <= 60.0
        assert not loaded.scenario.soak


@pytest.mark.parametrize("stem", WANTED)
def test_there_is_a_scenario_for(stem: str) -> None:
    assert any(name.startswith(stem) for name in SHIPPED)
