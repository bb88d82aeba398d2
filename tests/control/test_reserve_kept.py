"""Room for the regulation that was promised, and storage that lasts for it, without a planner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.vocabulary import SOC, DeviceKind, Quality, Quantity, Sample
from gateway.control.orders_in_force import (
    DispatchInForce,
    LimitInForce,
    OrdersInForce,
    PlanInForce,
    RegulationInForce,
)
from gateway.control.reserve_kept import base_with_room, promised, reserve_worth
from gateway.image import DeviceImage, Image
from tests.control.plant import Plant, device, site

FIRST = device("first", DeviceKind.BATTERY, 50e3, capacity_wh=50e3)
SECOND = device("second", DeviceKind.BATTERY, 50e3, capacity_wh=50e3)


class Stores(Plant):
    """Batteries with a state of charge each."""

    socs: dict[str, float]

    def image(self) -> Image:
        image = super().image()
        devices = dict(image.devices)
        for name, soc in self.socs.items():
            samples = {**devices[name].samples, SOC: Sample(soc, Quality.GOOD, self.now_s)}
            devices[name] = DeviceImage(samples, True)
        return Image(image.now_s, devices)


def orders(
    base_w: float, reserve_w: float, *limits: LimitInForce, signal: tuple[float, float] | None = None
) -> OrdersInForce:
    regulation = None if signal is None else RegulationInForce("dso", 1, signal[0], signal[1], 60.0)
    dispatch = DispatchInForce("dso", "d", base_w, 0.0, None, reserve_w, reserve_w, None)
    return OrdersInForce(limits=limits, dispatch=dispatch, regulation=regulation)


def export(value_w: float) -> LimitInForce:
    return LimitInForce("dso", "l", Quantity.NET_EXPORT_W, value_w)


def test_a_base_that_leaves_room_is_followed_to_the_watt() -> None:
    plant = Plant(site(FIRST), rest_w=0.0)
    plant.run(4, orders(-20e3, 20e3))
    assert plant.net_w == pytest.approx(-20e3, abs=100)
    assert plant.decision is not None
    assert plant.decision.unmet == ()


def test_a_base_near_a_limit_is_moved_so_that_the_reserve_fits_and_that_is_said() -> None:
    plant = Plant(site(FIRST), rest_w=0.0)
    plant.run(4, orders(-25e3, 15e3, export(30e3)))
    assert plant.net_w == pytest.approx(-14.8e3, abs=100)
    assert plant.decision is not None
    assert plant.decision.unmet[0].startswith("dso d: base moved by +")
    plant.run(4, orders(-25e3, 15e3, export(30e3), signal=(1.0, plant.now_s)))
    assert plant.net_w == pytest.approx(-29.8e3, abs=100), "all of the reserve is there"


def test_a_base_near_what_the_devices_can_give_is_moved_too() -> None:
    plant = Plant(site(FIRST), rest_w=0.0)
    plant.run(4, orders(-45e3, 20e3))
    assert plant.net_w == pytest.approx(-30e3, abs=100)


def test_with_a_plan_the_planner_keeps_the_reserve() -> None:
    found = orders(-45e3, 20e3)
    assert promised(found) is found.dispatch
    assert promised(OrdersInForce(dispatch=found.dispatch, plan=PlanInForce("plan", 0.3, 0.1))) is None
    assert promised(orders(-45e3, 0.0)) is None


def test_the_storage_that_has_less_than_its_reserve_needs_gives_less_of_the_base() -> None:
    plant = Stores(site(FIRST, SECOND), rest_w=20e3)
    plant.socs = {"first": 0.02, "second": 0.6}
    plant.run(4, orders(0.0, 0.0))
    assert plant.powers_w["first"] == pytest.approx(-10e3, abs=200), "without a reserve they share alike"
    plant.run(4, orders(0.0, 30e3))
    assert plant.net_w == pytest.approx(0.0, abs=200)
    assert plant.powers_w["first"] >= 0.0
    assert plant.powers_w["second"] <= -20e3


def test_the_worth_of_energy_rises_as_it_runs_out() -> None:
    worths = [reserve_worth(FIRST, soc / 20.0, 20e3, 20e3) for soc in range(21)]
    assert worths[0] == pytest.approx(1.0)
    assert worths[-1] == pytest.approx(-1.0)
    assert worths[10] == 0.0
    assert worths == sorted(worths, reverse=True)


watts = st.floats(-100e3, 100e3)


@given(watts, watts, watts, st.floats(0.0, 50e3), st.floats(1.0, 50e3))
def test_a_moved_base_is_inside_and_leaves_each_side_its_part(
    base_w: float, one_w: float, other_w: float, up_w: float, down_w: float
) -> None:
    lower_w, upper_w = min(one_w, other_w), max(one_w, other_w)
    kept_w = base_with_room(base_w, lower_w, upper_w, up_w, down_w)
    if upper_w - lower_w >= up_w + down_w:
        assert lower_w + up_w - 1e-3 <= kept_w <= upper_w - down_w + 1e-3
        if lower_w + up_w <= base_w <= upper_w - down_w:
            assert kept_w == base_w
    elif upper_w > lower_w:
        assert lower_w - 1e-3 <= kept_w <= upper_w + 1e-3
