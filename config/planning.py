"""The planner's part of a site file: horizon, prices of the interchange, what storing costs, reserve."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from config.findings import Problem, did_you_mean, shown
from config.partial import known
from config.price import InterchangeForm, SpreadForm
from config.strict import Name, NotNegative, Number, PerUnit, Positive, Rule, Strict

Hour = Annotated[float, Field(strict=True, ge=0, le=24)]
Efficiency = Annotated[float, Field(strict=True, gt=0.5, le=1)]


class Prices(NamedTuple):
    """What a kWh costs at the connection point and earns there at one time."""

    import_per_kwh: float
    export_per_kwh: float


def _begins_before_it_ends(band: PriceBand) -> Iterator[Problem]:
    if band.from_h >= band.until_h:
        words = f"{band.from_h:g} is not before until_h, {band.until_h:g}; a night is two bands"
        yield Problem(("from_h",), words, see=("until_h",))


def _importing_costs_more(prices: PriceBand | InterchangePrices) -> Iterator[Problem]:
    if prices.export_per_kwh > prices.import_per_kwh:
        words = f"{prices.export_per_kwh:g} is above import_per_kwh, {prices.import_per_kwh:g}"
        yield Problem(("export_per_kwh",), words, "an export price up to the import price", see=("import_per_kwh",))


class PriceBand(Strict):
    """Prices in a part of the day, local time."""

    from_h: Hour = Field(description="hour of the day at which it begins")
    until_h: Hour = Field(description="hour of the day at which it ends")
    days: Literal["all", "working", "weekend"] = Field("all", description="working: Monday to Friday")
    import_per_kwh: Number = Field(description="what a kWh from outside costs")
    export_per_kwh: Number = Field(description="what a kWh to the outside earns; negative where it costs")

    rules: ClassVar[tuple[Rule, ...]] = (_begins_before_it_ends, _importing_costs_more)


class InterchangePrices(Strict):
    """The tariff of the connection. Between the two prices nothing is traded, and the local price floats."""

    import_per_kwh: Number = Field(0.30, description="outside every band: what a kWh from outside costs")
    export_per_kwh: Number = Field(0.08, description="outside every band: what a kWh to the outside earns")
    bands: tuple[PriceBand, ...] = Field((), description="the first that fits the time holds")
    cost: InterchangeForm = Field(SpreadForm(), description="what an interchange costs beyond the two prices")
    demand_per_kw: NotNegative = Field(0.0, description="charged for the highest import of the accounting period")
    peak_so_far_w: NotNegative = Field(0.0, description="import of that period that is paid for already")

    rules: ClassVar[tuple[Rule, ...]] = (_importing_costs_more,)


class StorageSettings(Strict):
    """What storing in a battery costs, and what is wished of it."""

    charge_efficiency_pu: Efficiency = Field(0.97, description="stored per unit of energy taken")
    discharge_efficiency_pu: Efficiency = Field(0.97, description="given per unit of energy taken from the store")
    wear_per_kwh: NotNegative = Field(0.01, description="for each kWh into it and out of it")
    target_soc: PerUnit | None = Field(None, description="wished for at the end of the horizon; null: as it is now")


class ReserveSettings(Strict):
    """Regulation capacity that batteries keep free at all times; a dispatch's own is added where it is more."""

    up_w: NotNegative = Field(0.0, description="less net power on demand, a magnitude")
    down_w: NotNegative = Field(0.0, description="more net power on demand, a magnitude")
    lasting_s: Positive = Field(900.0, description="how long the energy behind it lasts")


class OfferSettings(Strict):
    """What is offered to the layer above for the intervals to come: by solving the plan again at some prices.

    An interval is a step of the plan. Each breakpoint lies on the published grid.
    """

    intervals: Annotated[int, Field(strict=True, ge=1, le=24)] = Field(4, description="so many have a curve each")
    gate_s: Annotated[float, Field(strict=True, ge=0, le=3600)] = Field(
        120.0, description="so long before an interval its curve is final; 60 for a microgrid"
    )
    every_s: Annotated[float, Field(strict=True, ge=1, le=3600)] = Field(240.0, description="curves are made so often")
    solves: Annotated[int, Field(strict=True, ge=8, le=200)] = Field(40, description="at most, for a curve")
    error_pu: Annotated[float, Field(strict=True, ge=0.005, le=0.2)] = Field(
        0.01, description="of the connection's rating: the error that is aimed at; the one that is found is told"
    )
    price_step_per_kwh: Positive = Field(0.01, description="the grid of an offer's prices")


