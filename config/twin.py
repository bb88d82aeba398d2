"""The simulated side of a site file: how each device's twin behaves, and the physics that joins them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from config.strict import NotNegative, PerUnit, Positive, Strict


class EvTwin(Strict):
    """One plug-in session at a charger, in seconds after the start of the simulation."""

    plug_in_s: NotNegative = 0.0
    unplug_s: Positive | None = Field(None, description="None: stays")
    needed_wh: Positive = 10_000.0
    battery_wh: Positive = 50_000.0
    max_current_a: Positive = 32.0
    wake_s: NotNegative = Field(0.2, description="from a current being offered to the car drawing it")
    needs_ventilation: bool = Field(False, description="asks for ventilation while charging (IEC 61851 state D)")


class DeviceTwin(Strict):
    """How one twin behaves; each kind of device uses the fields that concern it."""

    tr90_s: Positive = Field(0.2, description="time to 90 % of a step, first order")
    dead_time_s: NotNegative = 0.0
    ramp_w_per_s: Positive | None = Field(None, description="slew limit; None: the response alone")
    delivers_pu: Annotated[float, Field(gt=0.5, le=1.2)] = Field(1.0, description="delivered share of what is asked")
    noise_w: NotNegative = 0.0
    soc: PerUnit = Field(0.5, description="state of charge at the start")
    charge_efficiency_pu: Annotated[float, Field(gt=0.5, le=1)] = 0.97
    discharge_efficiency_pu: Annotated[float, Field(gt=0.5, le=1)] = 0.97
    taper_from_soc: PerUnit = Field(0.9, description="above it charging power falls linearly to 0 at full")
    taper_to_soc: PerUnit = Field(0.1, description="below it discharging power falls linearly to 0 at empty")
    series: str | None = Field(
        None, description="column of the series that drives this device (PV: per unit of rating)"
    )
    sample_interval_s: NotNegative = Field(
        0.0, description="a meter's own measuring interval; 0: at every physics step"
    )
    evs: tuple[EvTwin, ...] = ()


class LoadSteps(Strict):
    """Seeded steps of uncontrolled load, on top of the series."""

    mean_interval_s: Positive = 12.0
    size_w: NotNegative = 4_000.0
    mean_duration_s: Positive = 6.0


class Clouds(Strict):
    """Seeded cloud shadows: irradiance ramps down by up to `depth`, stays, ramps up."""

    mean_interval_s: Positive = 20.0
    depth: PerUnit = 0.5
    ramp_s: Positive = 3.0
    mean_duration_s: Positive = 6.0


class BaseLoad(Strict):
    """The load that cannot be controlled: a column of the series (per unit) times `scale_w`."""

    series: str | None = "G1-A"
    scale_w: NotNegative = 50_000.0
    constant_w: float = 0.0


class GridTwin(Strict):
    """The grid behind the connection point: an ideal source behind an impedance, per phase."""

    voltage_v: Positive = 230.0
    frequency_hz: Positive = 50.0
    resistance_ohm: NotNegative = 0.04
    reactance_ohm: NotNegative = 0.03


class Simulation(Strict):
    """What makes a site's twins one site."""

    seed: int = 1
    step_ms: Annotated[int, Field(ge=1, le=1000)] = 10
    start: datetime = Field(
        datetime(2016, 6, 8, 11), description="instant of the series at which the simulation begins"
    )
    acceleration: Positive = Field(
        1.0, description="how many seconds of the series pass in one second; physics stays real time"
    )
    grid: GridTwin = GridTwin()
    load: BaseLoad = BaseLoad()
    load_steps: LoadSteps | None = LoadSteps()
    clouds: Clouds | None = Clouds()
