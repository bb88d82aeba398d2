"""The servers of a site's twins: which profile gets which, and where they listen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

from config.site import (
    ChildLayer,
    DeviceSite,
    ModbusRtuAddress,
    ModbusRtuTcpAddress,
    ModbusTcpAddress,
    MqttDevice,
    OcppConnector,
    OpcUaServer,
    Site,
)
from config.vocabulary import Clock, DeviceKind, UtcClock
from sim_devices.line_endpoints import LineEndpoints
from sim_devices.modbus import MODBUS_TWINS, ModbusTwin, make_unit, start_modbus_twin
from sim_devices.models import BatteryModel, ChargerModel
from sim_devices.physics import SitePhysics
from sim_devices.port_holders import reason

if TYPE_CHECKING:
    from sim_devices.modbus.server import ModbusServer
    from sim_devices.ocpp_endpoints import OcppEndpoints
    from sim_devices.opcua_endpoints import SecuredEndpoint
    from sim_devices.opcua_in_process import InProcessOpcUa

Ports: TypeAlias = Literal["declared", "free"]

KIND_BY_PROFILE: Final[Mapping[str, DeviceKind]] = {
    **{profile: twin.kind for profile, twin in MODBUS_TWINS.items()},
    "opcua_battery": DeviceKind.BATTERY,
    "goe_charger": DeviceKind.CHARGER,
    "shelly_pro_3em": DeviceKind.METER,
    "ocpp16_charger": DeviceKind.CHARGER,
}
"""The profiles that have a twin."""

DRIVER_BY_PROFILE: Final[Mapping[str, str]] = {
    "opcua_battery": "opcua",
    "goe_charger": "mqtt",
    "shelly_pro_3em": "mqtt",
    "ocpp16_charger": "ocpp",
}
"""The protocol of a profile's twin, where it isn't Modbus."""

MODBUS_DRIVERS: Final = ("modbus_tcp", "modbus_rtu", "modbus_rtu_tcp")

LOOPBACK: Final = "127.0.0.1"


class TwinError(Exception):
    """The twins of this site can't run; the text names the device and the reason."""


def twin_kinds(site: Site, names: Sequence[str] | None) -> dict[str, DeviceKind]:
    """The kinds of the named devices; raises TwinError listing every device that can't have a twin.

    None: all but the layers below, which are sites of their own.
    """
    faults: list[str] = []
    kinds: dict[str, DeviceKind] = {}
    charge_points: set[str] = set()
    everyone = [name for name, device in site.devices.items() if not isinstance(device.address, ChildLayer)]
    for name in everyone if names is None else names:
        device = site.devices.get(name)
        if device is None:
            faults.append(f"{name}: the site has no such device; it has {', '.join(site.devices)}")
        elif device.profile not in KIND_BY_PROFILE:
            faults.append(f"{name}: no twin for profile {device.profile}; there are {', '.join(KIND_BY_PROFILE)}")
        elif device.address.driver not in (drivers := _drivers(device.profile)):
            said = " or ".join(drivers)
            faults.append(f"{name}: the twin of profile {device.profile} speaks {said}, not {device.address.driver}")
        elif fault := _address_fault(device, charge_points):
            faults.append(f"{name}: {fault}")
        else:
            kinds[name] = KIND_BY_PROFILE[device.profile]
    if faults:
        raise TwinError("\n".join(faults))
    return kinds


def _address_fault(device: DeviceSite, charge_points: set[str]) -> str | None:
    """What is wrong with what the twin is known by; `charge_points` are those of the twins before it."""
    address = device.address
    if isinstance(address, OcppConnector):
        if address.connector != 1:
            return "address.connector: the twin's charge point has connector 1 alone"
        if address.charge_point in charge_points:
            return f"address.charge_point: {address.charge_point} is another twin's already"
        charge_points.add(address.charge_point)
    elif isinstance(address, MqttDevice) and device.profile == "shelly_pro_3em":
        prefix = address.parameters.get("topic_prefix", "")
        if not prefix or any(character in prefix for character in "+#\0"):
            return "address.parameters.topic_prefix: the meter's topics need one, without wildcards"
    elif isinstance(address, MqttDevice) and not address.parameters.get("serial", "").isalnum():
        return "address.parameters.serial: the charger's topics need one, of letters and digits"
    return None


def _drivers(profile: str) -> tuple[str, ...]:
    """The protocols that the twin of a profile speaks."""
    driver = DRIVER_BY_PROFILE.get(profile)
    return MODBUS_DRIVERS if driver is None else (driver,)


