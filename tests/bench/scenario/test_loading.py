"""A scenario's mistakes are told before anything starts: all of them, each with its line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from config.findings import ConfigError
from config.scenario import Mode
from gateway.bench.scenario.loading import Changes, load_scenario

LIMIT = "  - {at_s: 2, until_s: 8, name: export_20, limit: {quantity: net_export_w, value_pu: 0.2}}\n"
KEPT = "  - {check: limits_kept, limit: 0.5}\n"


def mistakes(path: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_scenario(path)  # type: ignore[arg-type]
    return [f"{finding.line}: {finding.path}: {finding.message}" for finding in caught.value.findings]


def test_a_right_scenario_loads_with_its_overrides(scenario_file: Callable[..., object]) -> None:
    loaded = load_scenario(scenario_file())  # type: ignore[arg-type]
    assert loaded.name == "trial"
    assert loaded.site.simulation.load_steps is None
    assert loaded.site.simulation.load.constant_w == 5000.0
    assert loaded.site.devices["charger_1"].twin.evs == ()
    assert loaded.site.devices["battery_a"].capacity_wh == 100_000.0, "what is not overridden stays"
    assert loaded.faults() == []


def test_site_mode_and_seed_can_be_changed(scenario_file: Callable[..., object]) -> None:
    loaded = load_scenario(scenario_file(), Changes(mode=Mode.REALTIME, seed=7))  # type: ignore[arg-type]
    assert loaded.scenario.mode is Mode.REALTIME
    assert loaded.site.simulation.seed == 7
    with pytest.raises(ConfigError, match="unknown site 'elsewhere'"):
        load_scenario(scenario_file(), Changes(site="elsewhere"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (("mode: lockstep", "mode: lock"), "12: mode: is not one of the allowed values, got 'lock'"),
        (("site: demo", "site: dmo"), "4: site: unknown site 'dmo'; did you mean 'demo'?"),
        (("scenario: trial", "scenario: other"), "1: scenario: 'other' is not the name of its file"),
        ((KEPT, "  - {check: limit_kept, limit: 1}\n"), "18: checks[0].check: unknown check 'limit_kept'"),
        ((KEPT, "  - {check: limits_kept, limit: -1}\n"), "18: checks[0].limit: must be at least 0, got -1"),
        ((KEPT, "  - {check: steady, limit: 1, from_s: 9}\n"), "18: checks[0].from_s: 9 is not before the end"),
        ((KEPT, "  - {check: device_power, device: pw, limit: 1}\n"), "18: checks[0].device: unknown device 'pw'"),
        (
            (KEPT, "  - {check: state_of_charge, device: pv}\n"),
            "18: checks[0].device: 'pv' is a inverter, not a battery",
        ),
        ((KEPT, "  - {check: regulation_precision, limit: 0.9}\n"), "18: checks[0].check: has nothing to judge"),
        ((KEPT, "  - {check: limit_reached, limit: 1, orders: [exp]}\n"), "18: checks[0].orders: 'exp' is no event"),
        (
            (LIMIT, "  - {at_s: 0.2, name: early, limit: {quantity: net_export_w, value_pu: 0.2}}\n"),
            "16: events[1].at_s: 0.2 is before the event above it, 0.5 (line 15)",
        ),
        ((LIMIT, LIMIT.replace("until_s: 8", "until_s: 2")), "16: events[1].until_s: 2 is not after at_s, 2"),
        ((LIMIT, LIMIT.replace("until_s: 8", "until_s: 10")), "16: events[1].until_s: 10 is after the end"),
        ((LIMIT, LIMIT.replace("export_20", "sell")), "16: events[1].name: 'sell' is there twice (line 15)"),
        ((LIMIT, LIMIT.replace("name: export_20", "load_step_w: 5")), "16: events[1].limit: has load_step_w and limit"),
        ((LIMIT, LIMIT.replace("value_pu: 0.2", "value_pu: 0.2, value: 3")), "16: events[1].limit.value: has value_pu"),
        (
            (LIMIT, LIMIT + "  - {at_s: 3, plug_in: {device: battery_a}}\n"),
            "17: events[2].plug_in.device: 'battery_a' is a battery, not a charger",
        ),
        (
            (LIMIT, LIMIT + "  - {at_s: 3, fault: {fault: black_whole, device: pv}}\n"),
            "17: events[2].fault: unknown fault 'black_whole'; did you mean 'black_hole'?",
        ),
        (
            (LIMIT, LIMIT + "  - {at_s: 3, fault: {fault: black_hole, device: batery_a}}\n"),
            "17: events[2].fault: unknown device 'batery_a'; did you mean 'battery_a'?",
        ),
        ((LIMIT, LIMIT + "  - {at_s: 3, until_s: 5, parent: silent}\n"), "17: events[2].until_s: a silence of 2 s"),
        ((LIMIT, LIMIT + "  - {at_s: 3, parent: silent}\n"), "17: events[2].until_s: is required with parent"),
        ((LIMIT, LIMIT + "  - {at_s: 3, until_s: 9, parent: silent}\n"), "17: events[2].until_s: the silence lasts"),
        (("constant_w: 5000", "constant: 5"), "6: overrides.simulation.load.constant: unknown key 'constant'"),
        (("charger_1: {twin: {evs: []}}", "charger_1: {rating_w: -1}"), "8: overrides.devices.charger_1.rating_w"),
        (("  devices:\n", "  parents: []\n  devices:\n"), "4: site: has no parent with `dispatch: true`"),
    ],
)
def test_one_mistake_is_one_line(scenario_file: Callable[..., object], edit: tuple[str, str], expected: str) -> None:
    found = mistakes(scenario_file(edit))
    assert len(found) == 1, found
    assert found[0].startswith(expected)


def test_all_mistakes_are_told_at_once(scenario_file: Callable[..., object]) -> None:
    path = scenario_file(
        (LIMIT, LIMIT + "  - {at_s: 1, fault: {fault: black_whole, device: pv}}\n"),
        (KEPT, "  - {check: limits, limit: 1}\n"),
        ("title: A trial\n", ""),
    )
    found = mistakes(path)
    assert [line.partition(":")[0] for line in found] == ["1", "16", "16", "18"], found


def test_orders_in_a_silence_are_refused(scenario_file: Callable[..., object]) -> None:
    silence = "  - {at_s: 1, until_s: 7, parent: silent}\n"
    (found,) = mistakes(scenario_file((LIMIT, silence + LIMIT)))
    assert found == "17: events[2].at_s: falls into a silence of the parent (line 16)"


def test_a_matrix_gives_each_fault_one_device_of_each_kind_it_applies_to(scenario_file: Callable[..., object]) -> None:
    matrix = """\
