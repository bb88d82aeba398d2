"""The visions' report: `visions.json` and `visions.html`, everything inlined, every number from the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from gateway.bench.reports.page import document, section, table
from gateway.bench.reports.report import write_text
from gateway.study.visions import MINIMAL_DSO, TOTAL_DSO, TOTAL_TSO, Comparison, Study
from gateway.study.visions_figures import NAMES, figures_of

JSON_FILE: Final = "visions.json"
HTML_FILE: Final = "visions.html"
HEADS: Final = (
    "Vision", "#Cost", "#Beyond Total TSO", "#Savings attained", "#Limits broken", "#Beyond limits", "#Orders undone",
    "#Points disclosed", "#Messages", "#Solved in",
)  # fmt: skip


def write_visions(directory: Path, study: Study) -> None:
    """Write both files; raises OSError."""
    write_text(directory / JSON_FILE, json.dumps(study.as_json(), indent=1) + "\n")
    write_text(directory / HTML_FILE, visions_page(study))


def visions_page(study: Study) -> str:
    """The whole page as text."""
    figures = figures_of(study)
    first, rest = figures[:4], figures[4:]
    fleet = study.main.fleet
    title = "Three ways to run a grid: Total TSO, Minimal DSO, Total DSO"
    facts = f"{fleet.size} devices · {fleet.day} · seed {fleet.seed} · the whole study took {study.wall_s:.0f} s"
    parts = [
        f"<header><h1>{escape(title)}</h1><p>{escape(facts)}</p></header>",
        _verdict(study.main),
        '<div class="grid">',
        table("One fleet, one day", _SAYS, HEADS, _rows(study.main)),
        *(section(each) for each in first),
        table("By size", "", ("#Devices", *HEADS), [
            (str(one.fleet.size), *row) for one in study.scaling for row in _rows(one)
        ]),
        *(section(each) for each in rest),
        "</div>",
        _method(study),
    ]  # fmt: skip
    return document(title, parts, figures)


_SAYS: Final = (
    "Violations are of what was ordered first, before anybody curtailed. The savings are those against a fleet that "
    "nobody controls, and Total TSO, which knows everything, attains all of them."
)


def _verdict(one: Comparison) -> str:
    layers, blind = one.visions[TOTAL_DSO].figures, one.visions[MINIMAL_DSO].figures
    tone = "good" if layers.violations == 0 else "bad"
    words = (
        f"The layers come within {_beyond(one, TOTAL_DSO):.2f} % of the central optimum and break "
        f"{layers.violations or 'no'} limit{'' if layers.violations == 1 else 's'}."
    )
    more = (
        f"Dispatch that does not know the network orders {blind.violations} violations, has {blind.orders_undone} "
        f"orders undone, and ends {_beyond(one, MINIMAL_DSO):.1f} % above the optimum."
    )
    return f'<div class="verdict {tone}"><strong>{escape(words)}</strong><span>{escape(more)}</span></div>'


def _beyond(one: Comparison, name: str) -> float:
    return 100.0 * (one.visions[name].figures.cost / one.visions[TOTAL_TSO].figures.cost - 1.0)


def _rows(one: Comparison) -> list[Sequence[Any]]:
    best, alone = one.visions[TOTAL_TSO].figures.cost, one.uncontrolled.total
    found: list[Sequence[Any]] = []
    for name, vision in one.visions.items():
        figures = vision.figures
        found.append(
            (
                (NAMES[name], "name"),
                f"{figures.cost:.2f}",
                f"{_beyond(one, name):.3f} %",
                f"{100.0 * (alone - figures.cost) / (alone - best):.1f} %" if alone > best else "",
                (str(figures.violations), "bad" if figures.violations else "good"),
                f"{figures.violation_wh / 1e3:.1f} kWh",
                str(figures.orders_undone),
                str(figures.points_disclosed),
                str(figures.messages),
                f"{figures.solve_s:.2f} s",
            )
        )
    return found


def _method(study: Study) -> str:
    rounds = study.main.visions[TOTAL_DSO].rounds
    words = (
        "Costs and violations are computed from the schedules beside this page, by one account for all. Cost is energy "
        "at the substation at import and export prices, wear, and what cars, heat and storages lack at the prices in "
        "fleet.json. Total TSO is a linear program over all devices and the network. Minimal DSO solves the same "
        "without the distribution's limits anew in each interval, and curtails what they can't carry, all devices "
        "alike. Total DSO runs the gateway's clearing at every tier; before the day the path of prices was made in "
        f"{rounds} rounds. A point is a named value of a device, a connection or an offer, counted once; a curve is "
        "one. The layers were solved one after another in one process."
    )
    return f"<details><summary>How these figures are made</summary><p>{escape(words)}</p></details>"
