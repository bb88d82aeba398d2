"""Faults of OCPP, read on both sides of the proxy: what a charger says and hears, and what its central system does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from config.loading import load_profiles
from config.profile import Profile
from config.site import Site
from sim_devices.faults import FaultError, websocket
from sim_devices.faults.world import FaultWorld, check_fault
from sim_devices.port_holders import port_holder

BOUND_S = 10.0
OCPP = Subprotocol("ocpp1.6")
ASKED = [2, "1", "SetChargingProfile", {"connectorId": 1}]
DONE = [3, "1", {"status": "Accepted"}]
BEAT = [2, "b", "Heartbeat", {}]
TIME = [3, "b", {"currentTime": "2026-01-01T00:00:00Z"}]

TESTS = {"call_error", "malformed_json", "duplicate_id", "late_result", "charger_reboot"}
"""The faults that this file shows on the wire."""


def site_at(port: int, tls: bool = False) -> tuple[Site, dict[str, Profile]]:
    """Two chargers that call at one port."""
    address: dict[str, Any] = {"driver": "ocpp", "listen_host": "127.0.0.1", "listen_port": port}
    if tls:
        address["tls"] = {"cert_file": "cert.pem", "key_file": "key.pem"}
    charger = {"profile": "ocpp16_charger", "rating_w": 22_000}
    meter = {"driver": "modbus_tcp", "host": "127.0.0.1", "port": 1}
    site = Site.model_validate(
        {
            "site": "yard",
            "connection": {"rating_w": 50_000, "meter": "meter"},
            "fallback": {"net_import_w": 1, "net_export_w": 1},
            "devices": {
                "meter": {"profile": "sunspec_meter", "address": meter, "rating_w": 50_000},
                "left": charger | {"address": address | {"charge_point": "CP-1"}},
                "right": charger | {"address": address | {"charge_point": "CP2"}},
            },
        }
    )
    by_reference = load_profiles(site, "site.yaml")  # type: ignore[arg-type]
    return site, {name: by_reference[device.profile] for name, device in site.devices.items()}


class Gateway:
    """The central system: whoever calls is there by identity."""

    def __init__(self) -> None:
        self.callers: dict[str, ServerConnection] = {}
        self.heads: list[str | None] = []
        self._came = asyncio.Event()

    async def caller(self, identity: str) -> ServerConnection:
        async with asyncio.timeout(BOUND_S):
            while identity not in self.callers:
                self._came.clear()
                await self._came.wait()
        return self.callers[identity]

    async def serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.heads.append(connection.request.headers.get("Sec-WebSocket-Extensions"))
        self.callers[connection.request.path.rpartition("/")[2]] = connection
        self._came.set()
        await connection.wait_closed()


@asynccontextmanager
async def yard() -> AsyncIterator[tuple[FaultWorld, Gateway, int]]:
    """The proxy where chargers call, and the gateway where the proxy told it to listen."""
    with_port = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = with_port.sockets[0].getsockname()[1]
    with_port.close()
    await with_port.wait_closed()
    site, profiles = site_at(port)
    gateway = Gateway()
    async with FaultWorld(site, profiles, control_port=None, only=["left", "right"]) as world:
        told = world.endpoints["left"]
        async with serve(gateway.serve, told["listen_host"], told["listen_port"], subprotocols=[OCPP], close_timeout=1):
            yield world, gateway, port


def dial(port: int, identity: str) -> connect:
    """A charger that would compress what it says."""
    url = f"ws://127.0.0.1:{port}/ocpp/{identity}"
    return connect(url, subprotocols=[OCPP], compression="deflate", proxy=None, close_timeout=1, ping_interval=None)


async def say(connection: ClientConnection | ServerConnection, message: Any) -> None:
    await connection.send(json.dumps(message))


async def hear(connection: ClientConnection | ServerConnection) -> Any:
    async with asyncio.timeout(BOUND_S):
        return json.loads(await connection.recv())


def test_frames_of_every_length_are_told_apart_and_read() -> None:
    for size in (0, 125, 126, 65_535, 65_536):
        for masked in (False, True):
            text = bytes(at % 251 for at in range(size))
            raw = websocket.packed(text, masked=masked)
            assert websocket.length(raw) == len(raw) and websocket.is_text(raw)
            assert websocket.text_of(raw) == text
            assert all(websocket.length(raw[:cut]) in (0, len(raw)) for cut in range(1, min(len(raw), 16)))
    masked = bytes((0x81, 0x85, 1, 2, 3, 4)) + bytes(a ^ b for a, b in zip(b"hello", b"\1\2\3\4\1", strict=True))
    assert websocket.text_of(masked) == b"hello"
    assert websocket.length(b"\x16\x03\x01") is None, "TLS is no WebSocket"


async def test_without_a_fault_everything_passes_and_nothing_is_compressed() -> None:
    async with yard() as (world, gateway, port), dial(port, "CP-1") as charger:
        central = await gateway.caller("CP-1")
        assert gateway.heads == [None]
        assert charger.subprotocol == OCPP
        await say(charger, BEAT)
        assert await hear(central) == BEAT
        await say(central, TIME)
        assert await hear(charger) == TIME
        assert world.status()["devices"]["left"]["shares_with"] == ["right"]


async def test_call_error_answers_in_the_chargers_place() -> None:
    async with yard() as (world, gateway, port), dial(port, "CP-1") as charger:
        central = await gateway.caller("CP-1")
        world.set("left", "call_error", {"code": 2, "count": 1})
        await say(central, ASKED)
        assert await hear(central) == [4, "1", "NotSupported", "", {}]
        await say(central, [*ASKED[:1], "2", *ASKED[2:]])
        assert (await hear(charger))[1] == "2", "the first has not arrived"
        world.set("left", "call_error", {"direction": "reply"})
        await say(charger, BEAT)
        assert await hear(charger) == [4, "b", "InternalError", "", {}]
        await say(charger, DONE)
        assert await hear(central) == DONE, "answers pass, and the heartbeat has not arrived"


async def test_malformed_json_is_half_a_message_in_a_whole_frame() -> None:
    async with yard() as (world, gateway, port), dial(port, "CP-1") as charger:
        central = await gateway.caller("CP-1")
        world.set("left", "malformed_json", {"count": 1})
        await say(charger, BEAT)
        async with asyncio.timeout(BOUND_S):
            assert await central.recv() == json.dumps(BEAT)[: len(json.dumps(BEAT)) // 2]
        await say(charger, BEAT)
        assert await hear(central) == BEAT


async def test_duplicate_id_is_the_same_request_twice() -> None:
    async with yard() as (world, gateway, port), dial(port, "CP-1") as charger:
        central = await gateway.caller("CP-1")
        world.set("left", "duplicate_id")
        await say(charger, DONE)
        await say(charger, BEAT)
        assert [await hear(central) for _ in range(3)] == [DONE, BEAT, BEAT], "an answer comes once"


async def test_late_result_comes_behind_what_was_said_after_it() -> None:
    async with yard() as (world, gateway, port), dial(port, "CP-1") as charger:
        central = await gateway.caller("CP-1")
        world.set("left", "late_result", {"delay_s": 0.3})
        await say(central, ASKED)
        assert await hear(charger) == ASKED
        answered_s = time.monotonic()
        await say(charger, DONE)
        await say(charger, BEAT)
        assert [await hear(central), await hear(central)] == [BEAT, DONE]
        assert time.monotonic() - answered_s >= 0.3


async def test_charger_reboot_is_asked_of_the_charger_behind_the_gateways_back() -> None:
    async with yard() as (world, gateway, port), dial(port, "CP-1") as charger, dial(port, "CP2") as other:
        central = await gateway.caller("CP-1")
        assert await gateway.caller("CP2")
        world.set("left", "charger_reboot")
        asked = await hear(charger)
        assert (asked[0], asked[2:]) == (2, ["Reset", {"type": "Hard"}])
        await say(charger, [3, asked[1], {"status": "Accepted"}])
        await say(charger, BEAT)
        assert await hear(central) == BEAT, "the answer is nobody else's"
        (fault,) = world.status()["devices"]["left"]["faults"]
        assert (fault["acted"], fault["active"]) == (1, False)
        world.set("right", "charger_reboot")
        assert (await hear(other))[2] == "Reset"


async def test_of_two_chargers_at_one_port_the_one_that_is_named_is_meant() -> None:
    async with yard() as (world, gateway, port), dial(port, "CP-1") as left, dial(port, "CP2") as right:
        centrals = [await gateway.caller(name) for name in ("CP-1", "CP2")]
        world.set("right", "duplicate_id")
        for charger, central in zip((left, right), centrals, strict=True):
            await say(charger, BEAT)
            await say(charger, DONE)
            assert await hear(central) == BEAT
        assert await hear(centrals[0]) == DONE
        assert await hear(centrals[1]) == BEAT


async def test_faults_of_the_link_are_there_too() -> None:
    async with yard() as (world, gateway, port):
        async with dial(port, "CP-1") as charger:
            await gateway.caller("CP-1")
            world.set("left", "cut", {"count": 1})
            await say(charger, BEAT)
            with pytest.raises(ConnectionClosed):
                await hear(charger)
        async with dial(port, "CP-1") as charger:
            gateway.callers.clear()
            world.set("left", "black_hole", {"direction": "request"})
            await say(charger, BEAT)
        world.clear()
        world.set("left", "refuse")
        with pytest.raises(OSError, match="Connect call failed"):
            async with dial(port, "CP-1"):
                pass


async def test_a_port_that_is_taken_is_named_with_its_holder() -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    site, profiles = site_at(port)
    with pytest.raises(FaultError, match=f"left: 127.0.0.1:{port}: Address already in use") as refused:
        async with FaultWorld(site, profiles, control_port=None, only=["left"]):
            pass
    assert port_holder(port) in str(refused.value)
    taken.close()
    await taken.wait_closed()


def test_behind_tls_only_the_link_has_faults() -> None:
    site, profiles = site_at(9_000, tls=True)
    check_fault(site, profiles, "left", "latency")
    with pytest.raises(FaultError, match="this proxy only passes it on"):
        check_fault(site, profiles, "left", "call_error")
