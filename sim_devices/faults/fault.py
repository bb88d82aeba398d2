"""One fault as it is asked for, held against the registry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sim_devices.faults.registry import FAULTS, Direction, FaultKind, Parameter

_LONGEST_S: Final = 1e7
_SELECTORS: Final = ("unit", "function", "count", "probability")


class FaultError(ValueError):
    """A fault that can't be set; the text names everything that is wrong with it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to which bytes, and how often. `function` is that of the request, for replies and exceptions too."""

    kind: FaultKind
    directions: tuple[Direction, ...]
    parameters: Mapping[str, float | None]
    unit: int | None = None
    function: int | None = None
    count: int | None = None
    duration_s: float | None = None
    probability: float = 1.0

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
        return said | ({"probability": self.probability} if self.probability < 1.0 else {})


def make_fault(name: Any, protocol: str, options: Mapping[str, Any]) -> Fault:
    """The fault `name` on a link of `protocol`. Raises FaultError.

    Options: `direction` (request, reply or both), `unit`, `function`, `count`, `duration_s`, `probability`, and the
    fault's own parameters.
    """
    kind = FAULTS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise FaultError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
    wrong: list[str] = []
    if protocol not in kind.applies_to:
        wrong.append(f"does not apply to {protocol}, but to {', '.join(kind.applies_to)}")
    known = {"direction", "duration_s", *kind.parameters, *(_SELECTORS if kind.selects else ())}
    unknown = [key for key in options if key not in known]
    if unknown:
        wrong.append(f"knows no {', '.join(unknown)}, but {', '.join(sorted(known))}")
    directions = _directions(kind, options.get("direction"), wrong)
    parameters = {key: _number(key, options, it, wrong) for key, it in kind.parameters.items()}
    limits = {key: _number(key, options, it, wrong) for key, it in _LIMITS.items()}
    if protocol not in ("modbus_tcp", "modbus_rtu", "modbus_rtu_tcp") and (limits["unit"] or limits["function"]):
        wrong.append(f"unit and function are of Modbus, not of {protocol}")
    if wrong:
        raise FaultError("\n".join(f"{name}: {words}" for words in wrong))
    return Fault(
        kind,
        directions,
        parameters,
        unit=_whole(limits["unit"]),
        function=_whole(limits["function"]),
        count=_whole(limits["count"]),
        duration_s=limits["duration_s"],
        probability=1.0 if limits["probability"] is None else limits["probability"],
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
