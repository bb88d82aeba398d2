"""Profiles: data that maps a kind of device's points to protocol addresses and says how the device behaves.

A profile is complete without code: every point names its address, type, scale, sign, access and source, and the
device-level part says what the device does on silence, how a setpoint is written, and how it responds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from pydantic import Field

from config.findings import Problem, did_you_mean
from config.strict import Flag, Name, NotNegative, Number, Positive, Rule, Strict, Whole
from config.vocabulary import DeviceKind

ADDRESSES: Final = ("modbus", "sunspec", "opcua", "mqtt", "ocpp", "layer")
PROTOCOL_ADDRESSES: Final = {
    "modbus": ("modbus", "sunspec"),
    "opcua": ("opcua",),
    "mqtt": ("mqtt",),
    "ocpp": ("ocpp",),
    "layer": ("layer",),
}


class Access(StrEnum):
    R = "r"
    W = "w"
    RW = "rw"


class PollGroup(StrEnum):
    """How often a point is read: with every cycle, at `slow_poll_s`, or once after each connection."""

    FAST = "fast"
    SLOW = "slow"
    ONCE = "once"


class RegisterType(StrEnum):
    """Register encodings; `string` takes `length` registers, `bits` is an unsigned bit field."""

    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BITS16 = "bits16"
    BITS32 = "bits32"
    STRING = "string"


LAST_REGISTER: Final = 65535
RegisterNumber = Annotated[int, Field(strict=True, ge=0, le=LAST_REGISTER)]


def bits_of(encoding: RegisterType) -> int:
    """Width of a number's encoding; 0 for a string."""
    return int(encoding.value.lstrip("abcdefghijklmnopqrstuvwxyz") or 0)


def registers_of(encoding: RegisterType, length: int | None) -> int:
    """How many registers a value takes; `length` is what a string was given."""
    return (length or 1) if encoding is RegisterType.STRING else bits_of(encoding) // 16


def _length_goes_with_string(address: RegisterAddress) -> Iterator[Problem]:
    if address.type is RegisterType.STRING and address.length is None:
        yield Problem(("length",), "is required for type string", "a whole number from 1 to 125")
    if address.type is not RegisterType.STRING and address.length is not None:
        yield Problem(("length",), f"is for type string alone, not {address.type}")


def _ends_within_the_table(address: RegisterAddress) -> Iterator[Problem]:
    last = address.address + registers_of(address.type, address.length) - 1
    if last > LAST_REGISTER:
        yield Problem(("address",), f"the value ends at register {last}, beyond the last one, {LAST_REGISTER}")


class RegisterAddress(Strict):
    """A value in Modbus registers; `address` is the zero-based address that goes on the wire."""

    address: RegisterNumber = Field(description="zero-based address, as it goes on the wire")
    table: Literal["holding", "input"] = Field(
        "holding", description="holding registers (functions 3, 6, 16) or input registers (function 4)"
    )
    type: RegisterType = Field(RegisterType.UINT16, description="how the registers are read")
    length: Annotated[int, Field(strict=True, ge=1, le=125)] | None = Field(
        None, description="registers, for `string` alone"
    )
    word_order: Literal["big", "little"] = Field("big", description="big: the most significant register comes first")
    byte_order: Literal["big", "little"] = Field("big", description="of the two bytes of each register")

    rules: ClassVar[tuple[Rule, ...]] = (_length_goes_with_string, _ends_within_the_table)

    @property
    def registers(self) -> int:
        """How many registers the value takes."""
        return registers_of(self.type, self.length)


class SunSpecAddress(Strict):
    """A point of a SunSpec model; type, units and scale factor come from the published model definition.

    `models` in order of preference: the first one that the device has is used. In a repeating block, `block` counts
    from 1.
    """

    models: Annotated[tuple[Annotated[int, Field(strict=True, ge=1, le=65535)], ...], Field(min_length=1)] = Field(
        description="model ids in order of preference; the first that the device has is used"
    )
    point: str = Field(description="the point's name in the published model")
    block: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="which of a repeating block, from 1"
    )


def _one_way_to_the_node(address: OpcUaAddress) -> Iterator[Problem]:
    if (address.identifier is None) == (address.path is None):
        yield Problem((), "name the node by exactly one of `identifier` and `path`")


