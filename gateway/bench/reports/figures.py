"""The figures of the report, as plotly reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import zip_longest
from typing import Final

from config.vocabulary import DeviceKind, Quantity
from gateway.bench.assessment import Assessment
from gateway.bench.dso_orders import utc_at
from gateway.bench.metrics import energy_wh
from gateway.bench.reports.event_rows import EventFigures, events_figure
from gateway.bench.reports.row_figures import links_figure, orders_figure
from gateway.bench.reports.traces import Figure, Layout, TimeAxis, Trace, layout, line, step_line, value_axis
from gateway.bench.reports.wording import QUANTITY_NAMES, duration, power
from gateway.bench.timeline import Step, Steps

KIND_COLOURS: Final = {
    DeviceKind.INVERTER: "@sun",
    DeviceKind.BATTERY: "@store",
    DeviceKind.CHARGER: "@car",
    DeviceKind.RELAY: "@sky",
    DeviceKind.METER: "@grey",
    DeviceKind.LAYER: "@net",
}
SERIES_LOOKS: Final = (
    ("@store", "solid"),
    ("@car", "dash"),
    ("@net", "dot"),
    ("@sun", "dashdot"),
    ("@sky", "longdash"),
)


def figures_of(assessment: Assessment, events: Sequence[EventFigures] = (), *, wall_clock: bool = True) -> list[Figure]:
    """Every figure for which the run left something to show; of a run on virtual time, nothing of a wall clock."""
    utc_zero_s = utc_at(assessment.run, assessment.zero_s)
    axis = TimeAxis(assessment.zero_s, max(assessment.end_s, assessment.zero_s + 1.0), utc_zero_s)
    found = [
        _connection(assessment, axis),
        *_other_limits(assessment, axis),
        orders_figure(assessment, axis),
        events_figure(events, axis),
        _devices(assessment, axis),
        _charge(assessment, axis),
        _cars(assessment, axis),
        _cycles(assessment, axis) if wall_clock else None,
        links_figure(assessment, axis),
    ]
    return [figure for figure in found if figure is not None]


def _connection(assessment: Assessment, axis: TimeAxis) -> Figure | None:
    net = assessment.run.physics.column("net_w")
    if not net:
        return None
    limits = assessment.in_force.limits
    uppers, lowers = limits.get(Quantity.NET_IMPORT_W, ()), limits.get(Quantity.NET_EXPORT_W, ())
    targets = [value / 1e3 for value in assessment.target_w if value is not None]
    least, most = _value_range(
        [*(value / 1e3 for value in (min(net), max(net))), *targets],
        [*_limits_kw(uppers, 1.0), *_limits_kw(lowers, -1.0)],
        assessment.site.connection.rating_w / 1e3,
    )
    data = [
        *_forbidden(axis, uppers, 1.0, most + 1000.0),
        *_forbidden(axis, lowers, -1.0, least - 1000.0),
    ]
    if targets:
        asked_kw = [None if value is None else value / 1e3 for value in assessment.target_w]
        look = {"width": 6, "shape": "hv"}
        data.append(line(axis, assessment.times, asked_kw, "dispatch and regulation", "@target_soft", line=look))
    data.append(line(axis, assessment.times, [value / 1e3 for value in net], "net power", "@net", line={"width": 2}))
    if any(assessment.excursions.get(quantity) for quantity in (Quantity.NET_IMPORT_W, Quantity.NET_EXPORT_W)):
        data.append(_excursion_marks(assessment, axis))
    more: Layout = {"yaxis": value_axis("kW", (least, most))} | _phases(assessment, axis)
    return Figure(
        "connection",
        "Power at the connection point",
        "Import is positive, export negative. Shaded: forbidden by the limits in force. Drag to zoom all charts in "
        "time, double-click to go back.",
        data,
        layout(axis, 400, **more),
    )


def _value_range(values: Sequence[float], limits: Iterable[float], rating: float) -> tuple[float, float]:
    """Room for the values and for those limits that are near them, and for the labels along the top."""
    least, most = min(values), max(values)
    span = max(most - least, 0.05 * rating)
    near = [limit for limit in limits if least - 0.6 * span < limit < most + 0.6 * span]
    least, most = min(least, *near, least), max(most, *near, most)
    return least - 0.1 * (most - least), most + 0.18 * (most - least)


def _limits_kw(steps: Steps, sign: float) -> list[float]:
    return [sign * step.value / 1e3 for step in steps if step.value is not None]


def _forbidden(axis: TimeAxis, steps: Steps, sign: float, edge: float) -> list[Trace]:
    """A limit's line and the area beyond it, out to `edge` (kW); the hover names who set it."""
    kept = [step for step in steps if step.start_s < axis.end_s]
    if not kept:
        return []
    kept.append(Step(axis.end_s, *kept[-1][1:]))
    rim = step_line(axis, [(axis.zero_s, edge)], "rim", "rgba(0,0,0,0)", showlegend=False, hoverinfo="skip")
    values = [edge if step.value is None else round(sign * step.value / 1e3, 4) for step in kept]
    said = ["no limit" if step.value is None else f"{power(sign * step.value)}, {step.source}" for step in kept]
    area: Trace = {"type": "scatter", "mode": "lines", "line": {"color": "@limit", "width": 1.5, "shape": "hv"}}
    area |= {"x": [axis.x(axis.clipped(step.start_s)) for step in kept], "y": values, "text": list(map(escape, said))}
    area |= {"fill": "tonexty", "fillcolor": "@forbidden", "hovertemplate": "%{text}", "legendgroup": "limits"}
    return [rim, area | {"name": "limit in force", "showlegend": sign > 0}]


