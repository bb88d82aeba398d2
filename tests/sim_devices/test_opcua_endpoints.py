"""Twins of a secured OPC UA server: secured as the site file says, with certificates of their own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from config.loading import load_profile
from config.site import Address, OpcUaServer, Site
from drivers.inspection import InspectionFailed
from gateway.commission.looking import look
from sim_devices.endpoints import Endpoints, Ports, TwinError, twin_kinds
from sim_devices.physics import SitePhysics
from tests.drivers.opcua_field import made
from tests.system.processes import closed_port

BATTERY = "battery_b"
PASSWORD = "bench only"


def site(port: int = 4840, **address: Any) -> Site:
    server = {"driver": "opcua", "url": f"opc.tcp://127.0.0.1:{port}/", **address}
    battery = {"profile": "opcua_battery", "address": server, "rating_w": 30_000, "capacity_wh": 60_000}
    meter = {
        "profile": "sunspec_meter",
        "address": {"driver": "modbus_tcp", "host": "127.0.0.1", "port": 1, "unit": 1},
        "rating_w": 100_000,
    }
    return Site.model_validate(
        {
            "site": "yard",
            "connection": {"rating_w": 100_000, "meter": "meter"},
            "fallback": {"net_import_w": 50_000, "net_export_w": 20_000},
            "devices": {"meter": meter, BATTERY: battery},
            "simulation": {"load": {"series": None, "constant_w": 3000}},
        }
    )


def security(folder: Path, **more: str) -> dict[str, str]:
    files = {"cert_file": "gateway.der", "key_file": "gateway.key", "trust_dir": "trusted"}
    return {name: str(folder / file) for name, file in files.items()} | more


@asynccontextmanager
async def served(made_of: Site, ports: Ports) -> AsyncIterator[dict[str, Any]]:
    physics = SitePhysics(made_of, twin_kinds(made_of, [BATTERY]), real=["meter"], start_s=time.monotonic())
    async with Endpoints(made_of, physics, time.monotonic, ports=ports) as endpoints:
        yield endpoints.addresses[BATTERY]


async def is_read(said: dict[str, Any] | OpcUaServer) -> None:
    address: Any = said
    if isinstance(said, dict):
        address = TypeAdapter(Address).validate_python(said)
    seen = await look(load_profile("opcua_battery"), address, time.monotonic, ("soc",))
    assert seen.readings["soc"].sample.value is not None


@pytest.mark.parametrize("login", ["anonymous", "name", "certificate"])
async def test_on_free_ports_both_sides_get_certificates_for_this_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    monkeypatch.setenv("LAMINA_TEST_PASSWORD", PASSWORD)
    who = {
        "anonymous": {},
        "name": {"username": "operator", "password_env": "LAMINA_TEST_PASSWORD"},
        "certificate": {"user_cert_file": str(tmp_path / "u.der"), "user_key_file": str(tmp_path / "u.key")},
    }[login]
    async with served(site(security=security(tmp_path), **who), "free") as said:
        await is_read(said)
        folder = Path(said["security"]["trust_dir"]).parent
        assert folder.stat().st_mode & 0o077 == 0
        with pytest.raises(InspectionFailed, match="no endpoint for a connection without `security`"):
            await is_read({"driver": "opcua", "url": said["url"]})
    assert not folder.exists()


async def test_where_the_site_file_says_the_gateway_is_known_by_its_own_certificate(tmp_path: Path) -> None:
    pair = made(tmp_path, "gateway", "urn:test:lamina")
    stranger = made(tmp_path, "stranger", "urn:test:stranger")
    asked = security(tmp_path, mode="sign", policy="Aes256_Sha256_RsaPss", server_uri="urn:the:container")
    async with served(site(closed_port(), security=asked), "declared") as said:
        assert said["security"]["cert_file"] == str(pair.cert_file)
        await is_read(said)
        other = {"cert_file": str(stranger.cert_file), "key_file": str(stranger.key_file)}
        with pytest.raises(InspectionFailed):
            await is_read(said | {"security": said["security"] | other})


async def test_what_cannot_be_served_as_the_site_says_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(TwinError) as told:
        async with served(site(closed_port(), security=security(tmp_path)), "declared"):
            pass
    assert str(told.value) == (
        f"battery_b: address.security.cert_file: {tmp_path}/gateway.der: No such file or directory; "
        "`gateway certificate make` makes one"
    )
    unknown = {"username": "operator", "password_env": "LAMINA_TEST_UNSET"}
    with pytest.raises(TwinError, match="LAMINA_TEST_UNSET is not set"):
        async with served(site(security=security(tmp_path), **unknown), "free"):
            pass


async def test_a_server_without_security_is_plain(tmp_path: Path) -> None:
    async with served(site(), "free") as said:
        assert said.keys() == {"driver", "url"}
        await is_read(said)
