"""The live view of tiers: a line for each below the top, above the top's own table."""

from __future__ import annotations

from rich.console import Console

from gateway.bench.tiers.demo import shipped_tiers, tier_lines, tiers_screen

POINT = {"net_w": 12_300.0, "lower_w": -18_000.0, "upper_w": 35_000.0, "target_w": 12_000.0}


def test_a_tier_without_a_snapshot_waits_and_another_shows_its_connection_point() -> None:
    lines = tier_lines(shipped_tiers(), {"tiers_building_b": {"connection": POINT}})
    assert lines[0].endswith("waiting for the meter")
    words = "tiers_building_b net +12.3 kW, allowed -18.0 to +35.0, asked for +12.0"
    assert " ".join(lines[2].split()) == words


def test_the_screen_shows_the_top_with_its_buildings() -> None:
    console = Console(width=110, height=34, record=True, file=None, force_terminal=False)
    newest = {"tiers_microgrid": {"site": "tiers_microgrid", "title": "Microgrid", "connection": POINT}}
    with console.capture() as shown:
        console.print(tiers_screen(shipped_tiers(), newest))
        console.print(tiers_screen(shipped_tiers(), {}))
    text = shown.get()
    assert "Microgrid" in text
    assert text.count("tiers_building_c") == 2
