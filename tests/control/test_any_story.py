"""Whatever comes: no setpoint outside its bounds, no exception, and no limit exceeded that could have been kept."""

from __future__ import annotations

from math import inf, nan
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from config.vocabulary import (
    CHARGING_STATE,
    MAX_CHARGE_W,
    MAX_DISCHARGE_W,
    POWER_W,
    SESSION_ENERGY_WH,
    SETPOINT_READBACK_W,
    SOC,
    Absent,
    DeviceKind,
    Quality,
    Quantity,
    Sample,
)
from gateway.bench.feedback_plant import FeedbackPlant, Sampling, plant_device, plant_site
from gateway.control.decision import decide, initial_state
from gateway.control.orders_in_force import (
    DispatchInForce,
    LimitInForce,
    OrdersInForce,
    OverrideInForce,
    RegulationInForce,
)
from gateway.image import DeviceImage, Image

DEVICES = (
    plant_device("battery", DeviceKind.BATTERY, 50e3, 0.2, 0.0),
    plant_device("slow", DeviceKind.BATTERY, 30e3, 5.0, 2.0),
    plant_device("pv", DeviceKind.INVERTER, 60e3, 1.0, 0.5),
    plant_device("charger", DeviceKind.CHARGER, 22080.0, 1.0, 3.0),
)
MODEL = plant_site(DEVICES)

