"""Judges a run: how each order was met and where a limit was broken, from the physics alone.

The time judged begins with the gateway's first setpoint (before it nobody controls the site) and ends with its orderly
stop; where it was killed, with the last sample. A target is judged as far as the limits on net power leave it room.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from math import inf
from typing import Final

from config.messages import Down, LimitOrder
from config.site import DeviceSite, Site
from config.vocabulary import DeviceKind, Quantity
from gateway.bench.dso_orders import DsoOrder, orders_of
from gateway.bench.metrics import BAND_PU, GRACE_S, Excursion, excursions, mean_error, settled_s
from gateway.bench.run_files import Physics, Run
from gateway.bench.timeline import InForce, Steps, fallback_limits, in_force, loosened, sampled

REGULATION_FADE_S = 5.0
"""After a lost regulation signal the base is judged again when this time has passed."""

LEAST_TERM_S: Final = 1.0
"""An order in force for less than this may end unsettled."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one order was met; None where it cannot be judged. The error is in percent of the connection rating.

    `never_settled` tells an order that had the time to be met and was not from one that cannot be judged.
    """

    settled_s: float | None = None
    steady_error_pct: float | None = None
    never_settled: bool = False


@dataclass(frozen=True)
class Assessment:
    """A run with what the bench makes of it. `kinds`: the devices by kind, in the site file's order."""

    run: Run
    site: Site
    kinds: Mapping[str, DeviceKind]
    orders: tuple[DsoOrder, ...]
    in_force: InForce
    judged_from_s: float
    judged_until_s: float
    powers: Mapping[Quantity, Sequence[float]]

    @property
    def band_w(self) -> float:
        """The tolerance around limits and targets."""
        return BAND_PU * self.site.connection.rating_w

    @property
    def times(self) -> Sequence[float]:
        """When the physics was sampled."""
        return self.run.physics.times

    @cached_property
    def zero_s(self) -> float:
        """The start of the run: the gateway's start, else the first thing recorded."""
        starts = [event.at_s for event in self.run.gateway if event.name == "start"]
        return starts[0] if starts else min(self._ends(first=True), default=0.0)

    @cached_property
    def end_s(self) -> float:
        """The last thing recorded."""
        return max(self._ends(first=False), default=self.zero_s)

    def _ends(self, *, first: bool) -> list[float]:
        place = 0 if first else -1
        ends = [events[place].at_s for events in (self.run.gateway, self.run.dso) if events]
        return [*ends, self.times[place]] if self.times else ends

    @cached_property
    def target_w(self) -> Sequence[float | None]:
        """The net power asked by dispatch and regulation at each sample, held inside the limits in force."""
        values = sampled(self.in_force.target, self.times)
        upper = sampled(self.in_force.limits.get(Quantity.NET_IMPORT_W, ()), self.times)
        lower = sampled(self.in_force.limits.get(Quantity.NET_EXPORT_W, ()), self.times)
        return [
            None if value is None else max(min(value, inf if high is None else high), -inf if low is None else -low)
            for value, high, low in zip(values, upper, lower, strict=True)
        ]

    @cached_property
    def excursions(self) -> Mapping[Quantity, Sequence[Excursion]]:
        """Every time a limit in force was exceeded, by quantity; quantities without a limit or a record are absent."""
        return {
            quantity: excursions(self.times, self._excess(self.powers[quantity], steps), self.band_w)
            for quantity, steps in self.judged_limits.items()
            if quantity in self.powers
        }

    @cached_property
    def judged_limits(self) -> Mapping[Quantity, Steps]:
        """The limits that excursions are held against: each from `GRACE_S` after it took force."""
        return {quantity: loosened(steps, GRACE_S) for quantity, steps in self.in_force.limits.items()}

    @cached_property
    def verdicts(self) -> Sequence[Verdict]:
        """How each order was met, in the order of `orders`."""
        return [self._verdict(index, order) for index, order in enumerate(self.orders)]

    def _excess(self, power: Sequence[float], steps: Steps) -> list[float | None]:
        return [
            None if bound is None or not self.judged_from_s <= now <= self.judged_until_s else value - bound
            for now, value, bound in zip(self.times, power, sampled(steps, self.times), strict=True)
        ]

    def _verdict(self, index: int, order: DsoOrder) -> Verdict:
        if index not in self.in_force.orders or not self.times:
            return Verdict()
        start_s, end_s = self.in_force.orders[index]
        end_s = min(end_s, self.judged_until_s)
        first, last = bisect_left(self.times, start_s), bisect_left(self.times, end_s)
        errors = self._limit_errors(order, first, last) if order.kind is Down.LIMITS else self._errors(first, last)
        if not errors:
            return Verdict()
        times = self.times[first : first + len(errors)]
        settled = settled_s(times, errors, start_s, end_s, self.band_w)
        if settled is None:
            return Verdict(never_settled=times[-1] - times[0] >= LEAST_TERM_S)
        spans = [(start_s + settled, end_s)]
        if order.kind is Down.DISPATCH:
            spans = _without(spans[0], self.in_force.regulated)
        return Verdict(settled, self._percent(_mean_over(times, errors, spans)))

    def _errors(self, first: int, last: int) -> list[float] | None:
        """Distance of net power from the target, as far as there is one."""
        net = self.run.physics.column("net_w")
        if net is None:
            return None
        targets = takewhile(lambda target: target is not None, self.target_w[first:last])
        return [abs(value - (target or 0.0)) for value, target in zip(net[first:last], targets, strict=False)]

    def _limit_errors(self, order: DsoOrder, first: int, last: int) -> list[float] | None:
        """Power beyond a limit order's own value; for an unknown one, beyond the fallback."""
        assert isinstance(order.message, LimitOrder)
        match order.message.value:
            case "unlimited":
                return None
            case "unknown":
                bounds = fallback_limits(self.site)
            case value:
                bounds = {order.message.quantity: value}
        if not bounds or any(quantity not in self.powers for quantity in bounds):
            return None
        columns = [[power - bounds[quantity] for power in self.powers[quantity][first:last]] for quantity in bounds]
        return [max(0.0, *beyond) for beyond in zip(*columns, strict=True)]

    def _percent(self, power_w: float | None) -> float | None:
        return None if power_w is None else 100.0 * power_w / self.site.connection.rating_w


