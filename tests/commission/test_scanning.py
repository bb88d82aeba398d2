"""Looking for devices: who answers, what it is, and that nothing is ever written."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.loading import load_profile, shipped_profiles
from config.profile import Fingerprint
from config.site import ModbusTcpAddress, Site
from config.vocabulary import DeviceKind, Quality, Sample
from drivers.inspection import InspectionFailed, PointReading
from gateway.commission.scanning import Found, fits, loaded_profiles, parse_units, scan, sunspec_points
from gateway.commission.targets import Target, TargetError, modbus_address
from sim_devices.modbus import make_unit
from sim_devices.modbus.rtu_line import RtuLine, start_rtu_line
from sim_devices.physics import SitePhysics
from tests.commission.bench import gateway, site_content
from tests.commission.conftest import Yard
from tests.drivers.modbus_server import Answer, ModbusServer, Watch, silence, sunspec_map

READS = {3, 4}


def only_units(*units: int) -> Answer:
    """Answers of these units alone; the others are silent, as on a bus."""
    return lambda frame: frame if frame[6] in units else None


def exception(code: int, *units: int) -> Answer:
    """A gateway that says so of every unit but these."""
    return lambda frame: frame if frame[6] in units else struct.pack(">HHHBBB", *_head(frame), frame[7] | 0x80, code)


def _head(frame: bytes) -> tuple[int, int, int, int]:
    return int.from_bytes(frame[:2]), 0, 3, frame[6]


@pytest.fixture
async def server() -> AsyncIterator[ModbusServer]:
    made = ModbusServer(Watch())
    await made.start()
    yield made
    await made.stop()


async def scanned(server: ModbusServer, *units: int, timeout_s: float = 0.05) -> list[Found]:
    address = ModbusTcpAddress(driver="modbus_tcp", host="127.0.0.1", port=server.port)
    found: list[Found] = []
    profiles = loaded_profiles(shipped_profiles())
    async for progress in scan(address, units, profiles, time.monotonic, timeout_s):
        found = list(progress.found)
    return found


async def test_silent_units_are_not_there_and_cost_their_time_out_alone(server: ModbusServer) -> None:
    server.registers[0] = 7
    server.always = {3: only_units(2), 4: only_units(2)}
    started_s = time.monotonic()
    found = await scanned(server, 1, 2, 3)
    assert [item.unit.unit for item in found] == [2]
    assert found[0].unit.answered == "a register (holding 0)"
    assert time.monotonic() - started_s < 4.0


async def test_an_exception_is_a_sign_of_life_but_not_a_gateway_s(server: ModbusServer) -> None:
    server.always = {3: exception(11, 2), 4: exception(11, 2)}
    found = await scanned(server, 1, 2, 3)
    assert [(item.unit.unit, item.unit.answered) for item in found] == [(2, "exception 2 (illegal data address)")]


async def test_a_sunspec_meter_is_known_by_its_models(server: ModbusServer) -> None:
    meter = sunspec_map([(1, {"Mn": "Maker", "Md": "Meter 3", "SN": "4711"}), (203, {"W": 100, "W_SF": 0})])
    server.put(40000, meter)
    (found,) = await scanned(server, 1)
    assert found.unit.identity == ("Maker", "Meter 3", "4711")
    assert (found.unit.base, found.unit.models) == (40000, (1, 203))
    assert [match.profile for match in found.matches] == ["sunspec_meter"]


async def test_a_device_that_ignores_the_unit_is_told_once(server: ModbusServer) -> None:
    server.put(40000, sunspec_map([(1, {"Mn": "Maker", "Md": "Meter 3", "SN": "4711"}), (203, {"W": 1, "W_SF": 0})]))
    (found,) = await scanned(server, 255, 1, 2, 3)
    assert (found.unit.unit, found.also) == (255, (1, 2, 3))


async def test_a_meter_of_plain_registers_is_known_by_its_fingerprint(server: ModbusServer) -> None:
    for address in range(100):
        server.registers[address] = 0
    for address, value in ((0, 231.2), (62, 0.98), (70, 50.01)):
        server.put(address, struct.pack(">f", value))
    (found,) = await scanned(server, 1)
    matches = {match.profile: match.evidence for match in found.matches}
    assert "voltage_l1_v 231.2 V; frequency_hz 50.01 Hz" in matches["eastron_sdm630"]


async def test_nothing_is_ever_written(server: ModbusServer) -> None:
    for address in range(1000):
        server.registers[address] = address
    server.put(40000, sunspec_map([(1, {"Mn": "Maker", "Md": "It", "SN": "1"}), (103, {"W": 1, "W_SF": 0})]))
    await scanned(server, 1, 2)
    assert {asked.function for asked in server.asked} <= READS
    assert server.written() == []


async def test_a_unit_that_falls_silent_does_not_end_the_scan(server: ModbusServer) -> None:
    server.registers[0] = 1
    server.answers = {3: [lambda frame: frame, *[silence] * 10]}
    found = await scanned(server, 1, 2)
    assert [item.unit.unit for item in found] == [1, 2]


async def test_nobody_listens() -> None:
    stopped = ModbusServer(Watch())
    await stopped.start()
    await stopped.stop()
    with pytest.raises(InspectionFailed, match="Connection refused"):
        await scanned(stopped, 1)


@pytest.mark.parametrize(
    ("text", "units"), [("1-3", [1, 2, 3]), ("255,1-2", [255, 1, 2]), ("7", [7]), ("2-3,1-3", [2, 3, 1])]
)
def test_units_are_written_as_ranges(text: str, units: list[int]) -> None:
    assert parse_units(text) == units


@pytest.mark.parametrize("text", ["", "a", "5-1", "1-256", "1,,2", "-3"])
def test_units_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="units are written like"):
        parse_units(text)


@pytest.mark.parametrize(
    ("part", "value", "fit"),
    [
        ({"point": "x"}, 1.0, True),
        ({"point": "x", "values": (1.0, 3.0)}, 3.0, True),
        ({"point": "x", "values": (1.0, 3.0)}, 2.0, False),
        ({"point": "x", "range": (45.0, 65.0)}, 50.0, True),
        ({"point": "x", "range": (45.0, 65.0)}, "text", False),
        ({"point": "x", "matches": "^SUN2000"}, "SUN2000-10KTL", True),
        ({"point": "x", "matches": "^SUN2000"}, "LUNA2000", False),
        ({"point": "x"}, None, False),
    ],
)
def test_a_part_of_a_fingerprint(part: dict[str, object], value: float | str | None, fit: bool) -> None:
    quality = Quality.BAD if value is None else Quality.GOOD
    assert fits(Fingerprint.model_validate(part), PointReading(Sample(value, quality, 0.0))) is fit


def test_every_shipped_modbus_profile_can_be_found() -> None:
    profiles = [load_profile(name) for name in shipped_profiles()]
    unknown = [p.profile for p in profiles if p.protocol == "modbus" and not (p.fingerprint or sunspec_points(p))]
    assert unknown == []


def test_the_command_prints_json(yard: Yard, tmp_path: Path) -> None:
    ran = gateway("scan", yard.target("battery"), "--units", "1-2", "--json", state=tmp_path)
    assert ran.code == 0
    (found,) = ran.json["found"]
    assert ran.json["complete"] is True
    assert found["sunspec"]["manufacturer"] == "Lamina" and found["sunspec"]["models"][0] == 1
    assert [match["profile"] for match in found["profiles"]] == ["sunspec_battery"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("scan",), 2, "HOST"),
        (("scan", "a b"), 2, "HOST:PORT is asked for"),
        (("scan", "127.0.0.1:70000"), 2, "port 70000"),
        (("scan", "127.0.0.1", "--units", "9-1"), 2, "units are written like"),
        (("scan", "127.0.0.1", "--serial", "/dev/null"), 2, "in place of HOST"),
        (("scan", "--serial", "/dev/does-not-exist", "--units", "1"), 2, "no such port: /dev/does-not-exist"),
        (("scan", "--serial", "/etc/passwd", "--units", "1"), 2, "/etc/passwd is no serial port"),
        (("try", "eastron_sdm630", "--serial", "/dev/does-not-exist"), 2, "no such port: /dev/does-not-exist"),
    ],
)
def test_the_command_tells_mistakes_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ran = gateway(*arguments, state=tmp_path)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert words in ran.err


async def test_ctrl_c_prints_what_was_found(server: ModbusServer, tmp_path: Path) -> None:
    server.put(40000, sunspec_map([(1, {"Mn": "Maker", "Md": "Meter 3", "SN": "4711"}), (203, {"W": 1, "W_SF": 0})]))
    server.always = {3: only_units(1), 4: only_units(1)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "scan", f"127.0.0.1:{server.port}", "--units", "1-247",
        env={**os.environ, "LAMINA_STATE": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    await server.watch.until(lambda: any(asked.unit == 3 for asked in server.asked))
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 10.0)
    assert process.returncode == 1
    assert b"Maker Meter 3 4711" in out and b"sunspec_meter" in out
    assert b"stopped before the end" in err and b"Traceback" not in err


def line_of(content: dict[str, object], *units: int) -> RtuLine:
    physics = SitePhysics(Site.model_validate(content), {"battery": DeviceKind.BATTERY}, start_s=time.monotonic())
    twin = make_unit("sunspec_battery", physics.devices["battery"], clock=time.monotonic)
    return start_rtu_line(dict.fromkeys(units, twin))


async def test_a_serial_line_is_scanned(tmp_path: Path) -> None:
    line = line_of(site_content(), 3)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "scan", "--serial", line.path, "--baud", "19200", "--parity", "even",
        "--units", "1-4", "--timeout", "0.2", "--json",
        env={**os.environ, "LAMINA_STATE": str(tmp_path)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 30.0)
    line.close()
    assert process.returncode == 0
    (found,) = json.loads(out)["found"]
    assert found["unit"] == 3
    assert [match["profile"] for match in found["profiles"]] == ["sunspec_battery"]


async def test_silence_on_a_serial_line_says_what_to_compare(tmp_path: Path) -> None:
    line = line_of(site_content(), 3)
    on_it = ("--serial", line.path, "--baud", "19200", "--parity", "even")
    try:
        asked = await asyncio.to_thread(
            gateway, "try", "eastron_sdm630", *on_it, "--unit", "4", state=tmp_path, timeout_s=30.0
        )
        scanned = await asyncio.to_thread(
            gateway, "scan", *on_it, "--units", "4", "--timeout", "0.05", state=tmp_path, timeout_s=30.0
        )
    finally:
        line.close()
    hint = "compare baud rate (19200), parity (even) and stop bits (1), and the unit, with the device's settings"
    for ran in (asked, scanned):
        assert ran.code == 1
        assert hint in ran.err and "A and B may be swapped" in ran.err and "terminating" in ran.err
    assert "unit 4: no answer" in asked.err and "no unit answered" in scanned.out


def test_a_serial_port_that_this_user_may_not_open_is_refused_with_who_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test may run as root, whom no mode keeps out.
    monkeypatch.setattr("gateway.composition.os.access", lambda *_: False)
    with pytest.raises(TargetError, match="--serial: no permission for /dev/null"):
        modbus_address(Target(serial="/dev/null"))
