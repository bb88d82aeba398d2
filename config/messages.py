"""The layer interface: the messages between a layer and its parent, and the topics they travel on.

Nothing else crosses: schemas forbid extra fields, and no message names a device. Powers are net power at the connection
point in load convention; limits are magnitudes in the unit that ends their quantity's name. Times are UTC with an
offset. Payloads are JSON objects of at most `MAX_PAYLOAD_BYTES`.

Topics: `lamina/v1/LAYER/SOURCE/down/MESSAGE` from the source named in the topic, `lamina/v1/LAYER/SOURCE/up/MESSAGE`
to it. A broker's access rules make the source in the topic the authenticated one.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, Field, model_validator

from config.strict import Name, NotNegative, Number, Positive, Strict
from config.vocabulary import Quantity

MAX_PAYLOAD_BYTES: Final = 65_536
MAX_DURATION_S: Final = 366 * 86_400.0
MAX_POWER_W: Final = 1e10

ORDER_ID_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,64}$"
OrderId = Annotated[str, Field(pattern=ORDER_ID_PATTERN)]
Power = Annotated[float, Field(strict=True, ge=-MAX_POWER_W, le=MAX_POWER_W)]
Magnitude = Annotated[float, Field(strict=True, ge=0, le=MAX_POWER_W)]
Duration = Annotated[float, Field(strict=True, gt=0, le=MAX_DURATION_S)]
Sequence = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Price = Annotated[float, Field(strict=True, ge=-1e6, le=1e6)]


RFC_3339: Final = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")


def _instant(value: object) -> object:
    """A number, in quotes or not, would be taken for seconds since some epoch."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str) and RFC_3339.fullmatch(value):
        return datetime.fromisoformat(value)
    raise ValueError("expected a time with its offset (timezone), as 2026-06-08T12:00:00Z")


Instant = Annotated[AwareDatetime, BeforeValidator(_instant)]


class Down(StrEnum):
    """Messages from a parent."""

    LIMITS = "limits"
    DISPATCH = "dispatch"
    REGULATION = "regulation"
    AUTHORITY = "authority"
    HEARTBEAT = "heartbeat"


class Up(StrEnum):
    """Messages to a parent."""

    OFFER = "offer"
    TELEMETRY = "telemetry"
    ACKNOWLEDGEMENT = "acknowledgement"
    HEARTBEAT = "heartbeat"


def down_topic(layer: str, source: str, message: Down | Literal["+"]) -> str:
    """Where `source` publishes `message` for `layer`; "+" subscribes to all of them."""
    return f"lamina/v1/{layer}/{source}/down/{message}"


def up_topic(layer: str, source: str, message: Up | Literal["+"]) -> str:
    """Where `layer` publishes `message` for `source`."""
    return f"lamina/v1/{layer}/{source}/up/{message}"


class OrderMessage(Strict):
    """What every order carries. A missing `start` means at once; a missing `duration_s` means until replaced."""

    id: OrderId
    issued_at: Instant
    start: Instant | None = None
    duration_s: Duration | None = None

    @property
    def begins_at(self) -> datetime:
        """Start, or the time of issue."""
        return self.start or self.issued_at

    @property
    def ends_at(self) -> datetime | None:
        """End, or None where it holds until replaced."""
        return None if self.duration_s is None else self.begins_at + timedelta(seconds=self.duration_s)


class LimitOrder(OrderMessage):
    """A limit on one quantity. It replaces the limit that the same source set on the same quantity.

    `unlimited` withdraws the source's limit; `unknown` puts the site's fallback in its place. `on_end` says what
    follows its duration: the source's limit is gone, or the fallback holds.
    """

    quantity: Quantity
    value: Magnitude | Literal["unlimited", "unknown"]
    on_end: Literal["unlimited", "fallback"] = "unlimited"


class DispatchOrder(OrderMessage):
    """Net power asked of the layer. The quantity binds, lambda settles.

    `lambda_path_per_kwh` announces the coming intervals' prices. The regulation capacities are what this dispatch
    reserves around its net power; a regulation signal is answered with them.
    """

    epoch: Sequence
    net_power_w: Power
    offer_id: OrderId | None = None
    lambda_per_kwh: Price | None = None
    lambda_path_per_kwh: Annotated[tuple[Price, ...], Field(max_length=576)] = ()
    ramp_w_per_s: Positive | None = None
    regulation_up_w: Magnitude = 0.0
    regulation_down_w: Magnitude = 0.0


