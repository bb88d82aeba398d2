"""Cancellation that arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


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