def _excursion_marks(assessment: Assessment, axis: TimeAxis) -> Trace:
    net = dict(zip(assessment.times, assessment.run.physics.columns["net_w"], strict=True))
    marks = [
        (excursion.start_s, excursion)
        for quantity in (Quantity.NET_IMPORT_W, Quantity.NET_EXPORT_W)
        for excursion in assessment.excursions.get(quantity, ())
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "excursion",
        "x": [axis.x(at_s) for at_s, _ in marks],
        "y": [round(net[at_s] / 1e3, 3) for at_s, _ in marks],
        "text": [f"{duration(found.duration_s)}, up to {power(found.peak_w)} beyond" for _, found in marks],
        "hovertemplate": "%{text}",
        "marker": {"symbol": "diamond", "size": 9, "color": "@limit", "line": {"color": "@panel", "width": 1.5}},
    }


def _phases(assessment: Assessment, axis: TimeAxis) -> Layout:
    """The steps of the DSO's script: a thin line at each, its name along the top as far as there is room."""
    phases = [event for event in assessment.run.dso or () if event.name == "phase" and event.text("name")]
    lines, labels = [], []
    for event, following in zip_longest(phases, phases[1:]):
        end_s = axis.end_s if following is None else following.at_s
        start_s = axis.clipped(event.at_s)
        name = event.text("name").replace("_", " ")
        text = axis.fitted(name, end_s - start_s)
        x = axis.x(start_s)
        look = {"color": "@axis", "width": 1, "dash": "dot"}
        lines.append({"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": look})
        labels.append(
            {"x": x, "y": 1, "yref": "paper", "xanchor": "left", "yanchor": "top", "text": escape(text)}
            | {"showarrow": False, "font": {"size": 11, "color": "@muted"}, "xshift": 2, "hovertext": escape(name)}
        )
    return {"shapes": lines, "annotations": labels} if phases else {}


def _other_limits(assessment: Assessment, axis: TimeAxis) -> list[Figure]:
    """Quantities that an order limited, but for the net power."""
    figures = []
    for quantity, steps in assessment.in_force.limits.items():
        values = assessment.powers.get(quantity)
        if quantity in (Quantity.NET_IMPORT_W, Quantity.NET_EXPORT_W) or values is None:
            continue
        rating_kw = assessment.site.connection.rating_w / 1e3
        least, most = _value_range([0.0, max(values, default=0.0) / 1e3], _limits_kw(steps, 1.0), rating_kw)
        name = QUANTITY_NAMES[quantity]
        data = [
            *_forbidden(axis, steps, 1.0, most + 1000.0),
            line(axis, assessment.times, [value / 1e3 for value in values], name, "@net"),
        ]
        figures.append(
            Figure(
                quantity.value,
                f"{name.capitalize()} against its limit",
                "Summed over the devices, from the physics. Shaded: forbidden by the limits in force.",
                data,
                layout(axis, 240, yaxis=value_axis("kW", (min(least, 0.0), most))),
            )
        )
    return figures