class _Client(Protocol):
    """A twin that connects to somebody."""

    async def run(self) -> None:
        """Connect and reconnect until cancelled."""


@dataclass(frozen=True, slots=True)
class WithinProcess:
    """What serves twins that are reached without a network, on virtual time.

    `new_client` makes clients of a broker, called as `aiomqtt.Client` is; `opcua` gets the OPC UA servers by device.
    """

    new_client: Callable[..., Any]
    utc: UtcClock
    opcua: dict[str, InProcessOpcUa] = field(default_factory=dict)


class Endpoints:
    """Starts servers for the twins of a physics, and closes them when left; `addresses` is what the gateway is given.

    With ports `declared` they listen where the site file says, else on free ports of loopback. `mqtt` names a broker
    that is used instead of the declared ones; `within` takes the place of sockets where the loop has none. Raises
    TwinError when an address can't be had.
    """

    def __init__(
        self,
        site: Site,
        physics: SitePhysics,
        clock: Clock,
        *,
        ports: Ports,
        mqtt: tuple[str, int] | None = None,
        within: WithinProcess | None = None,
    ) -> None:
        self.addresses: dict[str, dict[str, Any]] = {}
        self.servers: dict[str, ModbusServer] = {}
        self._on_lines: dict[str, ModbusServer] = {}
        self._within = within
        self._site = site
        self._physics = physics
        self._clock = clock
        self._ports = ports
        self._mqtt = mqtt
        self._modbus: dict[tuple[str, int], ModbusTwin] = {}
        self._clients: dict[str, _Client] = {}
        self._ocpp: OcppEndpoints | None = None
        self._stack = AsyncExitStack()
        self._lines = LineEndpoints(self._stack, declared=ports == "declared")

    async def __aenter__(self) -> Endpoints:
        try:
            for name in (*self._physics.meters, *self._physics.devices):
                await self._start(name, self._site.devices[name])
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def counts(self) -> dict[str, dict[str, int]]:
        """What each Modbus twin's server has seen since its start; devices behind one server share its counts."""
        return {name: asdict(server.counts) for name, server in (self.servers | self._on_lines).items()}

    def run_clients(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start the twins that are clients of a broker or of the gateway; each runs until its task is cancelled."""
        return [tasks.create_task(client.run(), name=f"twin {name}") for name, client in self._clients.items()]

    async def _start(self, name: str, device: DeviceSite) -> None:
        match device.address:
            case ModbusTcpAddress() as address:
                await self._start_modbus(name, device.profile, address)
            case ModbusRtuAddress() | ModbusRtuTcpAddress() as address:
                await self._start_on_line(name, device.profile, address)
            case OpcUaServer() as address:
                await self._start_opcua(name, address)
            case MqttDevice() as address:
                self._prepare_mqtt(name, device.profile, address)
            case OcppConnector() as address:
                self._prepare_ocpp(name, address)

    async def _start_modbus(self, name: str, profile: str, address: ModbusTcpAddress) -> None:
        declared = (address.host, address.port)
        model = self._physics.meters.get(name) or self._physics.devices[name]
        twin = self._modbus.get(declared)
        if twin is not None:
            try:
                twin.add_unit(profile, model, unit=address.unit)
            except ValueError as error:
                raise TwinError(f"{name}: {address.host}:{address.port}: {error}") from error
        else:
            host, port = declared if self._ports == "declared" else (LOOPBACK, 0)
            try:
                twin = await start_modbus_twin(
                    profile, model, host=host, port=port, unit=address.unit, clock=self._clock, site=self._site.site
                )
            except OSError as error:
                raise TwinError(f"{name}: {host}:{port}: {reason(error, port)}") from error
            self._stack.push_async_callback(twin.close)
            self._modbus[declared] = twin
        self.servers[name] = twin.server
        self.addresses[name] = {"driver": address.driver, "host": twin.host, "port": twin.port, "unit": address.unit}

    async def _start_on_line(self, name: str, profile: str, address: ModbusRtuAddress | ModbusRtuTcpAddress) -> None:
        model = self._physics.meters.get(name) or self._physics.devices[name]
        unit = make_unit(profile, model, clock=self._clock, site=self._site.site)
        try:
            self.addresses[name] = await self._lines.serve(unit, address)
            self._on_lines[name] = self._lines.server_of(address)
        except ValueError as error:
            raise TwinError(f"{name}: {error}") from error
        except OSError as error:
            place = address.device if isinstance(address, ModbusRtuAddress) else f"{address.host}:{address.port}"
            raise TwinError(f"{name}: {place}: {_reason(error)}") from error

    async def _start_opcua(self, name: str, address: OpcUaServer) -> None:
        model = self._physics.devices[name]
        assert isinstance(model, BatteryModel)
        if self._within is not None:
            self._start_opcua_within(name, model, self._within)
            return
        # Imported for sites that use it alone: it costs 80 MB and a second.
        from sim_devices.opcua_battery import OpcUaBattery

        host, port = LOOPBACK, 0
        if self._ports == "declared":
            parts = urlsplit(address.url)
            host, port = parts.hostname or LOOPBACK, parts.port or 0
        endpoint = await self._secured(name, address, host)
        server = OpcUaBattery(model, self._clock, host=host, port=port, security=endpoint.security)
        try:
            await self._stack.enter_async_context(server)
        except OSError as error:
            raise TwinError(f"{name}: {host}:{port}: {reason(error, port)}") from error
        self.addresses[name] = {"driver": address.driver, "url": server.url, **endpoint.told}

    async def _secured(self, name: str, address: OpcUaServer, host: str) -> SecuredEndpoint:
        from sim_devices.opcua_endpoints import SecuredEndpoint, secured_endpoint

        if address.security is None:
            return SecuredEndpoint()
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="lamina-twin-")))
        declared = self._ports == "declared"
        try:
            return await asyncio.to_thread(secured_endpoint, name, address, folder, host=host, declared=declared)
        except ValueError as error:
            raise TwinError(f"{name}: {error}") from error
        except OSError as error:
            raise TwinError(f"{name}: {error.filename}: {error.strerror}") from error

    def _start_opcua_within(self, name: str, model: BatteryModel, within: WithinProcess) -> None:
        from sim_devices.opcua_in_process import InProcessOpcUa

        server = within.opcua[name] = InProcessOpcUa(model, self._clock, within.utc)
        server.start()
        self._stack.callback(server.stop)
        self.addresses[name] = {"driver": "opcua", "url": f"opc.tcp://{name}:4840/"}

    def _prepare_mqtt(self, name: str, profile: str, address: MqttDevice) -> None:
        if self._mqtt is None and address.tls is not None:
            raise TwinError(f"{name}: address.tls: twins speak plain MQTT; --mqtt HOST:PORT names a broker for them")
        host, port = self._mqtt or (address.host, address.port)
        login = address if self._mqtt is None else None
        broker: dict[str, Any] = {
            "host": host,
            "port": port,
            "username": login.username if login else None,
            "password": os.environ.get(login.password_env) if login and login.password_env else None,
            "seed": self._site.simulation.seed,
            "new_client": self._within.new_client if self._within is not None else None,
        }
        if profile == "shelly_pro_3em":
            from sim_devices.shelly_meter import ShellyMeter

            prefix = address.parameters["topic_prefix"]
            meter = self._physics.meters[name]
            self._clients[name] = ShellyMeter(meter, self._clock, topic_prefix=prefix, **broker)
        else:
            from sim_devices.mqtt_charger import MqttCharger

            model = self._physics.devices[name]
            assert isinstance(model, ChargerModel)
            self._clients[name] = MqttCharger(model, self._clock, serial=address.parameters["serial"], **broker)
        self.addresses[name] = {
            "driver": address.driver,
            "host": host,
            "port": port,
            "parameters": dict(address.parameters),
        }

    def _prepare_ocpp(self, name: str, address: OcppConnector) -> None:
        if self._within is not None:
            raise TwinError(f"{name}: a charger that calls by OCPP needs sockets, and there are none here")
        model = self._physics.devices[name]
        assert isinstance(model, ChargerModel)
        if self._ocpp is None:
            # Imported for sites that use it alone.
            from sim_devices.ocpp_endpoints import OcppEndpoints

            seed = self._site.simulation.seed
            self._ocpp = OcppEndpoints(self._stack, self._clock, declared=self._ports == "declared", seed=seed)
        try:
            self._clients[name], self.addresses[name] = self._ocpp.charger(model, address)
        except ValueError as error:
            raise TwinError(f"{name}: {error}") from error
        except OSError as error:
            raise TwinError(f"{name}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    # uvloop and asyncio wrap the message around the address, which is named already.
    return os.strerror(error.errno) if error.errno else str(error)