numbers = st.one_of(
    st.floats(-120e3, 120e3), st.sampled_from([0.0, nan, inf, -inf, 1e12, -1e12]), st.floats(allow_nan=True)
)
samples = st.builds(
    lambda value, quality, ago_s: (value, quality, ago_s),
    st.one_of(numbers, st.sampled_from(["A", "B", "C", "F", "", None])),
    st.sampled_from(list(Quality)),
    st.one_of(st.just(0.0), st.floats(-5.0, 90.0)),
)
POINTS = (
    POWER_W,
    SOC,
    CHARGING_STATE,
    MAX_CHARGE_W,
    MAX_DISCHARGE_W,
    SESSION_ENERGY_WH,
    SETPOINT_READBACK_W,
    "current_l1_a",
    "current_l2_a",
    "current_l3_a",
)
device_images = st.tuples(st.dictionaries(st.sampled_from(POINTS), samples, max_size=5), st.booleans())
images = st.tuples(
    st.dictionaries(st.sampled_from(["meter", *(one.name for one in DEVICES)]), device_images, max_size=5),
    st.dictionaries(st.sampled_from([one.name for one in DEVICES]), st.floats(0.0, 5.0), max_size=2),
)
magnitudes = st.floats(0.0, 150e3)
limits = st.builds(
    LimitInForce,
    st.just("dso"),
    st.just("l"),
    st.sampled_from(list(Quantity)),
    st.one_of(magnitudes, st.sampled_from(list(Absent))),
)
orders = st.builds(
    OrdersInForce,
    limits=st.lists(limits, max_size=4).map(tuple),
    dispatch=st.one_of(
        st.none(),
        st.builds(
            DispatchInForce,
            st.just("dso"),
            st.sampled_from(["d1", "d2"]),
            st.floats(-100e3, 100e3),
            st.just(100.0),
            st.one_of(st.none(), st.floats(1.0, 1e5)),
            magnitudes,
            magnitudes,
            st.one_of(st.none(), st.floats(-1.0, 1.0)),
        ),
    ),
    regulation=st.one_of(
        st.none(),
        st.builds(RegulationInForce, st.just("dso"), st.just(1), st.floats(-1, 1), st.just(100.0), st.just(4.0)),
    ),
    overrides=st.lists(
        st.builds(
            lambda device, one_w, other_w: OverrideInForce(
                "operator", "o", device, min(one_w, other_w), max(one_w, other_w)
            ),
            st.sampled_from([one.name for one in DEVICES]),
            st.floats(-60e3, 60e3),
            st.floats(-60e3, 60e3),
        ),
        max_size=2,
    ).map(tuple),
    fallback_reason=st.sampled_from(["", "dso silent"]),
    meter_released=st.sampled_from(["", "r1", "r2"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(images, orders, st.floats(0.0, 20.0)), min_size=1, max_size=12))
def test_no_image_and_no_order_makes_a_wrong_setpoint_or_an_exception(
    story: list[
        tuple[
            tuple[dict[str, tuple[dict[str, tuple[object, Quality, float]], bool]], dict[str, float]],
            OrdersInForce,
            float,
        ]
    ],
) -> None:
    state, now_s = initial_state(MODEL), 100.0
    bounds = {one.name: (one.min_w, one.max_w, one.minimum_w) for one in DEVICES}
    for (devices, unanswered), in_force, wait_s in story:
        now_s += wait_s
        known = {
            name: DeviceImage(
                {point: Sample(value, quality, now_s - ago_s) for point, (value, quality, ago_s) in points.items()},  # type: ignore[arg-type]
                present,
            )
            for name, (points, present) in devices.items()
        }
        silent = {name: now_s - ago_s for name, ago_s in unanswered.items()}
        image = Image(now_s, MappingProxyType(known), MappingProxyType(silent))
        decision = decide(MODEL, image, in_force, state)
        for setpoint in decision.setpoints:
            least_w, most_w, minimum_w = bounds[setpoint.device]
            assert least_w - 1e-6 <= setpoint.power_w <= most_w + 1e-6
            held = any(one.device == setpoint.device for one in in_force.overrides)
            assert held or setpoint.power_w <= 1e-6 or setpoint.power_w >= minimum_w - 1e-6


lags = st.tuples(st.sampled_from([0.05, 0.2, 1.0, 5.0]), st.sampled_from([0.0, 0.5, 3.0]))
samplings = st.builds(
    Sampling,
    st.sampled_from([0.1, 1.0, 5.0]),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from([0.1, 1.0, 5.0]),
    st.sampled_from([0.0, 0.1]),
)


# Loads that jump to about twice a limit: what control leaves of the jump looks like a mirror of its answer.
TWICE_A_LIMIT = ((0.05, 0.0), (0.05, 3.0), Sampling(0.1, 0.0, 5.0, 0.0), 0.5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(*TWICE_A_LIMIT, [(0.0, 17529.0, 0.0), (30485.0, 14066.0, 0.0)])
@example(*TWICE_A_LIMIT, [(0.0, 17529.0, 0.0), (33045.0, 0.0, 0.0)])
@example(*TWICE_A_LIMIT, [(6057.0, 21422.0, 0.0), (36986.0, 21851.0, 0.0)])
@given(
    lags,
    lags,
    samplings,
    st.sampled_from([0.5, 1.0, 2.0]),
    st.lists(st.tuples(st.floats(0.0, 60e3), magnitudes, magnitudes), min_size=1, max_size=3),
)
def test_a_limit_that_can_be_kept_is_kept_once_everything_had_its_time(
    first: tuple[float, float],
    second: tuple[float, float],
    sampling: Sampling,
    lag_scale: float,
    story: list[tuple[float, float, float]],
) -> None:
    one = plant_device("one", DeviceKind.BATTERY, 40e3, *first)
    other = plant_device("other", DeviceKind.BATTERY, 30e3, *second)
    plant = FeedbackPlant(plant_site((one, other)), sampling, lag_scale=lag_scale)
    in_force = OrdersInForce()
    slowest_s = lag_scale * max(sum(first), sum(second))
    for rest_w, import_w, export_w in story:
        ages_s = sampling.meter_interval_s + sampling.meter_delay_s + sampling.device_interval_s
        plant.rest_w = rest_w
        plant.run(1.0 + 2.0 * ages_s, in_force)
        in_force = OrdersInForce(
            limits=(
                LimitInForce("dso", "i", Quantity.NET_IMPORT_W, import_w),
                LimitInForce("dso", "e", Quantity.NET_EXPORT_W, export_w),
            )
        )
        plant.run(5.0 + 3.0 * (slowest_s + ages_s), in_force)
        trace = plant.run(2.0, in_force)
        most_w = max(import_w, rest_w - 70e3) + 1e3
        least_w = min(-export_w, rest_w + 70e3) - 1e3
        assert max(trace) <= most_w
        assert min(trace) >= least_w
        assert plant.decision is not None
        assert plant.decision.meter == ""


@pytest.mark.parametrize("order", ["dispatch", "limit"])
def test_the_same_images_and_orders_give_the_same_setpoints_bit_for_bit(order: str) -> None:
    def story() -> list[tuple[tuple[str, float], ...]]:
        plant = FeedbackPlant(MODEL, Sampling(0.2, 0.1, 0.5), noise_w=300.0, available_w={"pv": 30e3})
        decided = []
        for number in range(150):
            value = 10e3 * (number // 30)
            in_force = (
                OrdersInForce(dispatch=DispatchInForce("dso", str(value), value - 20e3, 0.0, None, 0.0, 0.0, None))
                if order == "dispatch"
                else OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.NET_EXPORT_W, value),))
            )
            decision = plant.cycle(in_force)
            decided.append(tuple((one.device, one.power_w) for one in decision.setpoints))
        return decided

    assert story() == story()
