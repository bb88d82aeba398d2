"""Profiles: data that maps a kind of device's points to protocol addresses and says how the device behaves.

A profile is complete without code: every point names its address, type, scale, sign, access and source, and the
device-level part says what the device does on silence, how a setpoint is written, and how it responds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from config.strict import Name, NotNegative, Positive, Strict
from config.vocabulary import DeviceKind


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


class RegisterAddress(Strict):
    """A value in Modbus registers; `address` is the zero-based address that goes on the wire."""

    address: Annotated[int, Field(ge=0, le=65535)]
    table: Literal["holding", "input"] = "holding"
    type: RegisterType = RegisterType.UINT16
    length: Annotated[int, Field(ge=1, le=125)] | None = Field(None, description="registers, for `string` alone")
    word_order: Literal["big", "little"] = Field("big", description="big: the most significant register comes first")
    byte_order: Literal["big", "little"] = "big"

    @model_validator(mode="after")
    def _length_goes_with_string(self) -> Self:
        if (self.type is RegisterType.STRING) != (self.length is not None):
            raise ValueError("`length` is for type string, and a string needs it")
        return self

    @property
    def registers(self) -> int:
        """How many registers the value takes."""
        if self.length is not None:
            return self.length
        bits = int(self.type.value.lstrip("abcdefghijklmnopqrstuvwxyz"))
        return bits // 16


class SunSpecAddress(Strict):
    """A point of a SunSpec model; type, units and scale factor come from the published model definition.

    `models` in order of preference: the first one that the device has is used. In a repeating block, `block` counts
    from 1.
    """

    models: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(min_length=1)]
    point: str
    block: Annotated[int, Field(ge=1)] | None = None


class OpcUaAddress(Strict):
    """A node: namespace by URI (never by index, which may change at a restart) and identifier, or a browse path.

    `identifier` is written as in a NodeId string without the namespace: `s=Battery.Power` or `i=1234`. `path` counts
    from the Objects folder; each step is a browse name in `namespace`.
    """

    namespace: str
    identifier: Annotated[str, Field(pattern=r"^[sigb]=.+$")] | None = None
    path: tuple[str, ...] | None = None
    type: Literal["double", "float", "int16", "int32", "int64", "uint16", "uint32", "uint64", "boolean", "string"] = (
        Field("double", description="the type a write is sent in")
    )

    @model_validator(mode="after")
    def _one_way_to_the_node(self) -> Self:
        if (self.identifier is None) == (self.path is None):
            raise ValueError("name the node by either `identifier` or `path`")
        return self


class MqttAddress(Strict):
    """A value on topics. `{name}` in a topic is filled from the device's address parameters in the site file.

    `json_path`: where the value is in a JSON payload, as keys and indexes in order; None takes the raw payload.
    """

    topic: str | None = Field(None, description="where the value is published")
    command_topic: str | None = Field(None, description="where a write is published")
    command_template: str = Field("{value}", description="the payload of a write")
    acknowledgement_topic: str | None = None
    json_path: tuple[str | int, ...] | None = None
    retained_is_fresh: bool = Field(
        False, description="whether a retained message counts as a measurement made when it arrives"
    )

    @model_validator(mode="after")
    def _some_topic(self) -> Self:
        if self.topic is None and self.command_topic is None:
            raise ValueError("a point needs `topic`, `command_topic` or both")
        return self


class PointProfile(Strict):
    """One named value: where it is, how it reads, and the document that says so.

    value = raw x scale + offset, then x -1 when `sign` is generator. Values listed in `invalid` (raw), outside `range`
    (after scaling) or not numbers become bad samples.
    """

    modbus: RegisterAddress | None = None
    sunspec: SunSpecAddress | None = None
    opcua: OpcUaAddress | None = None
    mqtt: MqttAddress | None = None
    unit: str = Field("", description="the unit after scaling, as the point's name ends: W, V, A, Hz, Wh, s, pu")
    scale: float = 1.0
    offset: float = 0.0
    sign: Literal["load", "generator"] = Field("load", description="the convention of the device's own value")
    access: Access = Access.R
    poll: PollGroup = PollGroup.SLOW
    invalid: tuple[float, ...] = ()
    range: tuple[float, float] | None = None
    values: dict[int | str, str] | None = Field(None, description="the meaning of each raw value of an enumeration")
    max_age_s: Positive | None = Field(
        None, description="older than this the sample is uncertain; default by poll group"
    )
    source: Annotated[str, Field(min_length=3, description="table, section or model in the profile's document")]

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        given = [name for name in ("modbus", "sunspec", "opcua", "mqtt") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a point has exactly one of modbus, sunspec, opcua, mqtt")
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError("range: the lower end is above the upper end")
        return self


class CommandQuantity(StrEnum):
    """What a control write can be filled from; p is the setpoint in load convention."""

    POWER_W = "power_w"
    GENERATION_W = "generation_w"
    CHARGE_W = "charge_w"
    DISCHARGE_W = "discharge_w"
    GENERATION_PU = "generation_pu"
    POWER_PU = "power_pu"
    CURRENT_A = "current_a"
    REVERSION_S = "reversion_s"
    COUNTER = "counter"


class ByDirection(Strict):
    """A value chosen by the sign of the setpoint, for mode registers."""

    charge: float
    idle: float
    discharge: float | None = None


class ControlWrite(Strict):
    """One write of a setpoint sequence: a point and the constant, quantity or mode that goes into it.

    The quantities, with p the setpoint in load convention: power_w = p, generation_w = -p, charge_w = max(p, 0),
    discharge_w = max(-p, 0), generation_pu = max(-p, 0) / rating, power_pu = p / rating, current_a = max(p, 0) /
    (phases x nominal voltage), reversion_s the timer in force, counter a number that rises by 1 with each sequence.
    """

    point: Name
    value: float | None = None
    quantity: CommandQuantity | None = None
    by_direction: ByDirection | None = None
    when_changed: bool = Field(False, description="write only when the value differs from the last one acknowledged")

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        if sum(item is not None for item in (self.value, self.quantity, self.by_direction)) != 1:
            raise ValueError("a write has exactly one of value, quantity, by_direction")
        return self


class Control(Strict):
    """How a setpoint is written: the sequence (value before enable), its pace, and what the rest state is."""

    power: Literal["exact", "ceiling"] = Field(
        "exact", description="ceiling: the device takes (charger) or generates (inverter) at most the setpoint"
    )
    writes: Annotated[tuple[ControlWrite, ...], Field(min_length=1)]
    rest: tuple[ControlWrite, ...] = Field((), description="written at an orderly stop")
    reversion_s: Positive | None = Field(None, description="the device's own timer, as `writes` arms it")
    refresh_s: Positive = Field(10.0, description="an unchanged setpoint is written again after this time")
    deadband_w: NotNegative = 0.0
    min_write_interval_s: NotNegative = 0.0
    volatile: bool = Field(description="false: registers that wear out, so that deadband and interval must be generous")
    step_w: Positive | None = Field(None, description="resolution in watts")
    step_a: Positive | None = Field(None, description="resolution in amperes per phase")
    minimum_a: NotNegative | None = Field(None, description="least current but 0 that can be asked (IEC 61851: 6 A)")


class OnSilence(Strict):
    """What the device does when nobody writes to it: keeps the setpoint, goes to a value, or drops every limit."""

    behaviour: Literal["hold", "value", "unlimited"]
    after_s: Positive | None = Field(None, description="how long after the last write; None where it never acts")
    value_w: float | None = Field(None, description="load convention; for behaviour value")
    settable: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.behaviour == "value" and self.value_w is None:
            raise ValueError("behaviour value needs `value_w`")
        if self.behaviour != "hold" and self.after_s is None:
            raise ValueError(f"behaviour {self.behaviour} needs `after_s`")
        return self


class Response(Strict):
    """How a device answers a step: dead time, then first order with Tr90, the time from 0 to 90 % of the step."""

    tr90_s: Positive = 1.0
    dead_time_s: NotNegative = 0.0


class Pace(Strict):
    """What a device asks of whoever talks to it over Modbus."""

    timeout_s: Positive = 1.0
    max_registers: Annotated[int, Field(ge=1, le=125)] = 125
    max_gap_registers: Annotated[int, Field(ge=0, le=124)] = Field(
        8, description="unneeded registers read along rather than split a request"
    )
    unreadable: tuple[tuple[int, int], ...] = Field((), description="first and last address of ranges never to be read")
    request_gap_s: NotNegative = 0.0
    connect_pause_s: NotNegative = 0.0
    write_function: Literal["auto", "single", "multiple"] = "auto"
    slow_poll_s: Positive = 2.0


class Source(Strict):
    """The document a profile was written from."""

    document: Annotated[str, Field(min_length=3)]
    version: Annotated[str, Field(min_length=1)]
    publisher: Annotated[str, Field(min_length=2)]


class Profile(Strict):
    """One kind of device over one protocol."""

    profile: Name
    title: str
    kind: DeviceKind
    protocol: Literal["modbus", "opcua", "mqtt"]
    status: Literal["from_document", "verified_on_hardware"] = "from_document"
    source: Source
    parameters: tuple[Name, ...] = Field(
        (), description="names the site file's address must give, for `{name}` in topics"
    )
    pace: Pace = Pace()
    points: Annotated[dict[Name, PointProfile], Field(min_length=1)]
    control: Control | None = None
    on_silence: OnSilence = OnSilence(behaviour="hold")
    response: Response = Response()

    @model_validator(mode="after")
    def _points_and_writes_agree(self) -> Self:
        wanted = {"modbus": ("modbus", "sunspec"), "opcua": ("opcua",), "mqtt": ("mqtt",)}[self.protocol]
        wrong = [name for name, point in self.points.items() if not any(getattr(point, key) for key in wanted)]
        if wrong:
            raise ValueError(
                f"protocol {self.protocol} addresses points by {' or '.join(wanted)}; wrong: {', '.join(wrong)}"
            )
        for write in (*(self.control.writes if self.control else ()), *(self.control.rest if self.control else ())):
            point = self.points.get(write.point)
            if point is None:
                raise ValueError(f"control writes point {write.point!r}, which is not among the points")
            if point.access is Access.R:
                raise ValueError(f"control writes point {write.point!r}, whose access is r")
        return self
