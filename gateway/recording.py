"""Decisions on record: the images and orders of every cycle, so that each setpoint can be decided again, bit for bit.

JSON lines. The first names the site's model; each other one has what changed in the image and in the orders since the
one before, and the setpoints. Numbers are written so that they read back as the same numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from config.vocabulary import Absent, Quality, Quantity, Sample
from gateway.control.clearing import Curve
from gateway.control.decision import Decision, decide, initial_state
from gateway.control.interchange import InterchangeCost
from gateway.control.model import SiteModel
from gateway.control.orders_in_force import (
    DispatchInForce,
    LimitInForce,
    MarginsInForce,
    OrdersInForce,
    OverrideInForce,
    PlanInForce,
    RegulationInForce,
)
from gateway.image import DeviceImage, Image

VERSION: Final = 1


class RecordingError(Exception):
    """A recording that can't be replayed; the text says where and why."""


class Replayed(NamedTuple):
    """One cycle decided again. `differs` says how the setpoints differ from the recorded ones; empty: not at all."""

    decision: Decision
    orders: OrdersInForce
    differs: str


def model_mark(model: SiteModel) -> str:
    """Tells one site model from another."""
    return hashlib.sha256(repr(model).encode()).hexdigest()[:16]


def header(model: SiteModel) -> dict[str, Any]:
    """The first line."""
    return {"version": VERSION, "site": model.name, "model": model_mark(model)}


class Recorder:
    """Turns each cycle into a line that says what is new in it."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[str, Sample]] = {}
        self._present: dict[str, bool] = {}
        self._orders: OrdersInForce | None = None

    def take(self, image: Image, orders: OrdersInForce, decision: Decision) -> dict[str, Any]:
        """One cycle's line."""
        line: dict[str, Any] = {"now_s": image.now_s, "devices": self._changed(image)}
        if image.unanswered:
            line["unanswered"] = dict(image.unanswered)
        if orders != self._orders:
            self._orders = orders
            line["orders"] = _orders_out(orders)
        line["setpoints"] = [[each.device, each.power_w, each.cause] for each in decision.setpoints]
        return line

    def _changed(self, image: Image) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        for name, device in image.devices.items():
            known = self._samples.setdefault(name, {})
            samples = device.samples
            new = {point: sample for point, sample in samples.items() if known.get(point) != sample}
            if not new and self._present.get(name) == device.present:
                continue
            known.update(new)
            self._present[name] = device.present
            changed[name] = [device.present, {point: _sample_out(sample) for point, sample in new.items()}]
        return changed


def replay(model: SiteModel, lines: Iterable[str]) -> Iterator[Replayed]:
    """Decide every recorded cycle again, from the first one on; raises RecordingError."""
    state, orders = initial_state(model), OrdersInForce()
    samples: dict[str, dict[str, Sample]] = {}
    present: dict[str, bool] = {}
    for number, line in enumerate(lines, start=1):
        content = _parsed(number, line)
        if number == 1:
            _check_header(model, content)
            continue
        try:
            for name, (is_present, points) in content["devices"].items():
                present[name] = bool(is_present)
                samples.setdefault(name, {}).update({point: _sample_in(raw) for point, raw in points.items()})
            if "orders" in content:
                orders = _orders_in(content["orders"])
            devices = {name: DeviceImage(dict(samples[name]), present[name]) for name in samples}
            image = Image(content["now_s"], devices, content.get("unanswered", {}))
            recorded = [(device, power_w, cause) for device, power_w, cause in content["setpoints"]]
        except (KeyError, TypeError, ValueError) as error:
            raise RecordingError(f"line {number}: {error!r}") from error
        decision = decide(model, image, orders, state)
        yield Replayed(decision, orders, _difference(decision, recorded))


def _parsed(number: int, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise RecordingError(f"line {number}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RecordingError(f"line {number}: not a JSON object")
    return content


def _check_header(model: SiteModel, content: Mapping[str, Any]) -> None:
    if content.get("version") != VERSION:
        raise RecordingError(f"line 1: version {content.get('version')}; {VERSION} can be replayed")
    if content.get("model") != model_mark(model):
        raise RecordingError(
            f"line 1: recorded with another site file, profiles, twins or lags of {content.get('site')}: "
            f"model {content.get('model')}, here it is {model_mark(model)}"
        )


def _difference(decision: Decision, recorded: list[tuple[str, float, str]]) -> str:
    decided = [tuple(each) for each in decision.setpoints]
    if decided == recorded:
        return ""
    pairs = zip(decided, recorded, strict=False)
    first = next(((now, then) for now, then in pairs if now != then), None)
    if first is None:
        return f"{len(decided)} setpoints, {len(recorded)} recorded"
    return f"{first[0]}, recorded {first[1]}"


def _sample_out(sample: Sample) -> list[Any]:
    return [sample.value, sample.quality.name, sample.measured_s]


def _sample_in(raw: list[Any]) -> Sample:
    value, quality, measured_s = raw
    return Sample(value, Quality[quality], measured_s)


def _orders_out(orders: OrdersInForce) -> dict[str, Any]:
    return {
        "limits": [
            {**each._asdict(), "value": {"absent": each.value.value} if isinstance(each.value, Absent) else each.value}
            for each in orders.limits
        ],
        "dispatch": None if orders.dispatch is None else orders.dispatch._asdict(),
        "regulation": None if orders.regulation is None else orders.regulation._asdict(),
        "overrides": [each._asdict() for each in orders.overrides],
        "fallback_reason": orders.fallback_reason,
        "meter_released": orders.meter_released,
        "margins": None if orders.margins is None else orders.margins._asdict(),
        "plan": None if orders.plan is None else _plan_out(orders.plan),
    }


def _orders_in(raw: Mapping[str, Any]) -> OrdersInForce:
    dispatch, regulation, margins = raw["dispatch"], raw["regulation"], raw.get("margins")
    return OrdersInForce(
        tuple(_limit_in(each) for each in raw["limits"]),
        None if dispatch is None else DispatchInForce(**dispatch),
        None if regulation is None else RegulationInForce(**regulation),
        tuple(OverrideInForce(**each) for each in raw["overrides"]),
        raw["fallback_reason"],
        raw["meter_released"],
        None if margins is None else MarginsInForce(**margins),
        None if raw.get("plan") is None else _plan_in(raw["plan"]),
    )


def _plan_out(plan: PlanInForce) -> dict[str, Any]:
    return {**plan._asdict(), "curves": [[name, one.prices_per_kwh, one.powers_w] for name, one in plan.curves]}


def _plan_in(raw: Mapping[str, Any]) -> PlanInForce:
    curves = tuple((name, Curve(tuple(prices), tuple(powers))) for name, prices, powers in raw["curves"])
    cost = InterchangeCost(*raw.get("cost", ()))
    return PlanInForce(raw["source"], raw["import_per_kwh"], raw["export_per_kwh"], curves, cost)


def _limit_in(raw: Mapping[str, Any]) -> LimitInForce:
    value = raw["value"]
    known = Absent(value["absent"]) if isinstance(value, dict) else value
    return LimitInForce(raw["source"], raw["order_id"], Quantity(raw["quantity"]), known)
