"""Whether what a device says can be true: each value by its unit, and the values against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from config.profile import Profile
from config.profile_checks import REQUIRED_POINTS
from config.vocabulary import CURRENT_A_BY_PHASE, FREQUENCY_HZ, POWER_W, SOC, VOLTAGE_V
from drivers.inspection import PointReading

LARGEST_W: Final = 10e6
_VOLTAGES_V: Final = (80.0, 300.0)
_FREQUENCIES_HZ: Final = (45.0, 65.0)
_VOLTAGES_BY_PHASE: Final = ("voltage_l1_v", "voltage_l2_v", "voltage_l3_v")
_POWERS_BY_PHASE: Final = ("power_l1_w", "power_l2_w", "power_l3_w")
_SLACK_VA: Final = 100.0
"""Below it, values read one after the other, and rounded, need not agree."""


class Verdict(NamedTuple):
    """`state`: plausible, doubtful, bad or missing; `reason` says why it isn't plausible."""

    state: str
    reason: str = ""


def verdicts(profile: Profile, readings: Mapping[str, PointReading], missing: tuple[str, ...]) -> dict[str, Verdict]:
    """A verdict for each point that was read."""
    made = {}
    for name, reading in readings.items():
        if not reading.good:
            made[name] = Verdict("missing" if name in missing else "bad", reading.reason)
            continue
        value = reading.sample.value
        reason = _alone(name, profile.points[name].unit, value) if isinstance(value, float | int) else ""
        made[name] = Verdict("doubtful", reason) if reason else Verdict("plausible", reading.reason)
    return made


def contradictions(readings: Mapping[str, PointReading]) -> list[str]:
    """Where values contradict each other: power against voltage and current, and against the phases' powers."""
    values = {
        name: float(reading.sample.value)
        for name, reading in readings.items()
        if reading.good and isinstance(reading.sample.value, float | int)
    }
    return [*_power_against_current(values), *_power_against_phases(values)]


def required_points(profile: Profile, verdict_of: Mapping[str, Verdict]) -> list[str]:
    """The points that control can't do without and that the device did not give."""
    required = REQUIRED_POINTS[profile.kind]
    return [name for name in required if name in profile.points and verdict_of[name].state in ("bad", "missing")]


def _alone(name: str, unit: str, value: float) -> str:
    low, high = -LARGEST_W, LARGEST_W
    if name == SOC or name.endswith("_soc"):
        low, high = 0.0, 1.0
    elif name == FREQUENCY_HZ:
        low, high = _FREQUENCIES_HZ
    elif name == VOLTAGE_V or name in _VOLTAGES_BY_PHASE:
        low, high = _VOLTAGES_V
    elif unit == "A":
        low, high = -10_000.0, 10_000.0
    elif unit == "Wh":
        low, high = 0.0, 1e13
    elif unit not in ("W", "var", "VA"):
        return ""
    if low <= value <= high:
        return ""
    return f"{value:g} {unit} is outside {low:g} to {high:g}: scale, word order or address?"


def _power_against_current(values: Mapping[str, float]) -> Iterator[str]:
    currents = [abs(values[name]) for name in CURRENT_A_BY_PHASE if name in values]
    volts = [values[name] for name in _VOLTAGES_BY_PHASE if name in values] or [values.get(VOLTAGE_V, 0.0)]
    mean_v = sum(volts) / len(volts)
    if POWER_W not in values or not currents or not _VOLTAGES_V[0] <= mean_v <= _VOLTAGES_V[1]:
        return
    power_w, apparent_va = abs(values[POWER_W]), mean_v * sum(currents)
    if power_w > 1.15 * apparent_va + _SLACK_VA:
        yield f"power_w is {power_w:.0f} W, and voltage x current only {apparent_va:.0f} VA: a scale is wrong"
    elif apparent_va > 10.0 * power_w + 10.0 * _SLACK_VA:
        yield f"power_w is {power_w:.0f} W, and voltage x current {apparent_va:.0f} VA: a scale, or a poor power factor"


def _power_against_phases(values: Mapping[str, float]) -> Iterator[str]:
    phases = [values[name] for name in _POWERS_BY_PHASE if name in values]
    if POWER_W not in values or len(phases) != len(_POWERS_BY_PHASE):
        return
    total_w = sum(phases)
    if abs(total_w - values[POWER_W]) > 0.1 * max(abs(total_w), abs(values[POWER_W])) + _SLACK_VA:
        yield f"power_w is {values[POWER_W]:.0f} W, and the phases add up to {total_w:.0f} W"
