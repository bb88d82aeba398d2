"""The schema of `report.json`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.strict import NotNegative, Strict

Count = Annotated[int, Field(ge=0)]


class Percentiles(Strict):
    """Nearest-rank percentiles in ms."""

    p50: float | None
    p99: float | None
    max: float | None


class OrderFigures(Strict):
    """One order. Times from receipt; `start_s` and `end_s` count from the start of the run, `end_s` None: never ended.

    `steady_error_pct` is in percent of the connection rating. `status` is the gateway's last word, `fault` the bench's
    own reason for not letting the order bind.
    """

    id: str
    kind: str
    received_to_written_ms: NotNegative | None
    settled_s: NotNegative | None
    steady_error_pct: NotNegative | None
    source: str
    status: str
    reason: str
    fault: str
    start_s: float | None
    end_s: float | None


class ExcursionFigures(Strict):
    """One time outside a limit. `at_s` from the start of the run; `limit` and `source` as they were at its begin.

    `source` is the installer, the fallback, or an order by its id and the parent that gave it.

    `peak` is how far it went beyond the limit, in the quantity's unit as `limit` is.
    """

    at_s: float
    lasted_s: NotNegative
    peak: NotNegative
    energy_wh: NotNegative
    quantity: str
    limit: float | None
    source: str


class Excursions(Strict):
    """Times outside a limit in force by more than 1 % of the rating, of all quantities; energy beyond the limits.

    `each` has the first of them, in the order of time.
    """

    count: Count | None
    longest_s: NotNegative | None
    energy_wh: NotNegative | None
    each: tuple[ExcursionFigures, ...] = ()


class LinkFigures(Strict):
    """Counters of one link of the gateway."""

    good: Count | None
    lost: Count | None
    reconnects: Count | None


class ProcessFigures(Strict):
    """The control process."""

    rss_mb: float | None
    cpu_pct: float | None
    first_setpoint_s: float | None


class Report(Strict):
    """A run in figures; None where something was not measured.

    Power figures come from the physics, the rest from the gateway's journal; the bare loop is an empty loop of the same
    period, measured in the same run.
    """

    duration_s: NotNegative | None
    cycles: Count | None
    missed_cycles: Count | None
    cycle_ms: Percentiles
    jitter_ms: Percentiles
    bare_loop_jitter_ms: Percentiles
    orders: tuple[OrderFigures, ...]
    excursions: Excursions
    refused_orders: Count | None
    links: dict[str, LinkFigures]
    process: ProcessFigures
