"""Writing one point by hand: what may be written, what goes over the wire, and what the device then shows."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from config.profile import Access, CommandQuantity, PointProfile, Profile
from config.site import Address, DeviceSite, Site
from config.vocabulary import Clock, DeviceKind, SampleValue, WriteStatus
from drivers.encoding import EncodeError
from drivers.inspection import InspectionFailed, Inspector, PointReading
from drivers.writer import Outcome
from gateway.commission.looking import Tell, inspecting, no_such_point

READ_BACKS: Final = 4
_READ_BACK_PAUSE_S: Final = 0.25
_AT_ONCE_S: Final = 0.5
"""Longer than this no connection is kept open for an answer: the device may close it, or be wanted by others."""


class WriteRefused(Exception):  # noqa: N818 - the name says what happened
    """The write is not sent; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A write before it is sent: the value in the point's unit, what it is now, and what would go over the wire."""

    point: str
    value: float
    unit: str
    current: PointReading | None
    encoded: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write. `agrees` is None where the point can't be read back."""

    outcome: Outcome
    read_back: SampleValue
    agrees: bool | None

    @property
    def good(self) -> bool:
        """Taken, and shown by the device where it can show it."""
        return self.outcome.status is WriteStatus.ACKNOWLEDGED and self.agrees is not False


@dataclass(frozen=True, slots=True)
class PointWrite:
    """A write as it was asked for: one point of one device of a site, and the text of its value."""

    site: Site
    device: str
    profile: Profile
    address: Address
    point: str
    text: str


async def write_by_hand(
    asked: PointWrite, confirmed: Callable[[Prepared], Awaitable[bool]], clock: Clock, tell: Tell = lambda _: None
) -> tuple[Prepared, Written | None]:
    """Check, prepare, and write once it is confirmed, over one connection where the answer comes at once; None where
    it was not confirmed.

    Raises WriteRefused for what must not be sent, InspectionFailed if the device doesn't answer.
    """
    value = checked_value(asked)
    profile = asked.profile
    async with inspecting(profile, asked.address, clock, tell) as inspector:
        prepared = await _prepare(inspector, asked, value)
        asking = asyncio.ensure_future(confirmed(prepared))
        try:
            # A charger calls when it likes: it is not sent away while somebody thinks.
            await asyncio.wait([asking], timeout=None if profile.protocol == "ocpp" else _AT_ONCE_S)
        except asyncio.CancelledError:
            asking.cancel()
            raise
        if asking.done():
            return prepared, await _send(inspector, asked, prepared) if asking.result() else None
    if not await asking:
        return prepared, None
    async with inspecting(profile, asked.address, clock, tell) as inspector:
        await _look_before(inspector, profile.points[asked.point], asked.point)
        return prepared, await _send(inspector, asked, prepared)


def checked_value(asked: PointWrite) -> float:
    """The value, in the point's unit, after access and limits were checked; raises WriteRefused."""
    profile, point, device = asked.profile, asked.point, asked.site.devices[asked.device]
    chosen = profile.points.get(point)
    if chosen is None:
        raise WriteRefused(no_such_point(profile, point))
    if device.read_only:
        raise WriteRefused(f"{asked.device} is read_only in the site file")
    if chosen.access is Access.R:
        writable = [other for other, item in profile.points.items() if item.access is not Access.R]
        raise WriteRefused(f"{point} is read-only; what can be written: {', '.join(writable) or 'nothing'}")
    value = parse_value(point, chosen, asked.text)
    _check_limits(point, value, profile, device, asked.site)
    return value


async def _prepare(inspector: Inspector, asked: PointWrite, value: float) -> Prepared:
    """Read what the point is now, and encode the write."""
    point, chosen = asked.point, asked.profile.points[asked.point]
    current = await _look_before(inspector, chosen, point)
    try:
        encoded = inspector.encoded(point, value)
    except EncodeError as error:
        raise WriteRefused(f"{point}: {error}") from None
    return Prepared(point, value, chosen.unit, current, encoded)


