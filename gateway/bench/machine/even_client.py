"""A Modbus TCP client that asks many servers at an even rate, or all at once, and times each answer.

It waits by `select`, which knows microseconds; an event loop's timers know milliseconds, and would ask in bunches.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

READ_HOLDING: Final = 3
WHOLE_S: Final = 5.0
_MBAP: Final = struct.Struct(">HHHB")
_READ: Final = struct.Struct(">HHHBBHH")


class SilentServerError(Exception):
    """A server does not answer, or not as Modbus does; the text is for the user."""


class Asked(NamedTuple):
    """A server, and what it is asked for: holding registers of a unit."""

    host: str
    port: int
    unit: int
    first: int
    registers: int


class _Connection:
    """One server: what it was asked and has not answered, oldest first."""

    def __init__(self, asked: Asked) -> None:
        self.name = f"{asked.host}:{asked.port}"
        self.socket = socket.create_connection((asked.host, asked.port), WHOLE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.waiting: deque[float] = deque()
        self._asked = asked
        self._rest = b""
        self._transaction = 0

    def ask(self) -> None:
        """Send the read; the clock runs from before it is sent."""
        asked = self._asked
        self._transaction = (self._transaction + 1) & 0xFFFF
        self.waiting.append(time.perf_counter())
        self.socket.send(_READ.pack(self._transaction, 0, 6, asked.unit, READ_HOLDING, asked.first, asked.registers))

    def answers_ms(self) -> list[float]:
        """The times of the answers that are there now. Raises SilentServerError."""
        data = self.socket.recv(65_536)
        now_s = time.perf_counter()
        if not data:
            raise SilentServerError(f"{self.name}: closed the connection")
        self._rest += data
        found: list[float] = []
        while len(self._rest) >= _MBAP.size:
            _, _, length, _ = _MBAP.unpack_from(self._rest)
            if len(self._rest) < 6 + length:
                break
            function = self._rest[7]
            self._rest = self._rest[6 + length :]
            if function != READ_HOLDING or not self.waiting:
                raise SilentServerError(f"{self.name}: answers a read with {function}")
            found.append((now_s - self.waiting.popleft()) * 1e3)
        return found


class EvenClient:
    """Connections to servers, in one thread that waits. Raises OSError where one is not there."""

    def __init__(self, servers: Sequence[Asked]) -> None:
        self.late_ms: list[float] = []
        """How much later than due each request of `evenly` went out: the client's own doing."""
        self._connections: list[_Connection] = []
        self._by_file: dict[int, _Connection] = {}
        self._epoll = select.epoll()
        try:
            for asked in servers:
                made = _Connection(asked)
                self._connections.append(made)
                self._by_file[made.socket.fileno()] = made
                self._epoll.register(made.socket.fileno(), select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def evenly(self, rate_per_s: float, seconds: float) -> list[float]:
        """Ask one after the other, spread evenly; milliseconds of every answer. Raises SilentServerError."""
        found: list[float] = []
        began_s = time.perf_counter()
        for number in range(round(rate_per_s * seconds)):
            due_s = began_s + number / rate_per_s
            found += self._until(due_s)
            self.late_ms.append((time.perf_counter() - due_s) * 1e3)
            self._connections[number % len(self._connections)].ask()
        return found + self._until_answered()

    def at_once(self) -> list[float]:
        """Ask all of them at once; milliseconds of every answer. Raises SilentServerError."""
        for connection in self._connections:
            connection.ask()
        return self._until_answered()

    def close(self) -> None:
        """Close every connection."""
        self._epoll.close()
        for connection in self._connections:
            connection.socket.close()

    def _until(self, due_s: float) -> list[float]:
        """The answers that come until then; those that are there already are taken in any case."""
        found = self._heard(0.0)
        while (left_s := due_s - time.perf_counter()) > 0:
            found += self._heard(left_s)
        return found

    def _until_answered(self) -> list[float]:
        found: list[float] = []
        until_s = time.perf_counter() + WHOLE_S
        while owing := [each for each in self._connections if each.waiting]:
            left_s = until_s - time.perf_counter()
            if left_s <= 0:
                raise SilentServerError(f"{owing[0].name}: no answer within {WHOLE_S:g} s")
            found += self._heard(left_s)
        return found

    def _heard(self, wait_s: float) -> list[float]:
        if wait_s > 0 and not select.select([self._epoll.fileno()], [], [], wait_s)[0]:
            return []
        return [each_ms for file, _ in self._epoll.poll(0) for each_ms in self._by_file[file].answers_ms()]
