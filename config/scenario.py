"""The schema of scenarios: a site, events in time, and checks with a limit each, as data.

Times are seconds after the start of the scenario, which is when the layer is first heard. Powers are in load
convention; `_pu` powers are per unit of the connection's rating.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

from pydantic import Field

from config.findings import Problem
from config.scenario_checks import Check
from config.strict import Flag, Name, NotNegative, Number, PerUnit, Positive, Rule, Strict, Whole
from config.vocabulary import Quantity

MOST_EVENTS: Final = 10_000


class Mode(StrEnum):
    """Realtime: processes and sockets. Lockstep: one process on virtual time, bit-identical by seed."""

    REALTIME = "realtime"
    LOCKSTEP = "lockstep"


class Function(StrEnum):
    """What `--sabotage` takes out of control, so that a scenario shows that it would notice."""

    LIMITS = "limits"
    DISPATCH = "dispatch"
    REGULATION = "regulation"
    FALLBACK = "fallback"
    FEEDBACK = "feedback"
    STALENESS = "staleness"
    METER = "meter"
    CONTROL = "control"


FUNCTIONS: Final[Mapping[Function, str]] = MappingProxyType(
    {
        Function.LIMITS: "limits from parents are not applied",
        Function.DISPATCH: "dispatch, and regulation with it, is not followed",
        Function.REGULATION: "the regulation signal is not followed",
        Function.FALLBACK: "a lost parent does not bring the fallback",
        Function.FEEDBACK: "the meter is paired with the devices' newest power, not with that of its own time",
        Function.STALENESS: "a value that has aged is used as if it were new",
        Function.METER: "the meter is not looked at: what the devices say is summed up, with the first load",
        Function.CONTROL: "no device gets a setpoint any more",
    }
)


class LimitEvent(Strict):
    """A limit; a magnitude, per unit of the connection's rating or as it is."""

    quantity: Quantity = Field(description="what is limited")
    value_pu: NotNegative | None = Field(None, description="per unit of the connection's rating")
    value: NotNegative | Literal["unlimited", "unknown"] | None = Field(None, description="in the quantity's own unit")
    on_end: Literal["unlimited", "fallback"] | None = Field(None, description="what holds after its end")

    rules: ClassVar[tuple[Rule, ...]] = (lambda limit: _one_of(limit, ("value_pu", "value")),)


class DispatchEvent(Strict):
    """A net power at the connection point, import positive."""

    net_power_pu: Number = Field(description="per unit of the connection's rating, import positive")
    regulation_up_pu: NotNegative = Field(0.0, description="capacity reserved for a signal above 0")
    regulation_down_pu: NotNegative = Field(0.0, description="capacity reserved for a signal below 0")
    ramp_pu_per_s: Positive | None = Field(None, description="how fast the net power may get there")
    lambda_per_kwh: Number | None = Field(None, description="price it was cleared at")
    epoch_offset: Whole = Field(0, description="how far off the epoch is that it names; -1 is a stale one")


class RegulationEvent(Strict):
    """A regulation signal from a series, one value each `interval_s` until the event ends."""

    series: str = Field("regulation_3h_2s.csv", description="shipped series with a column signal_pu")
    first_row: Annotated[int, Field(strict=True, ge=0)] = Field(0, description="row of the first value")
    interval_s: Positive = Field(2.0, description="time between two values")
    lost_after_s: Positive = Field(10.0, description="silence after which the signal counts as lost")


class AuthorityEvent(Strict):
    """The hand-over of dispatch; without one, the operator takes it at the start."""

    parent: Name | None = Field(None, description="to whom; default the operator itself")
    epoch_offset: Whole = Field(0, description="how far off the operator's own epoch it is")


class PlugInEvent(Strict):
    """A car that plugs in at a charger and leaves when the event ends."""

    device: Name = Field(description="the charger")
    needed_wh: Positive = Field(10_000.0, description="energy it wants")
    battery_wh: Positive = Field(50_000.0, description="capacity of its battery")
    max_current_a: Positive = Field(32.0, description="most current per phase it draws")
    wake_s: NotNegative = Field(0.2, description="from a current being offered to the car drawing it")


class GridEvent(Strict):
    """The source behind the connection point, and the breaker there; what is not named stays."""

    voltage_v: Positive | tuple[Positive, Positive, Positive] | None = Field(
        None, description="from phase to neutral; of all phases or of each"
    )
    frequency_hz: Positive | None = Field(None, description="of the source")
    ramp_s: NotNegative = Field(0.0, description="how long the change takes, and the way back; 0: a step")
    breaker: Literal["open", "closed"] | None = Field(None, description="open: every twin is without a grid")

    rules: ClassVar[tuple[Rule, ...]] = (lambda grid: _some_of(grid, ("voltage_v", "frequency_hz", "breaker")),)


class FaultEvent(Strict):
    """A fault at the wire, as `gateway faults list` names it."""

    fault: str = Field(description="its name")
    device: Name = Field(description="a device, a parent, or broker")
    parameters: dict[str, Any] = Field(default_factory=dict, description="the fault's own settings")


CONTENTS: Final = (
    "load_step_w",
    "irradiance_pu",
    "plug_in",
    "grid",
    "fault",
    "limit",
    "dispatch",
    "regulation",
    "authority",
    "gateway",
    "parent",
)
ORDERS: Final = ("limit", "dispatch", "authority")
MUST_END: Final = ("regulation", "parent")
"""What can't go on to the end of the scenario, or has to be taken back by somebody."""


def _one_of(model: Any, names: tuple[str, ...]) -> Iterator[Problem]:
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        words = f"has {' and '.join(given)}" if given else "says nothing"
        yield Problem((given[1],) if len(given) > 1 else (), words, f"exactly one of {', '.join(names)}")


