"""Evidence: for each limit order what was asked, when it was answered, what bound, what was measured, and the result.

Read from the journal of a site, while its gateway runs or afterwards.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from config.vocabulary import Quantity

JOURNAL_FILES: Final = ("gateway.1.jsonl", "gateway.jsonl")
TOLERANCE_PU: Final = 0.01
"""Of the connection's rating: what counts as kept."""

GRACE_S: Final = 2.0
"""From the receipt of an order until power beside it counts."""

SERIES_COLUMNS: Final = (
    *("utc", "net_w", "net_min_w", "net_max_w", "lower_w", "lower_source", "upper_w", "upper_source"),
    *("binding", "unmet", "fallback", "clock"),
)


@dataclass(slots=True)
class OrderEvidence:
    """One limit order; times in UTC as the journal has them, powers in watts in load convention.

    `kept` is None where nothing was measured while it held. `longest_outside_s` counts whole recorded rows.
    """

    id: str
    source: str
    order: Mapping[str, Any]
    received_utc: str
    acknowledged_utc: str
    status: str
    reason: str = ""
    begins_utc: str = ""
    ended_utc: str | None = None
    result: Mapping[str, Any] | None = None
    clock: str = "unknown"
    kept: bool | None = None
    worst_excess_w: float | None = None
    outside_s: float = 0.0
    longest_outside_s: float = 0.0
    series: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """A plain object."""
        return {name: getattr(self, name) for name in self.__slots__}


def collect(directory: Path, from_s: float, until_s: float) -> list[OrderEvidence]:
    """The evidence of every limit order that held or was refused in a window of UTC seconds.

    Raises FileNotFoundError where the site has no journal.
    """
    paths = [directory / name for name in JOURNAL_FILES]
    if not any(path.exists() for path in paths):
        raise FileNotFoundError(directory / JOURNAL_FILES[-1])
    rating_w = 0.0
    orders: dict[str, OrderEvidence] = {}
    rows: list[tuple[float, dict[str, Any]]] = []
    clock = "unknown"
    for entry in _entries(paths):
        at_s = _seconds(entry["utc"])
        match entry["event"]:
            case "start":
                rating_w = float(entry.get("rating_w") or rating_w)
            case "clock":
                clock = str(entry.get("quality", clock))
            case "order" if entry.get("kind") == "limits":
                _take_order(orders, entry, at_s, clock)
            case "power" if from_s <= at_s <= until_s:
                rows.append((at_s, {**{name: entry.get(name) for name in SERIES_COLUMNS}, "clock": clock}))
    found = [order for order in orders.values() if _overlaps(order, from_s, until_s)]
    for order in found:
        _judge(order, rows, TOLERANCE_PU * rating_w)
    return found


def _entries(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal that can be read, oldest first."""
    for path in paths:
        if not path.exists():
            continue
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and isinstance(entry.get("utc"), str) and "event" in entry:
                    yield entry


def _take_order(orders: dict[str, OrderEvidence], entry: Mapping[str, Any], at_s: float, clock: str) -> None:
    """The first line of an order is its receipt and answer, a later one its end."""
    order_id, message = str(entry.get("id")), entry.get("message")
    known = orders.get(order_id)
    if known is None or entry["status"] in ("accepted", "rejected"):
        received_s, journalled_s = entry.get("received_s"), entry.get("monotonic_s")
        age_s = journalled_s - received_s if isinstance(received_s, float) and isinstance(journalled_s, float) else 0.0
        message = message if isinstance(message, dict) else {}
        orders[order_id] = OrderEvidence(
            order_id,
            str(entry.get("source")),
            message,
            _text(at_s - age_s),
            entry["utc"],
            str(entry["status"]),
            str(entry.get("reason") or ""),
            _later(message.get("start"), at_s),
            clock=clock,
        )
        return
    known.status, known.reason = str(entry["status"]), str(entry.get("reason") or "")
    known.ended_utc, known.result = entry["utc"], entry.get("result")


def _later(start: object, received_s: float) -> str:
    """When an order begins: at its start, or at once."""
    starts_s = _seconds(start) if isinstance(start, str) else received_s
    return _text(max(starts_s, received_s))


def _overlaps(order: OrderEvidence, from_s: float, until_s: float) -> bool:
    begins_s = _seconds(order.begins_utc)
    ends_s = _seconds(order.ended_utc) if order.ended_utc else begins_s if order.status == "rejected" else until_s
    return begins_s <= until_s and ends_s >= from_s


def _judge(order: OrderEvidence, rows: Iterable[tuple[float, dict[str, Any]]], tolerance_w: float) -> None:
    """The rows in which the order held, and how far and how long power was beside it."""
    if order.status == "rejected":
        return
    begins_s = _seconds(order.begins_utc)
    ends_s = _seconds(order.ended_utc) if order.ended_utc else float("inf")
    held = [(at_s, row) for at_s, row in rows if begins_s <= at_s <= ends_s]
    order.series = [row for _, row in held]
    value = order.order.get("value")
    quantity = order.order.get("quantity")
    if not isinstance(value, int | float) or quantity not in (Quantity.NET_IMPORT_W, Quantity.NET_EXPORT_W):
        return
    imports, spell_s, before_s = quantity == Quantity.NET_IMPORT_W, 0.0, begins_s
    for at_s, row in held:
        power_w = row["net_max_w"] if imports else row["net_min_w"]
        dt_s, before_s = min(at_s - before_s, 5.0), at_s
        if power_w is None or at_s < begins_s + GRACE_S:
            spell_s = 0.0
            continue
        excess_w = power_w - value if imports else -power_w - value
        order.worst_excess_w = max(excess_w, order.worst_excess_w if order.worst_excess_w is not None else excess_w)
        spell_s = spell_s + dt_s if excess_w > tolerance_w else 0.0
        order.outside_s += dt_s * (excess_w > tolerance_w)
        order.longest_outside_s = max(order.longest_outside_s, spell_s)
    if order.worst_excess_w is not None:
        order.kept = order.worst_excess_w <= tolerance_w


def as_csv(found: Iterable[OrderEvidence]) -> str:
    """One line for each second of each order, with the order's own columns before it; one line where none was taken."""
    text = io.StringIO()
    own = (
        "id",
        "source",
        "quantity",
        "value",
        "status",
        "reason",
        "received_utc",
        "acknowledged_utc",
        "ended_utc",
        "kept",
    )
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*own, *SERIES_COLUMNS])
    for order in found:
        asked = [order.order.get("quantity"), order.order.get("value")]
        head = [order.id, order.source, *asked, *(getattr(order, name) for name in own[4:])]
        for row in order.series or [{}]:
            cells = [row.get(name) for name in SERIES_COLUMNS]
            writer.writerow([*head, *("; ".join(cell) if isinstance(cell, list) else cell for cell in cells)])
    return text.getvalue()


def _seconds(utc: str) -> float:
    return datetime.fromisoformat(utc).timestamp()


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
