"""Volt-watt and frequency-watt of the site, as bounds on net active power: IEEE Std 1547-2018, 5.4.2 and 6.5.2.7.

Each follows its measurement with the open-loop response time of its curve. Without a good voltage or frequency it stays
where it was: what is not measured relaxes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import copysign, exp
from typing import Final

from config.grid_functions import FrequencyDroop, VoltWatt
from config.vocabulary import FREQUENCY_HZ, VOLTAGE_V
from gateway.control.envelope import SupportBounds
from gateway.control.model import SiteModel
from gateway.control.trajectory import LN_10
from gateway.image import Image

GRID_STALE_S: Final = 5.0
"""A voltage or frequency older than this is not known."""

VOLTS_PLAUSIBLE_PU: Final = (0.3, 1.7)
FREQUENCY_PLAUSIBLE_PU: Final = (0.9, 1.1)
"""What lies outside is no measurement of a grid that is there."""

NOTHING_PU: Final = 1e-4
"""Of the rating: less than this asks for nothing."""


@dataclass(slots=True)
class GridSupportState:
    """What is remembered from cycle to cycle: the most export by voltage, and by how much less the devices generate for
    the frequency (negative: more), per unit of the rating; and what they had when the frequency left its deadband."""

    export_pu: float = 1.0
    less_pu: float = 0.0
    before_w: float | None = None

    def bounds(
        self, model: SiteModel, image: Image, rest_w: float, devices_w: float | None, dt_s: float
    ) -> SupportBounds:
        """The bounds of this cycle; `rest_w` is the uncontrolled power, `devices_w` that of all the others."""
        settings = model.grid_support
        if settings is None:
            return SupportBounds()
        lower: tuple[float, str] | None = None
        upper: tuple[float, str] | None = None
        if settings.volt_watt is not None:
            self._follow_voltage(settings.volt_watt, model, image, dt_s)
            if self.export_pu < 1.0 - NOTHING_PU:
                lower = -self.export_pu * model.rating_w, "volt-watt"
        if settings.frequency_watt is not None:
            self._follow_frequency(settings.frequency_watt, model, image, dt_s)
            if abs(self.less_pu) <= NOTHING_PU:
                self.before_w = None
            elif self.before_w is None:
                self.before_w = devices_w
            if self.before_w is not None:
                bound_w = rest_w + self.before_w + self.less_pu * model.rating_w
                if self.less_pu > 0.0 and (lower is None or bound_w > lower[0]):
                    lower = bound_w, "frequency-watt"
                elif self.less_pu < 0.0:
                    upper = bound_w, "frequency-watt"
        return SupportBounds(*(lower or (None, "")), *(upper or (None, "")))

    def _follow_voltage(self, curve: VoltWatt, model: SiteModel, image: Image, dt_s: float) -> None:
        voltage_pu = _measured_pu(model, image, VOLTAGE_V, model.nominal_voltage_v, VOLTS_PLAUSIBLE_PU)
        if voltage_pu is not None:
            self.export_pu = _towards(self.export_pu, on_curve(curve.curve, voltage_pu), curve.response_s, dt_s)

    def _follow_frequency(self, droop: FrequencyDroop, model: SiteModel, image: Image, dt_s: float) -> None:
        assert model.grid_support is not None
        nominal_hz = model.grid_support.nominal_frequency_hz
        frequency_pu = _measured_pu(model, image, FREQUENCY_HZ, nominal_hz, FREQUENCY_PLAUSIBLE_PU)
        if frequency_pu is not None:
            asked_pu = droop_pu(droop, (frequency_pu - 1.0) * nominal_hz, nominal_hz)
            self.less_pu = _towards(self.less_pu, asked_pu, droop.response_s, dt_s)


def on_curve(points: Sequence[tuple[float, float]], at: float) -> float:
    """The value of a curve of straight lines between points of ascending abscissa, constant beyond its ends."""
    before = points[0]
    if at <= before[0]:
        return before[1]
    for point in points[1:]:
        if at < point[0]:
            return before[1] + (at - before[0]) / (point[0] - before[0]) * (point[1] - before[1])
        before = point
    return before[1]


def droop_pu(droop: FrequencyDroop, deviation_hz: float, nominal_hz: float) -> float:
    """How much less is to be generated at a deviation from the nominal frequency, per unit; negative: more.

    IEEE Std 1547-2018, Table 23: beyond the deadband, in parts of the nominal frequency, by the droop; at most all.
    """
    beyond_hz = abs(deviation_hz) - droop.deadband_hz
    if beyond_hz <= 0.0:
        return 0.0
    return copysign(min(beyond_hz / (nominal_hz * droop.droop_pu), 1.0), deviation_hz)


def _towards(value: float, target: float, response_s: float, dt_s: float) -> float:
    moved = target + (value - target) * exp(-LN_10 * dt_s / response_s)
    return target if abs(moved - target) < NOTHING_PU / 10.0 else moved


def _measured_pu(
    model: SiteModel, image: Image, point: str, nominal: float, plausible_pu: tuple[float, float]
) -> float | None:
    meter = image.devices.get(model.meter)
    value = meter.number(point, image.now_s, GRID_STALE_S) if meter is not None else None
    if value is None or not plausible_pu[0] * nominal <= value <= plausible_pu[1] * nominal:
        return None
    return value / nominal
