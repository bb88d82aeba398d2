"""The faults that are set on a link, and when each acts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping
from random import Random
from typing import Any, Final

from config.vocabulary import Clock
from sim_devices.faults.fault import Fault, FaultError, Target, make_fault
from sim_devices.faults.frames import Frame
from sim_devices.faults.registry import Direction

MOST_FAULTS: Final = 1000
REMEMBERED: Final = 100


class ActiveFault:
    """A fault in force; `acted` counts how often it has changed anything, `memory` is what it must not forget.

    `target` is the name of what it was set on.
    """

    __slots__ = ("_rng", "acted", "began_s", "ends_s", "fault", "id", "memory", "name", "removed", "target")

    def __init__(self, number: int, fault: Fault, rng: Random, began_s: float, ends_s: float, target: str = "") -> None:
        self.id = number
        self.target = target
        self.fault = fault
        self.name = fault.kind.name
        self.began_s = began_s
        self.ends_s = ends_s
        self.memory: dict[Any, Any] = {}
        self.acted = 0
        self.removed = False
        self._rng = rng

    @property
    def rng(self) -> Random:
        """Its own source of chance, so that faults don't disturb each other's."""
        return self._rng

    def alive(self, now_s: float) -> bool:
        """Whether it is still in force."""
        spent = self.fault.count is not None and self.acted >= self.fault.count
        return not (self.removed or spent or now_s >= self.ends_s)

    @property
    def down_until_s(self) -> float:
        """Until when nobody answers."""
        return self.began_s + self.number("down_s") if self.fault.kind.goes_down else -math.inf

    def meets(self, direction: Direction, frame: Frame | None) -> bool:
        """Whether it is about such bytes; None for bytes that are no frame."""
        fault = self.fault
        if direction not in fault.directions:
            return False
        if frame is None or not frame.is_subject:
            return not fault.needs_frames
        return fault.unit in (None, frame.unit) and fault.function in (None, frame.function)

    def strikes(self) -> bool:
        """Draw whether it acts this time."""
        return self.fault.probability >= 1.0 or self._rng.random() < self.fault.probability

    def number(self, name: str) -> float:
        """A parameter that has a value."""
        value = self.fault.parameters[name]
        assert value is not None
        return value

    def as_json(self, now_s: float) -> dict[str, Any]:
        """What it is and what it has done."""
        left = {} if math.isinf(self.ends_s) else {"ends_in_s": round(max(0.0, self.ends_s - now_s), 3)}
        known = {"id": self.id, "target": self.target, **self.fault.as_json()}
        return known | {"acted": self.acted, "active": self.alive(now_s), **left}


class FaultNumbers:
    """Gives each fault its id; sets that share one give no id twice."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        """One more than the last."""
        self.last += 1
        return self.last


class FaultSet:
    """The faults of one link, shared by its connections, in the order in which they were set.

    `listeners` are called after each change by command; what ends by time or count is simply not in force any more,
    and `next_end_s` says when the next one does. The same seed and the same traffic give the same faults. `struck` is
    told of each that is set, before the listeners; `understood` says that somebody understands what passes.
    """

    def __init__(self, protocol: str, clock: Clock, seed: int | str = 0) -> None:
        self.protocol = protocol
        self.struck: Callable[[ActiveFault], None] = lambda _: None
        self.understood = False
        self.listeners: list[Callable[[], None]] = []
        self.numbers = FaultNumbers()
        self._made = 0
        self._clock = clock
        self._seed = seed
        self._active: list[ActiveFault] = []
        self._past: deque[ActiveFault] = deque(maxlen=REMEMBERED)

    @property
    def last_id(self) -> int:
        """The highest id so far: what is set later has a higher one."""
        return self.numbers.last

    def set(self, name: str, **options: Any) -> ActiveFault:
        """Put a fault in force; see `make_fault` for the options. Raises FaultError."""
        return self.set_by(name, options)

    def set_by(self, name: Any, options: Mapping[str, Any], target: Target | None = None) -> ActiveFault:
        """Likewise, of options that come from outside, on a target behind this link; None: the link alone is known."""
        fault = make_fault(name, target or Target((self.protocol,), understood=self.understood), options)
        self._forget_the_spent()
        if len(self._active) >= MOST_FAULTS:
            raise FaultError(f"{name}: {MOST_FAULTS} faults are set already")
        now_s = self._clock()
        ends_s = math.inf if fault.duration_s is None else now_s + fault.duration_s
        # Chance goes by this set's own count: what is set on another link changes nothing here.
        self._made += 1
        rng = Random(f"{self._seed}/{self._made}")
        active = ActiveFault(self.numbers.next(), fault, rng, now_s, ends_s, "" if target is None else target.name)
        self._active.append(active)
        self.struck(active)
        self._tell()
        if not fault.kind.lasts:
            self._remove(active)
        return active

    def clear(self, what: int | str | None = None, names: Collection[str] | None = None) -> int:
        """Take the fault of that id or name (None: all) out of force; how many were. Bytes that they held pass then.

        `names`: only faults that are about one of these devices, or about the link as a whole.
        """
        gone = [
            active
            for active in self._active
            if what in (None, active.id, active.name) and (names is None or active.target in names)
        ]
        in_force = sum(active.alive(self._clock()) for active in gone)
        for active in gone:
            self._remove(active)
        self._tell()
        return in_force

    def in_force(self, now_s: float) -> list[ActiveFault]:
        """Those that may act now."""
        return [active for active in self._active if active.alive(now_s)]

    def any_in_force(self, now_s: float) -> bool:
        """Whether anything may happen to bytes at all."""
        return bool(self._active) and any(active.alive(now_s) for active in self._active)

    def refusing(self, now_s: float) -> bool:
        """Whether new connections are refused."""
        return any(
            active.name == "refuse" or (now_s < active.down_until_s and active.fault.cuts_link)
            for active in self.in_force(now_s)
        )

    def needs_frames(self, direction: Direction, now_s: float) -> bool:
        """Whether a fault in force in that direction acts on whole frames."""
        return any(
            active.fault.needs_frames and direction in active.fault.directions and active.alive(now_s)
            for active in self._active
        )

    def next_end_s(self, now_s: float) -> float:
        """When the next fault in force ends by time, or its device is there again; infinite when none does."""
        alive = self.in_force(now_s)
        back = (active.down_until_s for active in alive if active.down_until_s > now_s)
        return min((*(active.ends_s for active in alive), *back), default=math.inf)

    def as_json(self) -> list[dict[str, Any]]:
        """Every fault in force, and the last that were."""
        now_s = self._clock()
        return [active.as_json(now_s) for active in (*self._past, *self._active)]

    def _forget_the_spent(self) -> None:
        now_s = self._clock()
        for active in [active for active in self._active if not active.alive(now_s)]:
            self._remove(active)

    def _remove(self, active: ActiveFault) -> None:
        active.removed = True
        if active in self._active:
            self._active.remove(active)
            self._past.append(active)

    def _tell(self) -> None:
        for listener in tuple(self.listeners):
            listener()