matrix:
  faults: [black_hole, exception, latency]
  devices: [grid_meter, charger_1, charger_2, battery_b]
  from_s: 1
  lasts_s: 0.5
  apart_s: 0.25
  parameters: {latency: {delay_s: 0.2}}
checks:
"""
    realtime = ("mode: lockstep", "mode: realtime")
    loaded = load_scenario(scenario_file(realtime, ("checks:\n", matrix)))  # type: ignore[arg-type]
    struck = [(event.at_s, event.fault.fault, event.fault.device) for event in loaded.events if event.fault is not None]
    assert struck == [
        (1.0, "black_hole", "grid_meter"),
        (1.75, "black_hole", "charger_1"),
        (2.5, "black_hole", "battery_b"),
        (3.25, "exception", "grid_meter"),
        (4.0, "exception", "charger_2"),
        (4.75, "latency", "grid_meter"),
        (5.5, "latency", "charger_1"),
        (6.25, "latency", "battery_b"),
    ]
    assert loaded.faults()[:4] == [
        ("black_hole", "meter"),
        ("black_hole", "charger"),
        ("black_hole", "battery"),
        ("exception", "meter"),
    ]
    (found,) = mistakes(scenario_file(realtime, ("checks:\n", matrix.replace("lasts_s: 0.5", "lasts_s: 5"))))
    assert "8 faults take" in found
