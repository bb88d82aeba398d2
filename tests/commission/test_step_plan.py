"""Which step is made: within the device's limits, the site's, and the state of charge, or a reason why none is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.vocabulary import DeviceKind
from gateway.commission.step_plan import Bounds, Situation, StepPlan, plan_step
from gateway.control.clearing import make_curve
from gateway.control.model import DeviceModel

SITE = Bounds(-20_000.0, 30_000.0)


def device(kind: DeviceKind, **more: object) -> DeviceModel:
    least, most = {"battery": (-10e3, 10e3), "charger": (0.0, 22e3), "inverter": (-20e3, 0.0)}.get(kind, (0.0, 1.0))
    fields = {"min_w": least, "max_w": most, "rating_w": 20e3, **more}
    return DeviceModel(name="it", kind=kind, curve=make_curve([(0.0, 0.0)]), **fields)  # type: ignore[arg-type]


def battery(soc: float | None, net_w: float, power_w: float = 0.0, **more: float) -> Situation:
    return Situation(power_w, net_w, soc, **more)


@pytest.mark.parametrize(
    ("now", "target_w"),
    [
        (battery(0.3, 0.0), 5_000),  # rather empty: it charges
        (battery(0.7, 0.0), -5_000),  # rather full: it discharges
        (battery(0.3, 28_000.0), -5_000),  # charging would go beyond the import limit
        (battery(0.7, -18_000.0), 5_000),  # discharging would go beyond the export limit
        (battery(0.7, 45_000.0), -5_000),  # outside already: only what leads back
        (battery(0.3, 0.0, max_charge_w=1_000.0), -5_000),  # it takes no more charge
        (battery(0.3, 26_000.0, power_w=4_000.0), 5_000),  # counted from rest, not from what it does now
    ],
)
def test_a_battery_steps_to_where_there_is_room(now: Situation, target_w: float) -> None:
    assert plan_step(device(DeviceKind.BATTERY), now, SITE, 5_000) == StepPlan(0.0, target_w, target_w)


@pytest.mark.parametrize(
    ("now", "bounds", "words"),
    [
        (battery(None, 0.0), SITE, "state of charge is not known"),
        (battery(0.3, 0.0), Bounds(-1_000.0, 1_000.0), "is allowed"),
        (battery(0.3, 0.0, max_charge_w=0.0, max_discharge_w=0.0), SITE, "0 W at most"),
    ],
)
def test_a_battery_without_room_is_not_stepped(now: Situation, bounds: Bounds, words: str) -> None:
    plan = plan_step(device(DeviceKind.BATTERY), now, bounds, 5_000)
    assert isinstance(plan, str) and words in plan


def test_a_charger_steps_in_whole_amps_and_only_with_a_car() -> None:
    charger = device(DeviceKind.CHARGER, step_w=690.0, minimum_w=4_140.0)
    assert plan_step(charger, Situation(0.0, 0.0, charging_state="C"), SITE, 1_000) == StepPlan(0.0, 4_140.0, 4_140.0)
    assert plan_step(charger, Situation(0.0, 0.0, charging_state="B"), SITE, 5_000) == StepPlan(0.0, 5_520.0, 5_520.0)
    assert plan_step(charger, Situation(0.0, 0.0, charging_state="A"), SITE, 5_000) == "no car is plugged in"


def test_an_inverter_is_curtailed_from_what_it_generates() -> None:
    inverter = device(DeviceKind.INVERTER, ceiling=True)
    assert plan_step(inverter, Situation(-12_000.0, 0.0), SITE, 4_000) == StepPlan(-20e3, -8_000.0, 4_000.0)
    dark = plan_step(inverter, Situation(-2_000.0, 0.0), SITE, 4_000)
    assert isinstance(dark, str) and "generates 2000 W" in dark


def test_a_relay_is_not_stepped() -> None:
    assert plan_step(device(DeviceKind.RELAY), Situation(0.0, 0.0), SITE, 10) == "a relay takes no setpoint in watts"


@given(
    soc=st.floats(0.0, 1.0),
    net_w=st.floats(-60e3, 60e3),
    power_w=st.floats(-10e3, 10e3),
    step_w=st.floats(100.0, 15e3),
)
def test_no_step_leads_out_of_the_bounds(soc: float, net_w: float, power_w: float, step_w: float) -> None:
    plan = plan_step(device(DeviceKind.BATTERY), battery(soc, net_w, power_w), SITE, step_w)
    if isinstance(plan, StepPlan):
        rest_w = net_w - power_w
        after_w = rest_w + plan.change_w
        inside = SITE.lower_w <= after_w <= SITE.upper_w
        back = (after_w > SITE.upper_w and plan.change_w < 0) or (after_w < SITE.lower_w and plan.change_w > 0)
        assert inside or back
        assert -10e3 <= plan.target_w <= 10e3
