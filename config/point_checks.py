"""What one point of a profile must mean, beyond what its schema can say: pure checks on what of it validates."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

from config.findings import Problem
from config.partial import known
from config.profile import Access, PointProfile, RegisterType, bits_of
from config.strict import Rule
from config.vocabulary import CHARGING_STATE, POWER_W, SOC, ChargingState

UNITS: Final = {
    "w": "W",
    "var": "var",
    "va": "VA",
    "wh": "Wh",
    "v": "V",
    "a": "A",
    "hz": "Hz",
    "s": "s",
    "pu": "pu",
    "soc": "pu",
}
_FLOATS: Final = (RegisterType.FLOAT32, RegisterType.FLOAT64)
_WHOLE: Final = re.compile(r"(?P<unsigned>u?)int(?P<bits>\d+)")
_RAW_SLACK: Final = 1e-6
"""Scales like 0.1 have no exact binary number."""


def _unit_fits_the_name(name: str, point: PointProfile) -> Iterator[Problem]:
    unit = UNITS.get(name.rsplit("_", 1)[-1])
    if unit is not None and point.unit and point.unit != unit:
        yield Problem(("unit",), f"'{point.unit}' does not fit the point's name", unit)


def _control_points_are_read(name: str, point: PointProfile) -> Iterator[Problem]:
    if name in (POWER_W, SOC, CHARGING_STATE) and Access.R not in point.access:
        yield Problem(("access",), "control reads this point", "r, rw")


def _access_has_a_way(name: str, point: PointProfile) -> Iterator[Problem]:
    if point.modbus is not None and point.modbus.table == "input" and Access.W in point.access:
        yield Problem(("access",), "an input register cannot be written", "r", see=("modbus",))
    if point.mqtt is not None and Access.R in point.access and point.mqtt.topic is None:
        yield Problem(("mqtt", "topic"), f"is required for access {point.access}")
    if point.mqtt is not None and Access.W in point.access and point.mqtt.command_topic is None:
        yield Problem(("mqtt", "command_topic"), f"is required for access {point.access}")
    if point.ocpp is not None and known(point, "ocpp"):
        allowed = Access.R if point.ocpp.command is None else Access.W
        if point.access is not allowed:
            words = "a charger's value cannot be written" if allowed is Access.R else "a command cannot be read"
            yield Problem(("access",), words, allowed)


def _charging_states_are_letters(name: str, point: PointProfile) -> Iterator[Problem]:
    if name != CHARGING_STATE:
        return
    letters = ", ".join(ChargingState)
    for raw, meaning in (point.values or {}).items():
        if meaning not in list(ChargingState):
            yield Problem(("values", raw), f"'{meaning}' is not a charging state of IEC 61851", letters)
    by_number = point.modbus is not None and point.modbus.type is not RegisterType.STRING
    if point.values is None and (by_number or point.ocpp is not None):
        yield Problem(("values",), "is required: a charging state is a letter", letters)


def _values_fit_the_type(name: str, point: PointProfile) -> Iterator[Problem]:
    text, fraction, source = raw_kind(point)
    for raw in point.values or {}:
        if text and isinstance(raw, int):
            yield Problem(("values", raw), f"{source} is text, and {raw} is a number", "keys in quotes")
        if not text and isinstance(raw, str) and point.mqtt is None:
            yield Problem(("values", raw), f"{source} is a number, and '{raw}' is text", "whole numbers as keys")
    if fraction and point.values is not None:
        yield Problem(("values",), f"{source} holds fractions, which name nothing")


def raw_kind(point: PointProfile) -> tuple[bool, bool, str]:
    """Whether the raw value is text, whether it is a fraction, and what to call it."""
    if point.modbus is not None:
        encoding = point.modbus.type
        return encoding is RegisterType.STRING, encoding in _FLOATS, encoding
    if point.opcua is not None:
        return point.opcua.type == "string", False, point.opcua.type
    if point.mqtt is not None:
        return False, False, point.mqtt.type
    if point.ocpp is not None:
        return point.ocpp.status, not point.ocpp.status, "a status" if point.ocpp.status else "a measurand"
    return False, False, "a SunSpec enumeration"


def _text_has_no_scale(name: str, point: PointProfile) -> Iterator[Problem]:
    text, _, source = raw_kind(point)
    text = text or (point.mqtt is not None and point.mqtt.type == "text")
    if not text:
        return
    given = {"scale": point.scale != 1, "offset": point.offset != 0, "range": point.range, "invalid": point.invalid}
    for field, value in given.items():
        if value:
            yield Problem((field,), f"is for numbers, and {source} is text")


def _range_can_be_carried(name: str, point: PointProfile) -> Iterator[Problem]:
    """A range without any raw value makes every reading bad; one beyond the raw values promises what can't be sent."""
    limits = _raw_limits(point)
    if limits is None or point.range is None or point.scale == 0:
        return
    sign = -1.0 if point.sign == "generator" else 1.0
    low, high = sorted(sign * (raw * point.scale + point.offset) for raw in limits)
    (least, most), (_, _, source) = point.range, raw_kind(point)
    carries = f"{source} with this scale and offset carries {low:g} to {high:g}"
    raws = sorted((sign * value - point.offset) / point.scale for value in point.range)
    within = max(raws[0], limits[0]), min(raws[1], limits[1])
    if math.ceil(within[0] - _RAW_SLACK) > math.floor(within[1] + _RAW_SLACK):
        words = "" if most < low or least > high else f", in steps of {abs(point.scale):g}"
        yield Problem(("range",), f"no raw value is in it: {carries}{words}", f"a range within {low:g} to {high:g}")
    elif Access.W in point.access and (raws[0] < limits[0] - 0.5 or raws[1] > limits[1] + 0.5):
        words = f"reaches beyond what can be written: {carries}"
        yield Problem(("range",), words, f"a range within {low:g} to {high:g}")


def _invalid_can_be_read(name: str, point: PointProfile) -> Iterator[Problem]:
    limits = _raw_limits(point)
    if limits is None or point.modbus is None:
        return
    # Documents write 0x8000 for a signed register; a float cannot tell the largest numbers of 64 bits apart.
    low, high = limits[0], float(1 << bits_of(point.modbus.type))
    for at, raw in enumerate(point.invalid):
        if not low <= raw <= high:
            yield Problem(("invalid", at), f"{raw:g} can never be read from {point.modbus.type}")


def _raw_limits(point: PointProfile) -> tuple[int, int] | None:
    """Least and greatest raw number of a register or node that holds whole numbers."""
    if point.modbus is not None and point.modbus.type not in (*_FLOATS, RegisterType.STRING):
        bits, signed = bits_of(point.modbus.type), point.modbus.type.value.startswith("int")
    elif point.opcua is not None and (whole := _WHOLE.fullmatch(point.opcua.type)) is not None:
        bits, signed = int(whole["bits"]), not whole["unsigned"]
    else:
        return None
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _scale_is_not_zero(name: str, point: PointProfile) -> Iterator[Problem]:
    if point.scale == 0:
        yield Problem(("scale",), "0 would lose the value", "a number other than 0")


POINT_RULES: Final[tuple[Rule, ...]] = (
    _unit_fits_the_name,
    _control_points_are_read,
    _access_has_a_way,
    _charging_states_are_letters,
    _values_fit_the_type,
    _text_has_no_scale,
    _range_can_be_carried,
    _invalid_can_be_read,
    _scale_is_not_zero,
)
