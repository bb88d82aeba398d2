"""The layer as one resource: what a parent may know of it, made from what only the layer itself may see.

Whatever is published is made from these objects and from nothing else, so that no device can be in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor
from typing import Final, Literal

from config.messages import Compliance, CurvePointMessage, Offer, OfferInterval, Telemetry
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
from gateway.control.model import DeviceModel, SiteModel
from gateway.control.resources import SLOW_POINT_STALE_S
from gateway.image import DeviceImage, Image
from gateway.parent.utc import utc_datetime

OFFER_INTERVAL_S: Final = 300.0
OFFER_INTERVALS: Final = 2
"""The present interval and the next one."""

OFFER_PRICES_PER_KWH: Final = tuple(round(-0.05 + 0.05 * step, 2) for step in range(14))
POWER_GRID_PU: Final = 0.01
"""Powers in an offer lie on a grid of this part of the connection's rating."""

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


def compliance(decision: Decision, *, bypassed: bool = False) -> Compliance:
    """Whether the layer keeps what it was told; no reason names a device."""
    if decision.unmet:
        return Compliance(state="unmet", reason="the order is beyond what the layer can do now")
    if "fallback" in decision.envelope.upper.source or "fallback" in decision.envelope.lower.source:
        source = decision.envelope.upper.source + decision.envelope.lower.source
        unknown = source.count("says unknown")
        return Compliance(state="fallback", reason="a limit is unknown" if unknown else "the parent is not heard")
    if bypassed:
        return Compliance(state="bypassed", reason="something in the layer is commanded by somebody else")
    return Compliance(state="compliant")


def flexibility(model: SiteModel, image: Image, decision: Decision) -> Flexibility | None:
    """What the resources' present bounds and curves sum to; None before anything is measured."""
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
        min(max(round((rest_w + taken_at(bids, price).total_w) / step_w) * step_w, lower_w), upper_w)
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


def offer(found: Flexibility, utc_s: float, offer_id: str) -> Offer:
    """The present interval and the next one; void when the second ends."""
    start_s = utc_s // OFFER_INTERVAL_S * OFFER_INTERVAL_S
    curve = tuple(
        CurvePointMessage(price_per_kwh=price, power_w=power_w)
        for price, power_w in zip(OFFER_PRICES_PER_KWH, found.powers_w, strict=True)
    )
    intervals = tuple(
        OfferInterval(
            start=utc_datetime(start_s + index * OFFER_INTERVAL_S),
            duration_s=OFFER_INTERVAL_S,
            curve=curve,
            lower_w=found.lower_w,
            upper_w=found.upper_w,
            energy_up_wh=found.energy_up_wh,
            energy_down_wh=found.energy_down_wh,
        )
        for index in range(OFFER_INTERVALS)
    )
    return Offer(
        id=offer_id,
        issued_at=utc_datetime(utc_s),
        expires_at=utc_datetime(start_s + OFFER_INTERVALS * OFFER_INTERVAL_S),
        intervals=intervals,
        response_s=found.response_s,
        power_step_w=found.power_step_w,
        price_step_per_kwh=PRICE_GRID_PER_KWH,
        error_bound_w=found.power_step_w / 2.0,
    )


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
