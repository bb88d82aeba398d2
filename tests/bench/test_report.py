"""A run directory becomes figures and a page, whatever the run left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.site import Site
from gateway.bench.metrics import Spread
from gateway.bench.reports.report import main, write_report
from gateway.bench.run_files import read_events, read_jitter, read_physics, read_run

Simulate = Callable[..., Path]

KEYS = {
    *("duration_s", "cycles", "missed_cycles", "cycle_ms", "jitter_ms", "bare_loop_jitter_ms", "orders"),
    *("excursions", "refused_orders", "links", "process"),
}
DEMO_SITE = Path(__file__).parents[2] / "config" / "sites" / "demo.yaml"


def figures_in(html: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert found
    figures: list[dict[str, Any]] = json.loads(found[1])
    return figures


def test_a_whole_run_gives_every_figure(simulate: Simulate, demo_site: Site) -> None:
    folder = simulate(duration_s=60.0)
    write_report(folder, demo_site)
    report = json.loads((folder / "report.json").read_text())
    assert set(report) == KEYS
    assert report["duration_s"] == pytest.approx(60.0, abs=0.1)
    assert (report["cycles"], report["missed_cycles"], report["refused_orders"]) == (592, 0, 1)
    assert set(report["jitter_ms"]) == {"p50", "p99", "max"}
    assert report["bare_loop_jitter_ms"] == {"p50": 0.11, "p99": 0.62, "max": 1.04}
    assert report["links"]["mqtt 15026"]["reconnects"] == 1
    assert report["process"] == {"rss_mb": 118.4, "cpu_pct": 21.5, "first_setpoint_s": 0.8}
    orders = {order["id"]: order for order in report["orders"]}
    assert {"id", "kind", "received_to_written_ms", "settled_s", "steady_error_pct"} <= set(orders["lim-imp-1"])
    assert orders["lim-imp-1"]["received_to_written_ms"] == pytest.approx(9.0, abs=0.01)
    assert 0.1 < orders["lim-imp-1"]["settled_s"] < 0.6
    assert orders["lim-bad-1"]["settled_s"] is None
    assert report["excursions"]["longest_s"] < 0.5


def test_a_gateway_that_is_a_second_slow_is_seen_to_break_the_limit(simulate: Simulate, demo_site: Site) -> None:
    report = write_report(simulate(duration_s=60.0, control_delay_s=0.9), demo_site)
    assert report.excursions.count
    assert (report.excursions.longest_s or 0.0) > 0.2
    assert len(report.excursions.each) == report.excursions.count
    longest = max(report.excursions.each, key=lambda each: each.lasted_s)
    assert longest.lasted_s == report.excursions.longest_s
    assert longest.quantity in ("net_import_w", "net_export_w")
    assert longest.peak > 1000.0, "more than 1 % of the rating of 100 kW"
    assert longest.source, "whose limit it was"
    html = (simulate(duration_s=60.0, control_delay_s=0.9) / "report.html").read_text()
    assert "excursion" in html
    assert "Whose limit" in html


def test_a_killed_gateway_leaves_what_its_lines_tell(simulate: Simulate, demo_site: Site) -> None:
    report = write_report(simulate(duration_s=30.0, killed=True), demo_site)
    assert report.missed_cycles is None
    assert report.process.rss_mb is None
    assert report.process.first_setpoint_s == 0.8
    assert report.cycles and report.cycle_ms.p99
    assert report.links["mqtt 15026"].lost == 1
    assert report.links["mqtt 15026"].good is None
    assert report.excursions.count is not None


def test_an_untraced_run_has_its_figures_from_the_summary_and_no_cycle_chart(
    simulate: Simulate, demo_site: Site
) -> None:
    folder = simulate(duration_s=20.0, traced=False)
    assert write_report(folder, demo_site).cycle_ms.p50
    keys = [figure["key"] for figure in figures_in((folder / "report.html").read_text())]
    assert keys == ["connection", "orders", "devices", "charge", "cars", "links"]


@pytest.mark.parametrize("missing", ["physics.csv", "gateway.jsonl", "dso.jsonl", "jitter.json"])
def test_a_missing_file_gives_nulls(simulate: Simulate, demo_site: Site, missing: str) -> None:
    folder = simulate(duration_s=20.0)
    (folder / missing).unlink()
    report = write_report(folder, demo_site)
    assert (report.excursions.count is None) == (missing == "physics.csv")
    assert (report.cycles is None) == (missing == "gateway.jsonl")
    assert (report.bare_loop_jitter_ms.p50 is None) == (missing == "jitter.json")
    assert report.orders
    assert report.duration_s


def test_an_empty_directory_gives_an_empty_report(tmp_path: Path, demo_site: Site) -> None:
    write_report(tmp_path, demo_site)
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == KEYS
    assert report["duration_s"] is None
    assert report["orders"] == []
    assert report["excursions"] == {"count": None, "longest_s": None, "energy_wh": None}
    assert "Not judged" in (tmp_path / "report.html").read_text()


def test_the_page_fetches_nothing_and_holds_hostile_text_as_text(simulate: Simulate, demo_site: Site) -> None:
    folder = simulate(duration_s=10.0)
    hostile = "</script><img src=x onerror=alert(1)>"
    with (folder / "dso.jsonl").open("a") as file:
        file.write(json.dumps({"event": "phase", "monotonic_s": 5004.0, "name": hostile}) + "\n")
        file.write(json.dumps({"event": "check", "monotonic_s": 5005.0, "name": hostile, "passed": False}) + "\n")
    write_report(folder, demo_site)
    html = (folder / "report.html").read_text()
    assert "default-src 'none'" in html
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=", html.replace("Plotly", ""))
    assert hostile not in html
    assert len(re.findall(r"<script", html)) >= 3
    assert figures_in(html)


def test_long_traces_are_reduced(tmp_path: Path, demo_site: Site) -> None:
    rows = "".join(f"{index * 0.1:.1f},{9e4 if index == 33_333 else index % 100},0,230\n" for index in range(50_000))
    (tmp_path / "physics.csv").write_text("monotonic_s,net_w,load_w,voltage_v\n" + rows)
    write_report(tmp_path, demo_site)
    (connection,) = (
        figure for figure in figures_in((tmp_path / "report.html").read_text()) if figure["key"] == "connection"
    )
    (net,) = (trace for trace in connection["data"] if trace["name"] == "net power")
    assert len(net["x"]) <= 10_000
    assert max(net["y"]) == 90.0


def test_the_command_names_the_page(simulate: Simulate, capsys: pytest.CaptureFixture[str]) -> None:
    folder = simulate(duration_s=5.0)
    assert main([str(folder), "--site", str(DEMO_SITE)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"


def test_bad_input_is_a_message_and_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere"), "--site", str(DEMO_SITE)]) == 2
    site = tmp_path / "site.yaml"
    site.write_text("site: 7\n")
    assert main([str(tmp_path), "--site", str(site)]) == 2
    assert main([str(tmp_path), "--site", str(tmp_path / "absent.yaml")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    journal = tmp_path / "gateway.jsonl"
    journal.write_bytes(
        b'{"event": "start", "monotonic_s": 1}\n[1, 2]\n\xff\xfe\nnull\n{"event": 7, "monotonic_s": 2}\n'
        b'{"event": "late", "monotonic_s": NaN}\n{"event": "big", "monotonic_s": 1e999}\n'
        b'{"event": "ready", "monotonic_s": 3}\n{"event": "cycle", "monotonic_s": 4}'
    )
    assert [event.name for event in read_events(journal)] == ["start", "ready"]
    physics = tmp_path / "physics.csv"
    physics.write_text(
        "monotonic_s,net_w\n1.0,5\n1.1,nan\n1.2\nx,y\n1.3,6\n1.3,7\n0.5,8\nmonotonic_s,net_w\n1.4,9\n1.5,1"
    )
    found = read_physics(physics)
    assert list(found.times) == [1.0, 1.3, 1.4]
    assert list(found.columns["net_w"]) == [5.0, 6.0, 9.0]


def test_a_journal_and_its_predecessor_are_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "gateway.1.jsonl").write_text('{"event": "start", "monotonic_s": 1}\n')
    (tmp_path / "gateway.jsonl").write_text('{"event": "ready", "monotonic_s": 2}\n')
    assert [event.name for event in read_run(tmp_path).gateway] == ["start", "ready"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"p50": true, "p99": "1", "max": null}', "9" * 400])
def test_a_jitter_file_that_says_nothing_useful_gives_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "jitter.json").write_text(text)
    assert read_jitter(tmp_path / "jitter.json") == Spread()


def test_the_figures_of_a_gateway_that_was_started_twice_add_up(simulate: Simulate, demo_site: Site) -> None:
    folder = simulate(duration_s=10.0)
    lines = [json.loads(line) for line in (folder / "gateway.jsonl").read_text().splitlines()]
    again = [line | {"monotonic_s": line["monotonic_s"] + 100.0} for line in lines]
    (folder / "gateway.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (*lines, *again)))
    report = write_report(folder, demo_site)
    assert report.cycles == 2 * next(line["cycles"] for line in lines if line["event"] == "summary")
    assert report.links["mqtt 15026"].lost == 2
    # Killed the second time: what only a summary tells is not known any more, what the lines tell is.
    killed = [line for line in again if line["event"] != "summary"]
    (folder / "gateway.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (*lines, *killed)))
    report = write_report(folder, demo_site)
    assert report.missed_cycles is None
    assert report.links["mqtt 15026"].lost == 2
    assert report.links["mqtt 15026"].good is None
