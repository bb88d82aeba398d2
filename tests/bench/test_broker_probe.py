"""Before a bench is built on a broker, somebody must answer MQTT there."""

from __future__ import annotations

import asyncio

import pytest

from gateway.bench.broker_probe import BrokerSilentError, probe_broker
from sim_devices.broker import EmbeddedBroker
from tests.system.processes import closed_port


async def answering(answer: bytes | None) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def test_a_broker_that_serves_is_taken_and_none_is_none() -> None:
    await probe_broker(None)
    async with EmbeddedBroker() as broker:
        await probe_broker(f"{broker.host}:{broker.port}")


async def test_a_port_where_nobody_listens() -> None:
    with pytest.raises(BrokerSilentError, match=r"--broker 127\.0\.0\.1:\d+: "):
        await probe_broker(f"127.0.0.1:{closed_port()}")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "no MQTT broker"),
        (b"", "without an answer"),
        (bytes((0x20, 2, 0, 5)), r"refuses us \(return code 5\)"),
    ],
)
async def test_what_is_no_broker_for_us(answer: bytes, words: str) -> None:
    async with await answering(answer) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BrokerSilentError, match=words):
            await probe_broker(f"127.0.0.1:{port}")


async def test_silence_has_an_end() -> None:
    async with await answering(None) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BrokerSilentError, match="nobody answers within"):
            await probe_broker(f"127.0.0.1:{port}", within_s=0.05)
