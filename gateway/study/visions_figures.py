"""The charts of the visions' report, from the run's own schedules and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.bench.reports.traces import Figure, Layout, Trace
from gateway.study.accounts import net_w
from gateway.study.offers import LEAST_PER_KWH
from gateway.study.visions import MINIMAL_DSO, TOTAL_DSO, TOTAL_TSO, Comparison, Study

NAMES: Final = {TOTAL_TSO: "Total TSO", MINIMAL_DSO: "Minimal DSO", TOTAL_DSO: "Total DSO"}
COLOURS: Final = {TOTAL_TSO: "@net", MINIMAL_DSO: "@limit", TOTAL_DSO: "@store"}
CAUSES: Final = (
    ("energy", "energy", "@net"),
    ("wear", "wear", "@grey"),
    ("cars", "energy that cars lack", "@car"),
    ("cold", "heat that is lacking", "@sky"),
    ("end", "storage emptier than at first", "@sun"),
)
HEIGHT_PX: Final = 330


def figures_of(study: Study) -> list[Figure]:
    """Every chart, in the order of the page."""
    return [
        _substation(study.main),
        _broken_by_orders(study.main),
        _prices(study.main),
        _costs(study.main),
        *_scaling(study.scaling),
    ]


def _layout(x_title: str, y_title: str, **more: Any) -> Layout:
    axis: Layout = {
        "gridcolor": "@grid",
        "linecolor": "@axis",
        "zerolinecolor": "@axis",
        "automargin": True,
        "fixedrange": True,
    }
    return {
        "height": HEIGHT_PX,
        "margin": {"l": 64, "r": 16, "t": 34, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "@text", "size": 12, "family": "@font"},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "@panel", "bordercolor": "@axis", "font": {"color": "@text"}, "namelength": -1},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "font": {"size": 12}},
        "dragmode": False,
        "xaxis": {"title": {"text": x_title}, **axis, **more.pop("xaxis", {})},
        "yaxis": {"title": {"text": y_title, "standoff": 8}, **axis, **more.pop("yaxis", {})},
        **more,
    }


def _hours(one: Comparison) -> list[float]:
    """The beginning of each interval, and the end of the last, hours of the day."""
    return [round(step * one.fleet.hours, 4) for step in range(one.fleet.steps + 1)]


def _steps(one: Comparison, values: Sequence[float], name: str, colour: str, **line: Any) -> Trace:
    """A value for each interval, held until the next."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": _hours(one),
        "y": [round(value, 4) for value in (*values, values[-1])],
        "line": {"color": colour, "width": 1.8, "shape": "hv", **line},
    }


def _substation(one: Comparison) -> Figure:
    fleet = one.fleet
    top = fleet.substation
    data = [
        _steps(one, [power / 1e3 for power in net_w(fleet.buildings, vision.powers_w)], NAMES[name], COLOURS[name])
        for name, vision in one.visions.items()
    ]
    asked = [power / 1e3 for power in net_w(fleet.buildings, one.visions[MINIMAL_DSO].asked_w)]
    data.append(_steps(one, asked, "Minimal DSO, as ordered", COLOURS[MINIMAL_DSO], dash="dot"))
    limits = [(top.import_limit_w, "import limit"), (-top.export_limit_w, "export limit")]
    data += [_steps(one, [limit / 1e3] * fleet.steps, name, "@muted", dash="dash", width=1.2) for limit, name in limits]
    words = f"{fleet.size} devices in {len(fleet.buildings)} buildings on {fleet.day}; import is positive."
    return Figure("substation", "Net power at the substation", words, data, _layout("hour of the day", "kW"))


def _broken_by_orders(one: Comparison) -> Figure:
    """By tier, as all limits above are broken by the same power again."""
    fleet, broken = one.fleet, one.visions[MINIMAL_DSO].broken
    tiers = {area.name: area.tier.value for area in fleet.substation.walk()}
    tiers |= {building.name: "building" for building in fleet.buildings}
    data = []
    for tier, colour in (("building", "@store"), ("microgrid", "@sky"), ("feeder", "@sun"), ("substation", "@limit")):
        energies = [0.0] * fleet.steps
        for each in broken:
            energies[each.step] += each.beyond_wh / 1e3 if tiers[each.at] == tier else 0.0
        data.append(
            {"type": "bar", "name": tier, "x": _hours(one)[:-1], "y": [round(each, 4) for each in energies],
             "marker": {"color": colour}, "offset": 0}
        )  # fmt: skip
    words = "Minimal DSO: energy beyond the limits if the orders had been followed, which the DSO had to curtail."
    shape = _layout("hour of the day", "kWh", barmode="stack")
    return Figure("broken", "What blind orders would have broken", words, data, shape)


def _prices(one: Comparison) -> Figure:
    fleet, local = one.fleet, one.visions[TOTAL_DSO].prices_per_kwh
    by_step = list(zip(*(local[building.name] for building in fleet.buildings), strict=True))
    data = [
        _steps(one, fleet.import_per_kwh, "import at the substation", "@net", dash="dash"),
        _steps(one, fleet.export_per_kwh, "export at the substation", "@grey", dash="dash"),
        _steps(one, [min(each) for each in by_step], "least local price", "@store"),
        _steps(one, [max(each) for each in by_step], "highest local price", "@limit"),
    ]
    words = (
        "Total DSO: what the layers cleared at. Where a limit binds, the local price leaves the market's; where "
        "nothing can move any more it says little, and may lie beyond the chart."
    )
    shape = _layout("hour of the day", "per kWh", yaxis={"range": [LEAST_PER_KWH, 2.0 * max(fleet.import_per_kwh)]})
    return Figure("prices", "Local prices of the buildings", words, data, shape)


def _costs(one: Comparison) -> Figure:
    columns = [(NAMES[name], vision.cost) for name, vision in one.visions.items()]
    columns.append(("No control", one.uncontrolled))
    data: list[Trace] = [
        {"type": "bar", "name": words, "x": [name for name, _ in columns], "marker": {"color": colour},
         "y": [round(getattr(cost, cause), 4) for _, cost in columns]}
        for cause, words, colour in CAUSES
    ]  # fmt: skip
    words = f"Without control {one.uncontrolled_broken} limits would have been broken."
    return Figure("costs", "The day's cost by cause", words, data, _layout("", "cost of the day", barmode="stack"))


def _scaling(comparisons: Sequence[Comparison]) -> list[Figure]:
    sizes = [one.fleet.size for one in comparisons]
    charts = (
        ("cost_pct", "Cost beyond Total TSO's", "%", "linear"),
        ("solve_s", "Processor time to solve, all parties together", "s", "log"),
        ("messages", "Messages of the day", "messages", "log"),
        ("points_disclosed", "Points known outside what they belong to", "points", "log"),
    )
    found = []
    for key, title, unit, scale in charts:
        data: list[Trace] = [
            {"type": "scatter", "mode": "lines+markers", "name": NAMES[name], "x": sizes,
             "y": [_measured(one, name, key) for one in comparisons], "line": {"color": COLOURS[name], "width": 1.8}}
            for name in NAMES
        ]  # fmt: skip
        shape = _layout("devices", unit, xaxis={"type": "log", "tickvals": sizes}, yaxis={"type": scale})
        found.append(Figure(f"scaling_{key}", title, "", data, shape, half_width=True))
    return found


def _measured(one: Comparison, name: str, key: str) -> float:
    figures = one.visions[name].figures
    if key == "cost_pct":
        return round(100.0 * (figures.cost / one.visions[TOTAL_TSO].figures.cost - 1.0), 4)
    return float(getattr(figures, key))
