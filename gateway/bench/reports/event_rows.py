"""What happened in a run besides the operator's orders, as the report shows it: a row a device or kind, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from pydantic import Field

from config.strict import Strict
from gateway.bench.reports.row_figures import rows_layout
from gateway.bench.reports.traces import Figure, TimeAxis, bars
from gateway.bench.reports.wording import figure

LONGEST_ROW: Final = 18


class EventFigures(Strict):
    """One event. Times count from the start of the run; `until_s` None: to its end, or over at once.

    `at` is where it acts and `by` who does it; `acted` how often a fault did, None for what is no fault or where nobody
    could tell.
    """

    name: str
    what: str
    at: str
    by: str
    at_s: float
    until_s: float | None
    is_fault: bool = Field(False, description="at the wire")
    acted: int | None = None

    @property
    def did_nothing(self) -> bool:
        return self.is_fault and not self.acted


def events_figure(events: Sequence[EventFigures], axis: TimeAxis) -> Figure | None:
    """Faults by the device that they strike, everything else by what it is done to."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for event in sorted(events, key=lambda event: not event.is_fault):
        begin_s = axis.zero_s + event.at_s
        end_s = axis.end_s if event.until_s is None else axis.zero_s + event.until_s
        colour = ("@grey" if event.did_nothing else "@limit") if event.is_fault else "@sky"
        span = {"start_s": begin_s, "end_s": end_s, "text": event.what, "hover": _hover(event), "colour": colour}
        rows.setdefault(event.at[:LONGEST_ROW], []).append(span)
    if not rows:
        return None
    data = [bars(row, spans, axis) for row, spans in rows.items()]
    words = "By where they act. Red: faults at the wire; grey: one that never acted; blue: everything else."
    return Figure("events", "Faults and events", words, data, rows_layout(axis, list(rows)))


def _hover(event: EventFigures) -> str:
    return escape(f"{event.name}: {event.what} at {event.at}, by {event.by}") + f"<br>{escape(_acted(event))}"


def _acted(event: EventFigures) -> str:
    if not event.is_fault:
        return ""
    return "never acted" if event.did_nothing else f"acted {event.acted} time{'s' * (event.acted != 1)}"


HEADS: Final = ("Event", "What", "At", "By", "#From", "#Until", "Acted")


def event_rows(events: Sequence[EventFigures]) -> list[Sequence[Any]]:
    """The rows of the table, for `HEADS`."""
    return [
        (
            (event.name, "name"),
            event.what,
            event.at,
            event.by,
            figure(event.at_s, "s"),
            "end of run" if event.until_s is None else figure(event.until_s, "s"),
            (_acted(event), "bad" if event.did_nothing else ""),
        )
        for event in events
    ]
