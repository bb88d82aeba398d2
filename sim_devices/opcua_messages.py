"""Messages of OPC UA over TCP without security, as they pass a proxy: OPC 10000-6, 6.7.2 (chunks) and 5.2 (encoding).

A message that is encrypted or cut into several chunks can't be read here, and stays as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, Final

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

_BODY: Final = 24
"""Where the body of a chunk begins: header 8, channel 4, token 4, sequence number 4, request id 4."""

_SEQUENCE: Final = 16
_NO_SECURITY: Final = b"#None"
WRONG: Final = (ua.UaError, struct.error, ValueError, LookupError, TypeError, AttributeError, EOFError)
"""What asyncua raises for bytes that are not what they seem to be."""


@lru_cache(maxsize=1)
def _classes() -> Mapping[int, Any]:
    """The services by the number that their binary encoding begins with."""
    ending = "_Encoding_DefaultBinary"
    names = (name.removesuffix(ending) for name in vars(ua.ObjectIds) if name.endswith(ending))
    return {
        getattr(ua.ObjectIds, name + ending): getattr(ua, name)
        for name in names
        if name.endswith(("Request", "Response", "ServiceFault")) and hasattr(ua, name)
    }


def service_of(chunk: bytes) -> str:
    """The name of the service that a message is about; empty where that can't be read."""
    found = _classes().get(int.from_bytes(chunk[_BODY + 2 : _BODY + 4], "little"))
    readable = chunk[:4] == b"MSGF" and chunk[_BODY : _BODY + 2] == b"\x01\x00"
    return found.__name__ if readable and found is not None else ""


def decoded(chunk: bytes) -> Any:
    """The message in a chunk, as asyncua's type of that service; None where it can't be read."""
    cls = _classes().get(int.from_bytes(chunk[_BODY + 2 : _BODY + 4], "little"))
    if cls is None or not service_of(chunk):
        return None
    try:
        return struct_from_binary(cls, Buffer(chunk[_BODY:]))
    except WRONG:
        return None


def encoded(like: bytes, message: Any) -> bytes:
    """A message in a chunk, with the channel, numbers and request id of another one."""
    body = struct_to_binary(message)
    size = _BODY + len(body)
    chunk: bytes = b"MSGF" + size.to_bytes(4, "little") + like[8:_BODY] + body
    return chunk


def request_id(chunk: bytes) -> int:
    """The id by which a message's answer is known."""
    return int.from_bytes(chunk[_BODY - 4 : _BODY], "little")


def with_request_id(chunk: bytes, identifier: int) -> bytes:
    """A message under another request id."""
    return chunk[: _BODY - 4] + identifier.to_bytes(4, "little") + chunk[_BODY:]


def sequence_at(chunk: bytes) -> int | None:
    """Where a chunk has its sequence number; None for one that has none."""
    if chunk[:3] in (b"MSG", b"CLO"):
        return _SEQUENCE
    if chunk[:3] != b"OPN":
        return None
    at = 12
    for _ in range(3):
        at += 4 + max(0, int.from_bytes(chunk[at : at + 4], "little", signed=True))
    return at


def is_open_text(opening: bytes) -> bool:
    """Whether the channel that an OPN chunk opens has no security."""
    size = int.from_bytes(opening[12:16], "little", signed=True)
    return opening[16 : 16 + max(0, size)].endswith(_NO_SECURITY)


def identifier_of(node: Any) -> str:
    """A node's identifier without its namespace, as profiles write it: s=Battery.Power or i=1234."""
    return str(node.to_string()).rpartition(";")[2]


def shift_namespaces(value: Any, by: int) -> None:
    """Move every namespace index of a message, but those of the standard and of the server itself (0 and 1)."""
    for inner in _parts(value):
        if isinstance(inner, ua.NodeId):
            if inner.NamespaceIndex > 1:
                index = inner.NamespaceIndex + by
                object.__setattr__(inner, "NamespaceIndex", index)
        elif isinstance(inner, ua.QualifiedName):
            if inner.NamespaceIndex > 1:
                object.__setattr__(inner, "NamespaceIndex", inner.NamespaceIndex + by)
        else:
            shift_namespaces(inner, by)


def _parts(value: Any) -> Iterator[Any]:
    """What a value is made of, one level down."""
    if isinstance(value, list | tuple):
        yield from value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, item.name) for item in fields(value))
