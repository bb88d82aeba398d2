"""Raw values that carry their own type (OPC UA, MQTT, OCPP), between what came over the wire and a point's value."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from drivers.encoding import Rounding, ValueCodec

if TYPE_CHECKING:
    from config.profile import PointProfile

# Narrower than float(): that also takes "nan", "infinity", "1_000" and digits of any script.
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_LONGEST_NUMBER: Final = 40
_LONGEST_TEXT: Final = 256


class TypedCodec:
    """One point whose raw value comes as a number, a truth value or text; a truth value counts as 1 or 0."""

    __slots__ = ("_codec", "_enumeration", "_text")

    def __init__(self, point: PointProfile, *, text: bool) -> None:
        self._codec = ValueCodec(point)
        self._enumeration = point.values
        self._text = text

    def decode(self, raw: object) -> float | str | None:
        """The value in load convention and SI units; None if it is not one. Never raises."""
        if self._enumeration is not None and isinstance(raw, str) and raw.strip() in self._enumeration:
            return self._enumeration[raw.strip()]
        if self._text:
            return raw if isinstance(raw, str) and len(raw) <= _LONGEST_TEXT else None
        number = decimal_number(raw)
        return None if number is None else self._codec.decode(number)

    def encode_whole(self, value: float) -> int:
        """The whole raw number for `value`, rounded towards zero; `EncodeError` if it may not be sent."""
        return self._codec.raw(value, Rounding.TOWARD_ZERO)

    def encode(self, value: float) -> float:
        """The raw number for `value`; `EncodeError` if it may not be sent."""
        # 1.15 * 100 is 114.99999999999999; nine decimals keep all that a device resolves.
        return round(self._codec.raw_float(value), 9)


def decimal_number(raw: object) -> float | None:
    """A number, a truth value or a decimal numeral as a finite number; None if it is none of these. Never raises."""
    if isinstance(raw, str):
        text = raw.strip()
        if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
            return None
        raw = float(text)
    if not isinstance(raw, (bool, int, float)):
        return None
    try:
        number = float(raw)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
