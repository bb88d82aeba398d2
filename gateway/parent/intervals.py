"""An interval to come as it is offered: numbers of the whole layer on the published grid, and nothing else."""

from __future__ import annotations

from typing import Final, NamedTuple

POWER_GRID_PU: Final = 0.01
"""Powers in an offer lie on a grid of this part of the connection's rating."""


class PlannedInterval(NamedTuple):
    """One interval; watts in load convention, capacities and energies magnitudes. Times are UTC seconds.

    `points` are price per kWh and net power. `error_w`: by how much the curve may miss the layer's own, where it may be
    one step of price beside it. The forecast is p10, p50 and p90 of net power without a dispatch.
    """

    begin_utc_s: float
    length_s: float
    points: tuple[tuple[float, float], ...]
    lower_w: float
    upper_w: float
    error_w: float
    energy_up_wh: float
    energy_down_wh: float
    regulation_up_w: float
    regulation_down_w: float
    regulation_price_per_kwh: float | None
    forecast_w: tuple[float, float, float]
    price_step_per_kwh: float
