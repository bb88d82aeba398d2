"""Energy by resource and price over the intervals of the clock: what a settlement is made of.

One entry of the journal each five minutes. An interval that was not watched to its end by one process has an entry from
each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from config.vocabulary import ENERGY_EXPORT_WH, ENERGY_IMPORT_WH
from gateway.control.decision import Decision
from gateway.control.model import SiteModel
from gateway.control.orders_in_force import OrdersInForce
from gateway.control.resources import SLOW_POINT_STALE_S
from gateway.image import Image
from gateway.regulation_energy import RegulationEnergy

INTERVAL_S: Final = 300
SAMPLED_S: Final = 1.0
LONGEST_STEP_S: Final = 10.0
"""A sample stands for the time since the one before it, up to this; the rest of a longer gap is not known."""

CONNECTION: Final = "connection"
REGISTERS_AGREE_PU: Final = 0.1
"""Registers count unless they differ from the power's integral by more than this part of the connection's rating."""


@dataclass(slots=True)
class _Energy:
    """Both directions as magnitudes, and for how long power was known."""

    in_ws: float = 0.0
    out_ws: float = 0.0
    known_s: float = 0.0

    def add(self, power_w: float | None, dt_s: float) -> None:
        if power_w is None:
            return
        self.known_s += dt_s
        if power_w >= 0.0:
            self.in_ws += power_w * dt_s
        else:
            self.out_ws -= power_w * dt_s

    def told(self) -> dict[str, Any]:
        return {
            "in_wh": round(self.in_ws / 3600.0, 3),
            "out_wh": round(self.out_ws / 3600.0, 3),
            "known_s": round(self.known_s, 1),
            "source": "power",
        }


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    seconds: float = 0.0

    def add(self, value: float | None, dt_s: float) -> None:
        if value is not None:
            self.total += value * dt_s
            self.seconds += dt_s

    def told(self) -> float | None:
        return round(self.total / self.seconds, 6) if self.seconds else None


@dataclass(slots=True)
class _Interval:
    begin_s: int
    registers_wh: tuple[float, float] | None
    resources: dict[str, _Energy] = field(default_factory=dict)
    connection: _Energy = field(default_factory=_Energy)
    local: _Mean = field(default_factory=_Mean)
    imported: _Mean = field(default_factory=_Mean)
    exported: _Mean = field(default_factory=_Mean)
    bound_s: float = 0.0
    regulation: RegulationEnergy = field(default_factory=RegulationEnergy)


class EnergyRecord:
    """Takes cycles at any pace and gives the entry of an interval once it is over.

    The connection's energy is what the meter's own registers counted, where it has good ones at both ends of the
    interval that agree with its power; else, as for every resource, the integral of power.
    """

    def __init__(self, model: SiteModel) -> None:
        self._model = model
        self._interval: _Interval | None = None
        self._last_s: float | None = None

    def take(
        self, utc_s: float, decision: Decision, image: Image | None, orders: OrdersInForce
    ) -> dict[str, Any] | None:
        """One cycle; the entry of the interval before it where one has ended. A clock set back ends it as well."""
        begin_s = int(utc_s // INTERVAL_S) * INTERVAL_S
        same = self._interval is not None and self._interval.begin_s == begin_s
        if self._interval is not None and same and image is not None:
            # Each cycle: a signal moves every few seconds, and a sample that stands for one has just moved or has not.
            self._interval.regulation.take(utc_s, decision.net_w, orders, image.now_s)
        if self._last_s is not None and same and 0.0 <= utc_s - self._last_s < SAMPLED_S:
            return None
        since_s = utc_s if self._last_s is None else min(max(self._last_s, utc_s - LONGEST_STEP_S), utc_s)
        self._last_s = utc_s
        ended = None
        if self._interval is None or begin_s != self._interval.begin_s:
            registers = self._registers_wh(image)
            if self._interval is not None:
                end_s = self._interval.begin_s + INTERVAL_S
                if since_s < end_s <= utc_s:
                    self._add(self._interval, end_s - since_s, decision, orders)
                ended = self._told(registers, utc_s)
            self._interval = _Interval(begin_s, registers)
        self._add(self._interval, utc_s - max(since_s, begin_s), decision, orders)
        return ended

    def close(self, utc_s: float, image: Image | None) -> dict[str, Any] | None:
        """The entry of the interval that has begun, as far as it went."""
        told = self._told(self._registers_wh(image), utc_s)
        self._interval = self._last_s = None
        return told

    def _add(self, interval: _Interval, dt_s: float, decision: Decision, orders: OrdersInForce) -> None:
        if dt_s <= 0.0:
            return
        for one in decision.resources:
            interval.resources.setdefault(one.model.name, _Energy()).add(one.power_w, dt_s)
        interval.connection.add(decision.net_w, dt_s)
        interval.local.add(decision.lambda_per_kwh, dt_s)
        outside = self._outside(orders)
        interval.imported.add(outside[0], dt_s)
        interval.exported.add(outside[1], dt_s)
        interval.bound_s += dt_s * (decision.side in ("upper", "lower"))

    def _outside(self, orders: OrdersInForce) -> tuple[float, float]:
        """What a kWh costs at the connection and earns there: the dispatch's price, the tariff's, or the site's."""
        dispatch, plan = orders.dispatch, orders.plan
        if dispatch is not None and dispatch.lambda_per_kwh is not None:
            return dispatch.lambda_per_kwh, dispatch.lambda_per_kwh
        if plan is not None:
            return plan.import_per_kwh, plan.export_per_kwh
        return self._model.price_per_kwh, self._model.price_per_kwh

    def _registers_wh(self, image: Image | None) -> tuple[float, float] | None:
        meter = None if image is None else image.devices.get(self._model.meter)
        if meter is None or image is None:
            return None
        import_wh, export_wh = (
            meter.number(point, image.now_s, SLOW_POINT_STALE_S) for point in (ENERGY_IMPORT_WH, ENERGY_EXPORT_WH)
        )
        return None if import_wh is None or export_wh is None else (import_wh, export_wh)

    def _told(self, registers_wh: tuple[float, float] | None, utc_s: float) -> dict[str, Any] | None:
        interval = self._interval
        if interval is None or (not interval.connection.known_s and not interval.resources):
            return None
        connection = interval.connection.told()
        late_s = utc_s - interval.begin_s - INTERVAL_S
        whole = 0.0 <= late_s <= LONGEST_STEP_S and connection["known_s"] >= INTERVAL_S - LONGEST_STEP_S
        if whole and interval.registers_wh is not None and registers_wh is not None:
            counted = [after - before for before, after in zip(interval.registers_wh, registers_wh, strict=True)]
            net_wh = (interval.connection.in_ws - interval.connection.out_ws) / 3600.0
            most_wh = REGISTERS_AGREE_PU * self._model.rating_w * INTERVAL_S / 3600.0
            if min(counted) >= 0.0 and abs(counted[0] - counted[1] - net_wh) <= most_wh:
                connection |= {"in_wh": round(counted[0], 3), "out_wh": round(counted[1], 3), "source": "register"}
        regulation = interval.regulation.told()
        return {
            "begin_s": interval.begin_s,
            "duration_s": INTERVAL_S,
            "lambda_per_kwh": interval.local.told(),
            "import_per_kwh": interval.imported.told(),
            "export_per_kwh": interval.exported.told(),
            "bound_s": round(interval.bound_s, 1),
            "connection": connection,
            "resources": {name: energy.told() for name, energy in interval.resources.items()},
            **({} if regulation is None else {"regulation": regulation}),
        }
