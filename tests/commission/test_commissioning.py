"""Steps against twins: a response is measured, and what is wrong with device, profile or meter is named."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.lags import MeasuredLag
from config.loading import load_profiles, load_site
from config.site import Site
from config.vocabulary import POWER_W, SETPOINT_READBACK_W, DeviceKind
from gateway.cli.commission_run import CommissionCommand, Ended, concluded
from gateway.commission.commissioning import Commissioning, CommissionRequest, DeviceReport
from gateway.commission.field import field_of
from gateway.commission.stepping import Live
from sim_devices.process import run_twins
from tests.commission.bench import changed_profile, gateway, modbus, site_content, write_site


@contextlib.asynccontextmanager
async def simulated(content: Mapping[str, Any], folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The twins of a site, in this process; where they are."""
    site = load_site(write_site(folder, content, "simulated.yaml"))
    until, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    running = asyncio.create_task(run_twins(site, None, until=until, started=started.set_result), name="twins")
    try:
        yield (await started)["endpoints"]
    finally:
        until.set()
        await running


def real_site(content: dict[str, Any], endpoints: Mapping[str, Any], folder: Path) -> Path:
    """The same site seen by a gateway that takes the twins for real devices."""
    for name, device in content["devices"].items():
        device["address"] = endpoints[name]
    return write_site(folder, content)


def loaded(path: Path) -> tuple[Site, dict[str, Any]]:
    site = load_site(path)
    by_reference = load_profiles(site, path)
    return site, {name: by_reference[device.profile] for name, device in site.devices.items()}


async def commissioned(path: Path, *devices: str, **more: Any) -> dict[str, DeviceReport]:
    site, profiles = loaded(path)
    request = CommissionRequest(site, profiles, devices=devices, allow_real_writes=True, **more)
    return {report.device: report for report in await Commissioning(request, time.monotonic).run()}


async def test_a_response_is_measured_by_device_and_meter(tmp_path: Path) -> None:
    content = site_content()
    async with simulated(content, tmp_path) as endpoints:
        report = (await commissioned(real_site(content, endpoints, tmp_path)))["battery"]
    assert (report.outcome, report.findings, report.notes) == ("good", (), ())
    assert report.lag is not None and report.lag.measured_on == "device"
    assert report.lag.tr90_s == pytest.approx(0.2, rel=0.2)
    assert report.lag.dead_time_s == pytest.approx(0.3, abs=0.1)
    assert report.own is not None and report.meter is not None
    assert abs(report.own.change_w) == pytest.approx(8_000, rel=0.02)
    assert report.meter.change_w == pytest.approx(report.own.change_w, rel=0.05)
    assert sorted(report.phase_changes_w) == [1, 2, 3]


async def test_the_device_is_at_rest_afterwards(tmp_path: Path) -> None:
    content = site_content()
    async with simulated(content, tmp_path) as endpoints:
        path = real_site(content, endpoints, tmp_path)
        await commissioned(path)
        site, profiles = loaded(path)
        addresses = {name: device.address for name, device in site.devices.items()}
        async with field_of(site, profiles, addresses, frozenset(), 0.02, time.monotonic) as work:

            def rests() -> bool:
                now_s = time.monotonic()
                asked_w = work.view.number("battery", SETPOINT_READBACK_W, now_s, 5.0)
                power_w = work.view.number("battery", POWER_W, now_s, 1.0)
                return asked_w == 0.0 and power_w is not None and abs(power_w) < 50.0

            assert await work.view.until(rests, 4.0)


async def test_a_meter_with_the_wrong_sign_is_named(tmp_path: Path) -> None:
    content = site_content()
    async with simulated(content, tmp_path) as endpoints:

        def flipped(profile: dict[str, Any]) -> None:
            profile["points"]["power_w"]["sign"] = "generator"

        content["devices"]["meter"]["profile"] = changed_profile(tmp_path, "sunspec_meter", "flipped", flipped)
        report = (await commissioned(real_site(content, endpoints, tmp_path)))["battery"]
    assert report.outcome == "failed" and report.lag is None
    (finding,) = report.findings
    assert finding.startswith("meter meter shows the opposite sign")


async def test_a_device_that_does_not_respond_is_named(tmp_path: Path) -> None:
    content = site_content()
    async with simulated(content, tmp_path) as endpoints:

        def deaf(profile: dict[str, Any]) -> None:
            profile["control"]["writes"][-1] = {"point": "setpoint_enable", "value": 0}

        content["devices"]["battery"]["profile"] = changed_profile(tmp_path, "sunspec_battery", "deaf", deaf)
        report = (await commissioned(real_site(content, endpoints, tmp_path)))["battery"]
    assert report.outcome == "failed" and report.lag is None
    (finding,) = report.findings
    assert finding.startswith(("does not respond: -8000 W asked", "does not respond: +8000 W asked"))


