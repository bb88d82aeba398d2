"""The layer as one resource: what a parent may know of it, made from what only the layer itself may see.

Whatever is published is made from these objects and from nothing else, so that no device can be in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil, floor
from typing import Final, Literal

from config.messages import Compliance, CurvePointMessage, ForecastBand, Offer, OfferInterval, Telemetry
from config.vocabulary import (
    ENERGY_DOWN_WH,
    ENERGY_EXPORT_WH,
    ENERGY_IMPORT_WH,
    ENERGY_UP_WH,
    FREQUENCY_HZ,
    POWER_W,
    SOC,
    VOLTAGE_V,
    DeviceKind,
    Quality,
)
from gateway.control.clearing import Bid, taken_at
from gateway.control.decision import Decision
from gateway.control.interchange import InterchangeCost, local_price
from gateway.control.model import DeviceModel, SiteModel
from gateway.control.resources import SLOW_POINT_STALE_S
from gateway.image import DeviceImage, Image
from gateway.parent.intervals import POWER_GRID_PU as POWER_GRID_PU
from gateway.parent.intervals import PlannedInterval
from gateway.parent.utc import utc_datetime

OFFER_INTERVAL_S: Final = 300.0
OFFER_INTERVALS: Final = 2
"""The present interval and the next one."""

OFFER_PRICES_PER_KWH: Final = tuple(round(-0.05 + 0.05 * step, 2) for step in range(14))
PRICE_GRID_PER_KWH: Final = 0.05
RESPONSE_GRID_S: Final = 0.1
ENERGY_GRID_S: Final = 3600.0
"""Energies lie on a grid of one step of power for this time."""

SLACK: Final = 1e-9
"""Of a step: a sum that reaches a grid line but for its last digit has reached it, in whatever order it was added."""


@dataclass(frozen=True, slots=True)
class Flexibility:
    """What the layer could do over an interval, on the published grid; load convention.

    `powers_w` are what it would take at `OFFER_PRICES_PER_KWH`, at most half a step from its own curve.
    """

    powers_w: tuple[float, ...]
    lower_w: float
    upper_w: float
    energy_up_wh: float
    energy_down_wh: float
    response_s: float
    power_step_w: float


def telemetry(
    model: SiteModel,
    image: Image,
    decision: Decision,
    utc_s: float,
    regulation_sequence: int | None,
    complies: Compliance,
) -> Telemetry:
    """The connection point's measurements, and whether what was asked is kept."""
    meter = image.devices.get(model.meter)

    def read(point: str, stale_after_s: float) -> float | None:
        return None if meter is None else meter.number(point, image.now_s, stale_after_s)

    measured_at, quality = None, Quality.BAD
    if meter is not None and decision.net_w is not None:
        sample = meter.sample(POWER_W)
        measured_at = utc_datetime(utc_s - (image.now_s - sample.measured_s))
        quality = sample.quality
    energies = [read(point, SLOW_POINT_STALE_S) for point in (ENERGY_IMPORT_WH, ENERGY_EXPORT_WH)]
    voltage, frequency = read(VOLTAGE_V, SLOW_POINT_STALE_S), read(FREQUENCY_HZ, SLOW_POINT_STALE_S)
    return Telemetry(
        issued_at=utc_datetime(utc_s),
        measured_at=measured_at,
        net_power_w=None if decision.net_w is None else round(decision.net_w, 1),
        energy_import_wh=None if energies[0] is None else max(energies[0], 0.0),
        energy_export_wh=None if energies[1] is None else max(energies[1], 0.0),
        voltage_v=None if voltage is None else max(voltage, 0.0),
        frequency_hz=None if frequency is None else max(frequency, 0.0),
        connection="unknown" if decision.net_w is None else "connected",
        quality=_QUALITY_TEXT[quality],
        regulation_sequence=regulation_sequence,
        compliance=complies,
    )


_QUALITY_TEXT: Final[dict[Quality, Literal["good", "uncertain", "bad"]]] = {
    Quality.GOOD: "good",
    Quality.UNCERTAIN: "uncertain",
    Quality.BAD: "bad",
}


def compliance(decision: Decision, *, bypassed: bool = False, promised_twice: bool = False) -> Compliance:
    """Whether the layer keeps what it was told; no reason names a device."""
    if decision.unmet:
        return Compliance(state="unmet", reason="the order is beyond what the layer can do now")
    if "fallback" in decision.envelope.upper.source or "fallback" in decision.envelope.lower.source:
        source = decision.envelope.upper.source + decision.envelope.lower.source
        unknown = source.count("says unknown")
        if decision.meter and decision.meter in source:
            return Compliance(state="fallback", reason="the meter is not believed")
        return Compliance(state="fallback", reason="a limit is unknown" if unknown else "the parent is not heard")
    if bypassed:
        return Compliance(state="bypassed", reason="something in the layer is commanded by somebody else")
    if promised_twice:
        return Compliance(state="bypassed", reason="a kilowatt was promised twice; the second award is refused")
    return Compliance(state="compliant")


