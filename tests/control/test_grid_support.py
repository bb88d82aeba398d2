"""Volt-watt and frequency-watt of the site: curves, responses, and what they leave of net power beside the limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.grid_functions import FrequencyDroop, VoltWatt
from config.grid_support import GridSupport
from config.loading import load_profile, load_site, shipped_profiles
from config.vocabulary import FREQUENCY_HZ, VOLTAGE_V, DeviceKind, Quality, Quantity, Sample
from gateway.control.envelope import SupportBounds
from gateway.control.grid_support import GridSupportState, droop_pu, on_curve
from gateway.control.model import SiteModel, build_site_model
from gateway.control.orders_in_force import LimitInForce, OrdersInForce
from gateway.image import DeviceImage, Image
from gateway.why import functions
from tests.control.plant import Plant, device, site

FREE = OrdersInForce()
PV = device("pv", DeviceKind.INVERTER, 60e3)
BATTERY = device("battery", DeviceKind.BATTERY, 50e3)
VOLT_WATT = GridSupport(volt_watt=VoltWatt(response_s=0.5))
FREQUENCY_WATT = GridSupport(frequency_watt=FrequencyDroop(response_s=0.5))


@dataclass
class Grid(Plant):
    """A plant whose meter shows voltage and frequency; None: it does not."""

    voltage_v: float | None = 230.0
    frequency_hz: float | None = 50.0

    def image(self) -> Image:
        image = super().image()
        shown = {VOLTAGE_V: self.voltage_v, FREQUENCY_HZ: self.frequency_hz}
        samples = {
            point: Sample(value, Quality.BAD if value is None else Quality.GOOD, image.now_s)
            for point, value in shown.items()
        }
        meter = DeviceImage({**image.devices["meter"].samples, **samples}, True)
        return Image(image.now_s, MappingProxyType({**image.devices, "meter": meter}))


def with_support(support: GridSupport) -> SiteModel:
    return site(PV, BATTERY, grid_support=support)


@pytest.mark.parametrize(
    ("voltage_pu", "most_pu"), [(0.9, 1.0), (1.06, 1.0), (1.08, 0.5), (1.10, 0.0), (1.3, 0.0), (1.07, 0.75)]
)
def test_volt_watt_is_the_curve_of_table_10(voltage_pu: float, most_pu: float) -> None:
    assert on_curve(VoltWatt().curve, voltage_pu) == pytest.approx(most_pu)


@pytest.mark.parametrize(
    ("deviation_hz", "less_pu"), [(0.036, 0.0), (-0.03, 0.0), (0.161, 0.05), (-0.161, -0.05), (5.0, 1.0), (-5.0, -1.0)]
)
def test_frequency_watt_is_the_droop_of_table_23(deviation_hz: float, less_pu: float) -> None:
    assert droop_pu(FrequencyDroop(), deviation_hz, 50.0) == pytest.approx(less_pu)


def test_high_voltage_lowers_export_and_is_named() -> None:
    plant = Grid(with_support(VOLT_WATT), rest_w=0.0, available_w={"pv": 50e3})
    plant.run(3, FREE)
    assert plant.net_w == pytest.approx(-50e3, rel=0.02)
    plant.voltage_v = 1.09 * 230.0
    plant.run(4, FREE)
    assert plant.net_w == pytest.approx(-25e3, abs=1e3)
    assert plant.decision is not None
    assert plant.decision.binding == "volt-watt"
    step = next(one for one in functions(plant.decision) if one["function"] == "grid support")
    assert step["lower_source"] == "volt-watt"
    assert step["lower_w"] == pytest.approx(-25e3, abs=300)
    plant.voltage_v = 230.0
    plant.run(6, FREE)
    assert plant.net_w == pytest.approx(-50e3, rel=0.02)


def test_low_frequency_makes_the_devices_give_more_than_they_had() -> None:
    plant = Grid(with_support(FREQUENCY_WATT), rest_w=20e3)
    plant.run(3, FREE)
    assert plant.net_w == pytest.approx(20e3, abs=100)
    plant.frequency_hz = 49.714
    plant.run(4, FREE)
    assert plant.net_w == pytest.approx(10e3, abs=500), "0.25 Hz beyond the deadband are 10 % of 100 kW"
    plant.rest_w = 35e3
    plant.run(3, FREE)
    assert plant.net_w == pytest.approx(25e3, abs=500), "what others take is not made up for"
    plant.frequency_hz = 50.0
    plant.run(4, FREE)
    assert plant.net_w == pytest.approx(35e3, abs=100)


def test_high_frequency_lowers_generation() -> None:
    plant = Grid(with_support(FREQUENCY_WATT), rest_w=0.0, available_w={"pv": 40e3})
    plant.run(3, FREE)
    plant.frequency_hz = 50.536
    plant.run(4, FREE)
    assert plant.net_w == pytest.approx(-20e3, abs=1e3)
    assert plant.decision is not None
    assert plant.decision.binding == "frequency-watt"


def test_what_is_no_longer_measured_relaxes_nothing() -> None:
    plant = Grid(with_support(VOLT_WATT), rest_w=0.0, available_w={"pv": 50e3}, voltage_v=1.10 * 230.0)
    plant.run(5, FREE)
    for voltage_v in (None, 0.0, 1e6):
        plant.voltage_v = voltage_v
        plant.run(2, FREE)
        assert plant.net_w >= -1e3


def test_a_limit_comes_before_it_and_it_is_reported_unmet() -> None:
    plant = Grid(with_support(VOLT_WATT), rest_w=0.0, available_w={"pv": 50e3}, voltage_v=1.10 * 230.0)
    imports = OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.GENERATION_W, 5e3),))
    plant.run(3, imports)
    assert plant.net_w >= -5e3
    state = GridSupportState()
    assert state.bounds(replace(plant.model, grid_support=None), plant.image(), 0.0, 0.0, 1.0) == SupportBounds()


def test_the_site_file_turns_it_on(tmp_path: Path) -> None:
    text = """
