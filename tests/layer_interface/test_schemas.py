"""Every message survives its own JSON, no schema leaves room for a device, and the DSO twin's hand agrees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.messages import (
    DOWN_SCHEMAS,
    MAX_DURATION_S,
    MAX_POWER_W,
    UP_SCHEMAS,
    Acknowledgement,
    AckStatus,
    AuthorityOrder,
    Compliance,
    DispatchOrder,
    Down,
    ForecastBand,
    Heartbeat,
    LimitOrder,
    MeasuredResult,
    Offer,
    OfferInterval,
    RegulationSignal,
    Telemetry,
    Up,
    down_topic,
    up_topic,
)
from config.strict import Strict
from config.vocabulary import Quantity
from sim_devices.dso.expectations import UnexpectedError, read

PRICE_STEP = 0.25
POWER_STEP_W = 0.5
"""Powers of two, so that grid points are exact in binary."""

powers = st.floats(-MAX_POWER_W, MAX_POWER_W)
magnitudes = st.floats(0, MAX_POWER_W)
not_negative = st.floats(0, 1e15)
positive = st.floats(1e-9, 1e9)
prices = st.floats(-1e6, 1e6)
sequences = st.integers(0, 2**53)
ids = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
maybe = st.none()
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)

order = {
    "id": ids,
    "issued_at": instants,
    "start": maybe | instants,
    "duration_s": maybe | st.floats(1e-3, MAX_DURATION_S),
}
reserves = {"regulation_up_w": magnitudes, "regulation_down_w": magnitudes}


@st.composite
def forecasts(draw: st.DrawFn) -> ForecastBand:
    p10, p50, p90 = sorted(draw(st.tuples(powers, powers, powers)))
    return ForecastBand(p10_w=p10, p50_w=p50, p90_w=p90)


@st.composite
def intervals(draw: st.DrawFn, start: datetime) -> OfferInterval:
    number = draw(st.integers(1, 8))
    steps = st.lists(st.integers(-(10**6), 10**6), min_size=number, max_size=number)
    at, taken = sorted(draw(steps)), sorted(draw(steps), reverse=True)
    curve = [{"price_per_kwh": a * PRICE_STEP, "power_w": b * POWER_STEP_W} for a, b in zip(at, taken, strict=True)]
    fields = {
        "start": st.just(start),
        "duration_s": st.floats(1e-3, MAX_DURATION_S),
        "curve": st.just(curve),
        "lower_w": st.floats(-MAX_POWER_W, curve[-1]["power_w"]),
        "upper_w": st.floats(curve[0]["power_w"], MAX_POWER_W),
        "ramp_w_per_s": maybe | positive,
        "energy_up_wh": not_negative,
        "energy_down_wh": not_negative,
        "regulation_price_per_kwh": maybe | prices,
        "forecast": maybe | forecasts(),
        **reserves,
    }
    return draw(st.builds(OfferInterval, **fields))


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    issued = draw(instants)
    number = draw(st.integers(1, 4))
    made = tuple(draw(intervals(issued + timedelta(minutes=15 * index))) for index in range(number))
    fields = {
        "id": ids,
        "issued_at": st.just(issued),
        "expires_at": st.just(issued + timedelta(minutes=15)),
        "intervals": st.just(made),
        "response_s": not_negative,
        "power_step_w": st.just(POWER_STEP_W),
        "price_step_per_kwh": st.just(PRICE_STEP),
        "error_bound_w": not_negative,
    }
    return draw(st.builds(Offer, **fields))


heartbeats = st.builds(Heartbeat, sequence=sequences, issued_at=instants)
down_messages: dict[Down, st.SearchStrategy[Strict]] = {
    Down.LIMITS: st.builds(
        LimitOrder,
        quantity=st.sampled_from(Quantity),
        value=magnitudes | st.sampled_from(["unlimited", "unknown"]),
        on_end=st.sampled_from(["unlimited", "fallback"]),
        **order,
    ),
    Down.DISPATCH: st.builds(
        DispatchOrder,
        epoch=sequences,
        net_power_w=powers,
        offer_id=maybe | ids,
        lambda_per_kwh=maybe | prices,
        lambda_path_per_kwh=st.lists(prices, max_size=5).map(tuple),
        ramp_w_per_s=maybe | positive,
        **reserves,
        **order,
    ),
    Down.REGULATION: st.builds(
        RegulationSignal,
        epoch=sequences,
        sequence=sequences,
        issued_at=instants,
        signal=st.floats(-1, 1),
        lost_after_s=st.floats(0.1, 600),
    ),
    Down.AUTHORITY: st.builds(
        AuthorityOrder, parent=st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True), epoch=sequences, **order
    ),
    Down.HEARTBEAT: heartbeats,
}
results = st.builds(
    MeasuredResult, mean_net_power_w=maybe | powers, energy_wh=maybe | st.floats(-1e15, 1e15), unmet_s=not_negative
)
up_messages: dict[Up, st.SearchStrategy[Strict]] = {
    Up.OFFER: offers(),
    Up.TELEMETRY: st.builds(
        Telemetry,
        issued_at=instants,
        measured_at=maybe | instants,
        net_power_w=maybe | powers,
        energy_import_wh=maybe | not_negative,
        energy_export_wh=maybe | not_negative,
        voltage_v=maybe | not_negative,
        frequency_hz=maybe | not_negative,
        connection=st.sampled_from(["connected", "islanded", "unknown"]),
        quality=st.sampled_from(["good", "uncertain", "bad"]),
        regulation_sequence=maybe | sequences,
        compliance=st.builds(Compliance, state=st.sampled_from(["compliant", "unmet", "fallback"]), reason=texts),
    ),
    Up.ACKNOWLEDGEMENT: st.builds(
        Acknowledgement,
        order_id=st.just("") | ids,
        kind=st.sampled_from(Down),
        status=st.sampled_from(AckStatus),
        reason=texts,
        issued_at=instants,
        result=maybe | results,
    ),
    Up.HEARTBEAT: heartbeats,
}


@pytest.mark.parametrize("kind", Down)
@given(data=st.data())
def test_a_message_downward_survives_its_json(kind: Down, data: st.DataObject) -> None:
    message = data.draw(down_messages[kind])
    assert DOWN_SCHEMAS[kind].model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize("kind", Up)
@given(data=st.data())
def test_a_message_upward_survives_its_json_and_the_twin_reads_the_same(kind: Up, data: st.DataObject) -> None:
    message = data.draw(up_messages[kind])
    payload = message.model_dump_json()
    assert UP_SCHEMAS[kind].model_validate_json(payload) == message
    assert read(kind, payload.encode()) == message.model_dump(mode="json")


@pytest.mark.parametrize("kind", Up)
@given(data=st.data())
def test_a_field_more_is_refused_at_every_depth(kind: Up, data: st.DataObject) -> None:
    content = data.draw(up_messages[kind]).model_dump(mode="json")
    objects = list(objects_in(content))
    data.draw(st.sampled_from(objects))["battery_a"] = 1.0
    with pytest.raises(ValidationError, match="battery_a"):
        UP_SCHEMAS[kind].model_validate(content)
    with pytest.raises(UnexpectedError, match="battery_a: not part of the interface"):
        read(kind, json.dumps(content).encode())


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """The object itself and every object below it."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects_in(item)


