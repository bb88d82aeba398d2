"""The embedded broker as a process of its own, and its end with clients that come and go."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from contextlib import suppress

import aiomqtt
import pytest

from sim_devices.broker import EmbeddedBroker


async def start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sim_devices.broker", *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )


@pytest.mark.parametrize("end", ["eof", "sigterm"])
async def test_a_broker_process_says_where_it_is_serves_and_ends_cleanly_with_a_client_connected(end: str) -> None:
    process = await start("--until-eof")
    assert process.stdin is not None
    assert process.stdout is not None
    async with asyncio.timeout(20):
        line = json.loads(await process.stdout.readline())
        address = line["endpoints"]["mqtt"]
        with suppress(aiomqtt.MqttError):
            async with aiomqtt.Client(address["host"], address["port"]) as client:
                await client.subscribe("greeting")
                await client.publish("greeting", "hello", qos=1)
                message = await anext(aiter(client.messages))
                assert message.payload == b"hello"
                if end == "eof":
                    process.stdin.close()
                else:
                    process.send_signal(signal.SIGTERM)
                await anext(aiter(client.messages))
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")


async def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = await start("--port", str(port))
        _, errors = await process.communicate()
    assert process.returncode == 2
    held = rf"broker: 127.0.0.1:{port}: Address already in use, held by .+ \(pid {os.getpid()}\)\n"
    assert re.fullmatch(held, errors.decode())


async def test_a_broker_ends_though_a_client_stopped_in_its_handshake() -> None:
    async with asyncio.timeout(10):
        async with EmbeddedBroker() as broker:
            reader, writer = await asyncio.open_connection(broker.host, broker.port)
            writer.write(b"\x10")
            await writer.drain()
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_broker_comes_back_on_its_port_and_has_forgotten_everything() -> None:
    async with EmbeddedBroker() as broker:
        port = broker.port
        async with aiomqtt.Client(broker.host, port) as client:
            await client.publish("kept", "old", qos=1, retain=True)
        await broker.close()
        await broker.start()
        assert broker.port == port
        async with aiomqtt.Client(broker.host, port) as client:
            await client.subscribe("kept")
            await client.publish("kept", "new", qos=1)
            message = await anext(aiter(client.messages))
            assert (message.payload, message.retain) == (b"new", False)


async def test_a_client_gets_what_is_retained_for_its_own_subscriptions_alone() -> None:
    async with EmbeddedBroker() as broker, aiomqtt.Client(broker.host, broker.port) as device:
        await device.subscribe("device/state")
        await device.publish("device/state", "hot", qos=1, retain=True)
        await device.publish("parent/word", "hello", qos=1, retain=True)
        async with aiomqtt.Client(broker.host, broker.port) as parent:
            await parent.subscribe("parent/word")
            message = await anext(aiter(parent.messages))
            assert (str(message.topic), message.payload, message.retain) == ("parent/word", b"hello", True)