async def test_a_device_with_the_wrong_sign_is_named(tmp_path: Path) -> None:
    content = site_content()
    async with simulated(content, tmp_path) as endpoints:

        def flipped(profile: dict[str, Any]) -> None:
            profile["points"]["power_w"]["sign"] = "load"

        content["devices"]["battery"]["profile"] = changed_profile(tmp_path, "sunspec_battery", "flipped", flipped)
        report = (await commissioned(real_site(content, endpoints, tmp_path)))["battery"]
    assert report.outcome == "failed"
    assert report.findings[0].startswith("moves the other way")


async def test_a_phase_that_the_site_file_has_wrong_is_named(tmp_path: Path) -> None:
    content = site_content()
    content["devices"]["battery"] |= {"phases": [2], "rating_w": 9_000}
    async with simulated(content, tmp_path) as endpoints:
        content["devices"]["battery"]["phases"] = [1]
        report = (await commissioned(real_site(content, endpoints, tmp_path)))["battery"]
    assert report.findings == ("the step is seen on phases 2; the site file says 1",)


async def test_a_device_that_is_lost_in_its_step_is_aborted(tmp_path: Path) -> None:
    content = site_content()
    async with simulated(content, tmp_path) as endpoints:
        address = endpoints["battery"]
        relay = await Relay.to(address["port"])
        site_path = real_site(content, {**endpoints, "battery": modbus(relay.port)}, tmp_path)
        site, profiles = loaded(site_path)

        def cut(live: Live) -> None:
            if live.phase == "step":
                relay.cut()

        request = CommissionRequest(site, profiles, allow_real_writes=True)
        (report,) = await Commissioning(request, time.monotonic, cut).run()
        await relay.close()
    assert report.outcome == "aborted"
    assert "lost while it was stepped" in report.reason or "a write was" in report.reason


async def test_nothing_real_is_stepped_without_leave(tmp_path: Path) -> None:
    content = site_content()
    async with simulated(content, tmp_path) as endpoints:
        site, profiles = loaded(real_site(content, endpoints, tmp_path))
        (report,) = await Commissioning(CommissionRequest(site, profiles), time.monotonic).run()
    assert (report.outcome, report.reason) == ("skipped", "it is real, and --allow-real-writes was not given")


async def test_a_site_without_room_is_left_alone(tmp_path: Path) -> None:
    content = site_content()
    content["connection"] |= {"max_import_w": 3_500, "max_export_w": 1_000}
    content["fallback"] = {"net_import_w": 3_500, "net_export_w": 1_000}
    async with simulated(content, tmp_path) as endpoints:
        report = (await commissioned(real_site(content, endpoints, tmp_path)))["battery"]
    assert report.outcome == "skipped"
    assert "-1000 to 3500 W is allowed" in report.reason


async def test_a_restless_connection_asks_for_a_larger_step(tmp_path: Path) -> None:
    content = site_content()
    content["devices"]["meter"]["twin"] = {"noise_w": 2_000}
    async with simulated(content, tmp_path) as endpoints:
        report = (await commissioned(real_site(content, endpoints, tmp_path), step_w=500.0))["battery"]
    assert report.outcome == "aborted"
    assert "a larger step is needed" in report.reason


