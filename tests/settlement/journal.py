"""Journals as a gateway leaves them, made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BEGIN_S = 1_799_971_200
"""A midnight, UTC."""


def energy(in_wh: float = 0.0, out_wh: float = 0.0, known_s: float = 300.0) -> dict[str, Any]:
    return {"in_wh": in_wh, "out_wh": out_wh, "known_s": known_s, "source": "power"}


def interval(at: int, connection: dict[str, Any], price: float = 0.25, **resources: dict[str, Any]) -> dict[str, Any]:
    """The entry of the interval `at` after BEGIN_S."""
    return {
        "event": "interval",
        "monotonic_s": 1.0,
        "utc": "2027-01-15T00:00:00.000+00:00",
        "begin_s": BEGIN_S + 300 * at,
        "duration_s": 300,
        "lambda_per_kwh": price,
        "import_per_kwh": 0.30,
        "export_per_kwh": 0.10,
        "bound_s": 0.0,
        "connection": connection,
        "resources": resources,
    }


def write(directory: Path, *entries: dict[str, Any], rotated: bool = False) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    name = "gateway.1.jsonl" if rotated else "gateway.jsonl"
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (directory / name).write_text(text, encoding="utf-8")
