"""The report of a run of tiers: each connection point against its bounds, from the physics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Final

from config.messages import Down
from config.site import Site
from gateway.bench.assessment import Assessment, assess
from gateway.bench.gateway_figures import gateway_figures
from gateway.bench.metrics import BAND_PU
from gateway.bench.reports.figures import figures_of
from gateway.bench.reports.page import LONGEST_EXCURSION_S, document, section, table
from gateway.bench.reports.report import HTML_FILE, JSON_FILE, make_report, write_text
from gateway.bench.reports.report_schema import Report
from gateway.bench.reports.traces import Figure
from gateway.bench.run_files import read_run

CONNECTION: Final = "connection"


@dataclass(frozen=True, slots=True)
class JudgedTier:
    """One tier: how far below the top it is, and what its physics say of its connection point."""

    depth: int
    assessment: Assessment
    report: Report

    @property
    def name(self) -> str:
        return self.assessment.site.site

    @property
    def broken(self) -> str:
        """What was not kept, in words; empty: everything was."""
        excursions = self.report.excursions
        if excursions.longest_s is None:
            return f"{self.name}: nothing was recorded"
        if excursions.longest_s >= LONGEST_EXCURSION_S:
            return f"{self.name}: outside a limit for {excursions.longest_s:g} s"
        return ""


def write_tiers_report(out: Path, tiers: Sequence[tuple[int, Site]]) -> list[str]:
    """Judge each tier's run in its folder below `out`, write `report.json` and `report.html`; what was not kept.

    Raises OSError where the directory cannot be written.
    """
    judged = []
    for depth, site in tiers:
        assessment = assess(read_run(out / site.site), site)
        judged.append(JudgedTier(depth, assessment, make_report(assessment)))
    write_text(out / JSON_FILE, json.dumps({"tiers": [figures(tier) for tier in judged]}, indent=2) + "\n")
    write_text(out / HTML_FILE, _page(judged))
    return [tier.broken for tier in judged if tier.broken]


def figures(tier: JudgedTier) -> dict[str, Any]:
    """One tier's figures; None where the run left nothing to tell."""
    assessment, report = tier.assessment, tier.report
    net_w = assessment.run.physics.column("net_w")
    run = gateway_figures(assessment.run.gateway)
    return {
        "site": tier.name,
        "tier": tier.depth,
        "rating_w": assessment.site.connection.rating_w,
        "kept": not tier.broken,
        "excursions": report.excursions.model_dump(),
        "net_min_w": None if not net_w else round(min(net_w), 1),
        "net_max_w": None if not net_w else round(max(net_w), 1),
        "mean_target_error_pct": _mean_target_error_pct(assessment),
        "dispatches": sum(order.kind is Down.DISPATCH and not order.refused for order in assessment.orders),
        "refused_orders": run.refused_orders,
        "cycles": run.cycles,
        "missed_cycles": run.missed_cycles,
    }


def _mean_target_error_pct(assessment: Assessment) -> float | None:
    """Mean distance of net power from what was asked, within the limits, in percent of the connection's rating."""
    net_w = assessment.run.physics.column("net_w") or ()
    errors = [
        abs(value - target)
        for now, value, target in zip(assessment.times, net_w, assessment.target_w, strict=False)
        if target is not None and assessment.judged_from_s <= now <= assessment.judged_until_s
    ]
    return round(100.0 * sum(errors) / len(errors) / assessment.site.connection.rating_w, 3) if errors else None


def _page(judged: Sequence[JudgedTier]) -> str:
    title = "Three tiers: each connection point against its bounds"
    shown = [figure for tier in judged if (figure := _connection(tier)) is not None]
    broken = [tier.broken for tier in judged if tier.broken]
    words = "; ".join(broken) if broken else "Every tier kept its bounds."
    parts = [
        f"<header><h1>{escape(title)}</h1></header>",
        f'<div class="verdict {"bad" if broken else "good"}"><strong>{escape(words)}</strong></div>',
        '<div class="grid">',
        _tier_table(judged),
        *(section(figure) for figure in shown),
        "</div>",
    ]
    return document(title, parts, shown)


def _tier_table(judged: Sequence[JudgedTier]) -> str:
    caption = (
        f"From the physics at each connection point. Outside means beyond a limit in force by more than "
        f"{100 * BAND_PU:g} % of the connection's rating, after its grace."
    )
    heads = ("Site", "#Tier", "#Least kW", "#Most kW", "#Times outside", "#Longest s", "#Mean error %", "#Dispatches")
    rows = []
    for tier in judged:
        found = figures(tier)
        outside = found["excursions"]
        rows.append(
            (
                tier.name,
                str(tier.depth),
                _kw(found["net_min_w"]),
                _kw(found["net_max_w"]),
                _said(outside["count"]),
                (_said(outside["longest_s"]), "bad" if tier.broken else ""),
                _said(found["mean_target_error_pct"]),
                _said(found["dispatches"]),
            )
        )
    return table("Tiers", caption, heads, rows)


def _connection(tier: JudgedTier) -> Figure | None:
    """The tier's figure of its connection point, under a key of its own."""
    for figure in figures_of(tier.assessment):
        if figure.key == CONNECTION:
            title = tier.assessment.site.title or tier.name
            return replace(figure, key=f"{CONNECTION}-{tier.name}", title=f"{tier.name}: {title}")
    return None


def _kw(value_w: float | None) -> str:
    return _said(None if value_w is None else f"{value_w / 1e3:+.1f}")


def _said(value: object) -> str:
    return "not measured" if value is None else str(value)
