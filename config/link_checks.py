"""What `gateway check` says of links: devices behind one endpoint share a link only where they call it the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from config.findings import Path, Problem, Severity, dotted
from config.partial import NotKnownError, known
from config.security_checks import connections, driver_of
from config.site import DeviceSite, Site

_LOOPBACK: Final = frozenset({"localhost", "::1", "127.0.0.1"})
_FIELDS: Final = {
    "modbus_tcp": ("host", "port"),
    "modbus_rtu_tcp": ("host", "port"),
    "mqtt": ("host", "port"),
    "opcua": ("url",),
}
_PROTOCOLS: Final = {
    "modbus_tcp": "Modbus",
    "modbus_rtu_tcp": "Modbus",
    "mqtt": "MQTT",
    "layer": "MQTT",
    "opcua": "OPC UA",
}
_WITH_PORT: Final = re.compile(r"(?P<host>[^:\[\]]+|\[.*\]):(?P<port>\d+)")
_EVERYWHERE: Final = "0.0.0.0"


def host_of(name: str) -> str:
    """A host by one name, of those that are known to be the same: in lower case, and loopback as 127.0.0.1."""
    plain = name.lower().rstrip(".").strip("[]")
    return "127.0.0.1" if plain in _LOOPBACK else plain


def links_have_one_name(site: Site) -> Iterator[Problem]:
    """A link of its own for each name of one host: two connections where the device may take one."""
    first: dict[tuple[object, ...], tuple[str, str]] = {}
    for name, device in site.devices.items():
        endpoint = _endpoint(device.address) if known(device, "address") else None
        if endpoint is None:
            continue
        place, host, field = endpoint
        other, called = first.setdefault(place, (name, host))
        if host != called and not _are_one(device, site.devices[other]):
            words = f"names the host {host}, and device '{other}' names it {called}: each name is a link of its own"
            see = ("devices", other, "address", field)
            yield Problem(("devices", name, "address", field), words, called, Severity.WARNING, see=see)


def hosts_have_no_port(site: Site) -> Iterator[Problem]:
    """A host with its port behind it would be looked up as a name."""
    for path, address in connections(site):
        try:
            match = _WITH_PORT.fullmatch(getattr(address, "host", ""))
        except NotKnownError:
            continue
        if match is not None:
            yield Problem(
                (*path, "host"), f"'{match[0]}' has the port in it", f"{match['host']}, with port: {match['port']}"
            )


class _Place(NamedTuple):
    """A port and what is there: a server of another, or `listens`, a listener of ours for chargers."""

    path: Path
    host: str
    port: int
    protocol: str
    listens: bool


def ports_have_one_use(site: Site) -> Iterator[Problem]:
    """Two listeners can't have one port, nor can a listener and a server on this machine, nor two protocols."""
    places: list[_Place] = []
    for path, address in connections(site):
        place = _place_of(path, address)
        if place is None:
            continue
        other = next((other for other in places if _collide(place, other)), None)
        if other is not None:
            yield Problem(place.path, _collision(place, other), "another port", see=other.path)
        places.append(place)


def _place_of(path: Path, address: Any) -> _Place | None:
    driver = driver_of(address)
    if driver == "ocpp":
        if not known(address, "listen_host", "listen_port") or not address.listen_port:
            return None
        return _Place((*path, "listen_port"), address.listen_host, address.listen_port, "OCPP", True)
    fields = _FIELDS.get("mqtt" if driver == "layer" else driver)
    if fields is None or not known(address, *fields):
        return None
    host, port = (address.host, address.port) if fields[0] == "host" else _of_url(address.url)
    return None if port is None else _Place((*path, fields[-1]), host, port, _PROTOCOLS[driver], False)


def _collide(place: _Place, other: _Place) -> bool:
    if place.port != other.port:
        return False
    hosts = {host_of(place.host), host_of(other.host)}
    if place.listens and other.listens:
        # Devices with the very same words share one listener.
        return place.host != other.host and (len(hosts) == 1 or _EVERYWHERE in hosts)
    if place.listens or other.listens:
        return len(hosts) == 1 or hosts == {_EVERYWHERE, "127.0.0.1"}
    return len(hosts) == 1 and place.protocol != other.protocol


def _collision(place: _Place, other: _Place) -> str:
    if place.listens and other.listens:
        return f"{place.host}:{place.port} and {other.host}:{other.port} are two listeners on one port"
    said = [f"we listen for {p.protocol}" if p.listens else f"{p.protocol} is expected" for p in (place, other)]
    words = f"{said[0]} at {place.host}:{place.port}, and {said[1]} at {other.host}:{other.port}"
    return f"{words} by {dotted(other.path[:2])}"


def _are_one(device: DeviceSite, other: DeviceSite) -> bool:
    """Whether both are one device, which is another mistake; two parts of one unit are not."""
    if not known(device, "shares_unit_with") or not known(other, "shares_unit_with"):
        return True
    rest = [each.address.model_dump(exclude={"host", "url"}) for each in (device, other)]
    return rest[0] == rest[1] and device.shares_unit_with is None and other.shares_unit_with is None


def _endpoint(address: Any) -> tuple[tuple[object, ...], str, str] | None:
    """The endpoint under one name, the host as it is written, and the field it is in; None where it has no host."""
    fields = _FIELDS.get(address.driver) if known(address, "driver") else None
    if fields is None or not known(address, *fields):
        return None
    host, port = (address.host, address.port) if fields[0] == "host" else _of_url(address.url)
    return (address.driver, host_of(host), port), host, fields[0]


def _of_url(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url)
    host = parts.netloc.rpartition(":")[0].rpartition("@")[2]
    try:
        return host, parts.port
    except ValueError:
        # Beyond 65535, which is a mistake of its own.
        return host, None