def schema_objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every sub-schema that describes an object."""
    for part in objects_in(schema):
        if part.get("type") == "object" or "properties" in part:
            yield part


ALL_SCHEMAS = [*DOWN_SCHEMAS.values(), *UP_SCHEMAS.values()]


@pytest.mark.parametrize("schema", ALL_SCHEMAS, ids=lambda schema: schema.__name__)
def test_no_object_of_any_message_is_open(schema: type[Strict]) -> None:
    described = list(schema_objects(schema.model_json_schema()))
    assert described
    for part in described:
        assert part.get("additionalProperties") is False, part.get("title")


def free_texts(schema: dict[str, Any]) -> Iterator[str]:
    """Names of properties that may hold any text: no pattern, no list of words, no time."""
    for part in schema_objects(schema):
        for name, field in part.get("properties", {}).items():
            for one in field.get("anyOf", [field]):
                if one.get("type") == "string" and not {"pattern", "enum", "const", "format"} & set(one):
                    yield f"{part['title']}.{name}"


def test_free_text_upward_is_only_the_reasons_and_the_id_that_is_repeated() -> None:
    found = {name for schema in UP_SCHEMAS.values() for name in free_texts(schema.model_json_schema())}
    assert found == {"Acknowledgement.order_id", "Acknowledgement.reason", "Compliance.reason"}


def test_topics_name_the_layer_and_the_source() -> None:
    assert down_topic("demo", "dso", Down.LIMITS) == "lamina/v1/demo/dso/down/limits"
    assert down_topic("demo", "dso", "+") == "lamina/v1/demo/dso/down/+"
    assert up_topic("demo", "dso", Up.OFFER) == "lamina/v1/demo/dso/up/offer"