def assess(run: Run, site: Site) -> Assessment:
    """Judge a run of a site."""
    orders = orders_of(run)
    kinds = device_kinds(run, site)
    begun = [event.at_s for event in run.gateway if event.name == "ready"]
    begun = begun or [event.at_s for event in run.gateway if event.name == "start"]
    stops = [event for event in run.gateway if event.name in ("start", "summary")]
    return Assessment(
        run=run,
        site=site,
        kinds=kinds,
        orders=orders,
        in_force=in_force(run, orders, site),
        judged_from_s=begun[0] if begun else -inf,
        judged_until_s=stops[-1].at_s if stops and stops[-1].name == "summary" else inf,
        powers=quantities(run.physics, kinds),
    )


def device_kinds(run: Run, site: Site) -> dict[str, DeviceKind]:
    """The kind of every device but the meter: as the gateway journalled it, else as the site file lets on."""
    told: dict[str, str] = {}
    for event in run.gateway:
        if event.name == "start":
            for name, device in event.mapping("devices").items():
                if isinstance(device, dict) and device.get("kind") in set(DeviceKind):
                    told[name] = device["kind"]
    kinds = {name: DeviceKind(told.get(name) or _likely_kind(device)) for name, device in site.devices.items()}
    return {
        name: kind
        for name, kind in kinds.items()
        if kind is not DeviceKind.METER
        and name != site.connection.meter
        and run.physics.column(f"{name}_w") is not None
    }


def _likely_kind(device: DeviceSite) -> DeviceKind:
    if device.capacity_wh is not None:
        return DeviceKind.BATTERY
    if device.ev is not None or device.twin.evs:
        return DeviceKind.CHARGER
    return DeviceKind.INVERTER


def quantities(physics: Physics, kinds: Mapping[str, DeviceKind]) -> dict[Quantity, Sequence[float]]:
    """The measured side of each limited quantity, as magnitudes that a limit bounds from above.

    Generation is the sum of what devices give, load the uncontrolled load and all that devices take, controllable load
    what chargers and charging batteries take. Net export is net import with its sign turned. The current per phase is
    not in the physics' record.
    """
    found: dict[Quantity, Sequence[float]] = {}
    net, load = physics.column("net_w"), physics.column("load_w")
    if net is not None:
        found[Quantity.NET_IMPORT_W] = net
        found[Quantity.NET_EXPORT_W] = [-power for power in net]
    columns = {name: physics.columns[f"{name}_w"] for name in kinds}
    if not columns:
        return found
    rows = len(physics.times)
    taking = [name for name, kind in kinds.items() if kind in (DeviceKind.CHARGER, DeviceKind.BATTERY)]
    found[Quantity.GENERATION_W] = _summed(rows, ((max(-p, 0.0) for p in column) for column in columns.values()))
    found[Quantity.CONTROLLABLE_LOAD_W] = _summed(rows, ((max(p, 0.0) for p in columns[name]) for name in taking))
    if load is not None:
        taken = ((max(p, 0.0) for p in column) for column in (load, *columns.values()))
        found[Quantity.LOAD_W] = _summed(rows, taken)
    return found


def _summed(rows: int, columns: Iterable[Iterable[float]]) -> list[float]:
    total = [0.0] * rows
    for column in columns:
        total = [sum_w + power for sum_w, power in zip(total, column, strict=True)]
    return total


def _without(span: tuple[float, float], regulated: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """What is left of a time without the regulated times and the fade after each."""
    spans, at_s = [], span[0]
    for start_s, end_s in (*regulated, (inf, inf)):
        if at_s < min(start_s, span[1]):
            spans.append((at_s, min(start_s, span[1])))
        at_s = max(at_s, end_s + REGULATION_FADE_S)
    return spans


def _mean_over(times: Sequence[float], errors: Sequence[float], spans: Sequence[tuple[float, float]]) -> float | None:
    """The mean error over several times, each counted by its length."""
    parts = [(mean_error(times, errors, *span), span[1] - span[0]) for span in spans]
    known = [(mean, min(length, times[-1] - times[0])) for mean, length in parts if mean is not None]
    weight = sum(length for _, length in known)
    return sum(mean * length for mean, length in known) / weight if weight else None
