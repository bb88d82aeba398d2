"""What a site file may say of passwords and encryption: pure checks on what of it validates."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from config.findings import Path, Problem, Severity
from config.partial import NotKnownError, known
from config.site import MqttBroker, OpcUaServer, Site
from config.strict import Rule

_ONE_LOGIN: Final = ("password_env", "tls", "acknowledged_plain_password")


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host never leaves this machine."""
    name = host.lower().rstrip(".")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def password_is_plain(login: OpcUaServer | MqttBroker) -> bool:
    """Whether a login's password would go over an unencrypted connection that nobody has accepted.

    With OPC UA that holds on this machine, too: a server there is a program of somebody else's as often as not.
    """
    if login.password_env is None or login.acknowledged_plain_password:
        return False
    if isinstance(login, MqttBroker):
        return login.tls is None and not is_loopback(login.host)
    return login.security is None


def connections(site: Site) -> Iterator[tuple[Path, Any]]:
    """Every address of a device and every parent's broker that holds enough to be told by its kind, with its path."""
    if known(site, "devices"):
        for name, device in site.devices.items():
            if known(device, "address") and known(device.address, "driver"):
                yield ("devices", name, "address"), device.address
    if known(site, "parents"):
        for at, parent in enumerate(site.parents):
            if known(parent, "broker") and parent.broker is not None:
                yield ("parents", at, "broker"), parent.broker


def driver_of(connection: Any) -> str:
    """The protocol of an address or of a parent's broker, be it whole or partial."""
    # A broker by itself has no such field, and a partial one doesn't know it.
    return "mqtt" if isinstance(connection, MqttBroker) or not known(connection, "driver") else str(connection.driver)


def _passwords_are_encrypted(site: Site) -> Iterator[Problem]:
    for path, login in connections(site):
        if isinstance(login, OpcUaServer | MqttBroker) and password_is_plain(login):
            section = "security" if isinstance(login, OpcUaServer) else "tls"
            words = f"would go over the network unencrypted: there is no `{section}`"
            allowed = f"a section `{section}`, or acknowledged_plain_password: true"
            yield Problem((*path, "password_env"), words, allowed)


def _hosts_are_checked(site: Site) -> Iterator[Problem]:
    for path, broker in connections(site):
        if driver_of(broker) != "mqtt" or not known(broker, "tls") or broker.tls is None:
            continue
        if known(broker.tls, "check_host") and not broker.tls.check_host:
            words = "false: whoever has a certificate of the same authorities can pass for the broker"
            allowed = "true, with server_name where the certificate has another name than `host`"
            yield Problem((*path, "tls", "check_host"), words, allowed, Severity.WARNING)


def _devices_agree_on_their_broker(site: Site) -> Iterator[Problem]:
    first: dict[tuple[object, ...], tuple[Path, Any]] = {}
    for path, broker in connections(site):
        if path[0] != "devices" or driver_of(broker) != "mqtt" or not known(broker, "host", "port", "username"):
            continue
        other_path, other = first.setdefault((broker.host, broker.port, broker.username), (path, broker))
        for field in _ONE_LOGIN:
            if known(broker, field) and known(other, field) and getattr(broker, field) != getattr(other, field):
                words = f"is not that of device '{other_path[1]}' with the same login at the same broker"
                yield Problem((*path, field), words, see=(*other_path, field))


class UnsetPassword(NamedTuple):
    """A password that the site file names and the environment does not have; `place` is where it is named."""

    place: Path
    variable: str


def unset_passwords(site: Site, environment: Mapping[str, str]) -> list[UnsetPassword]:
    """Every password of a device or a parent's broker that an environment does not have."""
    found = []
    for path, login in connections(site):
        try:
            variable = getattr(login, "password_env", None)
        except NotKnownError:
            continue
        if variable is not None and variable not in environment:
            found.append(UnsetPassword((*path, "password_env"), variable))
    return found


SECURITY_RULES: Final[tuple[Rule, ...]] = (
    _passwords_are_encrypted,
    _hosts_are_checked,
    _devices_agree_on_their_broker,
)
