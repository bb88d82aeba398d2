"""`gateway bench control`: the decision alone on a synthetic image, and how `clear` grows with its resources."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log2
from types import MappingProxyType
from typing import Any, Final

from config.vocabulary import CHARGING_STATE, POWER_W, SOC, DeviceKind, Quality, Sample
from gateway.control.clearing import Bid, clear, make_curve
from gateway.control.decision import Decision, decide, initial_state
from gateway.control.model import DEFAULT_CURVES_PU, DeviceModel, SiteModel
from gateway.control.orders_in_force import DispatchInForce, OrdersInForce
from gateway.cycle import Figures
from gateway.image import DeviceImage, Image

CYCLES: Final = 500
SCALES: Final = (10, 30, 100, 300, 1_000, 3_000, 10_000)
CLEARED: Final = 100_000
LEAST_CLEARINGS: Final = 100
"""Each number of resources is cleared until so many were, and at least so often."""

PERIOD_S: Final = 0.1
KINDS: Final = (DeviceKind.BATTERY, DeviceKind.INVERTER, DeviceKind.CHARGER)
CHARGER_STEP_W: Final = 690.0  # 1 A on three phases
CHARGER_LEAST_W: Final = 4140.0  # 6 A on three phases


def synthetic_site(devices: int, rng: random.Random) -> SiteModel:
    """Batteries, inverters and chargers of any rating behind a meter."""
    models = tuple(_device(index, rng.uniform(5e3, 60e3)) for index in range(devices))
    rating_w = sum(model.rating_w for model in models)
    return SiteModel(
        name="bench",
        rating_w=rating_w,
        meter="meter",
        phases=3,
        nominal_voltage_v=230.0,
        max_import_w=rating_w,
        max_export_w=rating_w,
        fuse_a=None,
        fallback_import_w=None,
        fallback_export_w=None,
        rest_min_w=0.0,
        rest_max_w=rating_w,
        rest_widens_w_per_s=0.0,
        price_per_kwh=0.25,
        stale_after_s=1.0,
        margin_w=0.0,
        integral_per_s=0.1,
        devices=models,
    )


def _device(index: int, rating_w: float) -> DeviceModel:
    kind = KINDS[index % len(KINDS)]
    charger = kind is DeviceKind.CHARGER
    return DeviceModel(
        name=f"device_{index}",
        kind=kind,
        rating_w=rating_w,
        min_w=0.0 if charger else -rating_w,
        max_w=0.0 if kind is DeviceKind.INVERTER else rating_w,
        curve=make_curve([(price, power * rating_w) for price, power in DEFAULT_CURVES_PU[kind]]),
        ceiling=kind is not DeviceKind.BATTERY,
        step_w=CHARGER_STEP_W if charger else None,
        minimum_w=CHARGER_LEAST_W if charger else 0.0,
        tr90_s=0.2,
    )


class SyntheticField:
    """Devices that do what they are asked; inverters as far as there is sun."""

    def __init__(self, model: SiteModel, rng: random.Random) -> None:
        self.model = model
        self.now_s = 0.0
        self._available_w = {
            one.name: one.rating_w * rng.random() for one in model.devices if one.kind is DeviceKind.INVERTER
        }
        self._powers_w = {one.name: 0.0 for one in model.devices}

    def image(self) -> Image:
        """The next cycle's image."""
        self.now_s += PERIOD_S
        devices = {one.name: self._device_image(one) for one in self.model.devices}
        devices["meter"] = DeviceImage({POWER_W: self._good(sum(self._powers_w.values()))}, True)
        return Image(self.now_s, MappingProxyType(devices))

    def follow(self, decision: Decision) -> None:
        """Take the setpoints."""
        for name, power_w, _ in decision.setpoints:
            self._powers_w[name] = max(power_w, -self._available_w.get(name, -power_w))

    def _device_image(self, one: DeviceModel) -> DeviceImage:
        samples = {POWER_W: self._good(self._powers_w[one.name])}
        if one.kind is DeviceKind.BATTERY:
            samples[SOC] = self._good(0.5)
        elif one.kind is DeviceKind.CHARGER:
            samples[CHARGING_STATE] = Sample("C", Quality.GOOD, self.now_s)
        return DeviceImage(samples, True)

    def _good(self, value: float) -> Sample:
        return Sample(value, Quality.GOOD, self.now_s)


def run_control_bench(devices: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """The figures as the command prints them. One thread, no input or output, no collector pass over what lives on.

    `scaling`: the median and the least time of a clearing at each number of resources, and the least over n log n which
    does not rise where the time grows no faster. The least, because only that is not also the machine's other work.
    """
    progress(f"{CYCLES} decisions over {devices} devices")
    decision_ms = _decisions(devices).summary()
    scaling: list[dict[str, float | None]] = []
    for resources in SCALES:
        progress(f"clearings of {resources} resources")
        times_ms = _clearings(resources)
        cleared_ms, least_ms = _summary(times_ms), min(times_ms)
        scaling.append(
            {
                "resources": resources,
                "clear_ms": cleared_ms["p50"],
                "least_ms": round(least_ms, 4),
                "ns_per_n_log2_n": round(least_ms * 1e6 / (resources * log2(resources)), 2),
            }
        )
    return {
        "devices": devices,
        "decision_ms": decision_ms,
        f"clear_{SCALES[-1]}_ms": {"p50": cleared_ms["p50"], "p99": cleared_ms["p99"]},
        "scaling": scaling,
    }


@contextmanager
def _without_what_lives_on() -> Iterator[None]:
    """As the control process: what was made before is no part of a collector's pass."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _summary(times_ms: list[float]) -> dict[str, float | None]:
    figures = Figures()
    for time_ms in times_ms:
        figures.add(time_ms)
    return figures.summary()


def _decisions(devices: int) -> Figures:
    rng = random.Random(devices)
    model = synthetic_site(devices, rng)
    field, state, figures = SyntheticField(model, rng), initial_state(model), Figures()
    net_w = 0.0
    with _without_what_lives_on():
        for number in range(CYCLES):
            if number % 5 == 0:
                net_w = rng.uniform(-0.3, 0.3) * model.rating_w
            dispatch = DispatchInForce("bench", str(number // 5), net_w, 0.0, None, 0.0, 0.0, None)
            orders, image = OrdersInForce(dispatch=dispatch), field.image()
            started_s = time.perf_counter()
            decision = decide(model, image, orders, state)
            figures.add((time.perf_counter() - started_s) * 1e3)
            field.follow(decision)
    return figures


def _clearings(resources: int) -> list[float]:
    """Milliseconds of each."""
    rng, times_ms = random.Random(resources), []
    bids = [_bid(one, rng) for one in synthetic_site(resources, rng).devices]
    least_w, most_w = sum(bid.lower_w for bid in bids), sum(bid.upper_w for bid in bids)
    with _without_what_lives_on():
        for _ in range(max(CLEARED // resources, LEAST_CLEARINGS)):
            target_w = rng.uniform(least_w, most_w)
            started_s = time.perf_counter()
            clear(bids, target_w)
            times_ms.append((time.perf_counter() - started_s) * 1e3)
    return times_ms


def _bid(one: DeviceModel, rng: random.Random) -> Bid:
    """A device that is free only in part, as most are at any time."""
    return Bid(one.curve, one.min_w * rng.random(), one.max_w * rng.random())
