"""docs/layer_interface.md: every example in it is a fixture, and every kind of message has one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from config.messages import DOWN_SCHEMAS, MAX_PAYLOAD_BYTES, UP_SCHEMAS, Down, Up
from config.strict import Strict
from gateway.orders.admission import FARTHEST_START_S, FUTURE_ISSUE_TOLERANCE_S, MOST_HELD_ORDERS, OLDEST_ISSUE_S
from gateway.orders.book import REMEMBERED_IDS
from gateway.parent.mqtt_parent import ACKNOWLEDGEMENTS_KEPT

FIXTURES = Path(__file__).parent / "fixtures"
TEXT = (Path(__file__).parents[2] / "docs" / "layer_interface.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```json ?(\S*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def schema_of(name: str) -> type[Strict]:
    direction, _, kind = name.partition("/")
    return DOWN_SCHEMAS[Down(kind)] if direction == "down" else UP_SCHEMAS[Up(kind)]


@pytest.mark.parametrize(("name", "text"), BLOCKS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(BLOCKS)])
def test_every_example_is_a_valid_fixture(name: str, text: str) -> None:
    schema_of(name).model_validate_json(text)
    direction, _, kind = name.partition("/")
    valid = [path for path in (FIXTURES / direction).glob(f"{kind}.*.json") if path.stem.count(".") == 1]
    assert json.loads(text) in [json.loads(path.read_text(encoding="utf-8")) for path in valid]


def test_every_kind_of_message_has_an_example() -> None:
    kinds = {f"down/{kind}" for kind in Down} | {f"up/{kind}" for kind in Up}
    assert {name for name, _ in BLOCKS} == kinds


def fields_of(schema: type[Strict]) -> set[str]:
    """Names of the fields at every depth."""
    described = schema.model_json_schema()
    return {name for part in (described, *described.get("$defs", {}).values()) for name in part.get("properties", {})}


def test_every_field_of_every_message_is_explained() -> None:
    for schema in {*DOWN_SCHEMAS.values(), *UP_SCHEMAS.values()}:
        missing = {name for name in fields_of(schema) if f"`{name}`" not in TEXT and f'"{name}"' not in TEXT}
        assert not missing, schema.__name__


def test_the_bounds_it_states_are_the_gateways() -> None:
    words = re.sub(r"\s+", " ", TEXT)
    for stated in (
        f"at most {MAX_PAYLOAD_BYTES:,} bytes",
        f"more than {FUTURE_ISSUE_TOLERANCE_S:.0f} s in the future",
        f"more than {FARTHEST_START_S / 86_400:.0f} days after now",
        f"more than {OLDEST_ISSUE_S / 3600:.0f} h ago",
        f"holds {MOST_HELD_ORDERS} orders",
        f"the last {REMEMBERED_IDS:,} it accepted",
        f"{ACKNOWLEDGEMENTS_KEPT:,} acknowledgements",
    ):
        assert stated in words
