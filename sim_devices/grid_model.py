"""The grid behind the connection point: source, impedance, breaker, and what happens to them over time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from config.twin import GridTwin
from sim_devices.device_model import ByPhase

Breaker: TypeAlias = Literal["open", "closed"]
Voltage: TypeAlias = float | Sequence[float]
DEAD: Final[ByPhase] = (0.0, 0.0, 0.0)


class _Ramp(NamedTuple):
    """A value on its way, linear between two instants."""

    begin_s: float
    end_s: float
    begin: float
    end: float

    def at(self, elapsed_s: float) -> float:
        if elapsed_s >= self.end_s:
            return self.end
        return self.begin + (self.end - self.begin) * (elapsed_s - self.begin_s) / (self.end_s - self.begin_s)


class GridModel:
    """An ideal source behind an impedance, per phase, and the breaker between the grid and the site.

    Changes are steps or ramps, from the site file's timeline and from outside. While the breaker is open the site is
    dead: 0 V, 0 Hz; nothing behind it forms a grid of its own.
    """

    def __init__(self, settings: GridTwin) -> None:
        self.source_v_by_phase: ByPhase = (settings.voltage_v,) * 3
        self.nominal_frequency_hz = settings.nominal_frequency_hz or settings.frequency_hz
        self.breaker: Breaker = "closed"
        self._settings = settings
        self._source_hz = settings.frequency_hz
        self._events = deque(settings.events)
        self._voltage_ramps: tuple[_Ramp, ...] | None = None
        self._frequency_ramp: _Ramp | None = None

    @property
    def energized(self) -> bool:
        """Whether the site has a grid."""
        return self.breaker == "closed"

    @property
    def frequency_hz(self) -> float:
        """At the connection point; 0 without a grid."""
        return self._source_hz if self.energized else 0.0

    def change(
        self,
        elapsed_s: float,
        voltage_v: Voltage | None = None,
        frequency_hz: float | None = None,
        ramp_s: float = 0.0,
        breaker: Breaker | None = None,
    ) -> None:
        """Change the source, at once or along a ramp, and the breaker; None: as it is.

        A new change of a value ends its ramp under way. Raises ValueError, changing nothing, unless voltages (one, or
        three) and frequency are above 0 and the ramp's time is not negative.
        """
        if not (math.isfinite(ramp_s) and ramp_s >= 0.0):
            raise ValueError(f"ramp_s: {ramp_s} is not a time")
        volts = None if voltage_v is None else _by_phase(voltage_v)
        if frequency_hz is not None:
            _above_zero("frequency_hz", frequency_hz)
        if breaker not in (None, "open", "closed"):
            raise ValueError(f"breaker: {breaker!r} is neither open nor closed")
        end_s = elapsed_s + ramp_s
        if volts is not None:
            pairs = zip(self.source_v_by_phase, volts, strict=True)
            self._voltage_ramps = tuple(_Ramp(elapsed_s, end_s, now, then) for now, then in pairs)
        if frequency_hz is not None:
            self._frequency_ramp = _Ramp(elapsed_s, end_s, self._source_hz, frequency_hz)
        self.breaker = breaker or self.breaker
        self._follow_ramps(elapsed_s)

    def step(self, elapsed_s: float) -> None:
        """Advance to `elapsed_s` after the start of the simulation."""
        while self._events and self._events[0].at_s <= elapsed_s + 1e-9:
            event = self._events.popleft()
            self.change(event.at_s, event.voltage_v, event.frequency_hz, event.ramp_s, event.breaker)
        if self._voltage_ramps is not None or self._frequency_ramp is not None:
            self._follow_ramps(elapsed_s)

    def _follow_ramps(self, elapsed_s: float) -> None:
        if self._voltage_ramps is not None:
            one, two, three = (ramp.at(elapsed_s) for ramp in self._voltage_ramps)
            self.source_v_by_phase = (one, two, three)
            if elapsed_s >= self._voltage_ramps[0].end_s:
                self._voltage_ramps = None
        if self._frequency_ramp is not None:
            self._source_hz = self._frequency_ramp.at(elapsed_s)
            if elapsed_s >= self._frequency_ramp.end_s:
                self._frequency_ramp = None

    def voltages(self, power_w: ByPhase, reactive_var: ByPhase, before_v: ByPhase) -> ByPhase:
        """Phase voltages at the connection when this is drawn; `before_v` are the previous ones."""
        if not self.energized:
            return DEAD
        settings, source_v = self._settings, self.source_v_by_phase
        return (
            voltage_behind_grid(settings, power_w[0], before_v[0], reactive_var[0], source_v[0]),
            voltage_behind_grid(settings, power_w[1], before_v[1], reactive_var[1], source_v[1]),
            voltage_behind_grid(settings, power_w[2], before_v[2], reactive_var[2], source_v[2]),
        )


def voltage_behind_grid(
    grid: GridTwin, power_w: float, voltage_v: float, reactive_var: float = 0.0, source_v: float | None = None
) -> float:
    """Phase voltage at the connection when this power is drawn; `voltage_v` is the previous one.

    |source|^2 = (V + Ip R + Iq X)^2 + (Ip X - Iq R)^2 with Ip = P / V, Iq = Q / V. Held within half and one and a half
    of the source, beyond which no site works. `source_v`: None for the grid's own.
    """
    source_v = grid.voltage_v if source_v is None else source_v
    active_a = power_w / (voltage_v or source_v)
    across_v, along_v = active_a * grid.reactance_ohm, active_a * grid.resistance_ohm
    if reactive_var:
        reactive_a = reactive_var / (voltage_v or source_v)
        across_v -= reactive_a * grid.resistance_ohm
        along_v += reactive_a * grid.reactance_ohm
    solved_v = math.sqrt(max(source_v**2 - across_v**2, 0.0)) - along_v
    return min(max(solved_v, 0.5 * source_v), 1.5 * source_v)


def _by_phase(voltage_v: Voltage) -> ByPhase:
    each = (voltage_v,) * 3 if isinstance(voltage_v, int | float) else tuple(voltage_v)
    if len(each) != 3:
        raise ValueError(f"voltage_v: one value or three are due, not {len(each)}")
    for value in each:
        _above_zero("voltage_v", value)
    return (float(each[0]), float(each[1]), float(each[2]))


def _above_zero(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name}: {value} is not above 0")
