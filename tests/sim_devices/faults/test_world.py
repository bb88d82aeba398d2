"""A whole site behind proxies: by one interface, by control port, file, topic and command, in real and virtual time."""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from typer.testing import CliRunner

from config.profile import Profile
from config.site import Site
from gateway.bench.lockstep.network import VirtualNetwork
from gateway.bench.lockstep.virtual_loop import VirtualLoop
from gateway.cli.main import app
from sim_devices.broker import EmbeddedBroker
from sim_devices.faults import FAULTS, FaultError
from sim_devices.faults.control_file import ControlFile
from sim_devices.faults.control_topic import ControlTopic, control_topics
from sim_devices.faults.world import FaultEvent, FaultWorld, check_fault
from sim_devices.modbus import ModbusServer
from tests.sim_devices.faults.field import Memory, mbap, until
from tests.sim_devices.faults.sites import register_profile, shipped, site_of

BOUND_S = 10.0
BATTERY: dict[str, Any] = {
    "profile": "test",
    "rating_w": 10_000.0,
    "address": {"driver": "modbus_tcp", "host": "x", "port": 1},
}


def two_batteries() -> tuple[Site, dict[str, Profile]]:
    """Two units behind one Modbus gateway, a charger that calls by OCPP, and a parent."""
    charger = {"driver": "ocpp", "listen_port": 0, "charge_point": "cp"}
    more = {
        "parents": [{"name": "dso", "dispatch": True}],
        "devices": {
            "one": {**BATTERY, "address": {**BATTERY["address"], "unit": 1}},
            "two": {**BATTERY, "address": {**BATTERY["address"], "unit": 2}},
            "car": {"profile": "ocpp16_charger", "rating_w": 11_000.0, "address": charger},
        },
    }
    site = site_of(BATTERY, meter="one", **more)
    return site, {"one": register_profile(), "two": register_profile(), "car": shipped("ocpp16_charger")}


@asynccontextmanager
async def served(port: int = 0, **more: Any) -> AsyncIterator[tuple[FaultWorld, dict[int, Memory]]]:
    """The proxies of that site in front of a server with both units."""
    site, profiles = two_batteries()
    units = {1: Memory({10: struct.pack(">i", 111)}), 2: Memory({10: struct.pack(">i", 222)})}
    server = ModbusServer()
    for number, unit in units.items():
        server.add_unit(number, unit)
    listening = await server.listen("127.0.0.1", port)
    endpoints = {
        name: {"driver": "modbus_tcp", "host": "127.0.0.1", "port": listening, "unit": unit}
        for name, unit in (("one", 1), ("two", 2))
    }
    try:
        async with FaultWorld(site, profiles, {"endpoints": endpoints, "pid": 7}, **more) as world:
            yield world, units
    finally:
        await server.close()


