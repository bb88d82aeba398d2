"""The seed paper's visions on one fleet and day: Total TSO, Minimal DSO and Total DSO, judged by the same accounts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gateway.planning.model import Series
from gateway.study.accounts import Cost, Violation, cost_of, violations
from gateway.study.central import solve_centrally
from gateway.study.day_series import DEFAULT_DAY
from gateway.study.fleet import Fleet
from gateway.study.made_fleet import STEPS, make_fleet
from gateway.study.minimal_dso import run_minimal_dso
from gateway.study.no_control import uncontrolled_w
from gateway.study.offers import Wire
from gateway.study.schedules import write_fleet, write_schedule
from gateway.study.total_dso import run_total_dso

TOTAL_TSO: Final = "total_tso"
MINIMAL_DSO: Final = "minimal_dso"
TOTAL_DSO: Final = "total_dso"
SIZES: Final = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
LARGEST: Final = 1000
COMPARED: Final = 60
"""Devices of the fleet that is compared in full, or fewer where `devices` says so."""

BUDGET_S: Final = 900.0
"""The scaling part takes no larger fleet, unless asked for, once it is to be expected that it would pass this."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a vision comes to. Violations are of what was ordered first, before anybody curtailed."""

    cost: float
    violations: int
    violation_wh: float
    orders_undone: int
    points_disclosed: int
    messages: int
    solve_s: float


@dataclass(frozen=True, slots=True)
class Vision:
    """A vision's day on a fleet. `prices_per_kwh` are the local ones, where the vision has any."""

    figures: Figures
    cost: Cost
    asked_w: Mapping[str, Series]
    powers_w: Mapping[str, Series]
    broken: Sequence[Violation]
    prices_per_kwh: Mapping[str, Series]
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One fleet under every vision, and left to itself."""

    fleet: Fleet
    visions: Mapping[str, Vision]
    uncontrolled: Cost
    uncontrolled_broken: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class Study:
    """The fleet that was compared in full, and the fleets of the scaling part by size."""

    main: Comparison
    scaling: tuple[Comparison, ...]
    wall_s: float

    def as_json(self) -> dict[str, Any]:
        """The figures of each vision, and the scaling part's."""
        return {
            **{name: asdict(vision.figures) for name, vision in self.main.visions.items()},
            "scaling": [
                {
                    "devices": each.fleet.size,
                    "buildings": len(each.fleet.buildings),
                    **{name: asdict(vision.figures) for name, vision in each.visions.items()},
                }
                for each in self.scaling
            ],
        }


def run_study(
    out: Path,
    devices: int | None = None,
    seed: int = 1,
    day: str = DEFAULT_DAY,
    tell: Progress = lambda _: None,
    steps: int = STEPS,
) -> Study:
    """Compare the visions and write every schedule below `out`; `devices` is the largest fleet of the scaling part.

    Raises NoSuchDayError, NoOptimumError, NoSitePlanError, and OSError where `out` can't be written.
    """
    started_s = time.perf_counter()
    largest = devices or LARGEST
    main = _compared(make_fleet(min(COMPARED, largest), seed, day, steps), out, tell)
    scaling: list[Comparison] = []
    for size in _sizes(largest):
        spent_s = time.perf_counter() - started_s
        expected_s = scaling[-1].wall_s * size / scaling[-1].fleet.size if scaling else 0.0
        if devices is None and spent_s + expected_s > BUDGET_S:
            tell(f"{size} devices left out: they would take some {expected_s:.0f} s more; --devices {size} takes them")
            break
        scaling.append(_compared(make_fleet(size, seed, day, steps), out / f"scaling-{size}", tell))
    return Study(main, tuple(scaling), time.perf_counter() - started_s)


def compare(fleet: Fleet, tell: Progress = lambda _: None) -> Comparison:
    """One fleet under all visions."""
    started_s = time.perf_counter()
    visions: dict[str, Vision] = {}
    for name, run in ((TOTAL_TSO, _total_tso), (MINIMAL_DSO, _minimal_dso), (TOTAL_DSO, _total_dso)):
        heading = f"{fleet.size} devices, {name}"
        tell(heading)
        visions[name] = run(fleet, lambda text, heading=heading: tell(f"{heading}: {text}"))  # type: ignore[misc]
    alone = {
        one.name: uncontrolled_w(one, fleet.steps, fleet.step_s) for each in fleet.buildings for one in each.devices
    }
    wall_s = time.perf_counter() - started_s
    return Comparison(fleet, visions, cost_of(fleet, alone), len(violations(fleet, alone)), wall_s)


def _compared(fleet: Fleet, directory: Path, tell: Progress) -> Comparison:
    write_fleet(directory, fleet)
    found = compare(fleet, tell)
    for name, vision in found.visions.items():
        write_schedule(directory / f"{name}.csv", fleet, vision.asked_w, vision.powers_w)
    return found


def _sizes(largest: int) -> list[int]:
    return [*(size for size in SIZES if size < largest), largest]


def _total_tso(fleet: Fleet, _tell: Progress) -> Vision:
    """Everything is declared once, each device reports its state and is ordered in each interval."""
    result = solve_centrally(fleet)
    wire = _central_wire(fleet, network=True)
    return _judged(fleet, result.powers_w, result.powers_w, 0, wire, result.solve_s)


def _minimal_dso(fleet: Fleet, tell: Progress) -> Vision:
    """The devices are declared, the network is not; what the DSO undoes it tells the device in another message."""
    result = run_minimal_dso(fleet, tell)
    wire = _central_wire(fleet, network=False)
    wire.messages += result.orders_undone
    return _judged(fleet, result.asked_w, result.powers_w, result.orders_undone, wire, result.solve_s)


def _total_dso(fleet: Fleet, tell: Progress) -> Vision:
    result = run_total_dso(fleet, tell=tell)
    found = _judged(fleet, result.powers_w, result.powers_w, 0, result.wire, result.solve_s)
    return Vision(
        found.figures, found.cost, found.asked_w, found.powers_w, found.broken, result.prices_per_kwh, result.rounds
    )


def _central_wire(fleet: Fleet, *, network: bool) -> Wire:
    """What goes to and from whoever runs the whole."""
    wire = Wire()
    for area in fleet.substation.walk():
        if network or area is fleet.substation:
            wire.declare(area)
    for building in fleet.buildings:
        wire.declare(building, limits=network)
        for device in building.devices:
            wire.declare(device)
    devices = [device for building in fleet.buildings for device in building.devices]
    for _ in range(fleet.steps):
        wire.report(devices)
        wire.order(devices)
    return wire


def _judged(
    fleet: Fleet, asked_w: Mapping[str, Series], powers_w: Mapping[str, Series], undone: int, wire: Wire, solve_s: float
) -> Vision:
    broken, cost = violations(fleet, asked_w), cost_of(fleet, powers_w)
    figures = Figures(
        cost=round(cost.total, 6),
        violations=len(broken),
        violation_wh=round(sum((one.beyond_wh for one in broken), 0.0), 3),
        orders_undone=undone,
        points_disclosed=len(wire.points),
        messages=wire.messages,
        solve_s=round(solve_s, 4),
    )
    return Vision(figures, cost, asked_w, powers_w, broken, {})