class OpcUaAddress(Strict):
    """A node: namespace by URI (never by index, which may change at a restart) and identifier, or a browse path.

    `identifier` is written as in a NodeId string without the namespace: `s=Battery.Power` or `i=1234`. `path` counts
    from the Objects folder; each step is a browse name in `namespace`.
    """

    namespace: str = Field(description="namespace URI")
    identifier: Annotated[str, Field(pattern=r"^[sigb]=.+$")] | None = Field(
        None, description="identifier without namespace: s=Battery.Power or i=1234"
    )
    path: tuple[str, ...] | None = Field(None, description="browse names from the Objects folder")
    type: Literal["double", "float", "int16", "int32", "int64", "uint16", "uint32", "uint64", "boolean", "string"] = (
        Field("double", description="the type a write is sent in")
    )

    rules: ClassVar[tuple[Rule, ...]] = (_one_way_to_the_node,)


def _some_topic(address: MqttAddress) -> Iterator[Problem]:
    if address.topic is None and address.command_topic is None:
        yield Problem((), "needs `topic`, `command_topic` or both")


class MqttAddress(Strict):
    """A value on topics. `{name}` in a topic is filled from the device's address parameters in the site file.

    `json_path`: where the value is in a JSON payload, as keys and indexes in order, none of them for the whole of it;
    None takes the raw payload.
    """

    topic: str | None = Field(None, description="where the value is published")
    command_topic: str | None = Field(None, description="where a write is published")
    command_template: str = Field("{value}", description="the payload of a write")
    acknowledgement_topic: str | None = Field(None, description="where the device confirms a write")
    acknowledgement_value: str | None = Field(
        None, description="the acknowledgement that means done, any other is a refusal; None takes every one as done"
    )
    type: Literal["number", "text"] = Field("number", description="how the value is read")
    json_path: tuple[str | Whole, ...] | None = Field(
        None, description="where the value is in a JSON payload: keys and indexes in order; [] is the whole of it"
    )
    time_path: tuple[str | Whole, ...] | None = Field(
        None,
        description="where the message says in JSON when it was made, in seconds or milliseconds since 1970 or as "
        "ISO 8601; what comes again is told from what is new by it, and what was stored on the way has its age",
    )
    retained_is_fresh: Flag = Field(
        False,
        description="the device publishes each change, retained, and nothing between changes: its last message is the "
        "value for as long as other messages show it alive",
    )

    rules: ClassVar[tuple[Rule, ...]] = (_some_topic,)


class MqttAvailability(Strict):
    """A retained topic on which the device, or the broker through its last will, says whether it is there."""

    topic: str = Field(description="where it is published")
    online: str = Field("true", description="the payload that means present; any other means absent")


OcppMeasurand: TypeAlias = Literal[
    "Current.Export",
    "Current.Import",
    "Current.Offered",
    "Energy.Active.Export.Interval",
    "Energy.Active.Export.Register",
    "Energy.Active.Import.Interval",
    "Energy.Active.Import.Register",
    "Energy.Reactive.Export.Interval",
    "Energy.Reactive.Export.Register",
    "Energy.Reactive.Import.Interval",
    "Energy.Reactive.Import.Register",
    "Frequency",
    "Power.Active.Export",
    "Power.Active.Import",
    "Power.Factor",
    "Power.Offered",
    "Power.Reactive.Export",
    "Power.Reactive.Import",
    "RPM",
    "SoC",
    "Temperature",
    "Voltage",
]
"""Type Measurand of OCPP 1.6 edition 2, section 7."""

OcppCommand: TypeAlias = Literal["limit_a", "limit_w", "limit_s", "clear_limit", "remote_start", "remote_stop"]


def _one_kind_of_value(address: OcppAddress) -> Iterator[Problem]:
    ways = {
        "measurand": address.measurand is not None,
        "status": address.status,
        "transaction_energy": address.transaction_energy,
        "command": address.command is not None,
    }
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) != 1:
        words = f"has {' and '.join(given)}" if given else "says no value"
        yield Problem((), f"{words}; a point has exactly one", ", ".join(ways))
    for field in ("phase", "location", "while_idle"):
        if address.measurand is None and getattr(address, field) != OcppAddress.model_fields[field].default:
            yield Problem((field,), "is for a measurand")


