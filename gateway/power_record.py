"""What a grid operator asks for after an event: power and bounds at the connection point, second by second.

Recorded while an order is in force or the fallback holds; every cycle counts, for the extremes of each second are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from gateway.control.decision import Decision
from gateway.control.orders_in_force import OrdersInForce

RECORD_S: Final = 1.0


@dataclass(slots=True)
class PowerRecord:
    """Takes each cycle's decision, and gives a row each second and whenever the bounds change."""

    _since_s: float | None = None
    _told: tuple[object, ...] = ()
    _lowest_w: float | None = None
    _highest_w: float | None = None
    _energy_ws: float = 0.0
    _known_s: float = 0.0
    _last_s: float | None = None

    def take(self, decision: Decision, orders: OrdersInForce) -> dict[str, Any] | None:
        """One cycle; a row for the journal where one is due. Powers in watts, load convention."""
        if not (orders.limits or orders.dispatch is not None or orders.fallback_reason):
            self._since_s = self._last_s = None
            return None
        now_s, envelope = decision.now_s, decision.envelope
        self._account(decision)
        told = (envelope.lower, envelope.upper, decision.binding, bool(decision.unmet))
        if self._since_s is not None and now_s - self._since_s < RECORD_S and told == self._told:
            return None
        row = {
            "net_w": round(self._energy_ws / self._known_s, 1) if self._known_s else _rounded(decision.net_w),
            "net_min_w": _rounded(self._lowest_w),
            "net_max_w": _rounded(self._highest_w),
            "lower_w": _rounded(envelope.lower.value_w),
            "lower_source": envelope.lower.source,
            "upper_w": _rounded(envelope.upper.value_w),
            "upper_source": envelope.upper.source,
            "binding": decision.binding,
            "side": decision.side,
            "unmet": list(decision.unmet),
            "fallback": orders.fallback_reason,
        }
        self._since_s, self._told = now_s, told
        self._lowest_w = self._highest_w = None
        self._energy_ws = self._known_s = 0.0
        return row

    def _account(self, decision: Decision) -> None:
        dt_s = 0.0 if self._last_s is None else decision.now_s - self._last_s
        self._last_s = decision.now_s
        net_w = decision.net_w
        if net_w is None:
            return
        self._lowest_w = net_w if self._lowest_w is None else min(self._lowest_w, net_w)
        self._highest_w = net_w if self._highest_w is None else max(self._highest_w, net_w)
        self._energy_ws += net_w * dt_s
        self._known_s += dt_s


def _rounded(value_w: float | None) -> float | None:
    return None if value_w is None or not isfinite(value_w) else round(value_w, 1)
