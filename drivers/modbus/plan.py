"""A device's points as requests: one list of blocks for each poll group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from config.profile import Access, Pace, PollGroup, Profile
from drivers.encoding import register_codec
from drivers.modbus.block import Block, PlacedPoint, ScaleFactor
from drivers.modbus.read_plan import PlanError, Read, Span, plan_reads


class Places:
    """Where a device's points are on one connection, and the scale factors that they depend on."""

    __slots__ = ("factors", "missing", "points")

    def __init__(
        self,
        points: Mapping[str, PlacedPoint],
        factors: Sequence[ScaleFactor] = (),
        missing: Sequence[str] = (),
    ) -> None:
        self.points = points
        self.factors = factors
        self.missing = missing


PLANS_KEPT: Final = 64


class RegisterPlan(NamedTuple):
    """The points of a profile of plain registers, and their blocks. Devices share it: nothing in it ever changes."""

    places: Places
    blocks: Mapping[PollGroup, tuple[Block, ...]]


_plans: dict[int, tuple[Profile, RegisterPlan]] = {}


def register_plan(profile: Profile) -> RegisterPlan:
    """The plan of a profile without SunSpec points, made once for all its devices; `PlanError` as its parts raise it.

    Many devices of one profile then read through the same few objects, which stay in the processor's caches.
    """
    # By identity, since profiles hold mappings and have no hash; each is kept with its plan, so that no id comes twice.
    known = _plans.get(id(profile))
    if known is None:
        places = Places(register_places(profile))
        known = profile, RegisterPlan(places, plan_blocks(profile, places))
        while len(_plans) >= PLANS_KEPT:
            del _plans[next(iter(_plans))]
        _plans[id(profile)] = known
    return known[1]


def register_places(profile: Profile) -> dict[str, PlacedPoint]:
    """The points whose addresses stand in the profile; `PlanError` for one that can't be read or written as it says."""
    places = {}
    for name, point in profile.points.items():
        if point.modbus is not None:
            codec = register_codec(point)
            places[name] = PlacedPoint(name, point.modbus.table, point.modbus.address, codec)
            _check(profile, name, places[name])
    return places


def plan_blocks(profile: Profile, places: Places) -> dict[PollGroup, tuple[Block, ...]]:
    """The blocks of each poll group, each point in the fewest requests of its group.

    Scale factors are read with the slow group, and again by every fast block that covers them anyway.
    """
    blocks = {}
    for group in PollGroup:
        points = [
            places.points[name]
            for name, point in profile.points.items()
            if point.poll is group and point.access is not Access.W and name in places.points
        ]
        factors = places.factors if group is PollGroup.SLOW else ()
        planned: list[Block] = []
        for table in ("holding", "input"):
            inside = [point for point in points if point.table == table]
            planned += _table_blocks(table, inside, factors if table == "holding" else (), places, profile.pace)
        blocks[group] = tuple(planned)
    return blocks


def _table_blocks(
    table: str, points: Sequence[PlacedPoint], factors: Sequence[ScaleFactor], places: Places, pace: Pace
) -> list[Block]:
    spans = [Span(point.address, point.codec.registers) for point in points]
    spans += [Span(factor.address, 1) for factor in factors]
    reads = plan_reads(spans, pace.max_registers, pace.max_gap_registers, pace.unreadable)
    return [
        Block(
            table,
            read.first,
            read.size,
            [points[at] for at in read.members if at < len(points)],
            [factor for factor in places.factors if table == "holding" and _covers(read, factor)],
            steady=not places.factors,
        )
        for read in reads
    ]


def _covers(read: Read, factor: ScaleFactor) -> bool:
    return read.first <= factor.address < read.first + read.size


def _check(profile: Profile, name: str, place: PlacedPoint) -> None:
    pace = profile.pace
    where = f"profile {profile.profile}, point {name}"
    if profile.points[name].access is not Access.W:
        try:
            plan_reads([Span(place.address, place.codec.registers)], pace.max_registers, 0, pace.unreadable)
        except PlanError as error:
            raise PlanError(f"{where}: {error}") from None
    if profile.points[name].access is Access.R:
        return
    if place.codec.registers > 1 and pace.write_function == "single":
        raise PlanError(f"{where}: {place.codec.registers} registers can't be written by function 6 alone")
    if place.table == "input":
        raise PlanError(f"{where}: input registers can't be written")
