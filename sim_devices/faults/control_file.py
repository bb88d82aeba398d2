"""A file that says which faults there are, read again whenever it changes: YAML, or the JSON that is YAML too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from sim_devices.faults.board import FaultBoard
from sim_devices.faults.fault import FaultError

LOOK_S: Final = 0.2
_KEYS: Final = {"device", "fault", "parameters"}
_LARGEST: Final = 1_000_000


class ControlFile:
    """Holds a board to a list of `{"device", "fault", "parameters"}`.

    What the list no longer has is cleared, what it has anew is set, and faults that were set in another way stay. A
    file that isn't there is an empty list. One that can't be used changes nothing; `told` is given the reasons, once.
    """

    def __init__(self, board: FaultBoard, path: Path, told: Callable[[str], None]) -> None:
        self._board = board
        self._path = path
        self._told = told
        self._seen: object = None
        self._set: dict[str, tuple[str, int]] = {}

    async def run(self) -> None:
        """Look at the file until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Look at the file once."""
        text = await asyncio.to_thread(self._read)
        if text == self._seen:
            return
        self._seen = text
        try:
            self._hold_to(_wanted(self._board, text))
        except FaultError as error:
            self._told(f"{self._path}: {error}")

    def _read(self) -> str:
        try:
            with self._path.open(encoding="utf-8", errors="replace") as file:
                return file.read(_LARGEST)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"# {error.strerror}"

    def _hold_to(self, wanted: dict[str, dict[str, Any]]) -> None:
        for key in [key for key in self._set if key not in wanted]:
            self._board.clear(*self._set.pop(key))
        for key, item in wanted.items():
            if key not in self._set:
                number = self._board.set(item["device"], item["fault"], item.get("parameters"))
                self._set[key] = item["device"], number


def _wanted(board: FaultBoard, text: str) -> dict[str, dict[str, Any]]:
    """The faults of a file, each under what says it all; raises FaultError with every reason."""
    try:
        items = yaml.safe_load(text) or []
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FaultError(f"neither YAML nor JSON: {' '.join(str(error).split())}") from None
    if not isinstance(items, list):
        raise FaultError("expected a list of device, fault and parameters")
    wanted: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    for at, item in enumerate(items):
        try:
            if not isinstance(item, dict) or not {"device", "fault"} <= item.keys() <= _KEYS:
                raise FaultError(f"expected device, fault and parameters, not {item!r}")
            board.check(item["device"], item["fault"], item.get("parameters"))
            key = json.dumps(item, sort_keys=True, default=str)
            if key in wanted:
                raise FaultError(f"{item['fault']} on {item['device']} with these parameters is in the list already")
            wanted[key] = item
        except FaultError as error:
            wrong.append(f"[{at}]: {error}")
    if wrong:
        raise FaultError("\n".join(wrong))
    return wanted
