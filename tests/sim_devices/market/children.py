"""Children of a market, as messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

BEGIN_S = 1_800_000_000.0
"""Begin of an interval of five minutes."""

BATTERY = [(0.10, 10_000.0), (0.40, -10_000.0)]
FLEXIBLE = [(0.20, 8_000.0), (0.20, 0.0)]


def utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def offer(
    points: list[tuple[float, float]] = BATTERY,
    begin_s: float = BEGIN_S,
    issued_s: float = BEGIN_S - 100.0,
    intervals: int = 3,
    offer_id: str = "o1",
    **changes: Any,
) -> bytes:
    """An offer on a grid of 0.01 and 100 W; `changes` go into every interval or, by name, into the frame."""
    frame = {"expires_at": utc(begin_s + 300.0 * intervals)}
    frame |= {name: changes.pop(name) for name in list(changes) if name in ("expires_at", "response_s", "extra")}
    interval = {
        "duration_s": 300.0,
        "curve": [{"price_per_kwh": price, "power_w": power} for price, power in points],
        "lower_w": min(power for _, power in points),
        "upper_w": max(power for _, power in points),
        "energy_up_wh": 5_000.0,
        "energy_down_wh": 5_000.0,
        **changes,
    }
    message = {
        "id": offer_id,
        "issued_at": utc(issued_s),
        "intervals": [{"start": utc(begin_s + 300.0 * at), **interval} for at in range(intervals)],
        "response_s": 2.0,
        "power_step_w": 100.0,
        "price_step_per_kwh": 0.01,
        "error_bound_w": 50.0,
        **frame,
    }
    return json.dumps(message).encode()
