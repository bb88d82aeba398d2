"""The DSO twin's record: one JSON object a line, flushed, with monotonic and wall-clock times."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from config.vocabulary import Clock, UtcClock


class TextSink(Protocol):
    """Where lines go: a text file, or a buffer in memory."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


def utc_text(seconds: float) -> str:
    """Seconds since the epoch as the interface writes times: RFC 3339 in UTC, milliseconds, Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines:
    """Writes events; every line carries `event` and `monotonic_s`, the time it was written unless the caller says."""

    def __init__(self, sink: TextSink, clock: Clock = time.monotonic, utc_clock: UtcClock = time.time) -> None:
        self._sink = sink
        self._clock = clock
        self._utc_clock = utc_clock

    def write(self, event: str, fields: Mapping[str, Any], *, monotonic_s: float | None = None) -> None:
        """Append one event, with its time (monotonic seconds) where it isn't now."""
        at_s = self._clock() if monotonic_s is None else monotonic_s
        line = {"event": event, "monotonic_s": at_s, **fields}
        self._sink.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._sink.flush()

    def exchanged(self, event: str, message: object, fields: Mapping[str, Any], *, monotonic_s: float) -> None:
        """Append a message that crossed the interface at `monotonic_s`."""
        self.write(event, {**fields, "utc": utc_text(self._utc_clock()), "message": message}, monotonic_s=monotonic_s)
