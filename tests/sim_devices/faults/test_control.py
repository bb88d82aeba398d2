"""The proxy's own process and its control port: one line out, JSON lines in, and every way in which it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sim_devices.faults import FAULTS, FaultBoard, FaultControl, Placed, Target, TcpFaultProxy
from sim_devices.faults.control import answer
from sim_devices.faults.process import main
from sim_devices.modbus import ModbusServer
from sim_devices.modbus.rtu_frames import framed
from sim_devices.modbus.rtu_line import start_rtu_line
from tests.sim_devices.faults.field import Registers, field, mbap, read, registers, until

ASKED, REPLY = mbap(read(10)), mbap(registers(10))


class Conversation:
    """A client of the control port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: Any) -> dict[str, Any]:
        self.writer.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(5):
            answer: dict[str, Any] = json.loads(await self.reader.readline())
            return answer


@asynccontextmanager
async def talking(host: str, port: int) -> AsyncIterator[Conversation]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield Conversation(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def board(**proxies: TcpFaultProxy) -> FaultBoard:
    return FaultBoard({name: Placed(Target(("modbus_tcp",), name), proxy) for name, proxy in proxies.items()})


async def test_faults_are_set_seen_and_cleared_while_bytes_pass() -> None:
    async with (
        field() as on,
        FaultControl(board(meter=on.proxy)) as control,
        talking(control.host, control.port) as it,
    ):
        driver = await on.connect()
        parameters = {"as_unit": 9, "count": 1}
        assert await it.ask({"device": "meter", "fault": "wrong_unit", "parameters": parameters}) == {"set": 1}
        driver.transport.write(ASKED)
        await on.until(lambda: driver.heard == mbap(registers(10), unit=9))
        state = (await it.ask({"status": True}))["devices"]["meter"]
        assert (state["connected"], state["request_bytes"], state["reply_bytes"]) == (1, len(ASKED), len(REPLY))
        assert state["faults"] == [
            {
                "id": 1,
                "target": "meter",
                "fault": "wrong_unit",
                "directions": ["reply"],
                "as_unit": 9,
                "count": 1,
                "acted": 1,
                "active": False,
            }
        ]
        assert await it.ask({"device": "meter", "fault": "no_answer"}) == {"set": 2}
        assert await it.ask({"device": "meter", "clear": 2}) == {"cleared": 1}
        assert await it.ask({"device": "meter", "fault": "no_answer"}) == {"set": 3}
        assert await it.ask({"device": "meter", "clear": "no_answer"}) == {"cleared": 1}
        assert await it.ask({"device": "meter", "fault": "black_hole"}) == {"set": 4}
        assert await it.ask({"clear": "all"}) == {"cleared": 1}
        assert await it.ask({"device": "meter", "clear": 4}) == {"cleared": 0}, "it is over"
        assert await it.ask({"device": "meter", "clear": "no_answer"}) == {"cleared": 0}
        listed = (await it.ask({"list": True}))["faults"]
        assert [item["name"] for item in listed] == list(FAULTS)


async def test_of_several_devices_the_one_that_is_named_is_meant() -> None:
    async with (
        field() as one,
        field() as two,
        FaultControl(board(one=one.proxy, two=two.proxy)) as control,
        talking(control.host, control.port) as it,
    ):
        assert await it.ask({"fault": "no_answer"}) == {"error": "name the device that is meant: one, two"}
        assert await it.ask({"device": "two", "fault": "no_answer"}) == {"set": 1}
        assert await it.ask({"device": "six", "clear": "all"}) == {"error": "no device 'six'; there are one, two"}
        state = (await it.ask({"status": True}))["devices"]
        assert (state["one"]["faults"], len(state["two"]["faults"])) == ([], 1)
        assert await it.ask({"clear": "all"}) == {"cleared": 1}
        assert await it.ask({"device": "one", "fault": "no_answer"}) == {"set": 2}, "an id is of one fault alone"
        assert await it.ask({"device": "two", "fault": "no_answer"}) == {"set": 3}
        assert await it.ask({"device": "two", "clear": 2}) == {"cleared": 0}
        assert await it.ask({"clear": 2}) == {"cleared": 1}
        state = (await it.ask({"status": True}))["devices"]
        assert [fault["active"] for fault in state["two"]["faults"]] == [False, True]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff\n", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"[]", "expected an object"),
        (b'{"unknown": 1}', "expected an object"),
        (b"{}", "expected exactly one of"),
        (b'{"fault": {}, "clear": 1}', "expected exactly one of"),
        (b'{"device": "meter", "fault": ["x"]}', "no fault ['x']"),
        (b'{"device": {}, "fault": "reset"}', "no device {}"),
        (b'{"device": "meter", "fault": "reset", "parameters": 3}', "parameters: expected names and values"),
        (
            b'{"device": "meter", "fault": "frozen_value"}',
            "frozen_value: is of what is said, and this proxy only passes it on",
        ),
        (b'{"device": "meter", "fault": "heartbeat_lost"}', "does not apply to modbus_tcp, but to parent"),
        (
            b'{"device": "meter", "fault": "latency", "parameters": {"delay_s": 1e400}}',
            "latency: delay_s: expected a number",
        ),
        (
            b'{"device": "meter", "fault": "latency", "parameters": {"delay_s": NaN}}',
            "latency: delay_s: expected a number",
        ),
        (
            b'{"device": "meter", "fault": "no_answer", "parameters": {"count": 1.5}}',
            "no_answer: count: expected a whole number",
        ),
        (b'{"device": "meter", "clear": 1.5}', "clear: expected the name of a fault, its id"),
        (b'{"device": "meter", "clear": true}', "clear: expected the name of a fault, its id"),
        (b'{"device": "meter", "clear": "latancy"}', "no fault 'latancy'; there are refuse"),
        (b'{"device": "meter", "clear": 99}', "no fault has the id 99; none has been set"),
    ],
)
async def test_a_line_that_can_not_be_used_is_answered_and_changes_nothing(line: bytes, words: str) -> None:
    async with field() as on:
        said = answer(board(meter=on.proxy), line)
        assert said.keys() == {"error"}
        assert words in said["error"]
        assert on.proxy.faults.as_json() == []


