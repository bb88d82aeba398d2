"""Nothing of the devices crosses the interface: the parent sees one resource, on the published grid."""

from __future__ import annotations

import ast
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway.parent
from config.messages import Offer, Telemetry
from config.vocabulary import POWER_W, SOC, DeviceKind, Quality, Sample
from gateway.control.clearing import Bid, make_curve, taken_at
from gateway.control.decision import decide, initial_state
from gateway.control.model import DEFAULT_CURVES_PU, DeviceModel, SiteModel
from gateway.control.orders_in_force import OrdersInForce
from gateway.image import DeviceImage, Image
from gateway.parent.aggregate import OFFER_PRICES_PER_KWH, compliance, flexibility, offer, telemetry
from tests.control.plant import device, site

UTC_S = datetime(2026, 6, 8, 10, 2, tzinfo=UTC).timestamp()
REST_W = 12_301.3
STEP_W = 1000.0
"""1 % of the connection's 100 kW."""

PACKAGE = Path(gateway.parent.__path__[0])
DEVICE_SIDE = ("gateway.control", "gateway.image", "gateway.composition", "gateway.snapshot", "drivers.driver")


def battery(name: str, rating_w: float, capacity_wh: float, *, tr90_s: float = 0.2) -> DeviceModel:
    return device(name, DeviceKind.BATTERY, rating_w, capacity_wh=capacity_wh, tr90_s=tr90_s)


def published(model: SiteModel, soc: float = 0.5) -> tuple[Telemetry, Offer]:
    """What the parent of a site hears while all its devices stand at 0 W and the meter reads the rest alone."""
    now_s = 10.0
    samples = {POWER_W: Sample(0.0, Quality.GOOD, now_s), SOC: Sample(soc, Quality.GOOD, now_s)}
    devices = {one.name: DeviceImage(samples, True) for one in model.devices}
    devices["meter"] = DeviceImage({POWER_W: Sample(REST_W, Quality.GOOD, now_s)}, True)
    image = Image(now_s, MappingProxyType(devices))
    decision = decide(model, image, OrdersInForce(), initial_state(model))
    found = flexibility(model, image, decision)
    assert found is not None
    told = telemetry(model, image, decision, UTC_S, None, compliance(decision))
    return told, offer(found, UTC_S, "offer-1")


def as_bytes(messages: tuple[Telemetry, Offer]) -> bytes:
    return b"\n".join(message.model_dump_json().encode() for message in messages)


def test_the_publishers_never_import_what_knows_devices() -> None:
    for name in ("mqtt_parent.py", "publication.py", "utc.py"):
        tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not [module for module in imported if module.startswith((*DEVICE_SIDE, "gateway.parent.aggregate"))]


def test_two_sites_with_other_devices_and_the_same_aggregate_publish_the_same_bytes() -> None:
    one = site(battery("big", 40e3, 80e3))
    many = site(*(battery(f"small_{n}", 5e3, 10e3, tr90_s=0.12 + 0.01 * n) for n in range(8)))
    assert as_bytes(published(one)) == as_bytes(published(many))


def test_no_name_and_no_number_of_a_device_is_in_what_is_published() -> None:
    model = site(battery("secret_name", 23_457.0, 56_789.0))
    text = as_bytes(published(model)).decode()
    assert "secret_name" not in text
    assert not [number for number in ("23457", "56789") if number in text]


fleets = st.lists(st.integers(500, 30_000).map(float), min_size=1, max_size=8)


@given(fleets, st.data())
def test_however_a_rating_is_split_among_devices_the_bytes_are_the_same(
    ratings_w: list[float], data: st.DataObject
) -> None:
    whole = site(battery("one", sum(ratings_w), 2 * sum(ratings_w)))
    order = data.draw(st.permutations(ratings_w))
    split = site(*(battery(f"b{n}", each, 2 * each) for n, each in enumerate(order)))
    assert as_bytes(published(whole)) == as_bytes(published(split))


@given(fleets)
def test_every_number_of_an_offer_lies_on_its_grid_within_its_error(ratings_w: list[float]) -> None:
    model = site(*(battery(f"b{n}", each, 2 * each) for n, each in enumerate(ratings_w)))
    made = published(model)[1]
    bids = [Bid(one.curve, one.min_w, one.max_w) for one in model.devices]
    for each in made.intervals:
        numbers = (each.lower_w, each.upper_w, *(point.power_w for point in each.curve))
        assert all(abs(number / STEP_W - round(number / STEP_W)) < 1e-9 for number in numbers)
        assert all(number % STEP_W == 0.0 for number in (each.energy_up_wh, each.energy_down_wh))
        for price, point in zip(OFFER_PRICES_PER_KWH, each.curve, strict=True):
            own_w = min(max(REST_W + taken_at(bids, price).total_w, each.lower_w), each.upper_w)
            assert abs(point.power_w - own_w) <= made.error_bound_w + 1e-6
    assert made.response_s * 10.0 == pytest.approx(round(made.response_s * 10.0))


@given(st.floats(2_000.0, 80_000.0), st.floats(-0.49, 0.49))
def test_a_reader_of_the_curve_cannot_tell_a_rating_within_the_grids_resolution(rating_w: float, part: float) -> None:
    """The best a reader can do is the step of the curve: every rating of the same cell gives the same curve."""
    middle_w = round(rating_w / STEP_W) * STEP_W
    inverter = make_curve([(price, power * middle_w) for price, power in DEFAULT_CURVES_PU[DeviceKind.BATTERY]])
    other_w = middle_w + part * STEP_W
    other = make_curve([(price, power * other_w) for price, power in DEFAULT_CURVES_PU[DeviceKind.BATTERY]])
    rest_w = round(REST_W / STEP_W) * STEP_W
    for price in OFFER_PRICES_PER_KWH:
        read = [
            round((rest_w + taken_at([Bid(curve, -w, w)], price).total_w) / STEP_W)
            for curve, w in ((inverter, middle_w), (other, other_w))
        ]
        ends = abs(inverter.limits_at(price)[1]) == middle_w
        assert read[0] == read[1] if ends else abs(read[0] - read[1]) <= 1
