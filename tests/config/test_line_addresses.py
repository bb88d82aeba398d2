"""Addresses on serial lines: what a site file may say of them, and what two devices must agree on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from config.loading import check_site
from config.site import Address, ModbusRtuAddress, ModbusRtuTcpAddress
from gateway.composition import link_name

SiteFile = Callable[..., Path]
address = TypeAdapter(Address).validate_python


def test_an_address_on_a_line_has_the_standards_settings_unless_it_says_otherwise() -> None:
    plain = address({"driver": "modbus_rtu", "device": "/dev/ttyUSB0"})
    assert isinstance(plain, ModbusRtuAddress)
    assert (plain.baud, plain.parity, plain.stop_bits, plain.unit) == (19_200, "even", 1, 1)
    assert isinstance(address({"driver": "modbus_rtu_tcp", "host": "192.0.2.1"}), ModbusRtuTcpAddress)


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": "ttyUSB0"},
        {"device": "/dev/ttyS0", "unit": 0},
        {"device": "/dev/ttyS0", "unit": 248},
        {"device": "/dev/ttyS0", "baud": 100},
        {"device": "/dev/ttyS0", "parity": "mark"},
        {"device": "/dev/ttyS0", "stop_bits": 3},
        {"device": "/dev/ttyS0", "host": "192.0.2.1"},
        {},
    ],
)
def test_what_is_no_address_on_a_line_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        address({"driver": "modbus_rtu", **wrong})


def test_devices_on_one_line_or_server_share_a_link() -> None:
    def name(**given: object) -> str:
        return link_name(address(given))

    assert name(driver="modbus_rtu", device="/dev/ttyS0", unit=1) == name(
        driver="modbus_rtu", device="/dev//ttyS0", unit=2
    )
    assert name(driver="modbus_rtu", device="/dev/ttyS0") == "modbus-rtu:///dev/ttyS0"
    assert name(driver="modbus_rtu_tcp", host="192.0.2.1") == "modbus-rtu-tcp://192.0.2.1:502"
    assert name(driver="modbus_tcp", host="192.0.2.1") == "modbus://192.0.2.1:502"


METER = "{driver: modbus_tcp, host: 192.0.2.1}"
PV = "{driver: modbus_tcp, host: 192.0.2.2, unit: 3}"
LINE = "{driver: modbus_rtu, device: /dev/ttyS0}"


def told(site_file: SiteFile, meter: str, pv: str) -> list[str]:
    path = site_file((METER, meter), (PV, pv))
    return [str(finding).replace(f"{path.parent}/", "").split("; allowed: ")[0] for finding in check_site(path)]


def test_devices_on_one_line_are_taken(site_file: SiteFile) -> None:
    assert told(site_file, LINE, "{driver: modbus_rtu, device: /dev/ttyS0, unit: 2, baud: 19200}") == []
    assert told(site_file, LINE, "{driver: modbus_rtu, device: /dev/ttyS1, baud: 9600}") == []


ONE_EACH = {
    "one unit of a line twice": (
        LINE,
        "{driver: modbus_rtu, device: /dev/../dev/ttyS0, unit: 1}",
        "site.yaml:22: devices.pv.address: the same address as device 'grid_meter' (line 18)",
    ),
    "another speed": (
        LINE,
        "{driver: modbus_rtu, device: /dev/ttyS0, unit: 2, baud: 9600}",
        "site.yaml:22: devices.pv.address.baud: 9600, and device 'grid_meter' on the same line has 19200 (line 18)",
    ),
    "another parity": (
        LINE,
        "{driver: modbus_rtu, device: /dev/ttyS0, unit: 2, parity: none}",
        "site.yaml:22: devices.pv.address.parity: none, and device 'grid_meter' on the same line has even (line 18)",
    ),
    "other stop bits": (
        LINE,
        "{driver: modbus_rtu, device: /dev/ttyS0, unit: 2, stop_bits: 2}",
        "site.yaml:22: devices.pv.address.stop_bits: 2, and device 'grid_meter' on the same line has 1 (line 18)",
    ),
    "one server that speaks both": (
        METER,
        "{driver: modbus_rtu_tcp, host: 192.0.2.1, unit: 2}",
        "site.yaml:22: devices.pv.address.driver: modbus_rtu_tcp, and device 'grid_meter' on the same line has "
        "modbus_tcp (line 18)",
    ),
}


@pytest.mark.parametrize(("meter", "pv", "expected"), ONE_EACH.values(), ids=ONE_EACH)
def test_each_contradiction_on_a_line_is_told_once(site_file: SiteFile, meter: str, pv: str, expected: str) -> None:
    assert told(site_file, meter, pv) == [expected]
