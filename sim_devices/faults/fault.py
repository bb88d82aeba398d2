"""One fault as it is asked for, held against the registry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sim_devices.faults.points import ALL, KnownDevice
from sim_devices.faults.registry import FAULTS, MODBUS, MQTT, PARENT, Direction, FaultKind, Parameter

_LONGEST_S: Final = 1e7
_SELECTORS: Final = ("unit", "function", "count", "probability")


class FaultError(ValueError):
    """A fault that can't be set; the text names everything that is wrong with it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to which bytes, and how often. `function` is that of the request, for replies and exceptions too.

    `device` is the device, or the parent, that it is about, where what is said must be understood; `points` those of
    the device. `cuts_link`: while whoever it is about is down, the link is.
    """

    kind: FaultKind
    directions: tuple[Direction, ...]
    parameters: Mapping[str, float | None]
    unit: int | None = None
    function: int | None = None
    count: int | None = None
    duration_s: float | None = None
    probability: float = 1.0
    device: str = ""
    points: frozenset[str] = frozenset()
    cuts_link: bool = False

    @property
    def needs_frames(self) -> bool:
        """Whether bytes must be told apart into frames for it."""
        return self.kind.frames or self.unit is not None or self.function is not None

    @property
    def is_total(self) -> bool:
        """Whether it acts on everything that passes, for as long as it lasts."""
        return not self.needs_frames and self.count is None and self.probability >= 1.0

    def as_json(self) -> dict[str, Any]:
        """What was asked for, with the defaults."""
        said: dict[str, Any] = {"fault": self.kind.name, "directions": list(self.directions), **self.parameters}
        for name in ("unit", "function", "count", "duration_s"):
            if getattr(self, name) is not None:
                said[name] = getattr(self, name)
        if self.points:
            said["points"] = sorted(self.points)
        return said | ({"probability": self.probability} if self.probability < 1.0 else {})


@dataclass(frozen=True, slots=True)
class Target:
    """What a fault is set on, by name, and what the proxy knows of it.

    `protocols`: what `applies_to` may name. `unit`: of Modbus, where it shares its connection with others.
    `parent`: the one whose messages are meant; all, if it is empty. `understood`: its proxy understands what is said.
    """

    protocols: tuple[str, ...]
    name: str = ""
    device: KnownDevice | None = None
    unit: int | None = None
    parent: str = ""
    understood: bool = False


def make_fault(name: Any, target: Target, options: Mapping[str, Any]) -> Fault:
    """The fault `name` on a target. Raises FaultError.

    Options: `direction` (request, reply or both), `unit`, `function`, `count`, `duration_s`, `probability`, `point`,
    and the fault's own parameters.
    """
    kind = FAULTS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise FaultError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    wrong: list[str] = []
    if not set(target.protocols) & set(kind.applies_to):
        wrong.append(f"does not apply to {' or '.join(target.protocols)}, but to {', '.join(kind.applies_to)}")
    known = {"direction", "duration_s", *kind.parameters, *(_SELECTORS if kind.selects else ())}
    known |= {"point"} if kind.points is not None else set()
    unknown = [key for key in options if key not in known]
    if unknown:
        wrong.append(f"knows no {', '.join(unknown)}, but {', '.join(sorted(known))}")
    directions = _directions(kind, options.get("direction"), wrong)
    parameters = {key: _number(key, options, it, wrong) for key, it in kind.parameters.items()}
    limits = {key: _number(key, options, it, wrong) for key, it in _LIMITS.items()}
    if not set(target.protocols) & set(MODBUS) and (limits["unit"] or limits["function"]):
        wrong.append(f"unit and function are of Modbus, not of {' or '.join(target.protocols)}")
    if kind.understands and not target.understood:
        wrong.append("is of what is said, and this proxy only passes it on")
    points = [] if wrong else _points(kind, target, options.get("point"), wrong)
    if wrong:
        raise FaultError("\n".join(f"{name}: {words}" for words in wrong))
    unit = _whole(limits["unit"])
    if unit is None and (kind.selects or kind.understands):
        unit = target.unit
    # A broker lives on when a device behind it goes down, and so do the others at a shared connection.
    alone = unit is None and not (kind.name == "reboot" and MQTT in target.protocols)
    return Fault(
        kind,
        directions,
        parameters,
        unit=unit,
        function=_whole(limits["function"]),
        count=_whole(limits["count"]),
        duration_s=limits["duration_s"],
        probability=1.0 if limits["probability"] is None else limits["probability"],
        device=_whom(kind, target),
        points=frozenset(points),
        cuts_link=kind.goes_down and alone,
    )


def _whom(kind: FaultKind, target: Target) -> str:
    """The device or parent that a fault is about, where it is about any."""
    if not kind.understands:
        return ""
    return target.parent if target.device is None else target.device.name


def _points(kind: FaultKind, target: Target, asked: Any, wrong: list[str]) -> list[str]:
    """The points that a fault of values is about; whatever else must be known for it is held against the profile."""
    device = target.device
    if kind.name in _OF_A_DEVICE and device is None:
        wrong.append(f"acts on a device whose profile is known, which {target.name or 'nobody here'} is not")
        return []
    if device is None or kind.points is None:
        timer = device is not None and (device.profile.control is None or device.released_w() is None)
        if kind.name == "reversion" and device is not None and timer:
            wrong.append(f"{device.name} has no timer: its profile {device.profile.profile} names none")
        return []
    chosen = device.chosen(kind.points, asked if isinstance(asked, str) else None if asked is None else repr(asked))
    if chosen is None:
        allowed = device.allowed(kind.points)
        words = f"is of {kind.points.value}; of {device.name} those are {', '.join(allowed) or 'none'}"
        wrong.append(words if asked is None else f"point: {words}{f', or {ALL}' if allowed else ''}, not {asked!r}")
    return chosen or []


_OF_A_DEVICE: Final = (
    *(name for name, kind in FAULTS.items() if kind.points is not None and PARENT not in kind.applies_to),
    "reversion",
    "reboot",
)

_LIMITS: Final[Mapping[str, Parameter]] = {
    "unit": Parameter(None, 0, 255, "only frames of this unit"),
    "function": Parameter(None, 1, 127, "only frames of this function"),
    "count": Parameter(None, 1, 1_000_000_000, "how often it acts at most"),
    "duration_s": Parameter(None, 0.0, _LONGEST_S, "how long it acts at most", whole=False),
    "probability": Parameter(1.0, 0.0, 1.0, "how likely it acts each time", whole=False),
}


def _directions(kind: FaultKind, asked: Any, wrong: list[str]) -> tuple[Direction, ...]:
    if asked is None:
        return kind.default
    if asked == "both":
        chosen: tuple[Direction, ...] = (Direction.REQUEST, Direction.REPLY)
    elif isinstance(asked, str) and asked in tuple(Direction):
        chosen = (Direction(asked),)
    else:
        wrong.append(f"direction: expected request, reply or both, not {asked!r}")
        return kind.default
    if not kind.selects and kind.name != "stall":
        wrong.append("direction: it is of the link as a whole")
    elif not set(chosen) <= set(kind.allowed):
        wrong.append(f"direction: it is of the {' and '.join(kind.allowed)} alone")
    return chosen


def _number(name: str, options: Mapping[str, Any], parameter: Parameter, wrong: list[str]) -> float | None:
    value = options.get(name)
    if value is None:
        return parameter.default
    kinds = int if parameter.whole else int | float
    fits = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not parameter.low <= value <= parameter.high:
        sort = "a whole number" if parameter.whole else "a number"
        wrong.append(f"{name}: expected {sort} from {parameter.low:g} to {parameter.high:g}, not {value!r}")
        return parameter.default
    if parameter.choices and value not in parameter.choices:
        wrong.append(f"{name}: expected one of {', '.join(map(str, parameter.choices))}, not {value!r}")
    return value if parameter.whole else float(value)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
