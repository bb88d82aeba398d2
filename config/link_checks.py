"""What `gateway check` says of links: devices behind one endpoint share a link only where they call it the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from config.findings import Problem, Severity
from config.partial import known
from config.site import DeviceSite, Site

_LOOPBACK: Final = frozenset({"localhost", "::1", "127.0.0.1"})
_FIELDS: Final = {
    "modbus_tcp": ("host", "port"),
    "modbus_rtu_tcp": ("host", "port"),
    "mqtt": ("host", "port"),
    "opcua": ("url",),
}


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
    return host, parts.port
