"""Whether somebody who speaks MQTT is at a broker's address, asked before a bench is built on it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

ANSWER_S: Final = 3.0
_CONNECT: Final = bytes((0x10, 12, 0, 4, *b"MQTT", 4, 2, 0, 10, 0, 0))
"""CONNECT of MQTT 3.1.1 with a clean session and no identifier (OASIS MQTT Version 3.1.1, 3.1)."""

_CONNACK: Final = 0x20
_ACCEPTED: Final = 0
_DISCONNECT: Final = bytes((0xE0, 0))


class BrokerSilentError(Exception):
    """No broker answers there; the text is for the user."""


async def probe_broker(address: str | None, within_s: float = ANSWER_S) -> None:
    """Connect to the broker at HOST:PORT and leave again; None is none. Raises BrokerSilentError."""
    if address is None:
        return
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(within_s):
            answer = await _connect(host, int(port))
    except TimeoutError:
        raise BrokerSilentError(f"--broker {address}: nobody answers within {within_s:g} s") from None
    except (OSError, EOFError) as error:
        words = getattr(error, "strerror", None) or "the connection ended without an answer"
        raise BrokerSilentError(f"--broker {address}: {words}") from None
    if answer[0] != _CONNACK:
        raise BrokerSilentError(f"--broker {address}: what answers there is no MQTT broker")
    if answer[3] != _ACCEPTED:
        raise BrokerSilentError(f"--broker {address}: the broker refuses us (return code {answer[3]})")


async def _connect(host: str, port: int) -> bytes:
    """The first four bytes of the answer to CONNECT."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(_CONNECT)
        answer = await reader.readexactly(4)
        writer.write(_DISCONNECT)
        return answer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
