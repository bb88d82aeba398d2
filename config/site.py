"""The site file: the connection, its devices and where they are, the parents, and the fallback."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from config.compliance import Compliance
from config.findings import Problem
from config.grid_support import GridSupport
from config.planning import Planning
from config.strict import Flag, Name, NotNegative, Number, PerUnit, Port, Positive, Rule, Strict
from config.twin import DeviceTwin, Simulation

Host = Annotated[str, Field(pattern=r"^[^\s/]+$", description="host name or IP address")]


class ModbusTcpAddress(Strict):
    """A Modbus TCP server and the unit behind it."""

    driver: Literal["modbus_tcp"] = Field(description="chooses the protocol")
    host: Host
    port: Port = Field(502, description="TCP port")
    unit: Annotated[int, Field(strict=True, ge=0, le=255)] = Field(1, description="Modbus unit identifier")


LineUnit = Annotated[int, Field(strict=True, ge=1, le=247)]
"""0 is everybody and the rest is reserved: MODBUS over Serial Line V1.02, section 2.2."""


class ModbusRtuAddress(Strict):
    """A unit on a serial line. Units with the same `device` share the line, and its settings must be the same.

    The defaults are the standard's own; many devices come with 9,600 baud and no parity.
    """

    driver: Literal["modbus_rtu"] = Field(description="chooses the protocol")
    device: Annotated[str, Field(pattern=r"^/[^\x00]+$")] = Field(
        description="absolute path of the serial port; one under /dev/serial/by-id stays the same when it is replugged"
    )
    baud: Annotated[int, Field(strict=True, ge=300, le=4_000_000)] = Field(19_200, description="bits per second")
    parity: Literal["none", "even", "odd"] = Field("even", description="parity bit of each character")
    stop_bits: Literal[1, 2] = Field(1, description="stop bits of each character")
    unit: LineUnit = Field(1, description="address of the device on the line")


class ModbusRtuTcpAddress(Strict):
    """A unit on a serial line behind a serial device server, which passes RTU frames through over TCP unchanged.

    A gateway that translates to Modbus TCP is `modbus_tcp` instead.
    """

    driver: Literal["modbus_rtu_tcp"] = Field(description="chooses the protocol")
    host: Host
    port: Port = Field(502, description="TCP port")
    unit: LineUnit = Field(1, description="address of the device on the line")


ModbusAddress: TypeAlias = ModbusTcpAddress | ModbusRtuAddress | ModbusRtuTcpAddress


def _password_has_a_user(login: OpcUaServer | MqttBroker) -> Iterator[Problem]:
    if login.password_env is not None and login.username is None:
        yield Problem(("password_env",), "is given without `username`")


def _one_login(login: OpcUaServer) -> Iterator[Problem]:
    if (login.user_cert_file is None) != (login.user_key_file is None):
        given = "user_key_file" if login.user_cert_file is None else "user_cert_file"
        yield Problem((given,), "`user_cert_file` and `user_key_file` go together; only one is given")
    if login.username is not None and login.user_cert_file is not None:
        words = "a login is by `username` or by `user_cert_file`, not by both"
        yield Problem(("user_cert_file",), words, see=("username",))
    if login.user_cert_file is not None and login.security is None:
        yield Problem(("user_cert_file",), "needs `security`: without it nobody knows whom we log in to")


class OpcUaSecurity(Strict):
    """Security of an OPC UA connection. Certificates are DER or PEM, keys PEM; paths begin at the site file's folder.

    `gateway certificate make` makes our certificate and key, `gateway certificate trust` fetches the server's into
    `trust_dir`. A server is let in if its very certificate is in that folder, or an authority's that has signed it; it
    must be valid now, and name the server's application URI.
    """

    mode: Literal["sign", "sign_and_encrypt"] = Field(
        "sign_and_encrypt", description="sign: messages can't be changed, but be read on the way"
    )
    policy: Literal["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"] = Field(
        "Basic256Sha256", description="the security policy, as OPC 10000-7 names it"
    )
    cert_file: str = Field(description="our application instance certificate (OPC 10000-6, 6.2.2)")
    key_file: str = Field(description="the key of our certificate")
    trust_dir: str = Field(
        description="folder with the certificates of the servers and authorities that are trusted, and revocation lists"
    )
    server_uri: str | None = Field(None, description="the server's application URI; default what its certificate says")


def _a_port_of_tcp(server: OpcUaServer) -> Iterator[Problem]:
    port = int(server.url.removeprefix("opc.tcp://").partition("/")[0].rpartition(":")[2])
    if not 0 < port <= 65535:
        yield Problem(("url",), f"{port} is no TCP port", "a port from 1 to 65535")


class OpcUaServer(Strict):
    """An OPC UA server. Anonymous without `username` and `user_cert_file`."""

    driver: Literal["opcua"] = Field(description="chooses the protocol")
    url: Annotated[str, Field(pattern=r"^opc\.tcp://[^/]+:\d+(/.*)?$")] = Field(description="the server's endpoint")
    security: OpcUaSecurity | None = Field(None, description="signs and encrypts the connection; default neither")
    username: str | None = Field(None, description="user name; default anonymous")
    password_env: str | None = Field(None, description="environment variable that holds the password")
    user_cert_file: str | None = Field(None, description="certificate to log in with, DER or PEM")
    user_key_file: str | None = Field(None, description="the key of `user_cert_file`, PEM")
    acknowledged_plain_password: Flag = Field(
        False, description="accepts that the password goes over a connection without `security`"
    )

    rules: ClassVar[tuple[Rule, ...]] = (_password_has_a_user, _one_login, _a_port_of_tcp)


def _key_goes_with_certificate(tls: Tls) -> Iterator[Problem]:
    if (tls.cert_file is None) != (tls.key_file is None):
        given = "key_file" if tls.cert_file is None else "cert_file"
        yield Problem((given,), "`cert_file` and `key_file` go together; only one is given")


def _a_name_is_checked(tls: Tls) -> Iterator[Problem]:
    if tls.server_name is not None and not tls.check_host:
        yield Problem(("server_name",), "is given, and check_host: false has no name checked", see=("check_host",))


class Tls(Strict):
    """TLS of an MQTT connection; files are PEM, and paths begin at the site file's folder.

    The broker's certificate is always verified against `ca_file`.
    """

    ca_file: str = Field(description="certificates of the authorities that the broker's own may be signed by")
    cert_file: str | None = Field(None, description="our certificate, where the broker asks for one")
    key_file: str | None = Field(None, description="the key of our certificate")
    server_name: str | None = Field(
        None, description="the name in the broker's certificate, where that is not `host`; default `host`"
    )
    check_host: Flag = Field(
        True, description="false: whoever has a certificate of the authorities can pass for the broker"
    )

    rules: ClassVar[tuple[Rule, ...]] = (_key_goes_with_certificate, _a_name_is_checked)


class MqttBroker(Strict):
    """Where an MQTT broker is and who we are there."""

    host: Host
    port: Port = Field(1883, description="TCP port; with TLS usually 8883")
    username: str | None = Field(None, description="user name at the broker; default none")
    password_env: str | None = Field(None, description="environment variable that holds the password")
    acknowledged_plain_password: Flag = Field(
        False, description="accepts that the password crosses a network without `tls`"
    )

    tls: Tls | None = Field(None, description="encrypts the connection; default plain")

    rules: ClassVar[tuple[Rule, ...]] = (_password_has_a_user,)


class MqttDevice(MqttBroker):
    """A device behind a broker; `parameters` fill the `{name}`s of its profile's topics."""

    driver: Literal["mqtt"] = Field(description="chooses the protocol")
    parameters: dict[Name, str] = Field(
        default_factory=dict, description="text for each `{name}` in the topics of the profile"
    )