class OcppAddress(Strict):
    """A value that a charger sends to its central system, or a command that it takes (OCPP 1.6).

    A measurand is read in W, Wh, var, varh, A, V, Celsius or Percent, whatever multiple the charger sends. Without
    `phase`, the value that names none is taken; of powers and energies else the sum over the phases.

    The commands: `limit_a` and `limit_w` set a charging profile (amperes per phase or watts, whichever the charger
    takes), that ends by itself after `limit_s` seconds; `clear_limit` removes it; `remote_start` and `remote_stop`
    start and stop a transaction.
    """

    measurand: OcppMeasurand | None = Field(None, description="what of MeterValues is read")
    phase: Literal["L1", "L2", "L3", "N", "L1-L2", "L2-L3", "L3-L1"] | None = Field(
        None, description="of the measurand; L1 is also L1-N"
    )
    location: Literal["Body", "Cable", "EV", "Inlet", "Outlet"] = Field("Outlet", description="of the measurand")
    while_idle: Number | None = Field(
        None,
        description="raw value that stands while the charger's status says that nothing is supplied and it sends no "
        "MeterValues, as most do outside a transaction",
    )
    status: Flag = Field(False, description="the status of the connector, by its name in StatusNotification")
    transaction_energy: Flag = Field(False, description="energy since the transaction began, in Wh")
    command: OcppCommand | None = Field(None, description="what a write does")

    rules: ClassVar[tuple[Rule, ...]] = (_one_kind_of_value,)


class LayerAddress(Strict):
    """A value in the messages of the layer interface, as the parent of a layer sees it.

    The offer is read for the interval in which now lies. A dispatch is the one in force, as far as telemetry repeats
    its id. `authority` is `held` once the layer has confirmed it, `bypass` what was noticed of others who command it.
    """

    message: Literal["telemetry", "offer", "dispatch", "authority", "bypass"] = Field(
        description="which message holds it"
    )
    field: str = Field("", description="the name of the field there")


class OcppSettings(Strict):
    """What a kind of charger asks of its central system."""

    running: Literal["tx_profile", "tx_default_profile"] = Field(
        "tx_profile", description="purpose of the charging profile that limits a transaction while it runs"
    )
    configuration: dict[str, str] = Field(
        default_factory=dict, description="further configuration keys that are set after each boot"
    )


def _one_address(point: PointProfile) -> Iterator[Problem]:
    given = [name for name in (*ADDRESSES, "sum") if getattr(point, name) is not None]
    if len(given) != 1:
        words = f"has {' and '.join(given)}" if given else "has no address"
        yield Problem((), f"{words}; a point has exactly one", ", ".join(ADDRESSES))


def _a_sum_is_only_read(point: PointProfile) -> Iterator[Problem]:
    if point.sum is None:
        return
    if point.access is not Access.R:
        yield Problem(("access",), "a sum cannot be written", Access.R)
    for field in ("scale", "offset", "sign", "invalid", "values"):
        if getattr(point, field) != PointProfile.model_fields[field].default:
            yield Problem((field,), "belongs to the parts of a sum; here each has its factor")


def _range_ascends(point: PointProfile) -> Iterator[Problem]:
    if point.range is not None and point.range[0] >= point.range[1]:
        yield Problem(("range",), f"the lower end, {point.range[0]:g}, is not below the upper, {point.range[1]:g}")


class PointProfile(Strict):
    """One named value: where it is, how it reads, and the document that says so.

    value = raw x scale + offset, then x -1 when `sign` is generator. Values listed in `invalid` (raw), outside `range`
    (after scaling) or not numbers become bad samples.
    """

    modbus: RegisterAddress | None = Field(
        None, description="address in Modbus registers; exactly one of the six is given"
    )
    sunspec: SunSpecAddress | None = Field(
        None, description="address in a SunSpec model; exactly one of the six is given"
    )
    opcua: OpcUaAddress | None = Field(None, description="address of an OPC UA node; exactly one of the six is given")
    mqtt: MqttAddress | None = Field(None, description="MQTT topics; exactly one of the six is given")
    ocpp: OcppAddress | None = Field(None, description="value or command of OCPP; exactly one of the six is given")
    layer: LayerAddress | None = Field(
        None, description="value in a message of the layer interface; exactly one of the six is given"
    )
    sum: Annotated[dict[Name, Number], Field(min_length=1)] | None = Field(
        None,
        description="in place of an address, over Modbus: points of this profile and the factor of each, whose values "
        "are added, for a value that the device gives only in parts",
    )
    unit: str = Field("", description="the unit after scaling, as the point's name ends: W, V, A, Hz, Wh, s, pu")
    scale: Number = Field(1.0, description="factor from raw to unit")
    offset: Number = Field(0.0, description="added after scaling")
    sign: Literal["load", "generator"] = Field("load", description="the convention of the device's own value")
    access: Access = Field(Access.R, description="r, w or rw")
    poll: PollGroup = Field(
        PollGroup.SLOW,
        description="Modbus and OPC UA: with every cycle, at `slow_poll_s`, or once after each connection",
    )
    invalid: tuple[Number, ...] = Field((), description="raw values that mean no value")
    range: tuple[Number, Number] | None = Field(
        None, description="least and most after scaling; outside it the sample is bad"
    )
    values: dict[Whole | str, str] | None = Field(None, description="the meaning of each raw value of an enumeration")
    max_age_s: Positive | None = Field(
        None, description="older than this the sample is uncertain; default by poll group"
    )
    source: Annotated[str, Field(min_length=3)] = Field(description="table, section or model in the profile's document")

    rules: ClassVar[tuple[Rule, ...]] = (_one_address, _range_ascends, _a_sum_is_only_read)


