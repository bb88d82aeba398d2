"""A question to whoever sits at the terminal, while connections go on."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import suppress
from typing import Final

_LONGEST: Final = 1024


async def is_confirmed() -> bool:
    """Whether `y` or `yes` comes from standard input; its end, and anything else, is a no."""
    sys.stdout.write("write it? [y/N] ")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def take(said: bytes) -> None:
        if not answer.done():
            answer.set_result(said)

    def wait() -> None:
        said = b""
        with suppress(OSError, ValueError, AttributeError):
            said = os.read(sys.stdin.fileno(), _LONGEST)
        # After Ctrl-C the thread stays behind, with no buffer of ours, and its loop may be closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(take, said)

    threading.Thread(target=wait, name="answer", daemon=True).start()
    lines = (await answer).decode(errors="replace").splitlines()
    return bool(lines) and lines[0].strip().lower() in ("y", "yes")
