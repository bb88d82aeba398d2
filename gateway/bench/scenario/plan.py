"""A scenario as its runners play it: the operator's script, and what else happens when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from config.scenario import Event, GridEvent
from gateway.bench.scenario.loading import LoadedScenario
from sim_devices.dso.script import Script

AUTHORITY: Final = "takes_authority"
SHORTEST_SCRIPT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that a runner does at a time of the scenario, besides the operator's script.

    `twins` is a line for the twins' control port, `fault` one for the faults' control port; `gateway` is done to the
    gateway itself.
    """

    at_s: float
    what: str
    twins: Mapping[str, Any] | None = None
    fault: Mapping[str, Any] | None = None
    gateway: Literal["restart", "kill", "start"] | None = None


@dataclass(frozen=True)
class Plan:
    """What happens in a scenario, in the order of time."""

    loaded: LoadedScenario

    @property
    def has_faults(self) -> bool:
        return any(event.fault is not None for event in self.loaded.events)

    @property
    def takes_gateway_away(self) -> bool:
        return any(event.gateway is not None for event in self.loaded.events)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each event is called: its own name, else what it is, numbered."""
        return tuple(event.name or f"{event.content}_{at}" for at, event in enumerate(self.loaded.events, start=1))

    @property
    def fault_names(self) -> tuple[str, ...]:
        """The events that are faults at the wire, in the order of time."""
        return tuple(
            name for name, event in zip(self.names, self.loaded.events, strict=True) if event.fault is not None
        )

    @cached_property
    def happenings(self) -> tuple[Happening, ...]:
        """What the runner does itself."""
        found = [
            happening
            for name, event in zip(self.names, self.loaded.events, strict=True)
            for happening in self._happenings(name, event)
        ]
        return tuple(sorted(found, key=lambda happening: happening.at_s))

    @cached_property
    def script(self) -> Script:
        """What the operator says, as shares of the scenario's duration."""
        return Script.model_validate(self.script_data)

    @property
    def script_data(self) -> dict[str, Any]:
        """The script as plain values."""
        named = list(zip(self.names, self.loaded.events, strict=True))
        takes = [] if any(event.authority is not None for _, event in named) else [_authority()]
        return {
            "title": self.loaded.scenario.title,
            "shortest_s": SHORTEST_SCRIPT_S,
            "phases": list(self._phases()),
            "orders": [*takes, *(self._order(name, event) for name, event in named if event.is_order)],
            "regulation": [self._regulation(name, event) for name, event in named if event.regulation is not None],
        }

    def _share(self, at_s: float) -> float:
        return at_s / self.loaded.scenario.duration_s

    def _phases(self) -> Iterator[dict[str, Any]]:
        """One where anything happens, so that reports show it: a silence, an order, a fault."""
        marks: dict[float, dict[str, Any]] = {0.0: {"name": "start", "start": 0.0}}
        silences = [event for event in self.loaded.events if event.parent is not None]
        for name, event in zip(self.names, self.loaded.events, strict=True):
            if event.parent is not None:
                marks[event.at_s] = {"name": name, "start": self._share(event.at_s), "silence": True}
                until_s = event.until_s or 0.0
                marks[until_s] = {"name": f"after_{name}"[:32], "start": self._share(until_s)}
            elif not any(one.at_s <= event.at_s <= (one.until_s or 0.0) for one in silences):
                marks.setdefault(event.at_s, {"name": _marked(name, event), "start": self._share(event.at_s)})
        taken: set[str] = set()
        for at_s in sorted(marks):
            mark = marks[at_s]
            again = mark["name"] in taken
            taken.add(mark["name"])
            yield {**mark, "name": f"{mark['name'][:24]}_{round(at_s)}"} if again else mark

    def _order(self, name: str, event: Event) -> dict[str, Any]:
        order: dict[str, Any] = {"name": name, "at": self._share(event.at_s), "expect": event.expect}
        if event.age_s:
            order["age_s"] = event.age_s
        if event.id_of is not None:
            order["id_of"] = event.id_of
        if event.duration_s is not None:
            order["duration_s"] = event.duration_s
        elif event.until_s is not None:
            order["until"] = self._share(event.until_s)
        content = getattr(event, event.content)
        return order | {event.content: content.model_dump(mode="json", exclude_none=True)}

    def _regulation(self, name: str, event: Event) -> dict[str, Any]:
        assert event.regulation is not None
        span = {"at": self._share(event.at_s), "until": self._share(event.until_s or 0.0)}
        return {"name": name, **span, **event.regulation.model_dump(mode="json")}

    def _happenings(self, name: str, event: Event) -> Iterator[Happening]:
        if event.fault is not None:
            yield from _fault(name, event)
        elif event.gateway is not None:
            yield from _gateway(name, event)
        else:
            begin, end = self._told_to_twins(event)
            if begin is not None:
                yield Happening(event.at_s, name, twins=begin)
            if end is not None and event.until_s is not None:
                yield Happening(event.until_s, f"end of {name}", twins=end)

    def _told_to_twins(self, event: Event) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The lines for the twins' control port at the begin and the end of an event; None for what isn't theirs."""
        if event.load_step_w is not None:
            return {"load_step_w": event.load_step_w}, {"load_step_w": -event.load_step_w}
        if event.irradiance_pu is not None:
            return {"irradiance_pu": event.irradiance_pu}, {"irradiance_pu": 1.0}
        if event.plug_in is not None:
            return {"plug_in": event.plug_in.model_dump(mode="json")}, {"unplug": event.plug_in.device}
        if event.grid is not None:
            return self._told_of_grid(event.grid)
        return None, None

    def _told_of_grid(self, grid: GridEvent) -> tuple[dict[str, Any], dict[str, Any]]:
        """At the end the source is as the site file has it, and the breaker is closed."""
        usual = self.loaded.site.simulation.grid
        changed = grid.model_dump(mode="json", exclude_none=True, exclude={"breaker", "ramp_s"})
        begin: dict[str, Any] = {"grid": changed} if changed else {}
        end: dict[str, Any] = {"grid": {key: getattr(usual, key) for key in changed}} if changed else {}
        if changed and grid.ramp_s:
            begin["grid"]["ramp_s"] = end["grid"]["ramp_s"] = grid.ramp_s
        if grid.breaker is not None:
            begin["breaker"], end["breaker"] = grid.breaker, "closed"
        return begin, end


def _authority() -> dict[str, Any]:
    return {"name": AUTHORITY, "at": 0.0, "authority": {}}


def _marked(name: str, event: Event) -> str:
    """What a phase is called: a fault by its own name and where it strikes."""
    if event.fault is None or event.name is not None:
        return name
    return re.sub(r"[^a-z0-9_]", "_", f"{event.fault.fault}_{event.fault.device}")[:32]


def _fault(name: str, event: Event) -> Iterator[Happening]:
    assert event.fault is not None
    fault, device = event.fault.fault, event.fault.device
    yield Happening(
        event.at_s, name, fault={"device": device, "fault": fault, "parameters": dict(event.fault.parameters)}
    )
    if event.until_s is not None:
        yield Happening(event.until_s, f"end of {name}", fault={"device": device, "clear": fault})


def _gateway(name: str, event: Event) -> Iterator[Happening]:
    yield Happening(event.at_s, name, gateway=event.gateway)
    if event.gateway == "kill" and event.until_s is not None:
        yield Happening(event.until_s, f"end of {name}", gateway="start")
