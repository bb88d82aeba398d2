"""The directory of a run: one run at a time holds it, and what an earlier one left there is told apart from its own."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from gateway.bench.run_files import END_FILE, FAULTS_FILE, JITTER_FILE, MEMORY_FILE, RUN_FILE

OLD_FILES: Final = (
    "physics.csv",
    "gateway.jsonl",
    "gateway.1.jsonl",
    "dso.jsonl",
    JITTER_FILE,
    "orders.json",
    "endpoints.json",
    RUN_FILE,
    END_FILE,
    FAULTS_FILE,
    MEMORY_FILE,
    "report.json",
    "report.perf.json",
    "report.html",
)
GATEWAYS_LOCK: Final = "lock"
"""Held by a gateway whose state directory this is (`gateway.state_directory`)."""


class RunDirectoryHeldError(OSError):
    """Another run, or the gateway of one, is at work in the directory; the text is for the user."""


@contextmanager
def held_run_directory(out: Path) -> Iterator[Path]:
    """Make the directory and hold it while the context lasts. Raises RunDirectoryHeldError, or OSError.

    The lock is the kernel's, on the directory itself: it leaves no file behind and dies with the process. A gateway
    that outlived its bench for a moment holds the directory as well, for it could still write orders that nobody gave.
    """
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = "another run writes its records there; give another --out, or wait for its end"
            raise RunDirectoryHeldError(words) from None
        holder = _gateway_there(out / GATEWAYS_LOCK)
        if holder:
            raise RunDirectoryHeldError(f"the gateway of another run (process {holder}) writes there")
        yield out
    finally:
        os.close(handle)


def _gateway_there(lock: Path) -> str:
    """The process of the gateway that holds the lock; empty where none does."""
    try:
        file = lock.open("r+", encoding="ascii")
    except FileNotFoundError:
        return ""
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown"
    return ""


def prepare(out: Path) -> None:
    """An empty place for a run: what an earlier one left there by name is removed, nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    for name in OLD_FILES:
        (out / name).unlink(missing_ok=True)


def begin_run(out: Path, now_s: float) -> str:
    """Name a run that begins now, on the monotonic clock that its files have: no earlier row is one of its own."""
    run = uuid4().hex
    (out / RUN_FILE).write_text(json.dumps({"run": run, "began_monotonic_s": now_s}), encoding="ascii")
    return run
