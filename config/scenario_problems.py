"""What a scenario must mean, beyond what its schema can say: pure checks on what of it validates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from config.findings import Path, Problem, did_you_mean, shown
from config.partial import NotKnownError, broken, known
from config.scenario import CONTENTS, Event, FaultMatrix, Mode, Scenario
from config.scenario_matrix import FaultProblem, matrix_events
from config.site import Site
from config.strict import Rule
from config.vocabulary import DeviceKind

SILENCE_SEEN_S: Final = 1.0
"""How much longer than the heartbeat's time-out a silence must last for the fallback to show."""

NEEDS: Final = {
    "dispatch_settled": "dispatch",
    "overshoot": "dispatch",
    "step_response": "dispatch",
    "tracking_error": "dispatch",
    "limit_reached": "limit",
    "regulation_precision": "regulation",
    "regulation_score": "regulation",
    "fallback_reached": "parent",
    "faults_survived": "fault",
}
"""What must happen in a scenario for a check to have something to judge."""


def scenario_problems(
    scenario: Scenario, site: Site, kinds: Mapping[str, DeviceKind], fault_problem: FaultProblem
) -> Iterator[Problem]:
    """Every problem of a scenario on its site. `kinds` are those of the site's devices."""
    for rule in RULES:
        yield from broken(rule, scenario)
    yield from broken(_somebody_gives_the_orders, scenario, site)
    yield from broken(_silences_show, scenario, site)
    yield from broken(_devices_are_there, scenario, kinds)
    yield from broken(_faults_can_be_set, scenario, fault_problem)
    yield from broken(_faults_of_the_matrix, scenario, kinds, fault_problem)


def whole(scenario: Scenario) -> Iterator[tuple[int, Event]]:
    """The events that validated as far as their time and what they are, with their places."""
    for at, event in enumerate(scenario.events):
        if known(event, "at_s", "until_s") and _contents(event):
            yield at, event


def _contents(event: Event) -> list[str]:
    return [name for name in CONTENTS if known(event, name) and getattr(event, name) is not None]


def _given(check: Any, name: str) -> Any:
    """A value of a check that knows such a parameter and in which it validated; else None."""
    try:
        return getattr(check, name, None)
    except NotKnownError:
        return None


def _has(event: Event, content: str) -> bool:
    return content in _contents(event)


def _in_order(scenario: Scenario) -> Iterator[Problem]:
    for at, (before, event) in enumerate(pairwise(scenario.events), start=1):
        if known(before, "at_s") and known(event, "at_s") and event.at_s < before.at_s:
            words = f"{event.at_s:g} is before the event above it, {before.at_s:g}"
            yield Problem(("events", at, "at_s"), words, "events in the order of time", see=("events", at - 1, "at_s"))


def _within_the_duration(scenario: Scenario) -> Iterator[Problem]:
    end_s = scenario.duration_s
    for at, event in enumerate(scenario.events):
        for key in ("at_s", "until_s"):
            value = getattr(event, key) if known(event, key) else None
            if value is not None and (value > end_s or (key == "at_s" and value == end_s)):
                words = f"{value:g} is after the end of the scenario, {end_s:g}"
                yield Problem(("events", at, key), words, see=("duration_s",))
        if known(event, "until_s", "at_s") and _has(event, "parent") and event.until_s == end_s:
            words = "the silence lasts to the end: nothing would show that the layer recovers"
            yield Problem(("events", at, "until_s"), words, f"a number less than {end_s:g}")


def _names_once(scenario: Scenario) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for at, event in enumerate(scenario.events):
        name = event.name if known(event, "name") else None
        if name is not None and first.setdefault(name, at) != at:
            yield Problem(("events", at, "name"), f"{shown(name)} is there twice", see=("events", first[name], "name"))
        other = event.id_of if known(event, "id_of") else None
        if other is not None and other not in list(first)[: None if name is None else -1]:
            words = f"{shown(other)} is no earlier event{did_you_mean(other, list(first))}"
            yield Problem(("events", at, "id_of"), words, ", ".join(first))


