"""A run of a scenario as its checks see it: the physics' record, the orders in force, the time that is judged."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import NamedTuple

from config.messages import DispatchOrder, Down, LimitOrder
from config.vocabulary import Quantity
from gateway.bench.assessment import Assessment, assess
from gateway.bench.dso_orders import DsoOrder
from gateway.bench.run_files import Run
from gateway.bench.scenario.fault_log import FaultFigures
from gateway.bench.scenario.plan import Plan
from gateway.bench.timeline import Steps, loosened, sampled


class Term(NamedTuple):
    """One order and the time over which it is judged."""

    order: DsoOrder
    start_s: float
    end_s: float


class Span(NamedTuple):
    """A time, in monotonic seconds."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class Trial:
    """A run with its scenario. `zero_s` is when the scenario began; what was before or after it is not judged."""

    plan: Plan
    assessment: Assessment
    zero_s: float
    memory_mb_per_h: float | None = None
    faults: tuple[FaultFigures, ...] = ()

    @property
    def end_s(self) -> float:
        return self.zero_s + self.plan.loaded.scenario.duration_s

    @property
    def times(self) -> Sequence[float]:
        return self.assessment.times

    @property
    def rating_w(self) -> float:
        return self.assessment.site.connection.rating_w

    @cached_property
    def net_w(self) -> Sequence[float] | None:
        """Net power by the physics; None without a record."""
        return self.assessment.run.physics.column("net_w") if self.times else None

    def span(self, from_s: float | None, until_s: float | None) -> Span:
        """A time of the scenario, as far as it is judged."""
        start_s = max(self.zero_s + (from_s or 0.0), self.assessment.judged_from_s)
        end_s = self.end_s if until_s is None else self.zero_s + until_s
        return Span(start_s, min(end_s, self.assessment.judged_until_s))

    def inside(self, span: Span) -> range:
        """The places of the samples of a time."""
        return range(bisect_left(self.times, span.start_s), bisect_left(self.times, span.end_s))

    def terms(self, kind: Down, names: Sequence[str], span: Span) -> Iterator[Term]:
        """Orders of a kind that began within a time, each until its end or the time's; `names` empty: all of them."""
        for place, order in enumerate(self.assessment.orders):
            term = self.assessment.in_force.orders.get(place)
            if term is None or order.kind is not kind or not (span.start_s - 1.0 <= term[0] < span.end_s):
                continue
            if not names or order.id.rpartition("-")[0] in names:
                yield Term(order, term[0], min(term[1], span.end_s))

    def excess(self, quantity: Quantity, steps: Steps, span: Span) -> list[float | None]:
        """Power beyond limits at each sample of a time, None outside of it."""
        power = self.assessment.powers[quantity]
        return [
            None if bound is None or not span.start_s <= now < span.end_s else value - bound
            for now, value, bound in zip(self.times, power, sampled(steps, self.times), strict=True)
        ]

    def took_force(self, span: Span, quantity: Quantity | None = None) -> bool:
        """Whether a limit held in a time that somebody has set: an order, a lost parent's fallback or the installer's.

        Where the scenario orders limits, one of these must have come; the connection's rating is nobody's limit.
        """
        orders = [
            term
            for term in self.terms(Down.LIMITS, (), self.span(None, None))
            if limit_w(term.order) is not None and quantity in (None, getattr(term.order.message, "quantity", None))
        ]
        if any(event.limit is not None and event.expect == "accepted" for event in self.plan.loaded.events):
            return any(term.start_s < span.end_s and term.end_s > span.start_s for term in orders)
        site = self.assessment.site
        stated = {
            Quantity.NET_IMPORT_W: site.connection.max_import_w,
            Quantity.NET_EXPORT_W: site.connection.max_export_w,
        }
        return (
            bool(orders)
            or any(lost.start_s < span.end_s and lost.end_s > span.start_s for lost in self.lost)
            or any(value is not None and quantity in (None, each) for each, value in stated.items())
        )

    def limits(self, grace_s: float, quantity: Quantity | None = None) -> Iterator[tuple[Quantity, Steps]]:
        """The limits in force of each quantity that the physics recorded, each from `grace_s` after it took force."""
        for each, steps in self.assessment.in_force.limits.items():
            if each in self.assessment.powers and quantity in (None, each):
                yield each, loosened(steps, grace_s)

    @cached_property
    def regulated(self) -> Span | None:
        """From the first to the last moment at which a regulation signal moved the target."""
        spans = self.assessment.in_force.regulated
        return Span(spans[0][0], min(spans[-1][1], self.end_s)) if spans else None

    def base_at(self, times: Sequence[float]) -> list[float | None]:
        """The net power that the dispatch in force asks for without regulation, at ascending times."""
        bases = [
            (*self.assessment.in_force.orders[place], order.message.net_power_w)
            for place, order in enumerate(self.assessment.orders)
            if place in self.assessment.in_force.orders and isinstance(order.message, DispatchOrder)
        ]
        return [next((value for start_s, end_s, value in bases if start_s <= now < end_s), None) for now in times]

    @cached_property
    def silences(self) -> tuple[tuple[str, bool], ...]:
        """The parent's silences by the names of their events, each with whether a heartbeat's time-out fell into it."""
        return tuple(
            (
                name,
                any(
                    self.zero_s + event.at_s < lost.start_s <= self.zero_s + (event.until_s or 0.0)
                    for lost in self.lost
                ),
            )
            for name, event in zip(self.plan.names, self.plan.loaded.events, strict=True)
            if event.parent is not None
        )

    @cached_property
    def unacted(self) -> tuple[str, ...]:
        """The events whose fault never acted, or of which nobody could tell."""
        never = [one.event for one in self.faults if not one.acted]
        told = {one.event for one in self.faults}
        untold = [name for name in self.plan.fault_names if name not in told]
        return (*never, *untold, *(name for name, acted in self.silences if not acted))

    @cached_property
    def lost(self) -> tuple[Span, ...]:
        """The times without a parent within the scenario, each from the heartbeat's time-out on."""
        spans = (Span(max(start_s, self.zero_s), end_s) for start_s, end_s in self.assessment.in_force.fallback)
        return tuple(span for span in spans if self.zero_s < span.start_s < self.end_s)

    def distance(self, places: range) -> list[float]:
        """How far the power is from keeping every limit on net power and its target, in watts, at each sample."""
        net, target = self.net_w or (), self.assessment.target_w
        upper = sampled(self.assessment.in_force.limits.get(Quantity.NET_IMPORT_W, ()), self.times)
        lower = sampled(self.assessment.in_force.limits.get(Quantity.NET_EXPORT_W, ()), self.times)
        found = []
        for at in places:
            high, low, aim = upper[at], lower[at], target[at]
            beyond = max(0.0, net[at] - (inf if high is None else high), -net[at] - (inf if low is None else low))
            found.append(max(beyond, 0.0 if aim is None else abs(net[at] - aim)))
        return found


def make_trial(
    plan: Plan, run: Run, memory_mb_per_h: float | None = None, faults: tuple[FaultFigures, ...] = ()
) -> Trial:
    """A run with what was in force in it; it begins with the operator's first phase."""
    phases = [event.at_s for event in run.dso or () if event.name == "phase"]
    starts = [event.at_s for event in run.gateway if event.name == "ready"]
    zero_s = phases[0] if phases else starts[0] if starts else 0.0
    assessment = assess(run, plan.loaded.site)
    end_s = zero_s + plan.loaded.scenario.duration_s
    stops = min(assessment.judged_until_s, end_s) if not plan.takes_gateway_away else end_s
    assessment = replace(
        assessment, judged_from_s=max(assessment.judged_from_s, zero_s), judged_until_s=stops, kinds=assessment.kinds
    )
    return Trial(plan, assessment, zero_s, memory_mb_per_h, faults)


def limit_w(order: DsoOrder) -> float | None:
    """The value of a limit order where it is a number."""
    value = order.message.value if isinstance(order.message, LimitOrder) else None
    return value if isinstance(value, float | int) else None
