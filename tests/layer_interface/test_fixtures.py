"""Messages written by hand, held against the schemas, the gateway's door and the DSO twin's own expectations.

`KIND.NAME.json` is a valid message. `KIND.invalid.NAME.json` breaks the schema. `KIND.refused.NAME.json` keeps it and
is still to be refused by the receiver: the gateway downward, the DSO twin upward; `says` must be part of the reason.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from config.messages import (
    DOWN_SCHEMAS,
    MAX_PAYLOAD_BYTES,
    UP_SCHEMAS,
    Acknowledgement,
    AckStatus,
    Down,
    Up,
)
from config.strict import Strict
from gateway.orders.book import OrderBook
from gateway.orders.held import ParentState
from gateway.parent.receive import Received, receive
from sim_devices.dso.expectations import UnexpectedError, read

FIXTURES = Path(__file__).parent / "fixtures"
NOW = datetime(2026, 6, 8, 10, 0, 1, tzinfo=UTC)


class Fixture(NamedTuple):
    """One file: direction, kind of message, what it is, its bytes, and what the reason must say."""

    direction: str
    kind: str
    sort: str
    payload: bytes
    says: str

    @property
    def schema(self) -> type[Strict]:
        return DOWN_SCHEMAS[Down(self.kind)] if self.direction == "down" else UP_SCHEMAS[Up(self.kind)]


def load(path: Path) -> Fixture:
    kind, *sort = path.stem.split(".")[:-1]
    content = json.loads(path.read_text(encoding="utf-8"))
    if not sort:
        return Fixture(path.parent.name, kind, "valid", json.dumps(content).encode(), "")
    payload = content["payload"] if "payload" in content else json.dumps(content["message"])
    return Fixture(
        path.parent.name, kind, sort[0], payload.encode().ljust(content.get("pad_to_bytes", 0)), content["says"]
    )


PATHS = sorted(FIXTURES.rglob("*.json"))


def fixtures(direction: str, *sorts: str) -> list[Any]:
    named = [(path, load(path)) for path in PATHS if path.parent.name == direction]
    return [pytest.param(fixture, id=path.stem) for path, fixture in named if fixture.sort in sorts]


def is_small(param: Any) -> bool:
    """Whether the schema sees it at all: the size is the reader's to check."""
    return len(param.values[0].payload) <= MAX_PAYLOAD_BYTES


def reason_of(error: ValidationError) -> str:
    """Places and messages of all findings."""
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())


@pytest.mark.parametrize("fixture", [*fixtures("down", "valid", "refused"), *fixtures("up", "valid", "refused")])
def test_the_schema_takes_it(fixture: Fixture) -> None:
    message = fixture.schema.model_validate_json(fixture.payload)
    assert fixture.schema.model_validate_json(fixture.payload, strict=True) == message
    assert fixture.schema.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize(
    "fixture", [param for direction in ("down", "up") for param in fixtures(direction, "invalid") if is_small(param)]
)
def test_the_schema_refuses_it(fixture: Fixture) -> None:
    with pytest.raises(ValidationError) as caught:
        fixture.schema.model_validate_json(fixture.payload)
    assert fixture.says in reason_of(caught.value)


def book() -> OrderBook:
    """A gateway's book at 10:00:01: two parents, the DSO dispatches in epoch 7."""
    parents = {"dso": ParentState(60.0, True), "aggregator": ParentState(60.0, False)}
    return OrderBook(100_000.0, parents, lambda: 1000.0, NOW.timestamp, dispatcher="dso", epoch=7)


def give(fixture: Fixture, **options: Any) -> tuple[OrderBook, Received]:
    taken = book()
    return taken, receive(taken, "dso", fixture.kind, fixture.payload, **options)


@pytest.mark.parametrize("fixture", fixtures("down", "valid"))
def test_the_gateway_takes_it(fixture: Fixture) -> None:
    taken, received = give(fixture)
    assert taken.refused == 0
    statuses = [outcome.status for outcome in received.outcomes]
    assert statuses == ([] if fixture.kind in ("heartbeat", "regulation") else [AckStatus.ACCEPTED])


@pytest.mark.parametrize("fixture", fixtures("down", "invalid", "refused"))
def test_the_gateway_refuses_it_with_a_reason_and_changes_nothing(fixture: Fixture) -> None:
    taken, received = give(fixture)
    before = book()
    (outcome,) = received.outcomes
    assert outcome.status is AckStatus.REJECTED
    assert fixture.says in outcome.reason
    assert (received.changed, taken.refused) == (False, 1)
    assert (taken.dump(), taken.in_force(), taken.epoch) == (before.dump(), before.in_force(), before.epoch)


@pytest.mark.parametrize("fixture", fixtures("down", "valid"))
def test_the_gateway_refuses_whatever_the_broker_kept(fixture: Fixture) -> None:
    taken, received = give(fixture, retained=True)
    assert [outcome.status for outcome in received.outcomes] == [AckStatus.REJECTED]
    assert taken.dump() == book().dump()


@pytest.mark.parametrize("fixture", fixtures("down", "valid"))
def test_the_gateway_takes_an_id_once(fixture: Fixture) -> None:
    taken, _ = give(fixture)
    received = receive(taken, "dso", fixture.kind, fixture.payload)
    assert [outcome.status for outcome in received.outcomes] == [AckStatus.REJECTED]


@pytest.mark.parametrize("fixture", fixtures("up", "valid"))
def test_the_dso_takes_it(fixture: Fixture) -> None:
    assert read(fixture.kind, fixture.payload) == json.loads(fixture.payload)


@pytest.mark.parametrize("fixture", fixtures("up", "invalid", "refused"))
def test_the_dso_refuses_it(fixture: Fixture) -> None:
    with pytest.raises(UnexpectedError) as caught:
        read(fixture.kind, fixture.payload)
    assert fixture.says in str(caught.value)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_every_message_has_examples_of_both_sorts(direction: str) -> None:
    kinds = {str(kind) for kind in (DOWN_SCHEMAS if direction == "down" else UP_SCHEMAS)}
    for sort in ("valid", "invalid"):
        assert {param.values[0].kind for param in fixtures(direction, sort)} == kinds


@pytest.mark.parametrize("payload", [b'{"id": "\\ud800"}', b'{"id": "infinite", "value": 1e999}'])
def test_what_the_gateway_says_of_a_broken_payload_can_be_written_and_sent(payload: bytes) -> None:
    received = receive(book(), "dso", "limits", payload)
    (outcome,) = received.outcomes
    json.dumps(received.message, allow_nan=False).encode()
    Acknowledgement(
        order_id=outcome.order_id, kind=outcome.kind, status=outcome.status, reason=outcome.reason, issued_at=NOW
    ).model_dump_json()
