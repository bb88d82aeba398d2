"""A study's files: the fleet and every schedule, so that costs and violations can be computed again by anybody."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from gateway.planning.model import Series
from gateway.study.fleet import CAR_PER_KWH, COLD_PER_KWH, END_PER_KWH, LIMIT_TOLERANCE_W, Area, Building, Fleet

FLEET_FILE: Final = "fleet.json"
COLUMNS: Final = ("step", "building", "device", "asked_w", "power_w")
DIGITS: Final = 6


def write_fleet(directory: Path, fleet: Fleet) -> None:
    """Devices, network, prices and the prices of what is missing."""
    whole: dict[str, Any] = {
        "seed": fleet.seed,
        "day": fleet.day,
        "step_s": fleet.step_s,
        "import_per_kwh": fleet.import_per_kwh,
        "export_per_kwh": fleet.export_per_kwh,
        "car_per_kwh": CAR_PER_KWH,
        "cold_per_kwh": COLD_PER_KWH,
        "end_per_kwh": END_PER_KWH,
        "limit_tolerance_w": LIMIT_TOLERANCE_W,
        "substation": _area(fleet.substation),
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FLEET_FILE).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def write_schedule(path: Path, fleet: Fleet, asked_w: Mapping[str, Series], powers_w: Mapping[str, Series]) -> None:
    """One row a device and interval: what was asked for first, and what it does."""
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(COLUMNS)
        for step in range(fleet.steps):
            for building in fleet.buildings:
                for device in building.devices:
                    powers = (round(each[device.name][step], DIGITS) for each in (asked_w, powers_w))
                    writer.writerow((step, building.name, device.name, *powers))


def _area(area: Area) -> dict[str, Any]:
    return {
        "name": area.name,
        "tier": area.tier.value,
        "import_limit_w": area.import_limit_w,
        "export_limit_w": area.export_limit_w,
        "areas": [_area(each) for each in area.areas],
        "buildings": [_building(each) for each in area.buildings],
    }


def _building(building: Building) -> dict[str, Any]:
    return asdict(building)