class CommandQuantity(StrEnum):
    """What a control write can be filled from; p is the setpoint in load convention."""

    POWER_W = "power_w"
    GENERATION_W = "generation_w"
    CHARGE_W = "charge_w"
    DISCHARGE_W = "discharge_w"
    MAGNITUDE_W = "magnitude_w"
    GENERATION_PU = "generation_pu"
    POWER_PU = "power_pu"
    CURRENT_A = "current_a"
    REVERSION_S = "reversion_s"
    COUNTER = "counter"


class ByDirection(Strict):
    """A value chosen by the sign of the setpoint, for mode registers."""

    charge: Number = Field(description="for a setpoint above 0")
    idle: Number = Field(description="for a setpoint of 0")
    discharge: Number | None = Field(None, description="for a setpoint below 0")


def _one_value(write: ControlWrite) -> Iterator[Problem]:
    choices = ("value", "quantity", "by_direction")
    given = [name for name in choices if getattr(write, name) is not None]
    if len(given) != 1:
        words = f"has {' and '.join(given)}" if given else "says nothing to write"
        yield Problem((), f"{words}; a write has exactly one", ", ".join(choices))


class ControlWrite(Strict):
    """One write of a setpoint sequence: a point and the constant, quantity or mode that goes into it.

    The quantities, with p the setpoint in load convention: power_w = p, generation_w = -p, charge_w = max(p, 0),
    discharge_w = max(-p, 0), magnitude_w = |p|, generation_pu = max(-p, 0) / rating, power_pu = p / rating,
    current_a = max(p, 0) / (phases x nominal voltage), reversion_s the timer in force, counter a number that rises by 1
    with each sequence.
    """

    point: Name = Field(description="the point that is written")
    value: Number | None = Field(None, description="a constant")
    quantity: CommandQuantity | None = Field(None, description="what of the setpoint is written")
    by_direction: ByDirection | None = Field(None, description="a constant by the sign of the setpoint")
    when_changed: Flag = Field(False, description="write only when the value differs from the last one acknowledged")
    skip_when_idle: Flag = Field(False, description="not written when the setpoint comes to nothing, as for a pause")

    rules: ClassVar[tuple[Rule, ...]] = (_one_value,)


class Control(Strict):
    """How a setpoint is written: the sequence (value before enable), its pace, and what the rest state is."""

    power: Literal["exact", "ceiling"] = Field(
        "exact", description="ceiling: the device takes (charger) or generates (inverter) at most the setpoint"
    )
    writes: Annotated[tuple[ControlWrite, ...], Field(min_length=1)] = Field(
        description="the sequence of one setpoint, value before enable"
    )
    rest: tuple[ControlWrite, ...] = Field((), description="written at an orderly stop")
    reversion_s: Positive | None = Field(None, description="the device's own timer, as `writes` arms it")
    refresh_s: Positive = Field(10.0, description="an unchanged setpoint is written again after this time")
    deadband_w: NotNegative = Field(0.0, description="a smaller change is not written")
    deadband_pu: NotNegative = Field(0.0, description="the same, as a part of the rating; the larger of both holds")
    min_write_interval_s: NotNegative = Field(0.0, description="least time between two sequences")
    volatile: Flag = Field(description="false: registers that wear out, so that deadband and interval must be generous")
    step_w: Positive | None = Field(None, description="resolution in watts")
    step_a: Positive | None = Field(None, description="resolution in amperes per phase")
    minimum_a: NotNegative | None = Field(None, description="least current but 0 that can be asked (IEC 61851: 6 A)")
    per_unit_of: Name | None = Field(
        None, description="the point that says what a per-unit setpoint is a part of; the site's rating_w has to be it"
    )


