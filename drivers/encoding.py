"""Between the raw value of a point and its value in physical units and load convention.

value = raw x scale + offset, times -1 where the device's own sign is the generator's. What the profile calls invalid,
what lies outside its range and what is not a number decodes to None: a bad sample. Encoding rounds, then checks.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from config.profile import PointProfile, RegisterType

_LARGEST: Final = sys.float_info.max
_TOLERANCE: Final = 1e-9


class EncodeError(ValueError):
    """A value that its point cannot hold. Raised before anything is sent."""


class Rounding(Enum):
    """How a value between two raw steps is rounded; a ceiling is rounded towards zero, so that it is kept."""

    NEAREST = "nearest"
    TOWARD_ZERO = "toward zero"


_NEAREST: Final = Rounding.NEAREST


class RawDecoder(Protocol):
    """Decodes what `struct` unpacks in its `format`; None is a bad value."""

    format: str
    registers: int

    def decode(self, raw: Any) -> float | str | None: ...

    def refusal(self, raw: Any) -> str: ...


class ValueCodec:
    """Scale, offset, sign, invalid values, range and enumeration of one point, whatever carries its raw value."""

    __slots__ = ("_high", "_invalid", "_low", "_texts", "gain", "offset")

    def __init__(self, point: PointProfile, invalid: Iterable[float] | None = None) -> None:
        sign = -1.0 if point.sign == "generator" else 1.0
        self.gain = point.scale * sign
        # Adding 0.0 makes a plain zero of -0.0, which would otherwise stay in every zero of a generator's value.
        self.offset = point.offset * sign + 0.0
        self._invalid = frozenset(point.invalid if invalid is None else invalid)
        self._low, self._high = point.range or (-_LARGEST, _LARGEST)
        self._texts: Mapping[Any, str] | None = point.values

    def decode(self, raw: Any) -> float | str | None:
        """The value of a raw number (a float, or the text of an enumeration); None if bad."""
        if raw in self._invalid:
            return None
        if self._texts is not None:
            return self._texts.get(raw)
        value = raw * self.gain + self.offset
        # Fails for NaN and infinities too, also where an unknown scale factor has made the gain NaN.
        return value if self._low <= value <= self._high else None

    def refusal(self, raw: Any) -> str:
        """Why `decode` gives None for `raw`, in words; empty where it doesn't."""
        if raw in self._invalid:
            return f"the device says that it has no value ({raw:g})"
        if self._texts is not None:
            return "" if raw in self._texts else f"{raw} is not among the values of the profile"
        value = raw * self.gain + self.offset
        if not math.isfinite(self.gain):
            return "its scale factor is not known"
        if not math.isfinite(value):
            return "not a number"
        return "" if self._low <= value <= self._high else f"{value:g} is outside {self._low:g} to {self._high:g}"

    def raw(self, value: float, rounding: Rounding = Rounding.NEAREST) -> int:
        """The whole raw number nearest to `value`, or the next one towards zero; `EncodeError` outside the range."""
        raw = round_raw(self.exact_raw(value), rounding)
        self._check_range(raw * self.gain + self.offset, value)
        if raw in self._invalid:
            raise EncodeError(f"{value:g} would be sent as {raw}, which the device takes for no value")
        return raw

    def raw_float(self, value: float) -> float:
        """The raw number of a point that holds fractions; `EncodeError` outside the range."""
        exact = self.exact_raw(value)
        self._check_range(value)
        return exact

    def exact_raw(self, value: float) -> float:
        """The raw number before rounding."""
        if not math.isfinite(value):
            raise EncodeError(f"{value} is not a number that can be sent")
        if not math.isfinite(self.gain) or self.gain == 0.0:
            raise EncodeError("the scale factor is not known")
        # Adding 0 keeps a negative zero, which a device may take for a negative number, out of float registers.
        return (value - self.offset) / self.gain + 0.0

    def _check_range(self, value: float, asked: float | None = None) -> None:
        """Judges what would be sent, and names what was asked."""
        if self._low <= value <= self._high:
            return
        slack = max(abs(value), 1.0) * _TOLERANCE
        if not self._low - slack <= value <= self._high + slack:
            sent = "" if asked is None or math.isclose(asked, value, abs_tol=1e-9) else f", sent as {value:g}"
            shown = value if asked is None else asked
            raise EncodeError(f"{shown:g}{sent} is outside {self._low:g} to {self._high:g}")


def round_raw(exact: float, rounding: Rounding) -> int:
    """Round a raw number; a value that misses a whole one by a rounding error of floats counts as that whole one."""
    nearest = round(exact)
    if rounding is _NEAREST or abs(exact - nearest) <= _TOLERANCE * max(1.0, abs(exact)):
        return nearest
    return math.trunc(exact)


class _Layout(NamedTuple):
    """How a register type lies in memory; `bits` is 0 for floating point."""

    format: str
    bits: int
    signed: bool