class ChildLayer(MqttBroker):
    """A gateway below this one, as its parent: one resource, over the layer interface."""

    driver: Literal["layer"] = Field(description="chooses the protocol")
    layer: Name = Field(description="`site` in the site file of the gateway below")
    source: Name = Field(description="what that file calls this gateway, in `parents`")
    heartbeat_timeout_s: Positive = Field(60.0, description="as that file says of this parent")


class ListenerTls(Strict):
    """TLS of a port at which chargers call; files are PEM, and paths begin at the site file's folder."""

    cert_file: str = Field(description="our certificate, with those of its issuers behind it")
    key_file: str = Field(description="the key of our certificate")


class OcppConnector(Strict):
    """A connector of a charger that calls us by OCPP 1.6J, at `ws://HOST:PORT/ANY/PATH/CHARGE_POINT`.

    Chargers with the same `listen_host` and `listen_port` call at the same listener, with one `tls`; connectors with
    the same `charge_point` share its connection, password and id tags.
    """

    driver: Literal["ocpp"] = Field(description="chooses the protocol")
    listen_host: Host = Field("0.0.0.0", description="our address at which chargers call; 0.0.0.0 for all we have")
    listen_port: Annotated[int, Field(strict=True, ge=0, le=65535)] = Field(
        description="TCP port at which chargers call; 0 for any that is free"
    )
    charge_point: Annotated[str, Field(pattern=r"^[^\s/:?#%]{1,48}$")] = Field(
        description="identity of the charger: the end of the address that it calls, and its user name"
    )
    connector: Annotated[int, Field(strict=True, ge=1, le=255)] = Field(1, description="which of its connectors")
    password_env: str | None = Field(
        None, description="environment variable that holds the charger's password (security profiles 1 and 2)"
    )
    id_tags: tuple[str, ...] | None = Field(
        None, description="who may start a transaction at the charger; null for everybody"
    )
    tls: ListenerTls | None = Field(None, description="encrypts the connections (security profile 2); default plain")


