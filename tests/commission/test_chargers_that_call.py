"""`gateway write` and `read` for a charger that calls by OCPP: one connection, and words about what is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.loading import load_profiles, load_site
from gateway.commission.writing import PointWrite, Prepared, WriteRefused, write_by_hand
from tests.commission.bench import changed_profile, gateway, modbus, write_site
from tests.drivers.ocpp_field import Charger, online


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def site_with_a_charger(folder: Path, port: int) -> Path:
    def hasty(profile: dict[str, Any]) -> None:
        profile["pace"]["silence_s"] = 2

    charger = {
        "profile": changed_profile(folder, "ocpp16_charger", "hasty", hasty),
        "address": {"driver": "ocpp", "listen_host": "127.0.0.1", "listen_port": port, "charge_point": "CP1"},
        "rating_w": 11_000,
    }
    content = {
        "site": "yard",
        "connection": {"rating_w": 100_000, "meter": "meter"},
        "fallback": {"net_import_w": 50_000, "net_export_w": 20_000},
        "devices": {
            "meter": {"profile": "sunspec_meter", "address": modbus(5020), "rating_w": 100_000},
            "charger": charger,
        },
    }
    return write_site(folder, content)


@contextlib.asynccontextmanager
async def calling(port: int, prepared: Callable[[Charger], None] = lambda _: None) -> AsyncIterator[list[Charger]]:
    """A charger that calls again and again, as they do; each of its connections."""
    connections: list[Charger] = []

    def connected(device: Charger) -> None:
        connections.append(device)
        prepared(device)

    async def call() -> None:
        while True:
            with contextlib.suppress(OSError):
                async with online(port, prepared=connected) as device:
                    await device.socket.wait_closed()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(call(), name="a charger that calls")
    try:
        yield connections
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_write_takes_one_connection_and_says_what_it_waits_for(tmp_path: Path) -> None:
    port = free_port()
    site = site_with_a_charger(tmp_path, port)
    async with calling(port) as connections:
        ran = await asyncio.to_thread(
            gateway, "write", site, "charger", "limit_a", "10", state=tmp_path / "state", answer="y\n"
        )
    assert ran.code == 0, ran.err
    assert f"waiting for the charger CP1 to connect on port {port}, up to 60 s" in ran.err
    assert "asking" not in ran.err and "lost" not in ran.err
    assert "acknowledged" in ran.out and "the point can't be read back" in ran.out
    (device,) = connections
    (profile,) = device.setpoints()
    assert profile["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"] == 10


async def test_the_charger_stays_while_somebody_thinks_and_its_units_are_known(tmp_path: Path) -> None:
    port = free_port()
    path = site_with_a_charger(tmp_path, port)
    site = load_site(path)
    profile = load_profiles(site, path)[site.devices["charger"].profile]
    asked = PointWrite(site, "charger", profile, site.devices["charger"].address, "limit_w", "4000")
    told: list[str] = []

    def takes_watts(device: Charger) -> None:
        device.configuration["ChargingScheduleAllowedChargingRateUnit"] = "Power"

    async with calling(port, takes_watts) as connections:

        async def confirmed(prepared: Prepared) -> bool:
            assert prepared.current is None and prepared.encoded == "4000 by limit_w"
            await connections[0].until(lambda: len(connections[0].all("TriggerMessage")) >= 2)
            return True

        _, done = await write_by_hand(asked, confirmed, time.monotonic, told.append)
        assert done is not None and done.good
        (device,) = connections
        assert device.asked[0][0] == "GetConfiguration"
        assert device.setpoints()[0]["chargingSchedule"]["chargingRateUnit"] == "W"
    assert len(told) == 1


async def test_what_must_not_be_written_is_refused_before_anybody_listens(tmp_path: Path) -> None:
    path = site_with_a_charger(tmp_path, 1)
    site = load_site(path)
    profile = load_profiles(site, path)[site.devices["charger"].profile]

    async def never(_: Prepared) -> bool:
        raise AssertionError("nobody is asked")

    for point, text in (("limit_a", "17"), ("power_w", "1"), ("limit_a", "much")):
        with pytest.raises(WriteRefused):
            asked = PointWrite(site, "charger", profile, site.devices["charger"].address, point, text)
            await write_by_hand(asked, never, time.monotonic)


def test_a_password_that_is_not_there_is_told_before_anybody_waits(tmp_path: Path) -> None:
    path = site_with_a_charger(tmp_path, free_port())
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["devices"]["charger"]["address"]["password_env"] = "LAMINA_TEST_UNSET"
    ran = gateway("read", write_site(tmp_path, content), "charger", state=tmp_path / "state")
    assert (ran.code, ran.out) == (1, "")
    assert "LAMINA_TEST_UNSET, which holds the charger's password, is not set" in ran.err
    assert "waiting" not in ran.err


async def test_a_read_says_what_it_waits_for_and_hangs_up_without_a_word(tmp_path: Path) -> None:
    port = free_port()
    site = site_with_a_charger(tmp_path, port)
    async with calling(port):
        ran = await asyncio.to_thread(gateway, "read", site, "charger", "power_w", "--json", state=tmp_path / "state")
    assert f"waiting for the charger CP1 to connect on port {port}" in ran.err
    assert "asking the charger for its status and meter values, up to 2 s" in ran.err
    assert "lost" not in ran.err
    assert ran.json["identity"][0] == "Vendor Model 1.2"
