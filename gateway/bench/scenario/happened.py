"""The events of a scenario as its report shows them: what, where, by whom, when, and whether faults acted."""

from __future__ import annotations

from typing import Final

from config.scenario import Event, GridEvent
from gateway.bench.reports.event_rows import EventFigures
from gateway.bench.reports.wording import power
from gateway.bench.scenario.trial import Trial

BENCH: Final = "the bench"
AT_ONCE: Final = ("restart",)


def events_of(trial: Trial) -> tuple[EventFigures, ...]:
    """Everything but the operator's orders, which have a table of their own, in the order of time."""
    begin_s = trial.zero_s - trial.assessment.zero_s
    acted = {one.event: one.acted for one in trial.faults}
    acted |= {name: int(has) for name, has in trial.silences}
    found = []
    for name, event in zip(trial.plan.names, trial.plan.loaded.events, strict=True):
        if event.is_order or event.regulation is not None:
            continue
        until_s = event.at_s + 1.0 if event.gateway in AT_ONCE else event.until_s
        what, at = _what(event, trial)
        figures = EventFigures(
            name=name,
            what=what,
            at=at,
            by=_operator(trial) if event.parent is not None else BENCH,
            at_s=round(begin_s + event.at_s, 3),
            until_s=None if until_s is None else round(begin_s + until_s, 3),
            is_fault=event.fault is not None or event.parent is not None,
            acted=acted.get(name),
        )
        found.append(figures)
    return tuple(found)


def _operator(trial: Trial) -> str:
    return next((parent.name for parent in trial.assessment.site.parents if parent.dispatch), "operator")


def _what(event: Event, trial: Trial) -> tuple[str, str]:
    """What it is, and where."""
    if event.fault is not None:
        settings = ", ".join(f"{name} {value}" for name, value in event.fault.parameters.items())
        return f"{event.fault.fault} {settings}".strip(), event.fault.device
    if event.load_step_w is not None:
        return f"{'+' * (event.load_step_w > 0)}{power(event.load_step_w)}", "load"
    if event.irradiance_pu is not None:
        return f"irradiance {event.irradiance_pu:.0%}", "all PV"
    if event.plug_in is not None:
        return f"car, {event.plug_in.needed_wh / 1e3:g} kWh", event.plug_in.device
    if event.grid is not None:
        return _of_grid(event.grid), "grid"
    if event.parent is not None:
        return "heartbeat_lost (silent)", _operator(trial)
    return str(event.gateway), "gateway"


def _of_grid(grid: GridEvent) -> str:
    volts = grid.voltage_v if isinstance(grid.voltage_v, tuple) else (grid.voltage_v,)
    parts = [
        "" if grid.voltage_v is None else "/".join(f"{value:g}" for value in volts) + " V",
        "" if grid.frequency_hz is None else f"{grid.frequency_hz:g} Hz",
        "" if grid.breaker is None else f"breaker {grid.breaker}",
    ]
    return ", ".join(part for part in parts if part)
