"""Figures of a bench: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table


def print_figures(title: str, figures: dict[str, Any], *, as_json: bool) -> None:
    """Print to standard output; nested figures are joined by a dot, and each row of a list is one of the table."""
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    table = Table("figure", "value", title=title)
    for key, value in figures.items():
        for name, item in _rows(key, value):
            table.add_row(name, f"{item:g}" if isinstance(item, float) else str(item))
    Console().print(table)


def tell(text: str) -> None:
    """Progress for whoever watches: to standard error, and only where that is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")


def _rows(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"{key}.{name}", item
    elif isinstance(value, list):
        for row in value:
            (first, at), *others = row.items()
            for name, item in others:
                yield f"{key}.{name} at {at} {first}", item
    else:
        yield key, value
