"""`gateway bench feedback`: the feedback over a grid of lags and sample ages, and the wrongly paired control beside it.

Each case is a site of two batteries that follows a dispatch of -20 kW after one of 10 kW, and then meets 10 kW more of
load. The real lag is half, all of, or twice the declared one. Everything is computed; nothing waits.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from config.vocabulary import DeviceKind
from gateway.bench.feedback_plant import FeedbackPlant, Sampling, plant_device, plant_site
from gateway.control.orders_in_force import DispatchInForce, OrdersInForce

RATING_W: Final = 100e3
BEFORE_W: Final = 10e3
TARGET_W: Final = -20e3
LOAD_STEP_W: Final = 10e3
TOLERANCE_W: Final = 0.01 * RATING_W
SWING_W: Final = 0.02 * RATING_W
"""A case that moves by more than this at its end, with everything constant, swings."""

FAST_TR90_S: Final = 0.2
RESPONSES: Final = 3.5
LONGEST_PERIOD_S: Final = 0.5

TR90_S: Final = (0.05, 0.2, 1.0, 5.0, 30.0)
DEAD_TIMES_S: Final = (0.0, 0.5, 2.0, 5.0)
METER_INTERVALS_S: Final = (0.05, 1.0, 10.0)
METER_DELAYS_S: Final = (0.0, 0.4)
DEVICE_INTERVALS_S: Final = (0.05, 10.0)
LAG_SCALES: Final = (0.5, 1.0, 2.0)


class Case(NamedTuple):
    """One point of the grid. `mixed`: half of the power is in a battery of Tr90 0.2 s without dead time."""

    tr90_s: float
    dead_time_s: float
    meter_interval_s: float
    meter_delay_s: float
    device_interval_s: float
    mixed: bool
    lag_scale: float

    @property
    def slowest_s(self) -> float:
        """The time that the devices and the samples need by themselves to come within the tolerance."""
        lag_s = self.lag_scale * (self.dead_time_s + 1.5 * self.tr90_s)
        return lag_s + self.meter_interval_s + self.meter_delay_s + self.device_interval_s


class Outcome(NamedTuple):
    """How one case went: watts beyond the target after the order and beyond the load's own step, seconds to stay within
    1 % of the rating, None where it never did, and the swing that is left at the end."""

    overshoot_w: float
    beyond_load_w: float
    order_settled_s: float | None
    load_settled_s: float | None
    swing_w: float


class Row(NamedTuple):
    """The worst of all cases that share a device's lag.

    `overshoot_pu`: of the rating, where the lag is as declared; `misdeclared_overshoot_pu` where it is half or twice
    that. `over_own_s`: settling beyond what `Case.slowest_s` allows. `wrong_*`: the control that pairs wrongly.
    """

    tr90_s: float
    dead_time_s: float
    cases: int
    overshoot_pu: float
    misdeclared_overshoot_pu: float
    settled_s: float | None
    over_own_s: float | None
    unstable: int
    wrong_overshoot_pu: float
    wrong_unstable: int


def full_grid() -> list[Case]:
    """Every combination."""
    return [
        Case(*values)
        for values in itertools.product(
            TR90_S, DEAD_TIMES_S, METER_INTERVALS_S, METER_DELAYS_S, DEVICE_INTERVALS_S, (False, True), LAG_SCALES
        )
    ]


def quick_grid() -> list[Case]:
    """The corners, for a test."""
    values = itertools.product((0.05, 0.2, 5.0), (0.0, 5.0), (0.05, 10.0), (0.0, 0.4), (0.05, 10.0), (False, True))
    return [Case(*value, scale) for value, scale in zip(values, itertools.cycle(LAG_SCALES), strict=False)]


def run_case(case: Case, *, paired: bool = True) -> Outcome:
    """One case; with `paired` False the meter's samples are taken to be as new as their arrival."""
    battery = DeviceKind.BATTERY
    lag = (case.tr90_s, case.dead_time_s)
    devices = (
        plant_device("a", battery, 50e3, *lag),
        plant_device("b", battery, 50e3, *((FAST_TR90_S, 0.0) if case.mixed else lag)),
    )
    sampling = Sampling(case.meter_interval_s, case.meter_delay_s, case.device_interval_s, 0.0, stamped=paired)
    period_s = min(max(0.1, (case.dead_time_s + case.tr90_s) / 50.0), LONGEST_PERIOD_S)
    plant = FeedbackPlant(plant_site(devices), sampling, lag_scale=case.lag_scale, period_s=period_s)
    seconds = 5.0 + RESPONSES * case.slowest_s
    plant.run(seconds / 2.0, _dispatch("before", BEFORE_W))
    ordered = plant.run(seconds, _dispatch("after", TARGET_W))
    plant.rest_w += LOAD_STEP_W
    loaded = plant.run(seconds, _dispatch("after", TARGET_W))
    last = loaded[-len(loaded) // 3 :]
    return Outcome(
        max(TARGET_W - min(ordered), 0.0),
        max(max(loaded) - TARGET_W - LOAD_STEP_W, TARGET_W - min(loaded), 0.0),
        _settled_s(ordered, period_s),
        _settled_s(loaded, period_s),
        max(last) - min(last),
    )


def _dispatch(name: str, net_w: float) -> OrdersInForce:
    return OrdersInForce(dispatch=DispatchInForce("bench", name, net_w, 0.0, None, 0.0, 0.0, None))


def _settled_s(trace: Sequence[float], period_s: float) -> float | None:
    outside = [at for at, net_w in enumerate(trace) if abs(net_w - TARGET_W) > TOLERANCE_W]
    if not outside:
        return 0.0
    return None if outside[-1] == len(trace) - 1 else (outside[-1] + 1) * period_s


def is_unstable(outcome: Outcome) -> bool:
    """Whether a case never came to rest at its target."""
    return outcome.order_settled_s is None or outcome.load_settled_s is None or outcome.swing_w > SWING_W


def sweep(cases: Sequence[Case], progress: Callable[[str], None] = lambda text: None) -> list[Row]:
    """All cases, paired and wrongly paired, gathered by the devices' lag."""
    rows = []
    lags = sorted({(case.tr90_s, case.dead_time_s) for case in cases})
    for tr90_s, dead_time_s in lags:
        mine = [case for case in cases if (case.tr90_s, case.dead_time_s) == (tr90_s, dead_time_s)]
        progress(f"Tr90 {tr90_s:g} s, dead time {dead_time_s:g} s: {len(mine)} cases")
        right = [(case, run_case(case)) for case in mine]
        wrong = [run_case(case, paired=False) for case in mine]
        rows.append(_row(tr90_s, dead_time_s, right, wrong))
    return rows


def _row(tr90_s: float, dead_time_s: float, right: Sequence[tuple[Case, Outcome]], wrong: Iterable[Outcome]) -> Row:
    wrong = list(wrong)
    settled = [
        (case, time_s)
        for case, outcome in right
        for time_s in (outcome.order_settled_s, outcome.load_settled_s)
        if time_s is not None
    ]
    return Row(
        tr90_s,
        dead_time_s,
        len(right),
        max((_worst_w(outcome) for case, outcome in right if case.lag_scale == 1.0), default=0.0) / RATING_W,
        max((_worst_w(outcome) for case, outcome in right if case.lag_scale != 1.0), default=0.0) / RATING_W,
        max((time_s for _, time_s in settled), default=None),
        max((time_s - case.slowest_s for case, time_s in settled), default=None),
        sum(is_unstable(outcome) for _, outcome in right),
        max(_worst_w(outcome) for outcome in wrong) / RATING_W,
        sum(is_unstable(outcome) for outcome in wrong),
    )


def _worst_w(outcome: Outcome) -> float:
    return max(outcome.overshoot_w, outcome.beyond_load_w)


def run_feedback_bench(quick: bool, progress: Callable[[str], None]) -> dict[str, Any]:
    """The figures of `gateway bench feedback`."""
    rows = sweep(quick_grid() if quick else full_grid(), progress)
    return {
        "cases": sum(row.cases for row in rows),
        "unstable": sum(row.unstable for row in rows),
        "worst_overshoot_pu": round(max(row.overshoot_pu for row in rows), 4),
        "worst_misdeclared_overshoot_pu": round(max(row.misdeclared_overshoot_pu for row in rows), 4),
        "wrongly_paired_unstable": sum(row.wrong_unstable for row in rows),
        "rows": [
            {name: round(value, 4) if isinstance(value, float) else value for name, value in row._asdict().items()}
            for row in rows
        ],
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as a table in Markdown."""
    lines = [
        "| Tr90 | dead time | cases | overshoot | with half or twice the lag | settling | beyond lags and samples | "
        "not settled | wrongly paired: overshoot | not settled |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['tr90_s']:g} s | {row['dead_time_s']:g} s | {row['cases']} | {100 * row['overshoot_pu']:.1f} % "
        f"| {100 * row['misdeclared_overshoot_pu']:.1f} % "
        f"| {row['settled_s']:.1f} s | {max(row['over_own_s'], 0.0):.1f} s | {row['unstable']} "
        f"| {100 * row['wrong_overshoot_pu']:.0f} % | {row['wrong_unstable']} |"
        for row in figures["rows"]
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m gateway.bench.feedback_sweep [--quick] [--json]`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="the corners of the grid alone")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    chosen = parser.parse_args(arguments)
    figures = run_feedback_bench(chosen.quick, lambda text: print(text, file=sys.stderr))  # noqa: T201
    print(json.dumps(figures) if chosen.json else table(figures))  # noqa: T201
    return 1 if figures["unstable"] else 0


if __name__ == "__main__":
    sys.exit(main())
