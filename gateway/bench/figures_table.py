"""Figures of a bench: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table


def print_figures(title: str, figures: dict[str, Any], *, as_json: bool) -> None:
    """Print to standard output; nested figures are joined by a dot."""
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    table = Table("figure", "value", title=title)
    for key, value in figures.items():
        for name, item in value.items() if isinstance(value, dict) else [("", value)]:
            table.add_row(f"{key}.{name}" if name else key, f"{item:g}" if isinstance(item, float) else str(item))
    Console().print(table)
