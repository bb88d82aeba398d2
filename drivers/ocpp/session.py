"""One WebSocket connection of a charger: frames in, requests out, one at a time, each with its answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Final

from websockets.exceptions import ConnectionClosed

from drivers.ocpp.messages import Answer, Failure, Message, Payload, Request, decode
from drivers.writer import ConnectionBroken

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection

    from drivers.driver import LinkStats

_ABORT_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_SESSIONS: Final = count(1)


class Turn:
    """One request is under way at a time (OCPP-J 1.6, section 4.1.1); setpoints go before whatever else waits.

    Entered by those who send setpoints; `patient` is for the rest.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._urgent = 0

    async def __aenter__(self) -> None:
        self._urgent += 1
        try:
            await self._lock.acquire()
        finally:
            self._urgent -= 1

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()

    @asynccontextmanager
    async def patient(self) -> AsyncIterator[None]:
        """A turn when no setpoint waits for one."""
        while True:
            # Lets a task that has just been woken to send a setpoint ask for its turn.
            await asyncio.sleep(0)
            await self._lock.acquire()
            if not self._urgent:
                break
            self._lock.release()
        try:
            yield
        finally:
            self._lock.release()


class Session:
    """One connection, used once. Calls raise `ConnectionBroken` when it is of no use any more."""

    def __init__(self, connection: ServerConnection, timeout_s: float, stats: LinkStats) -> None:
        self.turn = Turn()
        self.ended = asyncio.Event()
        self._connection = connection
        self._timeout_s = timeout_s
        self._stats = stats
        self._number = next(_SESSIONS)
        self._ids = count(1)
        self._reason = ""
        self._waiting: tuple[str, asyncio.Future[Answer | Failure]] | None = None

    async def receive(self) -> Message | None:
        """The next frame; None for one that is no OCPP. Answers also go to whoever asked."""
        try:
            frame = await self._connection.recv()
        except ConnectionClosed as closed:
            raise ConnectionBroken(self._reason or str(closed)) from None
        message = decode(frame)
        if isinstance(message, Answer | Failure) and self._waiting is not None:
            unique_id, future = self._waiting
            if message.unique_id == unique_id and not future.done():
                future.set_result(message)
        return message

    async def reply(self, message: Answer | Failure) -> None:
        """Answer a request of the charger."""
        await self._send(message.text())

    async def call(self, action: str, payload: Payload) -> Answer | Failure:
        """Ask, in one's turn, and wait for the answer; without one in time the connection is broken."""
        answer = await self._ask(action, payload)
        if answer is None:
            raise ConnectionBroken(f"{action}: no answer within {self._timeout_s:g} s", timed_out=True)
        return answer

    async def try_call(self, action: str, payload: Payload) -> Answer | Failure | None:
        """Ask when no setpoint waits; None if no answer came in time, as from chargers that don't know the request."""
        async with self.turn.patient():
            answer = await self._ask(action, payload)
        if answer is None:
            self._stats.timeouts += 1
        return answer

    def abort(self, reason: str) -> None:
        """Reset the connection, so that nothing sent can still arrive; whoever serves it finds it broken."""
        self._reason = self._reason or reason
        transport = self._connection.transport
        opened = transport.get_extra_info("socket")
        if opened is not None and not transport.is_closing():
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_ON_CLOSE)
        transport.abort()

    async def _ask(self, action: str, payload: Payload) -> Answer | Failure | None:
        request = Request(f"{self._number}-{next(self._ids)}", action, payload)
        future: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
        self._waiting = (request.unique_id, future)
        try:
            await self._send(request.text())
            async with asyncio.timeout(self._timeout_s):
                answer = await future
        except TimeoutError:
            return None
        finally:
            self._waiting = None
        if isinstance(answer, Failure):
            self._stats.exceptions += 1
        return answer

    async def _send(self, text: str) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connection.send(text)
        except TimeoutError:
            raise ConnectionBroken(f"it took nothing for {self._timeout_s:g} s", timed_out=True) from None
        except ConnectionClosed as closed:
            raise ConnectionBroken(self._reason or str(closed)) from None
