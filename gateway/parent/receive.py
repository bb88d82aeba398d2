"""From a payload on a topic to an order taken, or a refusal with its reason; never an exception."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from config.messages import (
    DOWN_SCHEMAS,
    MAX_PAYLOAD_BYTES,
    ORDER_ID_PATTERN,
    AckStatus,
    AuthorityOrder,
    DispatchOrder,
    Down,
    Heartbeat,
    LimitOrder,
    RegulationSignal,
)
from gateway.orders.admission import Refused
from gateway.orders.book import OrderBook
from gateway.orders.held import Outcome

_ORDER_ID: Final = re.compile(ORDER_ID_PATTERN)


@dataclass(frozen=True, slots=True)
class Received:
    """What a payload led to: outcomes to acknowledge, the order's id if it changed what holds, and its content."""

    kind: Down | None
    order_id: str
    outcomes: tuple[Outcome, ...]
    changed: bool
    message: dict[str, Any] | None = None


def receive(book: OrderBook, source: str, kind_text: str, payload: bytes, *, retained: bool = False) -> Received:
    """Take or refuse one payload from `source`. Refusals are counted in the book; nothing else changes by them."""
    try:
        kind = Down(kind_text)
    except ValueError:
        book.refused += 1
        return Received(None, "", (), changed=False)
    raw: Any = None
    try:
        raw = _parse(payload)
        if retained:
            raise Refused("retained: orders must not be retained, a stale one would come back with each reconnection")
        message = DOWN_SCHEMAS[kind].model_validate_json(payload)
        return _take(book, source, kind, message, raw)
    except ValidationError as error:
        reason = _schema_reason(error)
    except Refused as refusal:
        reason = str(refusal)
    book.refused += 1
    order_id = _named_id(kind, raw)
    outcome = Outcome(source, order_id, kind, AckStatus.REJECTED, reason[:400])
    return Received(kind, order_id, (outcome,), changed=False, message=raw if isinstance(raw, dict) else None)


def _take(book: OrderBook, source: str, kind: Down, message: object, raw: dict[str, Any]) -> Received:
    if isinstance(message, Heartbeat):
        was_lost = bool(book.in_force().fallback_reason)
        book.heartbeat(source, message.sequence)
        changed = was_lost and not book.in_force().fallback_reason
        return Received(kind, f"heartbeat-{message.sequence}" if changed else "", (), changed=changed)
    if isinstance(message, RegulationSignal):
        book.take_regulation(source, message)
        return Received(kind, regulation_id(message), (), changed=True, message=raw)
    if isinstance(message, LimitOrder):
        outcomes = book.take_limit(source, message)
    elif isinstance(message, DispatchOrder):
        outcomes = book.take_dispatch(source, message)
    elif isinstance(message, AuthorityOrder):
        outcomes = book.take_authority(source, message)
    else:
        raise Refused(f"{kind} cannot be taken")
    return Received(kind, message.id, tuple(outcomes), changed=True, message=raw)


def regulation_id(signal: RegulationSignal) -> str:
    """The name of a regulation signal in journals and reports; on the wire it has none."""
    return f"regulation-{signal.epoch}-{signal.sequence}"


def _parse(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Refused(f"payload of {len(payload)} bytes; {MAX_PAYLOAD_BYTES} are allowed")
    try:
        raw = json.loads(payload, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_once)
    except RecursionError as error:
        raise Refused("not JSON: nested too deeply") from error
    except ValueError as error:
        raise Refused(f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise Refused("not a JSON object")
    return raw


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand once: two readers may otherwise read two orders."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a number")
    return value


def _schema_reason(error: ValidationError) -> str:
    """The first few schema errors, as field and message."""
    parts = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:3]:
        where = str(item["loc"][0]) if item["loc"] else "message"
        parts.append(f"{where}: {item['msg']}")
    return "; ".join(parts)


def _named_id(kind: Down, raw: Any) -> str:
    if not isinstance(raw, dict):
        return ""
    if kind is Down.REGULATION:
        epoch, sequence = raw.get("epoch"), raw.get("sequence")
        return f"regulation-{epoch}-{sequence}"[:64] if isinstance(epoch, int) and isinstance(sequence, int) else ""
    name = raw.get("id")
    return name if isinstance(name, str) and _ORDER_ID.fullmatch(name) else ""