async def start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sim_devices.faults", *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )


@asynccontextmanager
async def proxy_process(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    process = await start(*arguments)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        assert line, (await process.communicate())[1].decode()
        yield process, json.loads(line)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def device() -> AsyncIterator[int]:
    server = ModbusServer()
    server.add_unit(1, Registers())
    port = await server.listen("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.close()


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(10):
        return await process.wait()


async def test_a_process_proxies_obeys_and_ends_on_sigterm() -> None:
    fault = json.dumps({"fault": "exception", "code": 6, "count": 1})
    async with device() as port, proxy_process("--target", f"127.0.0.1:{port}", "--fault", fault) as (process, said):
        assert said["pid"] == process.pid
        reader, writer = await asyncio.open_connection(said["endpoint"]["host"], said["endpoint"]["port"])
        async with asyncio.timeout(5), talking(**said["control"]) as control:
            writer.write(ASKED)
            assert await reader.readexactly(9) == mbap(b"\x83\x06")
            writer.write(ASKED)
            assert await reader.readexactly(len(REPLY)) == REPLY
            assert "set" in await control.ask({"device": "device", "fault": "cut"})
            writer.write(ASKED)
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
        _, errors = await process.communicate()
        assert errors == b""


async def test_the_end_of_standard_input_ends_the_process() -> None:
    async with proxy_process("--target", "127.0.0.1:1", "--until-eof") as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert await ended(process) == 0


async def test_a_process_proxies_a_serial_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    link = tmp_path / "line"
    line = start_rtu_line({1: Registers()}, baud=115_200)
    try:
        options = ("--protocol", "modbus_rtu", "--listen", str(link), "--target", line.path, "--baud", "115200")
        async with proxy_process(*options) as (process, said):
            assert said["endpoint"] == {"device": str(link)}
            descriptor = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                os.write(descriptor, framed(1, read(10)))
                heard = bytearray()

                def complete() -> bool:
                    with suppress(BlockingIOError):
                        heard.extend(os.read(descriptor, 100))
                    return bytes(heard) == framed(1, registers(10))

                await until(complete)
            finally:
                os.close(descriptor)
            process.send_signal(signal.SIGTERM)
            assert await ended(process) == 0
        assert not link.is_symlink()
    finally:
        line.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "nowhere"], "0 to nowhere: 'nowhere' is not HOST:PORT"),
        (["--target", "a:1", "--listen", "70000"], "'127.0.0.1:70000' is not HOST:PORT"),
        (["--target", "a:1", "--listen", "203.0.113.1:0"], "Cannot assign requested address"),
        (["--target", "a:1", "--fault", "thunder"], "no fault 'thunder'; there are refuse"),
        (["--target", "a:1", "--fault", '{"fault": "reset", "count": 1}'], "reset: knows no count"),
        (["--target", "a:1", "--fault", "{"], "is neither a fault's name nor JSON"),
        (["--target", "a:1", "--fault", "wrong_crc"], "wrong_crc: does not apply to modbus_tcp"),
        (["--target", "/no/line", "--listen", "/no/link", "--protocol", "modbus_rtu"], "No such file or directory"),
        ([], "the following arguments are required: --target"),
    ],
)
def test_a_mistake_is_named_and_nothing_starts(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(arguments)
    except SystemExit as ended_by_parser:
        code = ended_by_parser.code  # type: ignore[assignment]
    output, errors = capsys.readouterr()
    assert (code, output) == (2, "")
    assert words in errors


@pytest.mark.parametrize("option", ["--listen", "--control"])
def test_a_port_in_use_is_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--target", "127.0.0.1:1", option, str(port)]) == 2
    errors = capsys.readouterr().err
    assert f"{port}" in errors
    assert errors.endswith("Address already in use\n")


async def test_a_line_without_end_costs_its_own_connection_only() -> None:
    async with field() as on, FaultControl(board(meter=on.proxy)) as control:
        async with talking(control.host, control.port) as it:
            it.writer.write(b"x" * 200_000)
            with suppress(ConnectionError):
                async with asyncio.timeout(5):
                    await it.reader.read()
        async with talking(control.host, control.port) as it:
            assert "devices" in await it.ask({"status": True})
