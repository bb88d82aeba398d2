"""Energy by resource over the intervals of the clock, from the cycles of a plant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config.vocabulary import ENERGY_EXPORT_WH, ENERGY_IMPORT_WH, DeviceKind, Quality, Sample
from gateway.control.decision import Decision
from gateway.control.orders_in_force import DispatchInForce, OrdersInForce, PlanInForce
from gateway.energy_record import EnergyRecord
from gateway.image import DeviceImage, Image
from tests.control.plant import Plant, device, site

BEGIN_S = 1_800_000_000.0
MODEL = site(device("battery", DeviceKind.BATTERY, 50e3), device("pv", DeviceKind.INVERTER, 30e3))


class Watched:
    """One decision of a plant, shown to the recorder again and again with powers of the test's choice."""

    def __init__(self) -> None:
        plant = Plant(MODEL)
        self.decision: Decision = plant.cycle(OrdersInForce())
        self.record = EnergyRecord(MODEL)
        self.orders = OrdersInForce()
        self.registers_wh: tuple[float, float] | None = None

    def image(self) -> Image:
        samples = {}
        if self.registers_wh is not None:
            points = zip((ENERGY_IMPORT_WH, ENERGY_EXPORT_WH), self.registers_wh, strict=True)
            samples = {name: Sample(value, Quality.GOOD, 100.0) for name, value in points}
        return Image(100.0, {"meter": DeviceImage(samples, present=True)})

    def see(
        self, utc_s: float, net_w: float | None, battery_w: float | None, pv_w: float | None = 0.0, **changes: Any
    ) -> dict[str, Any] | None:
        powers = {"battery": battery_w, "pv": pv_w}
        resources = tuple(one._replace(power_w=powers[one.model.name]) for one in self.decision.resources)
        decision = replace(self.decision, resources=resources, net_w=net_w, **({"lambda_per_kwh": 0.2} | changes))
        return self.record.take(utc_s, decision, self.image(), self.orders)


def test_an_interval_is_told_once_it_is_over() -> None:
    watched = Watched()
    told = [watched.see(BEGIN_S + at, 10_000.0, -2_000.0) for at in range(301)]
    assert told[:-1] == [None] * 300
    entry = told[-1]
    assert entry is not None
    assert (entry["begin_s"], entry["duration_s"], entry["lambda_per_kwh"]) == (BEGIN_S, 300, 0.2)
    assert entry["connection"] == {"in_wh": 833.333, "out_wh": 0.0, "known_s": 300.0, "source": "power"}
    assert entry["resources"]["battery"] == {"in_wh": 0.0, "out_wh": 166.667, "known_s": 300.0, "source": "power"}


def test_both_directions_are_counted_apart() -> None:
    watched = Watched()
    told = [watched.see(BEGIN_S + at, 6_000.0 if at <= 150 else -6_000.0, 0.0) for at in range(301)]
    assert told[-1] is not None
    assert told[-1]["connection"] == {"in_wh": 250.0, "out_wh": 250.0, "known_s": 300.0, "source": "power"}


def test_what_is_not_measured_is_not_known() -> None:
    watched = Watched()
    told = [watched.see(BEGIN_S + at, 1_000.0, None if at > 100 else 1_000.0) for at in range(301)]
    assert told[-1] is not None
    assert told[-1]["resources"]["battery"]["known_s"] == 100.0
    assert told[-1]["connection"]["known_s"] == 300.0


def test_a_long_gap_is_not_filled() -> None:
    watched = Watched()
    watched.see(BEGIN_S, 1_000.0, 0.0)
    watched.see(BEGIN_S + 100.0, 1_000.0, 0.0)
    told = watched.see(BEGIN_S + 700.0, 1_000.0, 0.0)
    assert told is not None
    assert told["connection"]["known_s"] == 10.0


def test_the_meter_s_own_registers_count_where_they_agree() -> None:
    watched = Watched()
    watched.registers_wh = (50_000.0, 7_000.0)
    for at in range(300):
        watched.see(BEGIN_S + at, 10_000.0, 0.0)
    watched.registers_wh = (50_840.0, 7_002.0)
    told = watched.see(BEGIN_S + 300, 10_000.0, 0.0)
    assert told is not None
    assert told["connection"] == {"in_wh": 840.0, "out_wh": 2.0, "known_s": 300.0, "source": "register"}


@pytest.mark.parametrize("after", [(40.0, 0.0), (99_000.0, 7_000.0), None])
def test_registers_that_were_reset_or_disagree_do_not(after: tuple[float, float] | None) -> None:
    watched = Watched()
    watched.registers_wh = (50_000.0, 7_000.0)
    for at in range(300):
        watched.see(BEGIN_S + at, 10_000.0, 0.0)
    watched.registers_wh = after
    told = watched.see(BEGIN_S + 300, 10_000.0, 0.0)
    assert told is not None
    assert told["connection"]["source"] == "power"


def test_the_outside_s_price_is_the_dispatch_s_or_the_tariff_s() -> None:
    watched = Watched()
    watched.orders = OrdersInForce(plan=PlanInForce("tariff", 0.30, 0.08))
    for at in range(151):
        watched.see(BEGIN_S + at, 1_000.0, 0.0, side="upper" if at > 100 else "")
    watched.orders = OrdersInForce(dispatch=DispatchInForce("dso", "d1", 0.0, 0.0, None, 0.0, 0.0, 0.10))
    told = [watched.see(BEGIN_S + at, 1_000.0, 0.0) for at in range(151, 301)][-1]
    assert told is not None
    assert (told["import_per_kwh"], told["export_per_kwh"]) == (0.2, 0.09)
    assert told["bound_s"] == 50.0


def test_the_end_of_the_process_tells_what_there_is() -> None:
    watched = Watched()
    for at in range(61):
        watched.see(BEGIN_S + at, 6_000.0, 0.0)
    told = watched.record.close(BEGIN_S + 60.5, watched.image())
    assert told is not None
    assert told["connection"]["known_s"] == 60.0
    assert watched.record.close(BEGIN_S + 61.0, None) is None


def test_a_clock_that_is_set_back_begins_an_interval_anew() -> None:
    watched = Watched()
    watched.see(BEGIN_S + 298, 6_000.0, 0.0)
    watched.see(BEGIN_S + 299, 6_000.0, 0.0)
    told = watched.see(BEGIN_S - 10, 6_000.0, 0.0)
    assert told is not None
    assert told["connection"]["known_s"] == 1.0
    assert watched.see(BEGIN_S - 9, 6_000.0, 0.0) is None


def test_cycles_between_the_samples_cost_nothing() -> None:
    watched = Watched()
    watched.see(BEGIN_S, 6_000.0, 0.0)
    watched.see(BEGIN_S + 0.1, 9e9, 0.0)
    watched.see(BEGIN_S + 1.0, 6_000.0, 0.0)
    told = watched.record.close(BEGIN_S + 2.0, None)
    assert told is not None
    assert told["connection"]["in_wh"] == pytest.approx(1.667)