class Client:
    """A Modbus client of few words."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def power(self, unit: int) -> int:
        self._writer.write(mbap(struct.pack(">BHH", 3, 10, 2), unit=unit))
        async with asyncio.timeout(BOUND_S):
            frame = await self._reader.readexactly(13)
        return int.from_bytes(frame[-4:], signed=True)


@asynccontextmanager
async def client(world: FaultWorld, device: str = "one") -> AsyncIterator[Client]:
    at = world.endpoints[device]
    reader, writer = await asyncio.open_connection(at["host"], at["port"])
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def test_devices_on_one_connection_share_a_proxy_and_faults_of_values_find_theirs() -> None:
    async with served() as (world, _), client(world) as driver:
        assert world.endpoints["one"]["port"] == world.endpoints["two"]["port"]
        assert world.announcement()["pid"] == 7
        world.set("two", "flipped_sign")
        assert (await driver.power(1), await driver.power(2)) == (111, -222)
        assert world.status()["devices"]["two"]["shares_with"] == ["one"]
        assert world.clear("one") == 0
        assert world.clear("two", "flipped_sign") == 1
        assert await driver.power(2) == 222


async def test_what_a_fault_can_not_be_set_on_is_told_with_what_it_can() -> None:
    async with served() as (world, _):
        with pytest.raises(FaultError, match="no device 'six'; there are one, two"):
            world.set("six", "drift")
        with pytest.raises(FaultError, match="car calls us by ocpp at a port that nobody knows"):
            world.set("car", "latency")
    site, profiles = two_batteries()
    check_fault(site, profiles, "broker", "broker_restart")
    check_fault(site, profiles, "dso", "clock_off", {"offset_s": -60})
    with pytest.raises(FaultError, match="which dso is not"):
        check_fault(site, profiles, "dso", "frozen_value")
    with pytest.raises(FaultError, match="no device 'car'; there are dso, broker, one, two"):
        check_fault(site, profiles, "car", "latency")


async def test_a_schedule_lets_faults_come_and_go() -> None:
    async with served() as (world, _), client(world) as driver:
        loop = asyncio.get_running_loop()
        events = [
            {"at": 0.01, "device": "one", "fault": "drift", "parameters": {"pu_per_s": 0.0}},
            {"at": 0.0, "device": "one", "fault": "flipped_sign"},
            {"at": 0.05, "device": "one", "clear": "all"},
        ]
        world.schedule(map(FaultEvent.parse, events), loop.time())
        async with asyncio.timeout(BOUND_S):
            while await driver.power(1) == 111:
                pass
            while await driver.power(1) == -111:
                pass
        faults = {fault["fault"]: fault["active"] for fault in world.status()["devices"]["one"]["faults"]}
        assert faults == {"drift": False, "flipped_sign": False}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"at": 1.0, "device": "one", "fault": "nope"}, "at 1 s: one: no fault 'nope'"),
        ({"at": 1.0, "device": "six", "clear": "all"}, "at 1 s: six: no device 'six'"),
        ({"at": 1.0, "device": "one", "fault": "drift", "parameters": {"by": 1}}, "knows no by"),
        ({"at": -1.0, "device": "one", "fault": "drift"}, "at: expected seconds from 0 on"),
        ({"at": 1.0, "device": "one"}, "expected at, device, and either fault or clear"),
        ({"at": 1.0, "device": "one", "fault": "drift", "by": 1}, "unknown: by"),
    ],
)
async def test_a_schedule_with_a_mistake_is_refused_as_a_whole(event: dict[str, Any], words: str) -> None:
    async with served() as (world, _):
        good = {"at": 0.0, "device": "one", "fault": "drift"}
        with pytest.raises(FaultError) as refused:
            world.schedule([FaultEvent.parse(good), FaultEvent.parse(event)], 0.0)
        assert words in str(refused.value)
        await asyncio.sleep(0)
        assert world.status()["devices"]["one"]["faults"] == []


async def test_a_file_says_which_faults_there_are(tmp_path: Path) -> None:
    told: list[str] = []
    async with served() as (world, _), client(world) as driver:
        world.set("two", "flipped_sign")
        path = tmp_path / "faults.yaml"
        watched = ControlFile(world.board, path, told.append)
        await watched.look()
        path.write_text("- {device: one, fault: flipped_sign}\n")
        await watched.look()
        assert await driver.power(1) == -111
        path.write_text('[{"device": "one", "fault": "flipped_sign"}, {"device": "one", "fault": "nope"}]')
        await watched.look()
        await watched.look()
        (reason,) = told
        assert f"{path}: [1]: no fault 'nope'; there are refuse" in reason
        assert await driver.power(1) == -111
        path.write_text('[{"device": "one", "fault": "frozen_value", "parameters": {"point": "power_w"}}]')
        await watched.look()
        assert await driver.power(1) == 111
        path.unlink()
        await watched.look()
        assert world.clear("one") == 0
        assert await driver.power(2) == -222
        assert len(told) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "neither YAML nor JSON"),
        ("device: one", "expected a list"),
        ("- 3", "[0]: expected device, fault"),
        ("[&a {device: one, fault: reset}, *a]", "[1]: reset on one with these parameters is in the list already"),
    ],
)
async def test_a_file_that_can_not_be_used_changes_nothing(tmp_path: Path, text: str, words: str) -> None:
    told: list[str] = []
    async with served() as (world, _):
        path = tmp_path / "faults.yaml"
        path.write_text(text)
        await ControlFile(world.board, path, told.append).look()
        assert words in told[0]
        assert world.clear() == 0


async def test_a_topic_takes_the_lines_of_the_control_port() -> None:
    async with EmbeddedBroker() as broker, served(broker=(broker.host, broker.port)) as (world, _):
        topic = ControlTopic(world.board, "bench", (broker.host, broker.port))
        serving = asyncio.create_task(topic.run(), name="topic")
        try:
            async with asyncio.timeout(BOUND_S):
                await topic.listening.wait()
                ask, answers = control_topics("bench")
                async with aiomqtt.Client(broker.host, broker.port) as bench:
                    await bench.subscribe(answers)
                    heard = aiter(bench.messages)
                    for line, answer in (
                        ({"device": "one", "fault": "flipped_sign"}, {"set": 1}),
                        ({"device": "dso", "fault": "heartbeat_lost"}, {"set": 2}),
                        ({"clear": "all"}, {"cleared": 2}),
                        ({"device": "nobody", "clear": 1}, None),
                    ):
                        await bench.publish(ask, json.dumps(line))
                        said = json.loads((await anext(heard)).payload)
                        assert said == answer or (answer is None and "no device 'nobody'" in said["error"])
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def test_the_proxies_run_in_a_loop_with_virtual_time_and_no_sockets() -> None:
    async def story() -> list[Any]:
        loop = asyncio.get_running_loop()
        said: list[Any] = []
        listen = {"one": ("127.0.0.1", 15_020)}
        async with served(port=502, control_port=None, listen_at=listen, only=("one", "two")) as (world, _):
            assert world.endpoints["two"]["port"] == 15_020
            async with client(world) as driver:
                world.set("one", "latency", {"delay_s": 5.0, "direction": "reply"})
                begin_s = loop.time()
                said += [await driver.power(2), await driver.power(1), loop.time() - begin_s]
            world.clear()
            world.set("one", "refuse", {"duration_s": 3600.0})
            with pytest.raises(ConnectionRefusedError):
                async with client(world):
                    pass
            await asyncio.sleep(3601.0)
            async with client(world) as driver:
                said.append(await driver.power(1))
        return said

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert isinstance(runner.get_loop().network, VirtualNetwork)  # type: ignore[attr-defined]
        assert runner.run(story()) == [222, 111, 5.0, 111]


SITE = """
site: bench
connection: {rating_w: 100000, meter: unit}
fallback: {net_import_w: 0, net_export_w: 0}
devices:
  unit: {profile: sunspec_meter, rating_w: 100000, address: {driver: modbus_tcp, host: 127.0.0.1, port: %d}}
