"""What the DSO twin does and when, as data: shares of the duration, powers per unit of the connection's rating.

A script may hold orders that no layer should accept; so its values aren't held against the interface's schema.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, TypeAlias

import yaml
from pydantic import Field, ValidationError, model_validator

from config.strict import Name, NotNegative, PerUnit, Positive, Strict

SHORTEST_S: Final = 30.0
"""Below it phases are too short for a layer to settle in."""

FALLBACK_SEEN_S: Final = 1.0
"""How much longer than the heartbeat's time-out a silence must last for the fallback to show."""


class ScriptError(Exception):
    """The script can't be played; the text says why, one finding a line."""


class Phase(Strict):
    """A stretch that lasts until the next phase. In a silence the connection stays and nothing is sent."""

    name: Name
    start: PerUnit
    silence: bool = False


class LimitStep(Strict):
    """A limit; `value_pu` counts in the connection's rating, `value` is sent as it stands."""

    quantity: str
    value_pu: float | None = None
    value: float | str | None = None
    on_end: str | None = None

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        if (self.value_pu is None) == (self.value is None):
            raise ValueError("a limit has either `value_pu` or `value`")
        return self


class DispatchStep(Strict):
    """A dispatch; import positive, per unit of the connection's rating."""

    net_power_pu: float
    regulation_up_pu: float = 0.0
    regulation_down_pu: float = 0.0
    ramp_pu_per_s: float | None = None
    lambda_per_kwh: float | None = None
    epoch_offset: int = 0


class AuthorityStep(Strict):
    """The hand-over to `parent`; the twin itself where none is named."""

    parent: str | None = None
    epoch_offset: int = 0


class RawStep(Strict):
    """Text sent as it stands, to the topic of `kind`."""

    kind: str
    payload: str


class OrderStep(Strict):
    """One order at a share of the duration, and what its acknowledgement must say.

    The rest makes orders that must be refused: `age_s` backdates, `id_of` takes another order's id, `extra` adds
    fields, `pad_bytes` fills up with blanks.
    """

    name: Name
    at: PerUnit
    until: Annotated[float, Field(gt=0, le=1)] | None = None
    duration_s: Positive | None = None
    limit: LimitStep | None = None
    dispatch: DispatchStep | None = None
    authority: AuthorityStep | None = None
    raw: RawStep | None = None
    expect: Literal["accepted", "rejected"] = "accepted"
    then: Literal["completed", "superseded"] | None = None
    age_s: NotNegative = 0.0
    id_of: Name | None = None
    extra: dict[str, Any] = Field(default_factory=dict)
    pad_bytes: Annotated[int, Field(ge=0, le=1_000_000)] = 0

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if sum(item is not None for item in (self.limit, self.dispatch, self.authority, self.raw)) != 1:
            raise ValueError("an order has exactly one of limit, dispatch, authority, raw")
        if self.until is not None and self.duration_s is not None:
            raise ValueError("an order has either `until` or `duration_s`")
        if self.until is not None and self.until <= self.at:
            raise ValueError("`until` is not after `at`")
        if self.then is not None and (self.until is None or self.expect == "rejected"):
            raise ValueError("`then` needs `until` and an accepted order")
        return self

    @property
    def kind(self) -> str:
        """The last level of the order's topic."""
        if self.raw is not None:
            return self.raw.kind
        return "limits" if self.limit else "dispatch" if self.dispatch else "authority"

    @property
    def expected_id(self) -> Literal["own", "empty", "either"]:
        """Which id the acknowledgement names: none can be read out of a payload that isn't a JSON object."""
        return "empty" if self.raw is not None else "either" if self.pad_bytes else "own"


class RegulationStep(Strict):
    """A regulation signal: the rows of a series from `first_row` on, one each `interval_s`."""

    name: Name
    at: PerUnit
    until: Annotated[float, Field(gt=0, le=1)]
    series: str = "regulation_3h_2s.csv"
    first_row: Annotated[int, Field(ge=0)] = 0
    interval_s: Positive = 2.0
    lost_after_s: Positive = 10.0


