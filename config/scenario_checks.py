"""The checks that a scenario may name: what is measured, its parameters and the limit it is held against.

Every check is computed from the record of the bench's physics, but for `orders_answered`, which is about the interface,
and `memory_growth`, which is about the process.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from config.strict import Flag, Name, NotNegative, Number, PerUnit, Positive, Strict
from config.vocabulary import Quantity

Tolerance = Annotated[float, Field(strict=True, gt=0, le=0.5)]


class CheckBase(Strict):
    """What all checks share."""

    name: Name | None = Field(None, description="what reports call it; default the check's own name")
    from_s: NotNegative | None = Field(None, description="begin of the time that is judged; default the start")
    until_s: Positive | None = Field(None, description="end of the time that is judged; default the end")


class LimitsKept(CheckBase):
    """Longest time beyond any limit in force, in seconds."""

    check: Literal["limits_kept"]
    limit: NotNegative = Field(description="most seconds")
    tolerance_pu: Tolerance = Field(0.01, description="of the connection's rating")
    grace_s: NotNegative = Field(0.5, description="how long a limit has been in force before it is judged")
    quantity: Quantity | None = Field(None, description="this quantity alone")


class LimitReached(CheckBase):
    """Longest time from a limit taking force until the power is within it and stays, in seconds."""

    check: Literal["limit_reached"]
    limit: NotNegative = Field(description="most seconds")
    tolerance_pu: Tolerance = Field(0.01, description="of the connection's rating")
    follows: Flag = Field(False, description="the power must come to the limit, not only stay inside it")
    hold_s: Positive | None = Field(None, description="how long it must stay; default to the end of the order")
    orders: tuple[Name, ...] = Field((), description="names of the orders; default all limits")


class ExcursionStage(CheckBase):
    """Worst stage of the excursions, 1 to 4 (UK G100: 15 s, 60 s, 2 in 10 min)."""

    check: Literal["excursion_stage"]
    limit: Annotated[int, Field(strict=True, ge=1, le=4)] = Field(description="the stage allowed")
    tolerance_pu: Tolerance = Field(0.01, description="of the connection's rating")


class DispatchSettled(CheckBase):
    """Longest time from a dispatch taking force until the net power is near it and stays, in seconds."""

    check: Literal["dispatch_settled"]
    limit: NotNegative = Field(description="most seconds")
    tolerance_pu: Tolerance = Field(0.01, description="of the connection's rating")
    hold_s: Positive = Field(0.5, description="how long it must stay")
    orders: tuple[Name, ...] = Field((), description="names of the orders; default all dispatches")


class Overshoot(CheckBase):
    """Furthest that the net power went beyond a dispatch, in units of the step."""

    check: Literal["overshoot"]
    limit: NotNegative = Field(description="most")
    orders: tuple[Name, ...] = Field((), description="names of the orders; default all dispatches")


class StepResponse(CheckBase):
    """By how much of a dispatch's step the net power is behind y0 + (yss - y0)(1 - exp(-2.303 t / Tr))."""

    check: Literal["step_response"]
    limit: NotNegative = Field(description="most, in units of the step")
    tr90_s: Positive = Field(description="Tr of the expected response")
    dead_time_s: NotNegative = Field(0.0, description="by which the expected response is later than the order")
    orders: tuple[Name, ...] = Field((), description="names of the orders; default all dispatches")


class RegulationBase(CheckBase):
    """Both sides averaged over the same time."""

    average_s: Positive = Field(10.0, description="over which both sides are averaged")
    window_s: Positive = Field(300.0, description="length of a scored window")
    shift_s: NotNegative = Field(300.0, description="longest shift of the response")


class RegulationPrecision(RegulationBase):
    """Precision of the response to a regulation signal."""

    check: Literal["regulation_precision"]
    limit: Annotated[float, Field(strict=True, le=1)] = Field(description="least")


class RegulationScored(RegulationBase):
    """Mean of correlation, delay and precision of the response to a regulation signal."""

    check: Literal["regulation_score"]
    limit: Annotated[float, Field(strict=True, le=1)] = Field(description="least")


class TrackingErrorCheck(CheckBase):
    """Mean distance from the target of dispatch and regulation, per unit of the connection's rating."""

    check: Literal["tracking_error"]
    limit: NotNegative = Field(description="most")


class Steady(CheckBase):
    """Swing of the net power, per unit of the connection's rating: a limit cycle doesn't end."""

    check: Literal["steady"]
    limit: NotNegative = Field(description="most")


class NetPower(CheckBase):
    """Furthest that the net power was outside a range, per unit of the connection's rating."""

    check: Literal["net_power"]
    limit: NotNegative = Field(0.0, description="most")
    least_pu: Number | None = Field(None, description="lower end of the range, import positive")
    most_pu: Number | None = Field(None, description="upper end of the range, import positive")


class DevicePower(CheckBase):
    """Furthest that a device's power was outside a range, in watts."""

    check: Literal["device_power"]
    device: Name = Field(description="the device")
    limit: NotNegative = Field(0.0, description="most")
    least_w: Number | None = Field(None, description="lower end of the range, load convention")
    most_w: Number | None = Field(None, description="upper end of the range, load convention")


class StateOfCharge(CheckBase):
    """Furthest that a battery's state of charge was outside a range."""

    check: Literal["state_of_charge"]
    device: Name = Field(description="the battery")
    limit: NotNegative = Field(0.0, description="most")
    least: PerUnit = Field(0.0, description="lower end of the range")
    most: PerUnit = Field(1.0, description="upper end of the range")


class UnservedEnergy(CheckBase):
    """Energy that cars needed and did not get, of all chargers together, in Wh."""

    check: Literal["unserved_energy"]
    limit: NotNegative = Field(description="most")


class EnergyCost(CheckBase):
    """What the net energy cost."""

    check: Literal["energy_cost"]
    limit: Number = Field(description="most")
    import_per_kwh: Number = Field(description="what a kWh taken costs")
    export_per_kwh: Number = Field(description="what a kWh given earns")


class FallbackReached(CheckBase):
    """Longest time from the loss of the parent until the power is within the fallback and stays, in seconds."""

    check: Literal["fallback_reached"]
    limit: NotNegative = Field(description="most seconds")
    tolerance_pu: Tolerance = Field(0.01, description="of the connection's rating")


class FaultsSurvived(CheckBase):
    """Longest time from the end of a fault until every limit and the target are kept again, in seconds."""

    check: Literal["faults_survived"]
    limit: NotNegative = Field(description="most seconds")
    tolerance_pu: Tolerance = Field(0.02, description="of the connection's rating")
    hold_s: Positive = Field(0.5, description="how long it must stay")


class OrdersAnswered(CheckBase):
    """How many of the operator's own checks failed: what was acknowledged, echoed and reported at the interface."""

    check: Literal["orders_answered"]
    limit: Annotated[int, Field(strict=True, ge=0)] = Field(0, description="most")


class MemoryGrowth(CheckBase):
    """Growth of the memory that the gateway's process holds, in MB an hour, after the first tenth of the run."""

    check: Literal["memory_growth"]
    limit: NotNegative = Field(description="most MB an hour")


Check = Annotated[
    LimitsKept
    | LimitReached
    | ExcursionStage
    | DispatchSettled
    | Overshoot
    | StepResponse
    | RegulationPrecision
    | RegulationScored
    | TrackingErrorCheck
    | Steady
    | NetPower
    | DevicePower
    | StateOfCharge
    | UnservedEnergy
    | EnergyCost
    | FallbackReached
    | FaultsSurvived
    | OrdersAnswered
    | MemoryGrowth,
    Field(discriminator="check"),
]