Address = Annotated[
    ModbusTcpAddress | ModbusRtuAddress | ModbusRtuTcpAddress | OpcUaServer | MqttDevice | OcppConnector | ChildLayer,
    Field(discriminator="driver"),
]


class CurvePoint(Strict):
    """One breakpoint of a resource's static curve, as power per unit of rating at a price."""

    price_per_kwh: Number = Field(description="price at this point")
    power_pu: Annotated[float, Field(strict=True, ge=-1, le=1)] = Field(
        description="power at that price, per unit of rating, load convention"
    )


class EvExpectation(Strict):
    """What a car that plugs in is assumed to need, where nobody says otherwise."""

    needed_wh: Positive = Field(description="energy to be charged")
    stay_s: Positive = Field(description="time from plugging in to leaving")


class Charging(Strict):
    """How gently the cars of a charger are treated. A limit comes before all of it."""

    most_pauses: Annotated[int, Field(strict=True, ge=0)] = Field(
        10, description="a car that was paused so often keeps its least current while any limit allows that"
    )
    least_on_s: NotNegative = Field(60.0, description="a car that has begun to charge goes on for so long")
    turn_s: Positive = Field(
        900.0, description="where not all can charge at once, each has its turn for so long; next is who waited longest"
    )


def _power_range(device: DeviceSite) -> Iterator[Problem]:
    if device.min_w is not None and device.max_w is not None and device.min_w > device.max_w:
        yield Problem(("min_w",), f"{device.min_w:g} is above max_w, {device.max_w:g}", see=("max_w",))


def _charge_range(device: DeviceSite) -> Iterator[Problem]:
    if device.soc_min >= device.soc_max:
        yield Problem(("soc_min",), f"{device.soc_min:g} is not below soc_max, {device.soc_max:g}", see=("soc_max",))


def _each_phase_once(device: DeviceSite) -> Iterator[Problem]:
    if len(set(device.phases)) != len(device.phases):
        yield Problem(("phases",), "names a phase twice", "1, 2, 3, each once")


