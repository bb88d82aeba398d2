"""Tables, bars and verdicts of the commissioning commands, for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live as RichLive
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from config.vocabulary import WriteStatus
from gateway.commission.commissioning import DeviceReport
from gateway.commission.response import Seen
from gateway.commission.scanning import Found
from gateway.commission.stepping import Live
from gateway.commission.writing import Prepared, Written

_PIPED_WIDTH = 200
_LARGEST_WHOLE = 1e15
_COLOURS = {"good": "green", "plausible": "green", "uncertain": "yellow", "doubtful": "yellow", "skipped": "yellow"}
_COLOURS |= {"bad": "red", "failed": "red", "aborted": "red", "missing": "dim"}


def console() -> Console:
    """Standard output; a pipe is not cut to the width of a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPED_WIDTH)


def coloured(word: str) -> str:
    """A verdict in its colour."""
    colour = _COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else escape(word)


def shown(value: object) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < _LARGEST_WHOLE else f"{value:.6g}"
    return escape(str(value))


def print_points(title: str, rows: Iterable[Mapping[str, Any]], *, verdict: bool) -> None:
    """Points with value, unit, quality or verdict, age, raw and where they are."""
    state = "verdict" if verdict else "quality"
    table = Table("point", "value", "unit", state, "age", "raw", "where", "why", title=escape(title), box=None)
    for row in rows:
        age = "" if row["age_s"] is None else f"{row['age_s']:.2f} s"
        state_text = coloured(row[state]) if row[state] else ""
        table.add_row(
            escape(row["point"]), shown(row["value"]), escape(row["unit"]), state_text, age,
            escape(_short(row["raw"])), escape(row["where"]), escape(row["reason"]),
        )  # fmt: skip
    console().print(table)


def print_profiles(rows: Iterable[Mapping[str, Any]]) -> None:
    """The shipped profiles."""
    table = Table("profile", "kind", "protocol", "title", "status", "source", box=None)
    for row in rows:
        keys = ("profile", "kind", "protocol", "title", "status", "source")
        table.add_row(*(escape(str(row[key])) for key in keys))
    console().print(table)


def print_found(target: str, found: Sequence[Found]) -> None:
    """What a scan has found."""
    table = Table(
        "unit", "identity", "SunSpec models", "profiles that fit", "first answer", title=escape(target), box=None
    )
    for item in found:
        unit = item.unit
        also = f" (also {_ranges(item.also)})" if item.also else ""
        profiles = "\n".join(f"{match.profile}: {match.evidence}" for match in item.matches) or "-"
        table.add_row(
            f"{unit.unit}{also}", escape(" ".join(word for word in unit.identity if word) or "-"),
            ", ".join(map(str, unit.models)) or "-", escape(profiles), escape(unit.answered),
        )  # fmt: skip
    console().print(table)


def scan_progress() -> Progress:
    """A bar on standard error, silent where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def print_write(device: str, prepared: Prepared) -> None:
    """What a write would do."""
    unit = f" {prepared.unit}" if prepared.unit else ""
    current = "is only written"
    if prepared.current is not None:
        reading = prepared.current
        current = f"{shown(reading.sample.value)}{unit} now" if reading.good else f"now bad: {reading.reason}"
    sys.stdout.write(f"{device}.{prepared.point}: {current}\n  to be written: {prepared.value:g}{unit}\n")
    sys.stdout.write(f"  as: {prepared.encoded}\n")
    sys.stdout.flush()


def write_as_json(device: str, prepared: Prepared, done: Written) -> dict[str, Any]:
    """A write and what became of it, as a plain object."""
    return {
        "device": device,
        "point": prepared.point,
        "before": None if prepared.current is None else prepared.current.sample.value,
        "value": prepared.value,
        "encoded": prepared.encoded,
        "status": done.outcome.status.value,
        "detail": done.outcome.detail,
        "read_back": done.read_back,
        "agrees": done.agrees,
    }


def tell_written(device: str, prepared: Prepared, done: Written) -> None:
    """What became of a write."""
    sys.stdout.write(f"  {done.outcome.status}{': ' * bool(done.outcome.detail)}{done.outcome.detail}\n")
    if done.agrees is None:
        sys.stdout.write("  the point can't be read back\n")
    else:
        sys.stdout.write(f"  read back: {shown(done.read_back)} {prepared.unit}".rstrip() + "\n")
    if done.agrees is False and done.outcome.status is WriteStatus.ACKNOWLEDGED:
        sys.stderr.write(f"{device}.{prepared.point}: the device shows another value than was written\n")


class StepView:
    """The step under way, live on standard error; silent where that is no terminal."""

    def __init__(self) -> None:
        self._live: RichLive | None = None
        if sys.stderr.isatty():
            self._live = RichLive(console=Console(stderr=True), transient=True, auto_refresh=False)

    def __enter__(self) -> StepView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, live: Live) -> None:
        """The newest state of a step."""
        if self._live is None:
            return
        table = Table("device", "does", "for", "setpoint", "its power", "meter", box=None)
        powers = (_watts(power) for power in (live.target_w, live.power_w, live.meter_w))
        table.add_row(escape(live.device), live.phase, f"{live.elapsed_s:.1f} s", *powers)
        self._live.update(table, refresh=True)


def print_reports(site: str, reports: Sequence[DeviceReport]) -> None:
    """The verdict on each device, then what is wrong, one line each."""
    table = Table(
        "device", "verdict", "asked", "device showed", "meter showed", "lag for control", title=escape(site), box=None
    )
    for report in reports:
        lag = report.lag
        told = "-" if lag is None else f"dead {lag.dead_time_s:.2f} s, Tr90 {lag.tr90_s:.2f} s ({lag.seen_by})"
        table.add_row(
            escape(report.device), coloured(report.outcome), _watts(report.asked_w),
            _seen(report.own), _seen(report.meter), told,
        )  # fmt: skip
    out = console()
    out.print(table)
    for report in reports:
        for text in (report.reason, *report.findings, *report.notes):
            if text:
                out.print(f"{report.device}: {text}", markup=False, highlight=False, soft_wrap=True)


def _seen(seen: Seen | None) -> str:
    if seen is None:
        return "-"
    lag = "" if seen.lag_s is None else f", dead {seen.dead_time_s:.2f} s, Tr90 {seen.tr90_s:.2f} s"
    return f"{_watts(seen.change_w)}{lag}"


def _watts(power_w: float | None) -> str:
    return "-" if power_w is None else f"{power_w:+.0f} W"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _ranges(units: Sequence[int]) -> str:
    """1, 2, 3, 7 as `1-3, 7`."""
    parts: list[list[int]] = []
    for unit in sorted(units):
        if parts and unit == parts[-1][-1] + 1:
            parts[-1].append(unit)
        else:
            parts.append([unit])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
