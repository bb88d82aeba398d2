"""The demo as one command: to its end, interrupted, killed, and with a process of its own gone."""

from __future__ import annotations

import json
import os
import re
import signal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.system.processes import Gateway, Running, Started, is_open, until

# Every key of issue 2's report and where null is allowed in it: what an interrupted or unmeasured part leaves behind.
PERCENTILES = {"p50", "p99", "max"}
KEYS: dict[str, set[str] | None] = {
    "duration_s": None,
    "cycles": None,
    "missed_cycles": None,
    "cycle_ms": PERCENTILES,
    "jitter_ms": PERCENTILES,
    "bare_loop_jitter_ms": PERCENTILES,
    "orders": None,
    "excursions": {"count", "longest_s", "energy_wh"},
    "refused_orders": None,
    "links": None,
    "process": {"rss_mb", "cpu_pct", "first_setpoint_s"},
}
ORDER_KEYS = {"id", "kind", "received_to_written_ms", "settled_s", "steady_error_pct"}
LINK_KEYS = {"good", "lost", "reconnects"}
MOST_RESIDENT_MB = 150.0
PROCESSES = ("sim_devices.broker", "sim_devices.process", "sim_devices.dso", "gateway.bench.bare_loop", "gateway run")


def demo(started: Started) -> tuple[Running, Path]:
    """`gateway demo`, and where its report goes."""
    out = started.folder / "out"
    return started.run("demo", "gateway", "demo", "--duration", "30", "--headless", "--out", str(out)), out


async def at_work(running: Running, out: Path) -> Gateway:
    """Wait until every process of the demo runs and the operator's orders are held."""
    gateway = Gateway(running, out)

    def holds_orders() -> bool:
        assert running.code is None, running.errors
        try:
            return bool(gateway.order_ids())
        except OSError:
            return False

    await until(holds_orders, "the gateway holds an order", within_s=40.0)
    lines = list(running.alive().values())
    for process in PROCESSES:
        assert any(process in line for line in lines), (process, lines)
    return gateway


def listening(out: Path) -> list[tuple[str, int]]:
    """Where the demo's twins and its broker listen, as its endpoints say."""
    said = json.loads((out / "endpoints.json").read_text())
    found = [(said["control"]["host"], said["control"]["port"])]
    for address in said["endpoints"].values():
        url = re.fullmatch(r"opc\.tcp://(.*):(\d+)/?", address.get("url", ""))
        found.append((url[1], int(url[2])) if url else (address["host"], address["port"]))
    return found


def nothing_is_left(running: Running, out: Path) -> bool:
    return not running.alive() and not any(is_open(*address) for address in listening(out))


def report(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "report.json").read_text())
    return content


def nulls(value: Any, path: str = "") -> list[str]:
    """The paths of everything that is null."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in nulls(item, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for item in value for found in nulls(item, f"{path}[]")]
    return [path] if value is None else []


class _References(HTMLParser):
    """What a browser would fetch to show a page: the text of scripts is none of it, whatever it looks like."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster", "action") or (name == "href" and tag in ("link", "base")):
                self.found.append(f"{tag} {name}={value}")
            elif name == "style":
                self.handle_style(value or "")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.handle_style(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_style(self, text: str) -> None:
        self.found += re.findall(r"@import[^;]*|url\([^)]*\)", text)


def references(page: str) -> list[str]:
    """Everything outside the page that it refers to."""
    parser = _References()
    parser.feed(page)
    parser.close()
    return parser.found


@pytest.mark.timeout(150)
async def test_a_whole_demo_reports_and_leaves_nothing(started: Started) -> None:
    running, out = demo(started)
    assert await running.ended(within_s=120.0) == 0, running.errors
    assert nothing_is_left(running, out)
    assert not (out / "control.sock").exists()
    assert running.out.splitlines()[-1] == f"report: {out / 'report.html'}"

    figures = report(out)
    assert figures.keys() == KEYS.keys()
    for key, inner in KEYS.items():
        if inner is not None:
            assert figures[key].keys() == inner, key
    assert all(order.keys() >= ORDER_KEYS for order in figures["orders"])
    assert {order["kind"] for order in figures["orders"]} == {"authority", "limits", "dispatch", "regulation"}
    assert [link.keys() for link in figures["links"].values()] == [LINK_KEYS] * len(figures["links"])
    allowed = {f".orders[].{key}" for key in ("received_to_written_ms", "settled_s", "steady_error_pct")}
    allowed |= {".orders[].start_s", ".orders[].end_s"}
    assert set(nulls(figures)) <= allowed, "the gateway and the bench have measured everything else"
    assert 30.0 <= figures["duration_s"] < 60.0
    assert figures["refused_orders"] >= 7
    assert len(figures["links"]) == 7
    assert figures["process"]["rss_mb"] < MOST_RESIDENT_MB

    page = (out / "report.html").read_text()
    assert "Commercial building with PV, two batteries and three EV chargers" in page
    assert references(page) == []


async def test_an_interrupted_demo_ends_soon_and_still_reports(started: Started) -> None:
    running, out = demo(started)
    await at_work(running, out)
    running.send(signal.SIGINT)
    assert await running.ended(within_s=10.0) == 1, running.errors
    assert nothing_is_left(running, out)
    assert "interrupted" in running.out + running.errors
    assert "Traceback" not in running.errors
    assert report(out).keys() == KEYS.keys()
    assert (out / "report.html").exists()


async def test_a_demo_that_is_killed_takes_its_children_with_it(started: Started) -> None:
    running, out = demo(started)
    await at_work(running, out)
    running.send(signal.SIGKILL)
    await running.ended()
    await until(
        lambda: nothing_is_left(running, out),
        lambda: f"its children end by themselves: {running.alive()}",
        within_s=5.0,
    )


async def test_a_demo_says_which_of_its_processes_has_gone(started: Started) -> None:
    running, out = demo(started)
    await at_work(running, out)
    twins = next(pid for pid, line in running.alive().items() if "sim_devices.process" in line)
    os.kill(twins, signal.SIGTERM)
    assert await running.ended(within_s=20.0) == 1
    assert nothing_is_left(running, out)
    assert "twins ended by itself with code 0" in running.out + running.errors
    assert report(out).keys() == KEYS.keys()
