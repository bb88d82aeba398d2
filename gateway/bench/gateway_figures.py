"""The control process's own figures, from its journal: of each of its lives the summary, else what its lines tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.bench.metrics import Spread, spread
from gateway.bench.run_files import Event, mapping, number, spread_of

NOTHING: Final = Spread()


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """None where the journal does not tell. Counters add up over restarts; of percentiles the worst life's count."""

    duration_s: float | None = None
    cycles: int | None = None
    missed_cycles: int | None = None
    cycle_ms: Spread = NOTHING
    jitter_ms: Spread = NOTHING
    refused_orders: int | None = None
    links: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)
    rss_mb: float | None = None
    cpu_pct: float | None = None
    first_setpoint_s: float | None = None


def gateway_figures(journal: Sequence[Event]) -> GatewayFigures:
    """The figures of a whole journal; a journal without lines gives None throughout."""
    lives = [_of_life(life) for life in _lives(journal)]
    if not lives:
        return GatewayFigures()
    return GatewayFigures(
        duration_s=journal[-1].at_s - journal[0].at_s,
        cycles=_total(life.cycles for life in lives),
        missed_cycles=_total(life.missed_cycles for life in lives),
        cycle_ms=_worst([life.cycle_ms for life in lives]),
        jitter_ms=_worst([life.jitter_ms for life in lives]),
        refused_orders=_total(life.refused_orders for life in lives),
        links=_links([life.links for life in lives]),
        rss_mb=_largest(life.rss_mb for life in lives),
        cpu_pct=_largest(life.cpu_pct for life in lives),
        first_setpoint_s=next((life.first_setpoint_s for life in lives if life.first_setpoint_s is not None), None),
    )


def _lives(journal: Sequence[Event]) -> list[list[Event]]:
    """The journal cut at every start of the process."""
    lives: list[list[Event]] = []
    for event in journal:
        if event.name == "start" or not lives:
            lives.append([])
        lives[-1].append(event)
    return lives


def _of_life(life: Sequence[Event]) -> GatewayFigures:
    summary = next((event for event in reversed(life) if event.name == "summary"), None)
    traced = [event for event in life if event.name == "cycle"]
    ready = next((event for event in life if event.name == "ready"), None)
    first_setpoint = ready.number("first_setpoint_s") if ready else None
    if summary is None:
        return GatewayFigures(
            cycles=len(traced) or None,
            cycle_ms=_traced(traced, "cycle_ms"),
            jitter_ms=_traced(traced, "start_jitter_ms"),
            refused_orders=sum(event.name == "order" and event.text("status") == "rejected" for event in life),
            links=_links_told(life),
            first_setpoint_s=first_setpoint,
        )
    process = summary.mapping("process")
    told = number(process.get("first_setpoint_s"))
    return GatewayFigures(
        cycles=_count(summary.data.get("cycles")),
        missed_cycles=_count(summary.data.get("missed_cycles")),
        cycle_ms=spread_of(summary.data.get("cycle_ms")),
        jitter_ms=spread_of(summary.data.get("jitter_ms")),
        refused_orders=_count(summary.data.get("refused_orders")),
        links={
            name: {key: _count(mapping(counters).get(key)) for key in ("good", "lost", "reconnects")}
            for name, counters in summary.mapping("links").items()
        },
        rss_mb=number(process.get("rss_mb")),
        cpu_pct=number(process.get("cpu_pct")),
        first_setpoint_s=first_setpoint if told is None else told,
    )


def _traced(cycles: Iterable[Event], key: str) -> Spread:
    return spread(abs(value) for event in cycles if (value := event.number(key)) is not None)


def _links_told(life: Iterable[Event]) -> dict[str, dict[str, int | None]]:
    """Losses and reconnections as the link lines tell them; answers are not journalled one by one."""
    links: dict[str, dict[str, int | None]] = {}
    losses: dict[str, int] = {}
    returns: dict[str, int] = {}
    is_lost: dict[str, bool] = {}
    for event in life:
        name = event.text("name")
        if event.name != "link" or not name:
            continue
        state = event.text("state")
        losses[name] = losses.get(name, 0) + (state == "lost")
        returns[name] = returns.get(name, 0) + (state == "up" and is_lost.get(name, False))
        is_lost[name] = state == "lost" or (state != "up" and is_lost.get(name, False))
        links[name] = {"good": None, "lost": losses[name], "reconnects": returns[name]}
    return links


def _links(lives: Sequence[Mapping[str, Mapping[str, int | None]]]) -> dict[str, dict[str, int | None]]:
    names = dict.fromkeys(name for life in lives for name in life)
    return {
        name: {
            key: _total(life[name].get(key) for life in lives if name in life) for key in ("good", "lost", "reconnects")
        }
        for name in names
    }


def _count(value: object) -> int | None:
    found = number(value)
    return None if found is None or found < 0 else int(found)


def _total(counts: Iterable[int | None]) -> int | None:
    """The sum, None where a part is not known."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _worst(spreads: Sequence[Spread]) -> Spread:
    return Spread(
        _largest(each.p50 for each in spreads),
        _largest(each.p99 for each in spreads),
        _largest(each.max for each in spreads),
    )
