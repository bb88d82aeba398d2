"""Which faults of a scenario were set and what the proxies say that each has done: a file of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from gateway.bench.run_files import FAULTS_FILE, mapping, number
from gateway.bench.scenario.plan import Happening, Plan

REFUSE: Final = "refuse"
"""Acts where the proxy sees nothing of it: a driver always wants a connection, so that it acted where there is none."""


@dataclass(frozen=True, slots=True)
class FaultFigures:
    """A fault as it was ordered, by the name of its event. `acted`: how often it did; None where nobody could tell."""

    event: str
    fault: str
    device: str
    acted: int | None


class FaultLog:
    """What is heard of the faults while a scenario runs."""

    def __init__(self) -> None:
        self._numbers: dict[str, tuple[str, int]] = {}
        self._acted: dict[tuple[str, int], int] = {}

    def set(self, happening: Happening, answer: Mapping[str, Any]) -> None:
        """A fault was set, and the proxies know it by the number in their answer; of other answers nothing is kept."""
        if happening.fault is not None and isinstance(answer.get("set"), int):
            self._numbers[happening.what] = (happening.fault["device"], answer["set"])

    def hear(self, status: Mapping[str, Any]) -> None:
        """The proxies' status."""
        for device, told in mapping(status.get("devices")).items():
            for fault in told["faults"]:
                key = (device, fault["id"])
                unheard = fault["fault"] == REFUSE and fault["active"] and told.get("connected") == 0
                self._acted[key] = max(self._acted.get(key, 0), fault["acted"] + unheard)

    def write(self, out: Path, plan: Plan) -> None:
        """Leave the figures of each fault of the plan in the run directory, in the order of time; raises OSError."""
        figures = []
        for name, event in zip(plan.names, plan.loaded.events, strict=True):
            if event.fault is not None:
                key = self._numbers.get(name)
                acted = None if key is None else self._acted.get(key)
                figures.append(asdict(FaultFigures(name, event.fault.fault, event.fault.device, acted)))
        if figures:
            (out / FAULTS_FILE).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def read_fault_log(out: Path) -> tuple[FaultFigures, ...]:
    """The figures of a run directory; none where it has no faults, or the file is no such file."""
    try:
        said = json.loads((out / FAULTS_FILE).read_bytes())
        return tuple(FaultFigures(one["event"], one["fault"], one["device"], _count(one.get("acted"))) for one in said)
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def _count(value: object) -> int | None:
    found = number(value)
    return None if found is None else int(found)
