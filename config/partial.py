"""What still holds of a section that has mistakes, so that one mistake does not hide another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from config.findings import Problem
from config.strict import Rule


class NotKnownError(Exception):
    """A rule asked for a value that did not validate."""


class Partial:
    """The values of a section that did validate, read as attributes; any other raises `NotKnownError`."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise NotKnownError(name) from None


def known(subject: object, *names: str) -> bool:
    """Whether every named value of a model or partial did validate."""
    try:
        for name in names:
            getattr(subject, name)
    except NotKnownError:
        return False
    return True


def broken(rule: Rule, *subjects: Any) -> Iterator[Problem]:
    """The problems a rule yields, up to where it needs a value that did not validate."""
    try:
        yield from rule(*subjects)
    except NotKnownError:
        return
