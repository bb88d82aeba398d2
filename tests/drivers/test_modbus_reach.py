"""What a technician is told when a Modbus server or a serial port can't be had."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from config.vocabulary import LinkState
from drivers.modbus.port_refusals import port_refusal
from drivers.reach import ended, unreached
from tests.drivers.modbus_server import Bench, battery_profile, bench, fill_battery
from tests.drivers.serial_line import LineBench, terminal

HOLD = """
import fcntl, sys
port = open(sys.argv[1], "rb", buffering=0)
fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
async def on() -> AsyncIterator[Bench]:
    async with bench() as made:
        yield made


@pytest.fixture
async def line() -> AsyncIterator[LineBench]:
    async with terminal() as made:
        yield made


async def test_nothing_listens_at_a_port(on: Bench) -> None:
    await on.server.stop()
    async with on.running(on.bind(battery_profile())) as driver:
        await on.until(lambda: len(on.sink.links) > 1)
    state, told = on.sink.links[1]
    assert state is LinkState.LOST
    assert told == f"Connection refused: 127.0.0.1 is there, but nothing listens on port {on.server.port}"
    assert driver.stats.reason == told


async def test_a_server_that_resets_the_connection_is_told_without_numbers(on: Bench) -> None:
    fill_battery(on.server)
    async with on.running(on.bind(battery_profile())) as driver:
        await on.present()
        on.server.reset()
        await on.until(lambda: bool(driver.stats.lost))
    (told,) = [reason for state, reason in on.sink.links if state is LinkState.LOST]
    assert told in ("connection lost: the other side reset it", "closed by the device")


@pytest.fixture
def held(line: LineBench) -> Iterator[int]:
    """The line's port while another program has it; that program's process."""
    with subprocess.Popen([sys.executable, "-c", HOLD, line.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as it:
        assert it.stdin is not None and it.stdout is not None
        assert it.stdout.readline() == b"held\n"
        yield it.pid
        it.stdin.close()


async def test_a_port_that_another_program_has_is_told_with_its_name(line: LineBench, held: int) -> None:
    async with line.running(line.bind(battery_profile())) as driver:
        await line.until(lambda: driver.stats.lost == 1)
        told = driver.stats.reason
    # A container may hide the processes of others, never the fact.
    named = rf"\S+ \(process {held}\)"
    assert re.fullmatch(rf"{re.escape(line.path)} is busy: ({named}|another program) has this port open", told)


@pytest.fixture
def other(line: LineBench) -> Iterator[int]:
    """The port as another program has opened and locked it."""
    opened = os.open(line.path, os.O_RDONLY | os.O_NOCTTY)
    fcntl.flock(opened, fcntl.LOCK_EX)
    yield opened
    os.close(opened)


async def test_a_port_is_had_as_soon_as_it_is_free(line: LineBench, other: int) -> None:
    line.line.add(1).put(10, bytes(100))
    async with line.running(line.bind(battery_profile())) as driver:
        await line.until(lambda: driver.stats.lost == 1)
        fcntl.flock(other, fcntl.LOCK_UN)
        await line.until(lambda: driver.stats.state is LinkState.UP)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "the name meter.local is not known"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "the name server does not answer"),
        (UnicodeError("label too long"), "meter.local can be no host name"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "is it switched on"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "this machine has no route to meter.local"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 502, 0, 0), [Errno 113] No route"),
            "nothing listens on port 502; meter.local does not answer on its network",
        ),
    ],
)
def test_each_reason_has_its_words(error: OSError | UnicodeError, words: str) -> None:
    told = unreached(error, "meter.local", 502)
    assert words in told
    assert "Errno" not in told


def test_a_port_that_may_not_be_opened_names_who_may(tmp_path: Path) -> None:
    port = tmp_path / "ttyUSB0"
    port.touch()
    port.chmod(0o660)
    assert f"no permission for {port}: who may is in group " in port_refusal(errno.EACCES, str(port))
    port.chmod(0o600)
    assert "its mode is 600, which lets its owner alone" in port_refusal(errno.EACCES, str(port))
    assert port_refusal(errno.ENXIO, str(port)) == f"nothing is plugged in at {port}"
    assert ended(OSError(errno.ENODEV, "x")).startswith("the serial port is gone")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every port")
async def test_a_port_without_permission(line: LineBench, tmp_path: Path) -> None:
    port = tmp_path / "port"
    port.touch(mode=0o000)
    line.path = str(port)
    async with line.running(line.bind(battery_profile())) as driver:
        await line.until(lambda: driver.stats.lost == 1)
        assert driver.stats.reason.startswith(f"no permission for {port}: ")
