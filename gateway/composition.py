"""The composition root: from a site's devices to the drivers of their links.

The one place that names concrete drivers. A protocol's library is imported only when the site uses it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from config.profile import Profile
from config.site import Address, ChildLayer, ModbusAddress, MqttDevice, OcppConnector, OpcUaServer, Site
from config.vocabulary import Clock, FieldSink
from drivers.binding import DeviceBinding
from drivers.driver import Driver
from drivers.inspection import InspectionFailed, Inspector, Prober
from drivers.transports import Transports

if TYPE_CHECKING:
    from drivers.certificates import Certificate
    from drivers.heard import HeardRead

PATIENCE_SHARE: Final = 0.2
"""Part of the period that a device may usually take to answer its fast poll for the cycle to wait for it at all."""


def build_drivers(
    site: Site,
    profiles: Mapping[str, Profile],
    sink: FieldSink,
    clock: Clock,
    addresses: Mapping[str, Address],
    writable: Mapping[str, bool],
    transports: Transports | None = None,
    epochs: Mapping[str, int] = MappingProxyType({}),
) -> list[Driver]:
    """One driver for each link; devices behind the same endpoint share it. Mappings are by device name.

    `transports` take the place of sockets, on a bench. `epochs` has our epoch at each layer below.
    """
    links: dict[str, list[DeviceBinding]] = {}
    for binding in bind_devices(site, profiles, addresses, writable):
        links.setdefault(link_name(binding.address), []).append(binding)
    patience_s = PATIENCE_SHARE * site.control.period_ms / 1e3
    return [_driver(name, bindings, sink, clock, transports, epochs, patience_s) for name, bindings in links.items()]


def build_recorders(
    site: Site,
    profiles: Mapping[str, Profile],
    sink: FieldSink,
    clock: Clock,
    addresses: Mapping[str, Address],
    heard: Callable[[str, HeardRead], None],
) -> list[Driver]:
    """Drivers of the Modbus links alone, which only read; `heard` is told the link and every read on the wire."""
    from drivers.modbus.driver import ModbusDriver
    from drivers.modbus.endpoint import connector_of, one_endpoint, timing_of
    from drivers.modbus.tap import tapped

    links: dict[str, list[DeviceBinding]] = {}
    for binding in bind_devices(site, profiles, addresses, dict.fromkeys(site.devices, False)):
        if isinstance(binding.address, ModbusAddress):
            links.setdefault(link_name(binding.address), []).append(binding)
    drivers: list[Driver] = []
    for name, bindings in links.items():
        address = one_endpoint(binding.address for binding in bindings)
        rtu = timing_of(address) is not None
        connect = tapped(connector_of(address), partial(heard, name), clock, rtu=rtu)
        drivers.append(ModbusDriver(name, bindings, sink, clock, connect=connect))
    return drivers


def bind_devices(
    site: Site, profiles: Mapping[str, Profile], addresses: Mapping[str, Address], writable: Mapping[str, bool]
) -> list[DeviceBinding]:
    """What the drivers are told of each device, in the site's order."""
    bindings = []
    for name, device in site.devices.items():
        profile, address = profiles[name], addresses[name]
        binding = DeviceBinding(
            name,
            profile,
            address,
            device.rating_w,
            len(device.phases),
            site.connection.nominal_voltage_v,
            device.reversion_s or (profile.control.reversion_s if profile.control is not None else None),
            writable[name],
        )
        bindings.append(binding)
    return bindings


def link_name(address: Address) -> str:
    """The endpoint that makes a link; equal for devices that share one."""
    if isinstance(address, OpcUaServer):
        return address.url.rstrip("/")
    if isinstance(address, MqttDevice):
        user = f"{address.username}@" if address.username else ""
        return f"mqtt://{user}{address.host}:{address.port}"
    if isinstance(address, OcppConnector):
        return f"ocpp://{address.listen_host}:{address.listen_port}"
    if isinstance(address, ChildLayer):
        user = f"{address.username}@" if address.username else ""
        return f"layers://{user}{address.host}:{address.port}"
    from drivers.modbus.endpoint import endpoint_name

    return endpoint_name(address)


