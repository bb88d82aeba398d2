"""A recording of Modbus registers as `gateway record` leaves it: JSON lines, checked whole before anything is served.

The first line says what it is; every other one is one read: `{"monotonic_s", "utc", "device", "unit", "table", "first",
"words"}`. A read that was refused has `count` and `exception` instead of `words`, one without an answer `count` and
`"answered": false`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FORMAT: Final = "lamina modbus"
VERSION: Final = 1
TABLES: Final = ("holding", "input")
MOST_WORDS: Final = 125
REGISTERS: Final = 65_536


class RecordingError(Exception):
    """The recording can't be served; the text names file, line and reason."""


@dataclass(frozen=True, slots=True)
class RecordedRead:
    """One read, `at_s` after the begin of the recording; `words` None: `exception`, or else no answer."""

    at_s: float
    device: str
    unit: int
    table: str
    first: int
    count: int
    words: tuple[int, ...] | None
    exception: int | None

    @property
    def is_answered(self) -> bool:
        """Whether the device said anything."""
        return self.words is not None or self.exception is not None


@dataclass(frozen=True, slots=True)
class Recording:
    """What was read, in the order of time; `length_s` from the begin to the last read."""

    site: str
    began_utc: str
    reads: tuple[RecordedRead, ...]

    @property
    def length_s(self) -> float:
        return self.reads[-1].at_s

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device that something was read of, in the order of their first read."""
        return tuple(dict.fromkeys(read.device for read in self.reads))


class _WrongLine(ValueError):  # noqa: N818 - becomes a RecordingError where file and line are known
    """What is wrong with a line."""


def load_recording(path: Path) -> Recording:
    """Read and check a recording; raises RecordingError for a file that can't be read or a line that is damaged."""
    try:
        with path.open(encoding="utf-8") as lines:
            return _recording(path, lines)
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: not text: {error.reason} at byte {error.start}") from error


def _recording(path: Path, lines: Iterable[str]) -> Recording:
    header: dict[str, Any] | None = None
    reads: list[RecordedRead] = []
    answered_s = 0.0
    for number, line in enumerate(lines, start=1):
        try:
            if header is None:
                header = _header(_object(line))
                continue
            read = _read(_object(line), header["began_monotonic_s"])
            if read.is_answered:
                if read.at_s < answered_s:
                    raise _WrongLine(f"monotonic_s goes back by {answered_s - read.at_s:.3f} s")
                answered_s = read.at_s
            reads.append(read)
        except _WrongLine as wrong:
            raise RecordingError(f"{path}:{number}: {wrong}") from None
    if header is None or not reads:
        raise RecordingError(f"{path}: nothing is recorded there")
    # That a read has no answer is known, and written, a time-out after it was asked for.
    return Recording(header["site"], header["began_utc"], tuple(sorted(reads, key=lambda read: read.at_s)))


def _object(line: str) -> dict[str, Any]:
    if not line.endswith("\n"):
        raise _WrongLine("the line is cut off")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise _WrongLine("not JSON") from None
    if not isinstance(content, dict):
        raise _WrongLine("not an object")
    return content


def _header(content: dict[str, Any]) -> dict[str, Any]:
    if content.get("recording") != FORMAT:
        raise _WrongLine(f"not a recording of Modbus registers: `recording` is not {FORMAT!r}")
    if content.get("version") != VERSION:
        raise _WrongLine(f"version {content.get('version')!r}; this reads version {VERSION}")
    _number(content, "began_monotonic_s")
    for key in ("site", "began_utc"):
        if not isinstance(content.get(key), str):
            raise _WrongLine(f"{key}: text is due")
    return content


def _read(content: dict[str, Any], began_s: float) -> RecordedRead:
    device, table = content.get("device"), content.get("table")
    if not isinstance(device, str):
        raise _WrongLine("device: a name is due")
    if table not in TABLES:
        raise _WrongLine(f"table: {table!r} is neither {' nor '.join(TABLES)}")
    words = _words(content["words"]) if "words" in content else None
    count = len(words) if words is not None else _whole(content, "count", 1, MOST_WORDS)
    first = _whole(content, "first", 0, REGISTERS - count)
    exception = _whole(content, "exception", 1, 255) if words is None and "exception" in content else None
    if words is None and exception is None and content.get("answered") is not False:
        raise _WrongLine("neither words, nor an exception, nor answered: false")
    at_s = _number(content, "monotonic_s") - began_s
    if at_s < 0:
        raise _WrongLine("monotonic_s is before the begin of the recording")
    return RecordedRead(at_s, device, _whole(content, "unit", 0, 255), str(table), first, count, words, exception)


def _words(words: Any) -> tuple[int, ...]:
    if not isinstance(words, list) or not 1 <= len(words) <= MOST_WORDS:
        raise _WrongLine(f"words: a list of 1 to {MOST_WORDS} registers is due")
    for at, word in enumerate(words):
        if not isinstance(word, int) or isinstance(word, bool) or not 0 <= word <= 0xFFFF:
            raise _WrongLine(f"words: {word!r} at {at} is no register: 0 to 65535")
    return tuple(words)


def _whole(content: dict[str, Any], key: str, low: int, high: int) -> int:
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _WrongLine(f"{key}: {value!r} is not a whole number from {low} to {high}")
    return value


def _number(content: dict[str, Any], key: str) -> float:
    value = content.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _WrongLine(f"{key}: {value!r} is not a number")
    return float(value)