def _devices(assessment: Assessment, axis: TimeAxis) -> Figure | None:
    """One row a device with an own scale, and the uncontrolled load; setpoints where cycles were traced."""
    physics = assessment.run.physics
    rows = [("load_w", "uncontrolled load", "@grey")] if physics.column("load_w") else []
    rows += [(f"{name}_w", name, KIND_COLOURS[kind]) for name, kind in assessment.kinds.items()]
    if not rows or not physics.times:
        return None
    traced = [(event.at_s, event.mapping("setpoints")) for event in assessment.run.gateway if event.name == "cycle"]
    gap = 0.3 / len(rows)
    height = (1.0 + gap) / len(rows)
    data: list[Trace] = []
    more: Layout = {"annotations": []}
    for place, (column, name, colour) in enumerate(rows):
        key = "" if not place else str(place + 1)
        top = 1.0 - place * height
        values = [value / 1e3 for value in physics.columns[column]]
        setpoints = [(at_s, value / 1e3) for at_s, given in traced if isinstance(value := given.get(name), int | float)]
        own: Layout = {"yaxis": f"y{key}", "showlegend": False, "hovertemplate": "%{y:.2f} kW"}
        data.append(line(axis, physics.times, values, name, colour, **own))
        if setpoints:
            look = {"dash": "dot", "width": 1.3}
            data.append(step_line(axis, setpoints, f"{name} setpoint", "@text", line=look, **own))
        shown = [0.0, *(min(values), max(values)), *(value for _, value in setpoints)]
        room = max(max(shown) - min(shown), 5.0) * 0.1
        value_range = (min(shown) - room, max(shown) + room)
        domain = [max(top - height + gap, 0.0), top]
        more[f"yaxis{key}"] = value_axis("kW", value_range, domain=domain, fixedrange=True, nticks=4)
        more["annotations"].append(_row_title(name, assessment, top))
    shared = layout(axis, 60 + 96 * len(rows), **more)
    shared["xaxis"] |= {"anchor": f"y{len(rows)}" if len(rows) > 1 else "y"}
    return Figure(
        "devices",
        "Power of each device",
        "Solid: measured in the physics; dotted: setpoint. Charging and consuming are positive; each row has its own "
        "scale.",
        data,
        shared | {"margin": shared["margin"] | {"t": 24}},
    )


def _row_title(name: str, assessment: Assessment, top: float) -> Layout:
    kind = assessment.kinds.get(name)
    rating = f" · {kind} {power(assessment.site.devices[name].rating_w)}" if kind else ""
    text = f"<b>{escape(name)}</b>{rating}"
    place: Layout = {"x": 0, "xref": "paper", "xanchor": "left", "y": top, "yref": "paper", "yanchor": "bottom"}
    return place | {"text": text, "showarrow": False, "font": {"size": 11, "color": "@muted"}}


def _charge(assessment: Assessment, axis: TimeAxis) -> Figure | None:
    physics = assessment.run.physics
    named = [(name, physics.column(f"{name}_soc")) for name in assessment.kinds]
    data = [
        line(axis, physics.times, [value * 100.0 for value in column], name, colour, line={"dash": dash})
        for (name, column), (colour, dash) in zip([pair for pair in named if pair[1]], _looks(), strict=False)
        if column
    ]
    if not data:
        return None
    vertical = value_axis("%", zeroline=False, fixedrange=True) | {"rangemode": "normal"}
    return Figure(
        "charge", "State of charge", "Of each battery.", data, layout(axis, 260, yaxis=vertical), half_width=True
    )


def _cars(assessment: Assessment, axis: TimeAxis) -> Figure | None:
    physics = assessment.run.physics
    chargers = [name for name, kind in assessment.kinds.items() if kind is DeviceKind.CHARGER]
    data = [
        line(
            axis,
            physics.times,
            [energy / 1e3 for energy in energy_wh(physics.times, physics.columns[f"{name}_w"])],
            name,
            colour,
            line={"dash": dash},
        )
        for name, (colour, dash) in zip(chargers, _looks(), strict=False)
    ]
    if not data:
        return None
    vertical = value_axis("kWh", fixedrange=True)
    title, caption = "Energy given to cars", "Since the start of the run."
    return Figure("cars", title, caption, data, layout(axis, 260, yaxis=vertical), half_width=True)


def _looks() -> list[tuple[str, str]]:
    return list(SERIES_LOOKS) * 20


def _cycles(assessment: Assessment, axis: TimeAxis) -> Figure | None:
    traced = [event for event in assessment.run.gateway if event.name == "cycle"]
    data = []
    for key, name, colour in (("cycle_ms", "cycle time", "@net"), ("start_jitter_ms", "start jitter", "@sun")):
        points = [(event.at_s, value) for event in traced if (value := event.number(key)) is not None]
        if points:
            times, values = [at_s for at_s, _ in points], [value for _, value in points]
            data.append(line(axis, times, values, name, colour, line={"width": 1.2}))
    if not data:
        return None
    if (bare_ms := assessment.run.bare_loop.p99) is not None:
        look = {"dash": "dash", "width": 1.2}
        name = "p99 jitter of a bare loop"
        data.append(step_line(axis, [(axis.zero_s, bare_ms)], name, "@text", line=look, hoverinfo="skip"))
    return Figure(
        "cycles",
        "Control cycle",
        "How long each cycle took and how far from its due time it began.",
        data,
        layout(axis, 240, yaxis=value_axis("ms", fixedrange=True)),
    )
