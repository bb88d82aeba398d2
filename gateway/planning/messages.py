"""What control and planner say to each other, one JSON object a line: states go down, plans come back.

Times are UTC seconds. Powers in watts, load convention, but for magnitudes that are named so. Control believes nothing
of a plan that `decode_plan` has not let through.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from config.planning import Planning, StorageSettings
from config.strict import Flag, Name, NotNegative, Number, PerUnit, Positive, Strict, Whole
from config.vocabulary import Quantity
from gateway.control.clearing import Curve, make_curve

LONGEST_LINE: Final = 2**20
MOST_STEPS: Final = 576
MOST_POINTS: Final = 64
MOST_PRICE_PER_KWH: Final = 1_000.0
SLACK_W: Final = 1.0
"""By so much a curve may pass its device's bounds, for the solver's rounding."""

Text = Annotated[str, Field(max_length=300)]
Price = Annotated[float, Field(strict=True, ge=-MOST_PRICE_PER_KWH, le=MOST_PRICE_PER_KWH)]
Series = Annotated[tuple[Number, ...], Field(max_length=MOST_STEPS)]

M = TypeVar("M", bound=Strict)


class RefusedMessageError(Exception):
    """A line that is not taken; the text says why."""


class BatteryState(Strict):
    """A battery that can be planned with now; powers are magnitudes."""

    name: Name
    capacity_wh: Positive
    soc: PerUnit
    soc_min: PerUnit
    soc_max: PerUnit
    charge_w: NotNegative
    discharge_w: NotNegative
    settings: StorageSettings


class CarState(Strict):
    """A car that is there and of which somebody has said what it needs."""

    name: Name
    max_w: NotNegative
    needed_wh: NotNegative
    leaves_utc_s: Number


class LimitState(Strict):
    """A limit in force or announced; `until_utc_s` None: until replaced."""

    quantity: Quantity
    value: NotNegative | Literal["unlimited", "unknown"]
    from_utc_s: Number
    until_utc_s: Number | None
    then_fallback: Flag = False


class DispatchState(Strict):
    """A dispatch in force or announced, with the prices of the intervals that begin with it.

    `until_replaced`: it has no end and answers an offer, as a parent's share of each cycle does; of what the next
    interval brings it says nothing, and its path goes by the steps of the clock.
    """

    net_power_w: Number
    regulation_up_w: NotNegative
    regulation_down_w: NotNegative
    from_utc_s: Number
    until_utc_s: Number | None
    lambda_per_kwh: Number | None
    path_per_kwh: tuple[Number, ...]
    until_replaced: Flag = False


class ConnectionState(Strict):
    """What bounds net power without any order, as magnitudes, and the range of what cannot be controlled.

    `fallback_holds` for as long as nobody says otherwise; None: the fallback leaves that side open.
    """

    max_import_w: NotNegative
    max_export_w: NotNegative
    fallback_import_w: NotNegative | None
    fallback_export_w: NotNegative | None
    fallback_holds: Flag
    watts_per_a: NotNegative
    rest_min_w: Number
    rest_max_w: Number
    rating_w: NotNegative = 0.0

    @property
    def scale_w(self) -> float:
        """The rating, or the most that may flow where nobody says it."""
        return self.rating_w or max(self.max_import_w, self.max_export_w, 1.0)


class ChildInterval(Strict):
    """What a layer below offers for one step of the clock: its curve, and its envelope."""

    prices_per_kwh: Annotated[tuple[Number, ...], Field(min_length=1, max_length=200)]
    powers_w: Annotated[tuple[Number, ...], Field(min_length=1, max_length=200)]
    lower_w: Number
    upper_w: Number


class ChildState(Strict):
    """A layer below, by the clock's steps from the one that began at `begin_utc_s` on.

    `base_w` is what it does by itself, `intervals` what it offers in the first steps. Of what it offers it delivers a
    part.
    """

    name: Name
    begin_utc_s: Number
    base_w: Annotated[tuple[Number, ...], Field(min_length=1, max_length=MOST_STEPS + 1)]
    intervals: Annotated[tuple[ChildInterval | None, ...], Field(max_length=MOST_STEPS)]
    energy_up_wh: NotNegative
    energy_down_wh: NotNegative
    ramp_w_per_s: Positive | None = None
    delivered_pu: PerUnit = 1.0


class MeasuredStep(Strict):
    """Means over one step of the history; None where they could not be measured. Sun per unit of the ratings."""

    begin_utc_s: Number
    rest_w: Number | None
    sun_pu: NotNegative | None


class StateMessage(Strict):
    """From control: plan from here. `rest_w` is measured now, `sun_pu` what the inverters could give at least.

    `offers`: there is somebody above to make offers to.
    """

    type: Literal["state"] = "state"
    id: Whole
    utc_s: Number
    planning: Planning
    connection: ConnectionState
    rest_w: Number | None
    sun_pu: NotNegative | None
    sun_rating_w: NotNegative
    unplanned_w: Number = 0.0
    batteries: tuple[BatteryState, ...] = ()
    cars: tuple[CarState, ...] = ()
    children: tuple[ChildState, ...] = ()
    limits: tuple[LimitState, ...] = ()
    dispatches: tuple[DispatchState, ...] = ()
    offers: Flag = False
    measured: tuple[MeasuredStep, ...] = ()


class ScoreMessage(Strict):
    """How forecasts of at least an hour ahead have done; as `gateway.planning.forecast.Score`."""

    mean_error_w: NotNegative
    relative: NotNegative | None
    inside: PerUnit
    steps: Whole


class CurveMessage(Strict):
    """A device's curve: prices ascend, powers do not rise."""

    device: Name
    prices_per_kwh: Annotated[tuple[Price, ...], Field(min_length=1, max_length=MOST_POINTS)]
    powers_w: Annotated[tuple[Number, ...], Field(min_length=1, max_length=MOST_POINTS)]


