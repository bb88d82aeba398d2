"""The pieces that the report's figures are made of: plotly's figures as plain data, times as the axis wants them.

Colours are names that begin with "@"; the page turns them into those of its light or dark theme.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final, TypeAlias

Trace: TypeAlias = dict[str, Any]
Layout: TypeAlias = dict[str, Any]

MAX_POINTS: Final = 20_000
"""A longer trace is reduced to the least and the greatest value of equal stretches of time."""

REDUCED_POINTS: Final = 10_000
CLOCK_AXIS_FROM_S: Final = 900.0
"""From this length on the time axis shows the time of day rather than seconds."""

_PLOT_PX: Final = 1050.0
_CHARACTER_PX: Final = 6.6
_LEAST_CHARACTERS: Final = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart of the report with the words around it."""

    key: str
    title: str
    caption: str
    data: list[Trace]
    layout: Layout
    half_width: bool = False


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Maps monotonic seconds to the axis: seconds from the start, or for long runs ms of UTC (of elapsed time where the
    run has no wall clock)."""

    zero_s: float
    end_s: float
    utc_zero_s: float | None

    @property
    def is_clock(self) -> bool:
        return self.end_s - self.zero_s >= CLOCK_AXIS_FROM_S

    def x(self, at_s: float) -> float:
        """The place of an instant."""
        if self.is_clock:
            return round((at_s - self.zero_s + (self.utc_zero_s or 0.0)) * 1000.0)
        return round(at_s - self.zero_s, 3)

    def width(self, seconds: float) -> float:
        """A length of time in the axis's unit."""
        return seconds * 1000.0 if self.is_clock else seconds

    def clipped(self, at_s: float) -> float:
        """The instant, not outside the run."""
        return min(max(at_s, self.zero_s), self.end_s)

    def fitted(self, text: str, seconds: float) -> str:
        """The text as far as it fits into a length of time on a screen of usual width; empty where it does not."""
        room = int(seconds / (self.end_s - self.zero_s) * _PLOT_PX / _CHARACTER_PX) - 1
        if len(text) <= room:
            return text
        return f"{text[: room - 1].rstrip()}…" if room > _LEAST_CHARACTERS else ""

    def layout(self) -> Layout:
        """The axis from the start to the end of the run."""
        axis: Layout = {
            "range": [self.x(self.zero_s), self.x(self.end_s)],
            "type": "date" if self.is_clock else "linear",
            "showgrid": True,
            "gridcolor": "@grid",
            "zeroline": False,
            "linecolor": "@axis",
            "showline": True,
            "ticks": "outside",
            "tickcolor": "@axis",
            "ticklen": 4,
        }
        return axis if self.is_clock else axis | {"ticksuffix": " s", "hoverformat": ".2f"}


def layout(axis: TimeAxis, height: int, **more: Any) -> Layout:
    """What every figure shares: its margins, so that the time axes stand above each other, legend and hover."""
    return {
        "height": height,
        "margin": {"l": 96, "r": 16, "t": 34, "b": 48 if axis.is_clock else 34},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "@text", "size": 12, "family": "@font"},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "@panel", "bordercolor": "@axis", "font": {"color": "@text"}, "namelength": -1},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "font": {"size": 12}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "@muted", "activecolor": "@text"},
        "xaxis": axis.layout(),
        "dragmode": "zoom",
        **more,
    }


def value_axis(title: str, value_range: Sequence[float] | None = None, **more: Any) -> Layout:
    """A vertical axis; without a range it begins at zero."""
    axis: Layout = {
        "title": {"text": title, "standoff": 8},
        "gridcolor": "@grid",
        "zeroline": True,
        "zerolinecolor": "@axis",
        "zerolinewidth": 1,
        "automargin": False,
    }
    return axis | ({"range": list(value_range)} if value_range else {"rangemode": "tozero"}) | more


def line(
    axis: TimeAxis, times: Sequence[float], values: Sequence[float | None], name: str, colour: str, **more: Any
) -> Trace:
    """A sampled value over time, reduced where it has too many points."""
    times, values = reduced(times, values)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [axis.x(at_s) for at_s in times],
        "y": [None if value is None else round(value, 4) for value in values],
        "line": {"color": colour, "width": 1.7, **more.pop("line", {})},
        **more,
    }


def step_line(
    axis: TimeAxis, points: Iterable[tuple[float, float | None]], name: str, colour: str, **more: Any
) -> Trace:
    """A value that holds until the next point and to the end of the run; repeated values are left out."""
    kept: list[tuple[float, float | None]] = []
    for at_s, value in points:
        if at_s < axis.end_s and (not kept or value != kept[-1][1]):
            kept.append((axis.clipped(at_s), value))
    if kept:
        kept.append((axis.end_s, kept[-1][1]))
    shape = {"shape": "hv", **more.pop("line", {})}
    return line(axis, [at_s for at_s, _ in kept], [value for _, value in kept], name, colour, line=shape, **more)


def reduced(
    times: Sequence[float], values: Sequence[float | None], max_points: int = MAX_POINTS, points: int = REDUCED_POINTS
) -> tuple[Sequence[float], Sequence[float | None]]:
    """The series; where it is longer than `max_points`, the least and greatest value of each of `points` / 2 stretches.

    Peaks and dips survive at their own times; a stretch without values gives one None.
    """
    if len(times) <= max_points:
        return times, values
    buckets = points // 2
    width = (times[-1] - times[0]) / buckets
    kept: list[int] = []
    first = 0
    for bucket in range(buckets):
        end_s = times[0] + (bucket + 1) * width if bucket + 1 < buckets else inf
        last = first
        least: int | None = None
        greatest: int | None = None
        while last < len(times) and times[last] < end_s:
            value = values[last]
            if value is not None:
                least = last if least is None or value < (values[least] or 0.0) else least
                greatest = last if greatest is None or value > (values[greatest] or 0.0) else greatest
            last += 1
        if least is not None and greatest is not None:
            kept += sorted({least, greatest})
        elif last > first:
            kept.append(first)
        first = last
    return [times[index] for index in kept], [values[index] for index in kept]


def bars(row: str, spans: Sequence[Mapping[str, Any]], axis: TimeAxis, **more: Any) -> Trace:
    """Spans of time on one row: each with `start_s`, `end_s`, `text`, `hover` and `colour`."""
    starts = [axis.clipped(span["start_s"]) for span in spans]
    ends = [axis.clipped(span["end_s"]) for span in spans]
    return {
        "type": "bar",
        "orientation": "h",
        "y": [row] * len(spans),
        "base": [axis.x(start_s) for start_s in starts],
        "x": [axis.width(end_s - start_s) for start_s, end_s in zip(starts, ends, strict=True)],
        "text": [
            axis.fitted(span["text"], end_s - start_s) for span, start_s, end_s in zip(spans, starts, ends, strict=True)
        ],
        "hovertext": [span["hover"] for span in spans],
        "hoverinfo": "text",
        "textposition": "inside",
        "insidetextanchor": "start",
        "constraintext": "none",
        "textangle": 0,
        "textfont": {"color": "@on_bar", "size": 11},
        "marker": {"color": [span["colour"] for span in spans], "line": {"color": "@panel", "width": 1}},
        "width": 0.72,
        "showlegend": False,
        **more,
    }
