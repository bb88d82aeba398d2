"""The feedback over a reduced grid of lags and sample ages; `gateway bench feedback` runs the whole one."""

from __future__ import annotations

from itertools import cycle, product

import pytest

from gateway.bench.feedback_sweep import LAG_SCALES, Case, is_unstable, run_case, table

CORNERS = [
    Case(*values, scale)
    for values, scale in zip(
        product((0.05, 1.0, 5.0), (0.0, 5.0), (0.05, 10.0), (0.4,), (0.05, 10.0), (False, True)), cycle(LAG_SCALES)
    )
]


@pytest.mark.parametrize("case", CORNERS[::3], ids=str)
def test_paired_ages_come_to_rest(case: Case) -> None:
    outcome = run_case(case)
    assert not is_unstable(outcome)
    assert outcome.order_settled_s is not None
    assert outcome.order_settled_s <= case.slowest_s + 2.0
    if not case.mixed:
        assert outcome.overshoot_w <= 1e3, "alike devices never pass their target"


@pytest.mark.parametrize(
    "case", [Case(5.0, 2.0, 0.05, 0.0, 0.05, True, 0.5), Case(5.0, 0.0, 1.0, 0.4, 10.0, False, 0.5)], ids=str
)
def test_a_load_that_is_cancelled_soon_after_an_order_is_not_taken_for_a_blind_meter(case: Case) -> None:
    assert not is_unstable(run_case(case))


def test_wrongly_paired_ages_swing() -> None:
    case = Case(0.2, 0.0, 0.05, 0.4, 0.05, False, 1.0)
    assert not is_unstable(run_case(case))
    assert is_unstable(run_case(case, paired=False))


def test_the_table_has_a_line_for_each_lag() -> None:
    row = {"tr90_s": 0.2, "dead_time_s": 0.0, "cases": 3, "overshoot_pu": 0.01, "misdeclared_overshoot_pu": 0.02}
    row |= {"settled_s": 1.25, "over_own_s": -0.5, "unstable": 0, "wrong_overshoot_pu": 1.3, "wrong_unstable": 2}
    lines = table({"rows": [row]}).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("| 0.2 s | 0 s | 3 | 1.0 % | 2.0 % | 1.2 s | 0.0 s | 0 |")
