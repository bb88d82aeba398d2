"""How long a device usually takes to answer, and whether that is worth waiting for."""

from __future__ import annotations

from typing import Final

from config.vocabulary import Clock

_NEWEST_COUNTS: Final = 0.25
"""Part of the newest answer in the mean: one late answer among quick ones is forgotten after a few more."""


class AnswerTime:
    """A moving mean of the time from a poll to its last answer, the queue of a shared line included.

    A device that is slower than `patience_s` is read like any other, and its samples are used with their age; nobody
    waits for it, so that it costs its own link and no other.
    """

    __slots__ = ("_asked_s", "_clock", "_patience_s", "_usual_s")

    def __init__(self, clock: Clock, patience_s: float) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._usual_s: float | None = None
        self._asked_s = 0.0

    def asked(self) -> None:
        """A poll begins."""
        self._asked_s = self._clock()

    def answered(self) -> None:
        """It has ended, with or without an answer."""
        took_s = self._clock() - self._asked_s
        usual_s = took_s if self._usual_s is None else self._usual_s
        self._usual_s = usual_s + _NEWEST_COUNTS * (took_s - usual_s)

    @property
    def come_soon(self) -> bool:
        """Whether the next answer is worth waiting for, as far as those before it tell."""
        return self._usual_s is None or self._usual_s <= self._patience_s