def _value_is_given(silence: OnSilence) -> Iterator[Problem]:
    if silence.behaviour == "value" and silence.value_w is None:
        yield Problem(("value_w",), "is required for behaviour value", "a number")


def _time_is_given(silence: OnSilence) -> Iterator[Problem]:
    if silence.behaviour != "hold" and silence.after_s is None:
        yield Problem(("after_s",), f"is required for behaviour {silence.behaviour}", "a number greater than 0")


class OnSilence(Strict):
    """What the device does when nobody writes to it: keeps the setpoint, goes to a value, or drops every limit."""

    behaviour: Literal["hold", "value", "unlimited"] = Field(
        description="keeps the last setpoint, goes to `value_w`, or drops every limit"
    )
    after_s: Positive | None = Field(None, description="how long after the last write; None where it never acts")
    value_w: Number | None = Field(None, description="load convention; for behaviour value")
    settable: Flag = Field(False, description="the time can be set, by a write of quantity reversion_s")

    rules: ClassVar[tuple[Rule, ...]] = (_value_is_given, _time_is_given)


class Response(Strict):
    """How a device answers a step: dead time, then first order with Tr90, the time from 0 to 90 % of the step."""

    tr90_s: Positive = Field(1.0, description="from 0 to 90 % of a step")
    dead_time_s: NotNegative = Field(0.0, description="before the first movement")


class Pace(Strict):
    """What a device asks of whoever talks to it; registers, functions, gaps and pauses are Modbus alone."""

    timeout_s: Positive = Field(1.0, description="wait for an answer")
    max_registers: Annotated[int, Field(strict=True, ge=1, le=125)] = Field(
        125, description="most registers in one request"
    )
    max_gap_registers: Annotated[int, Field(strict=True, ge=0, le=124)] = Field(
        8, description="unneeded registers read along rather than split a request"
    )
    unreadable: tuple[tuple[RegisterNumber, RegisterNumber], ...] = Field(
        (), description="first and last address of ranges never to be read"
    )
    request_gap_s: NotNegative = Field(0.0, description="pause between two requests to the device")
    line_gap_s: NotNegative = Field(
        0.0,
        description="silence that a shared line needs after the device's answer, before another unit is asked; on a "
        "serial line 3.5 characters are kept anyway",
    )
    connect_pause_s: NotNegative = Field(0.0, description="pause after connecting")
    write_function: Literal["auto", "single", "multiple"] = Field(
        "auto", description="single: function 6, multiple: function 16, auto: by the number of registers"
    )
    slow_poll_s: Positive = Field(2.0, description="period of the slow points")
    publishing_interval_s: Positive = Field(
        0.1,
        description="OPC UA: how often the server sends what has changed; OCPP: whole seconds between meter values",
    )
    silence_s: Positive = Field(
        5.0,
        description="OPC UA, MQTT and OCPP: without a sign of life for so long, the device is absent; the heartbeat "
        "of an OCPP charger is set to half of it",
    )


class Source(Strict):
    """The document a profile was written from."""

    document: Annotated[str, Field(min_length=3)] = Field(description="title of the document")
    version: Annotated[str, Field(min_length=1)] = Field(description="its version or date")
    publisher: Annotated[str, Field(min_length=2)] = Field(description="who publishes it")


def _one_condition(part: Fingerprint) -> Iterator[Problem]:
    if (part.point is None) == (part.manufacturer is None):
        yield Problem((), "names exactly one of `point` and `manufacturer`")
    given = [name for name in ("values", "range", "matches") if getattr(part, name) is not None]
    if len(given) > 1:
        yield Problem((given[1],), f"stands beside `{given[0]}`; a part has one condition at most")
    if given and part.manufacturer is not None:
        yield Problem((given[0],), "is for a point; `manufacturer` is a condition itself")
    for name in ("matches", "manufacturer"):
        text = getattr(part, name)
        try:
            re.compile(text or "")
        except re.error as error:
            yield Problem((name,), f"is no regular expression: {error}")


