"""What devices say is recorded over real sockets, and served again: the same registers at the same times."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from config.loading import load_profiles
from config.profile import Profile
from config.site import Site
from config.vocabulary import LinkState, Quality, Sample, WriteResult
from gateway.bench.record import RecordingFailedError, RecordRequest, record
from gateway.cli.main import app
from gateway.cli.run import site_addresses
from gateway.composition import build_recorders
from sim_devices.endpoints import Endpoints, TwinError, twin_kinds
from sim_devices.modbus import ExceptionCode, Table
from sim_devices.pace import RealTimePace
from sim_devices.physics import SitePhysics
from sim_devices.recording import RecordedRead, Recording, RecordingError, load_recording
from sim_devices.replay import AtEnd, ReplayServer, ReplayUnit
from sim_devices.replay_process import ReplayEndpoints

BOUND_S = 20.0
RECORDED = ("meter", "pv", "battery", "charger_a", "charger_b")


FULL_BYTES = 40_000


class Sink:
    """Remembers every good power, and tells who waits for one."""

    def __init__(self) -> None:
        self.powers: list[tuple[str, Sample]] = []
        self._changed = asyncio.Event()

    def samples(self, device: str, samples: Mapping[str, Sample]) -> None:
        power = samples.get("power_w")
        if power is not None and power.quality is Quality.GOOD:
            self.powers.append((device, power))
            self._changed.set()

    def write_result(self, result: WriteResult) -> None: ...
    def link_state(self, link: str, state: LinkState, reason: str) -> None: ...
    def device_state(self, device: str, present: bool, reason: str) -> None: ...

    def of(self, device: str) -> list[Sample]:
        return [power for name, power in self.powers if name == device]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def modbus_site(site_file: dict[str, Any]) -> Site:
    """Four devices on TCP, two of them behind one address, and one on a line behind a device server."""
    devices = {name: site_file["devices"][name] for name in RECORDED}
    devices["charger_a"]["address"] = {**devices["charger_a"]["address"], "unit": 8}
    devices["charger_b"]["address"] = {"driver": "modbus_rtu_tcp", "host": "127.0.0.1", "port": 5025, "unit": 7}
    devices["charger_b"]["twin"] = {"evs": [{}]}
    devices["battery"]["address"] = {**devices["pv"]["address"], "unit": 2}
    devices["battery"]["twin"] = {"noise_w": 500.0, "soc": 0.5}
    return Site.model_validate(site_file | {"devices": devices})


def profiles_of(site: Site) -> dict[str, Profile]:
    by_reference = load_profiles(site, Path("site.yaml"))
    return {name: by_reference[device.profile] for name, device in site.devices.items()}


@contextlib.asynccontextmanager
async def twins(site: Site) -> AsyncIterator[dict[str, Any]]:
    """The site's twins on real sockets, in real time; the endpoints."""
    physics = SitePhysics(site, twin_kinds(site, None), start_s=time.monotonic())
    battery = physics.devices["battery"]
    battery.set_power(-10_000.0, None, physics.now_s)  # type: ignore[union-attr]
    async with Endpoints(site, physics, time.monotonic, ports="free") as endpoints:
        running = asyncio.create_task(RealTimePace(physics, time.monotonic).run(), name="physics")
        try:
            yield endpoints.addresses
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def recorded(site: Site, out: Path, sink: Sink, powers: int) -> None:
    """Record until every device has given so many powers."""
    stop = asyncio.Event()
    async with twins(site) as endpoints:
        request = RecordRequest(site, profiles_of(site), site_addresses(site, endpoints), out)
        recording = asyncio.create_task(record(request, stop, sink=sink), name="recording")
        await sink.until(lambda: all(len(sink.of(name)) >= powers for name in RECORDED))
        stop.set()
        summary = await recording
    assert summary.never_heard == []
    assert all(count >= powers for count in summary.reads.values())