"""


@asynccontextmanager
async def world_process(tmp_path: Path, *arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Any]]:
    site = tmp_path / "bench.yaml"
    server = ModbusServer()
    server.add_unit(1, Memory())
    site.write_text(SITE % await server.listen("127.0.0.1", 0))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "faults", "run", str(site), "--state", str(tmp_path), *arguments),
        stdout=pipe,
        stderr=pipe,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            line = await process.stdout.readline()
        assert line, (await process.communicate())[1].decode()
        yield process, json.loads(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        await server.close()


async def command(*arguments: str) -> tuple[int, str, str]:
    """One command of the gateway's, in a thread of its own: exit code, output and errors."""

    def invoked(words: Sequence[str]) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(words))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return await asyncio.to_thread(invoked, arguments)


async def test_commands_reach_the_process_by_site_and_by_endpoint(tmp_path: Path) -> None:
    watched = tmp_path / "faults.yaml"
    watched.write_text("[{device: unit, fault: latency}]")
    async with world_process(tmp_path, "--file", str(watched)) as (process, said):
        at = ("--state", str(tmp_path))
        site, endpoint = str(tmp_path / "bench.yaml"), f"127.0.0.1:{said['faults']['port']}"
        code, out, errors = await command("faults", "set", site, "unit", "drift", "pu_per_s=0.5", *at)
        assert (code, errors) == (0, "")
        code, told, _ = await command("faults", "status", endpoint, "--json")
        faults = json.loads(told)["devices"]["unit"]["faults"]
        assert {fault["fault"] for fault in faults} == {"latency", "drift"}
        assert (await command("faults", "clear", site, "unit", out.strip(), *at))[:2] == (0, "1\n")
        code, told, _ = await command("faults", "status", site, *at)
        assert (code, f"{out.strip()} drift pu_per_s=0.5 points=['power_w']: over, acted 0" in told) == (0, True)
        for words, reason in ((("unit", "nope"), "no fault 'nope'; there are"), (("99",), "no fault has the id 99")):
            code, out, errors = await command("faults", "clear", endpoint, *words)
            assert (code, out, reason in errors) == (2, "", True)
        assert (await command("faults", "clear", endpoint, "1"))[:2] == (0, "1\n"), "an id needs no device"
        assert (await command("faults", "clear", endpoint))[:2] == (0, "0\n")
        for words, reason in (
            ((site, "unit", "nope"), "no fault 'nope'; there are refuse"),
            ((site, "thing", "drift"), "no device 'thing'; there are broker, unit"),
            ((endpoint, "thing", "drift"), "no device 'thing'; there are unit"),
            ((site, "unit", "drift", "by=1"), "drift: knows no by, but count, direction"),
            ((site, "unit", "drift", "pu_per_s=much"), "drift: pu_per_s: expected a number"),
            ((site, "unit", "drift", "pu_per_s"), "pu_per_s: KEY=VALUE is asked for"),
            ((site, "unit", "drift", "pu_per_s=1", "pu_per_s=2"), "pu_per_s: given twice"),
        ):
            code, out, errors = await command("faults", "set", *words, *at)
            assert (code, out) == (2, "")
            assert reason in errors
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(BOUND_S):
            assert await process.wait() == 0
    assert not (tmp_path / "faults.json").exists()
    code, _, errors = await command("faults", "status", site, *at)
    assert (code, "no fault proxies run for it" in errors) == (2, True)
    code, _, errors = await command("faults", "clear", endpoint)
    assert (code, "no fault proxies at" in errors) == (2, True)