site: small
connection: {rating_w: 10000, meter: grid_meter}
fallback: {net_import_w: 5000, net_export_w: 0}
control: {grid_support: {volt_watt: {v1_pu: 1.05}, nominal_frequency_hz: 60}}
devices:
  grid_meter:
    profile: sunspec_meter
    address: {driver: modbus_tcp, host: 127.0.0.1}
    rating_w: 10000
"""
    path = tmp_path / "site.yaml"
    path.write_text(text)
    model = build_site_model(load_site(path), {"grid_meter": load_profile(shipped_profiles()["sunspec_meter"])})
    assert model.grid_support is not None
    assert model.grid_support.volt_watt == VoltWatt(v1_pu=1.05)
    assert model.grid_support.frequency_watt is None


measurements = st.one_of(st.none(), st.floats(), st.floats(180.0, 280.0))
frequencies = st.one_of(st.none(), st.floats(), st.floats(47.0, 53.0))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(measurements, frequencies, st.floats(0.0, 60e3), st.floats(0.0, 60e3)), min_size=1, max_size=8),
    st.floats(0.0, 100e3),
)
def test_no_sequence_of_measurements_breaks_a_bound(
    story: list[tuple[float | None, float | None, float, float]], limit_w: float
) -> None:
    both = GridSupport(volt_watt=VoltWatt(), frequency_watt=FrequencyDroop())
    plant = Grid(with_support(both))
    orders = OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.NET_EXPORT_W, limit_w),))
    for voltage_v, frequency_hz, rest_w, available_w in story:
        plant.voltage_v, plant.frequency_hz = voltage_v, frequency_hz
        plant.rest_w, plant.available_w["pv"] = rest_w, available_w
        for _ in range(3):
            decision = plant.cycle(orders)
            envelope = decision.envelope
            assert -limit_w - 1e-6 <= envelope.lower.value_w <= envelope.upper.value_w <= 100e3
            for setpoint in decision.setpoints:
                model = next(one for one in plant.model.devices if one.name == setpoint.device)
                assert model.min_w - 1e-6 <= setpoint.power_w <= model.max_w + 1e-6
