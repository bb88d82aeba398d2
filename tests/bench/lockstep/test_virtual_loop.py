"""Time that jumps: order, standstill, threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.bench.lockstep.virtual_loop import BEGIN_S, StandstillError

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_day_passes_in_a_moment_and_timers_come_in_their_order(on_virtual_time: Run) -> None:
    async def story() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []
        for name, delay_s in (("noon", 43_200.0), ("first", 1.0), ("second", 1.0), ("midnight", 86_400.0)):
            loop.call_later(delay_s, lambda name=name: seen.append((name, loop.time() - BEGIN_S)))
        await asyncio.sleep(86_400.0)
        await asyncio.sleep(0.0)
        return seen

    assert on_virtual_time(story()) == [("first", 1.0), ("second", 1.0), ("noon", 43_200.0), ("midnight", 86_400.0)]


def test_what_is_ready_is_done_before_time_goes_on(on_virtual_time: Run) -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, lambda: None)
        for _ in range(1000):
            await asyncio.sleep(0)
        return loop.time()

    assert on_virtual_time(story()) == BEGIN_S


def test_a_cancelled_timer_holds_nothing_up(on_virtual_time: Run) -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(3600.0, lambda: None).cancel()
        await asyncio.sleep(1.0)
        return loop.time()

    assert on_virtual_time(story()) == BEGIN_S + 1.0


def test_a_wait_for_nobody_is_told_as_such(on_virtual_time: Run) -> None:
    async def story() -> None:
        await asyncio.sleep(2.5)
        await asyncio.Event().wait()

    with pytest.raises(StandstillError, match=r"nothing will ever happen any more after 1002\.5"):
        on_virtual_time(story())


def test_a_circle_in_which_no_time_passes_is_told_as_such(on_virtual_time: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.bench.lockstep.virtual_loop.MOST_AT_ONCE", 1000)

    async def story() -> None:
        while True:  # noqa: ASYNC110 (the circle is what is looked for)
            await asyncio.sleep(0)

    with pytest.raises(StandstillError, match="1000 calls at 1000"):
        on_virtual_time(story())


def test_time_outs_are_virtual(on_virtual_time: Run) -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600.0):
                await asyncio.Event().wait()
        return loop.time()

    assert on_virtual_time(story()) == BEGIN_S + 600.0


def test_work_for_a_thread_is_done_at_once_and_its_error_comes_back(on_virtual_time: Run) -> None:
    async def story() -> None:
        before = time.process_time()
        assert await asyncio.to_thread(lambda: time.process_time() >= before)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)

    on_virtual_time(story())
