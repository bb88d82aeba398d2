"""The bench of the cycle: what it prints, that every write it counts reached its server, and servers that are dead."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.bench.bench_command import THREE, Servers, end, run, start


async def test_every_cycle_writes_a_changed_setpoint_to_every_device() -> None:
    told = (await run("cycle", "--devices", "4", "--duration", "1", "--json")).figures()
    assert set(told["cycle_ms"]) == set(told["back_to_back_ms"]) == THREE
    assert set(told["floor_ms"]) == set(told["paced_floor_ms"]) == {"p50", "p99"}
    assert told["ratio_p50"] > 0.0
    assert told["missed_cycles"] >= 0
    assert told["cpu_pct"] > 0.0
    assert told["cycles"] > 5
    assert told["acknowledged_writes"] == 4 * told["cycles"]
    assert told["writes_at_servers"] == told["changes_at_servers"] == told["acknowledged_writes"]
    assert told["failed_writes"] == 0


async def test_servers_that_already_run_see_every_write() -> None:
    async with Servers(3) as servers:
        done = await run("cycle", "--devices", "3", "--duration", "1", "--json", "--servers", servers.address)
        told = done.figures()
        assert told["acknowledged_writes"] == 3 * told["cycles"]
        for at in range(3):
            floor, ours = sorted(servers.by_connection(at), key=lambda values: len(set(values)))
            assert len(set(floor)) == 1, "the floor writes one value again and again"
            assert len(ours) == told["cycles"], "one write a cycle"
            assert all(a != b for a, b in pairwise(ours)), "another setpoint in every cycle"


async def test_the_table_names_the_same_figures() -> None:
    done = await run("cycle", "--devices", "2", "--duration", "1")
    assert done.code == 0
    assert "cycle_ms.p50" in done.output
    assert "ratio_p50" in done.output


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ("nonsense", "nonsense: HOST:PORT is asked for"),
        ("127.0.0.1:65535", "127.0.0.1:65535: 2 ports from 65535 on go beyond 65535"),
        ("127.0.0.1:1", "127.0.0.1:1: Connection refused"),
    ],
)
async def test_servers_that_cannot_be_used_are_bad_input(servers: str, why: str) -> None:
    done = await run("cycle", "--devices", "2", "--servers", servers)
    assert (done.code, done.errors.strip()) == (2, why)


async def test_one_dead_server_among_others_is_named() -> None:
    async with Servers(3) as servers:
        servers.cut(2)
        done = await run("cycle", "--devices", "3", "--servers", servers.address)
        assert done.code == 2
        assert done.errors.strip() == f"127.0.0.1:{servers.first_port + 2}: Connection refused"


async def test_a_server_that_accepts_and_stays_silent_is_named() -> None:
    async with Servers(2) as servers:
        servers.silent.add(1)
        done = await run("cycle", "--devices", "2", "--servers", servers.address)
        assert done.code == 2
        assert "1 of 2 servers answer as devices of the bench do; not " in done.errors
        assert str(servers.first_port + 1) in done.errors


async def test_a_server_that_dies_while_it_is_measured_ends_the_bench() -> None:
    async with Servers(2) as servers:
        process = await start("cycle", "--devices", "2", "--duration", "20", "--servers", servers.address)
        await servers.any_written.wait()
        servers.cut(0)
        done = await end(process)
        assert done.code == 2
        assert "lost while it was measured: " in done.errors
        assert done.output == ""
