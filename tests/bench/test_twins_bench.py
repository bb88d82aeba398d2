"""The bench of the twins: what it prints, that its client tells an answer from none, and that it asks evenly."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.bench.machine.even_client import Asked, EvenClient, SilentServerError
from tests.bench.bench_command import THREE, run


async def test_it_prints_how_the_twins_answered_beside_bare_servers() -> None:
    told = (await run("twins", "--devices", "6", "--rate", "200", "--duration", "1", "--json")).figures()
    for name in ("response_ms", "floor_ms", "sent_late_ms", "burst_ms", "burst_whole_ms", "floor_burst_whole_ms"):
        assert set(told[name]) == THREE
        assert 0.0 <= told[name]["p50"] <= told[name]["p99"] <= told[name]["max"]
    assert told["requests"] == 200
    assert told["burst_whole_ms"]["max"] == told["burst_ms"]["max"]
    assert told["twins_cpu_pct"] > 0.0
    assert told["lost_steps"] >= 0


@contextmanager
def server(*answers: bytes) -> Iterator[Asked]:
    """A server that gives one of the answers to each of its requests, then nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                for answer in answers:
                    transaction = connection.recv(12)[:2]
                    connection.sendall(transaction + answer if answer else b"")
                    if not answer:
                        return
                connection.recv(12)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Asked("127.0.0.1", listening.getsockname()[1], 1, 0, 1)
        finally:
            thread.join()


GOOD = struct.pack(">HHBBBH", 0, 5, 1, 3, 2, 7)
REFUSED = struct.pack(">HHBBB", 0, 3, 1, 0x83, 2)


async def test_every_request_has_its_answer_and_its_time() -> None:
    def ask() -> tuple[int, list[float], list[float]]:
        with server(GOOD, GOOD, GOOD) as asked, EvenClient([asked]) as client:
            answers = client.evenly(100.0, 0.03)
            return len(answers), answers, client.late_ms

    count, answers_ms, late_ms = await asyncio.to_thread(ask)
    assert count == len(late_ms) == 3
    assert all(value >= 0.0 for value in answers_ms + late_ms)


@pytest.mark.parametrize(("answer", "words"), [(REFUSED, "answers a read with 131"), (b"", "closed the connection")])
async def test_what_is_no_answer_ends_the_bench_with_its_place(answer: bytes, words: str) -> None:
    def ask() -> str:
        with server(answer) as asked, EvenClient([asked]) as client, pytest.raises(SilentServerError) as error:
            client.at_once()
        return str(error.value)

    assert words in await asyncio.to_thread(ask)
