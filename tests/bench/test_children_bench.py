"""The bench of many children: the plain session against a broker, what is measured, and a run as its user does it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.messages import Acknowledgement, AckStatus, Down, Telemetry
from drivers.layer.offers import OfferBook
from gateway.bench.machine.children_bench import _latencies, use_of
from gateway.bench.machine.many_children import SimulatedChild
from gateway.bench.machine.plain_mqtt import _packet, _packets
from tests.bench.bench_command import THREE, run

with_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="what a process has used is read from /proc"
)
NOW = datetime(2026, 6, 8, 10, 0, 0, 120_000, UTC)


@given(st.lists(st.tuples(st.integers(1, 15), st.binary(max_size=20_000)), max_size=5), st.data())
def test_packets_come_out_as_they_went_in_however_the_stream_is_cut(
    packets: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    whole = b"".join(_packet(kind << 4, body) for kind, body in packets)
    cut = data.draw(st.integers(0, len(whole)))
    first = [(kind, whole[begin:end]) for kind, begin, end in _packets(whole[:cut])]
    used = len(b"".join(_packet(kind, body) for kind, body in first))
    rest = whole[used:]
    again = [(kind, rest[begin:end]) for kind, begin, end in _packets(rest)]
    assert first + again == [(kind << 4, body) for kind, body in packets]


def test_a_simulated_child_says_what_the_interface_says() -> None:
    child = SimulatedChild(7, mqtt=None, power_w=1234.5, order_id="parent-1-2")  # type: ignore[arg-type]
    told = Telemetry.model_validate_json(child.telemetry(NOW))
    assert (told.net_power_w, told.dispatch_id) == (1234.5, "parent-1-2")
    answer = Acknowledgement.model_validate_json(child.acknowledgement("parent-1-2", Down.DISPATCH, "accepted", NOW))
    assert (answer.order_id, answer.status) == ("parent-1-2", AckStatus.ACCEPTED)
    book = OfferBook()
    book.take(child.offer(1, NOW), NOW, NOW)
    found = book.now(NOW)
    assert found is not None
    assert found[1].curve[0].power_w == 8000.0


def test_a_latency_is_from_a_signal_to_the_first_dispatch_that_it_moved_a_child_by() -> None:
    moved = [(9.0, 0), (10.1, 0), (10.3, 1), (10.9, 0), (14.2, 0)]
    figures = _latencies([10.0, 14.0], moved, children=2)
    assert (figures["signals"], figures["reached_all"]) == (2, 1)
    assert figures["latency_ms"]["p50"] == pytest.approx(200.0)
    assert figures["last_child_ms"]["max"] == pytest.approx(300.0)


@with_proc
def test_the_kernel_tells_what_a_process_has_used() -> None:
    first = use_of(os.getpid())
    sum(range(3_000_000))
    later = use_of(os.getpid())
    assert later.cpu_s >= first.cpu_s > 0.0
    assert 1.0 < first.rss_mb <= later.peak_mb


@with_proc
async def test_a_few_children_follow_every_signal() -> None:
    told = (await run("children", "--children", "3", "--duration", "4", "--period-ms", "200", "--json")).figures()
    assert (told["children"], told["signals"], told["reached_all"], told["links_lost"]) == (3, 1, 1, 0)
    assert set(told["latency_ms"]) == set(told["last_child_ms"]) == THREE
    assert told["latency_ms"]["p50"] > 0.0
    assert told["cpu_pct"] > 0.0
    assert told["rss_mb"] > 10.0
    assert told["messages_in_per_s"] > 3.0
