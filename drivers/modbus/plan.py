"""A device's points as requests: one list of blocks for each poll group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from config.profile import Access, Pace, PollGroup, Profile
from drivers.encoding import register_codec
from drivers.modbus.block import Block, PlacedPoint, ScaleFactor
from drivers.modbus.read_plan import PlanError, Read, Span, is_readable, plan_reads


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


def plan_blocks(profile: Profile, places: Places, *, on_a_line: bool = False) -> dict[PollGroup, tuple[Block, ...]]:
    """The blocks of each poll group, each point in the fewest requests of its group.

    A scale factor that may change is read in the same request as the points that it scales, wherever one request can
    take both. Those that the published model calls static (attribute `static` of its definition: they don't change
    while the device runs) are read with the slow group; besides, the fast group reads along those that cost no request
    more, except on a serial line, where a hundred registers take a tenth of a second.
    """
    blocks = {}
    for group in PollGroup:
        points = [
            places.points[name]
            for name, point in profile.points.items()
            if point.poll is group and point.access is not Access.W and name in places.points
        ]
        for point in points:
            _check_readable(profile, point)
        factors = places.factors if group is PollGroup.SLOW else ()
        static_along = group is PollGroup.FAST and not on_a_line
        planned: list[Block] = []
        for table in ("holding", "input"):
            inside = [point for point in points if point.table == table]
            reads = _reads(inside, factors if table == "holding" else (), profile.pace, static_along=False)
            if static_along:
                longer = _reads(inside, (), profile.pace, static_along=True)
                reads = longer if len(longer) == len(reads) else reads
            planned += [_block(table, read, inside, places) for read in reads]
        blocks[group] = tuple(planned)
    return blocks


def _reads(
    points: Sequence[PlacedPoint], factors: Sequence[ScaleFactor], pace: Pace, *, static_along: bool
) -> list[Read]:
    """The reads of points, which are their first members, of their scale factors, and of others asked for besides."""
    spans: list[Span] = []
    apart = {factor.address for factor in factors}
    for point in points:
        own, factor = Span(point.address, point.codec.registers), point.factor
        if factor is not None and (static_along or not factor.static):
            first = min(own.first, factor.address)
            both = Span(first, max(own.end, factor.address + 1) - first)
            if is_readable(both, pace.max_registers, pace.unreadable):
                own = both
            elif not factor.static:
                apart.add(factor.address)
        spans.append(own)
    spans += [Span(address, 1) for address in sorted(apart)]
    return plan_reads(spans, pace.max_registers, pace.max_gap_registers, pace.unreadable)


def _block(table: str, read: Read, points: Sequence[PlacedPoint], places: Places) -> Block:
    return Block(
        table,
        read.first,
        read.size,
        [points[at] for at in read.members if at < len(points)],
        [factor for factor in places.factors if table == "holding" and _covers(read, factor)],
        steady=not places.factors,
    )


def _covers(read: Read, factor: ScaleFactor) -> bool:
    return read.first <= factor.address < read.first + read.size


def _check_readable(profile: Profile, place: PlacedPoint) -> None:
    pace = profile.pace
    try:
        plan_reads([Span(place.address, place.codec.registers)], pace.max_registers, 0, pace.unreadable)
    except PlanError as error:
        field = "max_registers" if place.codec.registers > pace.max_registers else "unreadable"
        words = f"profile {profile.profile}, point {place.name}: {error}, by pace.{field} of the profile"
        raise PlanError(words) from None


def _check(profile: Profile, name: str, place: PlacedPoint) -> None:
    pace = profile.pace
    where = f"profile {profile.profile}, point {name}"
    if profile.points[name].access is not Access.W:
        _check_readable(profile, place)
    if profile.points[name].access is Access.R:
        return
    if place.codec.registers > 1 and pace.write_function == "single":
        raise PlanError(f"{where}: {place.codec.registers} registers can't be written by function 6 alone")
    if place.table == "input":
        raise PlanError(f"{where}: input registers can't be written")
