"""One unit on a link: what it asks of the line, whether it answers, and the session in which it is served."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from config.profile import Pace
from drivers.modbus.breaker import UnitBreaker


class Unit:
    """Kept over the link's connections. A session begins when the unit is to be set up and ends when it falls silent;
    outside a session nothing is sent to it. Times are those of the loop.
    """

    __slots__ = ("_session", "breaker", "line_gap_s", "number", "ready_s", "reason", "request_gap_s")

    def __init__(self, number: int, paces: Sequence[Pace], rng: random.Random) -> None:
        self.number = number
        self.request_gap_s = max(pace.request_gap_s for pace in paces)
        self.line_gap_s = max(pace.line_gap_s for pace in paces)
        self.breaker = UnitBreaker(rng, max(pace.timeout_s for pace in paces))
        self.ready_s = float("-inf")
        self.reason = "not asked yet"
        self._session: asyncio.Future[str] | None = None

    @property
    def serving(self) -> bool:
        return self._session is not None and not self._session.done()

    def begin(self) -> asyncio.Future[str]:
        """Begin a session; the future is its end, with the reason."""
        self._session = asyncio.get_running_loop().create_future()
        return self._session

    def end(self, reason: str) -> None:
        """End the session, if there is one."""
        if self._session is not None and not self._session.done():
            self.reason = reason
            self._session.set_result(reason)