def _nothing_in_a_silence(scenario: Scenario) -> Iterator[Problem]:
    silences = [(at, event) for at, event in whole(scenario) if _has(event, "parent") and event.until_s is not None]
    for (one, earlier), (two, later) in pairwise(silences):
        if later.at_s < (earlier.until_s or 0.0):
            yield Problem(("events", two, "at_s"), "the parent is silent already", see=("events", one, "parent"))
    for at, event in whole(scenario):
        for place, silence in silences:
            until_s = silence.until_s or 0.0
            see: Path = ("events", place, "parent")
            if any(_has(event, name) for name in ("limit", "dispatch", "authority")):
                if silence.at_s <= event.at_s < until_s:
                    yield Problem(("events", at, "at_s"), "falls into a silence of the parent", see=see)
            elif _has(event, "regulation") and event.at_s < until_s and (event.until_s or 0.0) > silence.at_s:
                yield Problem(("events", at, "until_s"), "reaches into a silence of the parent", see=see)


def _one_gateway(scenario: Scenario) -> Iterator[Problem]:
    away: tuple[int, float] | None = None
    for at, event in whole(scenario):
        if not _has(event, "gateway"):
            continue
        if away is not None and event.at_s < away[1]:
            yield Problem(("events", at, "gateway"), "the gateway is away", see=("events", away[0], "gateway"))
        away = (at, event.until_s) if event.until_s is not None else None


def _checks_have_something(scenario: Scenario) -> Iterator[Problem]:
    there = {content for _, event in whole(scenario) for content in _contents(event)}
    if scenario.matrix is not None:
        there.add("fault")
    names = [event.name for event in scenario.events if known(event, "name") and event.name is not None]
    for at, check in enumerate(scenario.checks):
        kind = _given(check, "check")
        needed = NEEDS.get(kind)
        if needed is not None and needed not in there:
            yield Problem(("checks", at, "check"), f"has nothing to judge: there is no event with `{needed}`")
        for name in _given(check, "orders") or ():
            if name not in names:
                words = f"{shown(name)} is no event of this scenario{did_you_mean(name, names)}"
                yield Problem(("checks", at, "orders"), words, ", ".join(names))


def _processes_in_realtime(scenario: Scenario) -> Iterator[Problem]:
    for at, check in enumerate(scenario.checks):
        if _given(check, "check") == "memory_growth" and scenario.mode is not Mode.REALTIME:
            yield Problem(("checks", at, "check"), "is about a process, which only mode realtime has")


def _checks_within(scenario: Scenario) -> Iterator[Problem]:
    for at, check in enumerate(scenario.checks):
        if not known(check, "from_s", "until_s"):
            continue
        from_s, until_s = check.from_s or 0.0, check.until_s or scenario.duration_s
        if until_s > scenario.duration_s:
            words = f"{until_s:g} is after the end of the scenario, {scenario.duration_s:g}"
            yield Problem(("checks", at, "until_s"), words, see=("duration_s",))
        elif from_s >= until_s:
            yield Problem(("checks", at, "from_s"), f"{from_s:g} is not before the end of the time, {until_s:g}")


RULES: Final[tuple[Rule, ...]] = (
    _in_order,
    _within_the_duration,
    _names_once,
    _nothing_in_a_silence,
    _one_gateway,
    _checks_have_something,
    _checks_within,
    _processes_in_realtime,
)


def _somebody_gives_the_orders(scenario: Scenario, site: Site) -> Iterator[Problem]:
    if not any(parent.dispatch for parent in site.parents):
        yield Problem(("site",), "has no parent with `dispatch: true`: nobody gives the scenario's orders")


