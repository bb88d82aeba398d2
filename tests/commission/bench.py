"""A small site with twins in a process of their own, and the command line in another: as a commissioner has them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config.loading import shipped_profiles

STEADY = {"load": {"series": None, "constant_w": 3000}, "load_steps": None, "clouds": None}


def modbus(port: int = 502, unit: int = 1) -> dict[str, Any]:
    return {"driver": "modbus_tcp", "host": "127.0.0.1", "port": port, "unit": unit}


def site_content() -> dict[str, Any]:
    """A meter and a battery of Tr90 0.2 s after 0.3 s, over a load that stands still."""
    return {
        "site": "yard",
        "connection": {"rating_w": 100_000, "meter": "meter"},
        "fallback": {"net_import_w": 50_000, "net_export_w": 20_000},
        "devices": {
            "meter": {"profile": "sunspec_meter", "address": modbus(5020), "rating_w": 100_000},
            "battery": {
                "profile": "sunspec_battery",
                "address": modbus(5021),
                "rating_w": 40_000,
                "capacity_wh": 80_000,
                "twin": {"tr90_s": 0.2, "dead_time_s": 0.3},
            },
        },
        "simulation": STEADY,
    }


def write_site(folder: Path, content: Mapping[str, Any], name: str = "yard.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def changed_profile(folder: Path, shipped: str, name: str, change: Any) -> str:
    """A copy of a shipped profile beside the site file, after `change` has been at it."""
    content = yaml.safe_load(shipped_profiles()[shipped].read_text(encoding="utf-8"))
    content["profile"] = name
    change(content)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return f"{name}.yaml"


@contextlib.contextmanager
def twins(site: Path) -> Iterator[dict[str, Any]]:
    """The twins of a site; what they print."""
    command = [sys.executable, "-m", "sim_devices.process", str(site), "--ports", "free", "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(10)


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, "machine output is one line"
        return json.loads(self.out)


def gateway(*arguments: object, state: Path, answer: str = "", timeout_s: float = 50.0) -> Ran:
    """Run a command as a user does; never a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *map(str, arguments)],
        input=answer,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "LAMINA_STATE": str(state)},
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)