class RegulationSignal(Strict):
    """A signal in [-1, 1]; above 0 asks for more generation: net = base - signal x capacity.

    Never retained. The newest sequence of an epoch wins. `lost_after_s` without one is a loss, answered by a ramp to
    base.
    """

    epoch: Sequence
    sequence: Sequence
    issued_at: Instant
    signal: Annotated[float, Field(strict=True, ge=-1, le=1)]
    lost_after_s: Annotated[float, Field(strict=True, gt=0, le=600)] = 10.0


class AuthorityOrder(OrderMessage):
    """Names the one source that dispatches from now on, and its epoch; each hand-over raises the epoch."""

    parent: Name
    epoch: Sequence


class Heartbeat(Strict):
    """Life sign in either direction; sequences rise."""

    sequence: Sequence
    issued_at: Instant


class AckStatus(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"
    COMPLETED = "completed"


class MeasuredResult(Strict):
    """What was measured at the connection point while an order was in force."""

    mean_net_power_w: Power | None
    energy_wh: Number | None
    unmet_s: NotNegative


class Acknowledgement(Strict):
    """What became of an order. `order_id` is empty when the payload was too broken to name one."""

    order_id: Annotated[str, Field(max_length=64)]
    kind: Down
    status: AckStatus
    reason: Annotated[str, Field(max_length=400)] = ""
    issued_at: Instant
    result: MeasuredResult | None = None


class Compliance(Strict):
    """Whether the layer keeps what it was told, and if not, why, without naming a device."""

    state: Literal["compliant", "unmet", "fallback", "bypassed"]
    reason: Annotated[str, Field(max_length=200)] = ""


class Telemetry(Strict):
    """What the parent sees of the layer: one resource. Values are None where no good measurement exists.

    `dispatch_id` repeats the dispatch in force, to the parent that gave it.
    """

    issued_at: Instant
    measured_at: Instant | None
    net_power_w: Power | None
    energy_import_wh: NotNegative | None = None
    energy_export_wh: NotNegative | None = None
    voltage_v: NotNegative | None = None
    frequency_hz: NotNegative | None = None
    connection: Literal["connected", "islanded", "unknown"] = "unknown"
    quality: Literal["good", "uncertain", "bad"]
    regulation_sequence: Sequence | None = None
    dispatch_id: OrderId | None = None
    compliance: Compliance


class CurvePointMessage(Strict):
    """One breakpoint: the net power taken at a price."""

    price_per_kwh: Price
    power_w: Power


class ForecastBand(Strict):
    """Quantiles of the net power expected without dispatch."""

    p10_w: Power
    p50_w: Power
    p90_w: Power

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.p10_w <= self.p50_w <= self.p90_w:
            raise ValueError("p10, p50, p90 must not fall")
        return self


class OfferInterval(Strict):
    """The layer's curve over one interval: prices ascend, power does not rise with price, all within the envelope."""

    start: Instant
    duration_s: Duration
    curve: Annotated[tuple[CurvePointMessage, ...], Field(min_length=1, max_length=200)]
    lower_w: Power
    upper_w: Power
    ramp_w_per_s: Positive | None = None
    energy_up_wh: NotNegative
    energy_down_wh: NotNegative
    regulation_up_w: Magnitude = 0.0
    regulation_down_w: Magnitude = 0.0
    regulation_price_per_kwh: Price | None = None
    forecast: ForecastBand | None = None

    @model_validator(mode="after")
    def _monotone_within_envelope(self) -> Self:
        prices = [point.price_per_kwh for point in self.curve]
        powers = [point.power_w for point in self.curve]
        if prices != sorted(prices) or powers != sorted(powers, reverse=True):
            raise ValueError("curve: prices must ascend and power must not rise with price")
        if self.lower_w > self.upper_w or powers[0] > self.upper_w or powers[-1] < self.lower_w:
            raise ValueError("curve: power outside lower_w to upper_w")
        return self


class Offer(Strict):
    """The flexibility of the layer, interval by interval, on a published grid of prices and powers."""

    id: OrderId
    issued_at: Instant
    expires_at: Instant
    intervals: Annotated[tuple[OfferInterval, ...], Field(min_length=1, max_length=576)]
    response_s: NotNegative
    power_step_w: Positive
    price_step_per_kwh: Positive
    error_bound_w: NotNegative


DOWN_SCHEMAS: Final[dict[Down, type[Strict]]] = {
    Down.LIMITS: LimitOrder,
    Down.DISPATCH: DispatchOrder,
    Down.REGULATION: RegulationSignal,
    Down.AUTHORITY: AuthorityOrder,
    Down.HEARTBEAT: Heartbeat,
}

UP_SCHEMAS: Final[dict[Up, type[Strict]]] = {
    Up.OFFER: Offer,
    Up.TELEMETRY: Telemetry,
    Up.ACKNOWLEDGEMENT: Acknowledgement,
    Up.HEARTBEAT: Heartbeat,
}
