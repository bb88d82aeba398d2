"""A compliance function driven by a table: rows of a time, what is new then, and what the ruling must be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from config.vocabulary import Absent, LimitValue, Quantity
from gateway.compliance.frame import ComplianceFunction, GivenLimit, Moment, Ruling

UTC_S = 1_780_000_000.0
"""The wall clock when the monotonic one is at 0."""


class Row(NamedTuple):
    """At `at_s`: inputs, then the state, the bounds in watts by quantity, and a piece of each clause that was cited."""

    at_s: float
    inputs: dict[str, Any]
    state: str
    bounds: dict[Quantity, float]
    clauses: tuple[str, ...] = ()


@dataclass(slots=True)
class Site:
    """What a function is shown: heartbeats, limits by id, and measurements that stay until they are changed."""

    function: ComplianceFunction
    source: str = "dso"
    quantity: Quantity = Quantity.NET_IMPORT_W
    now_s: float = 0.0
    heard_s: dict[str, float] = field(default_factory=dict)
    limits: dict[str, GivenLimit] = field(default_factory=dict)
    net_w: float | None = 0.0
    generation_w: float | None = 0.0
    refused: list[str] = field(default_factory=list)

    def feed(self, inputs: dict[str, Any]) -> None:
        for name, value in inputs.items():
            if name == "heartbeat":
                self.heard_s[self.source if value is True else value] = self.now_s
            elif name == "limit":
                self.give(*value)
            elif name == "gone":
                del self.limits[value]
            else:
                setattr(self, name, value)

    def give(
        self,
        order_id: str,
        value: LimitValue,
        duration_s: float | None = None,
        source: str | None = None,
        quantity: Quantity | None = None,
    ) -> None:
        """A limit that is received now, unless the function refuses it."""
        source = source or self.source
        heard_s = self.heard_s.get(source)
        given = GivenLimit(
            source,
            order_id,
            quantity or self.quantity,
            value,
            self.now_s,
            self.now_s,
            None if duration_s is None else self.now_s + duration_s,
            None if heard_s is None else self.now_s - heard_s,
        )
        reason = self.function.refusal(given)
        if reason:
            self.refused.append(reason)
            return
        same = [key for key, one in self.limits.items() if (one.source, one.quantity) == (given.source, given.quantity)]
        for key in same:
            del self.limits[key]
        self.limits[order_id] = given

    def moment(self) -> Moment:
        return Moment(
            self.now_s,
            UTC_S + self.now_s,
            0.0,
            self.net_w,
            self.generation_w,
            heartbeat_age_s={name: self.now_s - heard_s for name, heard_s in self.heard_s.items()},
            limits=tuple(self.limits.values()),
        )

    def step(self, at_s: float) -> Ruling:
        self.now_s = at_s
        return self.function.step(self.moment())


def play(site: Site, rows: list[Row], every_s: float | None = None) -> None:
    """Each row in turn; `every_s` steps the function in between with the inputs as they are."""
    for row in rows:
        transitions = []
        while every_s is not None and site.now_s + every_s < row.at_s:
            transitions += site.step(site.now_s + every_s).transitions
        site.now_s = row.at_s
        site.feed(row.inputs)
        ruling = site.function.step(site.moment())
        transitions += ruling.transitions
        at = f"at {row.at_s} s"
        assert ruling.state == row.state, at
        assert {bound.quantity: bound.value_w for bound in ruling.bounds} == row.bounds, at
        assert len(transitions) == len(row.clauses), f"{at}: {transitions}"
        for transition, clause in zip(transitions, row.clauses, strict=True):
            assert clause in transition.clause, at


def restarted(site: Site, function: ComplianceFunction, off_s: float) -> Site:
    """The same site after a power loss of `off_s`: another monotonic clock, and nothing but the dump."""
    dumped = site.function.dump(site.now_s, UTC_S + site.now_s)
    function.restore(dumped, site.now_s + off_s, UTC_S + site.now_s + off_s)
    after = Site(function, site.source, site.quantity)
    after.now_s = site.now_s + off_s
    return after


OFF = Absent.UNLIMITED
