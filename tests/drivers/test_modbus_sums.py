"""A value that a device gives only in parts is there when all of them are, and as good as the worst of them."""

import math

from hypothesis import given
from hypothesis import strategies as st

from config.vocabulary import Quality, Sample
from drivers.modbus.sums import Sums
from tests.drivers.modbus_server import make_profile

CHARGE = {"at": {"address": 0}, "unit": "W", "poll": "fast"}
DISCHARGE = {"at": {"address": 1}, "unit": "W", "poll": "fast"}
PARTS = {"charge_w": 1.0, "discharge_w": -1.0}
POWERS = st.floats(-1e6, 1e6)


def sums(**more: object) -> Sums:
    power = {"sum": PARTS, "unit": "W", "poll": "fast", **more}
    return Sums(make_profile({"power_w": power, "charge_w": CHARGE, "discharge_w": DISCHARGE}))


def samples(charge: Sample, discharge: Sample) -> dict[str, Sample]:
    return {"charge_w": charge, "discharge_w": discharge}


def good(value: float | None, measured_s: float = 1.0) -> Sample:
    return Sample(value, Quality.GOOD, measured_s)


@given(POWERS, POWERS)
def test_a_sum_is_its_parts_by_their_factors(charge: float, discharge: float) -> None:
    read = samples(good(charge), good(discharge))
    sums().add(read)
    value = read["power_w"].value
    assert isinstance(value, float)
    assert math.isclose(value, charge - discharge, abs_tol=1e-6)


def test_a_sum_is_as_old_and_as_good_as_the_worst_part() -> None:
    read = samples(good(500.0, 3.0), Sample(100.0, Quality.UNCERTAIN, 2.0))
    sums().add(read)
    assert read["power_w"] == Sample(400.0, Quality.UNCERTAIN, 2.0)


def test_a_bad_part_makes_a_bad_sum() -> None:
    read = samples(good(500.0, 3.0), Sample(None, Quality.BAD, 2.0))
    sums().add(read)
    assert read["power_w"] == Sample(None, Quality.BAD, 2.0)


def test_a_sum_outside_its_range_is_bad() -> None:
    read = samples(good(500.0), good(0.0))
    sums(range=(-400, 400)).add(read)
    assert read["power_w"].quality is Quality.BAD


def test_a_part_that_is_not_there_leaves_the_sum_as_it_was() -> None:
    read = {"charge_w": good(500.0)}
    sums().add(read)
    assert "power_w" not in read


def test_a_point_comes_from_its_parts_or_from_itself() -> None:
    assert sums().needs("power_w") == {"charge_w", "discharge_w"}
    assert sums().needs("charge_w") == {"charge_w"}
