"""A cancellation reaches whoever was cancelled, whatever else happens in the same turn of the loop."""

from __future__ import annotations

import asyncio

import pytest

from drivers.cancellation import apart, ended


async def connection(fails: asyncio.Event) -> str:
    """As the drivers serve one: a task of a group fails, and that is how the connection ends."""

    async def serve() -> None:
        await fails.wait()
        raise ConnectionError("gone")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve())
    except* ConnectionError:
        pass
    return "lost"


@pytest.mark.parametrize("turns", range(6))
async def test_a_link_ends_though_its_connection_fails_meanwhile(turns: int) -> None:
    fails = asyncio.Event()
    lost: list[str] = []

    async def link() -> None:
        while True:
            lost.append(await apart(connection(fails), "connection"))
            fails.clear()

    running = asyncio.create_task(link())
    for _ in range(3):
        await asyncio.sleep(0)
    fails.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait((running,))
    assert running.cancelled()
    assert len(lost) <= 1


async def test_what_a_call_apart_returns_and_raises_is_passed_on() -> None:
    async def fail() -> None:
        raise ValueError("no")

    fails = asyncio.Event()
    fails.set()
    assert await apart(connection(fails), "connection") == "lost"
    with pytest.raises(ValueError, match="no"):
        await apart(fail(), "failing")


async def test_a_task_that_takes_no_for_an_answer_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.cancellation._CANCEL_AGAIN_S", 0.01)
    heard = 0

    async def deaf() -> None:
        nonlocal heard
        while heard < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard += 1

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await ended([task])
    assert (task.done(), heard) == (True, 3)
