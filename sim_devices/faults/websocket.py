"""WebSocket in a stream of bytes: the upgrade that it begins with, and its frames. Source: RFC 6455, 1.3, 5.2, 5.3."""

from __future__ import annotations

import struct
from typing import Final

TEXT: Final = 1
LONGEST: Final = 1 << 20
LONGEST_HEAD: Final = 1 << 14
_OPCODES: Final = (0, TEXT, 2, 8, 9, 10)
_FINAL: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_HEAD_END: Final = b"\r\n\r\n"
_NO_MASK: Final = bytes(4)
"""A mask that changes nothing; a client's frames must have one."""


def is_head(raw: bytes) -> bool:
    """Whether bytes begin as the upgrade's request or answer does, which no frame does."""
    return raw[:1] in (b"G", b"H")


def length(data: bytes) -> int | None:
    """How long the head or the frame is that `data` begins with; 0: not known yet; None: it begins with neither."""
    if is_head(data):
        end = data.find(_HEAD_END)
        if end >= 0:
            return end + len(_HEAD_END)
        return 0 if len(data) < LONGEST_HEAD else None
    if data[0] & _RESERVED or data[0] & 0x0F not in _OPCODES:
        return None
    if len(data) < 2:
        return 0
    size, wide = data[1] & 0x7F, {126: 2, 127: 8}.get(data[1] & 0x7F, 0)
    if len(data) < 2 + wide:
        return 0
    if wide:
        size = int.from_bytes(data[2 : 2 + wide])
    whole = 2 + wide + (4 if data[1] & _MASKED else 0) + size
    return whole if whole < LONGEST else None


def is_text(raw: bytes) -> bool:
    """Whether a frame is a whole message of text."""
    return raw[0] == _FINAL | TEXT


def text_of(raw: bytes) -> bytes:
    """What a frame carries, without its mask."""
    at = 2 + {126: 2, 127: 8}.get(raw[1] & 0x7F, 0)
    if not raw[1] & _MASKED:
        return raw[at:]
    mask, body = raw[at : at + 4], raw[at + 4 :]
    return bytes(byte ^ mask[place % 4] for place, byte in enumerate(body))


def packed(text: bytes, *, masked: bool) -> bytes:
    """A message of text as one frame; `masked`: as a client sends it."""
    flag = _MASKED if masked else 0
    if len(text) < 126:
        head = bytes((_FINAL | TEXT, flag | len(text)))
    elif len(text) <= 0xFFFF:
        head = struct.pack(">BBH", _FINAL | TEXT, flag | 126, len(text))
    else:
        head = struct.pack(">BBQ", _FINAL | TEXT, flag | 127, len(text))
    return head + (_NO_MASK if masked else b"") + text


def path_of(head: bytes) -> str:
    """The path that an upgrade asks for; empty where it is none."""
    parts = head.split(b"\r\n", 1)[0].split(b" ")
    return parts[1].decode("latin-1") if len(parts) == 3 and parts[0] == b"GET" else ""


def without_extensions(head: bytes) -> bytes:
    """An upgrade that offers no extensions: compressed messages could not be read."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"sec-websocket-extensions:"))
