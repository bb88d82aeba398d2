"""The path of local prices ahead that layers below are told, so that they plan against it; in rounds, until it stands.

What a layer below answers to a path moves the next one. Each round goes half of the way, and only so many are gone in
one interval: a path that would swing stands still, at worst in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from config.planning import PathSettings
from gateway.planning.messages import DispatchState

HALF = 0.5


@dataclass(slots=True)
class PathAhead:
    """`prices` by the begin of the clock's step that they are for, UTC seconds; `version` counts what was announced."""

    settings: PathSettings
    step_s: float
    prices: dict[float, float] = field(default_factory=dict)
    version: int = 0
    rounds: int = 0
    moved_per_kwh: float | None = None
    _present_s: float | None = None

    def take(self, begin_utc_s: float, lambda_per_kwh: Sequence[float], utc_s: float) -> bool:
        """The local prices of a new plan, whose steps begin then; whether there is another path to announce."""
        step_s = self.step_s
        present_s = utc_s // step_s * step_s
        if present_s != self._present_s:
            self._present_s, self.rounds = present_s, 0
        found: dict[float, float] = {}
        for step, price in enumerate(lambda_per_kwh):
            found[(begin_utc_s + (step + 0.5) * step_s) // step_s * step_s] = price
        found = {at: price for at, price in found.items() if at > present_s}
        known = {at: price for at, price in self.prices.items() if at in found}
        moved = max((abs(found[at] - price) for at, price in known.items()), default=None)
        self.moved_per_kwh = moved
        longer = any(at not in known for at in found)
        turns = moved is not None and moved > self.settings.tolerance_per_kwh and self.rounds < self.settings.rounds
        if not turns and not longer:
            return False
        if turns:
            self.rounds += 1
            known = {at: price + HALF * (found[at] - price) for at, price in known.items()}
        self.prices = found | known
        self.version += 1
        return True

    def snapshot(self) -> dict[str, Any]:
        """In short."""
        return {"rounds": self.rounds, "moved_per_kwh": self.moved_per_kwh, "announced": self.version}


@dataclass(slots=True)
class PathHeard:
    """The path that the parent has announced last: by the clock's steps after the one in which it was given."""

    step_s: float
    _given_s: float = 0.0
    _path: tuple[float, ...] = ()

    def hear(self, path_per_kwh: tuple[float, ...], given_utc_s: float) -> None:
        """A dispatch with a path; one without leaves the last path in force."""
        if path_per_kwh:
            self._given_s, self._path = given_utc_s // self.step_s * self.step_s, path_per_kwh

    def forget(self) -> None:
        """Nobody dispatches any more."""
        self._path = ()

    def fill(self, dispatch: DispatchState) -> DispatchState:
        """A share that stands until it is replaced, with what is left of the path."""
        if not dispatch.until_replaced or dispatch.path_per_kwh or not self._path:
            return dispatch
        gone = int((dispatch.from_utc_s // self.step_s * self.step_s - self._given_s) // self.step_s)
        return dispatch.model_copy(update={"path_per_kwh": self._path[max(gone, 0) :]})
