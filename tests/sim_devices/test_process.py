"""The twins' own process: its one line, its control port, its trace, and every way in which it ends."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from asyncua import Client
from pymodbus.client import AsyncModbusTcpClient

from config.site import Site
from sim_devices.broker import EmbeddedBroker
from sim_devices.control_port import ControlPort
from sim_devices.endpoints import TwinError, twin_kinds
from sim_devices.pace import RealTimePace
from sim_devices.physics import SitePhysics

MODBUS_ONLY = ["--twin", "meter", "--twin", "battery"]


class Process:
    """A twins process and what it announced."""

    def __init__(self, process: asyncio.subprocess.Process, line: dict[str, Any]) -> None:
        self.process = process
        self.endpoints: dict[str, dict[str, Any]] = line["endpoints"]
        self.control: dict[str, Any] = line["control"]
        self.pid: int = line["pid"]

    async def ended(self) -> int:
        async with asyncio.timeout(10):
            return await self.process.wait()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Conversation]:
        reader, writer = await asyncio.open_connection(self.control["host"], self.control["port"])
        try:
            yield Conversation(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


class Conversation:
    """A client of the control port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, request: Any) -> None:
        self.writer.write(json.dumps(request).encode() + b"\n")

    async def ask(self, request: Any) -> dict[str, Any]:
        self.say(request)
        async with asyncio.timeout(5):
            answer: dict[str, Any] = json.loads(await self.reader.readline())
            return answer


async def start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sim_devices.process", *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )


@asynccontextmanager
async def twins(*arguments: str) -> AsyncIterator[Process]:
    process = await start(*arguments)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        assert line, (await process.communicate())[1].decode()
        yield Process(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def site_path(site_file: dict[str, Any], tmp_path: Path) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(site_file))
    return str(path)


async def test_a_whole_site_comes_up_answers_on_every_protocol_and_ends_on_sigterm(
    site_path: str, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.csv"
    begin_s = time.monotonic()
    async with EmbeddedBroker() as broker:
        options = ["--mqtt", f"{broker.host}:{broker.port}", "--trace", str(trace)]
        async with twins(site_path, *options) as it:
            assert it.pid == it.process.pid
            assert it.endpoints["charger_c"] == {
                "driver": "mqtt",
                "host": broker.host,
                "port": broker.port,
                "parameters": {"serial": "012345"},
            }
            meter = it.endpoints["meter"]
            modbus = AsyncModbusTcpClient(meter["host"], port=meter["port"])
            assert await modbus.connect()
            marker = await modbus.read_holding_registers(40000, count=2, device_id=meter["unit"])
            modbus.close()
            assert marker.registers == [0x5375, 0x6E53]
            async with Client(it.endpoints["container"]["url"]) as client:
                assert "urn:lamina:battery-container:v1" in await client.get_namespace_array()
            async with it.connected() as control:
                state = await control.ask({"state": True})
                while state["elapsed_s"] < 0.5:
                    state = await control.ask({"state": True})
                assert state["meters"]["meter"]["valid"] is True
                assert state["devices"]["charger_c"]["state"] == "C"
            it.process.send_signal(signal.SIGTERM)
            assert await it.ended() == 0
            _, errors = await it.process.communicate()
            assert errors == b""
    with trace.open() as file:
        rows = list(csv.DictReader(file))
    times = [float(row["monotonic_s"]) for row in rows]
    assert begin_s < times[0] < times[-1] < time.monotonic()
    assert times == sorted(times)
    assert len(rows) >= 50
    for row in rows:
        devices_w = sum(float(row[f"{name}_w"]) for name in ("pv", "battery", "container", "charger_a", "charger_c"))
        assert float(row["net_w"]) == pytest.approx(float(row["load_w"]) + devices_w, abs=0.1)
    assert {"battery_soc", "container_soc", "voltage_v"} <= rows[0].keys()


async def test_the_end_of_standard_input_ends_the_process(site_path: str) -> None:
    async with twins(site_path, "--until-eof", *MODBUS_ONLY) as it:
        assert it.process.stdin is not None
        it.process.stdin.close()
        assert await it.ended() == 0


async def test_an_interrupt_ends_the_process_as_well(site_path: str) -> None:
    async with twins(site_path, *MODBUS_ONLY) as it:
        it.process.send_signal(signal.SIGINT)
        assert await it.ended() == 0


async def test_the_meter_of_hardware_in_the_loop_needs_the_real_devices_power(site_path: str) -> None:
    async with twins(site_path, *MODBUS_ONLY) as it, it.connected() as control:
        assert it.endpoints.keys() == {"meter", "battery"}
        state = await control.ask({"state": True})
        assert state["real"].keys() == {"pv", "container", "charger_a", "charger_b", "charger_c"}
        assert state["meters"]["meter"]["valid"] is False
        powers_w = {"pv": -9_000.0, "container": 0, "charger_a": 6_900.0, "charger_b": 0.0, "charger_c": 0.0}
        control.say({"real_power_w": powers_w, "load_step_w": 2_500.0})
        async with asyncio.timeout(5):
            while not state["meters"]["meter"]["valid"]:
                state = await control.ask({"real_power_w": powers_w, "state": True})
        total_w = state["load_w"] + state["devices"]["battery"]["power_w"] - 2_100.0
        assert state["net_w"] == pytest.approx(total_w)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--twin", "nothing"], "nothing: the site has no such device"),
        (["--mqtt", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["--trace", "/no/such/folder/trace.csv"], "trace: /no/such/folder/trace.csv: No such file"),
    ],
)
async def test_a_mistake_is_named_and_nothing_starts(site_path: str, arguments: list[str], words: str) -> None:
    process = await start(site_path, *arguments)
    output, errors = await process.communicate()
    assert (process.returncode, output) == (2, b"")
    assert words in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_full_disk_is_named_at_the_end_and_stops_nothing(site_path: str) -> None:
    async with twins(site_path, "--trace", "/dev/full", *MODBUS_ONLY) as it:
        async with it.connected() as control:
            state = await control.ask({"state": True})
            while state["elapsed_s"] < 1.2:
                state = await control.ask({"state": True})
        it.process.send_signal(signal.SIGTERM)
        assert await it.ended() == 2
        _, errors = await it.process.communicate()
        assert errors.decode() == "trace: /dev/full: No space left on device\n"


