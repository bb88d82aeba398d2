"""What a parent is shown: the layer as one resource. Publishers are handed these objects and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil, floor
from typing import Final, Literal

from config.messages import Compliance, CurvePointMessage, Offer, OfferInterval, Telemetry
from config.vocabulary import (
    ENERGY_EXPORT_WH,
    ENERGY_IMPORT_WH,
    FREQUENCY_HZ,
    POWER_W,
    SOC,
    VOLTAGE_V,
    DeviceKind,
    Quality,
)
from gateway.control.clearing import Bid, taken_at
from gateway.control.decision import Decision
from gateway.control.model import SiteModel
from gateway.control.resources import SLOW_POINT_STALE_S
from gateway.image import Image

OFFER_INTERVAL_S: Final = 300.0
OFFER_PRICES_PER_KWH: Final = tuple(round(-0.05 + 0.05 * step, 2) for step in range(14))
POWER_GRID_PU: Final = 0.01
"""Powers in an offer lie on a grid of this part of the connection's rating."""

PRICE_GRID_PER_KWH: Final = 0.05


@dataclass(frozen=True, slots=True)
class LayerView:
    """The aggregate at one instant, from which telemetry and offer are made."""

    telemetry: Telemetry
    offer: Offer | None


def telemetry(
    model: SiteModel, image: Image, decision: Decision, utc_s: float, regulation_sequence: int | None
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
        compliance=compliance(decision),
    )


_QUALITY_TEXT: Final[dict[Quality, Literal["good", "uncertain", "bad"]]] = {
    Quality.GOOD: "good",
    Quality.UNCERTAIN: "uncertain",
    Quality.BAD: "bad",
}


def compliance(decision: Decision) -> Compliance:
    """Whether the layer keeps what it was told; no reason names a device."""
    if decision.unmet:
        return Compliance(state="unmet", reason="the order is beyond what the layer can do now")
    if "fallback" in decision.envelope.upper.source or "fallback" in decision.envelope.lower.source:
        source = decision.envelope.upper.source + decision.envelope.lower.source
        unknown = source.count("says unknown")
        return Compliance(state="fallback", reason="a limit is unknown" if unknown else "the parent is not heard")
    return Compliance(state="compliant")


def offer(model: SiteModel, image: Image, decision: Decision, utc_s: float, offer_id: str) -> Offer | None:
    """The layer's curve for the next interval, from the resources' present bounds; None before anything is measured."""
    if decision.rest_lower_w is None or decision.rest_upper_w is None:
        return None
    rest_w = (decision.rest_lower_w + decision.rest_upper_w) / 2.0
    usable = [resource for resource in decision.resources if resource.usable]
    bids = [Bid(one.curve, one.lower.value_w, one.upper.value_w) for one in usable]
    step_w = POWER_GRID_PU * model.rating_w
    lower_w = max(rest_w + sum(bid.lower_w for bid in bids), -model.max_export_w)
    upper_w = min(rest_w + sum(bid.upper_w for bid in bids), model.max_import_w)
    lower_w, upper_w = ceil(lower_w / step_w) * step_w, floor(upper_w / step_w) * step_w
    lower_w, upper_w = min(lower_w, upper_w), max(lower_w, upper_w)

    def on_grid(power_w: float) -> float:
        return min(max(round(power_w / step_w) * step_w, lower_w), upper_w)

    curve = [
        CurvePointMessage(price_per_kwh=price, power_w=on_grid(rest_w + taken_at(bids, price).total_w))
        for price in OFFER_PRICES_PER_KWH
    ]
    up_wh, down_wh = _energy(model, image)
    start = (utc_s // OFFER_INTERVAL_S + 1) * OFFER_INTERVAL_S
    interval = OfferInterval(
        start=utc_datetime(start),
        duration_s=OFFER_INTERVAL_S,
        curve=tuple(curve),
        lower_w=lower_w,
        upper_w=upper_w,
        energy_up_wh=round(up_wh, -2),
        energy_down_wh=round(down_wh, -2),
    )
    return Offer(
        id=offer_id,
        issued_at=utc_datetime(utc_s),
        expires_at=utc_datetime(start) + timedelta(seconds=OFFER_INTERVAL_S),
        intervals=(interval,),
        response_s=max((one.model.tr90_s + one.model.dead_time_s for one in usable), default=0.0),
        power_step_w=step_w,
        price_step_per_kwh=PRICE_GRID_PER_KWH,
        error_bound_w=step_w / 2.0,
    )


def _energy(model: SiteModel, image: Image) -> tuple[float, float]:
    """Energy that the layer can give (up) and take (down) from its storage, watt-hours."""
    up_wh = down_wh = 0.0
    for device in model.devices:
        known = image.devices.get(device.name)
        if device.kind is not DeviceKind.BATTERY or device.capacity_wh is None or known is None:
            continue
        soc = known.number(SOC, image.now_s, SLOW_POINT_STALE_S)
        if soc is not None and device.controllable:
            up_wh += max(soc - device.soc_min, 0.0) * device.capacity_wh
            down_wh += max(device.soc_max - soc, 0.0) * device.capacity_wh
    return up_wh, down_wh


def utc_datetime(seconds: float) -> datetime:
    """A wall-clock time with its offset."""
    return datetime.fromtimestamp(seconds, UTC)