_LAYOUTS: Final = {
    RegisterType.INT16: _Layout("h", 16, True),
    RegisterType.UINT16: _Layout("H", 16, False),
    RegisterType.INT32: _Layout("i", 32, True),
    RegisterType.UINT32: _Layout("I", 32, False),
    RegisterType.INT64: _Layout("q", 64, True),
    RegisterType.UINT64: _Layout("Q", 64, False),
    RegisterType.FLOAT32: _Layout("f", 0, True),
    RegisterType.FLOAT64: _Layout("d", 0, True),
    RegisterType.BITS16: _Layout("H", 16, False),
    RegisterType.BITS32: _Layout("I", 32, False),
}


class RegisterCodec(ValueCodec):
    """A number in big-endian registers."""

    __slots__ = ("_layout", "_limits", "_packer", "format", "registers")

    def __init__(self, point: PointProfile, kind: RegisterType, invalid: Iterable[float] | None = None) -> None:
        layout = _LAYOUTS[kind]
        super().__init__(point, [_signed(value, layout) for value in (point.invalid if invalid is None else invalid)])
        self._layout = layout
        self._limits = whole_limits(layout.bits, layout.signed) if layout.bits else (0, 0)
        self._packer = struct.Struct(f">{layout.format}")
        self.registers = self._packer.size // 2
        self.format = layout.format

    def encode(self, value: float, rounding: Rounding = Rounding.NEAREST) -> bytes:
        """The registers that hold `value`; `EncodeError` when it is not finite, or outside the range or the type."""
        return self._pack_float(value) if self._layout.bits == 0 else self._pack_whole(value, rounding)

    def _pack_float(self, value: float) -> bytes:
        try:
            return self._packer.pack(self.raw_float(value))
        except OverflowError:
            raise EncodeError(f"{value:g} is too large for its registers") from None

    def _pack_whole(self, value: float, rounding: Rounding) -> bytes:
        raw = self.raw(value, rounding)
        low, high = self._limits
        if not low <= raw <= high:
            raise EncodeError(f"{value:g} would be sent as {raw}, outside {low} to {high}")
        return self._packer.pack(raw)


class ReorderedCodec(RegisterCodec):
    """A number whose words, or the bytes in each word, come the other way round."""

    __slots__ = ("_reorder",)

    def __init__(self, point: PointProfile, kind: RegisterType, reorder: Callable[[bytes], bytes]) -> None:
        super().__init__(point, kind)
        self._reorder = reorder
        self.format = f"{self._packer.size}s"

    def decode(self, raw: bytes) -> float | str | None:
        """The value of the registers as they came; None if bad."""
        return super().decode(self._packer.unpack(self._reorder(raw))[0])

    def refusal(self, raw: bytes) -> str:
        """As for any register point, of the registers as they came."""
        return super().refusal(self._packer.unpack(self._reorder(raw))[0])

    def encode(self, value: float, rounding: Rounding = Rounding.NEAREST) -> bytes:
        """As for any register point, in the device's order."""
        return self._reorder(super().encode(value, rounding))


class TextCodec:
    """Text in registers, padded with NUL or spaces, or what `texts` calls it.

    No text at all, bytes that are not UTF-8, and text that `texts` does not know are bad values.
    """

    __slots__ = ("_reorder", "_texts", "format", "registers")

    def __init__(self, registers: int, bytes_swapped: bool = False, texts: Mapping[Any, str] | None = None) -> None:
        self.registers = registers
        self.format = f"{2 * registers}s"
        self._reorder = _reordering(False, bytes_swapped)
        self._texts = texts

    def decode(self, raw: bytes) -> str | None:
        if self._reorder is not None:
            raw = self._reorder(raw)
        try:
            text = raw.partition(b"\0")[0].decode().strip()
        except UnicodeDecodeError:
            return None
        return (text or None) if self._texts is None else self._texts.get(text)

    def refusal(self, raw: bytes) -> str:
        """Why `decode` gives None for `raw`, in words; empty where it doesn't."""
        if self.decode(raw) is not None:
            return ""
        return "not among the texts of the profile" if self._texts is not None else "no text"


def register_codec(point: PointProfile) -> RegisterCodec | TextCodec:
    """The codec of a point with a `modbus` address."""
    address = point.modbus
    if address is None:
        raise ValueError("not a register point")
    bytes_swapped = address.byte_order == "little"
    if address.length is not None:
        return TextCodec(address.length, bytes_swapped, point.values)
    reorder = _reordering(address.word_order == "little" and address.registers > 1, bytes_swapped)
    return RegisterCodec(point, address.type) if reorder is None else ReorderedCodec(point, address.type, reorder)


def whole_limits(bits: int, signed: bool) -> tuple[int, int]:
    """The least and the greatest whole number of a type."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _signed(value: float, layout: _Layout) -> float:
    """An invalid value as the type reads it: documents write 0x8000 for a signed register."""
    if layout.bits and layout.signed and value >= 1 << (layout.bits - 1):
        return value - (1 << layout.bits)
    return value


def _reordering(words: bool, swapped_bytes: bool) -> Callable[[bytes], bytes] | None:
    """The permutation to big-endian, which is its own inverse; None where there is nothing to do."""
    if words and swapped_bytes:
        return lambda data: data[::-1]
    if words:
        return lambda data: b"".join(data[at : at + 2] for at in range(len(data) - 2, -1, -2))
    if swapped_bytes:
        return lambda data: b"".join(data[at + 1 : at - 1 if at else None : -1] for at in range(0, len(data), 2))
    return None
