"""Cars as they come: slow ones, those on one phase, those that sleep after a pause, and a day's schedule."""

from __future__ import annotations

from typing import Any

import pytest

from config.twin import DeviceTwin, EvTwin
from config.vocabulary import ChargingState
from sim_devices.models import ChargerModel

BOTH_STEPS = pytest.mark.parametrize("step_s", [0.01, 0.1])


class Post:
    """A 22 kW charger, 32 A on three phases, in real or in virtual time."""

    def __init__(self, *cars: dict[str, Any], step_s: float = 0.01, **twin: Any) -> None:
        settings = DeviceTwin(evs=tuple(EvTwin(**car) for car in cars), tr90_s=0.2, **twin)
        self.model = ChargerModel("post", 22_080.0, settings)
        self.step_s = step_s
        self.now_s = 0.0

    def offer(self, current_a: float) -> None:
        self.model.set_current(current_a, None, self.now_s)

    def run(self, seconds: float) -> float:
        for _ in range(round(seconds / self.step_s)):
            self.now_s += self.step_s
            self.model.step(self.step_s, self.now_s)
        return self.model.power_w


@BOTH_STEPS
def test_a_slow_car_takes_its_own_time(step_s: float) -> None:
    post = Post({"tr90_s": 5.0, "wake_s": 0.0}, step_s=step_s)
    assert post.run(5.0) == pytest.approx(0.9 * 22_080.0, rel=0.02)
    post.run(20.0)
    post.offer(16.0)
    assert post.run(1.0) > 16_000.0
    assert post.run(14.0) == pytest.approx(11_040.0, rel=0.01)


@BOTH_STEPS
def test_a_late_car_moves_after_its_dead_time(step_s: float) -> None:
    post = Post({"dead_time_s": 4.0, "wake_s": 0.0}, step_s=step_s)
    assert post.run(3.9) == 0.0
    assert post.run(1.5) == pytest.approx(22_080.0, rel=0.01)


def test_the_next_car_is_not_slow_by_the_one_before() -> None:
    post = Post({"tr90_s": 20.0, "unplug_s": 5.0}, {"plug_in_s": 6.0})
    post.run(6.0)
    assert post.run(1.0) == pytest.approx(22_080.0, rel=0.01)


def test_a_car_on_one_phase_draws_on_the_first_of_the_charger() -> None:
    post = Post({"phases": 1, "max_current_a": 20.0})
    assert post.run(2.0) == pytest.approx(20.0 * 230.0)
    assert post.model.current_a_by_phase == pytest.approx((20.0, 0.0, 0.0))
    post.model.unplug()
    post.model.plug_in(EvTwin(phases=2))
    post.run(2.0)
    assert post.model.current_a_by_phase == pytest.approx((32.0, 32.0, 0.0))
    post.model.plug_in(EvTwin())
    post.run(2.0)
    assert post.model.current_a_by_phase == pytest.approx((32.0, 32.0, 32.0))


def test_a_charger_that_switches_to_one_phase_takes_any_car_along() -> None:
    post = Post({"phases": 2})
    post.run(2.0)
    post.model.use_phases((2,))
    post.run(2.0)
    assert post.model.current_a_by_phase == pytest.approx((0.0, 32.0, 0.0))


@BOTH_STEPS
def test_a_car_that_wakes_once_sleeps_after_its_second_pause_until_it_comes_anew(step_s: float) -> None:
    post = Post({"wakes": 1}, step_s=step_s)
    post.run(3.0)
    for _ in range(2):
        assert post.model.state is ChargingState.C
        assert not post.model.asleep
        post.offer(0.0)
        assert post.run(5.0) == 0.0
        post.offer(16.0)
        post.run(3.0)
    assert post.model.asleep
    assert post.model.state is ChargingState.B, "connected, offered 16 A, and not drawing"
    assert post.run(60.0) == 0.0
    post.model.unplug()
    post.model.plug_in(EvTwin(wakes=1))
    assert post.run(3.0) == pytest.approx(11_040.0, rel=0.01)


def test_waiting_before_the_first_charge_is_no_pause() -> None:
    post = Post({"wakes": 0, "plug_in_s": 1.0})
    post.offer(0.0)
    post.run(10.0)
    post.offer(16.0)
    assert post.run(2.0) == pytest.approx(11_040.0, rel=0.01)
    post.offer(0.0)
    post.run(2.0)
    post.offer(16.0)
    assert post.run(10.0) == 0.0


def test_a_dead_grid_is_state_e_and_a_pause_to_the_car() -> None:
    post = Post({})
    post.run(2.0)
    post.model.energized = False
    assert post.run(0.01) == 0.0
    assert post.model.state is ChargingState.E
    assert post.model.offered_current_a == 0.0
    post.model.energized = True
    assert post.run(0.1) == 0.0, "it has to wake"
    assert post.run(2.0) == pytest.approx(22_080.0, rel=0.01)


def test_a_days_schedule_comes_and_goes() -> None:
    cars = [{"plug_in_s": 10.0 * at - 0.5, "unplug_s": 10.0 * at + 4.5} for at in range(1, 4)]
    post = Post(*cars, step_s=0.1)
    there = []
    for _ in range(40):
        post.run(1.0)
        there.append(post.model.ev is not None)
    assert [at for at in range(40) if there[at]] == [*range(9, 14), *range(19, 24), *range(29, 34)]
    assert post.model.sessions == 3
