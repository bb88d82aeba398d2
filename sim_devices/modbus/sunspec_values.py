"""What the SunSpec twins have in common: which values a setting takes, voltages between phases, values of a phase."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from sim_devices.modbus import sunspec_models as ic
from sim_devices.modbus.registers import Getter
from sim_devices.modbus.sunspec_layout import Layout, Values
from sim_devices.models import ByPhase, DeviceModel

HEADROOM: Final = 1.3
"""Measured values may exceed the rating by this factor and still be said."""

PHASES: Final = (0, 1, 2)
PERCENT_SF: Final = -2
VOLTAGE_SF: Final = -1
LONGEST_REVERSION_S: Final = 86_400


def one_of(*values: float) -> Callable[[float], bool]:
    """Allows these values alone."""
    return frozenset(values).__contains__


def between(low: float, high: float) -> Callable[[float], bool]:
    """Allows `low` to `high`, both included."""
    return lambda value: low <= value <= high


def common(model_name: str, serial: str) -> tuple[Layout, Values]:
    """Model 1 of a twin."""
    return ic.COMMON, {"Mn": "Lamina", "Md": model_name, "Vr": "1", "SN": serial, "DA": None}


def mean(values: ByPhase) -> float:
    """The mean of the three phases."""
    return (values[0] + values[1] + values[2]) / 3


def line_voltage_v(voltage_v_by_phase: ByPhase, first: int) -> float:
    """Phase-to-phase voltage between phase `first` (from 0) and the next, whose angles are 120 degrees apart."""
    one, two = voltage_v_by_phase[first], voltage_v_by_phase[(first + 1) % 3]
    return math.sqrt(one * one + two * two + one * two)


def mean_line_voltage_v(voltage_v_by_phase: ByPhase) -> float:
    """The mean of the three phase-to-phase voltages."""
    return sum(line_voltage_v(voltage_v_by_phase, phase) for phase in PHASES) / 3


def site_phase(model: DeviceModel, terminal: int) -> int | None:
    """The site's phase (from 0) that a device's own terminal (from 0) is connected to; None for a terminal not in use.

    A device of one phase calls it its first, whichever of the site's it is on.
    """
    return model.phases[terminal] - 1 if terminal < len(model.phases) else None


def _at(model: DeviceModel, terminal: int, get: Callable[[int], float]) -> Getter | None:
    phase = site_phase(model, terminal)
    return None if phase is None else lambda: get(phase)


def phase_current_a(model: DeviceModel, terminal: int) -> Getter | None:
    """The size of the current at a terminal (from 0); None for one not in use."""
    return _at(model, terminal, lambda phase: abs(model.current_a_by_phase[phase]))


def phase_injected_a(model: DeviceModel, terminal: int) -> Getter | None:
    """The current that a terminal feeds out, negative when drawn; None for one not in use."""
    return _at(model, terminal, lambda phase: -model.current_a_by_phase[phase])


def phase_generation_w(model: DeviceModel, terminal: int) -> Getter | None:
    """The power that a terminal feeds out, negative when drawn; None for one not in use."""
    return _at(model, terminal, lambda phase: -model.power_w_by_phase[phase])


def phase_voltage_v(model: DeviceModel, terminal: int) -> Getter | None:
    """Phase-to-neutral voltage; None for a terminal not in use."""
    return _at(model, terminal, lambda phase: model.voltage_v_by_phase[phase])


def between_phases_v(model: DeviceModel, phase: int) -> Getter | None:
    """Voltage to the next phase; None unless the device is on all three."""
    return (lambda: line_voltage_v(model.voltage_v_by_phase, phase)) if len(model.phases) == 3 else None