def _curve_falls(device: DeviceSite) -> Iterator[Problem]:
    curve = device.curve or ()
    for at, (before, point) in enumerate(pairwise(curve), start=1):
        if point.price_per_kwh < before.price_per_kwh:
            words = f"{point.price_per_kwh:g} is below the price before it, {before.price_per_kwh:g}"
            yield Problem(("curve", at, "price_per_kwh"), words, "prices that ascend")
        if point.power_pu > before.power_pu:
            words = f"{point.power_pu:g} is above the power before it, {before.power_pu:g}"
            yield Problem(("curve", at, "power_pu"), words, "power that does not rise with price")


class DeviceSite(Strict):
    """One device: its profile, its address, its ratings and limits, and how its twin behaves on a bench."""

    profile: Annotated[
        str, Field(description="name of a shipped profile, or a path ending in .yaml beside the site file")
    ]
    address: Address = Field(description="where the device is; `driver` chooses the protocol")
    rating_w: Positive = Field(description="rated active power, a magnitude; of a meter, what it is rated to measure")
    min_w: Number | None = Field(None, description="load convention; default by kind: -rating, 0 for a charger")
    max_w: Number | None = Field(None, description="load convention; default by kind: rating, 0 for an inverter")
    phases: Annotated[tuple[Literal[1, 2, 3], ...], Field(min_length=1, max_length=3)] = Field(
        (1, 2, 3), description="the phases it is connected to"
    )
    capacity_wh: Positive | None = Field(None, description="of a battery")
    soc_min: PerUnit = Field(0.05, description="a battery is not discharged below this state of charge")
    soc_max: PerUnit = Field(0.95, description="a battery is not charged above this state of charge")
    reversion_s: Positive | None = Field(None, description="the device-side timer to arm; default from the profile")
    read_only: Flag = Field(False, description="the device is read and never written")
    acknowledged_on_silence: Flag = Field(
        False, description="the installer accepts what this device does when the gateway falls silent"
    )
    curve: Annotated[tuple[CurvePoint, ...], Field(min_length=1)] | None = Field(
        None, description="price ascending, power not rising; default by kind"
    )
    ev: EvExpectation | None = Field(None, description="of a charger: what its cars need")
    charging: Charging = Field(Charging(), description="of a charger: how often and how long its cars are paused")
    tr90_s: Positive | None = Field(None, description="measured response; default from the profile")
    dead_time_s: NotNegative | None = Field(None, description="measured dead time; default from the profile")
    shares_unit_with: Name | None = Field(
        None, description="another device at the same Modbus address: the other part of a hybrid, by its own profile"
    )
    twin: DeviceTwin = Field(DeviceTwin(), description="how its twin behaves on a bench")

    rules: ClassVar[tuple[Rule, ...]] = (_power_range, _charge_range, _each_phase_once, _curve_falls)


def _rest_range(connection: Connection) -> Iterator[Problem]:
    low, high = connection.rest_min_w, connection.rest_max_w
    if low is not None and high is not None and low > high:
        yield Problem(("rest_min_w",), f"{low:g} is above rest_max_w, {high:g}", see=("rest_max_w",))


def _within_the_rating(connection: Connection) -> Iterator[Problem]:
    for name in ("max_import_w", "max_export_w"):
        limit = getattr(connection, name)
        if limit is not None and limit > connection.rating_w:
            words = f"{limit:g} is above the connection's rating, {connection.rating_w:g}"
            yield Problem((name,), words, f"a number from 0 to {connection.rating_w:g}", see=("rating_w",))


