"""The live table: every snapshot fits its screen, and what needs a look is on it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gateway.bench.live import render, screen

DEVICES = ("pv", "battery_a", "battery_b", "charger_1", "charger_2", "charger_3")


def snapshot() -> dict[str, Any]:
    device = {"kind": "battery", "power_w": -2100.0, "setpoint_w": -2000.0, "lower_w": -3e4, "upper_w": 3e4}
    device |= {"cause": "dso dis-1", "state": None, "soc": 0.551, "quality": "good", "age_s": 0.05, "rating_w": 3e4}
    link = {"state": "up", "good": 10, "timeouts": 0, "reconnects": 0, "reason": "", "devices": []}
    return {
        "site": "demo",
        "title": "A building",
        "monotonic_s": 12.0,
        "utc": "2026-06-08T09:00:12.345Z",
        "mode": {"state": "normal", "reason": ""},
        "connection": {
            "net_w": -12340.0,
            "quality": "good",
            "age_s": 0.1,
            "voltage_v": 231.2,
            "frequency_hz": 50.0,
            "rating_w": 1e5,
            "lower_w": -25e3,
            "lower_source": "dso lim-1",
            "upper_w": 1e5,
            "upper_source": "installer",
            "target_w": -12e3,
            "target_source": "dso dis-1",
        },
        "orders": [
            {"id": "lim-1", "kind": "limits", "source": "dso", "text": "export <= 25 kW", "remaining_s": 12.0},
            {"id": "dis-1", "kind": "dispatch", "source": "dso", "text": "net -12 kW", "remaining_s": None},
        ],
        "devices": [device | {"name": name} for name in DEVICES],
        "links": [link | {"name": f"modbus://127.0.0.1:1502{index}"} for index in range(7)],
        "cycle": {"count": 1234, "missed": 0, "cycle_ms_p50": 6.0, "cycle_ms_p99": 9.0, "jitter_ms_p99": 0.8}
        | {"period_ms": 100.0},
        "process": {"rss_mb": 118.0, "cpu_pct": 21.0},
    }


def shown(given: dict[str, Any], width: int = 100, height: int = 30) -> str:
    """The text of a screen, checked to fit without anything being cut from its end."""
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None, legacy_windows=False)
    lines = console.render_lines(screen(given, width, height), console.options.update(height=None), pad=False)
    assert len(lines) <= height
    assert all(sum(segment.cell_length for segment in line) <= width for line in lines)
    return "\n".join("".join(segment.text for segment in line).rstrip() for line in lines)


def test_a_screen_of_100_by_30_shows_everything() -> None:
    text = shown(snapshot())
    for words in ("−12.34 kW export", "target −12.00 kW", "dso lim-1", "installer", "231.2 V", "50.00 Hz"):
        assert words in text
    for words in (*DEVICES, "−2.10", "55.1 %", "−30.0 …  +30.0", "12 s left", "until replaced", "09:00:12"):
        assert words in text
    for words in ("127.0.0.1:15026", "cycle 1234", "missed 0", "jitter p99 0.8 ms", "118 MB"):
        assert words in text


def test_a_screen_of_80_by_24_keeps_the_connection_the_devices_and_the_footer() -> None:
    text = shown(snapshot(), 80, 24)
    for words in ("−12.34 kW export", *DEVICES, "55.1 %", "lim-1", "dis-1", "15026", "cycle 1234"):
        assert words in text


def test_trouble_is_on_the_screen_even_on_a_small_one() -> None:
    given = snapshot()
    given["mode"] = {"state": "fallback", "reason": "dso silent"}
    given["connection"] |= {"net_w": 30e3, "lower_w": -5e3, "upper_w": 25e3, "unmet": ["fallback: no more to give"]}
    given["links"][5] |= {"paused": 2}
    given["links"][6] |= {"state": "lost", "reason": "connection refused", "devices": ["charger_3"]}
    given["devices"][5] |= {"quality": "bad", "age_s": 4.0, "power_w": None}
    for width, height in ((100, 30), (80, 24)):
        text = shown(given, width, height)
        for words in (
            "● fallback",
            "dso silent",
            "▶",
            "cannot be kept",
            "(charger_3) lost: connection ref",
            "bad 4.0 s",
        ):
            assert words in text
    assert "2 paused" in shown(given, 140, 30)


def test_more_devices_and_orders_than_fit_are_counted() -> None:
    given = snapshot()
    given["devices"] = [given["devices"][0] | {"name": f"device_{index}"} for index in range(60)]
    given["orders"] = [given["orders"][0] | {"id": f"order_{index}"} for index in range(40)]
    text = shown(given)
    assert "Devices (4" in text
    assert "Orders (3" in text
    assert "cycle 1234" in text


def test_before_the_first_cycle_there_are_dashes() -> None:
    text = shown({"site": "demo", "connection": {"rating_w": 1e5}, "mode": {"state": None}, "devices": []})
    assert "starting" in text
    assert "none in force" in text


def test_the_screen_fits_the_console_it_is_printed_on() -> None:
    console = Console(width=80, height=24, file=io.StringIO(), color_system=None, legacy_windows=False)
    lines = console.render_lines(render(snapshot()), console.options.update(height=24), pad=False)
    assert len(lines) <= 24
    assert "cycle 1234" in "".join(segment.text for line in lines for segment in line)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value of a snapshot, containers included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, item in items for found in leaves(item, (*path, key))]


PATHS = leaves(snapshot())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_any_value_may_be_null(path: tuple[Any, ...]) -> None:
    given: Any = snapshot()
    place = given
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = None
    shown(given)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PATHS), st.sampled_from([1e300, -0.0, "text\nin [bold]lines", [], {}, True, float("inf")]))
def test_odd_values_neither_raise_nor_break_the_screen(path: tuple[Any, ...], odd: Any) -> None:
    given: Any = json.loads(json.dumps(snapshot()))
    place = given
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = odd
    shown(given)
