"""What a site file must mean, beyond what its schema can say: pure checks on what of it validates.

Each check is a rule over whole models or partials; one that needs a value that did not validate says nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from config.compliance import compliance_names
from config.findings import Path, Problem, Severity, did_you_mean, shown
from config.grid_support_checks import grid_support_is_measured
from config.layer_checks import LAYER_RULES
from config.link_checks import host_of, hosts_have_no_port, links_have_one_name, ports_have_one_use
from config.network import network_devices_are_there
from config.partial import broken, known
from config.planning import planned_storages_are_there
from config.profile import Profile
from config.security_checks import SECURITY_RULES
from config.site import DeviceSite, MqttDevice, OcppConnector, OpcUaServer, Parent, Site
from config.strict import Rule
from config.vocabulary import DeviceKind

MODBUS_DRIVERS: Final = ("modbus_tcp", "modbus_rtu", "modbus_rtu_tcp")
DRIVERS: Final = {
    "modbus": MODBUS_DRIVERS,
    "opcua": ("opcua",),
    "mqtt": ("mqtt",),
    "ocpp": ("ocpp",),
    "layer": ("layer",),
}
_LINE_SETTINGS: Final = {"modbus_rtu": ("baud", "parity", "stop_bits")}


def site_problems(
    site: Site, profiles: Mapping[str, Profile], series: Collection[str] | None = None
) -> Iterator[Problem]:
    """Every problem of a site, given the profiles that could be loaded and the names of the series' columns."""
    for rule in SITE_RULES:
        yield from broken(rule, site)
    yield from broken(_load_series, site, series)
    if not known(site, "devices"):
        return
    yield from broken(_meter_is_a_meter, site, profiles)
    yield from broken(grid_support_is_measured, site, profiles)
    for name, device in site.devices.items():
        at = ("devices", name)
        yield from (problem.under(at) for problem in broken(_twin_series, device, series))
        profile = profiles.get(device.profile) if known(device, "profile") else None
        if profile is not None:
            found = (problem for rule in DEVICE_RULES for problem in broken(rule, device, profile))
            yield from (problem.under(at) for problem in found)
            yield from broken(_phases_are_there, name, device, profile, site)


# The site as a whole


def _one_device_to_an_address(site: Site) -> Iterator[Problem]:
    first: dict[tuple[object, ...], str] = {}
    for name, device in site.devices.items():
        place = _place(device) if known(device, "address") else None
        if place is None:
            continue
        other = first.setdefault(place, name)
        if other != name and not _are_parts_of_one(name, other, site):
            words = f"the same address as device '{other}'"
            yield Problem(("devices", name, "address"), words, see=("devices", other, "address"))


def _are_parts_of_one(name: str, other: str, site: Site) -> bool:
    one, two = site.devices[name], site.devices[other]
    if not (known(one, "shares_unit_with", "profile") and known(two, "shares_unit_with", "profile")):
        return False
    named = one.shares_unit_with == other or two.shares_unit_with == name
    return named and one.address.driver in MODBUS_DRIVERS and one.profile != two.profile


def _the_unit_is_shared(site: Site) -> Iterator[Problem]:
    for name, device in site.devices.items():
        other = device.shares_unit_with if known(device, "shares_unit_with", "address") else None
        if other is None:
            continue
        path, others = ("devices", name, "shares_unit_with"), [each for each in site.devices if each != name]
        if other not in others:
            yield Problem(path, f"{shown(other)} is not another device{did_you_mean(other, others)}", ", ".join(others))
        elif known(site.devices[other], "address") and _place(device) != _place(site.devices[other]):
            words = f"device '{other}' has another address"
            yield Problem(path, words, see=("devices", other, "address"))


def _place(device: DeviceSite) -> tuple[object, ...] | None:
    """What two devices must not share; None where it did not validate."""
    address: Any = device.address
    if not known(address, "driver"):
        return None
    if _is_modbus(device):
        line = _line(address)
        return None if line is None or not known(address, "unit") else (*line, address.unit)
    if address.driver == "opcua":
        return _opcua_place(address) if known(address, "url") else None
    if address.driver == "ocpp":
        charger = _charge_point(address)
        return (*charger, address.connector) if charger is not None and known(address, "connector") else None
    if address.driver == "layer":
        return None
    named = known(address, "host", "port", "parameters") and known(device, "profile")
    return _mqtt_place(address, device.profile) if named else None


