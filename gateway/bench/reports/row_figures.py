"""The report's figures of rows: what held from when to when, one row a kind of order or a link."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any, Final

from config.messages import Down, LimitOrder
from gateway.bench.assessment import Assessment
from gateway.bench.dso_orders import DsoOrder
from gateway.bench.reports.traces import Figure, Layout, TimeAxis, Trace, bars, layout
from gateway.bench.reports.wording import QUANTITY_NAMES, asked, briefly

_ROW_PX: Final = 28


def orders_figure(assessment: Assessment, axis: TimeAxis) -> Figure | None:
    rows: dict[str, list[dict[str, Any]]] = {}
    for index, order in enumerate(assessment.orders):
        term = assessment.in_force.orders.get(index)
        if term is None or order.kind is Down.REGULATION:
            continue
        mark = {"accepted": "✓", "completed": "✓", "superseded": "✓", "rejected": "✗"}.get(order.status, "")
        span = {"start_s": term[0], "end_s": term[1], "text": f"{briefly(order)} {mark}", "hover": _hover(order)}
        rows.setdefault(_row(order), []).append(span | {"colour": _order_colour(order)})
    if assessment.in_force.regulated:
        rows["regulation"] = [_regulation_span(assessment, *span) for span in assessment.in_force.regulated]
    fallback = [
        {"start_s": start_s, "end_s": end_s, "text": "fallback", "hover": "the fallback limits hold", "colour": "@grey"}
        for start_s, end_s in assessment.in_force.fallback
        if start_s < axis.end_s and end_s > axis.zero_s
    ]
    if fallback:
        rows["fallback"] = fallback
    data = [bars(row, spans, axis) for row, spans in rows.items()]
    refused = [order for order in assessment.orders if order.refused or not order.binds]
    if refused:
        data.append(_refusals(refused, axis))
    names = [*rows, *(["refused"] if refused else [])]
    if not names:
        return None
    return Figure(
        "orders",
        "Orders in force",
        "✓ accepted by the gateway, ✗ refused.",
        data,
        rows_layout(axis, names),
    )


def _row(order: DsoOrder) -> str:
    if isinstance(order.message, LimitOrder):
        return f"{QUANTITY_NAMES[order.message.quantity]} limit".replace("controllable load", "contr. load")
    return str(order.kind)


def _order_colour(order: DsoOrder) -> str:
    if isinstance(order.message, LimitOrder):
        return "@limit" if not isinstance(order.message.value, str) else "@grey"
    return "@target"


def _hover(order: DsoOrder) -> str:
    said = f"{order.status} {order.reason}".strip() or "no acknowledgement seen"
    source = f" from {order.source}" if order.source else ""
    return escape(f"{order.id}{source}: {asked(order) or order.fault}") + f"<br>{escape(said)}"


def _regulation_span(assessment: Assessment, start_s: float, end_s: float) -> dict[str, Any]:
    count = sum(order.kind is Down.REGULATION and start_s <= order.begins_s < end_s for order in assessment.orders)
    text = f"{count} signal{'s' if count != 1 else ''}"
    return {"start_s": start_s, "end_s": end_s, "text": text, "hover": text, "colour": "@store"}


def _refusals(refused: Sequence[DsoOrder], axis: TimeAxis) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [axis.x(axis.clipped(order.received_s)) for order in refused],
        "y": ["refused"] * len(refused),
        "hovertext": [f"{_hover(order)}<br>{escape(order.fault)}" for order in refused],
        "hoverinfo": "text",
        "marker": {"symbol": "x", "size": 9, "color": "@limit"},
        "showlegend": False,
    }


def rows_layout(axis: TimeAxis, rows: Sequence[str], **more: Any) -> Layout:
    """A chart of rows, the first one on top."""
    vertical = {"type": "category", "categoryorder": "array", "categoryarray": list(reversed(rows)), "fixedrange": True}
    vertical |= {"range": [-0.5, len(rows) - 0.5], "showgrid": False, "ticks": "", "automargin": False}
    shared = layout(axis, 48 + _ROW_PX * len(rows), hovermode="closest", barmode="overlay", yaxis=vertical, **more)
    return shared | {"margin": shared["margin"] | {"t": 8}}


def links_figure(assessment: Assessment, axis: TimeAxis) -> Figure | None:
    states: dict[str, list[tuple[float, str, str]]] = {}
    for event in assessment.run.gateway:
        if event.name == "link" and event.text("name"):
            states.setdefault(event.text("name"), []).append((event.at_s, event.text("state"), event.text("reason")))
    if not states:
        return None
    colours = {"up": "@store", "lost": "@limit"}
    data = []
    for name, told in states.items():
        spans = [
            {"start_s": start_s, "end_s": end_s, "colour": colours.get(state, "@grey")}
            | {"text": "" if state == "up" else escape(state), "hover": escape(f"{name}: {state} {reason}".strip())}
            for (start_s, state, reason), (end_s, _, _) in pairwise([*told, (axis.end_s, "", "")])
        ]
        data.append(bars(_link_label(name), spans, axis))
    rows = rows_layout(axis, [_link_label(name) for name in states])
    rows["yaxis"]["tickfont"] = {"size": 10}
    return Figure(
        "links",
        "Links",
        "Green: up; red: lost; grey: connecting.",
        data,
        rows,
    )


def _link_label(name: str) -> str:
    """A link's address in two short lines."""
    return escape(name).replace("://", "<br>", 1)
