"""What faults can be set on in a site: devices, parents and the parents' broker, and which share a connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from config.profile import Profile
from config.site import Address, ModbusRtuAddress, OcppConnector, OpcUaServer, Site
from sim_devices.faults.fault import FaultError, Target, make_fault
from sim_devices.faults.points import KnownDevice, known_device
from sim_devices.faults.registry import MQTT, PARENT

BROKER: Final = "broker"
"""The connection to the parents' broker, as a name that faults can be set on."""

LinkKey: TypeAlias = tuple[str, ...]
"""What the devices on one connection have in common."""

_ADDRESS: Final[TypeAdapter[Address]] = TypeAdapter(Address)
_OPCUA_PORT: Final = 4840


class Link(NamedTuple):
    """A connection and the devices behind it."""

    address: Address
    devices: list[KnownDevice]


def check_fault(
    site: Site, profiles: Mapping[str, Profile], device: str, fault: str, parameters: Mapping[str, Any] | None = None
) -> None:
    """Whether a fault could be set on a device, a parent or the broker of a site; raises FaultError with the reason."""
    targets = fault_targets(site, profiles)
    if device not in targets:
        raise FaultError(f"no device {device!r}; there are {', '.join(targets)}")
    make_fault(fault, targets[device], parameters or {})


def fault_targets(site: Site, profiles: Mapping[str, Profile]) -> dict[str, Target]:
    """What faults can be set on in a site, by name."""
    links = links_of(site, profiles, addresses_of(site, {}))
    return {
        **parent_targets(site),
        **{device.name: target_of(device, link) for link in links.values() for device in link.devices},
    }


def parent_targets(site: Site) -> dict[str, Target]:
    """Likewise, of the parents and their broker alone."""
    names = [parent.name for parent in site.parents]
    parents = {name: Target((PARENT, MQTT), name, parent=name, understood=True) for name in names}
    return {**parents, BROKER: Target((MQTT, PARENT), BROKER, understood=True)}


def target_of(device: KnownDevice, link: Link) -> Target:
    shared = len({other.unit for other in link.devices}) > 1
    unit = device.unit if shared else None
    plain = not isinstance(device.address, OcppConnector) or device.address.tls is None
    return Target((device.address.driver,), device.name, device, unit, understood=plain)


def addresses_of(site: Site, twins: Mapping[str, Any]) -> dict[str, Address]:
    given = twins.get("endpoints", {})
    addresses: dict[str, Address] = {}
    for name, device in site.devices.items():
        try:
            addresses[name] = _ADDRESS.validate_python(given[name]) if name in given else device.address
        except ValidationError as error:
            raise FaultError(f"endpoints.{name}: {error.errors(include_url=False)[0]['msg']}") from None
    return addresses


def links_of(site: Site, profiles: Mapping[str, Profile], addresses: Mapping[str, Address]) -> dict[LinkKey, Link]:
    links: dict[LinkKey, Link] = {}
    for name, address in addresses.items():
        if isinstance(address, OcppConnector) and not address.listen_port:
            continue
        place = (address.device,) if isinstance(address, ModbusRtuAddress) else map(str, place_of(address))
        link = links.setdefault((address.driver, *place), Link(address, []))
        link.devices.append(known_device(site, profiles[name], name, address))
    return links


def place_of(address: Address) -> tuple[str, int]:
    if isinstance(address, OpcUaServer):
        parts = urlsplit(address.url)
        return parts.hostname or "127.0.0.1", parts.port or _OPCUA_PORT
    if isinstance(address, OcppConnector):
        return address.listen_host, address.listen_port
    assert not isinstance(address, ModbusRtuAddress)
    return address.host, address.port