async def test_a_site_file_that_is_none_is_named(tmp_path: Path) -> None:
    process = await start(str(tmp_path / "absent.yaml"))
    output, errors = await process.communicate()
    assert (process.returncode, output) == (2, b"")
    assert "absent.yaml" in errors.decode()
    assert "Traceback" not in errors.decode()


@pytest.mark.parametrize("device", ["meter", "container"])
async def test_a_declared_port_in_use_is_named(site_file: dict[str, Any], tmp_path: Path, device: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        address = site_file["devices"][device]["address"]
        address |= {"port": port} if device == "meter" else {"url": f"opc.tcp://127.0.0.1:{port}/"}
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump(site_file))
        process = await start(str(path), "--ports", "declared", "--twin", device)
        _, errors = await process.communicate()
    assert process.returncode == 2
    held = rf"{device}: 127.0.0.1:{port}: Address already in use, held by .+ \(pid {os.getpid()}\)\n"
    assert re.fullmatch(held, errors.decode())


def test_every_device_that_can_have_no_twin_is_named(site_file: dict[str, Any]) -> None:
    site_file["devices"]["pv"]["profile"] = "their_inverter"
    site_file["devices"]["charger_b"]["profile"] = "goe_charger"
    site_file["devices"]["charger_c"]["address"]["parameters"] = {"serial": "#"}
    with pytest.raises(TwinError) as error:
        twin_kinds(Site.model_validate(site_file), None)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["pv", "charger_b", "charger_c"]
    assert lines[0].startswith("pv: no twin for profile their_inverter; there are sunspec_meter")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff\n",
        b"[]\n",
        b"{}\n",
        b'{"unknown": 1}\n',
        b'{"load_step_w": "5"}\n',
        b'{"load_step_w": NaN}\n',
        b'{"real_power_w": {"meter": 5}}\n',
        b'{"real_power_w": {"pv": true}}\n',
        b'{"real_power_w": {"pv": 1e400}}\n',
        b'{"real_power_w": [1], "load_step_w": 1}\n',
        b'{"real_power_w": {"pv": 1' + b"0" * 400 + b"}}\n",
        b"[" * 60_000,
    ],
)
def test_a_line_that_can_not_be_used_is_answered_and_changes_nothing(site: Site, line: bytes) -> None:
    physics = SitePhysics(site, twin_kinds(site, ["meter"]), real=["pv"])
    port = ControlPort(physics, lambda: 0.0)
    before = port.state()
    answer = port.answer(line)
    assert answer is not None
    assert answer.keys() == {"error"}
    physics.step()
    physics.steps = 0
    assert port.state()["real"] == before["real"]
    assert port.state()["load_w"] == pytest.approx(before["load_w"], abs=100.0)


async def test_a_line_without_end_costs_its_own_connection(site_path: str) -> None:
    async with twins(site_path, *MODBUS_ONLY) as it:
        async with it.connected() as control:
            control.writer.write(b"x" * 200_000)
            # What it says before it hangs up may be lost with the rest of the line still under way.
            with suppress(ConnectionError):
                async with asyncio.timeout(5):
                    await control.reader.read()
        async with it.connected() as control:
            assert "net_w" in await control.ask({"state": True})


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_physics_keeps_the_clocks_pace_and_leaves_out_a_long_halt(site: Site) -> None:
    clock, steps = Clock(), []
    physics = SitePhysics(site, twin_kinds(site, ["meter"]), start_s=clock())
    pace = RealTimePace(physics, clock, lambda: steps.append(physics.now_s))
    for _ in range(1_000):
        clock.now_s += 0.0137
        pace.catch_up()
    assert len(steps) == 1_370 - 1 or len(steps) == 1_370
    assert clock.now_s - 0.0201 < physics.now_s <= clock.now_s
    clock.now_s += 30.0
    for _ in range(6):
        pace.catch_up()
    assert len(steps) < 1_480
    assert pace.lost_steps == pytest.approx(2_900, abs=2)
    assert clock.now_s - 0.0201 < physics.now_s <= clock.now_s


async def test_a_parent_that_died_is_noticed_though_nobody_reads(site_path: str) -> None:
    async with twins(site_path, "--until-eof", *MODBUS_ONLY) as it:
        assert it.process.stdin is not None
        it.process.stdin.write(b"words that mean nothing here\n" * 1000)
        await it.process.stdin.drain()
        async with it.connected() as control:
            assert "net_w" in await control.ask({"state": True})
        it.process.stdin.close()
        assert await it.ended() == 0
