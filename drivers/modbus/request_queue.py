"""What waits for its turn on a link."""

from __future__ import annotations

from collections import deque

from config.vocabulary import WritePriority
from drivers.modbus.request import Request


class RequestQueue:
    """Fail-safe, setpoint, fast poll, slow poll: the first that is not empty is served, oldest first.

    Polls are bounded by `capacity`: when they are too many, the oldest of the slowest is dropped and handed back.
    Writes are never dropped; they are bounded by there being one sequence a device.
    """

    __slots__ = ("_by_priority", "_capacity", "_count")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._count = 0
        self._by_priority: tuple[deque[Request], ...] = tuple(deque() for _ in WritePriority)

    def push(self, request: Request) -> Request | None:
        """Queue a request; return the poll that had to give way."""
        self._by_priority[request.priority].append(request)
        self._count += 1
        if request.writes:
            return None
        fast, slow = self._by_priority[WritePriority.FAST_POLL], self._by_priority[WritePriority.SLOW_POLL]
        if len(fast) + len(slow) <= self._capacity:
            return None
        self._count -= 1
        return (slow or fast).popleft()

    def push_first(self, request: Request) -> None:
        """Queue the continuation of a sequence before all others of its priority."""
        self._by_priority[request.priority].appendleft(request)
        self._count += 1

    def pop(self) -> Request | None:
        """The next request to send."""
        if self._count:
            for queue in self._by_priority:
                if queue:
                    self._count -= 1
                    return queue.popleft()
        return None

    def remove(self, request: Request) -> bool:
        """Take a request out, so that it can be queued with another priority."""
        for queue in self._by_priority:
            if request in queue:
                queue.remove(request)
                self._count -= 1
                return True
        return False

    def drain(self) -> list[Request]:
        """Take everything out, in order of service."""
        waiting = [request for queue in self._by_priority for request in queue]
        for queue in self._by_priority:
            queue.clear()
        self._count = 0
        return waiting