def flexibility(
    model: SiteModel, image: Image, decision: Decision, cost: InterchangeCost | None = None
) -> Flexibility | None:
    """What the resources' present bounds and curves sum to; None before anything is measured.

    With the cost of the interchange it is what they come to at the parent's price; without it at their own.
    """
    if decision.rest_lower_w is None or decision.rest_upper_w is None:
        return None
    rest_w = (decision.rest_lower_w + decision.rest_upper_w) / 2.0
    usable = [resource for resource in decision.resources if resource.usable]
    bids = [Bid(one.curve, one.lower.value_w, one.upper.value_w) for one in usable]
    step_w = POWER_GRID_PU * model.rating_w
    lower_w = max(rest_w + sum(bid.lower_w for bid in bids), -model.max_export_w)
    upper_w = min(rest_w + sum(bid.upper_w for bid in bids), model.max_import_w)
    lower_w, upper_w = ceil(lower_w / step_w - SLACK) * step_w, floor(upper_w / step_w + SLACK) * step_w
    lower_w, upper_w = min(lower_w, upper_w), max(lower_w, upper_w)
    powers_w = [
        min(max(round((rest_w + _taken_w(bids, price, cost, rest_w)) / step_w) * step_w, lower_w), upper_w)
        for price in OFFER_PRICES_PER_KWH
    ]
    up_wh, down_wh = _energy(model.devices, image)
    slowest_s = max((one.model.response_s for one in usable), default=0.0)
    step_wh = step_w * ENERGY_GRID_S / 3600.0
    return Flexibility(
        tuple(powers_w),
        lower_w,
        upper_w,
        floor(up_wh / step_wh + SLACK) * step_wh,
        floor(down_wh / step_wh + SLACK) * step_wh,
        round(ceil(slowest_s / RESPONSE_GRID_S - SLACK) * RESPONSE_GRID_S, 3),
        step_w,
    )


def _taken_w(bids: Sequence[Bid], price: float, cost: InterchangeCost | None, rest_w: float) -> float:
    if cost is None:
        return taken_at(bids, price).total_w
    lower_w, upper_w = sum(bid.lower_w for bid in bids), sum(bid.upper_w for bid in bids)
    return local_price(bids, price, cost, rest_w, lower_w, upper_w).total_w


def offer(found: Flexibility, utc_s: float, offer_id: str, planned: Sequence[PlannedInterval] = ()) -> Offer:
    """The present interval and those to come as they are planned; without a plan the next one as the present.

    It is void when the last of them ends.
    """
    length_s = planned[0].length_s if planned else OFFER_INTERVAL_S
    start_s = utc_s // length_s * length_s
    grid = min((one.price_step_per_kwh for one in planned if one.price_step_per_kwh), default=PRICE_GRID_PER_KWH)
    now = [_present(found, start_s + at * length_s, length_s, grid) for at in range(1 if planned else OFFER_INTERVALS)]
    intervals = (*now, *(_to_come(found, one) for one in planned))
    last = intervals[-1]
    return Offer(
        id=offer_id,
        issued_at=utc_datetime(utc_s),
        expires_at=last.start + timedelta(seconds=last.duration_s),
        intervals=intervals,
        response_s=found.response_s,
        power_step_w=found.power_step_w,
        price_step_per_kwh=grid,
        error_bound_w=max(found.power_step_w / 2.0, *(one.error_w for one in planned), 0.0),
    )


def _present(found: Flexibility, start_s: float, length_s: float, price_step_per_kwh: float) -> OfferInterval:
    prices = [round(round(price / price_step_per_kwh) * price_step_per_kwh, 9) for price in OFFER_PRICES_PER_KWH]
    curve = zip(prices, found.powers_w, strict=True)
    return OfferInterval(
        start=utc_datetime(start_s),
        duration_s=length_s,
        curve=tuple(CurvePointMessage(price_per_kwh=price, power_w=power_w) for price, power_w in curve),
        lower_w=found.lower_w,
        upper_w=found.upper_w,
        ramp_w_per_s=_ramp_w_per_s(found),
        energy_up_wh=found.energy_up_wh,
        energy_down_wh=found.energy_down_wh,
    )


def _to_come(found: Flexibility, one: PlannedInterval) -> OfferInterval:
    low_w, middle_w, high_w = one.forecast_w
    return OfferInterval(
        start=utc_datetime(one.begin_utc_s),
        duration_s=one.length_s,
        curve=tuple(CurvePointMessage(price_per_kwh=price, power_w=power_w) for price, power_w in one.points),
        lower_w=one.lower_w,
        upper_w=one.upper_w,
        ramp_w_per_s=_ramp_w_per_s(found),
        energy_up_wh=one.energy_up_wh,
        energy_down_wh=one.energy_down_wh,
        regulation_up_w=one.regulation_up_w,
        regulation_down_w=one.regulation_down_w,
        regulation_price_per_kwh=one.regulation_price_per_kwh,
        forecast=ForecastBand(p10_w=low_w, p50_w=middle_w, p90_w=high_w),
    )


def _ramp_w_per_s(found: Flexibility) -> float | None:
    """From what is told anyway: all of the envelope in the response's time; None where that is none."""
    width_w = found.upper_w - found.lower_w
    return width_w / found.response_s if width_w > 0.0 and found.response_s > 0.0 else None


def _energy(models: Iterable[DeviceModel], image: Image) -> tuple[float, float]:
    """Energy that the layer can give (up) and take (down) from its storage and the layers below, watt-hours."""
    up_wh = down_wh = 0.0
    for model in models:
        known = image.devices.get(model.name)
        if known is not None and model.controllable:
            up, down = _energy_of(model, known, image.now_s)
            up_wh, down_wh = up_wh + up, down_wh + down
    return up_wh, down_wh


def _energy_of(model: DeviceModel, known: DeviceImage, now_s: float) -> tuple[float, float]:
    if model.kind is DeviceKind.LAYER:
        told = [known.number(point, now_s, SLOW_POINT_STALE_S) or 0.0 for point in (ENERGY_UP_WH, ENERGY_DOWN_WH)]
        return told[0], told[1]
    soc = known.number(SOC, now_s, SLOW_POINT_STALE_S)
    if model.kind is not DeviceKind.BATTERY or model.capacity_wh is None or soc is None:
        return 0.0, 0.0
    return max(soc - model.soc_min, 0.0) * model.capacity_wh, max(model.soc_max - soc, 0.0) * model.capacity_wh
