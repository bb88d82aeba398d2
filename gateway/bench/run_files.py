"""Reads the files of a run directory. What is missing, torn or foreign is left out; nothing here raises for content.

All times are monotonic seconds of the host that made the run.
"""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

from gateway.bench.metrics import Spread

PHYSICS_FILE: Final = "physics.csv"
GATEWAY_FILES: Final = ("gateway.1.jsonl", "gateway.jsonl")
"""The journal and its predecessor, where it grew too long for one file."""
DSO_FILE: Final = "dso.jsonl"
JITTER_FILE: Final = "jitter.json"
END_FILE: Final = "end.json"
RUN_FILE: Final = "run.json"
"""The run's id and when it began; its end names the same id. A run on virtual time, which is one process, has none."""
FAULTS_FILE: Final = "faults.json"
MEMORY_FILE: Final = "memory.csv"
NO_END: Final = "the run's end is not written down: it was killed, or is still running"
NOT_OF_THE_RUN: Final = '{"event": "received"'
"""What the DSO heard: it has judged that itself, and a day of telemetry takes hundreds of megabytes."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a journal: its name, its monotonic time and everything it says."""

    name: str
    at_s: float
    data: Mapping[str, Any]

    def number(self, key: str) -> float | None:
        """The finite number under `key`, or None."""
        return number(self.data.get(key))

    def text(self, key: str) -> str:
        """The text under `key`, or an empty one."""
        value = self.data.get(key)
        return value if isinstance(value, str) else ""

    def mapping(self, key: str) -> Mapping[str, Any]:
        """The object under `key`, or an empty one."""
        return mapping(self.data.get(key))


@dataclass(frozen=True, slots=True)
class RunMark:
    """Which run the files are of, and the monotonic time from which their rows can be its own."""

    run: str
    began_s: float


@dataclass(frozen=True, slots=True)
class Physics:
    """What the twins' physics recorded: one column a quantity, in load convention, aligned with `times`."""

    times: Sequence[float] = ()
    columns: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def column(self, name: str) -> Sequence[float] | None:
        """A column, or None where the physics did not record it."""
        return self.columns.get(name)


@dataclass(frozen=True, slots=True)
class Run:
    """Everything one run left behind. `dso` is None where no DSO twin kept a log.

    `problems` is what kept the run from being what was planned, as the demo has it; empty for a whole run.
    """

    physics: Physics
    gateway: tuple[Event, ...]
    dso: tuple[Event, ...] | None
    bare_loop: Spread
    problems: tuple[str, ...] = ()


def number(value: object) -> float | None:
    """A finite number as a float; None for anything else, truth values included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def spread_of(value: object) -> Spread:
    """Percentiles as a journal states them: an object with p50, p99 and max."""
    given = mapping(value)
    return Spread(number(given.get("p50")), number(given.get("p99")), number(given.get("max")))


def read_run(run_dir: Path) -> Run:
    """Read a run directory; a file that is missing counts as one that says nothing.

    Where the run is marked, rows from before its begin are another's and left out.
    """
    dso_file = run_dir / DSO_FILE
    mark = read_mark(run_dir / RUN_FILE)
    from_s = -math.inf if mark is None else mark.began_s
    return Run(
        physics=read_physics(run_dir / PHYSICS_FILE, from_s),
        gateway=read_events(*(run_dir / name for name in GATEWAY_FILES), from_s=from_s),
        dso=read_events(dso_file, without=NOT_OF_THE_RUN, from_s=from_s) if dso_file.exists() else None,
        bare_loop=read_jitter(run_dir / JITTER_FILE),
        problems=read_problems(run_dir / END_FILE, mark),
    )


def read_mark(path: Path) -> RunMark | None:
    """Which run the directory is of; None where it does not say."""
    said = _object(path)
    run, began_s = said.get("run"), number(said.get("began_monotonic_s"))
    return RunMark(run, began_s) if isinstance(run, str) and began_s is not None else None


def read_problems(path: Path, mark: RunMark | None = None) -> tuple[str, ...]:
    """What went wrong with a run as such: what ended, an interruption; of a marked run, an end not its own."""
    said = _object(path)
    if mark is not None and said.get("run") != mark.run:
        return (NO_END,)
    found = said.get("problems")
    return tuple(str(text) for text in found) if isinstance(found, list) else ()


def _object(path: Path) -> Mapping[str, Any]:
    """The JSON object of a file; an empty one where there is none."""
    try:
        return mapping(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}


def read_events(*paths: Path, without: str = "", from_s: float = -math.inf) -> tuple[Event, ...]:
    """The events of JSON-lines files in the order of their times; lines that begin with `without` are left out.

    So are events from before `from_s`.
    """
    events: list[Event] = []
    for line in chain.from_iterable(map(_lines, paths)):
        if without and line.startswith(without):
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(data, dict):
            continue
        name, at_s = data.get("event"), number(data.get("monotonic_s"))
        if isinstance(name, str) and at_s is not None and at_s >= from_s:
            events.append(Event(name, at_s, data))
    return tuple(sorted(events, key=lambda event: event.at_s))


def read_physics(path: Path, from_s: float = -math.inf) -> Physics:
    """The physics' record; rows that are torn, not numbers or not later than the row before are left out.

    So are rows from before `from_s`.
    """
    lines = _lines(path)
    header = next(csv.reader([next(lines, "")]), [])
    if "monotonic_s" not in header:
        return Physics()
    columns = [array("d") for _ in header]
    times = columns[header.index("monotonic_s")]
    clock = header.index("monotonic_s")
    for line in lines:
        cells = line.rstrip("\r\n").split(",")
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            continue
        if len(row) != len(header) or not all(map(math.isfinite, row)) or row[clock] < from_s:
            continue
        if times and row[clock] <= times[-1]:
            continue
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return Physics(times, {name: column for name, column in zip(header, columns, strict=True) if name != "monotonic_s"})


def read_jitter(path: Path) -> Spread:
    """The bare loop's jitter in ms."""
    try:
        return spread_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return Spread()


def _lines(path: Path) -> Iterator[str]:
    """The complete lines of a text file: one without its line end was torn by whatever ended the writer."""
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if line.endswith("\n"):
                    yield line
    except OSError:
        return