def _some_of(model: Any, names: tuple[str, ...]) -> Iterator[Problem]:
    if all(getattr(model, name) is None for name in names):
        yield Problem((), "says nothing", f"at least one of {', '.join(names)}")


def _one_content(event: Event) -> Iterator[Problem]:
    yield from _one_of(event, CONTENTS)


def _ends_after_it_begins(event: Event) -> Iterator[Problem]:
    if event.until_s is not None and event.until_s <= event.at_s:
        yield Problem(("until_s",), f"{event.until_s:g} is not after at_s, {event.at_s:g}", see=("at_s",))
    for content in MUST_END:
        if getattr(event, content) is not None and event.until_s is None:
            yield Problem(("until_s",), f"is required with {content}", "a number greater than at_s")
    if event.gateway == "kill" and event.until_s is None:
        yield Problem(("until_s",), "is required with gateway: kill: when it is started again")


def _only_of_orders(event: Event) -> Iterator[Problem]:
    if any(getattr(event, content) is not None for content in ORDERS):
        return
    for key, default in (("expect", "accepted"), ("age_s", 0.0), ("id_of", None), ("duration_s", None)):
        if getattr(event, key) != default:
            yield Problem((key,), "is only for limit, dispatch and authority")


class Event(Strict):
    """One thing that happens, and until when; exactly one of the keys that say what."""

    at_s: NotNegative = Field(description="when, in seconds after the start")
    until_s: Positive | None = Field(None, description="when it ends; default with the scenario")
    name: Name | None = Field(None, description="what reports call it, and an order's id; default made from what it is")
    load_step_w: Number | None = Field(None, description="added to the uncontrolled load")
    irradiance_pu: PerUnit | None = Field(None, description="what is left of the irradiance of all PV")
    plug_in: PlugInEvent | None = Field(None, description="a car comes")
    grid: GridEvent | None = Field(None, description="voltage, frequency or the breaker of the grid")
    fault: FaultEvent | None = Field(None, description="a fault at the wire")
    limit: LimitEvent | None = Field(None, description="the operator limits")
    dispatch: DispatchEvent | None = Field(None, description="the operator dispatches")
    regulation: RegulationEvent | None = Field(None, description="the operator regulates")
    authority: AuthorityEvent | None = Field(None, description="dispatch is handed over")
    gateway: Literal["restart", "kill"] | None = Field(
        None, description="restart: orderly, at once; kill: as by kill -9, started again at the end"
    )
    parent: Literal["silent"] | None = Field(None, description="the operator's connection stays and nothing is sent")
    expect: Literal["accepted", "rejected"] = Field("accepted", description="what its acknowledgement must say")
    age_s: NotNegative = Field(0.0, description="how long ago the order says that it was issued")
    id_of: Name | None = Field(None, description="bears the id of this earlier order")
    duration_s: Positive | None = Field(None, description="the duration it says, where that is not until_s")

    rules: ClassVar[tuple[Rule, ...]] = (_one_content, _ends_after_it_begins, _only_of_orders)

    @property
    def content(self) -> str:
        """Which of the keys that say what is given."""
        return next(name for name in CONTENTS if getattr(self, name) is not None)

    @property
    def is_order(self) -> bool:
        """Whether the operator sends it and it is acknowledged."""
        return self.content in ORDERS


class FaultMatrix(Strict):
    """Faults against kinds of device, one after another: each pair that can be.

    `cover: pairwise` gives each fault one device of each kind it applies to; `full` gives it every device.
    """

    faults: Annotated[tuple[str, ...], Field(min_length=1)] = Field(description="names of faults")
    devices: Annotated[tuple[Name, ...], Field(min_length=1)] = Field(description="devices, parents or broker")
    cover: Literal["pairwise", "full"] = Field("pairwise", description="how many of the pairs")
    from_s: NotNegative = Field(5.0, description="when the first one begins")
    lasts_s: Positive = Field(3.0, description="how long each one lasts")
    apart_s: Positive = Field(3.0, description="from the end of one to the begin of the next")
    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict, description="settings by fault")
    along: dict[str, str] = Field(
        default_factory=dict, description="by fault, another that strikes with it, so that it has something to act on"
    )


Overrides: TypeAlias = dict[str, Any]


class Scenario(Strict):
    """One scenario."""

    scenario: Name = Field(description="the name; that of the file")
    title: str = Field(description="what it shows")
    source: Annotated[str, Field(min_length=10)] = Field(
        description="the document, its version and the clause that the events and the limits are from"
    )
    site: str = Field("demo", description="a shipped site, or a path ending in .yaml beside the scenario")
    overrides: Overrides = Field(default_factory=dict, description="what of the site file is different")
    duration_s: Annotated[float, Field(strict=True, ge=5, le=31 * 86_400)] = Field(description="length")
    mode: Mode = Field(description="realtime: processes and sockets; lockstep: one process on virtual time")
    period_ms: Annotated[int, Field(strict=True, ge=20, le=1000)] | None = Field(
        None, description="the control period; default the site's"
    )
    seed: Whole = Field(1, description="of everything random")
    sabotage: Function = Field(description="the function under test, which `--sabotage` takes out")
    soak: Flag = Field(False, description="too long for a run beside others; `make soak` runs it")
    events: Annotated[tuple[Event, ...], Field(max_length=MOST_EVENTS)] = Field((), description="in the order of time")
    matrix: FaultMatrix | None = Field(None, description="faults against devices, in turn")
    checks: Annotated[tuple[Check, ...], Field(min_length=1)] = Field(description="what is measured, and its limits")
