"""The operator's words on devices: bounds that hold for a time or until released, also over a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

from config.vocabulary import Clock, UtcClock
from gateway.control.orders_in_force import OverrideInForce
from gateway.orders.admission import Refused

OPERATOR: Final = "operator"
"""The source of local orders; no parent may have this name."""


@dataclass(frozen=True, slots=True)
class HeldOverride:
    """An operator's word on a device and when it ends: monotonic, and in UTC for a restart; None: until released."""

    in_force: OverrideInForce
    ends_s: float | None
    ends_utc: float | None


@dataclass(slots=True)
class Overrides:
    """At most one override for each device; a newer one replaces the older."""

    clock: Clock
    utc: UtcClock
    _held: dict[str, HeldOverride] = field(default_factory=dict)

    def hold(self, order_id: str, device: str, lower_w: float, upper_w: float, duration_s: float | None) -> None:
        """Keep a device within these bounds (load convention); raises Refused where they leave nothing."""
        if not (isfinite(lower_w) and isfinite(upper_w) and lower_w <= upper_w):
            raise Refused(f"{device}: {lower_w:g} W at least and {upper_w:g} W at most leave nothing")
        ends_s = None if duration_s is None else self.clock() + duration_s
        ends_utc = None if duration_s is None else self.utc() + duration_s
        in_force = OverrideInForce(OPERATOR, order_id, device, lower_w, upper_w)
        self._held[device] = HeldOverride(in_force, ends_s, ends_utc)

    def release(self, device: str | None) -> list[str]:
        """End the override of a device, or (None) all; their ids."""
        names = [device] if device is not None else list(self._held)
        return [self._held.pop(name).in_force.order_id for name in names if name in self._held]

    def held(self) -> tuple[HeldOverride, ...]:
        """Those that hold."""
        return tuple(self._held.values())

    def advance(self) -> None:
        """Let those end whose time has come."""
        now_s = self.clock()
        for device, held in list(self._held.items()):
            if held.ends_s is not None and now_s >= held.ends_s:
                del self._held[device]

    def dump(self) -> list[dict[str, Any]]:
        """What survives a restart, in UTC."""
        return [
            {
                "id": held.in_force.order_id,
                "device": held.in_force.device,
                "lower_w": held.in_force.lower_w,
                "upper_w": held.in_force.upper_w,
                "until": held.ends_utc,
            }
            for held in self._held.values()
        ]

    def restore(self, item: Mapping[str, Any]) -> None:
        """Take up one that has not ended meanwhile. Raises Refused, ValueError, KeyError or TypeError."""
        until = None if item["until"] is None else float(item["until"])
        left_s = None if until is None else until - self.utc()
        if left_s is None or left_s > 0.0:
            self.hold(str(item["id"]), str(item["device"]), float(item["lower_w"]), float(item["upper_w"]), left_s)