def _line(address: Any) -> tuple[object, ...] | None:
    """The serial line or the server that Modbus units share; None where it did not validate."""
    if address.driver == "modbus_rtu":
        return ("serial", posixpath.normpath(address.device)) if known(address, "device") else None
    return ("tcp", host_of(address.host), address.port) if known(address, "host", "port") else None


def _devices_agree_on_their_line(site: Site) -> Iterator[Problem]:
    first: dict[tuple[object, ...], str] = {}
    for name, device in site.devices.items():
        modbus = known(device, "address") and known(device.address, "driver") and _is_modbus(device)
        line = _line(device.address) if modbus else None
        if line is None:
            continue
        other = first.setdefault(line, name)
        one, two = device.address, site.devices[other].address
        for field in ("driver", *_LINE_SETTINGS.get(one.driver, ())):
            if known(one, field) and known(two, field) and getattr(one, field) != getattr(two, field):
                words = f"{getattr(one, field)}, and device '{other}' on the same line has {getattr(two, field)}"
                see = ("devices", other, "address", field)
                yield Problem(("devices", name, "address", field), words, str(getattr(two, field)), see=see)
                break


def _listener(address: Any) -> tuple[object, ...] | None:
    """The port at which an OCPP charger calls; None where it did not validate."""
    if not known(address, "listen_host", "listen_port"):
        return None
    return ("ocpp", host_of(address.listen_host), address.listen_port)


def _charge_point(address: Any) -> tuple[object, ...] | None:
    listener = _listener(address)
    return (*listener, address.charge_point) if listener is not None and known(address, "charge_point") else None


def _chargers_agree_on_their_listener(site: Site) -> Iterator[Problem]:
    shared = ((_listener, "listener", ("tls",)), (_charge_point, "charge point", ("password_env", "id_tags")))
    for place_of, what, fields in shared:
        first: dict[tuple[object, ...], str] = {}
        for name, device in site.devices.items():
            place = place_of(device.address) if _is_ocpp(device) else None
            if place is None:
                continue
            other = first.setdefault(place, name)
            one, two = device.address, site.devices[other].address
            for field in fields:
                if known(one, field) and known(two, field) and getattr(one, field) != getattr(two, field):
                    words = f"is not that of device '{other}' at the same {what}"
                    see = ("devices", other, "address", field)
                    yield Problem(("devices", name, "address", field), words, see=see)


def _is_ocpp(device: DeviceSite) -> bool:
    return known(device, "address") and known(device.address, "driver") and device.address.driver == "ocpp"


def _is_modbus(device: DeviceSite) -> bool:
    return device.address.driver in MODBUS_DRIVERS


def _opcua_place(address: OpcUaServer) -> tuple[object, ...]:
    return ("opcua", address.url.rstrip("/").lower().replace("//localhost:", "//127.0.0.1:"))


def _mqtt_place(address: MqttDevice, profile: str) -> tuple[object, ...]:
    # The profile is part of it: two kinds of device may publish beside each other with no parameter at all.
    return ("mqtt", host_of(address.host), address.port, profile, frozenset(address.parameters.items()))


def _one_parent_to_a_name(site: Site) -> Iterator[Problem]:
    yield from _repeated(site.parents, "name", "the name of another parent")


def _one_parent_dispatches(site: Site) -> Iterator[Problem]:
    yield from _repeated(site.parents, "dispatch", "another parent dispatches already; dispatch has one parent")


def _repeated(parents: Sequence[Parent], field: str, words: str) -> Iterator[Problem]:
    first: dict[object, int] = {}
    for at, parent in enumerate(parents):
        item = getattr(parent, field) if known(parent, field) else None
        if item and first.setdefault(item, at) != at:
            yield Problem(("parents", at, field), words, see=("parents", first[item], field))


def _fallback_within_static_limits(site: Site) -> Iterator[Problem]:
    connection, fallback = site.connection, site.fallback
    for name, limit in (("net_import_w", "max_import_w"), ("net_export_w", "max_export_w")):
        if not (known(fallback, name) and known(connection, limit, "rating_w")):
            continue
        value, given = getattr(fallback, name), getattr(connection, limit)
        most, source = (connection.rating_w, "rating_w") if given is None else (given, limit)
        if value != "unlimited" and value > most:
            words = f"{value:g} is above connection.{source}, {most:g}"
            yield Problem(("fallback", name), words, f"a number from 0 to {most:g}", see=("connection", source))


