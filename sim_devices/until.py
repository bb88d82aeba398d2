"""When a process of the bench ends: on SIGTERM, on SIGINT, and, when asked, at the end of its standard input."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any, Final

_CHUNK: Final = 4096
_CANCEL_AGAIN_S: Final = 1.0


def end_of_process(*, until_eof: bool) -> asyncio.Event:
    """An event of the running loop that is set when the process is to end.

    With `until_eof` the pipe on standard input is a lifeline: when its other end closes, however the parent died, the
    event is set, and no orphan stays behind.
    """
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    if until_eof:
        descriptor = sys.stdin.fileno()

        def drain() -> None:
            if not os.read(descriptor, _CHUNK):
                loop.remove_reader(descriptor)
                event.set()

        try:
            loop.add_reader(descriptor, drain)
        except OSError:
            # A regular file or /dev/null can't be polled: it has no other end that could close.
            event.set()
    return event


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended: before Python 3.12 a library's `wait_for` can swallow a cancellation."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()