class Connection(Strict):
    """The connection point: its rating, its meter and the installer's own limits, which no order relaxes."""

    rating_w: Positive = Field(description="rated active power of the connection, import and export")
    meter: Name = Field(description="the device that measures the connection point; its profile's kind is meter")
    phases: Literal[1, 3] = Field(3, description="phases of the connection")
    nominal_voltage_v: Positive = Field(230.0, description="from phase to neutral")
    fuse_a: Positive | None = Field(None, description="rated current of the fuse in each phase")
    max_import_w: NotNegative | None = Field(None, description="installer's static limit; default the rating")
    max_export_w: NotNegative | None = Field(None, description="installer's static limit; default the rating")
    rest_min_w: Number | None = Field(
        None, description="least power of what cannot be controlled, assumed when the meter is lost; default -rating"
    )
    rest_max_w: Number | None = Field(
        None, description="most power of what cannot be controlled, assumed when the meter is lost; default the rating"
    )
    rest_widens_pu_per_s: Positive = Field(
        0.05, description="how fast, of the rating, the uncontrolled power is assumed to move while the meter is lost"
    )

    rules: ClassVar[tuple[Rule, ...]] = (_rest_range, _within_the_rating)


class Fallback(Strict):
    """What holds before the first contact and when the parent is lost. A number, or unlimited: never left open."""

    net_import_w: NotNegative | Literal["unlimited"] = Field(description="most net import, a magnitude")
    net_export_w: NotNegative | Literal["unlimited"] = Field(description="most net export, a magnitude")


class Parent(Strict):
    """A source of orders. Limits are taken from every parent; dispatch from the one that has `dispatch: true`."""

    name: Name = Field(description="the name in its topics and in every order's source")
    broker: MqttBroker | None = Field(None, description="None: the embedded broker of a demo, given at start")
    dispatch: Flag = Field(False, description="this parent dispatches and regulates; at most one does")
    heartbeat_timeout_s: Positive = Field(60.0, description="silence after which the parent counts as lost")
    telemetry_backlog: Annotated[int, Field(strict=True, ge=0, le=100_000)] = Field(
        900, description="telemetry messages kept while the broker is away; the oldest are dropped"
    )


def _outlasts_the_period(control: ControlSettings) -> Iterator[Problem]:
    for name in ("stale_after_s", "setpoint_life_s"):
        if getattr(control, name) <= control.period_ms / 1000:
            words = f"must be longer than the period, {control.period_ms} ms"
            yield Problem((name,), words, f"a number greater than {control.period_ms / 1000:g}")


class ControlSettings(Strict):
    """The control cycle and its feedback."""

    period_ms: Annotated[int, Field(strict=True, ge=20, le=1000)] = Field(100, description="period of the cycle")
    price_per_kwh: Number = Field(0.25, description="the site's price while no dispatch names one")
    stale_after_s: Positive = Field(1.0, description="a fast sample older than this is bad")
    margin_pu: Annotated[float, Field(strict=True, ge=0, le=0.1)] = Field(
        0.002, description="of the rating, kept inside a binding limit"
    )
    setpoint_life_s: Positive = Field(2.0, description="a setpoint that has not gone out by then is dropped")
    integral_per_s: NotNegative = Field(0.5, description="gain of the slow integral of the connection point's error")
    grid_support: GridSupport = Field(
        GridSupport(), description="what the site does at abnormal voltage and frequency; default nothing"
    )
    clock: Literal["always", "synchronised"] = Field(
        "always",
        description="when the wall clock is trusted: always, or while the system calls it synchronised; while it "
        "is not, orders that relax a limit are refused",
    )

    rules: ClassVar[tuple[Rule, ...]] = (_outlasts_the_period,)


class Site(Strict):
    """One site, as deployed."""

    site: Name = Field(description="the site's name, and the layer's in topics")
    title: str = Field("", description="what people call it")
    connection: Connection = Field(description="the connection point")
    fallback: Fallback = Field(description="limits without a parent")
    control: ControlSettings = Field(ControlSettings(), description="the control cycle")
    parents: tuple[Parent, ...] = Field((), description="who may send orders")
    devices: Annotated[dict[Name, DeviceSite], Field(min_length=1)] = Field(description="the devices by name")
    planning: Planning | None = Field(None, description="a planner beside control; null: none")
    compliance: Compliance = Field(Compliance(), description="grid rules that this site follows")
    simulation: Simulation = Field(Simulation(), description="the bench's side: physics, load and weather")
