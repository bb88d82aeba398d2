"""A recording on disk, written by a thread of its own so that no disk delays control."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from pathlib import Path
from typing import Any, Final

import structlog

LONGEST_BYTES: Final = 2**30
QUEUE_LENGTH: Final = 10_000


class RecordingFile:
    """Lines of JSON in order, none left out: it ends where the disk is too slow or full, or the file too long."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file can't be made."""
        self.path = path
        self._file = path.open("w", encoding="utf-8")
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._ended = ""
        self._thread = threading.Thread(target=self._write, name="recording", daemon=True)
        self._thread.start()

    def put(self, line: dict[str, Any]) -> None:
        """Append a line, unless the recording has ended."""
        if self._ended:
            return
        if self._queue.qsize() >= QUEUE_LENGTH:
            self._end("the disk is too slow")
            return
        self._queue.put(line)

    async def close(self) -> None:
        """Write what waits and end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, 5.0)

    def _write(self) -> None:
        length = 0
        with self._file as file:
            while (line := self._queue.get()) is not None:
                if self._ended:
                    continue
                text = json.dumps(line) + "\n"
                length += len(text)
                try:
                    file.write(text)
                    if self._queue.empty():
                        file.flush()
                except OSError as error:
                    self._end(error.strerror or str(error))
                if length > LONGEST_BYTES:
                    self._end(f"{LONGEST_BYTES} bytes are written")

    def _end(self, reason: str) -> None:
        self._ended = reason
        structlog.get_logger().warning("the recording ends here; control goes on", path=str(self.path), reason=reason)