def _silences_show(scenario: Scenario, site: Site) -> Iterator[Problem]:
    timeout_s = max((parent.heartbeat_timeout_s for parent in site.parents if parent.dispatch), default=0.0)
    for at, event in whole(scenario):
        if _has(event, "parent") and event.until_s is not None:
            lasts_s = event.until_s - event.at_s
            if 0.0 < lasts_s < timeout_s + SILENCE_SEEN_S:
                words = f"a silence of {lasts_s:g} s doesn't show a heartbeat time-out of {timeout_s:g} s"
                yield Problem(("events", at, "until_s"), words, f"at least {event.at_s + timeout_s + SILENCE_SEEN_S:g}")


def _devices_are_there(scenario: Scenario, kinds: Mapping[str, DeviceKind]) -> Iterator[Problem]:
    for at, event in whole(scenario):
        if _has(event, "plug_in") and event.plug_in is not None and known(event.plug_in, "device"):
            yield from _device(event.plug_in.device, kinds, ("events", at, "plug_in", "device"), DeviceKind.CHARGER)
    for at, check in enumerate(scenario.checks):
        wanted = DeviceKind.BATTERY if _given(check, "check") == "state_of_charge" else None
        device = _given(check, "device")
        if device is not None:
            yield from _device(device, kinds, ("checks", at, "device"), wanted)


def _device(name: str, kinds: Mapping[str, DeviceKind], path: Path, wanted: DeviceKind | None) -> Iterator[Problem]:
    there = [each for each, kind in kinds.items() if wanted is None or kind is wanted]
    if name not in kinds:
        yield Problem(path, f"unknown device {shown(name)}{did_you_mean(name, there)}", ", ".join(there))
    elif name not in there:
        yield Problem(path, f"{shown(name)} is a {kinds[name]}, not a {wanted}", ", ".join(there))


def _faults_can_be_set(scenario: Scenario, fault_problem: FaultProblem) -> Iterator[Problem]:
    for at, event in whole(scenario):
        fault = event.fault if _has(event, "fault") else None
        if fault is not None and known(fault, "fault", "device", "parameters"):
            why = fault_problem(fault.device, fault.fault, fault.parameters)
            if why:
                yield Problem(("events", at, "fault"), why)


def _struck_along(matrix: FaultMatrix, fault_problem: FaultProblem) -> Iterator[Problem]:
    for fault, other in matrix.along.items():
        if fault not in matrix.faults:
            words = f"{shown(fault)} is no fault of the matrix{did_you_mean(fault, list(matrix.faults))}"
            yield Problem(("matrix", "along", fault), words, ", ".join(matrix.faults))
            continue
        able = (each for each in matrix.devices if not fault_problem(each, fault, matrix.parameters.get(fault, {})))
        reasons = (fault_problem(each, other, matrix.parameters.get(other, {})) for each in able)
        why = next(filter(None, reasons), "")
        if why:
            yield Problem(("matrix", "along", fault), why)


def _faults_of_the_matrix(
    scenario: Scenario, kinds: Mapping[str, DeviceKind], fault_problem: FaultProblem
) -> Iterator[Problem]:
    matrix: FaultMatrix | None = scenario.matrix
    if matrix is None or not known(matrix, "faults", "devices", "parameters"):
        return
    for at, fault in enumerate(matrix.faults):
        reasons = [fault_problem(device, fault, matrix.parameters.get(fault, {})) for device in matrix.devices]
        if all(reasons):
            yield Problem(("matrix", "faults", at), f"can be set at none of the devices: {reasons[0]}")
    if not known(matrix, "from_s", "lasts_s", "apart_s", "cover", "along"):
        return
    wrong = list(_struck_along(matrix, fault_problem))
    yield from wrong
    if wrong:
        return
    events = matrix_events(matrix, kinds, fault_problem)
    needed_s = (events[-1].until_s or 0.0) + matrix.apart_s if events else 0.0
    if needed_s > scenario.duration_s:
        words = f"{len(events)} faults take {needed_s:g} s, more than the scenario's {scenario.duration_s:g}"
        yield Problem(("matrix",), words, see=("duration_s",))
