"""The twins that call somebody, as a site's endpoints: where they call, and what the gateway is told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from config.loading import load_profile
from config.site import Address, OcppConnector, Site
from drivers.binding import DeviceBinding
from drivers.ocpp.driver import OcppDriver
from sim_devices.broker import EmbeddedBroker
from sim_devices.endpoints import Endpoints, Ports, TwinError, twin_kinds
from sim_devices.physics import SitePhysics
from sim_devices.until import ended
from tests.drivers.field import Field, free_port
from tests.drivers.mqtt_field import make_certificate

ADDRESSES: TypeAdapter[Address] = TypeAdapter(Address)


def called(charge_point: str, port: int = 5603, **address: Any) -> dict[str, Any]:
    place = {"driver": "ocpp", "listen_port": port, "charge_point": charge_point, **address}
    return {"profile": "ocpp16_charger", "address": place, "rating_w": 22_080}


def a_site(**devices: dict[str, Any]) -> Site:
    meter = {
        "profile": "shelly_pro_3em",
        "address": {"driver": "mqtt", "host": "127.0.0.1", "port": 1, "parameters": {"topic_prefix": "a/b"}},
        "rating_w": 60_000,
    }
    return Site.model_validate(
        {
            "site": "small",
            "connection": {"rating_w": 60_000, "meter": "meter"},
            "fallback": {"net_import_w": 30_000, "net_export_w": 20_000},
            "devices": {"meter": meter, **devices},
        }
    )


def endpoints(site: Site, ports: Ports = "free", names: list[str] | None = None, **how: Any) -> Endpoints:
    physics = SitePhysics(site, twin_kinds(site, names), start_s=time.monotonic())
    return Endpoints(site, physics, time.monotonic, ports=ports, **how)


@contextlib.asynccontextmanager
async def driven(told: dict[str, Any]) -> AsyncIterator[Field]:
    """The gateway's end of one charger, at the address that it is told."""
    field, address = Field(), ADDRESSES.validate_python(told)
    assert isinstance(address, OcppConnector)
    binding = DeviceBinding("charger", load_profile("ocpp16_charger"), address, 22_080.0, reversion_s=60.0)
    task = asyncio.create_task(OcppDriver("link", [binding], field, time.monotonic).run(), name="link")
    try:
        yield field
    finally:
        await ended(task)


@contextlib.asynccontextmanager
async def calling(served: Endpoints) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = served.run_clients(group)
        try:
            yield
        finally:
            await ended(*tasks)


def is_present(field: Field) -> bool:
    return any(present for _, present, _ in field.present)


async def test_chargers_call_at_a_port_that_is_kept_for_the_gateway() -> None:
    site = a_site(one=called("CP1"), two=called("CP2"), other=called("CP3", port=5604))
    async with endpoints(site, names=["one", "two", "other"]) as served:
        ports = {name: told["listen_port"] for name, told in served.addresses.items()}
        assert ports["one"] == ports["two"] != ports["other"]
        assert {told["listen_host"] for told in served.addresses.values()} == {"127.0.0.1"}
        async with driven(served.addresses["one"]) as field, calling(served):
            await field.until(lambda: is_present(field))


async def test_chargers_call_where_the_site_says_with_password_and_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tls"
    make_certificate(folder)
    monkeypatch.setenv("LAMINA_TEST_WORD", "a word of its own")
    tls = {"cert_file": str(folder / "cert.pem"), "key_file": str(folder / "key.pem")}
    more = {"password_env": "LAMINA_TEST_WORD", "tls": tls, "id_tags": ["SOMEBODY"]}
    site = a_site(one=called("CP1", port=free_port(), **more))
    async with endpoints(site, "declared", names=["one"]) as served:
        assert ADDRESSES.validate_python(served.addresses["one"]) == site.devices["one"].address
        async with driven(served.addresses["one"]) as field, calling(served):
            await field.until(lambda: is_present(field))


async def test_a_meter_on_a_broker_is_started_with_the_rest() -> None:
    async with EmbeddedBroker() as broker:
        site = a_site(one=called("CP1"))
        async with endpoints(site, mqtt=(broker.host, broker.port)) as served:
            assert served.addresses["meter"] == {
                "driver": "mqtt",
                "host": broker.host,
                "port": broker.port,
                "parameters": {"topic_prefix": "a/b"},
            }
            assert served.addresses.keys() == {"meter", "one"}


def faults() -> Iterator[tuple[dict[str, dict[str, Any]], str]]:
    yield {"one": called("CP1", connector=2)}, "one: address.connector: the twin's charge point has connector 1 alone"
    yield {"one": called("CP1"), "two": called("CP1")}, "two: address.charge_point: CP1 is another twin's already"
    meter = {"driver": "mqtt", "host": "h", "parameters": {"topic_prefix": "a/#"}}
    device = {"profile": "shelly_pro_3em", "address": meter, "rating_w": 1_000}
    yield {"sub": device}, "sub: address.parameters.topic_prefix: the meter's topics need one, without wildcards"
    wrong = called("CP1") | {"profile": "alfen_eve"}
    yield (
        {"one": wrong},
        "one: the twin of profile alfen_eve speaks modbus_tcp or modbus_rtu or modbus_rtu_tcp, not ocpp",
    )


@pytest.mark.parametrize(("devices", "words"), list(faults()))
def test_what_can_not_be_a_twin_is_named(devices: dict[str, dict[str, Any]], words: str) -> None:
    with pytest.raises(TwinError) as error:
        twin_kinds(a_site(**devices), None)
    assert str(error.value) == words


async def test_a_port_that_nobody_knows_and_a_certificate_that_is_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(TwinError, match=r"^one: address.listen_port: 0 tells nobody where to call$"):
        await endpoints(a_site(one=called("CP1", port=0)), "declared", names=["one"]).__aenter__()
    tls = {"cert_file": str(tmp_path / "none.pem"), "key_file": str(tmp_path / "none.pem")}
    with pytest.raises(TwinError, match=r"^one: No such file or directory$"):
        await endpoints(a_site(one=called("CP1", tls=tls)), "declared", names=["one"]).__aenter__()
