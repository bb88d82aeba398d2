"""The margin at the connection point: declared where it is quiet, wider beside a bound where it is not, and bounded."""

from __future__ import annotations

import math
import random

import pytest

from config.compliance import DisturbanceMargin as Settings
from gateway.compliance.frame import Moment
from gateway.compliance.margin import DisturbanceMargin

RATING_W, DECLARED_W = 100e3, 200.0


def margin(**more: float) -> DisturbanceMargin:
    return DisturbanceMargin(Settings.model_validate(more), RATING_W, DECLARED_W)


class Held:
    """A control that holds the aim beside an export limit of 0 W, disturbed by noise."""

    def __init__(self, function: DisturbanceMargin) -> None:
        self.function, self.now_s, self.rng = function, 0.0, random.Random(1)

    def run(self, sigma_w: float, lasts_s: float, off_w: float = 0.0) -> float:
        """The share of the time beyond the bound; `off_w` keeps away from it."""
        beyond, steps = 0, int(lasts_s * 10)
        for _ in range(steps):
            net_w = lower_w(self.function) + off_w + self.rng.gauss(0.0, sigma_w)
            beyond += net_w < 0.0
            self.now_s += 0.1
            self.function.step(Moment(self.now_s, 0.0, 0.1, net_w, lower_w=0.0, upper_w=50e3))
        return beyond / steps


def lower_w(function: DisturbanceMargin) -> float:
    ruling = function.rule(Moment(0.0, 0.0))
    assert ruling.margins is not None
    return ruling.margins.lower_w


def test_it_follows_the_disturbance_and_keeps_the_share_that_it_is_for() -> None:
    function = margin()
    held = Held(function)
    held.run(500.0, 60.0)
    assert 700.0 < lower_w(function) < 1600.0, "2 % of a normal disturbance of 500 W are beyond 1030 W"
    assert held.run(500.0, 60.0) < 0.05
    held.run(20.0, 300.0)
    assert lower_w(function) == DECLARED_W, "and back, once it is quiet"


def test_it_is_bounded_and_never_less_than_declared() -> None:
    function = margin()
    Held(function).run(50e3, 60.0)
    assert DECLARED_W <= lower_w(function) <= 0.03 * RATING_W
    large = DisturbanceMargin(Settings(most_pu=0.001), RATING_W, DECLARED_W)
    Held(large).run(500.0, 60.0)
    assert lower_w(large) == DECLARED_W


def test_far_from_the_bound_nothing_is_learnt() -> None:
    function = margin()
    Held(function).run(500.0, 60.0, off_w=20e3)
    assert lower_w(function) == DECLARED_W


@pytest.mark.parametrize("net_w", [None, math.nan, math.inf])
def test_without_measurement_it_is_as_declared(net_w: float | None) -> None:
    function = margin()
    for step in range(500):
        function.step(Moment(0.1 * step, 0.0, 0.1, net_w, lower_w=0.0, upper_w=50e3))
    assert lower_w(function) == DECLARED_W
