"""What a message holds: text or JSON, whatever its bytes turn out to be."""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_PAYLOAD: Final = 64 * 1024


class Nothing(Enum):
    """What is found where there is nothing to be had."""

    NOTHING = "nothing"


NOTHING: Final = Nothing.NOTHING


class Payload:
    """The bytes of one message, decoded and parsed at most once, however many points are in it. Never raises."""

    __slots__ = ("_document", "_parsed", "_text")

    def __init__(self, data: bytes) -> None:
        self._text = _text(data)
        self._parsed = False
        self._document: Any = NOTHING

    @property
    def text(self) -> str | None:
        """The payload as text; None if it is too long or not UTF-8."""
        return self._text

    def at(self, path: Sequence[str | int] | None) -> object:
        """What is at `path` of the JSON document, or the text itself for None; `NOTHING` if that isn't there."""
        if path is None:
            return NOTHING if self._text is None else self._text
        found = self._json()
        for step in path:
            found = _within(found, step)
        return found

    def _json(self) -> Any:
        if not self._parsed:
            self._parsed = True
            if self._text is not None:
                try:
                    self._document = json.loads(self._text, parse_constant=_refuse)
                except (ValueError, RecursionError):
                    self._document = NOTHING
        return self._document


def _text(data: bytes) -> str | None:
    if len(data) > LARGEST_PAYLOAD:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _within(document: Any, step: str | int) -> Any:
    if isinstance(document, dict) and isinstance(step, str):
        return document.get(step, NOTHING)
    if isinstance(document, list) and isinstance(step, int) and 0 <= step < len(document):
        return document[step]
    return NOTHING


def _refuse(constant: str) -> Any:
    """NaN and the infinities, which are no JSON (RFC 8259, section 6)."""
    raise ValueError(constant)
