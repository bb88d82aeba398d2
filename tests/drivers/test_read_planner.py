"""The read planner: every value once, whole, in the fewest requests that the device allows."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.read_plan import PlanError, Span, plan_reads

spans_anywhere = st.lists(st.builds(Span, st.integers(0, 400), st.integers(1, 8)), max_size=40)
holes_anywhere = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 5)).map(lambda h: (h[0], h[0] + h[1])), max_size=6
)


def touches(span: Span, holes: list[tuple[int, int]]) -> bool:
    return any(span.first <= high and low < span.end for low, high in holes)


def is_allowed(group: list[Span], most: int, gap: int, holes: list[tuple[int, int]]) -> bool:
    first, end = min(span.first for span in group), max(span.end for span in group)
    needed = {register for span in group for register in range(span.first, span.end)}
    unneeded = 0
    for register in range(first, end):
        unneeded = 0 if register in needed else unneeded + 1
        if unneeded > gap:
            return False
    return end - first <= most and not touches(Span(first, end - first), holes)


@given(spans_anywhere, holes_anywhere, st.integers(8, 125), st.integers(0, 20))
def test_every_value_is_read_once_and_whole_within_the_limits(
    spans: list[Span], holes: list[tuple[int, int]], most: int, gap: int
) -> None:
    spans = [span for span in spans if not touches(span, holes)]
    reads = plan_reads(spans, most, gap, holes)
    assert sorted(index for read in reads for index in read.members) == list(range(len(spans)))
    for read in reads:
        group = [spans[index] for index in read.members]
        assert read.first == min(span.first for span in group)
        assert read.first + read.size == max(span.end for span in group)
        assert is_allowed(group, most, gap, holes)


def fewest(spans: list[Span], most: int, gap: int, holes: list[tuple[int, int]]) -> int:
    """The least number of allowed groups, by trying every partition."""
    if not spans:
        return 0
    first, rest = spans[0], spans[1:]
    best = len(spans)
    for size in range(len(rest) + 1):
        for partners in combinations(range(len(rest)), size):
            if is_allowed([first, *(rest[at] for at in partners)], most, gap, holes):
                left = [span for at, span in enumerate(rest) if at not in partners]
                best = min(best, 1 + fewest(left, most, gap, holes))
    return best


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.builds(Span, st.integers(0, 24), st.integers(1, 4)), max_size=6),
    st.lists(st.tuples(st.integers(0, 28), st.integers(0, 1)).map(lambda h: (h[0], h[0] + h[1])), max_size=2),
    st.integers(4, 12),
    st.integers(0, 6),
)
def test_no_plan_has_fewer_requests(spans: list[Span], holes: list[tuple[int, int]], most: int, gap: int) -> None:
    spans = [span for span in spans if not touches(span, holes)]
    assert len(plan_reads(spans, most, gap, holes)) == fewest(spans, most, gap, holes)


def test_neighbours_share_a_request_and_a_wide_gap_splits_it() -> None:
    reads = plan_reads([Span(40, 1), Span(0, 2), Span(2, 2), Span(10, 1)], 125, 8)
    assert [(read.first, read.size, read.members) for read in reads] == [(0, 11, (1, 2, 3)), (40, 1, (0,))]


def test_a_value_that_would_be_torn_starts_the_next_request() -> None:
    reads = plan_reads([Span(0, 4), Span(4, 4), Span(8, 4)], 10, 0)
    assert [(read.first, read.size) for read in reads] == [(0, 8), (8, 4)]


def test_a_range_that_must_not_be_read_is_not_bridged() -> None:
    reads = plan_reads([Span(0, 1), Span(4, 1)], 125, 8, [(2, 2)])
    assert [(read.first, read.size) for read in reads] == [(0, 1), (4, 1)]


def test_a_value_that_cannot_be_read_whole_is_an_error() -> None:
    with pytest.raises(PlanError, match="more than the 2"):
        plan_reads([Span(100, 4)], 2, 0)
    with pytest.raises(PlanError, match="not to be read"):
        plan_reads([Span(100, 4)], 125, 0, [(103, 110)])