class PlannedSeries(Strict):
    """The plan for whoever looks at it, one value a step; `stored_wh` of all batteries at each step's end."""

    net_w: Series = ()
    lambda_per_kwh: Series = ()
    import_per_kwh: Series = ()
    export_per_kwh: Series = ()
    load_p10_w: Series = ()
    load_p50_w: Series = ()
    load_p90_w: Series = ()
    sun_p10_w: Series = ()
    sun_p50_w: Series = ()
    sun_p90_w: Series = ()
    sun_w: Series = ()
    battery_w: Series = ()
    cars_w: Series = ()
    stored_wh: Series = ()


class PlanMessage(Strict):
    """From the planner: what came of the state with this id. `failed` has no curves and says why."""

    type: Literal["plan"] = "plan"
    id: Whole
    status: Literal["optimal", "incumbent", "failed"]
    reason: Text = ""
    begin_utc_s: Number = 0.0
    step_s: Positive = 900.0
    valid_s: NotNegative = 0.0
    solve_s: NotNegative = 0.0
    cost: Number | None = None
    repairs: Whole = 0
    given_up: Annotated[dict[Text, Number], Field(max_length=32)] = Field(default_factory=dict)
    assumptions: Annotated[tuple[Text, ...], Field(max_length=32)] = ()
    curves: Annotated[tuple[CurveMessage, ...], Field(max_length=10_000)] = ()
    series: PlannedSeries = PlannedSeries()
    scores: Annotated[dict[Name, ScoreMessage], Field(max_length=8)] = Field(default_factory=dict)


class OfferMessage(Strict):
    """From the planner: one interval to come, as it is offered, and the devices' curves that made it, by local price.

    Points, envelope, capacities and forecast are of the whole layer and on the published grid.
    """

    type: Literal["offer"] = "offer"
    id: Whole
    begin_utc_s: Number
    length_s: Positive
    prices_per_kwh: Annotated[tuple[Price, ...], Field(min_length=1, max_length=MOST_POINTS)]
    powers_w: Annotated[tuple[Number, ...], Field(min_length=1, max_length=MOST_POINTS)]
    lower_w: Number
    upper_w: Number
    error_w: NotNegative
    energy_up_wh: NotNegative
    energy_down_wh: NotNegative
    regulation_up_w: NotNegative = 0.0
    regulation_down_w: NotNegative = 0.0
    regulation_price_per_kwh: Price | None = None
    forecast_w: tuple[Number, Number, Number]
    price_step_per_kwh: Positive
    solves: Whole = 0
    curves: Annotated[tuple[CurveMessage, ...], Field(max_length=10_000)] = ()


class OutlookMessage(Strict):
    """From the planner: the net power planned for the intervals after those with a curve, with its p10 and p90."""

    type: Literal["outlook"] = "outlook"
    id: Whole
    begin_utc_s: Number
    length_s: Positive
    p10_w: Series
    p50_w: Series
    p90_w: Series


def kind_of(line: bytes) -> type[PlanMessage] | type[OfferMessage] | type[OutlookMessage]:
    """What a line of the planner's says it is; whatever is not known is looked at as a plan, and refused as one."""
    for kind in (OfferMessage, OutlookMessage):
        if line.startswith(f'{{"type":"{kind.model_fields["type"].default}"'.encode()):
            return kind
    return PlanMessage


def encode(message: Strict) -> bytes:
    """One line."""
    return message.model_dump_json().encode() + b"\n"


def decode(line: bytes, kind: type[M]) -> M:
    """A line as a message of a kind; raises RefusedMessageError."""
    if len(line) > LONGEST_LINE:
        raise RefusedMessageError(f"{len(line)} bytes in a line; {LONGEST_LINE} are allowed")
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RefusedMessageError(f"malformed: {where + ': ' if where else ''}{first['msg']}"[:300]) from None
    except RecursionError:
        raise RefusedMessageError("malformed: nested too deeply") from None


def checked_curves(
    plan: PlanMessage | OfferMessage, bounds_w: dict[str, tuple[float, float]]
) -> tuple[tuple[str, Curve], ...]:
    """The curves of a plan, or of an offer, for devices that may be planned, by name with their least and most power.

    Raises RefusedMessageError for any other device, for a curve that rises or passes the device's bounds.
    """
    found: dict[str, Curve] = {}
    for one in plan.curves:
        if one.device not in bounds_w or one.device in found:
            raise RefusedMessageError(f"{one.device}: a curve that nobody has asked for")
        if len(one.prices_per_kwh) != len(one.powers_w):
            raise RefusedMessageError(f"{one.device}: {len(one.prices_per_kwh)} prices, {len(one.powers_w)} powers")
        least_w, most_w = bounds_w[one.device]
        if min(one.powers_w) < least_w - SLACK_W or max(one.powers_w) > most_w + SLACK_W:
            raise RefusedMessageError(f"{one.device}: a curve beyond {least_w:g} to {most_w:g} W")
        try:
            found[one.device] = make_curve(list(zip(one.prices_per_kwh, one.powers_w, strict=True)))
        except ValueError as error:
            raise RefusedMessageError(f"{one.device}: {error}") from None
    return tuple(found.items())