class BenchTime:
    """The replay's clock, which stands where a test puts it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_a_driver_reads_from_the_replay_what_it_read_from_the_devices_at_the_same_times(
    modbus_site: Site, tmp_path: Path
) -> None:
    first, again = Sink(), Sink()
    out = tmp_path / "fault.jsonl"
    await recorded(modbus_site, out, first, powers=8)
    assert len({power.value for power in first.of("battery")}) > 4, "something has changed meanwhile"

    recording = load_recording(out)
    began_s = json.loads(out.read_text().splitlines()[0])["began_monotonic_s"]
    clock = BenchTime()
    async with ReplayEndpoints(modbus_site, recording, clock) as replay:
        addresses = site_addresses(modbus_site, replay.addresses)
        assert {name: at.unit for name, at in addresses.items()} == {  # type: ignore[union-attr]
            name: device.address.unit  # type: ignore[union-attr]
            for name, device in modbus_site.devices.items()
        }
        drivers = build_recorders(
            modbus_site, profiles_of(modbus_site), again, time.monotonic, addresses, lambda *_: None
        )
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(driver.run(), name=driver.name) for driver in drivers]
            await again.until(lambda: all(again.of(name) for name in RECORDED))
            for device, power in sorted(first.powers, key=lambda item: item[1].measured_s):
                # A tenth of a millisecond covers the rounding to microseconds.
                clock.now_s = power.measured_s - began_s + 1e-4
                again.powers.clear()
                for driver in drivers:
                    driver.poll()
                await again.until(lambda: all(again.of(name) for name in RECORDED))
                assert again.of(device)[-1].value == power.value, (device, power.measured_s - began_s)
            for task in running:
                task.cancel()


async def test_a_recording_holds_times_units_tables_and_words(modbus_site: Site, tmp_path: Path) -> None:
    out = tmp_path / "fault.jsonl"
    await recorded(modbus_site, out, Sink(), powers=2)
    header, *lines = (json.loads(line) for line in out.read_text().splitlines())
    assert header["recording"] == "lamina modbus"
    assert header["site"] == "car_park"
    assert {line["device"] for line in lines} == set(RECORDED)
    assert {(line["device"], line["unit"]) for line in lines} >= {("battery", 2), ("charger_b", 7)}
    assert all(line["utc"].endswith("Z") for line in lines)
    meter = next(line for line in lines if line["device"] == "meter")
    assert (meter["table"], meter["first"], meter["words"]) == ("holding", 40_000, [0x5375, 0x6E53]), "SunS"
    times = [line["monotonic_s"] for line in lines]
    assert times == sorted(times)


async def test_recording_needs_a_new_file_and_a_modbus_device(modbus_site: Site, tmp_path: Path) -> None:
    out = tmp_path / "there.jsonl"
    out.write_text("precious")
    addresses = {name: device.address for name, device in modbus_site.devices.items()}
    request = RecordRequest(modbus_site, profiles_of(modbus_site), addresses, out)
    with pytest.raises(RecordingFailedError, match="is there already"):
        await record(request, asyncio.Event())
    assert out.read_text() == "precious"
    with pytest.raises(RecordingFailedError, match="No such file"):
        await record(RecordRequest(modbus_site, {}, addresses, tmp_path / "no" / "x"), asyncio.Event())
    with pytest.raises(RecordingFailedError, match="no Modbus device"):
        await record(RecordRequest(modbus_site, {}, {}, tmp_path / "x"), asyncio.Event())


async def test_a_device_that_is_not_there_is_told(modbus_site: Site, tmp_path: Path) -> None:
    async with twins(modbus_site) as endpoints:
        addresses = site_addresses(modbus_site, endpoints)
    # The twins are gone, and their ports with them.
    request = RecordRequest(modbus_site, profiles_of(modbus_site), addresses, tmp_path / "x", duration_s=0.3)
    summary = await record(request, asyncio.Event())
    assert set(summary.never_heard) == set(RECORDED)
    assert not (tmp_path / "x").exists(), "a recording of nothing is none, and the name is free again"


async def test_a_full_disk_leaves_a_recording_that_is_whole_up_to_there(modbus_site: Site, tmp_path: Path) -> None:
    """The size that a process may give a file stands for the disk: the write that goes beyond it is cut off."""
    site, out, given = tmp_path / "site.yaml", tmp_path / "x.jsonl", tmp_path / "addresses.json"
    site.write_text(json.dumps(modbus_site.model_dump(mode="json")))
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({FULL_BYTES},) * 2)\n"
    code += "from gateway.cli import main; main()"
    async with twins(modbus_site) as endpoints:
        given.write_text(json.dumps({"endpoints": endpoints}))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, "record", str(site), "--out", str(out), "--addresses", str(given)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode().strip().endswith(f"{out}: File too large; the recording ends here")
    assert 0 < out.stat().st_size <= FULL_BYTES
    assert load_recording(out).reads, "every line of it is whole"


def words(at_s: float, *values: int, first: int = 100, table: str = "holding") -> RecordedRead:
    return RecordedRead(at_s, "pv", 1, table, first, len(values), values, None)


def refused(at_s: float, code: int, count: int = 2) -> RecordedRead:
    return RecordedRead(at_s, "pv", 1, "holding", 100, count, None, code)


def unanswered(at_s: float) -> RecordedRead:
    return RecordedRead(at_s, "pv", 1, "holding", 100, 2, None, None)


def unit_of(*reads: RecordedRead, at_end: AtEnd = "hold") -> tuple[ReplayUnit, BenchTime]:
    clock = BenchTime()
    return ReplayUnit(reads, reads[-1].at_s, clock, at_end), clock


def held(unit: ReplayUnit, address: int = 100, count: int = 2) -> list[int] | ExceptionCode:
    data = unit.read(Table.HOLDING, address, count)
    if isinstance(data, ExceptionCode):
        return data
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def test_registers_change_when_they_did_and_hold_at_the_end() -> None:
    unit, clock = unit_of(words(1.0, 1, 2), words(2.0, 3, 4), words(3.0, 5, 6))
    seen = []
    for clock.now_s in (0.0, 1.5, 2.0, 2.999, 3.0, 100.0):
        seen.append(held(unit))
    assert seen == [[1, 2], [1, 2], [3, 4], [3, 4], [5, 6], [5, 6]]


def test_a_loop_begins_again_with_what_was_first() -> None:
    unit, clock = unit_of(words(0.0, 1, 2), words(1.0, 3, 4), words(2.0, 5, 6), at_end="loop")
    seen = []
    for clock.now_s in (0.5, 1.5, 2.5, 3.5, 8.5, 9.5):
        seen.append(held(unit))
    assert seen == [[1, 2], [3, 4], [1, 2], [3, 4], [1, 2], [3, 4]]


def test_a_write_is_acknowledged_counted_and_holds_until_the_recording_says_otherwise() -> None:
    unit, clock = unit_of(words(0.0, 10, 20), words(1.0, 10, 20), words(2.0, 10, 30))
    assert unit.write(100, b"\0\x63") is None
    assert unit.write(101, b"\0\x64") is None
    assert held(unit) == [99, 100]
    clock.now_s = 1.0
    assert held(unit) == [99, 100], "the same value again says nothing"
    clock.now_s = 2.0
    assert held(unit) == [99, 30], "the second register was recorded with another value"
    assert unit.write(9_000, b"\0\x01") is None
    assert held(unit, 9_000, 1) == [1], "a setpoint that the driver never reads can be written"
    assert unit.writes == 3


def test_what_was_not_recorded_is_refused_and_gaps_between_are_zero() -> None:
    unit, _ = unit_of(words(0.0, 1, 2), words(0.0, 7, first=104))
    assert held(unit, 99, 2) is ExceptionCode.ILLEGAL_ADDRESS
    assert held(unit, 104, 2) is ExceptionCode.ILLEGAL_ADDRESS
    assert held(unit, 101, 4) == [2, 0, 0, 7]
    assert unit.filled == 2
    assert unit.read(Table.INPUT, 100, 2) is ExceptionCode.ILLEGAL_ADDRESS


def test_refusals_and_silence_come_back_on_the_wire() -> None:
    unit, clock = unit_of(words(0.0, 1, 2), refused(1.0, 6), words(2.0, 3, 4), unanswered(3.0), words(4.0, 5, 6))
    server = ReplayServer()
    server.add_unit(1, unit)
    asked, other = bytes((3, 0, 100, 0, 2)), bytes((3, 0, 100, 0, 1))
    said = []
    for clock.now_s in (0.5, 1.5, 2.5, 3.5, 4.5):
        said.append(server.reply(1, asked))
    assert said == [b"\x03\x04\0\x01\0\x02", b"\x83\x06", b"\x03\x04\0\x03\0\x04", None, b"\x03\x04\0\x05\0\x06"]
    clock.now_s = 1.5
    assert server.reply(1, other) is not None, "another read was not refused"
    assert server.counts.exceptions == 1
    assert server.counts.absent == 1


HEADER = (
    '{"recording":"lamina modbus","version":1,"site":"s","began_monotonic_s":5.0,"began_utc":"2026-01-01T00:00:00Z"}\n'
)
GOOD = '{"monotonic_s":6.0,"utc":"","device":"pv","unit":1,"table":"holding","first":0,"words":[1,2]}\n'


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", None, "nothing is recorded"),
        (HEADER, None, "nothing is recorded"),
        (GOOD, 1, "not a recording of Modbus registers"),
        (HEADER.replace('"version":1', '"version":2') + GOOD, 1, "version 2; this reads version 1"),
        (HEADER + GOOD + GOOD[:40], 3, "the line is cut off"),
        (HEADER + GOOD + "\0\0\0\n", 3, "not JSON"),
        (HEADER + "[]\n", 2, "not an object"),
        (HEADER + GOOD.replace("[1,2]", "[1,70000]"), 2, "words: 70000 at 1 is no register"),
        (HEADER + GOOD.replace("[1,2]", "[]"), 2, "words: a list of 1 to 125"),
        (HEADER + GOOD.replace("[1,2]", "[true]"), 2, "words: True at 0 is no register"),
        (HEADER + GOOD.replace('"first":0', '"first":65535'), 2, "first: 65535 is not a whole number from 0 to 65534"),
        (HEADER + GOOD.replace('"unit":1', '"unit":300'), 2, "unit: 300"),
        (HEADER + GOOD.replace("holding", "coils"), 2, "table: 'coils' is neither"),
        (HEADER + GOOD.replace("6.0", "NaN"), 2, "monotonic_s: nan is not a number"),
        (HEADER + GOOD.replace("6.0", "4.0"), 2, "before the begin"),
        (HEADER + GOOD + GOOD.replace("6.0", "5.5"), 3, "monotonic_s goes back by 0.500 s"),
        (HEADER + GOOD.replace('"words":[1,2]', '"count":2'), 2, "neither words, nor an exception"),
        (HEADER + GOOD.replace('"device":"pv",', ""), 2, "device: a name is due"),
    ],
)
def test_a_damaged_recording_is_refused_with_line_and_reason(
    text: str, line: int | None, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_text(text)
    with pytest.raises(RecordingError) as refused:
        load_recording(path)
    where = f"{path}: " if line is None else f"{path}:{line}: "
    assert str(refused.value).startswith(where)
    assert why in str(refused.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordingError, match="not text"):
        load_recording(path)
    with pytest.raises(RecordingError, match="No such file"):
        load_recording(tmp_path / "nowhere")


async def test_a_recording_of_another_site_is_refused_before_anything_listens(modbus_site: Site) -> None:
    read = RecordedRead(0.0, "roof", 1, "holding", 0, 1, (1,), None)
    with pytest.raises(TwinError, match="roof: recorded at elsewhere; the Modbus devices of this site are meter"):
        async with ReplayEndpoints(modbus_site, Recording("elsewhere", "", (read,)), time.monotonic):
            raise AssertionError("it must not serve")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["record", "demo", "--out", "/nowhere/x"], "No such file"),
        (["record", "demo", "--out", "/nowhere/x", "--addresses", "/dev/null"], "--addresses /dev/null: is empty"),
        (["twins", "demo", "--replay", "x", "--replay-end", "stop"], "allowed are hold and loop"),
        (["twins", "demo", "--replay-end", "loop"], "is of a recording; --replay FILE names one"),
        (["twins", "demo", "--replay", "x", "--twin", "pv"], "--twin can't be given"),
    ],
)
def test_the_commands_refuse_bad_input(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert words in result.stderr
