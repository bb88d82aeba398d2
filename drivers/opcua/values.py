"""Values of OPC UA nodes: variants and status codes (OPC 10000-4, 7.38) to samples and outcomes, and back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from asyncua import ua

from config.vocabulary import Quality, Sample, WriteStatus
from drivers.encoding import EncodeError, whole_limits
from drivers.reading import TypedCodec
from drivers.writer import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from config.profile import OpcUaAddress, PointProfile

_WHOLE: Final = {
    "int16": (ua.VariantType.Int16, 16, True),
    "int32": (ua.VariantType.Int32, 32, True),
    "int64": (ua.VariantType.Int64, 64, True),
    "uint16": (ua.VariantType.UInt16, 16, False),
    "uint32": (ua.VariantType.UInt32, 32, False),
    "uint64": (ua.VariantType.UInt64, 64, False),
}
# The server passes the value on to something that did not answer, so it may have taken it all the same.
_NOBODY_KNOWS: Final = frozenset(
    {
        ua.StatusCodes.BadTimeout,
        ua.StatusCodes.BadRequestTimeout,
        ua.StatusCodes.BadCommunicationError,
        ua.StatusCodes.BadNoCommunication,
        ua.StatusCodes.BadDeviceFailure,
    }
)
_OLDEST_CORRECTION_S: Final = 2.0


class NodeCodec:
    """One point's values, as a node of its declared type holds them."""

    __slots__ = ("_codec", "_type")

    def __init__(self, point: PointProfile, address: OpcUaAddress) -> None:
        self._codec = TypedCodec(point, text=address.type == "string")
        self._type = address.type

    def sample(self, data: Any, measured_s: float) -> Sample:
        """The sample of a data value: bad status, no value, or a value that isn't one of this point makes it bad."""
        status, variant = data.StatusCode, data.Value
        if (status is not None and status.is_bad()) or variant is None:
            return Sample(None, Quality.BAD, measured_s)
        value = self._codec.decode(variant.Value)
        if value is None:
            return Sample(None, Quality.BAD, measured_s)
        quality = Quality.UNCERTAIN if status is not None and status.is_uncertain() else Quality.GOOD
        return Sample(value, quality, measured_s)

    def encode(self, value: float) -> bool | int | float:
        """What is written for `value`; `EncodeError` if the point or its type doesn't hold it."""
        if self._type == "string":
            raise EncodeError("text is not written")
        if self._type == "boolean":
            return self._codec.encode_whole(value) != 0
        if self._type in _WHOLE:
            raw = self._codec.encode_whole(value)
            low, high = whole_limits(*_WHOLE[self._type][1:])
            if not low <= raw <= high:
                raise EncodeError(f"{value:g} would be sent as {raw}, outside {low} to {high}")
            return raw
        number = self._codec.encode(value)
        if self._type == "float":
            try:
                struct.pack("<f", number)
            except OverflowError:
                raise EncodeError(f"{value:g} is too large for a float") from None
        return number

    def variant(self, raw: bool | int | float) -> Any:
        """`raw` in the type that the profile declares."""
        if self._type == "boolean":
            return ua.Variant(raw, ua.VariantType.Boolean)
        if self._type in _WHOLE:
            return ua.Variant(raw, _WHOLE[self._type][0])
        return ua.Variant(raw, ua.VariantType.Float if self._type == "float" else ua.VariantType.Double)


def is_node(node: Any) -> bool:
    """Whether an address was found on the server."""
    return isinstance(node, ua.NodeId)


def age_s(data: Any, published: datetime | None) -> float:
    """How old a value was when the server published it, by the server's own clock; 0 where that makes no sense.

    A value that changed long ago is no old measurement, so an age above 2 s counts as none.
    """
    source = data.SourceTimestamp
    if source is None or published is None:
        return 0.0
    try:
        age: float = (published - source).total_seconds()
    except (TypeError, OverflowError):
        return 0.0
    return age if 0.0 <= age <= _OLDEST_CORRECTION_S else 0.0


def write_outcome(points: Sequence[str], statuses: Sequence[Any]) -> Outcome:
    """What became of values written together: the worst of their status codes, by name."""
    bad = [(point, status) for point, status in zip(points, statuses, strict=True) if status.is_bad()]
    if not bad:
        return Outcome(WriteStatus.ACKNOWLEDGED)
    detail = ", ".join(f"{point}: {status.name}" for point, status in bad)
    unknown = any(status.value in _NOBODY_KNOWS for _, status in bad)
    return Outcome(WriteStatus.INDETERMINATE if unknown else WriteStatus.REFUSED, detail)
