"""What is wrong with a file, one line each: where it is, what is wrong, what is allowed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indexes from the top of a file to a value."""

SHOWN_CHARACTERS: Final = 60
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_\-]+")


class Severity(StrEnum):
    """An error refuses the file; a warning is shown and the file is taken."""

    ERROR = "error"
    WARNING = "warning"


class Problem(NamedTuple):
    """A finding before its file and line are known; `see` is the path of the other place it speaks of."""

    path: Path
    message: str
    allowed: str = ""
    severity: Severity = Severity.ERROR
    see: Path | None = None

    def under(self, path: Path) -> Problem:
        """The same problem, told from further up: `path` leads to where its own path begins."""
        return self._replace(path=(*path, *self.path), see=None if self.see is None else (*path, *self.see))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a file; `str()` is a single line that editors and shells can jump by.

    `line` and `column` count from 1 and are None where the file as a whole is meant; `path` is dotted.
    """

    file: str
    line: int | None
    path: str
    message: str
    allowed: str = ""
    severity: Severity = Severity.ERROR
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(item) for item in (self.file, self.line, self.column) if item is not None)
        parts = [place, "warning" if self.severity is Severity.WARNING else "", self.path, self.message]
        text = ": ".join(part for part in parts if part)
        return one_line(f"{text}; allowed: {self.allowed}" if self.allowed else text)


class ConfigError(Exception):
    """A file that cannot be taken; `findings` holds every error in it, in the order of its lines."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings: tuple[Finding, ...] = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


def one_line(text: str) -> str:
    """Text with every character escaped that would break the line or drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def dotted(path: Path) -> str:
    """`devices.pv.twin.evs[0].needed_wh`; a key that is not a plain word is quoted."""
    text = ""
    for item in path:
        if isinstance(item, int):
            text += f"[{item}]"
        else:
            key = item if _PLAIN_KEY.fullmatch(item) else json.dumps(_shortened(item), ensure_ascii=False)
            text += f".{key}" if text else key
    return text


def shown(value: object) -> str:
    """A value as a finding quotes it: short, on one line, in the words of YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str():
            return f"'{_shortened(one_line(value))}'"
    return _shortened(str(value))


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'rating_w'?`, or nothing where no known word is close."""
    close = difflib.get_close_matches(word[:200], known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
