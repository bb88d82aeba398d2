"""The journal: what happened, one JSON object a line, written by a thread of its own so that no disk delays control."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog

from config.vocabulary import Clock, UtcClock
from gateway.orders.book import utc_text

QUEUE_LENGTH: Final = 20_000
MOST_AT_ONCE: Final = 1000
ROTATE_BYTES: Final = 64 * 2**20
"""The journal is one file and one predecessor, each of at most this size."""

Done = Callable[[str], None]
"""Called in the loop when a durable entry is on disk; the text is empty, or says why it is not."""


class Journal:
    """Appends to `directory/gateway.jsonl`; `record` may drop when the disk is too slow, `record_durably` may not.

    A full or failing disk never raises into control: entries are dropped and counted, durable ones answered with the
    reason, and the next entry tries again. Without `own_thread` entries are written by whoever hands them in, many at
    once, and without fsync: for runs on virtual time.
    """

    def __init__(self, directory: Path, clock: Clock, utc: UtcClock, *, own_thread: bool = True) -> None:
        self.path = directory / "gateway.jsonl"
        self.dropped = 0
        self.failure = ""
        self._state_path = directory / "orders.json"
        self._clock, self._utc = clock, utc
        self._queue: queue.Queue[tuple[dict[str, Any] | None, dict[str, Any] | None, Done | None]] = queue.Queue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True) if own_thread else None
        if self._thread is not None:
            self._thread.start()

    def record(self, event: str, **fields: Any) -> None:
        """Queue one entry; it reaches the file within a second, or is dropped and counted."""
        if self._thread is None:
            if self._queue.qsize() >= MOST_AT_ONCE:
                self._write_batch()
        elif self._queue.qsize() >= QUEUE_LENGTH:
            self.dropped += 1
            return
        self._queue.put((self._entry(event, fields), None, None))

    def record_durably(self, event: str, orders: dict[str, Any] | None, done: Done, **fields: Any) -> None:
        """Queue one entry and the orders that survive a restart; `done` runs in the loop after fsync."""
        self._queue.put((self._entry(event, fields), orders, done))
        if self._thread is None:
            self._write_batch()

    def stored_orders(self) -> tuple[dict[str, Any], str]:
        """What the last run held, and an empty text; or nothing, and why it cannot be read.

        A file that cannot be read is put aside as `orders.bad.json`, so that it can be looked at.
        """
        try:
            stored = json.loads(self._state_path.read_bytes())
            if not isinstance(stored, dict):
                raise ValueError("not a JSON object")
        except FileNotFoundError:
            return {}, ""
        except (OSError, ValueError) as error:
            with suppress(OSError):
                self._state_path.replace(self._state_path.with_suffix(".bad.json"))
            return {}, f"{self._state_path}: {error}"
        return stored, ""

    async def close(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.put((None, None, None))
        if self._thread is None:
            self._write_batch()
        else:
            await asyncio.to_thread(self._thread.join, 5.0)

    def _entry(self, event: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"event": event, "monotonic_s": round(self._clock(), 6), "utc": utc_text(self._utc()), **fields}

    def _write(self) -> None:
        """The thread."""
        while self._write_batch():
            pass

    def _write_batch(self) -> bool:
        """Entries that wait, at least one: one write and at most one fsync for all; False after the last of all."""
        batch = [self._queue.get()]
        while len(batch) <= MOST_AT_ONCE:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        waiting = [done for _, _, done in batch if done is not None]
        orders = next((held for _, held, _ in reversed(batch) if held is not None), None)
        lines = [_line(entry) for entry, _, _ in batch if entry is not None]
        durable = bool(waiting) and self._thread is not None
        self._append("".join(line + "\n" for line in lines), orders, durable=durable)
        for done in waiting:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(done, self.failure)
        return all(entry is not None for entry, _, _ in batch)

    def _append(self, text: str, orders: dict[str, Any] | None, *, durable: bool) -> None:
        try:
            if self.path.exists() and self.path.stat().st_size > ROTATE_BYTES:
                self.path.replace(self.path.with_suffix(".1.jsonl"))
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            if orders is not None:
                self._replace_state(json.dumps(orders))
            failure = ""
        except OSError as error:
            self.dropped += text.count("\n")
            failure = f"not journalled: {error.strerror or error}"
        if failure != self.failure:
            log = structlog.get_logger()
            if failure:
                log.error("the journal cannot be written; control goes on", path=str(self.path), reason=failure)
            else:
                log.info("the journal can be written again", dropped=self.dropped)
        self.failure = failure

    def _replace_state(self, text: str) -> None:
        """Atomic: after a crash the file is the old one or the new one."""
        new = self._state_path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if self._thread is not None:
                os.fsync(file.fileno())
        new.replace(self._state_path)


def _line(entry: dict[str, Any]) -> str:
    """One entry as JSON; what JSON cannot hold is written as text, since a journal must not fail over its content."""
    try:
        return json.dumps(entry, allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError):
        return json.dumps(
            {key: entry[key] for key in ("event", "monotonic_s", "utc")} | {"unwritable": repr(entry)[:2000]}
        )