def _somebody_can_be_lost(site: Site) -> Iterator[Problem]:
    if known(site, "parents") and not site.parents:
        words = "never holds: the site has no parent whose silence would bring it"
        yield Problem(("fallback",), words, "parents, or connection.max_import_w and max_export_w", Severity.WARNING)


SITE_RULES: Final[tuple[Rule, ...]] = (
    _one_device_to_an_address,
    _the_unit_is_shared,
    _devices_agree_on_their_line,
    links_have_one_name,
    ports_have_one_use,
    hosts_have_no_port,
    _chargers_agree_on_their_listener,
    _one_parent_to_a_name,
    _one_parent_dispatches,
    _fallback_within_static_limits,
    _somebody_can_be_lost,
    compliance_names,
    planned_storages_are_there,
    network_devices_are_there,
    *LAYER_RULES,
    *SECURITY_RULES,
)


def _meter_is_a_meter(site: Site, profiles: Mapping[str, Profile]) -> Iterator[Problem]:
    meter, path = site.connection.meter, ("connection", "meter")
    meters = [name for name, device in site.devices.items() if _kind(device, profiles) is DeviceKind.METER]
    if meter not in site.devices:
        yield Problem(path, f"{shown(meter)} is not among the devices{did_you_mean(meter, meters)}", ", ".join(meters))
        return
    kind = _kind(site.devices[meter], profiles)
    if kind not in (None, DeviceKind.METER):
        see = ("devices", meter, "profile")
        yield Problem(path, f"'{meter}' has a profile of kind {kind}, not meter", ", ".join(meters), see=see)


def _kind(device: DeviceSite, profiles: Mapping[str, Profile]) -> DeviceKind | None:
    profile = profiles.get(device.profile) if known(device, "profile") else None
    return profile.kind if profile is not None and known(profile, "kind") else None


def _twin_series(device: DeviceSite, series: Collection[str] | None) -> Iterator[Problem]:
    yield from _column(("twin", "series"), device.twin.series, series)


def _load_series(site: Site, series: Collection[str] | None) -> Iterator[Problem]:
    yield from _column(("simulation", "load", "series"), site.simulation.load.series, series)


def _column(path: Path, name: str | None, series: Collection[str] | None) -> Iterator[Problem]:
    if name is not None and series is not None and name not in series:
        words = f"the series has no column {shown(name)}{did_you_mean(name, list(series))}"
        yield Problem(path, words, ", ".join(series))


# One device and its profile


def _driver_fits(device: DeviceSite, profile: Profile) -> Iterator[Problem]:
    drivers = DRIVERS[profile.protocol]
    if device.address.driver not in drivers:
        words = f"'{device.address.driver}' does not speak {profile.protocol}, which profile '{profile.profile}' needs"
        yield Problem(("address", "driver"), words, ", ".join(drivers))


def _parameters_fit(device: DeviceSite, profile: Profile) -> Iterator[Problem]:
    if device.address.driver != "mqtt":
        return
    given, wanted, path = device.address.parameters, profile.parameters, ("address", "parameters")
    for name in wanted:
        if name not in given:
            yield Problem((*path, name), f"is required by profile '{profile.profile}'", "text")
    for name, text in given.items():
        if name not in wanted:
            hint = did_you_mean(name, wanted)
            yield Problem((*path, name), f"profile '{profile.profile}' has no such parameter{hint}", ", ".join(wanted))
        if not text or any(c in "+#\x00" for c in text):
            words = f"{shown(text)} cannot be part of a topic"
            yield Problem((*path, name), words, "text without + and #, which would match the topics of other devices")


def _battery_has_capacity(device: DeviceSite, profile: Profile) -> Iterator[Problem]:
    battery = profile.kind is DeviceKind.BATTERY
    if battery and device.capacity_wh is None:
        yield Problem(("capacity_wh",), "is required for a battery", "a number greater than 0")
    if not battery and device.capacity_wh is not None:
        yield Problem(("capacity_wh",), f"is for a battery, and '{profile.profile}' is of kind {profile.kind}")


