"""The report as one page: everything inlined, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any, Final, NamedTuple

from plotly.offline import get_plotlyjs

from config.messages import Down
from config.vocabulary import Quantity
from gateway.bench.assessment import Assessment, Verdict
from gateway.bench.dso_orders import DsoOrder, utc_at
from gateway.bench.metrics import BAND_PU, GRACE_S, HOLD_S
from gateway.bench.reports.event_rows import HEADS, EventFigures, event_rows
from gateway.bench.reports.figures import figures_of
from gateway.bench.reports.report_schema import OrderFigures, Percentiles, Report
from gateway.bench.reports.traces import Figure
from gateway.bench.reports.wording import NOT_MEASURED, QUANTITY_NAMES, asked, duration, figure

LONGEST_EXCURSION_S: Final = 2.0
"""Outside a limit for less than this is a passing excursion; from this on the limit was broken."""

MAX_TABLE_ROWS: Final = 400

# Nothing may be fetched; the page's own scripts and styles are inline, and a picture is saved through a blob.
_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


class Verdicts(NamedTuple):
    """What a page says of a run that was judged by checks: its title, what it is from, and each check.

    A row is the check's name, what it measures, its limit, what was measured, and whether it passed. A sabotaged run
    must fail. `wall_clock` is False for one on virtual time, of which the machine's own figures say nothing.
    """

    title: str
    facts: tuple[str, ...]
    rows: tuple[tuple[str, str, str, str, bool], ...]
    said: str
    events: tuple[EventFigures, ...] = ()
    wall_clock: bool = True


def page(assessment: Assessment, report: Report, verdicts: Verdicts | None = None) -> str:
    """The whole page as text; with `verdicts`, these stand first and speak for the run."""
    wall_clock = verdicts is None or verdicts.wall_clock
    figures = figures_of(assessment, verdicts.events if verdicts else (), wall_clock=wall_clock)
    title = verdicts.title if verdicts else f"{assessment.site.title or assessment.site.site}: bench run"
    parts = [
        _header(assessment, report, title, verdicts.facts if verdicts else ()),
        _ending(assessment.run.problems),
        _verdict(report) if verdicts is None else _checks_verdict(verdicts),
        _tiles(assessment, report, wall_clock=wall_clock),
        '<div class="grid">',
        _verdict_table(verdicts) if verdicts else "",
        *(section(each) for each in figures),
        _excursion_table(report),
        _event_table(verdicts.events) if verdicts else "",
        _order_table(assessment, report),
        _link_table(report),
        _process_table(report) if wall_clock else "",
        _check_table(assessment),
        "</div>",
        _method(),
    ]
    return document(title, parts, figures)


def document(title: str, parts: Iterable[str], figures: Iterable[Figure]) -> str:
    """A whole page: its parts as HTML, with the figures that their sections name."""
    style = files("gateway.bench.reports").joinpath("page.css").read_text(encoding="utf-8")
    script = files("gateway.bench.reports").joinpath("page.js").read_text(encoding="utf-8")
    around = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{style}</style>",
        "</head>\n<body>\n<main>",
        *parts,
        "</main>",
        f'<script type="application/json" id="figures">{_embedded(figures)}</script>',
        f"<script>{get_plotlyjs()}</script>",
        f"<script>\n{script}</script>",
        "</body>\n</html>\n",
    ]
    return "\n".join(around)


def _embedded(figures: Iterable[Figure]) -> str:
    """The figures as JSON that no text in it can end early."""
    plain = [{"key": each.key, "data": each.data, "layout": each.layout} for each in figures]
    return json.dumps(plain, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _header(assessment: Assessment, report: Report, title: str, more: Sequence[str]) -> str:
    started = utc_at(assessment.run, assessment.zero_s)
    when = f"{datetime.fromtimestamp(started, UTC):%Y-%m-%d %H:%M:%S} UTC" if started is not None else ""
    rating = f"connection {assessment.site.connection.rating_w / 1e3:g} kW"
    length = duration(report.duration_s) if report.duration_s is not None else ""
    facts = " · ".join(fact for fact in (f"site {assessment.site.site}", rating, when, length, *more) if fact)
    return f"<header><h1>{escape(title)}</h1><p>{escape(facts)}</p></header>"


def _ending(problems: Sequence[str]) -> str:
    """What the verdict does not cover: the part of the run that did not take place."""
    if not problems:
        return ""
    words = "This was not a whole run; what follows is about the part that was."
    return f'<div class="verdict bad"><strong>{words}</strong><span>{escape("; ".join(problems))}</span></div>'


def _checks_verdict(verdicts: Verdicts) -> str:
    failed = [name for name, *_, passed in verdicts.rows if not passed]
    tone = "bad" if failed else "good"
    more = f"{len(failed)} of {_count(len(verdicts.rows), 'check')} failed: {', '.join(failed)}." if failed else ""
    said = more or f"All {len(verdicts.rows)} checks are within their limits."
    return f'<div class="verdict {tone}"><strong>{escape(verdicts.said)}</strong><span>{escape(said)}</span></div>'


def _verdict_table(verdicts: Verdicts) -> str:
    rows = [
        ((name, "name"), what, limit, measured, ("passed", "good") if passed else ("failed", "bad"))
        for name, what, limit, measured, passed in verdicts.rows
    ]
    return table("Checks", "", ("Check", "What is measured", "#Limit", "#Measured", "Result"), rows)


class VerdictWords(NamedTuple):
    """What is said of the limits of a run; `kept`: judged, and outside for no longer than in passing."""

    tone: str
    said: str
    more: str
    kept: bool


def verdict_words(report: Report) -> VerdictWords:
    """The verdict on a run without checks, which rests on its excursions alone."""
    found = report.excursions
    if found.count is None or found.longest_s is None:
        return VerdictWords("warn", "Not judged: no record of the power.", "", False)
    if found.count == 0:
        more = "No excursion of more than 1 % of the connection rating."
        return VerdictWords("good", "Every limit was kept.", more, True)
    passing = found.longest_s < LONGEST_EXCURSION_S
    words = "Limits kept but for passing excursions." if passing else "A limit was broken."
    times = "once" if found.count == 1 else f"{found.count} times"
    more = (
        f"Outside {times}, for {duration(found.longest_s)} at the longest; {figure(found.energy_wh, 'Wh')} beyond "
        "the limits."
    )
    return VerdictWords("warn" if passing else "bad", words, more, passing)


def _verdict(report: Report) -> str:
    tone, said, more, _ = verdict_words(report)
    return f'<div class="verdict {tone}"><strong>{said}</strong><span>{escape(more)}</span></div>'


def _tiles(assessment: Assessment, report: Report, *, wall_clock: bool) -> str:
    never = [
        order.id for order, verdict in zip(assessment.orders, assessment.verdicts, strict=True) if verdict.never_settled
    ]
    settled = [order for order in report.orders if order.settled_s is not None]
    slowest = max(settled, key=lambda order: order.settled_s or 0.0, default=None)
    errors = [order for order in report.orders if order.steady_error_pct is not None]
    worst = max(errors, key=lambda order: order.steady_error_pct or 0.0, default=None)
    written = [order.received_to_written_ms for order in report.orders if order.received_to_written_ms is not None]
    cycles = f"of {report.cycles:,}".replace(",", " ") + " cycles" if report.cycles is not None else ""
    tiles = [
        ("Longest excursion", figure(report.excursions.longest_s, "s"), _count(report.excursions.count, "excursion")),
        (
            "Worst settling",
            "never" if never else figure(slowest.settled_s if slowest else None, "s"),
            f"{len(never)} of {len(never) + len(settled)} orders" if never else slowest.id if slowest else "",
        ),
        ("Worst steady error", figure(worst.steady_error_pct if worst else None, "%"), "of the rating"),
        ("Refused orders", figure(report.refused_orders, digits=0), f"of {len(report.orders)} received"),
    ]
    of_the_machine = [
        ("Order to last write", figure(max(written, default=None), "ms", 1), "the slowest order"),
        ("Missed cycles", figure(report.missed_cycles, digits=0), cycles),
        (
            "Start jitter, p99",
            figure(report.jitter_ms.p99, "ms"),
            f"bare loop {figure(report.bare_loop_jitter_ms.p99, 'ms')}",
        ),
    ]
    cells = "".join(
        f'<div class="tile"><dt>{name}</dt><dd>{value}</dd><small>{escape(note)}</small></div>'
        for name, value, note in (*tiles, *(of_the_machine if wall_clock else ()))
    )
    return f'<dl class="tiles">{cells}</dl>'


def _count(count: int | None, noun: str) -> str:
    return "" if count is None else f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def section(each: Figure) -> str:
    """A figure with its title and caption."""
    caption = f"<p>{escape(each.caption)}</p>" if each.caption else ""
    width = "" if each.half_width else ' class="wide"'
    return f'<section{width}><h2>{escape(each.title)}</h2>{caption}<div id="{escape(each.key)}"></div></section>'


def table(title: str, caption: str, heads: Sequence[str], rows: Iterable[Sequence[Any]], wide: bool = True) -> str:
    """A table; heads that begin with "#" are of columns of numbers. A cell is text, or text and its class."""
    numeric = [head.startswith("#") for head in heads]
    head = "".join(
        f"<th{' class=number' if is_number else ''}>{escape(name.lstrip('#'))}</th>"
        for name, is_number in zip(heads, numeric, strict=True)
    )
    body = []
    for row in rows:
        cells = []
        for cell, is_number in zip(row, numeric, strict=True):
            text, tone = cell if isinstance(cell, tuple) else (cell, "")
            classes = " ".join(filter(None, ("number" if is_number else "", tone)))
            cells.append(
                f'<td class="{classes}">{escape(str(text))}</td>' if classes else f"<td>{escape(str(text))}</td>"
            )
        body.append(f"<tr>{''.join(cells)}</tr>")
    width = ' class="wide"' if wide else ""
    words = f"<p>{escape(caption)}</p>" if caption else ""
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<section{width}><h2>{escape(title)}</h2>{words}<div class="scroll">{whole}</div></section>'


def _excursion_table(report: Report) -> str:
    found = report.excursions
    if not found.each:
        return ""
    left = (found.count or 0) - len(found.each[:MAX_TABLE_ROWS])
    caption = f"Beyond a limit by more than {BAND_PU:.0%} of the rating. Times count from the start of the run."
    caption += f" {left} more are not listed." if left > 0 else ""
    rows = []
    for each in found.each[:MAX_TABLE_ROWS]:
        quantity = Quantity(each.quantity)
        unit = "A" if quantity is Quantity.CURRENT_PER_PHASE_A else "W"
        rows.append(
            (
                figure(each.at_s, "s"),
                figure(each.lasted_s, "s"),
                figure(each.peak, unit, 0),
                figure(each.energy_wh, "Wh"),
                (QUANTITY_NAMES[quantity], "name"),
                figure(each.limit, unit, 0),
                each.source,
            )
        )
    heads = ("#When", "#How long", "#How far", "#Energy", "At", "#Limit", "Whose limit")
    return table("Excursions", caption, heads, rows)


def _event_table(events: Sequence[EventFigures]) -> str:
    if not events:
        return ""
    left = len(events) - MAX_TABLE_ROWS
    caption = f"{left} more rows are in report.json." if left > 0 else ""
    return table("Faults and events", caption, HEADS, event_rows(events[:MAX_TABLE_ROWS]))


def _order_table(assessment: Assessment, report: Report) -> str:
    rows: list[Sequence[Any]] = []
    signals: list[OrderFigures] = []
    signals_row = 0
    for order, figures, verdict in zip(assessment.orders, report.orders, assessment.verdicts, strict=True):
        without_effect = order.refused or not order.binds
        if order.kind is Down.REGULATION and not without_effect:
            signals_row = signals_row if signals else len(rows)
            signals.append(figures)
            continue
        if not without_effect:
            rows[signals_row:signals_row] = _signal_row(signals)
            signals = []
        rows.append(_order_row(assessment, order, figures, verdict))
    rows[signals_row:signals_row] = _signal_row(signals)
    if not rows:
        return ""
    left = len(rows) - MAX_TABLE_ROWS
    caption = "Regulation signals that follow each other stand in one row with the slowest and the mean of them."
    caption += f" {left} more rows are in report.json." if left > 0 else ""
    heads = (
        "Order",
        "By",
        "Kind",
        "Asks",
        "#Received",
        "#In force until",
        "Answer",
        "#Written",
        "#Settled",
        "#Error",
        "Reason",
    )
    return table("Orders", caption, heads, rows[:MAX_TABLE_ROWS])


def _order_row(assessment: Assessment, order: DsoOrder, figures: OrderFigures, verdict: Verdict) -> Sequence[Any]:
    said = figures.status or ("does not bind" if figures.fault else NOT_MEASURED)
    return (
        (order.id, "name"),
        figures.source or NOT_MEASURED,
        order.kind.value,
        (asked(order) or NOT_MEASURED, "words"),
        figure(order.received_s - assessment.zero_s, "s"),
        _until(figures),
        (said, "bad" if order.refused or figures.fault else ""),
        *_met(figures, verdict),
        (figures.reason or figures.fault, "muted"),
    )


def _until(figures: OrderFigures) -> str:
    if figures.start_s is None:
        return NOT_MEASURED
    return "end of run" if figures.end_s is None else figure(figures.end_s, "s")


def _met(figures: OrderFigures, verdict: Verdict) -> Sequence[Any]:
    return (
        figure(figures.received_to_written_ms, "ms", 1),
        ("never", "bad") if verdict.never_settled else figure(figures.settled_s, "s"),
        figure(figures.steady_error_pct, "%"),
    )


def _signal_row(signals: Sequence[OrderFigures]) -> list[Sequence[Any]]:
    """One row for consecutive signals."""
    if not signals:
        return []
    settled = [each.settled_s for each in signals if each.settled_s is not None]
    errors = [each.steady_error_pct for each in signals if each.steady_error_pct is not None]
    written = [each.received_to_written_ms for each in signals if each.received_to_written_ms is not None]
    statuses = sorted({each.status for each in signals if each.status})
    unsettled = len(signals) - len(settled)
    return [
        (
            (signals[0].id if len(signals) == 1 else f"{signals[0].id} …", "name"),
            signals[0].source or NOT_MEASURED,
            "regulation",
            _count(len(signals), "signal"),
            figure(signals[0].start_s, "s"),
            _until(signals[-1]),
            ", ".join(statuses) or NOT_MEASURED,
            figure(max(written, default=None), "ms", 1),
            figure(max(settled, default=None), "s"),
            figure(sum(errors) / len(errors) if errors else None, "%"),
            (f"{unsettled} not settled before the next" if unsettled else "", "muted"),
        )
    ]


def _link_table(report: Report) -> str:
    if not report.links:
        return ""
    rows = [
        (
            (name, "name"),
            figure(link.good, digits=0),
            (figure(link.lost, digits=0), "bad" if link.lost else ""),
            figure(link.reconnects, digits=0),
        )
        for name, link in report.links.items()
    ]
    return table("Link counters", "", ("Link", "#Good answers", "#Lost", "#Reconnects"), rows, wide=False)


def _process_table(report: Report) -> str:
    process = report.process

    def spread(name: str, value: Percentiles) -> Sequence[Any]:
        return (name, "name"), figure(value.p50, "ms"), figure(value.p99, "ms"), figure(value.max, "ms")

    rows = [
        spread("Cycle time", report.cycle_ms),
        spread("Cycle start jitter", report.jitter_ms),
        spread("Bare loop's jitter", report.bare_loop_jitter_ms),
    ]
    memory, share = figure(process.rss_mb, "MB", 0), figure(process.cpu_pct, "%", 0)
    caption = f"Memory {memory}, processor {share}, first setpoint {figure(process.first_setpoint_s, 's')} after start."
    return table("Control process", caption, ("Figure", "#Median", "#p99", "#Max"), rows, wide=False)


def _check_table(assessment: Assessment) -> str:
    rows: list[Sequence[Any]] = []
    for event in assessment.run.dso or ():
        if event.name == "check":
            passed = event.data.get("passed") is True
            word = ("passed", "good") if passed else ("failed", "bad")
            rows.append(((event.text("name"), "name"), word, event.text("detail")))
        elif event.name == "invalid":
            rows.append(((f"{event.text('kind')} message", "name"), ("invalid", "bad"), event.text("reason")))
    if not rows:
        return ""
    caption = "What the DSO checked of the messages it received."
    return table("DSO's checks", caption, ("Check", "Result", "Detail"), rows[:MAX_TABLE_ROWS])


def _method() -> str:
    rules = (
        "Power figures come from the bench's physics, never from the gateway's own samples. The limits in force are "
        "rebuilt from what the DSO sent, the installer's limits and the fallback, which holds before the first "
        "heartbeat and from a time-out after the last one until the next; the tightest counts. An order is settled "
        f"when power has come within {BAND_PU:.0%} of the connection rating and stays there for {HOLD_S:g} s; the "
        "steady error is the mean from then on, in percent of the rating: beyond a limit, or from the target inside "
        f"the limits. An excursion is more than {BAND_PU:.0%} of the rating beyond a limit that has been in force for "
        f"{GRACE_S:g} s. Percentiles are nearest-rank."
    )
    return f"<details><summary>How these figures are made</summary><p>{escape(rules)}</p></details>"
