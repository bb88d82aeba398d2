"""Our epoch at each layer below: a new one with each start, so that an earlier run's dispatches are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

FILE: Final = "children.json"
MOST: Final = 2**53
"""As the layer interface bounds epochs."""


def next_epochs(directory: Path, devices: Iterable[str], utc_s: float) -> dict[str, int]:
    """Above every epoch that an earlier run had, by device, and on the disk before it is used.

    The wall clock stands in for a file that is lost, and the file for a clock that was set back. A disk that can't be
    written is no reason to leave the layers alone: the clock makes the next epoch higher.
    """
    names = tuple(devices)
    if not names:
        return {}
    path = directory / FILE
    before = _read(path)
    epochs = {name: min(max(before.get(name, 0) + 1, int(utc_s)), MOST) for name in names}
    with suppress(OSError):
        _replace(path, json.dumps(before | epochs))
    return epochs


def _read(path: Path) -> dict[str, int]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): epoch for name, epoch in found.items() if type(epoch) is int and 0 <= epoch <= MOST}


def _replace(path: Path, text: str) -> None:
    """Atomic: after a crash the file is the old one or the new one."""
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
