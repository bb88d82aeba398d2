"""What a profile must mean, beyond what its schema can say: pure checks on what of it validates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from config.findings import Problem, Severity, did_you_mean
from config.partial import broken, known
from config.point_checks import POINT_RULES, raw_kind
from config.profile import (
    PROTOCOL_ADDRESSES,
    Access,
    CommandQuantity,
    PointProfile,
    PollGroup,
    Profile,
    RegisterAddress,
)
from config.strict import Rule
from config.vocabulary import CHARGING_STATE, POWER_W, SOC, DeviceKind

REQUIRED_POINTS: Final = {
    DeviceKind.METER: (POWER_W,),
    DeviceKind.INVERTER: (POWER_W,),
    DeviceKind.BATTERY: (POWER_W, SOC),
    DeviceKind.CHARGER: (POWER_W, CHARGING_STATE),
    DeviceKind.RELAY: (),
    DeviceKind.LAYER: (POWER_W,),
}
_OCPP_SETPOINT: Final = ("limit_a", "limit_w", "limit_s")
_PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def profile_problems(profile: Profile) -> Iterator[Problem]:
    """Every problem of a profile; paths begin at its top."""
    for rule in PROFILE_RULES:
        yield from broken(rule, profile)
    for name, point in profile.points.items() if known(profile, "points") else ():
        for rule in POINT_RULES:
            yield from (problem.under(("points", name)) for problem in broken(rule, name, point))


# The profile as a whole

_PUSHED: Final = ("mqtt", "ocpp", "layer")
"""Protocols over which values come by themselves, whatever `poll` says."""


def _required_points(profile: Profile) -> Iterator[Problem]:
    for name in REQUIRED_POINTS[profile.kind]:
        if name not in profile.points:
            yield Problem(("points", name), f"is required for a {profile.kind}")


def _power_is_polled_fast(profile: Profile) -> Iterator[Problem]:
    if profile.protocol in _PUSHED:
        return
    point = profile.points.get(POWER_W)
    if point is not None and point.poll is not PollGroup.FAST:
        # Without it the connection point cannot be held; a device's own power can be inferred for a while.
        severity = Severity.ERROR if profile.kind is DeviceKind.METER else Severity.WARNING
        words = f"is {point.poll}, but control needs power_w with every cycle"
        yield Problem(("points", POWER_W, "poll"), words, PollGroup.FAST, severity)


def _meters_are_not_controlled(profile: Profile) -> Iterator[Problem]:
    if profile.kind is DeviceKind.METER and profile.control is not None:
        yield Problem(("control",), "a meter has nothing to control")


def _refreshed_before_it_falls_back(profile: Profile) -> Iterator[Problem]:
    if profile.control is None:
        return
    refresh = profile.control.refresh_s
    timers = (
        (("control", "reversion_s"), profile.control.reversion_s),
        (("on_silence", "after_s"), profile.on_silence.after_s),
    )
    for path, timer in timers:
        if timer is not None and timer <= refresh:
            words = f"{timer:g} is not longer than the time between refreshes, {refresh:g}"
            yield Problem(path, words, f"a number greater than {refresh:g}", see=("control", "refresh_s"))


def _refresh_is_not_held_back(profile: Profile) -> Iterator[Problem]:
    control = profile.control
    if control is not None and control.min_write_interval_s > control.refresh_s:
        words = f"{control.min_write_interval_s:g} is longer than the time between refreshes, {control.refresh_s:g}"
        yield Problem(("control", "min_write_interval_s"), words, see=("control", "refresh_s"))


def _timer_is_armed(profile: Profile) -> Iterator[Problem]:
    if profile.control is None:
        return
    arms = any(write.quantity is CommandQuantity.REVERSION_S for write in profile.control.writes)
    if profile.on_silence.settable and not arms:
        yield Problem(("on_silence", "settable"), "no write of the control sequence has quantity reversion_s")
    if arms and profile.control.reversion_s is None:
        yield Problem(("control", "reversion_s"), "is required: a write arms the timer with it")


def _requests_hold_a_value(profile: Profile) -> Iterator[Problem]:
    """A value goes in one request, so that it is never torn."""
    if profile.protocol != "modbus":
        return
    for name, point in profile.points.items():
        if point.modbus is None:
            continue
        registers, path = point.modbus.registers, ("points", name, "modbus")
        if registers > profile.pace.max_registers:
            words = f"takes {registers} registers, and one request {profile.pace.max_registers}"
            yield Problem((*path, "type"), words, f"pace.max_registers of at least {registers}")
        if point.access is not Access.R and registers > 1 and profile.pace.write_function == "single":
            words = f"takes {registers} registers, which function 6 alone (pace.write_function: single) can't write"
            yield Problem((*path, "type"), words, "write_function: auto or multiple")


def _constants_are_in_range(profile: Profile) -> Iterator[Problem]:
    """What is refused when it is written would leave the device as it is, also at the orderly stop."""
    if profile.control is None:
        return
    for sequence in ("writes", "rest"):
        for at, write in enumerate(getattr(profile.control, sequence)):
            point = profile.points.get(write.point)
            if point is None or point.range is None:
                continue
            modes = write.by_direction
            given = {"value": write.value}
            if modes is not None:
                given = {f"by_direction.{name}": getattr(modes, name) for name in ("charge", "idle", "discharge")}
            least, most = point.range
            for field, value in given.items():
                if value is not None and not least <= value <= most:
                    path = ("control", sequence, at, *field.split("."))
                    yield Problem(
                        path, f"{value:g} is outside of the range of '{write.point}'", f"{least:g} to {most:g}"
                    )


def _currents_are_in_range(profile: Profile) -> Iterator[Problem]:
    """A current that the point refuses would leave the charger as it is: what can be asked has to be in its range."""
    control = profile.control
    if control is None:
        return
    minimum_a = control.minimum_a or 0.0
    for sequence in ("writes", "rest"):
        for at, write in enumerate(getattr(control, sequence)):
            point = profile.points.get(write.point)
            if write.quantity is not CommandQuantity.CURRENT_A or point is None or point.range is None:
                continue
            (least, most), see = point.range, ("points", write.point, "range")
            if minimum_a > most and sequence == "writes":
                words = f"{minimum_a:g} is above the range of '{write.point}': no current could be asked"
                yield Problem(("control", "minimum_a"), words, f"a number from {least:g} to {most:g}", see=see)
            elif minimum_a < least and sequence == "writes":
                words = f"{minimum_a:g} is below the range of '{write.point}', which refuses currents under {least:g}"
                yield Problem(("control", "minimum_a"), words, f"a number from {least:g} to {most:g}", see=see)
            if least > 0 and not write.skip_when_idle:
                words = f"a pause writes 0, which is outside of the range of '{write.point}'"
                allowed = "a range from 0, or skip_when_idle: true beside another write that pauses"
                yield Problem(("control", sequence, at), words, allowed, see=see)


def _registers_agree(profile: Profile) -> Iterator[Problem]:
    points = [(n, p.modbus) for n, p in profile.points.items() if known(p, "modbus") and p.modbus is not None]
    spans = sorted((_span(address), name, address) for name, address in points if known(address, "address", "type"))
    reach: list[tuple[tuple[str, int, int], str, RegisterAddress]] = []
    for span, name, address in spans:
        reach = [item for item in reach if item[0][0] == span[0] and item[0][2] >= span[1]]
        for _, other, earlier in reach:
            if not _same_encoding(earlier, address):
                words = f"registers {span[1]} to {span[2]} are read in another way by point '{other}'"
                yield Problem(("points", name, "modbus"), words, see=("points", other, "modbus"))
        reach.append((span, name, address))


def _span(address: RegisterAddress) -> tuple[str, int, int]:
    return address.table, address.address, address.address + address.registers - 1


def _same_encoding(one: RegisterAddress, other: RegisterAddress) -> bool:
    # The order of a value's words does not matter for one that has one word, so models are not compared whole.
    fields = ["address", "type", "length", "byte_order"] + (["word_order"] if one.registers > 1 else [])
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def _same_place_same_value(profile: Profile) -> Iterator[Problem]:
    first: dict[tuple[object, ...], str] = {}
    for name, point in profile.points.items():
        if not known(point, *PROTOCOL_ADDRESSES[profile.protocol], "unit", "scale", "offset", "sign", "access"):
            continue
        if point.access is Access.W or point.values is not None or point.sum is not None:
            continue
        other = first.setdefault((*_where(point), point.unit), name)
        same = profile.points[other]
        if (point.scale, point.offset, point.sign) != (same.scale, same.offset, same.sign):
            words = f"the same value as point '{other}', in the same unit, with another scale, offset or sign"
            yield Problem(("points", name), words, see=("points", other))


def _sums_have_parts(profile: Profile) -> Iterator[Problem]:
    for name, point in profile.points.items():
        if not known(point, "sum", "poll", "unit") or point.sum is None:
            continue
        path = ("points", name, "sum")
        if profile.protocol != "modbus":
            yield Problem(path, f"is for protocol modbus, not {profile.protocol}")
        for other in point.sum:
            part = profile.points.get(other)
            if part is None:
                yield Problem(
                    (*path, other), f"'{other}' is not among the points{did_you_mean(other, list(profile.points))}"
                )
            elif known(part, "sum", "poll", "unit", "access", "values"):
                words = _no_part_of(point, part)
                if words is not None:
                    yield Problem((*path, other), f"'{other}' {words}", see=("points", other))


def _no_part_of(point: PointProfile, part: PointProfile) -> str | None:
    if part.sum is not None:
        return "is a sum itself"
    if part.access is Access.W or part.values is not None or raw_kind(part)[0]:
        return "is not a number that is read"
    if part.unit != point.unit:
        return f"is in '{part.unit}', and the sum in '{point.unit}'"
    return f"is polled {part.poll}, and the sum {point.poll}" if part.poll is not point.poll else None


def _where(point: PointProfile) -> tuple[object, ...]:
    """What reads the same raw value when it is equal."""
    if point.modbus is not None:
        return ("modbus", point.modbus.table, point.modbus.address)
    if point.sunspec is not None:
        return ("sunspec", point.sunspec.models, point.sunspec.point, point.sunspec.block)
    if point.opcua is not None:
        return ("opcua", point.opcua.namespace, point.opcua.identifier, point.opcua.path)
    if point.ocpp is not None:
        address = point.ocpp
        return ("ocpp", address.measurand, address.phase, address.location, address.status, address.transaction_energy)
    if point.layer is not None:
        return ("layer", point.layer.message, point.layer.field)
    return ("mqtt", point.mqtt.topic, point.mqtt.json_path) if point.mqtt is not None else ()


def _parameters_are_used(profile: Profile) -> Iterator[Problem]:
    used: set[str] = set()
    complete = known(profile, "points", "availability")
    for path, topic in _topics(profile):
        names = _PLACEHOLDER.findall(topic)
        used.update(names)
        for name in names:
            if name not in profile.parameters:
                words = f"{{{name}}} is not among the parameters"
                yield Problem(path, words, ", ".join(profile.parameters))
    for at, name in enumerate(profile.parameters):
        if complete and name not in used:
            yield Problem(("parameters", at), f"no topic has {{{name}}}", severity=Severity.WARNING)


def _topics(profile: Profile) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for name, point in profile.points.items():
        address = point.mqtt if known(point, "mqtt") else None
        for key in ("topic", "command_topic", "acknowledgement_topic"):
            topic = getattr(address, key) if address is not None and known(address, key) else None
            if topic is not None:
                yield ("points", name, "mqtt", key), topic
    if known(profile, "availability") and profile.availability is not None and known(profile.availability, "topic"):
        yield ("availability", "topic"), profile.availability.topic


def _points_are_readable(profile: Profile) -> Iterator[Problem]:
    for at, (first, last) in enumerate(profile.pace.unreadable):
        path = ("pace", "unreadable", at)
        if first > last:
            yield Problem(path, f"the first address, {first}, is above the last, {last}")
        for name, point in profile.points.items():
            if known(point, "modbus") and point.modbus is not None and known(point.modbus, "address", "type"):
                _, low, high = _span(point.modbus)
                if low <= last and high >= first and Access.R in point.access:
                    words = f"point '{name}' is read from registers {low} to {high}, which are in here"
                    yield Problem(path, words, see=("points", name))


def _ocpp_is_for_ocpp(profile: Profile) -> Iterator[Problem]:
    if profile.protocol != "ocpp" and profile.ocpp.model_fields_set:
        yield Problem(("ocpp",), f"is for protocol ocpp, not {profile.protocol}")


def _ocpp_setpoints_are_limits(profile: Profile) -> Iterator[Problem]:
    if profile.protocol != "ocpp" or profile.control is None:
        return
    given: set[str] = set()
    for sequence, allowed in (("writes", _OCPP_SETPOINT), ("rest", (*_OCPP_SETPOINT, "clear_limit"))):
        for at, write in enumerate(getattr(profile.control, sequence)):
            point, path = profile.points.get(write.point), ("control", sequence, at, "point")
            command = point.ocpp.command if point is not None and point.ocpp is not None else None
            if command is not None and command not in allowed:
                yield Problem(path, f"{command} is no part of a setpoint", ", ".join(allowed))
            if sequence == "writes" and command is not None:
                given.add(command)
                if write.quantity is None or write.when_changed or write.skip_when_idle:
                    words = "a charging profile is sent whole, so each of its writes has a quantity and no condition"
                    yield Problem(path[:-1], words)
    if given and not given & {"limit_a", "limit_w"}:
        yield Problem(("control", "writes"), "sets no limit", "a point with command limit_a or limit_w")


PROFILE_RULES: Final[tuple[Rule, ...]] = (
    _required_points,
    _power_is_polled_fast,
    _meters_are_not_controlled,
    _refreshed_before_it_falls_back,
    _refresh_is_not_held_back,
    _timer_is_armed,
    _requests_hold_a_value,
    _constants_are_in_range,
    _currents_are_in_range,
    _registers_agree,
    _same_place_same_value,
    _sums_have_parts,
    _parameters_are_used,
    _points_are_readable,
    _ocpp_is_for_ocpp,
    _ocpp_setpoints_are_limits,
)
