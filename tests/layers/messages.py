"""Messages of a layer below, for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from config.messages import (
    Compliance,
    CurvePointMessage,
    Offer,
    OfferInterval,
    Telemetry,
)

NOW = datetime(2026, 6, 8, 10, 0, tzinfo=UTC)
STEP_W = 1000.0


def telemetry(at: datetime, net_w: float | None = 5000.0, **more: Any) -> Telemetry:
    fields = {"measured_at": at, "quality": "good", "compliance": Compliance(state="compliant")} | more
    return Telemetry(issued_at=at, net_power_w=net_w, **fields)


def interval(start: datetime, lower_w: float = -20_000.0, upper_w: float = 30_000.0, **more: Any) -> OfferInterval:
    points = ((0.0, upper_w), (0.25, 5000.0), (0.5, lower_w))
    curve = tuple(CurvePointMessage(price_per_kwh=price, power_w=power_w) for price, power_w in points)
    fields = {"duration_s": 300.0, "energy_up_wh": 4000.0, "energy_down_wh": 6000.0} | more
    return OfferInterval(start=start, curve=curve, lower_w=lower_w, upper_w=upper_w, **fields)


def offer(issued_at: datetime, *intervals: OfferInterval, **more: Any) -> Offer:
    fields = {
        "id": f"offer-{issued_at.timestamp():.0f}",
        "expires_at": issued_at + timedelta(seconds=600),
        "response_s": 0.4,
        "power_step_w": STEP_W,
        "price_step_per_kwh": 0.05,
        "error_bound_w": 500.0,
    } | more
    return Offer(issued_at=issued_at, intervals=intervals or (interval(issued_at),), **fields)
