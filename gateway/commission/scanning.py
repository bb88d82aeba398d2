"""Looking for devices on a connection or a bus, and for the profiles that fit them. Nothing is ever written."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from config.profile import Fingerprint, Profile
from config.profile_checks import REQUIRED_POINTS
from config.site import ModbusTcpAddress
from config.vocabulary import Clock
from drivers.inspection import FoundUnit, InspectionFailed, Inspector, PointReading, Prober
from gateway.composition import open_prober

UNIT_BUDGET_S: Final = 8.0
"""The longest that the profiles may take at one unit."""

UNIT_RANGE: Final = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")


@dataclass(frozen=True, slots=True)
class Match:
    """A profile that fits, and by what it was known."""

    profile: str
    title: str
    evidence: str


@dataclass(slots=True)
class Found:
    """A unit that answers. `also`: other unit numbers at which the same device answers.

    `undecided`: it answered too slowly for every profile to be held against it.
    """

    unit: FoundUnit
    matches: tuple[Match, ...] = ()
    also: tuple[int, ...] = ()
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known after a unit was looked at."""

    unit: int
    done: int
    total: int
    found: Sequence[Found]


def parse_units(text: str) -> list[int]:
    """`255,1-10` as unit numbers in that order, each once; ValueError with a text for the user."""
    units: dict[int, None] = {}
    for part in text.split(","):
        match = UNIT_RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= 255:
            raise ValueError(f"{part.strip() or text!r}: units are written like 1-247 or 255,1-10, from 0 to 255")
        units.update(dict.fromkeys(range(first, last + 1)))
    return list(units)


async def scan(
    address: ModbusTcpAddress, units: Sequence[int], profiles: Iterable[Profile], clock: Clock, timeout_s: float
) -> AsyncIterator[Progress]:
    """Look at each unit in turn; yields after each. Raises InspectionFailed when nothing can be connected to."""
    profiles = [profile for profile in profiles if profile.protocol == "modbus"]
    found: list[Found] = []
    async with open_prober(address, clock, timeout_s) as prober:
        for done, unit in enumerate(units, start=1):
            there = await prober.probe(unit)
            if there is not None:
                await _add(found, there, prober, profiles)
            yield Progress(unit, done, len(units), found)


async def _add(found: list[Found], there: FoundUnit, prober: Prober, profiles: Sequence[Profile]) -> None:
    """A device on TCP that doesn't look at the unit answers to every one: the same serial number is the same device."""
    same = next((item for item in found if there.identity[2] and item.unit.identity == there.identity), None)
    if same is not None and same.unit.models == there.models:
        same.also = (*same.also, there.unit)
        return
    item = Found(there)
    found.append(item)
    try:
        async with asyncio.timeout(UNIT_BUDGET_S):
            for profile in profiles:
                match = await _match(profile, there, prober)
                if match is not None:
                    item.matches = (*item.matches, match)
    except TimeoutError:
        item.undecided = True


async def _match(profile: Profile, there: FoundUnit, prober: Prober) -> Match | None:
    """Whether a profile fits: its SunSpec models are there, and every part of its fingerprint holds."""
    needed = sunspec_points(profile)
    if (needed and there.base is None) or not (needed or profile.fingerprint):
        return None
    inspector = prober.inspector(profile, there)
    evidence = []
    try:
        if needed:
            # To read nothing is to find out where everything is.
            await inspector.read(())
            if not set(needed).isdisjoint(inspector.missing):
                return None
            evidence.append(f"SunSpec models {', '.join(map(str, _models(profile, needed, there)))}")
        for part in profile.fingerprint:
            said = await _holds(part, profile, there, inspector)
            if said is None:
                return None
            evidence.append(said)
    except (InspectionFailed, ValueError):
        return None
    return Match(profile.profile, profile.title, "; ".join(evidence))


def sunspec_points(profile: Profile) -> tuple[str, ...]:
    """The SunSpec points that a device of this kind can't be without: what control reads, and what it writes."""
    names = [name for name in REQUIRED_POINTS[profile.kind] if name in profile.points]
    parts = [part for name in names for part in (profile.points[name].sum or (name,))]
    written = [write.point for write in profile.control.writes] if profile.control is not None else []
    return tuple(name for name in dict.fromkeys([*parts, *written]) if profile.points[name].sunspec is not None)


def _models(profile: Profile, names: Sequence[str], there: FoundUnit) -> list[int]:
    """The models of a device in which these points are."""
    models = [profile.points[name].sunspec for name in names]
    first = [next((m for m in address.models if m in there.models), None) for address in models if address is not None]
    return sorted({model for model in first if model is not None})


async def _holds(part: Fingerprint, profile: Profile, there: FoundUnit, inspector: Inspector) -> str | None:
    if part.manufacturer is not None:
        said = there.identity[0]
        return f"manufacturer {said}" if said and re.search(part.manufacturer, said) else None
    assert part.point is not None  # the schema: one of the two
    reading = (await inspector.read((part.point,)))[part.point]
    if not fits(part, reading):
        return None
    value, unit = reading.sample.value, profile.points[part.point].unit
    shown = str(value)
    if isinstance(value, float):
        shown = f"{value:.0f}" if value.is_integer() else f"{value:.6g}"
    return f"{part.point} {shown} {unit}".rstrip()


def fits(part: Fingerprint, reading: PointReading) -> bool:
    """Whether a point's reading is what a fingerprint asks for."""
    value = reading.sample.value
    if not reading.good or value is None:
        return False
    if part.values is not None:
        return value in part.values
    if part.range is not None:
        return isinstance(value, float | int) and part.range[0] <= value <= part.range[1]
    if part.matches is not None:
        return isinstance(value, str) and re.search(part.matches, value) is not None
    return True


def as_json(found: Found) -> dict[str, Any]:
    """One found unit as a plain object."""
    manufacturer, model, serial = found.unit.identity
    return {
        "unit": found.unit.unit,
        "also_units": list(found.also),
        "answered": found.unit.answered,
        "sunspec": None
        if found.unit.base is None
        else {
            "base": found.unit.base,
            "models": list(found.unit.models),
            "manufacturer": manufacturer,
            "model": model,
            "serial_number": serial,
        },
        "undecided": found.undecided,
        "profiles": [{"profile": m.profile, "title": m.title, "evidence": m.evidence} for m in found.matches],
    }


def loaded_profiles(paths: Mapping[str, Any]) -> list[Profile]:
    """The shipped profiles by their names."""
    from config.loading import load_profile

    return [load_profile(name) for name in paths]
