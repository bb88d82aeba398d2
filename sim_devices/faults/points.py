"""What the proxies know of a device: the points of its profile, how great each can be, and what a setpoint writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from config.profile import Access, ByDirection, CommandQuantity, ControlWrite, PointProfile, Profile, RegisterType
from config.site import Address, DeviceSite, ModbusAddress, Site
from config.vocabulary import HEARTBEAT, POWER_W, DeviceKind
from sim_devices.faults.registry import PointRule

ALL: Final = "all"
_WIDE: Final = 2
_SIGNED: Final = ("int16", "int32", "int64", "float32", "float64", "double", "float")
_NOT_WRITTEN: Final = (CommandQuantity.REVERSION_S, CommandQuantity.COUNTER)


@dataclass(frozen=True, slots=True)
class KnownPoint:
    """A point; `full` is what it can be at most by the ratings, in its own unit and as a magnitude.

    `written`: a setpoint writes it; `commanded`: with a part of the power that it asks for.
    """

    name: str
    profile: PointProfile
    full: float
    written: bool
    commanded: bool

    @property
    def readable(self) -> bool:
        """Whether the driver can read it."""
        return self.profile.access is not Access.W and self.profile.sum is None

    @property
    def is_number(self) -> bool:
        """Whether its value is a quantity, and no mode, text or heartbeat."""
        return self.profile.values is None and self.name != HEARTBEAT and self._kind not in (*_TEXTS, "boolean")

    @property
    def _kind(self) -> str:
        """The type of its raw value as its address says; of SunSpec, from its model, `sunspec`."""
        profile = self.profile
        if profile.modbus is not None:
            return profile.modbus.type.value
        if profile.opcua is not None:
            return profile.opcua.type
        return "sunspec" if profile.sunspec is not None else profile.mqtt.type if profile.mqtt is not None else "text"

    def fits(self, rule: PointRule) -> bool:
        """Whether a fault of this rule can be about it."""
        kind, register = self._kind, self.profile.modbus
        match rule:
            case PointRule.READ:
                return self.readable
            case PointRule.HEARTBEAT:
                return self.readable and self.name == HEARTBEAT
            case PointRule.NUMBER:
                return self.readable and self.is_number
            case PointRule.FLOAT:
                return self.readable and kind in ("float32", "float64", "double", "float", "number")
            case PointRule.SIGNED:
                return self.readable and self.is_number and kind in (*_SIGNED, "number", "sunspec")
            case PointRule.WIDE:
                wide = register is not None and register.registers >= _WIDE and kind not in _TEXTS
                return self.readable and self.is_number and (wide or kind == "sunspec")
            case PointRule.WRITTEN:
                return self.written
            case PointRule.WRITTEN_NUMBER:
                return self.commanded


_TEXTS: Final = ("string", "text", *(kind.value for kind in (RegisterType.BITS16, RegisterType.BITS32)))


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device as the site and its profile say it is, behind the proxy of its link."""

    name: str
    kind: DeviceKind
    profile: Profile
    address: Address
    rating_w: float
    points: Mapping[str, KnownPoint] = field(repr=False)
    current_a: float

    @property
    def unit(self) -> int | None:
        """Its Modbus unit."""
        return self.address.unit if isinstance(self.address, ModbusAddress) else None

    def allowed(self, rule: PointRule) -> list[str]:
        """The points that a fault can be about."""
        return [name for name, point in self.points.items() if point.fits(rule)]

    def chosen(self, rule: PointRule, asked: str | None) -> list[str] | None:
        """The points that are meant by a name, by `all` and by nothing; None for a name that can't be meant.

        Nothing means every point that is read or written as a whole, and of numbers the power if there is one.
        """
        allowed = self.allowed(rule)
        if asked is not None and asked != ALL:
            return [asked] if asked in allowed else None
        if asked == ALL or rule in (PointRule.READ, PointRule.WRITTEN, PointRule.WRITTEN_NUMBER, PointRule.HEARTBEAT):
            others = [name for name in allowed if name != HEARTBEAT]
            return others or allowed or None
        return [POWER_W] if POWER_W in allowed else allowed[:1] or None

    def released_w(self) -> float | None:
        """The power that its own timer lets it go to; None where it has none."""
        silence = self.profile.on_silence
        if silence.behaviour == "value":
            return silence.value_w or 0.0
        return self.open_w() if silence.behaviour == "unlimited" else None

    def open_w(self) -> float:
        """Its setpoint when nobody limits it: for a ceiling its rating, else 0 W."""
        control = self.profile.control
        if control is None or control.power != "ceiling":
            return 0.0
        return self.rating_w if self.kind is DeviceKind.CHARGER else -self.rating_w

    def commands(self, power_w: float) -> list[tuple[str, float]]:
        """What its profile writes for a power: points and their values, timers and counters left out."""
        control = self.profile.control
        if control is None:
            return []
        found = ((write.point, self._command(write, power_w)) for write in control.writes)
        return [(point, value) for point, value in found if value is not None]

    def _command(self, write: ControlWrite, power_w: float) -> float | None:
        if write.value is not None:
            return write.value
        if isinstance(write.by_direction, ByDirection):
            ways = write.by_direction
            return ways.charge if power_w > 0.0 else ways.discharge if power_w < 0.0 else ways.idle
        quantity = write.quantity
        if quantity is None or quantity in _NOT_WRITTEN:
            return None
        charge_w, discharge_w = max(power_w, 0.0), max(-power_w, 0.0)
        step_a = (self.profile.control.step_a if self.profile.control is not None else None) or 1e-6
        return {
            CommandQuantity.POWER_W: power_w,
            CommandQuantity.GENERATION_W: -power_w,
            CommandQuantity.CHARGE_W: charge_w,
            CommandQuantity.DISCHARGE_W: discharge_w,
            CommandQuantity.MAGNITUDE_W: abs(power_w),
            CommandQuantity.GENERATION_PU: discharge_w / self.rating_w,
            CommandQuantity.POWER_PU: power_w / self.rating_w,
            CommandQuantity.CURRENT_A: charge_w / self.rating_w * self.current_a // step_a * step_a,
        }[quantity]


def known_device(site: Site, profile: Profile, name: str, address: Address | None = None) -> KnownDevice:
    """A device of a site, at `address` where that is not the site's own."""
    device = site.devices[name]
    current_a = device.rating_w / (len(device.phases) * site.connection.nominal_voltage_v)
    points = {point.name: point for point in _points(device, profile, current_a)}
    return KnownDevice(name, profile.kind, profile, address or device.address, device.rating_w, points, current_a)


def _points(device: DeviceSite, profile: Profile, current_a: float) -> Iterator[KnownPoint]:
    writes = () if profile.control is None else profile.control.writes
    written = {write.point for write in writes}
    commanded = {write.point for write in writes if write.quantity is not None and write.quantity not in _NOT_WRITTEN}
    for name, point in profile.points.items():
        by_unit = {"W": device.rating_w, "VA": device.rating_w, "A": current_a, "pu": 1.0, "V": 230.0, "Hz": 50.0}
        full = by_unit.get(point.unit) or (max(map(abs, point.range)) if point.range is not None else 1.0)
        yield KnownPoint(name, point, full, name in written, name in commanded)