def _driver(
    name: str,
    bindings: list[DeviceBinding],
    sink: FieldSink,
    clock: Clock,
    transports: Transports | None,
    epochs: Mapping[str, int],
    patience_s: float,
) -> Driver:
    address = bindings[0].address
    rng = None if transports is None else transports.rng(name)
    if isinstance(address, ModbusAddress):
        from drivers.modbus.driver import ModbusDriver

        return ModbusDriver(name, bindings, sink, clock, rng=rng, patience_s=patience_s)
    if isinstance(address, OpcUaServer):
        from drivers.opcua.driver import OpcUaDriver

        return OpcUaDriver(name, bindings, sink, clock, rng, None if transports is None else transports.opcua)
    if isinstance(address, OcppConnector):
        from drivers.ocpp.driver import OcppDriver

        return OcppDriver(name, bindings, sink, clock, rng, time.time if transports is None else transports.utc)
    if isinstance(address, ChildLayer):
        from drivers.layer.driver import LayerDriver
        from drivers.mqtt.connection import MqttConnection

        if transports is None:
            return LayerDriver(name, bindings, sink, clock, time.time, epochs, MqttConnection)
        return LayerDriver(name, bindings, sink, clock, transports.utc, epochs, transports.mqtt, rng)
    from drivers.mqtt.driver import MqttDriver

    if transports is None:
        return MqttDriver(name, bindings, sink, clock)
    return MqttDriver(name, bindings, sink, clock, rng, transports.mqtt)


@asynccontextmanager
async def open_inspector(
    profile: Profile, address: Address, clock: Clock, tell: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Inspector]:
    """Look at one device by hand, over a connection of its own; raises InspectionFailed where there is none.

    `tell` hears what is waited for, where that takes long.
    """
    if isinstance(address, ModbusAddress):
        from drivers.modbus.inspection import ModbusInspector, modbus_line

        async with modbus_line(address, profile.pace.connect_pause_s, profile.pace.request_gap_s) as line:
            yield ModbusInspector(profile, address.unit, line, clock)
    elif isinstance(address, OpcUaServer):
        from drivers.opcua.inspection import opcua_inspector

        async with opcua_inspector(profile, address, clock) as inspector:
            yield inspector
    elif isinstance(address, OcppConnector):
        from drivers.ocpp.inspection import ocpp_inspector

        async with ocpp_inspector(profile, address, clock, tell) as inspector:
            yield inspector
    elif isinstance(address, ChildLayer):
        raise InspectionFailed(f"layer {address.layer} is a gateway: `gateway watch {address.layer}` looks at it")
    else:
        from drivers.mqtt.inspection import mqtt_inspector

        async with mqtt_inspector(profile, address, clock) as inspector:
            yield inspector


def serial_port_problem(device: str) -> str:
    """Why a path can't be a serial port that this user may open; empty where it may be one. Opens nothing."""
    from drivers.modbus.port_refusals import port_refusal

    try:
        mode = Path(device).stat().st_mode
    except OSError as error:
        return port_refusal(error.errno or errno.EIO, device)
    if not stat.S_ISCHR(mode):
        return f"{device} is no serial port"
    return "" if os.access(device, os.R_OK | os.W_OK) else port_refusal(errno.EACCES, device)


@asynccontextmanager
async def open_prober(address: ModbusAddress, clock: Clock, timeout_s: float) -> AsyncIterator[Prober]:
    """Look for the units behind a Modbus address, whose own unit does not matter."""
    from drivers.modbus.inspection import modbus_line
    from drivers.modbus.prober import ModbusProber

    async with modbus_line(address) as line:
        yield ModbusProber(line, clock, timeout_s)


async def opcua_server_identity(address: OpcUaServer, timeout_s: float) -> tuple[str, Certificate, str | None]:
    """What an OPC UA server says it is, trusted or not: application URI, certificate, and why it can't be used.

    Raises InspectionFailed where it doesn't say so.
    """
    from drivers.opcua.inspection import server_identity

    return await server_identity(address, timeout_s)
