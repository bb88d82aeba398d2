"""What the DSO sent, as the bench judges it: from the message itself, not from what the gateway made of it.

An order binds unless its own text forbids it: it breaks the schema, repeats an id, had ended when it was received, or
is a regulation signal overtaken by a newer one. Limits bind whatever the gateway answered; a dispatch or regulation
signal that the gateway refused gives no target, because authority is the gateway's to judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from statistics import median

from pydantic import ValidationError

from config.messages import DOWN_SCHEMAS, Down, OrderMessage, RegulationSignal
from config.strict import Strict
from gateway.bench.run_files import Event, Run

_ORDER_KINDS = (Down.LIMITS, Down.DISPATCH, Down.REGULATION, Down.AUTHORITY)

# A sender may stamp its line just after the receiver has stamped the arrival.
_STAMP_ORDER_S = 0.05


@dataclass(frozen=True, slots=True)
class DsoOrder:
    """One order. `begins_s` is when it takes force, `ends_s` its own end (inf: until replaced).

    `message` is None where the schema forbids it. `fault` says why it does not bind, empty where it does. `status` and
    `reason` are the gateway's last word on it, empty where the gateway kept no journal.
    """

    id: str
    kind: Down
    source: str
    message: Strict | None
    fault: str
    received_s: float
    begins_s: float
    ends_s: float
    status: str = ""
    reason: str = ""
    received_to_written_ms: float | None = None

    @property
    def binds(self) -> bool:
        """Whether its own text makes it hold."""
        return not self.fault

    @property
    def refused(self) -> bool:
        """Whether the gateway refused it."""
        return self.status == "rejected"


def orders_of(run: Run) -> tuple[DsoOrder, ...]:
    """Every order of a run in the order of receipt, from the DSO's log and what else the gateway's journal names."""
    sent = [event for event in run.dso or () if event.name == "sent" and event.text("kind") in _ORDER_KINDS]
    answered = [event for event in run.gateway if event.name == "order" and event.text("kind") in _ORDER_KINDS]
    offset_s = _clock_offset(run)
    written = _written_by_id(run)
    found = [
        _judged(event, lines, written, offset_s)
        for event, lines in (*_matched(sent, answered), *_only_journalled(sent, answered))
    ]
    return tuple(_without_repeats(sorted(found, key=lambda order: order.received_s)))


def heartbeat_times(run: Run) -> tuple[float, ...] | None:
    """When the DSO sent its heartbeats; None where it kept no log."""
    if run.dso is None:
        return None
    return tuple(event.at_s for event in run.dso if event.name == "sent" and event.text("kind") == Down.HEARTBEAT)


def _key(event: Event) -> tuple[str, str]:
    """What the two journals call an order by; signals carry no id of their own."""
    kind, message = event.text("kind"), event.mapping("message")
    if kind == Down.REGULATION and "sequence" in message:
        return kind, f"{message.get('epoch')}-{message.get('sequence')}"
    identity = event.data.get("id") or message.get("id")
    return kind, identity if isinstance(identity, str) else ""


def _matched(sent: Sequence[Event], answered: Sequence[Event]) -> list[tuple[Event, list[Event]]]:
    """Each order sent with the gateway's lines on it.

    Where an id was sent twice, refusals after the second sending belong to that one, everything else to the first. A
    refusal without an id, of a payload too broken or too large to read, belongs to the latest order of its kind that
    has no line of its own.
    """
    lines_by_key = _by_key(answered)
    result: list[tuple[Event, list[Event]]] = []
    for key, events in _by_key(sent).items():
        lines = lines_by_key.get(key, []) if key[1] else []
        for index, event in enumerate(events):
            until_s = events[index + 1].at_s if index + 1 < len(events) else inf
            result.append((event, _own_lines(event, lines, until_s, is_repeat=index > 0)))
    for line in (line for line in answered if not _key(line)[1]):
        earlier = [
            (event, own)
            for event, own in result
            if not own and event.text("kind") == line.text("kind") and event.at_s - _STAMP_ORDER_S <= line.at_s
        ]
        if earlier:
            max(earlier, key=lambda pair: pair[0].at_s)[1].append(line)
    return result


def _by_key(events: Iterable[Event]) -> dict[tuple[str, str], list[Event]]:
    found: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        found.setdefault(_key(event), []).append(event)
    return found


def _own_lines(event: Event, lines: Iterable[Event], next_s: float, *, is_repeat: bool) -> list[Event]:
    """The lines on one sending of an id, which was sent again at `next_s`."""
    later = [line for line in lines if line.at_s >= event.at_s - _STAMP_ORDER_S]
    if is_repeat:
        return [line for line in later if line.text("status") == "rejected" and line.at_s < next_s - _STAMP_ORDER_S]
    return [line for line in later if line.text("status") != "rejected" or line.at_s < next_s - _STAMP_ORDER_S]


def _only_journalled(sent: Sequence[Event], answered: Sequence[Event]) -> list[tuple[Event, list[Event]]]:
    """Orders that the gateway journalled and the DSO's log does not name, each with its lines."""
    known = _by_key(sent)
    return [(lines[0], lines) for key, lines in _by_key(answered).items() if key not in known and key[1]]


