"""What somebody who listens to a link is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class HeardRead:
    """One read of registers: `words` of the reply as bytes, or the `exception` that came instead; None both: no answer.

    `at_s`: when the reply came, or when the request without one had gone out. `table` is holding or input.
    """

    at_s: float
    unit: int
    table: str
    first: int
    count: int
    words: bytes | None = None
    exception: int | None = None


Listener: TypeAlias = Callable[[HeardRead], None]
