"""A site whose devices are on serial lines: the twins' process serves them on pseudo-terminals and device servers."""

from __future__ import annotations

import json
import struct
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.framer import FramerType

from config.site import Address, Site
from sim_devices.endpoints import Endpoints, Ports, TwinError, twin_kinds
from sim_devices.physics import SitePhysics

MARKER = struct.unpack(">2H", b"SunS")


@pytest.fixture
def on_lines(site_file: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The meter and the solar inverter on one line, the battery behind a device server."""
    line = {"driver": "modbus_rtu", "device": str(tmp_path / "line"), "baud": 115_200, "parity": "none", "stop_bits": 2}
    site_file["devices"]["meter"]["address"] = {**line, "unit": 3}
    site_file["devices"]["pv"]["address"] = {**line, "unit": 4}
    site_file["devices"]["battery"]["address"] = {"driver": "modbus_rtu_tcp", "host": "127.0.0.1", "unit": 5}
    return site_file


def endpoints(site_file: dict[str, Any], ports: Ports = "free") -> Endpoints:
    site = Site.model_validate(site_file)
    physics = SitePhysics(site, twin_kinds(site, ["meter", "pv", "battery"]), start_s=time.monotonic())
    return Endpoints(site, physics, time.monotonic, ports=ports)


async def test_several_units_share_a_line_and_another_is_behind_a_device_server(on_lines: dict[str, Any]) -> None:
    async with endpoints(on_lines) as served, AsyncExitStack() as clients:
        addresses = json.loads(json.dumps(served.addresses))
        assert addresses["meter"]["device"] == addresses["pv"]["device"]
        for address in addresses.values():
            TypeAdapter(Address).validate_python(address)
        serial = AsyncModbusSerialClient(addresses["meter"]["device"], baudrate=115_200, timeout=1)
        tcp = AsyncModbusTcpClient("127.0.0.1", port=addresses["battery"]["port"], framer=FramerType.RTU)
        for client in (serial, tcp):
            assert await client.connect()
            clients.callback(client.close)
        for client, name in ((serial, "meter"), (serial, "pv"), (tcp, "battery")):
            answer = await client.read_holding_registers(40000, count=2, device_id=addresses[name]["unit"])
            assert tuple(answer.registers) == MARKER


async def test_declared_lines_are_where_the_site_says(on_lines: dict[str, Any], tmp_path: Path) -> None:
    del on_lines["devices"]["battery"]
    site = Site.model_validate(on_lines)
    physics = SitePhysics(site, twin_kinds(site, ["meter", "pv"]), start_s=time.monotonic())
    async with Endpoints(site, physics, time.monotonic, ports="declared") as served:
        assert served.addresses["pv"]["device"] == str(tmp_path / "line")
        assert (tmp_path / "line").is_char_device()
    assert not (tmp_path / "line").is_symlink()


async def test_a_real_port_is_never_taken_for_a_twin(on_lines: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "line").write_text("a port")
    with pytest.raises(TwinError, match=r"meter: .*/line: File exists"):
        await endpoints(on_lines, "declared").__aenter__()
    assert (tmp_path / "line").read_text() == "a port"


async def test_two_twins_of_one_unit_are_named(on_lines: dict[str, Any]) -> None:
    on_lines["devices"]["pv"]["address"]["unit"] = 3
    with pytest.raises(TwinError, match="pv: unit id 3 is taken"):
        await endpoints(on_lines).__aenter__()
