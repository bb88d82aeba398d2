"""`gateway grid` and `gateway faults counts`: running twins are found, moved and asked what they refused."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymodbus.client import AsyncModbusTcpClient
from typer.testing import CliRunner

from config.site import Site
from gateway.cli.main import app
from sim_devices.control_port import ControlPort
from sim_devices.endpoints import twin_kinds
from sim_devices.models import BatteryModel, ChargerModel
from sim_devices.mqtt_charger import GoeKeys
from sim_devices.opcua_battery import SETPOINT, Container
from sim_devices.physics import SitePhysics

BOUND_S = 30.0


async def command(*arguments: str) -> tuple[int, str, str]:
    """One command of the gateway's, in a thread of its own: exit code, output and errors."""

    def invoked(words: Sequence[str]) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(words))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return await asyncio.to_thread(invoked, arguments)


@asynccontextmanager
async def running_twins(
    tmp_path: Path, site_file: dict[str, Any]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """`gateway twins` with a meter, PV and a battery, on free ports."""
    site = tmp_path / "site.yaml"
    site_file["devices"] = {name: site_file["devices"][name] for name in ("meter", "pv", "battery")}
    site_file["simulation"] |= {"load_steps": None, "clouds": None}
    site.write_text(yaml.safe_dump(site_file))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "twins", str(site), "--ports", "free", "--state", str(tmp_path / "state")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(BOUND_S):
            line = await process.stdout.readline()
        assert line, (await process.communicate())[1].decode()
        yield process, json.loads(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_grid_of_running_twins_is_moved_by_site_and_by_endpoint(
    tmp_path: Path, site_file: dict[str, Any]
) -> None:
    async with running_twins(tmp_path, site_file) as (process, said):
        site, at = str(tmp_path / "site.yaml"), ("--state", str(tmp_path / "state"))
        endpoint = f"{said['control']['host']}:{said['control']['port']}"

        async def told(target: str, *options: str) -> dict[str, Any]:
            code, out, errors = await command("grid", target, *options, "--json", *at)
            assert (code, errors) == (0, "")
            answer: dict[str, Any] = json.loads(out)
            return answer

        assert (await told(site))["frequency_hz"] == 50.0
        moved = await told(site, "--frequency", "50.3", "--voltage", "1.05")
        assert (moved["frequency_hz"], moved["source_v"]) == (50.3, pytest.approx([241.5] * 3))
        assert (await told(endpoint, "--voltage", "1,1,0.9"))["source_v"] == pytest.approx([230.0, 230.0, 207.0])
        assert (await told(endpoint, "--frequency", "49", "--ramp", "3600"))["frequency_hz"] > 50.0
        dead = await told(endpoint, "--open")
        assert (dead["breaker"], dead["frequency_hz"], dead["voltage_v"]) == ("open", 0.0, [0.0] * 3)
        code, out, _ = await command("grid", endpoint, "--close")
        assert (code, out.startswith("breaker closed, ")) == (0, True)

        for options, words in (
            (("--voltage", "high"), "--voltage high: a number, or three"),
            (("--voltage", "1,1"), "--voltage 1,1: one number, or three"),
            (("--voltage", "-1"), "--voltage -1: is not above 0"),
            (("--frequency", "0"), "--frequency 0: is not above 0"),
            (("--ramp", "5"), "--ramp: is of a frequency or a voltage"),
        ):
            code, out, errors = await command("grid", endpoint, *options)
            assert (code, out, words in errors) == (2, "", True), errors

        pv = said["endpoints"]["pv"]
        client = AsyncModbusTcpClient(pv["host"], port=pv["port"])
        assert await client.connect()
        assert (await client.read_holding_registers(9_000, count=2, device_id=pv["unit"])).exception_code == 2
        client.close()
        code, out, _ = await command("faults", "counts", site, "--json", *at)
        counted = json.loads(out)
        assert (code, counted.keys()) == (0, {"meter", "pv", "battery"})
        assert (counted["pv"]["exceptions"], counted["battery"]["exceptions"]) == (1, 0)
        code, out, _ = await command("faults", "counts", site, *at)
        assert (code, "1 exceptions" in out) == (0, True)

        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(BOUND_S):
            assert await process.wait() == 0
        assert not (tmp_path / "state" / "twins.json").exists()
        code, _, errors = await command("grid", site, *at)
        assert (code, "no twins run for it" in errors) == (2, True)
        code, _, errors = await command("grid", endpoint)
        assert (code, "no twins at" in errors) == (2, True)


async def test_what_twins_refuse_is_counted_whatever_they_speak(site: Site) -> None:
    clock = asyncio.get_running_loop().time
    physics = SitePhysics(site, twin_kinds(site, ["battery", "container", "charger_c"]), start_s=clock())
    battery, charger = physics.devices["container"], physics.devices["charger_c"]
    assert isinstance(battery, BatteryModel) and isinstance(charger, ChargerModel)
    assert Container(battery, clock).refusal(SETPOINT, 1e6) is not None
    assert Container(battery, clock).refusal(SETPOINT, 1.0) is None
    keys = GoeKeys(charger, "012345", clock)
    assert (keys.write("amp", b"99"), keys.write("amp", b"10")) != ("success", "success")
    counts = ControlPort(physics, clock).state()["counts"]
    assert counts["container"] == counts["charger_c"] == {"refused": 1, "clipped": 0, "reversions": 0}
    assert counts["battery"]["refused"] == 0
