"""Site files for runs: the shipped demo site, and steady sites made of it in which nothing moves by itself."""

from __future__ import annotations

import copy
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tests.system.processes import closed_port

SiteFile = dict[str, Any]

CAR = {"plug_in_s": 0, "needed_wh": 20_000}
"""A car that is there from the start and wants more than any test gives it."""


def demo_site() -> SiteFile:
    """The shipped demo site."""
    text = Path(str(files("config").joinpath("sites", "demo.yaml"))).read_text(encoding="utf-8")
    site: SiteFile = yaml.safe_load(text)
    return site


def steady_site(*devices: str, load_w: float = 10_000.0) -> SiteFile:
    """The demo site with some of its devices: constant load, full sun, cars that stay, ports of its own."""
    site = demo_site()
    site["simulation"] = {"load": {"series": None, "constant_w": load_w}, "load_steps": None, "clouds": None}
    # A second battery without OPC UA, whose library takes a second to load in each process.
    site["devices"]["battery_c"] = copy.deepcopy(site["devices"]["battery_a"]) | {"rating_w": 30_000}
    site["devices"] = {name: site["devices"][name] for name in ("grid_meter", *devices)}
    for device in site["devices"].values():
        device["twin"] = {key: value for key, value in device.get("twin", {}).items() if key != "series"}
        if "ev" in device:
            device["ev"] = {"needed_wh": 20_000, "stay_s": 14_400}
            device["twin"]["evs"] = [CAR]
        if device["address"]["driver"] == "modbus_tcp":
            device["address"]["port"] = closed_port()
    return site


def written(site: SiteFile, folder: Path) -> Path:
    """The site as a file."""
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(site, sort_keys=False), encoding="utf-8")
    return path
