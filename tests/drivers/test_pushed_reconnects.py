"""Links of OPC UA and MQTT that are cut again and again leave nothing behind.

RECONNECTS=10000 pytest -s tests/drivers/test_pushed_reconnects.py gives the figures for more of them, and with
RECONNECTS_FOR_S=300 for as many as fit into that time. The servers are processes of their own, so that what is counted
is the drivers'; what a library keeps outside of Python shows in the resident memory alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import os
import random
import resource
import socket
import ssl
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from config.loading import load_profile
from config.site import Address, MqttBroker, MqttDevice, OpcUaServer, Tls
from config.vocabulary import LinkState, Setpoint
from drivers.binding import DeviceBinding
from drivers.driver import Driver
from drivers.mqtt.connection import MqttConnection
from drivers.mqtt.driver import MqttDriver
from drivers.opcua.connection import KeptSession, OpcUaConnection
from drivers.opcua.driver import OpcUaDriver
from tests.drivers.field import Field
from tests.drivers.mqtt_field import MOSQUITTO, Mosquitto
from tests.drivers.tls_field import Authority

RECONNECTS = int(os.environ.get("RECONNECTS", "40"))
FOR_S = float(os.environ.get("RECONNECTS_FOR_S", "inf"))
WARM_UP = 15
# A connection that stayed would be dozens of objects and over 20 kB, each time.
MOST_OBJECTS = 400
MOST_BYTES = 150_000


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in ("opcua", "mqtt"):
        for pause in ("_FIRST_PAUSE_S", "_LONGEST_PAUSE_S"):
            monkeypatch.setattr(f"drivers.{driver}.driver.{pause}", 0.001)


@contextlib.contextmanager
def secured_battery(folder: Path) -> Iterator[OpcUaServer]:
    """The battery's twin in a process of its own, secured with certificates that are made for this run."""
    files = {"cert_file": "gateway.der", "key_file": "gateway.key", "trust_dir": "trusted"}
    battery = {
        "profile": "opcua_battery",
        "address": {"driver": "opcua", "url": "opc.tcp://127.0.0.1:4840/", "security": files},
        "rating_w": 30_000,
        "capacity_wh": 60_000,
    }
    site = folder / "site.yaml"
    content = {
        "site": "yard",
        "connection": {"rating_w": 100_000, "meter": "meter"},
        "fallback": {"net_import_w": 50_000, "net_export_w": 20_000},
        "devices": {
            "meter": {
                "profile": "sunspec_meter",
                "address": {"driver": "modbus_tcp", "host": "127.0.0.1", "port": 5020, "unit": 1},
                "rating_w": 100_000,
            },
            "battery": battery,
        },
        "simulation": {"load": {"series": None, "constant_w": 3000}},
    }
    site.write_text(yaml.safe_dump(content), encoding="utf-8")
    arguments = [sys.executable, "-m", "sim_devices.process", str(site), "--ports", "free", "--until-eof"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as twins:
        assert twins.stdout is not None and twins.stdin is not None
        said = json.loads(twins.stdout.readline())["endpoints"]["battery"]
        yield TypeAdapter[Any](Address).validate_python(said)
        twins.stdin.close()


@contextlib.asynccontextmanager
async def running(driver: Driver) -> AsyncIterator[None]:
    task = asyncio.create_task(driver.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Cuts:
    """Reconnects a driver's link again and again, with a setpoint under way each time."""

    def __init__(self, field: Field, driver: Driver, cut: Any) -> None:
        self._field, self._driver, self._cut = field, driver, cut
        self._sequence = 0

    async def make(self, times: int, for_s: float = math.inf) -> int:
        """Cut so often, or for so long; how often it was."""
        ends_s = time.monotonic() + for_s
        for done in range(times):
            if time.monotonic() > ends_s:
                return done
            await self._field.until(lambda: self._driver.stats.state is LinkState.UP, within_s=20)
            self._sequence += 1
            self._driver.write(Setpoint("battery", 1_000.0, "test", time.monotonic() + 5.0, self._sequence))
            lost = self._driver.stats.lost
            self._cut()
            await self._field.until(lambda lost=lost: self._driver.stats.lost > lost, within_s=20)
            for kept in (self._field.results, self._field.links, self._field.present):
                kept.clear()
        return times


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


async def grown(cuts: Cuts) -> str:
    """How many objects and bytes stay after so many reconnects; empty when it is next to nothing."""
    await cuts.make(WARM_UP)
    tracemalloc.start()
    try:
        await cuts.make(WARM_UP)
        gc.collect()
        objects, memory, resident = len(gc.get_objects()), tracemalloc.get_traced_memory()[0], resident_bytes()
        count = await cuts.make(RECONNECTS, FOR_S)
        gc.collect()
        more_objects, more = len(gc.get_objects()) - objects, tracemalloc.get_traced_memory()[0] - memory
    finally:
        tracemalloc.stop()
    thousands = max(count, 1) / 1000
    figures = (
        f"{count} reconnects: {more_objects} objects and {more} bytes more, {more / thousands:.0f} bytes per 1,000; "
        f"resident {(resident_bytes() - resident) / thousands / 1024:.0f} kB per 1,000\n"
    )
    sys.stdout.write(figures)
    return figures if more_objects > MOST_OBJECTS or more > MOST_BYTES else ""


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("pauses")
async def test_memory_stays_flat_over_reconnects_of_a_secured_opcua_link(tmp_path: Path) -> None:
    with secured_battery(tmp_path) as address:
        made: list[OpcUaConnection] = []
        kept = KeptSession()

        def connect(server: OpcUaServer, timeout_s: float) -> OpcUaConnection:
            made[:] = [OpcUaConnection(server, timeout_s, kept)]
            return made[0]

        binding = DeviceBinding("battery", load_profile("opcua_battery"), address, 30_000.0, reversion_s=10.0)
        field = Field()
        driver = OpcUaDriver("opcua", [binding], field, time.monotonic, random.Random(1), connect)
        async with running(driver):
            assert await grown(Cuts(field, driver, lambda: made[0]._drop_transport())) == ""


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("pauses")
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_memory_stays_flat_over_reconnects_of_an_mqtt_link(tmp_path: Path, encrypted: bool) -> None:
    authority = Authority(tmp_path)
    folder = authority.issue(tmp_path / "broker", "127.0.0.1")
    tls = Tls(ca_file=str(authority.ca_file)) if encrypted else None
    broker = Mosquitto(folder, tls=encrypted)
    await broker.start()
    made: list[MqttConnection] = []

    def connect(server: MqttBroker, identifier: str, timeout_s: float, topics: Sequence[str]) -> MqttConnection:
        made[:] = [MqttConnection(server, identifier, timeout_s, topics)]
        return made[0]

    def cut() -> None:
        client = made[0]._client
        opened = None if client is None else client._client.socket()
        if isinstance(opened, ssl.SSLSocket):
            socket.socket.shutdown(opened, socket.SHUT_RDWR)
        elif isinstance(opened, socket.socket):
            opened.shutdown(socket.SHUT_RDWR)

    try:
        address = MqttDevice(
            driver="mqtt", host="127.0.0.1", port=broker.port, parameters={"serial": "000001"}, tls=tls
        )
        binding = DeviceBinding("battery", load_profile("goe_charger"), address, 22_000.0)
        field = Field()
        driver = MqttDriver("mqtt", [binding], field, time.monotonic, random.Random(1), connect)
        async with running(driver):
            assert await grown(Cuts(field, driver, cut)) == ""
    finally:
        await broker.stop()
