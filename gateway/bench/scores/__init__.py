"""Figures of merit of the standards: pure functions over sampled power, nothing read and nothing written.

Power is in watts in load convention, times in monotonic seconds. A sample holds until the next one; where samples are
further apart than `gateway.bench.metrics.MAX_GAP_S`, nothing was measured in between.
"""

from gateway.bench.scores.energy import (
    PriceStep,
    TrackingError,
    energy_cost,
    energy_taken_wh,
    tracking_error,
    unserved_wh,
)
from gateway.bench.scores.excursion_stages import ExcursionStages, excursion_stages
from gateway.bench.scores.regulation import RegulationScore, averaged, regulation_score
from gateway.bench.scores.steps import expected_step, overshoot_pu, step_shortfall_pu, swing_w

__all__ = [
    "ExcursionStages",
    "PriceStep",
    "RegulationScore",
    "TrackingError",
    "averaged",
    "energy_cost",
    "energy_taken_wh",
    "excursion_stages",
    "expected_step",
    "overshoot_pu",
    "regulation_score",
    "step_shortfall_pu",
    "swing_w",
    "tracking_error",
    "unserved_wh",
]
