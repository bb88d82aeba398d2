"""What the planner remembers: mean powers by step, and forecasts until what came can be held against them."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Final

from gateway.planning.forecast import DAY_S, Band, History, Score, score
from gateway.planning.messages import MeasuredStep

FILE_NAME: Final = "planner_history.json"
VERSION: Final = 1
KEPT_S: Final = 35.0 * DAY_S
SCORED_AHEAD_S: Final = 3600.0
"""The forecast that counts for a step is the last one made at least so long before it."""

SCORED_STEPS: Final = 2016
"""A week of five-minute steps."""

LOAD: Final = "load"
SUN: Final = "sun"

Quantiles = tuple[float, float, float]


@dataclass(slots=True)
class _Record:
    """One quantity: what was measured, what was expected of steps to come, and pairs of both."""

    measured: dict[float, float] = field(default_factory=dict)
    expected: dict[float, Quantiles] = field(default_factory=dict)
    scored: deque[tuple[Quantiles, float]] = field(default_factory=lambda: deque(maxlen=SCORED_STEPS))

    def take(self, begin_s: float, value: float | None) -> None:
        if value is None or not isfinite(value) or begin_s in self.measured:
            return
        self.measured[begin_s] = value
        expected = self.expected.pop(begin_s, None)
        if expected is not None:
            self.scored.append((expected, value))

    def forget(self, before_s: float) -> None:
        for known in (self.measured, self.expected):
            for begin_s in [at for at in known if at < before_s]:
                del known[begin_s]

    def score(self) -> Score | None:
        if not self.scored:
            return None
        quantiles, came = zip(*self.scored, strict=True)
        low, middle, high = zip(*quantiles, strict=True)
        return score(Band(low, middle, high), came)


class SiteHistory:
    """Load in watts and sun per unit of the ratings, by the steps of the clock. Gaps are left out."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self._records = {LOAD: _Record(), SUN: _Record()}

    def history(self, name: str) -> History:
        """What was measured of a quantity."""
        return History(self.step_s, self._records[name].measured)

    @property
    def newest_s(self) -> float:
        """Begin of the newest step that was measured; 0 before the first."""
        return max((max(one.measured, default=0.0) for one in self._records.values()), default=0.0)

    def take(self, steps: Iterable[MeasuredStep]) -> bool:
        """Add what was measured; True where anything was new. A step that is known stays as it is."""
        before = [len(one.measured) for one in self._records.values()]
        for step in steps:
            if step.begin_utc_s % self.step_s:
                continue
            self._records[LOAD].take(step.begin_utc_s, step.rest_w)
            self._records[SUN].take(step.begin_utc_s, step.sun_pu)
        changed = before != [len(one.measured) for one in self._records.values()]
        if changed:
            for one in self._records.values():
                one.forget(self.newest_s - KEPT_S)
        return changed

    def expect(self, name: str, now_s: float, begin_s: float, band: Band) -> None:
        """A forecast from `begin_s` on, made now."""
        expected = self._records[name].expected
        for at, quantiles in enumerate(zip(*band, strict=True)):
            step_s = begin_s + at * self.step_s
            if step_s >= now_s + SCORED_AHEAD_S:
                expected[step_s] = quantiles

    def scores(self) -> dict[str, tuple[Score, int]]:
        """Each quantity's score, and over how many steps."""
        found = {name: (one.score(), len(one.scored)) for name, one in self._records.items()}
        return {name: (made, steps) for name, (made, steps) in found.items() if made is not None}

    # On disk

    def save(self, path: Path) -> None:
        """All of it, at once or not at all; raises OSError."""
        content = {
            "version": VERSION,
            "step_s": self.step_s,
            "quantities": {
                name: {
                    "measured": list(one.measured.items()),
                    "expected": list(one.expected.items()),
                    "scored": list(one.scored),
                }
                for name, one in self._records.items()
            },
        }
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        os.replace(beside, path)  # noqa: PTH105 (the module's name says that it is one system call)

    @classmethod
    def load(cls, path: Path, step_s: float) -> tuple[SiteHistory, str]:
        """What was saved, and an empty text; or nothing, and why: a file that can't be read is put aside."""
        made = cls(step_s)
        try:
            content = json.loads(path.read_bytes())
            if not isinstance(content, dict) or content.get("version") != VERSION:
                raise ValueError("not a history of this version")
            if content["step_s"] != step_s:
                raise ValueError(f"its steps have {content['step_s']} s, the plan's {step_s:g} s")
            for name, one in made._records.items():
                _fill(one, content["quantities"][name])
        except FileNotFoundError:
            return made, ""
        except (OSError, ValueError, KeyError, TypeError) as error:
            with suppress(OSError):
                path.replace(path.with_suffix(".bad.json"))
            return cls(step_s), f"the history can't be read and is put aside: {error}"
        return made, ""


def _fill(record: _Record, raw: Any) -> None:
    record.measured = {float(at): float(value) for at, value in raw["measured"] if isfinite(value)}
    record.expected = {float(at): _quantiles(value) for at, value in raw["expected"]}
    record.scored.extend((_quantiles(quantiles), float(came)) for quantiles, came in raw["scored"])


def _quantiles(raw: Any) -> Quantiles:
    low, middle, high = (float(value) for value in raw)
    return low, middle, high