class Script(Strict):
    """Phases, orders and regulation of one run; `shortest_s` is the least duration that it makes sense in."""

    title: str = ""
    shortest_s: Positive = SHORTEST_S
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    orders: tuple[OrderStep, ...] = ()
    regulation: tuple[RegulationStep, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        findings = [*self._phase_findings(), *self._order_findings()]
        if findings:
            raise ValueError("; ".join(findings))
        return self

    def _phase_findings(self) -> Iterator[str]:
        starts = [phase.start for phase in self.phases]
        if starts[0] != 0 or any(later <= earlier for earlier, later in pairwise(starts)):
            yield "phases start at 0 and ascend"
        if self.phases[-1].silence:
            yield "the last phase can't be a silence: nothing would show that the layer recovers"
        for group in (self.phases, self.orders, self.regulation):
            names = [step.name for step in group]
            yield from (f"{name!r} is there twice" for name in sorted(set(names)) if names.count(name) > 1)

    def _order_findings(self) -> Iterator[str]:
        times = {order.name: order.at for order in self.orders}
        for order in self.orders:
            if order.id_of is not None and times.get(order.id_of, 2.0) >= order.at:
                yield f"{order.name}: {order.id_of!r} is no earlier order"
        for start, end in self.silences():
            for order in self.orders:
                if start <= order.at < end:
                    yield f"{order.name}: falls into a silence"
            for step in self.regulation:
                if step.at < end and step.until > start:
                    yield f"{step.name}: reaches into a silence"

    def silences(self) -> Iterator[tuple[float, float]]:
        """Start and end of each silence, as shares."""
        ends = (*(phase.start for phase in self.phases[1:]), 1.0)
        for phase, end in zip(self.phases, ends, strict=True):
            if phase.silence:
                yield phase.start, end


class PhaseBegins(NamedTuple):
    at_s: float
    phase: Phase


class GiveOrder(NamedTuple):
    at_s: float
    step: OrderStep
    until_s: float | None


class GiveSignal(NamedTuple):
    at_s: float
    step: RegulationStep
    signal: float
    last: bool


class Beat(NamedTuple):
    at_s: float


Action: TypeAlias = PhaseBegins | GiveOrder | GiveSignal | Beat


def load_script(path: Path | None = None) -> Script:
    """Read a script, the shipped demo where no path is given. Raises ScriptError with all findings."""
    source: Traversable = files("config") / "scripts" / "demo_orders.yaml" if path is None else path
    try:
        return Script.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ScriptError(f"{source}: {error}") from error
    except ValidationError as error:
        lines = (f"{source}: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ScriptError("\n".join(lines)) from error


def load_signal(name: str, beside: Path | None = None) -> tuple[float, ...]:
    """The column `signal_pu` of a series among the shipped data or in the folder `beside`.

    Raises ScriptError when there is none or a value isn't within -1 to 1.
    """
    own = beside / name if beside is not None else None
    source: Traversable = own if own is not None and own.is_file() else files("config") / "data" / name
    try:
        with source.open(encoding="utf-8") as file:
            values = tuple(float(row["signal_pu"]) for row in csv.DictReader(file))
    except (OSError, KeyError, ValueError) as error:
        raise ScriptError(f"{source}: not a series with a column signal_pu ({error!r})") from error
    if not values or not all(-1 <= value <= 1 for value in values):
        raise ScriptError(f"{source}: signal_pu needs values within -1 to 1")
    return values


def check_timing(script: Script, duration_s: float, heartbeat_timeout_s: float) -> None:
    """Raises ScriptError where the duration is too short for the script to mean what it says."""
    if duration_s < script.shortest_s:
        raise ScriptError(f"duration {duration_s:g} s: a script needs at least {script.shortest_s:g} s")
    for start, end in script.silences():
        lasts_s = (end - start) * duration_s
        if lasts_s < heartbeat_timeout_s + FALLBACK_SEEN_S:
            needed_s = (heartbeat_timeout_s + FALLBACK_SEEN_S) / (end - start)
            raise ScriptError(
                f"a silence of {lasts_s:.1f} s is too short to show a heartbeat time-out of {heartbeat_timeout_s:g} s; "
                f"the duration must be at least {math.ceil(needed_s)} s"
            )


def timeline(
    script: Script, duration_s: float, heartbeat_interval_s: float, beside: Path | None = None
) -> tuple[Action, ...]:
    """Everything the twin does, in order of time (seconds of the script). Raises ScriptError for a missing series."""
    actions: list[Action] = [PhaseBegins(phase.start * duration_s, phase) for phase in script.phases]
    actions += _beats(script, duration_s, heartbeat_interval_s)
    for order in script.orders:
        until_s = None if order.until is None else order.until * duration_s
        actions.append(GiveOrder(order.at * duration_s, order, until_s))
    for step in script.regulation:
        actions += _signals(step, duration_s, beside)
    # The sort is stable: at one instant a phase begins first, then the heartbeat, then orders as written.
    return tuple(sorted(actions, key=lambda action: action.at_s))


def _beats(script: Script, duration_s: float, interval_s: float) -> Iterator[Beat]:
    silences = [(start * duration_s, end * duration_s) for start, end in script.silences()]
    # The life sign returns at once when a silence ends.
    starts = [0.0, *(end_s for _, end_s in silences)]
    ends = [*(start_s for start_s, _ in silences), duration_s]
    for start_s, end_s in zip(starts, ends, strict=True):
        count = 0
        while (at_s := start_s + count * interval_s) < end_s:
            yield Beat(at_s)
            count += 1


def _signals(step: RegulationStep, duration_s: float, beside: Path | None) -> Iterator[GiveSignal]:
    values = load_signal(step.series, beside)
    at_s, until_s = step.at * duration_s, step.until * duration_s
    # The last one is left at least half an interval to be answered in.
    number = max(1, int((until_s - at_s) / step.interval_s + 0.5))
    for index in range(number):
        value = values[(step.first_row + index) % len(values)]
        yield GiveSignal(at_s + index * step.interval_s, step, value, index == number - 1)
