"""Values that cannot be true are told: by their unit, and against each other."""

from __future__ import annotations

import pytest

from config.loading import load_profile
from config.vocabulary import Quality, Sample
from drivers.inspection import PointReading, bad
from gateway.commission.plausibility import contradictions, required_points, verdicts

METER = load_profile("sunspec_meter")


def readings(**values: float) -> dict[str, PointReading]:
    return {name: PointReading(Sample(float(value), Quality.GOOD, 0.0)) for name, value in values.items()}


@pytest.mark.parametrize(
    ("values", "doubted"),
    [
        ({"voltage_v": 230.1, "frequency_hz": 50.02, "power_w": -4_000}, []),
        ({"voltage_v": 2301.0, "frequency_hz": 5002.0}, ["voltage_v", "frequency_hz"]),
        ({"power_w": 1.3e9}, ["power_w"]),
        ({"energy_import_wh": -5.0}, ["energy_import_wh"]),
    ],
)
def test_a_value_is_judged_by_its_unit(values: dict[str, float], doubted: list[str]) -> None:
    made = verdicts(METER, readings(**values), ())
    assert [name for name, verdict in made.items() if verdict.state == "doubtful"] == doubted


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"power_w": 6_900, "voltage_v": 230, "current_l1_a": 10, "current_l2_a": 10, "current_l3_a": 10}, ""),
        ({"power_w": -6_900, "voltage_v": 230, "current_l1_a": -10, "current_l2_a": -10, "current_l3_a": -10}, ""),
        ({"power_w": 69_000, "voltage_v": 230, "current_l1_a": 10, "current_l2_a": 10, "current_l3_a": 10}, "a scale"),
        ({"power_w": 69, "voltage_v": 230, "current_l1_a": 10, "current_l2_a": 10, "current_l3_a": 10}, "power factor"),
        ({"power_w": 0, "voltage_v": 230, "current_l1_a": 0.4}, ""),
        ({"power_w": 3_000, "power_l1_w": 1_000, "power_l2_w": 1_000, "power_l3_w": 1_000}, ""),
        ({"power_w": 3_000, "power_l1_w": 1_000, "power_l2_w": -1_000, "power_l3_w": 1_000}, "add up to 1000 W"),
    ],
)
def test_values_are_held_against_each_other(values: dict[str, float], words: str) -> None:
    found = contradictions(readings(**values))
    assert len(found) == bool(words)
    assert words in "".join(found)


def test_what_control_needs_and_does_not_get_is_named() -> None:
    made = verdicts(METER, {"power_w": bad(0.0, "exception 2")}, ())
    assert made["power_w"].state == "bad" and made["power_w"].reason == "exception 2"
    assert required_points(METER, made) == ["power_w"]
