"""Reading one device by hand, for `gateway read` and `gateway try`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from config.findings import did_you_mean
from config.profile import Access, Profile
from config.site import Address
from config.vocabulary import Clock
from drivers.encoding import EncodeError
from drivers.inspection import InspectionFailed, Inspector, PointReading
from gateway.composition import open_inspector

Tell = Callable[[str], None]
"""Hears what is waited for, where that takes long."""


@dataclass(frozen=True, slots=True)
class Look:
    """A device as it was read once; `age_s` is by point, at the end of the reading."""

    identity: tuple[str, str, str]
    readings: Mapping[str, PointReading]
    missing: tuple[str, ...]
    ended_s: float


@asynccontextmanager
async def inspecting(
    profile: Profile, address: Address, clock: Clock, tell: Tell = lambda _: None
) -> AsyncIterator[Inspector]:
    """An inspector while the context lasts. Raises InspectionFailed where there is none, and where the profile asks
    for what no permitted request can carry; with SunSpec that shows only when the device has said where its points are.
    """
    try:
        async with open_inspector(profile, address, clock, tell) as inspector:
            yield inspector
    except EncodeError:
        raise
    except ValueError as unusable:
        raise InspectionFailed(f"this profile can't be used on this device: {unusable}") from None


async def look(
    profile: Profile,
    address: Address,
    clock: Clock,
    points: Collection[str] | None = None,
    tell: Tell = lambda _: None,
) -> Look:
    """Read every point once over one connection; raises InspectionFailed if the device doesn't answer."""
    async with inspecting(profile, address, clock, tell) as inspector:
        readings = await inspector.read(points)
        return Look(inspector.identity, readings, inspector.missing, clock())


def rows(profile: Profile, look: Look) -> list[dict[str, Any]]:
    """One plain object a point, in the profile's order; points that are only written come without a value."""
    made = []
    for name, point in profile.points.items():
        reading = look.readings.get(name)
        row: dict[str, Any] = {"point": name, "value": None, "unit": point.unit, "quality": "bad", "age_s": None}
        row |= {"raw": "", "where": "", "access": point.access.value, "poll": point.poll.value}
        row |= {"reason": "", "source": point.source}
        if reading is not None:
            row["value"] = reading.sample.value
            row["quality"] = reading.sample.quality.name.lower()
            row["age_s"] = round(max(look.ended_s - reading.sample.measured_s, 0.0), 3)
            row |= {"raw": reading.raw, "where": reading.where, "reason": reading.reason}
        elif point.access is Access.W:
            row |= {"quality": "", "reason": "is only written"}
        else:
            continue
        made.append(row)
    return made


def no_such_point(profile: Profile, point: str) -> str:
    """A point that the profile does not have, with what may have been meant."""
    hint = did_you_mean(point, list(profile.points))
    return f"{point}: profile {profile.profile} has no such point{hint}; there are {', '.join(profile.points)}"


def identity_text(identity: tuple[str, str, str]) -> str:
    """Manufacturer, model and serial number as far as they are known."""
    return " ".join(word for word in identity if word)
