"""Wall-clock time as the layer interface writes it."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_datetime(seconds: float) -> datetime:
    """A wall-clock time with its offset."""
    return datetime.fromtimestamp(seconds, UTC)
