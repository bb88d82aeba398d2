"""What the DSO twin expects of a layer's messages, written by hand from docs/layer_interface.md.

Every table names the fields of one object; a field that isn't in its table is an error. The limits stated here are the
interface's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

LARGEST_PAYLOAD_BYTES: Final = 65_536
POWER_W: Final = 1e10
PRICE_PER_KWH: Final = 1e6
YEAR_S: Final = 366 * 86_400
GRID_TOLERANCE: Final = 1e-6
"""Of a step: how far a breakpoint may be from its grid."""

Findings: TypeAlias = Iterator[str]
Rule: TypeAlias = Callable[[object], Findings]


class UnexpectedError(Exception):
    """A message breaks the interface; the text says where and how."""


class Field(NamedTuple):
    """What one field must be, and whether it must be there at all; `nullable` lets null stand for no value."""

    rule: Rule
    required: bool = True
    nullable: bool = False


def read(kind: str, payload: bytes) -> dict[str, Any]:
    """The message of that kind in a payload. Raises UnexpectedError with every finding."""
    fields = MESSAGES.get(kind)
    if fields is None:
        raise UnexpectedError(f"no message is called {kind!r}")
    if len(payload) > LARGEST_PAYLOAD_BYTES:
        raise UnexpectedError(f"{len(payload)} bytes, more than {LARGEST_PAYLOAD_BYTES}")
    try:
        message = json.loads(payload, parse_constant=_no_constant, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise UnexpectedError(f"not JSON: {error}") from error
    findings = list(_table(fields)(message))
    if not findings and kind == "offer":
        findings = list(_offer_findings(message))
    if findings:
        raise UnexpectedError("; ".join(findings))
    return dict(message)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)}: there twice")
    return dict(pairs)


def _number(least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf) -> Rule:
    def rule(value: object) -> Findings:
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{value!r} is not a number"
        elif not math.isfinite(value) or not least <= value <= most or value <= above:
            yield f"{value!r} is out of range"

    return rule


def _whole(value: object) -> Findings:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**53:
        yield f"{value!r} is not a whole number of 0 or more"


def _text(longest: int) -> Rule:
    def rule(value: object) -> Findings:
        if not isinstance(value, str) or len(value) > longest:
            yield f"{value!r} is not a text of at most {longest} characters"

    return rule


def _order_id(value: object) -> Findings:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", value):
        yield f"{value!r} is not an id"


def _one_of(*words: str) -> Rule:
    def rule(value: object) -> Findings:
        if value not in words:
            yield f"{value!r} is none of {', '.join(words)}"

    return rule


def _time(value: object) -> Findings:
    try:
        if not isinstance(value, str) or datetime.fromisoformat(value).utcoffset() is None:
            yield f"{value!r} is not a time with an offset"
    except ValueError:
        yield f"{value!r} is not a time with an offset"


def _list(rule: Rule, most: int) -> Rule:
    def each(value: object) -> Findings:
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            yield f"not a list of 1 to {most}"
            return
        for index, item in enumerate(value):
            yield from (f"[{index}] {finding}" for finding in rule(item))

    return each


def _table(fields: Mapping[str, Field]) -> Rule:
    def rule(value: object) -> Findings:
        if not isinstance(value, dict):
            yield "not an object"
            return
        yield from (f"{name}: not part of the interface" for name in value if name not in fields)
        for name, field in fields.items():
            if name not in value:
                if field.required:
                    yield f"{name}: missing"
            elif value[name] is not None or not field.nullable:
                yield from (f"{name}: {finding}" for finding in field.rule(value[name]))

    return rule


def _offer_findings(offer: dict[str, Any]) -> Findings:
    starts = [datetime.fromisoformat(interval["start"]) for interval in offer["intervals"]]
    if any(later <= earlier for earlier, later in pairwise(starts)):
        yield "intervals: starts must ascend"
    if datetime.fromisoformat(offer["expires_at"]) <= datetime.fromisoformat(offer["issued_at"]):
        yield "expires_at: not after issued_at"
    for index, interval in enumerate(offer["intervals"]):
        findings = (*_curve_findings(interval, offer), *_forecast_findings(interval))
        yield from (f"intervals: [{index}] {finding}" for finding in findings)


def _curve_findings(interval: dict[str, Any], offer: dict[str, Any]) -> Findings:
    prices = [point["price_per_kwh"] for point in interval["curve"]]
    powers = [point["power_w"] for point in interval["curve"]]
    if any(later < earlier for earlier, later in pairwise(prices)):
        yield "curve: prices fall"
    if any(later > earlier for earlier, later in pairwise(powers)):
        yield "curve: power rises with price"
    if not interval["lower_w"] <= min(powers) or not max(powers) <= interval["upper_w"]:
        yield "curve: power outside lower_w to upper_w"
    if not all(_on_grid(price, offer["price_step_per_kwh"]) for price in prices):
        yield "curve: a price is off the grid"
    if not all(_on_grid(power, offer["power_step_w"]) for power in powers):
        yield "curve: a power is off the grid"


def _forecast_findings(interval: dict[str, Any]) -> Findings:
    band = interval.get("forecast")
    if band is not None and not band["p10_w"] <= band["p50_w"] <= band["p90_w"]:
        yield "forecast: p10, p50, p90 fall"


def _on_grid(value: float, step: float) -> bool:
    steps = value / step
    return abs(steps - round(steps)) <= max(GRID_TOLERANCE, abs(steps) * 1e-12)


_POWER: Final = _number(-POWER_W, POWER_W)
_MAGNITUDE: Final = _number(0, POWER_W)
_PRICE: Final = _number(-PRICE_PER_KWH, PRICE_PER_KWH)
_AT_LEAST_0: Final = _number(0)
_POSITIVE: Final = _number(above=0)

_CURVE_POINT: Final = {"price_per_kwh": Field(_PRICE), "power_w": Field(_POWER)}
_FORECAST: Final = {name: Field(_POWER) for name in ("p10_w", "p50_w", "p90_w")}
_INTERVAL: Final = {
    "start": Field(_time),
    "duration_s": Field(_number(most=YEAR_S, above=0)),
    "curve": Field(_list(_table(_CURVE_POINT), 200)),
    "lower_w": Field(_POWER),
    "upper_w": Field(_POWER),
    "ramp_w_per_s": Field(_POSITIVE, required=False, nullable=True),
    "energy_up_wh": Field(_AT_LEAST_0),
    "energy_down_wh": Field(_AT_LEAST_0),
    "regulation_up_w": Field(_MAGNITUDE, required=False),
    "regulation_down_w": Field(_MAGNITUDE, required=False),
    "regulation_price_per_kwh": Field(_PRICE, required=False, nullable=True),
    "forecast": Field(_table(_FORECAST), required=False, nullable=True),
}
_OFFER: Final = {
    "id": Field(_order_id),
    "issued_at": Field(_time),
    "expires_at": Field(_time),
    "intervals": Field(_list(_table(_INTERVAL), 576)),
    "response_s": Field(_AT_LEAST_0),
    "power_step_w": Field(_POSITIVE),
    "price_step_per_kwh": Field(_POSITIVE),
    "error_bound_w": Field(_AT_LEAST_0),
}
_COMPLIANCE: Final = {
    "state": Field(_one_of("compliant", "unmet", "fallback", "bypassed")),
    "reason": Field(_text(200), required=False),
}
_TELEMETRY: Final = {
    "issued_at": Field(_time),
    "measured_at": Field(_time, nullable=True),
    "net_power_w": Field(_POWER, nullable=True),
    "energy_import_wh": Field(_AT_LEAST_0, required=False, nullable=True),
    "energy_export_wh": Field(_AT_LEAST_0, required=False, nullable=True),
    "voltage_v": Field(_AT_LEAST_0, required=False, nullable=True),
    "frequency_hz": Field(_AT_LEAST_0, required=False, nullable=True),
    "connection": Field(_one_of("connected", "islanded", "unknown"), required=False),
    "quality": Field(_one_of("good", "uncertain", "bad")),
    "regulation_sequence": Field(_whole, required=False, nullable=True),
    "dispatch_id": Field(_order_id, required=False, nullable=True),
    "compliance": Field(_table(_COMPLIANCE)),
}
_RESULT: Final = {
    "mean_net_power_w": Field(_POWER, nullable=True),
    "energy_wh": Field(_number(), nullable=True),
    "unmet_s": Field(_AT_LEAST_0),
}
_ACKNOWLEDGEMENT: Final = {
    "order_id": Field(_text(64)),
    "kind": Field(_one_of("limits", "dispatch", "regulation", "authority", "heartbeat")),
    "status": Field(_one_of("accepted", "rejected", "superseded", "completed")),
    "reason": Field(_text(400), required=False),
    "issued_at": Field(_time),
    "result": Field(_table(_RESULT), required=False, nullable=True),
}
_HEARTBEAT: Final = {"sequence": Field(_whole), "issued_at": Field(_time)}

MESSAGES: Final[dict[str, Mapping[str, Field]]] = {
    "offer": _OFFER,
    "telemetry": _TELEMETRY,
    "acknowledgement": _ACKNOWLEDGEMENT,
    "heartbeat": _HEARTBEAT,
}