class Fingerprint(Strict):
    """One thing by which a scan knows this kind of device; a point without a condition must read a good value."""

    point: Name | None = Field(None, description="the point that is read")
    values: Annotated[tuple[Number | str, ...], Field(min_length=1)] | None = Field(
        None, description="what the point may read, after scaling, or as `values` of the point names it"
    )
    range: tuple[Number, Number] | None = Field(None, description="least and most that it may read, after scaling")
    matches: str | None = Field(None, description="regular expression that is found in the point's text")
    manufacturer: str | None = Field(
        None, description="in place of a point: regular expression found in the manufacturer of SunSpec's common model"
    )

    rules: ClassVar[tuple[Rule, ...]] = (_one_condition,)


def _fingerprint_has_points(profile: Profile) -> Iterator[Problem]:
    for at, part in enumerate(profile.fingerprint):
        if part.point is None:
            continue
        point, path = profile.points.get(part.point), ("fingerprint", at, "point")
        if point is None:
            hint = did_you_mean(part.point, list(profile.points))
            yield Problem(path, f"'{part.point}' is not among the points{hint}", ", ".join(profile.points))
        elif point.access is Access.W:
            yield Problem(path, f"'{part.point}' cannot be read", "r, rw", see=("points", part.point))


def _points_speak_the_protocol(profile: Profile) -> Iterator[Problem]:
    fitting = PROTOCOL_ADDRESSES[profile.protocol]
    for name, point in profile.points.items():
        for other in ADDRESSES:
            if other not in fitting and getattr(point, other) is not None:
                words = f"protocol {profile.protocol} does not address points by {other}"
                yield Problem(("points", name, other), words, ", ".join(fitting))


def _writes_have_points(profile: Profile) -> Iterator[Problem]:
    if profile.control is None:
        return
    for sequence in ("writes", "rest"):
        for at, write in enumerate(getattr(profile.control, sequence)):
            point = profile.points.get(write.point)
            path = ("control", sequence, at, "point")
            if point is None:
                hint = did_you_mean(write.point, list(profile.points))
                yield Problem(path, f"'{write.point}' is not among the points{hint}", ", ".join(profile.points))
            elif point.access is Access.R:
                yield Problem(path, f"'{write.point}' has access r", "w, rw", see=("points", write.point))


def _per_unit_of_a_point(profile: Profile) -> Iterator[Problem]:
    name = None if profile.control is None else profile.control.per_unit_of
    if name is not None and name not in profile.points:
        hint = did_you_mean(name, list(profile.points))
        yield Problem(("control", "per_unit_of"), f"'{name}' is not among the points{hint}", ", ".join(profile.points))


class Profile(Strict):
    """One kind of device over one protocol."""

    profile: Name = Field(description="the profile's name; the file is named the same")
    title: str = Field(description="what people call this kind of device")
    kind: DeviceKind = Field(description="what the device is to control")
    protocol: Literal["modbus", "opcua", "mqtt", "ocpp", "layer"] = Field(
        description="modbus, opcua, mqtt, ocpp or layer; every point is addressed by it"
    )
    status: Literal["from_document", "verified_on_hardware"] = Field(
        "from_document", description="whether it was tried on a real device"
    )
    source: Source = Field(description="the document it was written from")
    parameters: tuple[Name, ...] = Field(
        (), description="names the site file's address must give, for `{name}` in topics"
    )
    pace: Pace = Field(Pace(), description="what the device asks of whoever talks to it")
    availability: MqttAvailability | None = Field(
        None, description="where it says whether it is there; for protocol mqtt"
    )
    ocpp: OcppSettings = Field(OcppSettings(), description="for protocol ocpp")
    points: Annotated[dict[Name, PointProfile], Field(min_length=1)] = Field(description="the points by name")
    control: Control | None = Field(None, description="how a setpoint is written; null: it cannot be controlled")
    on_silence: OnSilence = Field(OnSilence(behaviour="hold"), description="what the device does when nobody writes")
    response: Response = Field(Response(), description="how it answers a step")
    fingerprint: tuple[Fingerprint, ...] = Field(
        (),
        description="by what a scan knows this kind of device: all of it must hold, besides the SunSpec models that "
        "its points need; none: known by those models, or not at all",
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        _points_speak_the_protocol,
        _writes_have_points,
        _per_unit_of_a_point,
        _fingerprint_has_points,
    )
