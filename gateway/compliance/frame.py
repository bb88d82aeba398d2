"""The frame of every compliance function: from a moment to a ruling with bounds, state and cited transitions.

A function narrows and never widens: its bounds stand beside every other limit, and the tightest holds. It has a bound
wherever its state is a fail-safe one. What is missing from a moment is None and never means that there is no limit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, isfinite
from typing import Any, Final, NamedTuple

from config.vocabulary import Absent, LimitValue, Quantity

NOBODY_HEARD: Final[Mapping[str, float | None]] = {}


class GivenLimit(NamedTuple):
    """A limit that a source has given: a magnitude, unlimited or unknown; times are monotonic.

    `ends_s` None: until replaced. `heartbeat_age_s`: how long before its receipt the source's last heartbeat came;
    None: there was none, or nobody knows any more.
    """

    source: str
    order_id: str
    quantity: Quantity
    value: LimitValue
    received_s: float
    starts_s: float
    ends_s: float | None
    heartbeat_age_s: float | None

    @property
    def name(self) -> str:
        """How bounds and reports call it."""
        return f"{self.source} {self.order_id}"


@dataclass(frozen=True, slots=True)
class Moment:
    """What the functions are shown each cycle. Powers in load convention, but generation, a magnitude.

    `net_w` and `generation_w` are None where they are not measured; `lower_w` and `upper_w` are the bounds on net power
    of the last cycle. `heartbeat_age_s` by source: None or missing where it was never heard.
    """

    now_s: float
    utc_s: float
    dt_s: float = 0.0
    net_w: float | None = None
    generation_w: float | None = None
    lower_w: float = -inf
    upper_w: float = inf
    heartbeat_age_s: Mapping[str, float | None] = field(default_factory=dict)
    limits: tuple[GivenLimit, ...] = ()

    @property
    def measured_net_w(self) -> float | None:
        """Net power; None where it is not a finite number."""
        return self.net_w if self.net_w is not None and isfinite(self.net_w) else None

    @property
    def measured_generation_w(self) -> float | None:
        """Generation, a magnitude; None where it is not a finite number."""
        return self.generation_w if self.generation_w is not None and isfinite(self.generation_w) else None

    def age_s(self, source: str) -> float:
        """How long a source has been silent; infinite where it was never heard."""
        age_s = self.heartbeat_age_s.get(source)
        return inf if age_s is None else age_s


class QuantityBound(NamedTuple):
    """At most this magnitude of a quantity, and why."""

    quantity: Quantity
    value_w: float
    why: str


class Transition(NamedTuple):
    """A state left for another, or a count made in one (`left` is `entered`), with the clause that says so."""

    function: str
    left: str
    entered: str
    clause: str
    reason: str


class Margins(NamedTuple):
    """How far inside the bounds on net power to stay, and why."""

    lower_w: float
    upper_w: float
    why: str


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a function says of this cycle. `failsafe`: its state is a fail-safe one. `facts` are for display."""

    function: str
    state: str
    failsafe: bool
    bounds: tuple[QuantityBound, ...] = ()
    transitions: tuple[Transition, ...] = ()
    margins: Margins | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class ComplianceFunction(ABC):
    """One rule as a state machine. `step` is total: no moment makes it raise."""

    def __init__(self, name: str, state: StrEnum) -> None:
        self.name = name
        self._state: StrEnum = state
        self._entered_s: float | None = None
        self._taken: list[Transition] = []

    @property
    def state(self) -> str:
        """The present state's name."""
        return self._state.value

    @property
    def sources(self) -> Mapping[str, float]:
        """The parents whose silence this function answers, and after how many seconds."""
        return {}

    @property
    def ruled(self) -> frozenset[Quantity]:
        """The quantities that the function bounds while its sources are silent."""
        return frozenset()

    def governs(self, source: str, quantity: Quantity) -> bool:
        """Whether this source's limits on the quantity act through this function, and not by themselves."""
        return source in self.sources and quantity in self.ruled

    def refusal(self, given: GivenLimit) -> str:
        """Why a limit that the function governs isn't taken; empty: it is."""
        return ""

    def step(self, moment: Moment) -> Ruling:
        """Advance to a moment; `now_s` never falls."""
        if self._entered_s is None:
            self._entered_s = moment.now_s
        self._advance(moment)
        taken, self._taken = tuple(self._taken), []
        ruling = self.rule(moment)
        return Ruling(self.name, ruling.state, ruling.failsafe, ruling.bounds, taken, ruling.margins, ruling.facts)

    @abstractmethod
    def _advance(self, moment: Moment) -> None:
        """Take the transitions that are due."""

    @abstractmethod
    def rule(self, moment: Moment) -> Ruling:
        """What the present state means at a moment; changes nothing."""

    @abstractmethod
    def dump(self, now_s: float, utc_s: float) -> dict[str, Any]:
        """What survives a restart, as plain JSON with times in UTC seconds."""

    @abstractmethod
    def restore(self, dumped: Mapping[str, Any], now_s: float, utc_s: float) -> None:
        """Take up a dump. Raises ValueError, KeyError or TypeError on what is none, and changes nothing then."""

    def command(self, request: Mapping[str, Any], now_s: float) -> str:
        """An operator's word on the function, and what became of it. Raises ValueError with a text."""
        raise ValueError(f"{self.name} takes no commands")

    def _to(self, state: StrEnum, now_s: float, clause: str, reason: str) -> None:
        self._taken.append(Transition(self.name, self._state.value, state.value, clause, reason))
        self._state, self._entered_s = state, now_s

    def _count(self, clause: str, reason: str) -> None:
        """Something that is told and kept without a change of state."""
        self._taken.append(Transition(self.name, self._state.value, self._state.value, clause, reason))

    def _since_s(self, now_s: float) -> float:
        """How long the present state has lasted."""
        return 0.0 if self._entered_s is None else now_s - self._entered_s

    def _ruling(
        self,
        failsafe: bool,
        bounds: Iterable[QuantityBound] = (),
        margins: Margins | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Ruling:
        return Ruling(self.name, self.state, failsafe, tuple(bounds), (), margins, facts or {})


def in_utc(then_s: float, now_s: float, utc_s: float) -> float:
    """A monotonic time as UTC seconds."""
    return utc_s + then_s - now_s


def from_utc(raw: Any, now_s: float, utc_s: float) -> float:
    """A past UTC time as monotonic seconds; one that lies ahead of the clock is now, so that nothing ends early."""
    return now_s - max(utc_s - finite(raw), 0.0)


def finite(raw: Any) -> float:
    """A finite number; raises ValueError."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not isfinite(raw):
        raise ValueError(f"{raw!r} is not a finite number")
    return float(raw)


def is_magnitude(value: LimitValue) -> bool:
    """Whether a limit is a number that can be kept."""
    return not isinstance(value, Absent) and isfinite(value) and value >= 0.0
