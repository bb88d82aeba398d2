"""The simulated side of a site file: how each device's twin behaves, and the physics that joins them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, NaiveDatetime
from pydantic_core import PydanticCustomError

from config.findings import Problem
from config.grid_functions import GridFunctions
from config.network import Network
from config.strict import Flag, NotNegative, Number, PerUnit, Positive, Rule, Strict, Whole


def _not_a_number(value: Any) -> Any:
    """A number would be read as seconds since 1970."""
    if isinstance(value, int | float):
        raise PydanticCustomError("datetime_type", "Input should be a valid datetime")
    return value


SeriesTime = Annotated[NaiveDatetime, BeforeValidator(_not_a_number)]
"""An instant in the time of the series, which names no zone."""


def _leaves_after_it_comes(ev: EvTwin) -> Iterator[Problem]:
    if ev.unplug_s is not None and ev.unplug_s <= ev.plug_in_s:
        yield Problem(("unplug_s",), f"{ev.unplug_s:g} is not after plug_in_s, {ev.plug_in_s:g}", see=("plug_in_s",))


def _needs_what_it_can_hold(ev: EvTwin) -> Iterator[Problem]:
    if ev.needed_wh > ev.battery_wh:
        words = f"{ev.needed_wh:g} is above battery_wh, {ev.battery_wh:g}"
        yield Problem(("needed_wh",), words, f"a number up to {ev.battery_wh:g}")


class EvTwin(Strict):
    """One plug-in session at a charger, in seconds after the start of the simulation."""

    plug_in_s: NotNegative = Field(0.0, description="when the car plugs in")
    unplug_s: Positive | None = Field(None, description="None: stays")
    needed_wh: Positive = Field(10_000.0, description="energy it wants in this session")
    battery_wh: Positive = Field(50_000.0, description="capacity of its battery")
    max_current_a: Positive = Field(32.0, description="most current per phase it draws")
    wake_s: NotNegative = Field(0.2, description="from a current being offered to the car drawing it")
    needs_ventilation: Flag = Field(False, description="asks for ventilation while charging (IEC 61851 state D)")
    phases: Literal[1, 2, 3] | None = Field(None, description="how many it charges on; null: those of the charger")
    tr90_s: Positive | None = Field(None, description="time to 90 % of a step; null: that of the charger")
    dead_time_s: NotNegative | None = Field(
        None, description="from a change of the offer to the first movement; null: that of the charger"
    )
    wakes: Annotated[int, Field(strict=True, ge=0)] | None = Field(
        None, description="how many pauses it wakes from; then it sleeps until it is plugged in again; null: all"
    )

    rules: ClassVar[tuple[Rule, ...]] = (_leaves_after_it_comes, _needs_what_it_can_hold)


def _one_car_at_a_time(twin: DeviceTwin) -> Iterator[Problem]:
    for at, (before, ev) in enumerate(pairwise(twin.evs), start=1):
        if before.unplug_s is None or ev.plug_in_s < before.unplug_s:
            until = "stays" if before.unplug_s is None else f"leaves at {before.unplug_s:g}"
            words = f"{ev.plug_in_s:g} is before the car before it has left: it {until}"
            yield Problem(("evs", at, "plug_in_s"), words, see=("evs", at - 1))


def _tapers_apart(twin: DeviceTwin) -> Iterator[Problem]:
    if twin.taper_to_soc >= twin.taper_from_soc:
        words = f"{twin.taper_to_soc:g} is not below taper_from_soc, {twin.taper_from_soc:g}"
        yield Problem(("taper_to_soc",), words)


def _derates_outwards(temperature: BatteryTemperature) -> Iterator[Problem]:
    ascending = ("none_below_c", "full_above_c", "full_below_c", "none_above_c")
    for before, name in pairwise(ascending):
        low, high = getattr(temperature, before), getattr(temperature, name)
        if high <= low:
            yield Problem((name,), f"{high:g} is not above {before}, {low:g}", see=(before,))


class BatteryTemperature(Strict):
    """A battery's cells as one warm body: its losses heat it, its surroundings cool it, heat and cold derate it.

    Heat derates charging and discharging, cold charging alone: lithium plates below the freezing point.
    """

    ambient_c: Number = Field(25.0, description="of the surroundings")
    start_c: Number | None = Field(None, description="of the cells at the start; null: ambient_c")
    heat_capacity_wh_per_k: Positive = Field(30.0, description="about 1 kJ/(kg K) and 110 kg per 10 kWh")
    cooling_w_per_k: Positive = Field(15.0, description="heat given off per kelvin above the surroundings")
    none_below_c: Number = Field(0.0, description="no charging at and below it")
    full_above_c: Number = Field(5.0, description="all charging power from here, linear between")
    full_below_c: Number = Field(45.0, description="all power up to here")
    none_above_c: Number = Field(55.0, description="no power at and above it, linear between")

    rules: ClassVar[tuple[Rule, ...]] = (_derates_outwards,)


class DeviceTwin(Strict):
    """How one twin behaves; each kind of device uses the fields that concern it."""

    tr90_s: Positive = Field(0.2, description="time to 90 % of a step, first order")
    dead_time_s: NotNegative = Field(0.0, description="from a setpoint to the first movement")
    ramp_w_per_s: Positive | None = Field(None, description="slew limit; None: the response alone")
    delivers_pu: Annotated[float, Field(strict=True, gt=0.5, le=1.2)] = Field(
        1.0, description="delivered share of what is asked"
    )
    noise_w: NotNegative = Field(0.0, description="standard deviation of the measured power")
    soc: PerUnit = Field(0.5, description="state of charge at the start")
    charge_efficiency_pu: Annotated[float, Field(strict=True, gt=0.5, le=1)] = Field(
        0.97, description="stored per unit of energy taken"
    )
    discharge_efficiency_pu: Annotated[float, Field(strict=True, gt=0.5, le=1)] = Field(
        0.97, description="given per unit of energy taken from the store"
    )
    taper_from_soc: PerUnit = Field(0.9, description="above it charging power falls linearly to 0 at full")
    taper_to_soc: PerUnit = Field(0.1, description="below it discharging power falls linearly to 0 at empty")
    series: str | None = Field(
        None, description="column of the series that drives this device (PV: per unit of rating)"
    )
    sample_interval_s: NotNegative = Field(
        0.0, description="a meter's own measuring interval; 0: at every physics step"
    )
    evs: tuple[EvTwin, ...] = Field((), description="sessions at a charger, in the order of time")
    temperature: BatteryTemperature | None = Field(None, description="of a battery; null: it stays cool")
    grid_functions: GridFunctions = Field(
        GridFunctions(), description="what an inverter or a battery does by itself at abnormal voltage and frequency"
    )

    rules: ClassVar[tuple[Rule, ...]] = (_one_car_at_a_time, _tapers_apart)


class LoadSteps(Strict):
    """Seeded steps of uncontrolled load, on top of the series."""

    mean_interval_s: Positive = Field(12.0, description="mean time between steps")
    size_w: NotNegative = Field(4_000.0, description="largest step")
    mean_duration_s: Positive = Field(6.0, description="mean time until a step goes back")


class Clouds(Strict):
    """Seeded cloud shadows: irradiance ramps down by up to `depth`, stays, ramps up."""

    mean_interval_s: Positive = Field(20.0, description="mean time between shadows")
    depth: PerUnit = Field(0.5, description="largest share of the irradiance taken away")
    ramp_s: Positive = Field(3.0, description="time from clear to shadow, and back")
    mean_duration_s: Positive = Field(6.0, description="mean time in shadow")


def _runs_between(pump: HeatPumpTwin) -> Iterator[Problem]:
    if pump.store_high_c <= pump.store_low_c:
        yield Problem(("store_high_c",), f"{pump.store_high_c:g} is not above store_low_c, {pump.store_low_c:g}")


class HeatPumpTwin(Strict):
    """A heat pump that switches on and off and fills a store of warm water, from which the house takes heat."""

    power_w: Positive = Field(3_000.0, description="electric, while it runs")
    coefficient_of_performance: Annotated[float, Field(strict=True, ge=1, le=10)] = Field(
        3.5, description="heat given per electric energy taken"
    )
    demand_w: NotNegative = Field(4_000.0, description="heat that the house takes")
    store_wh_per_k: Positive = Field(580.0, description="heat held per kelvin; 1.16 Wh per litre of water")
    store_c: Number = Field(45.0, description="of the store at the start")
    store_low_c: Number = Field(40.0, description="it switches on below")
    store_high_c: Number = Field(50.0, description="it switches off above")
    raised_k: NotNegative = Field(5.0, description="how much more it stores when surplus is announced")
    minimum_run_s: NotNegative = Field(600.0, description="least time on, whatever is asked")
    minimum_pause_s: NotNegative = Field(600.0, description="least time off, whatever is asked")

    rules: ClassVar[tuple[Rule, ...]] = (_runs_between,)


def _shares_make_one(load: BaseLoad) -> Iterator[Problem]:
    if load.shares_by_phase is not None and abs(sum(load.shares_by_phase) - 1.0) > 1e-6:
        words = f"the shares add up to {sum(load.shares_by_phase):g}"
        yield Problem(("shares_by_phase",), words, "three shares with the sum 1")


class BaseLoad(Strict):
    """The load that cannot be controlled: a column of the series (per unit) times `scale_w`."""

    series: str | None = Field("G1-A", description="column of the series; null: none")
    scale_w: NotNegative = Field(50_000.0, description="power at 1 per unit of the series")
    constant_w: Number = Field(0.0, description="added to the series, load convention")
    shares_by_phase: tuple[PerUnit, PerUnit, PerUnit] | None = Field(
        None, description="what each phase carries of it; null: equal parts, or phase 1 of a single-phase connection"
    )
    heat_pump: HeatPumpTwin | None = Field(None, description="one that nobody controls, in equal parts; null: none")

    rules: ClassVar[tuple[Rule, ...]] = (_shares_make_one,)


class GridChange(Strict):
    """What happens to the grid at a time; what is not named stays."""

    at_s: NotNegative = Field(description="seconds after the start of the simulation")
    ramp_s: NotNegative = Field(0.0, description="how long the change takes, linearly; 0: a step")
    voltage_v: Positive | tuple[Positive, Positive, Positive] | None = Field(
        None, description="of the source, from phase to neutral; of all phases or of each"
    )
    frequency_hz: Positive | None = Field(None, description="of the source")
    breaker: Literal["open", "closed"] | None = Field(
        None, description="at the connection point; open: every twin is without a grid"
    )


def _in_the_order_of_time(grid: GridTwin) -> Iterator[Problem]:
    for at, (before, event) in enumerate(pairwise(grid.events), start=1):
        if event.at_s < before.at_s:
            words = f"{event.at_s:g} is before the event before it, {before.at_s:g}"
            yield Problem(("events", at, "at_s"), words, see=("events", at - 1))


class GridTwin(Strict):
    """The grid behind the connection point: an ideal source behind an impedance, per phase."""

    voltage_v: Positive = Field(230.0, description="of the source, from phase to neutral")
    frequency_hz: Positive = Field(50.0, description="of the source")
    resistance_ohm: NotNegative = Field(0.04, description="per phase")
    reactance_ohm: NotNegative = Field(0.03, description="per phase")
    nominal_frequency_hz: Positive | None = Field(None, description="what devices are made for; null: frequency_hz")
    events: tuple[GridChange, ...] = Field((), description="what happens to it, in the order of time")

    rules: ClassVar[tuple[Rule, ...]] = (_in_the_order_of_time,)


class Simulation(Strict):
    """What makes a site's twins one site."""

    seed: Whole = Field(1, description="of everything random on the bench")
    step_ms: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(10, description="period of the physics")
    start: SeriesTime = Field(
        datetime(2016, 6, 8, 11), description="instant of the series at which the simulation begins"
    )
    acceleration: Positive = Field(
        1.0, description="how many seconds of the series pass in one second; physics stays real time"
    )
    grid: GridTwin = Field(GridTwin(), description="what is behind the connection point")
    network: Network | None = Field(
        None, description="the cables inside the site (needs the extra `network`); null: all devices at one bus"
    )
    load: BaseLoad = Field(BaseLoad(), description="what cannot be controlled")
    load_steps: LoadSteps | None = Field(LoadSteps(), description="random steps of that load; null: none")
    clouds: Clouds | None = Field(Clouds(), description="random shadows over the PV; null: none")