async def test_the_list_is_one_array_with_every_fault() -> None:
    code, out, _ = await command("faults", "list", "--json")
    assert code == 0
    listed = json.loads(out)
    assert [item["name"] for item in listed] == list(FAULTS)
    assert all(item.keys() == {"name", "applies_to", "what"} and item["applies_to"] and item["what"] for item in listed)
    assert "frozen_value" in (await command("faults", "list"))[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--addresses", "/no/file"], "--addresses /no/file: No such file"),
        (["--file", "/no/file"], "--file /no/file: No such file"),
        (["--file", "/"], "--file /: is not a file"),
        (["--broker", "nowhere"], "--broker nowhere: HOST:PORT is asked for"),
        (["--state", "/dev/null/x"], "--state /dev/null/x: Not a directory"),
    ],
)
async def test_a_mistake_is_named_and_nothing_starts(tmp_path: Path, arguments: list[str], words: str) -> None:
    site = tmp_path / "bench.yaml"
    site.write_text(SITE % 502)
    code, out, errors = await command("faults", "run", str(site), "--state", str(tmp_path), *arguments)
    assert (code, out) == (2, "")
    assert words in errors


async def test_an_address_that_nobody_serves_resets_the_driver_and_the_proxy_stays() -> None:
    site, profiles = two_batteries()
    nobody = {"one": {**BATTERY["address"], "host": "127.0.0.1", "unit": 1}}
    async with FaultWorld(site, profiles, {"endpoints": nobody}) as world:
        reader, writer = await asyncio.open_connection(world.endpoints["one"]["host"], world.endpoints["one"]["port"])
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        await until(lambda: world.status()["devices"]["one"]["unreached"] == 1)
