"""Faults against devices, one after another: the events that a scenario's matrix stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from config.scenario import Event, FaultEvent, FaultMatrix
from config.vocabulary import DeviceKind

FaultProblem: TypeAlias = Callable[[str, str, Mapping[str, Any]], str]
"""Why a fault can't be set at a device with these parameters; empty where it can."""


def matrix_events(
    matrix: FaultMatrix, kinds: Mapping[str, DeviceKind], fault_problem: FaultProblem
) -> tuple[Event, ...]:
    """Each fault at each device that it can be set at; by `pairwise`, at one device of each kind.

    Which device of a kind it is changes from fault to fault, so that all of them get some. What is no device, a parent
    or the broker, is a kind of its own.
    """
    events: list[Event] = []
    at_s = matrix.from_s
    for turn, fault in enumerate(matrix.faults):
        parameters = matrix.parameters.get(fault, {})
        able = [device for device in matrix.devices if not fault_problem(device, fault, parameters)]
        for device in able if matrix.cover == "full" else _one_of_each_kind(able, kinds, turn):
            content = FaultEvent(fault=fault, device=device, parameters=parameters)
            events.append(Event(at_s=at_s, until_s=at_s + matrix.lasts_s, fault=content))
            if (other := matrix.along.get(fault)) is not None:
                with_it = FaultEvent(fault=other, device=device, parameters=matrix.parameters.get(other, {}))
                events.append(Event(at_s=at_s, until_s=at_s + matrix.lasts_s, fault=with_it))
            at_s += matrix.lasts_s + matrix.apart_s
    return tuple(events)


def _one_of_each_kind(devices: list[str], kinds: Mapping[str, DeviceKind], turn: int) -> Iterator[str]:
    by_kind: dict[str, list[str]] = {}
    for device in devices:
        by_kind.setdefault(kinds.get(device) or device, []).append(device)
    for those in by_kind.values():
        yield those[turn % len(those)]
