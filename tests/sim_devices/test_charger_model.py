"""The charger's story, from an empty parking space to a full car and back: IEC 61851-1 states A to F."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.twin import DeviceTwin, EvTwin
from config.vocabulary import ChargingState
from sim_devices.models import ChargerModel, Failsafe

STEP_S = 0.01
FULL_W = 32 * 3 * 230.0


class Story:
    """A charger and its own time."""

    def __init__(self, *evs: EvTwin, rating_w: float = 22_000.0, phases: tuple[int, ...] = (1, 2, 3)) -> None:
        self.charger = ChargerModel("charger", rating_w, DeviceTwin(tr90_s=0.2, evs=evs), phases=phases)
        self.steps = 0

    @property
    def now_s(self) -> float:
        return self.steps * STEP_S

    def until(self, time_s: float) -> ChargerModel:
        while self.now_s < time_s - 1e-9:
            self.steps += 1
            self.charger.step(STEP_S, self.now_s)
        return self.charger


def test_a_car_comes_charges_gets_full_leaves_and_another_comes() -> None:
    story = Story(
        EvTwin(plug_in_s=1.0, unplug_s=20.0, needed_wh=50.0, battery_wh=100.0, wake_s=0.5), EvTwin(plug_in_s=25.0)
    )
    assert story.until(0.9).state is ChargingState.A
    assert story.until(1.3).state is ChargingState.B
    charger = story.until(3.0)
    assert charger.state is ChargingState.C
    assert charger.power_w == pytest.approx(FULL_W, rel=1e-3)
    charger = story.until(19.0)
    assert charger.complete
    assert charger.state is ChargingState.B
    assert charger.power_w == 0.0
    assert charger.session_energy_wh == pytest.approx(50.0, rel=0.01)
    charger = story.until(24.0)
    assert charger.state is ChargingState.A
    assert not charger.complete
    charger = story.until(27.0)
    assert charger.state is ChargingState.C
    assert charger.sessions == 2
    assert charger.session_energy_wh < 20.0


def test_the_car_follows_the_offer_in_whole_amperes_from_six_up() -> None:
    story = Story(EvTwin())
    story.until(2.0)
    story.charger.set_current(10.9, None, story.now_s)
    charger = story.until(4.0)
    assert charger.offered_current_a == 10.0
    assert charger.power_w == pytest.approx(10 * 3 * 230.0, rel=1e-3)
    story.charger.set_current(5.99, None, story.now_s)
    charger = story.until(6.0)
    assert charger.offered_current_a == 0.0
    assert charger.state is ChargingState.B
    story.charger.set_current(6.0, None, story.now_s)
    assert story.until(8.0).state is ChargingState.C


def test_an_ampere_that_arithmetic_missed_by_a_hair_is_that_ampere() -> None:
    charger = Story().charger
    charger.set_current(13 * 3 * 230.0 / 690.0 - 1e-9, None, 0.0)
    assert charger.requested_current_a == 13.0


def test_a_pause_is_over_in_a_second_and_waking_takes_the_cars_time() -> None:
    story = Story(EvTwin(wake_s=3.0))
    story.until(5.0)
    story.charger.enabled = False
    assert story.until(6.0).state is ChargingState.B
    story.charger.enabled = True
    assert story.until(8.9).power_w == 0.0
    assert story.until(9.5).power_w > 0.9 * FULL_W


def test_silence_brings_the_failsafe_current() -> None:
    story = Story(EvTwin())
    story.charger.set_current(32.0, Failsafe(timeout_s=5.0, current_a=6.0), 0.0)
    assert story.until(4.9).offered_current_a == 32.0
    story.charger.refresh(story.now_s)
    assert story.until(9.8).offered_current_a == 32.0
    charger = story.until(11.0)
    assert charger.offered_current_a == 6.0
    assert charger.reversions == 1
    assert charger.power_w == pytest.approx(6 * 690.0, rel=0.01)


def test_without_a_timer_the_last_current_holds() -> None:
    story = Story(EvTwin(needed_wh=50_000.0))
    story.charger.set_current(8.0, None, 0.0)
    assert story.until(60.0).power_w == pytest.approx(8 * 690.0, rel=1e-3)


def test_a_car_takes_no_more_than_it_can_and_less_near_full() -> None:
    story = Story(EvTwin(max_current_a=16.0, needed_wh=100.0))
    assert story.until(2.0).power_w == pytest.approx(16 * 690.0, rel=1e-3)
    tapered_w = 0.0
    while not story.charger.complete:
        story.until(story.now_s + 0.5)
        if story.charger.session_energy_wh > 95.0 and not tapered_w:
            tapered_w = story.charger.power_w
    assert 0.1 * 16 * 690.0 < tapered_w < 0.55 * 16 * 690.0
    assert story.charger.session_energy_wh == pytest.approx(100.0, rel=0.01)


def test_no_supply_is_e_a_fault_is_f_and_ventilation_is_d() -> None:
    story = Story(EvTwin(needs_ventilation=True))
    assert story.until(2.0).state is ChargingState.D
    story.charger.connected = False
    charger = story.until(2.01)
    assert (charger.state, charger.power_w) == (ChargingState.E, 0.0)
    story.charger.faulted = True
    charger = story.until(2.1)
    assert (charger.state, charger.power_w, charger.offered_current_a) == (ChargingState.F, 0.0, 0.0)
    story.charger.connected, story.charger.faulted = True, False
    assert story.until(4.0).state is ChargingState.D


def test_switching_to_one_phase_interrupts_and_goes_on_with_a_third() -> None:
    story = Story(EvTwin(wake_s=0.5))
    story.until(3.0)
    story.charger.use_phases((1,))
    assert story.until(3.1).power_w == 0.0
    charger = story.until(5.0)
    assert charger.power_w_by_phase == (pytest.approx(FULL_W / 3, rel=1e-3), 0.0, 0.0)


@pytest.mark.parametrize(
    ("rating_w", "phases", "amperes"), [(22e3, 3, 32), (11e3, 3, 16), (7.4e3, 1, 32), (3.7e3, 1, 16)]
)
def test_the_rating_says_the_amperes(rating_w: float, phases: int, amperes: int) -> None:
    assert Story(rating_w=rating_w, phases=(1, 2, 3)[:phases]).charger.max_current_a == amperes


@pytest.mark.parametrize("current_a", [-1.0, math.nan, math.inf])
def test_a_current_that_is_none_is_refused_and_changes_nothing(current_a: float) -> None:
    charger = Story().charger
    charger.set_current(10.0, (5.0, 6.0), 0.0)
    with pytest.raises(ValueError, match="can't be offered"):
        charger.set_current(current_a, None, 1.0)
    assert charger.requested_current_a == 10.0
    assert charger.reversion_remaining_s(0.0) == 5.0


@given(st.floats(0.0, 100.0))
def test_what_is_offered_is_never_more_than_asked_and_never_between_zero_and_six(current_a: float) -> None:
    charger = Story().charger
    charger.set_current(current_a, None, 0.0)
    offered_a = charger.offered_current_a
    assert offered_a <= current_a + 1e-6
    assert offered_a == int(offered_a)
    assert offered_a == 0.0 or 6.0 <= offered_a <= 32.0