async def _look_before(inspector: Inspector, chosen: PointProfile, point: str) -> PointReading | None:
    """What the point is now. One that is only written is not read, but over Modbus it has to be found, and its scale
    factor with it.
    """
    if chosen.access is Access.RW:
        return (await inspector.read((point,)))[point]
    if chosen.sunspec is not None or chosen.modbus is not None:
        await inspector.read(() if chosen.sunspec is None else None)
    return None


async def _send(inspector: Inspector, asked: PointWrite, prepared: Prepared) -> Written:
    chosen = asked.profile.points[prepared.point]
    outcome = await inspector.write(prepared.point, prepared.value)
    if chosen.access is not Access.RW:
        return Written(outcome, None, None)
    shown, agrees = await _read_back(inspector, prepared, chosen)
    return Written(outcome, shown, agrees)


async def _read_back(inspector: Inspector, prepared: Prepared, chosen: PointProfile) -> tuple[SampleValue, bool]:
    """What the device shows, given a moment to show it."""
    shown: SampleValue = None
    for attempt in range(READ_BACKS):
        if attempt:
            await asyncio.sleep(_READ_BACK_PAUSE_S)
        try:
            shown = (await inspector.read((prepared.point,)))[prepared.point].sample.value
        except InspectionFailed:
            return None, False
        if same(inspector, prepared, chosen, shown):
            return shown, True
    return shown, False


def same(inspector: Inspector, prepared: Prepared, chosen: PointProfile, shown: SampleValue) -> bool:
    """Whether what is shown would be written in the same way: the resolution of the device is no difference."""
    if isinstance(shown, str) and chosen.values is not None:
        return chosen.values.get(int(prepared.value)) == shown
    if not isinstance(shown, float | int):
        return False
    try:
        return inspector.encoded(prepared.point, shown) == prepared.encoded
    except EncodeError:
        return False


def parse_value(point: str, chosen: PointProfile, text: str) -> float:
    """A number in the point's unit, or one of the texts of its enumeration as its raw number; raises WriteRefused."""
    for raw, meaning in (chosen.values or {}).items():
        if text == meaning and isinstance(raw, int):
            return float(raw)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        allowed = (
            ", ".join((chosen.values or {}).values())
            or f"a number{f' in {chosen.unit}, without it' if chosen.unit else ''}"
        )
        raise WriteRefused(f"{point}: {text!r} is not {allowed}")
    return value


def _check_limits(point: str, value: float, profile: Profile, device: DeviceSite, site: Site) -> None:
    """What a control sequence writes is held within the device's limits in the site file."""
    control = profile.control
    quantities = [] if control is None else [write.quantity for write in control.writes if write.point == point]
    for quantity in quantities:
        bounds = None if quantity is None else _bounds(quantity, profile, device, site)
        if bounds is not None and not bounds[0] - 1e-9 <= value <= bounds[1] + 1e-9:
            raise WriteRefused(f"{point}: {value:g} is outside {bounds[0]:g} to {bounds[1]:g}, the site file's limits")


def _bounds(quantity: CommandQuantity, profile: Profile, device: DeviceSite, site: Site) -> tuple[float, float] | None:
    low_w = 0.0 if profile.kind in (DeviceKind.CHARGER, DeviceKind.RELAY) else -device.rating_w
    high_w = 0.0 if profile.kind is DeviceKind.INVERTER else device.rating_w
    low_w = low_w if device.min_w is None else device.min_w
    high_w = high_w if device.max_w is None else device.max_w
    volts = len(device.phases) * site.connection.nominal_voltage_v
    charge, discharge = max(high_w, 0.0), max(-low_w, 0.0)
    return {
        CommandQuantity.POWER_W: (low_w, high_w),
        CommandQuantity.GENERATION_W: (-high_w, -low_w),
        CommandQuantity.CHARGE_W: (0.0, charge),
        CommandQuantity.DISCHARGE_W: (0.0, discharge),
        CommandQuantity.MAGNITUDE_W: (0.0, max(charge, discharge)),
        CommandQuantity.GENERATION_PU: (0.0, discharge / device.rating_w),
        CommandQuantity.POWER_PU: (low_w / device.rating_w, high_w / device.rating_w),
        CommandQuantity.CURRENT_A: (0.0, charge / volts),
    }.get(quantity)