class PathSettings(Strict):
    """How the path of prices ahead is announced to the layers below: in rounds, each half of the way."""

    tolerance_per_kwh: NotNegative = Field(0.002, description="a path that would move by less stands")
    rounds: Annotated[int, Field(strict=True, ge=0, le=100)] = Field(5, description="at most, in one interval")


def _known_zone(planning: Planning) -> Iterator[Problem]:
    try:
        ZoneInfo(planning.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        words = f"{shown(planning.time_zone)} is not a time zone of this machine"
        yield Problem(("time_zone",), words, "an IANA name like Europe/Berlin, or UTC")


def _place_is_whole(planning: Planning) -> Iterator[Problem]:
    if (planning.latitude is None) != (planning.longitude is None):
        given = "latitude" if planning.longitude is None else "longitude"
        yield Problem((given,), "`latitude` and `longitude` go together; only one is given")


def _curves_outlast_a_plan(planning: Planning) -> Iterator[Problem]:
    least_s = planning.replan_s + planning.time_limit_s
    if planning.curves_valid_s <= least_s:
        words = f"{planning.curves_valid_s:g} is not above replan_s and time_limit_s together, {least_s:g}"
        yield Problem(("curves_valid_s",), words, see=("replan_s",))


class Planning(Strict):
    """A planner beside control: a process of its own that gives storages and cars their curves.

    With it, the tariff is part of the clearing. While there is no plan the default curves hold.
    """

    step_s: Literal[300, 900] = Field(900, description="length of a step of the plan and of the history")
    horizon_h: Annotated[int, Field(strict=True, ge=1, le=48)] = Field(24, description="how far ahead is planned")
    replan_s: Annotated[float, Field(strict=True, ge=1, le=3600)] = Field(60.0, description="a new plan this often")
    time_limit_s: Annotated[float, Field(strict=True, gt=0, le=600)] = Field(
        10.0, description="of the solver; a plan that comes later is refused"
    )
    curves_valid_s: Positive = Field(900.0, description="how long a plan's curves hold without a newer one")
    time_zone: str = Field("UTC", description="IANA name; of the bands, and for telling days apart")
    latitude: Annotated[float, Field(strict=True, ge=-90, le=90)] | None = Field(None, description="degrees north")
    longitude: Annotated[float, Field(strict=True, ge=-180, le=180)] | None = Field(None, description="degrees east")
    interchange: InterchangePrices = Field(InterchangePrices(), description="prices at the connection point")
    storages: dict[Name, StorageSettings] = Field(default_factory=dict, description="by battery; default for the rest")
    reserve: ReserveSettings | None = Field(None, description="kept free for regulation; null: what is dispatched")
    offer: OfferSettings = Field(OfferSettings(), description="curves for the layer above")
    path: PathSettings = Field(PathSettings(), description="prices ahead for the layers below")

    rules: ClassVar[tuple[Rule, ...]] = (_known_zone, _place_is_whole, _curves_outlast_a_plan)

    @property
    def steps(self) -> int:
        """How many steps the horizon has."""
        return int(self.horizon_h * 3600 // self.step_s)

    def prices_at(self, utc_s: float) -> Prices:
        """The tariff's prices at a time."""
        tariff = self.interchange
        if not tariff.bands:
            return Prices(tariff.import_per_kwh, tariff.export_per_kwh)
        local = datetime.fromtimestamp(utc_s, _zone(self.time_zone))
        hour = local.hour + local.minute / 60.0 + local.second / 3600.0
        kind = "weekend" if local.weekday() >= 5 else "working"
        for band in tariff.bands:
            if band.from_h <= hour < band.until_h and band.days in ("all", kind):
                return Prices(band.import_per_kwh, band.export_per_kwh)
        return Prices(tariff.import_per_kwh, tariff.export_per_kwh)

    def offset_s(self, utc_s: float) -> float:
        """Local time less UTC at a time."""
        offset = datetime.fromtimestamp(utc_s, UTC).astimezone(_zone(self.time_zone)).utcoffset()
        return (offset or timedelta()).total_seconds()


@lru_cache(8)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def planned_storages_are_there(site: Any) -> Iterator[Problem]:
    """A rule over a site: `planning.storages` names its devices."""
    planning = site.planning if known(site, "planning") else None
    if planning is None or not known(planning, "storages") or not known(site, "devices"):
        return
    for name in planning.storages:
        if name not in site.devices:
            words = f"{shown(name)} is not a device{did_you_mean(name, list(site.devices))}"
            yield Problem(("planning", "storages", name), words, ", ".join(site.devices))
