"""A fleet under study: buildings with devices below microgrids, feeders and a substation, over one day.

Powers in watts, load convention; limits are magnitudes. The devices are the planner's, so that the planner's own
program can be held against every other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from gateway.planning.model import BatteryPlan, Series, SolarPlan, ThermalPlan, VehiclePlan

CAR_PER_KWH: Final = 2.0
"""What a kWh that a car does not get costs, under every vision alike."""

COLD_PER_KWH: Final = 1.0
"""What a kWh of heat that a store lacks costs, for each hour that it lacks it."""

END_PER_KWH: Final = 1.0
"""What a kWh costs that a store holds less at the end of the day than at its beginning; more of it earns nothing."""

LIMIT_TOLERANCE_W: Final = 1.0
"""A limit is broken by more than this; the solvers' own tolerances are below it."""

Device: TypeAlias = BatteryPlan | VehiclePlan | SolarPlan | ThermalPlan


class Tier(StrEnum):
    """What an area is; the DSO owns the substation and the feeders, each microgrid and each building is a layer."""

    SUBSTATION = "substation"
    FEEDER = "feeder"
    MICROGRID = "microgrid"


@dataclass(frozen=True, slots=True)
class Building:
    """One connection: what it uses anyway, and its devices."""

    name: str
    import_limit_w: float
    export_limit_w: float
    load_w: Series
    batteries: tuple[BatteryPlan, ...] = ()
    vehicles: tuple[VehiclePlan, ...] = ()
    solar: tuple[SolarPlan, ...] = ()
    thermal: tuple[ThermalPlan, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        """All of them, in one fixed order."""
        return (*self.batteries, *self.vehicles, *self.solar, *self.thermal)


@dataclass(frozen=True, slots=True)
class Area:
    """A part of a radial network: all below it passes one point with limits."""

    name: str
    tier: Tier
    import_limit_w: float
    export_limit_w: float
    areas: tuple[Area, ...] = ()
    buildings: tuple[Building, ...] = ()

    def walk(self) -> Iterator[Area]:
        """This area and all below it, parents first."""
        yield self
        for area in self.areas:
            yield from area.walk()

    def all_buildings(self) -> tuple[Building, ...]:
        """Every building below, in the order of the walk."""
        return tuple(building for area in self.walk() for building in area.buildings)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet and its day. The prices are those of the interchange at the substation, `export` at most `import`."""

    seed: int
    day: str
    step_s: float
    import_per_kwh: Series
    export_per_kwh: Series
    substation: Area

    @property
    def steps(self) -> int:
        """How many intervals the day has."""
        return len(self.import_per_kwh)

    @property
    def hours(self) -> float:
        """The length of one."""
        return self.step_s / 3600.0

    @property
    def buildings(self) -> tuple[Building, ...]:
        """Every building, in a fixed order."""
        return self.substation.all_buildings()

    @property
    def size(self) -> int:
        """How many devices it has."""
        return sum(len(building.devices) for building in self.buildings)