class Relay:
    """A way to a device that can be cut for good."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut = False
        self.port = 0

    @classmethod
    async def to(cls, port: int) -> Relay:
        relay = cls(port)
        relay._server = await asyncio.start_server(relay._serve, "127.0.0.1", 0)
        relay.port = relay._server.sockets[0].getsockname()[1]
        return relay

    def cut(self) -> None:
        self._cut = True

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                ways = [
                    group.create_task(self._pass(reader, far_writer)),
                    group.create_task(self._pass(far_reader, writer)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        finally:
            for end in (writer, far_writer):
                end.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self._cut:
                    writer.write(data)


# The command


def test_the_command_measures_twins_and_stores_their_lags(tmp_path: Path) -> None:
    site = write_site(tmp_path, site_content())
    ran = gateway("commission", site, "--twin", "all", "--step-w", "6000", "--json", state=tmp_path / "state")
    assert ran.code == 0, ran.err
    (device,) = ran.json["devices"]
    assert "reading every device once" in ran.err and "battery: its step begins\nbattery: good\n" in ran.err
    assert (device["device"], device["outcome"], abs(device["asked_w"])) == ("battery", "good", 6_000)
    assert device["tr90_s"] == pytest.approx(0.2, rel=0.2)
    assert device["dead_time_s"] == pytest.approx(0.3, abs=0.1)
    stored = yaml.safe_load((tmp_path / "yard.lags.yaml").read_text())
    assert ran.json["lags_file"] == str(tmp_path / "yard.lags.yaml")
    assert stored["lags"]["battery"]["measured_on"] == "twin"
    assert stored["lags"]["battery"]["tr90_s"] == device["tr90_s"]


def test_a_device_that_is_not_there_fails_the_command(tmp_path: Path) -> None:
    content = site_content()
    content["devices"]["meter"]["address"] = content["devices"]["battery"]["address"] | {"port": 9, "unit": 7}
    content["devices"]["battery"]["address"] |= {"port": 9}
    site = write_site(tmp_path, content)
    ran = gateway("commission", site, "--allow-real-writes", state=tmp_path / "state")
    assert ran.code == 1
    assert "does not answer" in ran.err
    assert not (tmp_path / "yard.lags.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "no such device"),
        (("meter",), "a meter has nothing to step"),
        (("--twin", "nothing"), "no such device"),
        (("--out", "no/such/folder/file.yaml"), "does not exist"),
        (("--step-pu", "2"), "--step-pu"),
        ((), "commission steps battery, and no --twin takes their place: --allow-real-writes"),
        (("battery", "--twin", "meter"), "--allow-real-writes"),
    ],
)
def test_the_command_tells_mistakes(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    site = write_site(tmp_path, site_content())
    ran = gateway("commission", site, *arguments, state=tmp_path / "state")
    assert ran.code == 2
    assert words in ran.err


def test_without_leave_no_device_is_even_connected_to(tmp_path: Path) -> None:
    content = site_content()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        for device in content["devices"].values():
            device["address"]["port"] = server.getsockname()[1]
        content["devices"]["meter"]["address"]["unit"] = 2
        ran = gateway("commission", write_site(tmp_path, content), state=tmp_path / "state")
        assert ran.code == 2 and "--allow-real-writes" in ran.err
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_site_without_control_has_nothing_to_step(tmp_path: Path) -> None:
    content = site_content()
    content["devices"]["battery"]["read_only"] = True
    ran = gateway("commission", write_site(tmp_path, content), "--allow-real-writes", state=tmp_path / "state")
    assert ran.code == 2 and "nothing to step" in ran.err


def test_what_was_measured_is_told_also_where_it_cannot_be_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_site(tmp_path, site_content())
    site, profiles = loaded(path)
    lag = MeasuredLag(tr90_s=0.2, dead_time_s=0.1, measured_on="device", measured_at=datetime.now(UTC))
    done = DeviceReport("battery", DeviceKind.BATTERY, "good", lag=lag)
    command = CommissionCommand(
        path, site, profiles, (), (), None, 0.2, True, tmp_path, None, None, as_json=True, shipped=False
    )
    later = ValueError("profile odd, point soc: no request carries it")
    assert concluded(command, Ended([done], complete=False, broken=later)) == 2
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["complete"], told["reason"], told["lags_file"]) == (False, str(later), None)
    assert [device["device"] for device in told["devices"]] == ["battery"]
    assert str(tmp_path) in said.err and str(later) in said.err


async def test_ctrl_c_puts_the_device_at_rest_and_reports(tmp_path: Path) -> None:
    content = site_content()
    content["devices"]["battery"]["twin"] |= {"dead_time_s": 2.0}
    async with simulated(content, tmp_path) as endpoints:
        path = real_site(content, endpoints, tmp_path)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "commission", str(path), "--allow-real-writes", "--json",
            env={**os.environ, "LAMINA_STATE": str(tmp_path / "state")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        site, profiles = loaded(path)
        addresses = {name: device.address for name, device in site.devices.items()}
        async with field_of(site, profiles, addresses, frozenset(), 0.02, time.monotonic) as work:

            def asked_w() -> float | None:
                return work.view.number("battery", SETPOINT_READBACK_W, time.monotonic(), 5.0)

            assert await work.view.until(lambda: asked_w() not in (None, 0.0), 20.0)
            process.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(process.communicate(), 10.0)
            assert await work.view.until(lambda: asked_w() == 0.0, 3.0)
    assert process.returncode == 1 and b"Traceback" not in err
    assert json.loads(out) | {"complete": False, "devices": []} == json.loads(out)


async def test_a_real_device_is_seen_by_a_twin_of_the_meter(tmp_path: Path) -> None:
    content = site_content()
    async with simulated(content, tmp_path) as endpoints:
        content["devices"]["battery"]["address"] = endpoints["battery"]
        path = write_site(tmp_path, content)
        ran = await asyncio.to_thread(
            gateway, "commission", path, "--twin", "meter", "--allow-real-writes", "--json", state=tmp_path / "state"
        )
    assert ran.code == 0, ran.err
    (device,) = ran.json["devices"]
    assert device["meter_saw"]["change_w"] == pytest.approx(device["device_saw"]["change_w"], rel=0.05)
    stored = yaml.safe_load((tmp_path / "yard.lags.yaml").read_text())
    assert stored["lags"]["battery"]["measured_on"] == "device"


async def test_a_twin_that_a_real_meter_does_not_see_is_measured_by_itself(tmp_path: Path) -> None:
    content = site_content()
    async with simulated(content, tmp_path) as endpoints:
        content["devices"]["meter"]["address"] = endpoints["meter"]
        path = write_site(tmp_path, content)
        ran = await asyncio.to_thread(gateway, "commission", path, "--twin", "battery", "--json", state=tmp_path / "s")
    assert ran.code == 0, ran.err
    (device,) = ran.json["devices"]
    assert device["meter_saw"] is None and device["tr90_s"] == pytest.approx(0.2, rel=0.2)
    assert any("does not see a twin" in note for note in device["notes"])
