"""What a step says: each way in which a device, its profile or the meter can be wrong is named."""

from __future__ import annotations

import pytest

from gateway.commission.judging import meter_findings, own_findings, phase_findings
from gateway.commission.response import Seen


def seen(change_w: float, noise_w: float = 10.0) -> Seen:
    return Seen(change_w, noise_w, 0.1, 0.2)


@pytest.mark.parametrize(
    ("own_w", "meter_w", "words"),
    [
        (5_000, 5_020, ""),
        (0, 10, "does not respond"),
        (0, 5_000, "is power_w the right point"),
        (-5_000, -5_000, "moves the other way"),
        (3_500, 3_500, "delivers 70 %"),
        (6_000, 6_000, "delivers 120 %"),
    ],
)
def test_the_device_s_own_power(own_w: float, meter_w: float, words: str) -> None:
    found = list(own_findings(5_000.0, seen(own_w), seen(meter_w)))
    assert len(found) == bool(words)
    assert words in "".join(found)


@pytest.mark.parametrize(
    ("meter_w", "words"),
    [
        (5_100, ""),
        (-5_000, "shows the opposite sign"),
        (50, "does not see the step"),
        (50_000, "a transformer ratio"),
        (1_500, "a transformer ratio"),
    ],
)
def test_the_meter_s_view(meter_w: float, words: str) -> None:
    found = list(meter_findings("grid", 5_000.0, seen(5_000), seen(meter_w)))
    assert len(found) == bool(words)
    assert words in "".join(found)


def test_a_meter_is_not_judged_by_a_step_that_was_not_made() -> None:
    assert list(meter_findings("grid", 5_000.0, seen(0), seen(0))) == []


@pytest.mark.parametrize(
    ("phases", "changes_w", "words"),
    [
        ((1, 2, 3), {1: 2_000, 2: 2_000, 3: 2_000}, ""),
        ((2,), {1: 0, 2: 6_000, 3: 20}, ""),
        ((1,), {1: 0, 2: 6_000, 3: 20}, "seen on phases 2; the site file says 1"),
        ((1, 2, 3), {1: 6_000, 2: 0, 3: 0}, "seen on phases 1; the site file says 1, 2, 3"),
        ((1,), {1: 6_000}, ""),
    ],
)
def test_the_phases(phases: tuple[int, ...], changes_w: dict[int, float], words: str) -> None:
    found = list(phase_findings(phases, changes_w, seen(6_000)))
    assert len(found) == bool(words)
    assert words in "".join(found)
