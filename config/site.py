"""The site file: the connection, its devices and where they are, the parents, and the fallback."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from config.strict import Name, NotNegative, PerUnit, Port, Positive, Strict
from config.twin import DeviceTwin, Simulation


class ModbusTcpAddress(Strict):
    """A Modbus TCP server and the unit behind it."""

    driver: Literal["modbus_tcp"]
    host: str
    port: Port = 502
    unit: Annotated[int, Field(ge=0, le=255)] = 1


class OpcUaServer(Strict):
    """An OPC UA server."""

    driver: Literal["opcua"]
    url: Annotated[str, Field(pattern=r"^opc\.tcp://[^/]+:\d+(/.*)?$")]
    username: str | None = None
    password_env: str | None = Field(None, description="environment variable that holds the password")


class Tls(Strict):
    """TLS of an MQTT connection; files are PEM."""

    ca_file: str
    cert_file: str | None = None
    key_file: str | None = None


class MqttBroker(Strict):
    """Where an MQTT broker is and who we are there."""

    host: str
    port: Port = 1883
    username: str | None = None
    password_env: str | None = Field(None, description="environment variable that holds the password")
    tls: Tls | None = None


class MqttDevice(MqttBroker):
    """A device behind a broker; `parameters` fill the `{name}`s of its profile's topics."""

    driver: Literal["mqtt"]
    parameters: dict[Name, str] = Field(default_factory=dict)


Address = Annotated[ModbusTcpAddress | OpcUaServer | MqttDevice, Field(discriminator="driver")]


class CurvePoint(Strict):
    """One breakpoint of a resource's static curve, as power per unit of rating at a price."""

    price_per_kwh: float
    power_pu: Annotated[float, Field(ge=-1, le=1)]


class EvExpectation(Strict):
    """What a car that plugs in is assumed to need, where nobody says otherwise."""

    needed_wh: Positive
    stay_s: Positive


class DeviceSite(Strict):
    """One device: its profile, its address, its ratings and limits, and how its twin behaves on a bench."""

    profile: Annotated[
        str, Field(description="name of a shipped profile, or a path ending in .yaml beside the site file")
    ]
    address: Address
    rating_w: Positive
    min_w: float | None = Field(None, description="load convention; default by kind: -rating, 0 for a charger")
    max_w: float | None = Field(None, description="load convention; default by kind: rating, 0 for an inverter")
    phases: Annotated[tuple[Literal[1, 2, 3], ...], Field(min_length=1, max_length=3)] = (1, 2, 3)
    capacity_wh: Positive | None = Field(None, description="of a battery")
    soc_min: PerUnit = 0.05
    soc_max: PerUnit = 0.95
    reversion_s: Positive | None = Field(None, description="the device-side timer to arm; default from the profile")
    read_only: bool = False
    acknowledged_on_silence: bool = Field(
        False, description="the installer accepts what this device does when the gateway falls silent"
    )
    curve: tuple[CurvePoint, ...] | None = Field(None, description="price ascending, power not rising; default by kind")
    ev: EvExpectation | None = None
    tr90_s: Positive | None = Field(None, description="measured response; default from the profile")
    dead_time_s: NotNegative | None = None
    twin: DeviceTwin = DeviceTwin()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_w is not None and self.max_w is not None and self.min_w > self.max_w:
            raise ValueError(f"min_w {self.min_w:g} is above max_w {self.max_w:g}")
        if self.soc_min >= self.soc_max:
            raise ValueError(f"soc_min {self.soc_min:g} is not below soc_max {self.soc_max:g}")
        if len(set(self.phases)) != len(self.phases):
            raise ValueError("phases: each phase once")
        if self.curve is not None:
            prices = [point.price_per_kwh for point in self.curve]
            powers = [point.power_pu for point in self.curve]
            if prices != sorted(prices) or powers != sorted(powers, reverse=True):
                raise ValueError("curve: prices ascend and power does not rise with price")
        return self


class Connection(Strict):
    """The connection point: its rating, its meter and the installer's own limits, which no order relaxes."""

    rating_w: Positive
    meter: Name
    phases: Literal[1, 3] = 3
    nominal_voltage_v: Positive = 230.0
    fuse_a: Positive | None = None
    max_import_w: NotNegative | None = Field(None, description="installer's static limit; default the rating")
    max_export_w: NotNegative | None = Field(None, description="installer's static limit; default the rating")


class Fallback(Strict):
    """What holds before the first contact and when the parent is lost. A number, or unlimited: never left open."""

    net_import_w: NotNegative | Literal["unlimited"]
    net_export_w: NotNegative | Literal["unlimited"]


class Parent(Strict):
    """A source of orders. Limits are taken from every parent; dispatch from the one that has `dispatch: true`."""

    name: Name
    broker: MqttBroker | None = Field(None, description="None: the embedded broker of a demo, given at start")
    dispatch: bool = False
    heartbeat_timeout_s: Positive = 60.0
    telemetry_backlog: Annotated[int, Field(ge=0, le=100_000)] = Field(
        900, description="telemetry messages kept while the broker is away; the oldest are dropped"
    )


class ControlSettings(Strict):
    """The control cycle and its feedback."""

    period_ms: Annotated[int, Field(ge=20, le=1000)] = 100
    price_per_kwh: float = Field(0.25, description="the site's price while no dispatch names one")
    stale_after_s: Positive = Field(1.0, description="a fast sample older than this is bad")
    margin_pu: Annotated[float, Field(ge=0, le=0.1)] = Field(
        0.002, description="of the rating, kept inside a binding limit"
    )
    setpoint_life_s: Positive = Field(2.0, description="a setpoint that has not gone out by then is dropped")
    integral_per_s: NotNegative = Field(0.5, description="gain of the slow integral of the connection point's error")


class Site(Strict):
    """One site, as deployed."""

    site: Name
    title: str = ""
    connection: Connection
    fallback: Fallback
    control: ControlSettings = ControlSettings()
    parents: tuple[Parent, ...] = ()
    devices: Annotated[dict[Name, DeviceSite], Field(min_length=1)]
    simulation: Simulation = Simulation()
