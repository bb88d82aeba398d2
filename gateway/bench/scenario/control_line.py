"""Saying one line to a control port of the bench, of the twins or of the fault proxies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

ANSWER_S: Final = 5.0
LONGEST_ANSWER: Final = 1 << 23


class HappeningFailedError(Exception):
    """A part of the bench did not do what was asked of it; the text is for the user."""


async def tell(address: tuple[str, int] | None, line: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Say a line to a control port; its answer, where the line was taken. Raises HappeningFailedError."""
    if address is None:
        raise HappeningFailedError(f"{what}: nobody is there to do it")
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(*address, limit=LONGEST_ANSWER)
            try:
                writer.write(json.dumps(line).encode() + b"\n")
                answer = json.loads(await reader.readline() or b"{}")
            finally:
                writer.close()
    except (OSError, ValueError) as error:
        raise HappeningFailedError(f"{what}: {error}") from error
    if "error" in answer:
        raise HappeningFailedError(f"{what}: {answer['error']}")
    said: Mapping[str, Any] = answer
    return said
