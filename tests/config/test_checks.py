"""What a site file must mean: each contradiction is told at its own line, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.loading import check_site
from config.site import DeviceSite

SiteFile = Callable[..., Path]
PV = "address: {driver: modbus_tcp, host: 192.0.2.2, unit: 3}"


def told(path: Path) -> list[str]:
    """Every finding of the site file as a line, without folder and what is allowed."""
    return [str(finding).replace(f"{path.parent}/", "").split("; allowed: ")[0] for finding in check_site(path)]


ONE_EACH: dict[str, tuple[list[tuple[str, str]], str]] = {
    "one Modbus unit twice": (
        [(PV, "address: {driver: modbus_tcp, host: 192.0.2.1, port: 502, unit: 1}")],
        "site.yaml:22: devices.pv.address: the same address as device 'grid_meter' (line 18)",
    ),
    "one Modbus unit by another name of the same host": (
        [(PV, "address: {driver: modbus_tcp, host: LocalHost.}"), ("host: 192.0.2.1}", "host: 127.0.0.1}")],
        "site.yaml:22: devices.pv.address: the same address as device 'grid_meter' (line 18)",
    ),
    "two names of one host": (
        [(PV, "address: {driver: modbus_tcp, host: LocalHost, unit: 3}"), ("host: 192.0.2.1}", "host: 127.0.0.1}")],
        "site.yaml:22: warning: devices.pv.address.host: names the host LocalHost, and device 'grid_meter' names it "
        "127.0.0.1: each name is a link of its own (line 18)",
    ),
    "a listener for chargers where a broker is": (
        [
            ("  pv:\n", "  wallbox:\n    profile: ocpp16_charger\n    rating_w: 11000\n    address: {driver: ocpp, "
             "listen_port: 1883, charge_point: CP1, password_env: X}\n  pv:\n"),
            ("host: broker.example,", "host: localhost,"),
        ],
        "site.yaml:14: parents[1].broker.port: MQTT is expected at localhost:1883, and we listen for OCPP at "
        "0.0.0.0:1883 by devices.wallbox (line 23)",
    ),
    "two protocols at one port": (
        [("host: 192.0.2.4\n", "host: 192.0.2.1\n      port: 502\n")],
        "site.yaml:40: devices.charger.address.port: MQTT is expected at 192.0.2.1:502, and Modbus is expected at "
        "192.0.2.1:502 by devices.grid_meter (line 18)",
    ),
    "a port behind a host": (
        [("host: 192.0.2.4\n", "host: 192.0.2.4:1884\n")],
        "site.yaml:39: devices.charger.address.host: '192.0.2.4:1884' has the port in it",
    ),
    "a port beyond the last": (
        [("opc.tcp://192.0.2.3:4840/", "opc.tcp://192.0.2.3:99999/")],
        "site.yaml:29: devices.store.address.url: 99999 is no TCP port",
    ),
    "two listeners on one port": (
        [
            ("  pv:\n", "".join(
                f"  wallbox_{number}:\n    profile: ocpp16_charger\n    rating_w: 11000\n    address: {{driver: ocpp, "
                f"listen_host: {host}, listen_port: 9000, charge_point: CP{number}, password_env: X}}\n"
                for number, host in ((1, "0.0.0.0"), (2, "192.0.2.9"))
            ) + "  pv:\n"),
        ],
        "site.yaml:27: devices.wallbox_2.address.listen_port: 192.0.2.9:9000 and 0.0.0.0:9000 are two listeners on one "
        "port (line 23)",
    ),
    "a shared unit at two addresses": (
        [("    reversion_s: 30\n", "    reversion_s: 30\n    shares_unit_with: grid_meter\n")],
        "site.yaml:26: devices.pv.shares_unit_with: device 'grid_meter' has another address (line 18)",
    ),
    "a unit shared with nobody": (
        [("    reversion_s: 30\n", "    reversion_s: 30\n    shares_unit_with: grid_metre\n")],
        "site.yaml:26: devices.pv.shares_unit_with: 'grid_metre' is not another device; did you mean 'grid_meter'?",
    ),
    "one OPC UA server twice": (
        [
            ("    profile: inverter.yaml\n", "    profile: battery.yaml\n    capacity_wh: 1\n"),
            (PV, "address: {driver: opcua, url: 'opc.tcp://192.0.2.3:4840'}"),
            ("    reversion_s: 30\n", ""),
        ],
        "site.yaml:29: devices.store.address: the same address as device 'pv' (line 23)",
    ),
    "one MQTT charger twice": (
        [
            ("  store:\n", "  charger_2:\n    profile: charger.yaml\n    rating_w: 22000\n    address: {driver: mqtt, "
             "host: 192.0.2.4, parameters: {serial: '000815'}}\n    acknowledged_on_silence: true\n  store:\n"),
        ],
        "site.yaml:42: devices.charger.address: the same address as device 'charger_2' (line 30)",
    ),
    "the meter is no meter": (
        [("  meter: grid_meter\n", "  meter: pv\n")],
        "site.yaml:5: connection.meter: 'pv' has a profile of kind inverter, not meter (line 21)",
    ),
    "a static limit above the rating": (
        [("max_import_w: 90000", "max_import_w: 110000")],
        "site.yaml:6: connection.max_import_w: 110000 is above the connection's rating, 100000 (line 4)",
    ),
    "a fallback above the static limit": (
        [("net_import_w: 25000", "net_import_w: 90001")],
        "site.yaml:8: fallback.net_import_w: 90001 is above connection.max_import_w, 90000 (line 6)",
    ),
    "a fallback above the rating": (
        [("net_export_w: unlimited", "net_export_w: 100001")],
        "site.yaml:9: fallback.net_export_w: 100001 is above connection.rating_w, 100000 (line 4)",
    ),
    "the uncontrolled power's range the wrong way round": (
        [("  max_import_w: 90000\n", "  rest_min_w: 10\n  rest_max_w: 0\n")],
        "site.yaml:6: connection.rest_min_w: 10 is above rest_max_w, 0 (line 7)",
    ),
    "two parents of one name": (
        [("- name: aggregator", "- name: dso")],
        "site.yaml:13: parents[1].name: the name of another parent (line 11)",
    ),
    "two parents that dispatch": (
        [("- name: aggregator", "- name: aggregator\n    dispatch: true")],
        "site.yaml:14: parents[1].dispatch: another parent dispatches already; dispatch has one parent (line 12)",
    ),
    "a password without a user": (
        [("username: depot, ", "")],
        "site.yaml:14: parents[1].broker.password_env: is given without `username`",
    ),
    "a key without its certificate": (
        [("username: depot, ", "username: depot, tls: {ca_file: a.pem, key_file: b.pem}, ")],
        "site.yaml:14: parents[1].broker.tls.key_file: `cert_file` and `key_file` go together; only one is given",
    ),
    "a sample stale before the next cycle": (
        [("devices:\n", "control: {period_ms: 500, stale_after_s: 0.5}\ndevices:\n")],
        "site.yaml:15: control.stale_after_s: must be longer than the period, 500 ms",
    ),
    "min above max": (
        [("    min_w: -50000\n", "    min_w: -10\n    max_w: -20\n")],
        "site.yaml:24: devices.pv.min_w: -10 is above max_w, -20 (line 25)",
    ),
    "more than its rating": (
        [("    capacity_wh: 60000\n", "    capacity_wh: 60000\n    max_w: 30001\n")],
        "site.yaml:32: devices.store.max_w: 30001 is above the rating, 30000 (line 30)",
    ),
    "less than its rating": (
        [("min_w: -50000", "min_w: -60001")],
        "site.yaml:24: devices.pv.min_w: -60001 is below the rating, -60000 (line 23)",
    ),
    "an inverter that must consume": (
        [("min_w: -50000", "min_w: 5")],
        "site.yaml:24: devices.pv.min_w: 5 is above max_w, which is 0 for an inverter",
    ),
    "an inverter that may consume": (
        [("min_w: -50000", "max_w: 500")],
        "site.yaml:24: warning: devices.pv.max_w: 500: power above 0 is consumption, and an inverter generates",
    ),
    "a charger that discharges": (
        [("rating_w: 22000", "rating_w: 22000\n    min_w: -1")],
        "site.yaml:42: devices.charger.min_w: -1: a charger does not discharge",
    ),
    "a battery without capacity": (
        [("    capacity_wh: 60000\n", "")],
        "site.yaml:27: devices.store.capacity_wh: is required for a battery",
    ),
    "a capacity without a battery": (
        [("rating_w: 22000", "rating_w: 22000\n    capacity_wh: 5")],
        "site.yaml:42: devices.charger.capacity_wh: is for a battery, and 'charger' is of kind charger",
    ),
    "an empty range of charge": (
        [("    capacity_wh: 60000\n", "    capacity_wh: 60000\n    soc_min: 0.95\n")],
        "site.yaml:32: devices.store.soc_min: 0.95 is not below soc_max, 0.95 (line 27)",
    ),
    "a phase twice": (
        [("    min_w: -50000\n", "    phases: [1, 1]\n")],
        "site.yaml:24: devices.pv.phases: names a phase twice",
    ),
    "a car at a battery": (
        [("    capacity_wh: 60000\n", "    capacity_wh: 60000\n    ev: {needed_wh: 1, stay_s: 1}\n")],
        "site.yaml:32: devices.store.ev: is for a charger, and 'battery' is of kind battery",
    ),
    "a simulated car at an inverter": (
        [("twin: {series: PV3}", "twin: {series: PV3, evs: [{}]}")],
        "site.yaml:26: devices.pv.twin.evs: is for a charger, and 'inverter' is of kind inverter",
    ),
    "two cars at once": (
        [("plug_in_s: 60", "plug_in_s: 49")],
        "site.yaml:47: devices.charger.twin.evs[1].plug_in_s: 49 is before the car before it has left: "
        "it leaves at 50 (line 46)",
    ),
    "a car that leaves before it comes": (
        [("{plug_in_s: 60}", "{plug_in_s: 60, unplug_s: 60}")],
        "site.yaml:47: devices.charger.twin.evs[1].unplug_s: 60 is not after plug_in_s, 60 (line 47)",
    ),
    "prices that fall": (
        [("price_per_kwh: 0.30", "price_per_kwh: 0.05")],
        "site.yaml:34: devices.store.curve[1].price_per_kwh: 0.05 is below the price before it, 0.1",
    ),
    "power that rises with price": (
        [("price_per_kwh: 0.10, power_pu: 1}", "price_per_kwh: 0.10, power_pu: -1}"),
         ("price_per_kwh: 0.30, power_pu: -1}", "price_per_kwh: 0.30, power_pu: 1}")],
        "site.yaml:34: devices.store.curve[1].power_pu: 1 is above the power before it, -1",
    ),
    "a reversion time that cannot be set": (
        [("    capacity_wh: 60000\n", "    capacity_wh: 60000\n    reversion_s: 20\n")],
        "site.yaml:32: devices.store.reversion_s: profile 'battery' has no reversion time that can be set",
    ),
    "a reversion time that runs out between refreshes": (
        [("reversion_s: 30", "reversion_s: 10")],
        "site.yaml:25: devices.pv.reversion_s: 10 is not longer than the time between refreshes, 10",
    ),
    "a driver that does not speak the profile's protocol": (
        [(PV, "address: {driver: opcua, url: 'opc.tcp://192.0.2.2:4840'}")],
        "site.yaml:22: devices.pv.address.driver: 'opcua' does not speak modbus, which profile 'inverter' needs",
    ),
    "a parameter that is missing": (
        [('parameters: {serial: "000815"}', "parameters: {}")],
        "site.yaml:40: devices.charger.address.parameters.serial: is required by profile 'charger'",
    ),
    "a parameter that would match every device": (
        [('parameters: {serial: "000815"}', "parameters: {serial: +}")],
        "site.yaml:40: devices.charger.address.parameters.serial: '+' cannot be part of a topic",
    ),
    "a column that is not in the series": (
        [("series: PV3", "series: PV4")],
        "site.yaml:26: devices.pv.twin.series: the series has no column 'PV4'; did you mean 'PV5'?",
    ),
    "a load that is not in the series": (
        [("simulation:\n", "simulation:\n  load: {series: H0}\n")],
        "site.yaml:49: simulation.load.series: the series has no column 'H0'",
    ),
    "a device that keeps its setpoint": (
        [("    acknowledged_on_silence: true\n", "")],
        "site.yaml:36: warning: devices.charger.profile: keeps its last setpoint when the gateway falls silent",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_EACH)
def test_each_contradiction_is_one_finding(site_file: SiteFile, case: str) -> None:
    edits, expected = ONE_EACH[case]
    assert [line.split("; did you mean")[0] for line in told(site_file(*edits))] == [
        expected.split("; did you mean")[0]
    ]


def test_an_unknown_parameter_beside_the_right_one(site_file: SiteFile) -> None:
    path = site_file(('parameters: {serial: "000815"}', 'parameters: {serail: "000815"}'))
    assert told(path) == [
        "site.yaml:40: devices.charger.address.parameters.serial: is required by profile 'charger'",
        "site.yaml:40: devices.charger.address.parameters.serail: profile 'charger' has no such parameter; "
        "did you mean 'serial'?",
    ]


def test_on_a_single_phase_connection_every_device_but_the_meter_says_its_phase(site_file: SiteFile) -> None:
    path = site_file(("  max_import_w: 90000\n", "  phases: 1\n"), ("min_w: -50000", "phases: [1]"))
    assert told(path) == [
        "site.yaml:27: devices.store.phases: is on phases 1, 2, 3, and the connection has one phase (line 6)",
        "site.yaml:35: devices.charger.phases: is on phases 1, 2, 3, and the connection has one phase (line 6)",
    ]


def test_a_read_only_device_that_keeps_its_setpoint_is_no_concern(site_file: SiteFile) -> None:
    assert told(site_file(("acknowledged_on_silence: true", "read_only: true"))) == []


def test_a_device_that_drops_its_limit_is_a_warning(site_file: SiteFile) -> None:
    path = site_file(inverter=("behaviour: value, value_w: 0,", "behaviour: unlimited,"))
    assert told(path) == ["site.yaml:21: warning: devices.pv.profile: drops every limit when the gateway falls silent"]


def test_a_unit_may_be_shared_by_two_profiles_and_not_by_one(site_file: SiteFile) -> None:
    shared = (PV, "address: {driver: modbus_tcp, host: 192.0.2.1}\n    shares_unit_with: grid_meter")
    assert told(site_file(shared)) == told(site_file())
    again = ("    profile: inverter.yaml\n", "    profile: meter.yaml\n")
    same = "site.yaml:22: devices.pv.address: the same address as device 'grid_meter' (line 18)"
    assert same in told(site_file(shared, again))


def test_two_mqtt_devices_with_other_parameters_or_profiles_are_apart(site_file: SiteFile) -> None:
    other = (
        "  charger_2:\n    profile: charger.yaml\n    rating_w: 22000\n    acknowledged_on_silence: true\n"
        "    address: {driver: mqtt, host: 192.0.2.4, parameters: {serial: '000816'}}\n  store:\n"
    )
    assert told(site_file(("  store:\n", other))) == []


def test_the_rules_of_a_model_hold_without_a_file() -> None:
    given = {
        "profile": "battery",
        "address": {"driver": "modbus_tcp", "host": "h"},
        "rating_w": 10,
        "min_w": 5,
        "max_w": -5,
        "soc_min": 0.9,
        "soc_max": 0.1,
    }
    with pytest.raises(ValidationError, match=r"min_w: 5 is above max_w, -5; soc_min: 0\.9 is not below soc_max, 0\.1"):
        DeviceSite.model_validate(given)
