"""What it takes to look at one device by hand: every point once, with what came over the wire, and one named write.

For commissioning, not for the cycle: nothing is repeated, no setpoint is kept, and one connection serves one look.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from config.vocabulary import Quality, Sample

if TYPE_CHECKING:
    from config.profile import Profile
    from drivers.writer import Outcome


class InspectionFailed(Exception):  # noqa: N818 - the name says what happened, as the asker reads it
    """The device can't be looked at; the text is for the user."""


class PointReading(NamedTuple):
    """One point as it was read: `raw` as it came over the wire, `where` it is, `reason` why the sample is bad."""

    sample: Sample
    where: str = ""
    raw: str = ""
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether there is a value at all."""
        return self.sample.quality is not Quality.BAD


class Inspector(Protocol):
    """One device. `identity` is what it says it is (manufacturer, model, serial number), once it has been read.

    `missing` are the points of the profile that the device does not offer.
    """

    identity: tuple[str, str, str]
    missing: tuple[str, ...]

    async def read(self, points: Collection[str] | None = None) -> dict[str, PointReading]:
        """Read the points named (None: all that can be read); raises InspectionFailed if the device doesn't answer."""
        ...

    def encoded(self, point: str, value: float) -> str:
        """What a write of `value` (the point's unit, load convention) would send; raises EncodeError.

        Scale factors that the device holds must have been read before.
        """
        ...

    async def write(self, point: str, value: float) -> Outcome:
        """Write one point and wait for the answer; raises EncodeError before, InspectionFailed instead of an answer."""
        ...


class FoundUnit(NamedTuple):
    """A unit that answers; `models` are the ids of its SunSpec chain, `base` where that begins.

    `answered` says what it answered first. `identity`: manufacturer, model, serial number of SunSpec's common model.
    """

    unit: int
    answered: str
    base: int | None = None
    models: tuple[int, ...] = ()
    identity: tuple[str, str, str] = ("", "", "")


class Prober(Protocol):
    """A connection or a bus on which units are looked for. Reads only."""

    async def probe(self, unit: int) -> FoundUnit | None:
        """Whether a unit is there; raises InspectionFailed where there is no connection at all."""
        ...

    def inspector(self, profile: Profile, found: FoundUnit) -> Inspector:
        """Look at a unit that was found as at a device of this kind."""
        ...


def bad(at_s: float, reason: str, where: str = "") -> PointReading:
    """A point that was not read, and why."""
    return PointReading(Sample(None, Quality.BAD, at_s), where, "", reason)


def hexadecimal(registers: bytes) -> str:
    """Registers as people compare them with a manual: `0x1234 0x5678`."""
    return " ".join(f"0x{registers[at : at + 2].hex()}" for at in range(0, len(registers), 2))


def wanted_points(profile: Profile, points: Collection[str] | None) -> Sequence[str]:
    """The readable points asked for, in the profile's order."""
    return [
        name
        for name, point in profile.points.items()
        if "r" in point.access.value and (points is None or name in points)
    ]
