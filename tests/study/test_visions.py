"""The study of visions as a user runs it: figures that come out again from its files, a page that fetches nothing."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("clarabel")

from gateway.cli.main import app
from gateway.study.visions import Study, run_study
from gateway.study.visions_page import visions_page, write_visions

KEYS = {"cost", "violations", "violation_wh", "orders_undone", "points_disclosed", "messages", "solve_s"}
VISIONS = ("total_tso", "minimal_dso", "total_dso")
STEPS = 6


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("visions")


@pytest.fixture(scope="module")
def study(out: Path) -> Study:
    return run_study(out, 12, 3, steps=STEPS)


def schedule(directory: Path, vision: str, column: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    with (directory / f"{vision}.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            assert int(row["step"]) == len(found[row["device"]])
            found[row["device"]].append(float(row[column]))
    return found


def buildings_below(area: dict[str, Any]) -> list[dict[str, Any]]:
    return area["buildings"] + [one for each in area["areas"] for one in buildings_below(each)]


def net_kw(buildings: list[dict[str, Any]], powers_w: dict[str, list[float]], step: int) -> float:
    names = [
        one["name"]
        for each in buildings
        for kind in ("batteries", "vehicles", "solar", "thermal")
        for one in each[kind]
    ]
    return (sum(one["load_w"][step] for one in buildings) + sum(powers_w[name][step] for name in names)) / 1e3


def cost_again(fleet: dict[str, Any], powers_w: dict[str, list[float]]) -> float:
    """The day's cost from the files alone, written without a look at the study's own accounts."""
    buildings, hours = buildings_below(fleet["substation"]), fleet["step_s"] / 3600.0
    total = 0.0
    for step, (bought, sold) in enumerate(zip(fleet["import_per_kwh"], fleet["export_per_kwh"], strict=True)):
        net = net_kw(buildings, powers_w, step)
        total += hours * (max(net, 0.0) * bought + min(net, 0.0) * sold)
    for one in (each for building in buildings for each in building["batteries"]):
        held = first = one["soc"] * one["capacity_wh"] / 1e3
        for power in powers_w[one["name"]]:
            kw = power / 1e3
            total += one["wear_per_kwh"] * abs(kw) * hours
            held += hours * (kw * one["charge_efficiency_pu"] if kw > 0 else kw / one["discharge_efficiency_pu"])
        total += fleet["end_per_kwh"] * max(first - held, 0.0)
    for one in (each for building in buildings for each in building["vehicles"]):
        got = sum(powers_w[one["name"]][one["from_step"] : one["until_step"]]) * hours
        total += fleet["car_per_kwh"] * max(one["needed_wh"] - got, 0.0) / 1e3
    for one in (each for building in buildings for each in building["thermal"]):
        held = first = one["stored_wh"] / 1e3
        for power, heat in zip(powers_w[one["name"]], one["heat_w"], strict=True):
            held += hours * (one["cop"] * power - heat) / 1e3 - hours * one["loss_pu_per_h"] * held
            total += fleet["cold_per_kwh"] * hours * max(one["least_wh"] / 1e3 - held, 0.0)
        total += fleet["end_per_kwh"] * max(first - held, 0.0)
    return total


def violations_again(fleet: dict[str, Any], powers_w: dict[str, list[float]]) -> tuple[int, float]:
    count, energy_wh = 0, 0.0

    def look(at: dict[str, Any], buildings: list[dict[str, Any]]) -> None:
        nonlocal count, energy_wh
        for step in range(len(fleet["import_per_kwh"])):
            net_w = net_kw(buildings, powers_w, step) * 1e3
            beyond_w = max(net_w - at["import_limit_w"], -at["export_limit_w"] - net_w)
            if beyond_w > fleet["limit_tolerance_w"]:
                count += 1
                energy_wh += beyond_w * fleet["step_s"] / 3600.0

    def walk(area: dict[str, Any]) -> None:
        look(area, buildings_below(area))
        for building in area["buildings"]:
            look(building, [building])
        for each in area["areas"]:
            walk(each)

    walk(fleet["substation"])
    return count, energy_wh


def test_the_figures_have_the_shape_that_programs_read(study: Study) -> None:
    figures = study.as_json()
    assert list(figures) == [*VISIONS, "scaling"]
    assert [set(figures[name]) for name in VISIONS] == [KEYS] * 3
    assert [row["devices"] for row in figures["scaling"]] == [10, 12]
    assert all(set(row[name]) == KEYS for row in figures["scaling"] for name in VISIONS)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("part", ["", "scaling-10", "scaling-12"])
def test_costs_and_violations_come_out_again_from_the_files(study: Study, out: Path, vision: str, part: str) -> None:
    figures = study.as_json()
    told = figures[vision] if not part else next(
        row[vision] for row in figures["scaling"] if part == f"scaling-{row['devices']}"
    )  # fmt: skip
    fleet = json.loads((out / part / "fleet.json").read_text(encoding="utf-8"))
    assert cost_again(fleet, schedule(out / part, vision, "power_w")) == pytest.approx(told["cost"], abs=1e-4)
    count, energy_wh = violations_again(fleet, schedule(out / part, vision, "asked_w"))
    assert (count, energy_wh) == (told["violations"], pytest.approx(told["violation_wh"], abs=0.1))


def test_what_is_done_in_the_end_breaks_no_limit_in_any_vision(study: Study, out: Path) -> None:
    fleet = json.loads((out / "fleet.json").read_text(encoding="utf-8"))
    assert [violations_again(fleet, schedule(out, vision, "power_w"))[0] for vision in VISIONS] == [0, 0, 0]


def test_the_central_program_is_cheapest_and_blind_orders_are_undone(study: Study, out: Path) -> None:
    central, blind, layers = (study.main.visions[name].figures for name in VISIONS)
    assert central.cost <= layers.cost + 1e-6
    assert layers.cost < blind.cost
    assert (central.violations, layers.violations) == (0, 0)
    assert blind.violations > 0
    asked, done = schedule(out, "minimal_dso", "asked_w"), schedule(out, "minimal_dso", "power_w")
    differ = sum(abs(a - b) > 1.0 for name in asked for a, b in zip(asked[name], done[name], strict=True))
    assert differ == blind.orders_undone > 0


def test_the_page_fetches_nothing_and_says_what_the_figures_say(study: Study) -> None:
    page = visions_page(study)
    text = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text)
    assert "default-src 'none'" in page
    for vision in study.main.visions.values():
        assert f'<td class="number">{vision.figures.cost:.2f}</td>' in page
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, flags=re.S).group(1))  # type: ignore[union-attr]
    assert [one["key"] for one in figures][:4] == ["substation", "broken", "prices", "costs"]
    assert all(f'<div id="{one["key"]}"></div>' in page for one in figures)
    layered = next(trace for trace in figures[0]["data"] if trace["name"] == "Total DSO")
    assert len(layered["y"]) == STEPS + 1


def test_the_files_of_a_report(study: Study, tmp_path: Path) -> None:
    write_visions(tmp_path, study)
    assert json.loads((tmp_path / "visions.json").read_text(encoding="utf-8")) == study.as_json()
    assert (tmp_path / "visions.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_day_that_the_series_does_not_have_is_told_with_those_it_has(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["study", "visions", "--out", str(tmp_path), "--day", "2030-01-01"])
    assert result.exit_code == 2
    assert "--day: there is no series of 2030-01-01; there are 2016-01-11" in result.output


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = CliRunner().invoke(app, ["study", "visions", "--out", str(tmp_path / "file"), "--devices", "5"])
    assert result.exit_code == 2
    assert str(tmp_path / "file") in result.output


def test_the_command_prints_one_object_and_its_progress_elsewhere(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["study", "visions", "--out", str(tmp_path), "--devices", "2", "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)) == {*VISIONS, "scaling"}
    assert "2 devices, total_dso" in result.stderr
