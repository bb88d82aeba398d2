"""Which requests read a set of values: the fewest that the device allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class PlanError(ValueError):
    """A value that no permitted request can read."""


class Span(NamedTuple):
    """The registers of one value, which are never torn across two requests."""

    first: int
    size: int

    @property
    def end(self) -> int:
        return self.first + self.size


class Read(NamedTuple):
    """One request, and which of the given spans it answers, by their index."""

    first: int
    size: int
    members: tuple[int, ...]


def plan_reads(
    spans: Sequence[Span],
    max_registers: int,
    max_gap_registers: int,
    unreadable: Iterable[tuple[int, int]] = (),
) -> list[Read]:
    """The fewest reads that cover every span exactly once, in ascending order of address.

    A read takes at most `max_registers`, bridges at most `max_gap_registers` that nobody asked for at a stretch, and
    touches none of the `unreadable` ranges (first and last address). `PlanError` for a span that cannot be read whole.
    """
    holes = sorted(unreadable)
    reads: list[Read] = []
    members: list[int] = []
    first = end = 0
    for index in sorted(range(len(spans)), key=lambda at: spans[at]):
        span = spans[index]
        _check(span, max_registers, holes)
        if members and _fits(first, end, span, max_registers, max_gap_registers, holes):
            end = max(end, span.end)
        else:
            if members:
                reads.append(Read(first, end - first, tuple(members)))
            members, first, end = [], span.first, span.end
        members.append(index)
    if members:
        reads.append(Read(first, end - first, tuple(members)))
    return reads


def is_readable(span: Span, max_registers: int, unreadable: Iterable[tuple[int, int]]) -> bool:
    """Whether one permitted request can read it whole."""
    return span.size <= max_registers and not _touches(span.first, span.end, unreadable)


def _fits(first: int, end: int, span: Span, most: int, gap: int, holes: list[tuple[int, int]]) -> bool:
    """Whether the read first..end may grow to take in a span that starts at or after `first`.

    Taking spans by ascending start and growing each read as far as it goes is optimal: the leftmost span left over has
    to be the start of some read, and whatever that read leaves out starts later and can only gain from a later start.
    """
    reach = max(end, span.end)
    return span.first - end <= gap and reach - first <= most and not _touches(first, reach, holes)


def _check(span: Span, most: int, holes: list[tuple[int, int]]) -> None:
    if span.size > most:
        raise PlanError(f"{span.size} registers at {span.first} are more than the {most} that one request may read")
    if _touches(span.first, span.end, holes):
        raise PlanError(f"{span.size} registers at {span.first} lie in a range that is not to be read")


def _touches(first: int, end: int, holes: Iterable[tuple[int, int]]) -> bool:
    return any(low < end and first <= high for low, high in holes)
