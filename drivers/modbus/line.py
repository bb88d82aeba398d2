"""A connection for looking at devices by hand: made when a request needs one, and again after it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from drivers.driver import LinkStats
from drivers.inspection import InspectionFailed
from drivers.modbus.connection import Connection
from drivers.modbus.framing import Framing, TcpFraming
from drivers.modbus.link import Connector, no_connection
from drivers.modbus.overdue import Overdue
from drivers.modbus.request import AwaitedRequest, Failure, RequestFailed, read_pdu

CONNECT_TIMEOUT_S: Final = 3.0
_ATTEMPTS: Final = 4
_PAUSE_S: Final = 0.25
"""A device that takes one connection may still hold the one before for a moment."""
_LEFT_ALONE_TIMEOUTS: Final = 2.0
_NEVER_ANSWERED: Final = (Failure.TIMEOUT, Failure.LOST, Failure.REJECTED)


class Line:
    """One connection at a time; a silent unit costs it, and the next request makes another.

    `overdue` (on serial lines): what units still owe, so that a late answer is not taken for the next one's.
    """

    def __init__(
        self,
        name: str,
        connect: Connector,
        *,
        connect_pause_s: float = 0.0,
        request_gap_s: float = 0.0,
        framing: Callable[[], Framing] = TcpFraming,
        overdue: Overdue | None = None,
    ) -> None:
        self.name = name
        self.stats = LinkStats()
        self._connect = connect
        self._connect_pause_s = connect_pause_s
        self._request_gap_s = request_gap_s
        self._framing = framing
        self._overdue = overdue
        self._connection: Connection | None = None

    async def read(self, unit: int, timeout_s: float, table: str, first: int, count: int) -> bytes:
        """The reply's PDU; raises RequestFailed without one, InspectionFailed without a connection."""
        name = f"the read of {count} at {first} from unit {unit}"
        return await self.exchange(AwaitedRequest(name, unit, timeout_s, read_pdu(table, first, count)))

    async def exchange(self, request: AwaitedRequest) -> bytes:
        """Send a request and wait for its reply; raises as `read`."""
        await self._leave_alone(request)
        connection = await self._present()
        connection.submit(request)
        try:
            return await request.reply
        except RequestFailed as failed:
            if self._overdue is not None and failed.failure in _NEVER_ANSWERED:
                self._overdue.add(request.unit, request.pdu)
            raise

    async def _leave_alone(self, request: AwaitedRequest) -> None:
        """Wait until what the unit owes can't come any more, if it could be taken for this answer."""
        overdue = self._overdue
        if overdue is not None and overdue.fits(request.unit, request.pdu):
            await asyncio.sleep(overdue.void_in_s(request.unit, _LEFT_ALONE_TIMEOUTS * request.timeout_s))

    async def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.close("done")
            # An aborted transport closes its socket in the next turn of the loop.
            await asyncio.sleep(0)

    async def _present(self) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._new()
            except TimeoutError:
                raise InspectionFailed(f"{self.name}: no connection within {CONNECT_TIMEOUT_S:g} s") from None
            except OSError as error:
                if attempt == _ATTEMPTS or self._connection is None:
                    raise InspectionFailed(f"{self.name}: {no_connection(error)}") from None
            await asyncio.sleep(_PAUSE_S * attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _new(self) -> Connection:
        connection = Connection(self._framing(), self.stats, self._request_gap_s, self._answered)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connect(lambda: connection)
            await asyncio.sleep(self._connect_pause_s)
        except BaseException:
            connection.close("not made")
            raise
        connection.release()
        self._connection = connection
        return connection

    def _answered(self) -> None:
        self.stats.good += 1