def _judged(
    event: Event, lines: Sequence[Event], written_by_id: Mapping[str, Sequence[Event]], offset_s: float | None
) -> DsoOrder:
    kind = Down(event.text("kind"))
    message, fault = _parsed(kind, event.data.get("message"))
    name = _name(event, lines, kind)
    written = _written(name, event.at_s, lines, written_by_id)
    told_s = lines[0].number("received_s") if lines else None
    received = told_s or (written[0] if written else lines[0].at_s if lines else event.at_s)
    own_offset_s = _offset_of(lines[0]) if lines else None
    begins, ends = _term(message, received, offset_s if own_offset_s is None else own_offset_s)
    if ends <= received:
        fault = fault or "ended before it was received"
    return DsoOrder(
        id=name,
        kind=kind,
        source=lines[0].text("source") if lines else "",
        message=message,
        fault=fault,
        received_s=received,
        begins_s=begins,
        ends_s=ends,
        status=lines[-1].text("status") if lines else "",
        reason=next((line.text("reason") for line in reversed(lines) if line.text("reason")), ""),
        received_to_written_ms=(written[1] - written[0]) * 1000.0 if written else None,
    )


def _term(message: Strict | None, received_s: float, offset_s: float | None) -> tuple[float, float]:
    """When a message received at a monotonic time takes force and when it ends by its own word."""
    if isinstance(message, RegulationSignal):
        return received_s, received_s + message.lost_after_s
    if not isinstance(message, OrderMessage):
        return received_s, inf
    if offset_s is None:
        offset_s = message.issued_at.timestamp() - received_s
    begins_s = received_s if message.start is None else max(received_s, message.start.timestamp() - offset_s)
    return begins_s, inf if message.ends_at is None else message.ends_at.timestamp() - offset_s


def _name(event: Event, lines: Sequence[Event], kind: Down) -> str:
    for given in (event.data.get("id"), event.mapping("message").get("id"), *(line.data.get("id") for line in lines)):
        if isinstance(given, str) and given:
            return given
    key = _key(event)[1]
    return f"{kind}-{key}" if key else f"{kind} without id"


def _parsed(kind: Down, message: object) -> tuple[Strict | None, str]:
    try:
        text = message if isinstance(message, str) else json.dumps(message)
        return DOWN_SCHEMAS[kind].model_validate_json(text), ""
    except ValidationError as error:
        first = error.errors()[0]
        return None, ": ".join([*(str(part) for part in first["loc"][:1]), first["msg"]])


def _written_by_id(run: Run) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in run.gateway:
        if event.name == "written":
            found.setdefault(event.text("id"), []).append(event)
    return found


def _written(
    name: str, sent_s: float, lines: Sequence[Event], written_by_id: Mapping[str, Sequence[Event]]
) -> tuple[float, float] | None:
    """When the order was received and when the last register that followed from it was acknowledged."""
    if lines and lines[0].text("status") == "rejected":
        return None
    for key in sorted({name, *(line.text("id") for line in lines)} - {""}):
        for event in written_by_id.get(key, ()):
            received, written = event.number("received_s"), event.number("written_s")
            if received is not None and written is not None and sent_s - _STAMP_ORDER_S <= received <= written:
                return received, written
    return None


def _offset_of(line: Event) -> float | None:
    """Seconds between UTC and the monotonic clock, as one journal line shows them."""
    try:
        utc = datetime.fromisoformat(line.text("utc"))
    except ValueError:
        return None
    return utc.timestamp() - line.at_s if utc.tzinfo else None


def _clock_offset(run: Run) -> float | None:
    """UTC less monotonic: from the gateway's journal, else from the life signs that the DSO stamped as it sent them."""
    for line in run.gateway:
        offset = _offset_of(line)
        if offset is not None:
            return offset
    offsets: list[float] = []
    for event in run.dso or ():
        try:
            issued = datetime.fromisoformat(str(event.mapping("message").get("issued_at")))
        except ValueError:
            continue
        if event.name == "sent" and issued.tzinfo:
            offsets.append(issued.timestamp() - event.at_s)
    return median(offsets) if offsets else None


def utc_at(run: Run, at_s: float) -> float | None:
    """Seconds since the epoch at a monotonic time; None where no line of the run has both clocks."""
    offset = _clock_offset(run)
    return None if offset is None else at_s + offset


def _without_repeats(orders: Iterable[DsoOrder]) -> list[DsoOrder]:
    """Mark repeated ids and overtaken signals as not binding."""
    result: list[DsoOrder] = []
    ids: set[str] = set()
    newest: dict[int, int] = {}
    for order in orders:
        fault = order.fault
        if isinstance(order.message, RegulationSignal):
            epoch, sequence = order.message.epoch, order.message.sequence
            if sequence <= newest.get(epoch, -1):
                fault = fault or "overtaken by a newer signal"
            else:
                newest[epoch] = sequence
        elif not fault:
            if order.id in ids:
                fault = "repeats the id of an earlier order"
            ids.add(order.id)
        result.append(order if fault == order.fault else replace(order, fault=fault))
    return result
