"""Why a setpoint is what it is: the interval after each control function, and what bound the device."""

from __future__ import annotations

from math import isfinite
from typing import Any

from gateway.control.decision import Decision
from gateway.control.envelope import Bound, Step, Target
from gateway.control.orders_in_force import OrdersInForce
from gateway.control.resources import Resource
from gateway.cycle import CycleReport


def explain(report: CycleReport, device: str | None = None) -> dict[str, Any]:
    """The decision of a cycle; as `explain_decision`."""
    return explain_decision(report.decision, report.orders, device)


def explain_decision(decision: Decision, orders: OrdersInForce, device: str | None = None) -> dict[str, Any]:
    """One decision as a plain JSON object, of the whole site or with one device's part alone.

    Powers in watts, load convention; None where there is no bound. Raises ValueError for a device that the site does
    not control.
    """
    resources = [each for each in decision.resources if device is None or each.model.name == device]
    if device is not None and not resources:
        names = ", ".join(each.model.name for each in decision.resources)
        raise ValueError(f"{device}: no such device to control; there are {names}")
    return {
        "monotonic_s": decision.now_s,
        "fallback": orders.fallback_reason,
        "functions": functions(decision),
        "connection": {
            "net_w": decision.net_w,
            "rest_lower_w": decision.rest_lower_w,
            "rest_upper_w": decision.rest_upper_w,
            "lambda_per_kwh": decision.lambda_per_kwh,
            "side": decision.side,
            "binding": decision.binding,
            "unmet": list(decision.unmet),
            "notices": list(decision.notices),
        },
        "devices": [_device(decision, resource, orders) for resource in resources],
    }


def functions(decision: Decision) -> list[dict[str, Any]]:
    """The walk: what each control function left, and whether it changed anything."""
    told: list[dict[str, Any]] = []
    before: Step | None = None
    for step in decision.envelope.steps:
        changed = before is not None and step[1:] != before[1:]
        told.append(
            {
                "function": step.function,
                **_bound("lower", step.lower),
                **_bound("upper", step.upper),
                **_target(step.target),
                "changed": changed or before is None,
            }
        )
        before = step
    return told


def _bound(name: str, bound: Bound) -> dict[str, Any]:
    return {f"{name}_w": bound.value_w if isfinite(bound.value_w) else None, f"{name}_source": bound.source}


def _target(target: Target | None) -> dict[str, Any]:
    if target is None:
        return {"target_w": None, "target_source": None}
    return {"target_w": target.value_w, "target_source": target.source}


def _bounds(resource: Resource, orders: OrdersInForce) -> tuple[Bound, Bound]:
    """A device's bounds, narrowed by what an operator has ordered of it, as far as the device itself allows that."""
    lower, upper = resource.lower, resource.upper
    for override in orders.overrides:
        if override.device != resource.model.name:
            continue
        source, least_w, most_w = f"{override.source} {override.order_id}", lower.value_w, upper.value_w
        if override.lower_w > least_w:
            lower = Bound(min(override.lower_w, most_w), source)
        if override.upper_w < most_w:
            upper = Bound(max(override.upper_w, least_w), source)
    return lower, upper


def _device(decision: Decision, resource: Resource, orders: OrdersInForce) -> dict[str, Any]:
    lower, upper = _bounds(resource, orders)
    setpoint = next((each for each in decision.setpoints if each.device == resource.model.name), None)
    price = decision.lambda_per_kwh
    return {
        "name": resource.model.name,
        "kind": resource.model.kind.value,
        "power_w": resource.power_w,
        "usable": resource.usable,
        **_bound("lower", lower),
        **_bound("upper", upper),
        "wanted_w": None if price is None else list(resource.curve.limits_at(price)),
        "setpoint_w": None if setpoint is None else setpoint.power_w,
        "cause": resource.lower.source if setpoint is None else setpoint.cause,
    }
