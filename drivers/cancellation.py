"""Cancellation that arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

_CANCEL_AGAIN_S: Final = 1.0


async def heeded(call: Awaitable[_T]) -> _T:
    """Await a library's call; a cancellation that it has swallowed is raised after it.

    Before Python 3.12, `asyncio.wait_for` returns its result instead of being cancelled when both come in the same turn
    of the loop, and the libraries that use it leave a task that nobody can end.
    """
    task = asyncio.current_task()
    # Compared, because a task group leaves the count of its own task raised after one of its children has failed.
    before = task.cancelling() if task is not None else 0
    result = await call
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return result


async def apart(call: Coroutine[Any, Any, _T], name: str) -> _T:
    """Await a call in a task of its own, so that a cancellation of ours is never lost in there.

    Before Python 3.13, a task group one of whose tasks fails in the same turn of the loop raises that failure in place
    of the cancellation, and whoever handles the failure goes on as if nobody had asked for an end.
    """
    task = asyncio.create_task(call, name=name)
    try:
        await asyncio.wait((task,))
    finally:
        await ended((task,))
    return task.result()


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended; what they raise is looked at by nobody else."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()
