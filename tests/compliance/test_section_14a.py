"""Section 14a EnWG: the minimum power of one and of several devices, its division, and the reductions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.compliance import Section14a
from config.vocabulary import Absent, Quantity
from gateway.compliance.section_14a import (
    Controllable,
    Reduction,
    controllables,
    divided_w,
    minimum_power_w,
)
from tests.compliance.cycle_table import OFF, Row, Site, play

LOAD = Quantity.CONTROLLABLE_LOAD_W


def device(case: str, power_w: float, name: str = "") -> Controllable:
    return Controllable((name or case,), case, power_w)


EV, BATTERY, HEAT_PUMP = (
    device("charge_point", 11e3, "ev"),
    device("storage", 10e3, "battery"),
    device("heat_pump", 9e3, "heat_pump"),
)


@pytest.mark.parametrize(
    ("devices", "ems_w", "direct_w"),
    [
        ([], 0.0, 0.0),
        ([EV], 4200.0, 4200.0),
        ([EV, BATTERY], 7560.0, 8400.0),
        ([EV, BATTERY, HEAT_PUMP], 10_500.0, 12_600.0),
        ([EV] * 4, 13_020.0, 16_800.0),
        ([EV] * 9, 4200.0 + 8 * 0.45 * 4200.0, 37_800.0),
        ([EV] * 20, 4200.0 + 19 * 0.45 * 4200.0, 84_000.0),
        ([device("heat_pump", 20e3)], 8000.0, 8000.0),
        ([EV, device("heat_pump", 20e3)], 8000.0 + 0.8 * 4200.0, 12_200.0),
        ([device("heat_pump", 20e3), device("cooling", 30e3)], 12_000.0 + 0.8 * 4200.0, 20_000.0),
        ([device("heat_pump", 11e3)], 4200.0, 4200.0),
    ],
)
def test_the_minimum_power(devices: list[Controllable], ems_w: float, direct_w: float) -> None:
    assert minimum_power_w(devices) == pytest.approx(ems_w)
    assert minimum_power_w(devices, "direct") == pytest.approx(direct_w)


def test_each_number_of_devices_has_its_factor() -> None:
    factors = [(minimum_power_w([EV] * n) / 4200.0 - 1.0) / (n - 1) for n in range(2, 11)]
    assert factors == pytest.approx([0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.45])


def test_heat_pumps_count_as_one_and_small_devices_not_at_all() -> None:
    two = [device("heat_pump", 3e3, "one"), device("heat_pump", 3e3, "two"), device("storage", 4200.0)]
    assert controllables(two) == (Controllable(("one", "two"), "heat_pump", 6e3),)


def test_a_budget_in_watts_over_car_battery_and_heat_pump() -> None:
    assert divided_w(10_500.0, [EV, BATTERY, HEAT_PUMP]) == pytest.approx(
        {"ev": 3500.0, "battery": 3500.0, "heat_pump": 3500.0}
    )
    assert divided_w(20e3, [EV, device("heat_pump", 20e3)]) == pytest.approx(
        {"ev": 4200.0 + 6800.0 * 7800.0 / 18_800.0, "heat_pump": 8000.0 + 12_000.0 * 7800.0 / 18_800.0}
    )


@given(
    st.floats(-1e3, 1e6),
    st.lists(st.tuples(st.sampled_from(["charge_point", "storage", "heat_pump"]), st.floats(4201.0, 1e5)), max_size=12),
)
def test_the_shares_add_up_and_none_is_above_its_power(budget_w: float, drawn: list[tuple[str, float]]) -> None:
    devices = [device(case, power_w, str(index)) for index, (case, power_w) in enumerate(drawn)]
    shares = divided_w(budget_w, devices)
    powers_w = [one.power_w for one in devices]
    assert sum(shares.values()) == pytest.approx(min(max(budget_w, 0.0), sum(powers_w)), abs=1e-3)
    for share_w, power_w in zip(shares.values(), powers_w, strict=True):
        assert -1e-6 <= share_w <= power_w * (1 + 1e-9) + 1e-6


def reduction(**more: object) -> Site:
    settings = Section14a.model_validate(
        {"source": "dso", "devices": {"ev": "charge_point", "battery": "storage"}, **more}
    )
    return Site(Reduction(settings, [EV, BATTERY]), quantity=LOAD)


def test_reductions_come_and_go_and_silence_is_the_minimum() -> None:
    play(
        reduction(),
        [
            Row(0, {}, "failsafe", {LOAD: 7560.0}),
            Row(1, {"heartbeat": True}, "unlimited", {}, ("A1 4.3",)),
            Row(2, {"limit": ("l1", 9000.0, 100.0)}, "reduced", {LOAD: 9000.0}, ("A1 4.2",)),
            Row(102, {}, "unlimited", {}, ("A1 4.3",)),
            Row(103, {"limit": ("l2", Absent.UNKNOWN)}, "reduced", {LOAD: 7560.0}, ("A1 4.2",)),
            Row(104, {"limit": ("l3", OFF)}, "unlimited", {}, ("A1 4.3",)),
            Row(121.1, {}, "failsafe", {LOAD: 7560.0}, ("A1 4.5",)),
            Row(122, {"limit": ("l4", 9000.0)}, "failsafe", {LOAD: 7560.0}),
            Row(123, {"limit": ("l5", 3000.0)}, "failsafe", {LOAD: 3000.0}),
        ],
    )


@pytest.mark.parametrize(("raises", "bound_w"), [(False, 3000.0), (True, 7560.0)])
def test_less_than_the_minimum_is_said_and_held_as_the_site_file_says(raises: bool, bound_w: float) -> None:
    play(
        reduction(raise_to_minimum=raises),
        [
            Row(0, {"heartbeat": True}, "unlimited", {}, ("A1 4.3",)),
            Row(1, {"limit": ("l1", 3000.0)}, "reduced below the minimum", {LOAD: bound_w}, ("A1 4.5",)),
        ],
    )