def _cars_are_at_chargers(device: DeviceSite, profile: Profile) -> Iterator[Problem]:
    if profile.kind is not DeviceKind.CHARGER:
        words = f"is for a charger, and '{profile.profile}' is of kind {profile.kind}"
        if device.ev is not None:
            yield Problem(("ev",), words)
        if device.twin.evs:
            yield Problem(("twin", "evs"), words)


def _power_within_rating(device: DeviceSite, profile: Profile) -> Iterator[Problem]:
    least, most = -device.rating_w, device.rating_w
    allowed = f"a number from {least:g} to {most:g}"
    if device.min_w is not None and device.min_w < least:
        words = f"{device.min_w:g} is below the rating, {least:g}"
        yield Problem(("min_w",), words, allowed, see=("rating_w",))
    if device.max_w is not None and device.max_w > most:
        words = f"{device.max_w:g} is above the rating, {most:g}"
        yield Problem(("max_w",), words, allowed, see=("rating_w",))


def _power_fits_the_kind(device: DeviceSite, profile: Profile) -> Iterator[Problem]:
    low, high, rating = device.min_w, device.max_w, device.rating_w
    if profile.kind is DeviceKind.CHARGER:
        allowed = f"a number from 0 to {rating:g}"
        if low is not None and low < 0:
            yield Problem(("min_w",), f"{low:g}: a charger does not discharge", allowed)
        if high is not None and high < 0:
            yield Problem(("max_w",), f"{high:g}: a charger does not discharge", allowed)
    if profile.kind is DeviceKind.INVERTER:
        if high is not None and high > 0:
            words = f"{high:g}: power above 0 is consumption, and an inverter generates"
            yield Problem(("max_w",), words, "0, the default, unless it feeds a load", Severity.WARNING)
        if low is not None and low > 0 and high is None:
            yield Problem(("min_w",), f"{low:g} is above max_w, which is 0 for an inverter", f"from {-rating:g} to 0")


def _reversion_can_be_set(device: DeviceSite, profile: Profile) -> Iterator[Problem]:
    if device.reversion_s is None:
        return
    if profile.control is None or not profile.on_silence.settable:
        yield Problem(("reversion_s",), f"profile '{profile.profile}' has no reversion time that can be set")
    elif device.reversion_s <= profile.control.refresh_s:
        words = f"{device.reversion_s:g} is not longer than the time between refreshes, {profile.control.refresh_s:g}"
        yield Problem(("reversion_s",), words, f"a number greater than {profile.control.refresh_s:g}")


def _silence_is_safe(device: DeviceSite, profile: Profile) -> Iterator[Problem]:
    if profile.control is None or device.read_only or device.acknowledged_on_silence:
        return
    words = {
        "hold": "keeps its last setpoint when the gateway falls silent",
        "unlimited": "drops every limit when the gateway falls silent",
    }.get(profile.on_silence.behaviour)
    if profile.kind is DeviceKind.LAYER:
        words = "keeps its last dispatch when this gateway falls silent, inside its own fallback"
    if words is not None:
        allowed = "a profile that goes to a value, or acknowledged_on_silence: true"
        yield Problem(("profile",), words, allowed, Severity.WARNING)


def _chargers_have_a_password(device: DeviceSite, profile: Profile) -> Iterator[Problem]:
    address = device.address
    if (
        isinstance(address, OcppConnector)
        and address.password_env is None
        and host_of(address.listen_host) != "127.0.0.1"
    ):
        words = "is not given: whoever reaches the port can pass for this charger"
        allowed = "the name of an environment variable that holds the charger's password"
        yield Problem(("address", "password_env"), words, allowed, Severity.WARNING)


DEVICE_RULES: Final[tuple[Rule, ...]] = (
    _driver_fits,
    _parameters_fit,
    _battery_has_capacity,
    _cars_are_at_chargers,
    _power_within_rating,
    _power_fits_the_kind,
    _reversion_can_be_set,
    _silence_is_safe,
    _chargers_have_a_password,
)


def _phases_are_there(name: str, device: DeviceSite, profile: Profile, site: Site) -> Iterator[Problem]:
    if profile.kind is DeviceKind.METER or site.connection.phases == 3 or tuple(device.phases) == (1,):
        return
    given = ", ".join(str(phase) for phase in device.phases)
    words = f"is on phases {given}, and the connection has one phase"
    yield Problem(("devices", name, "phases"), words, "[1]", see=("connection", "phases"))
