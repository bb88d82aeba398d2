"""The charge point as a plain central system sees it: the ocpp package's own, behind a WebSocket server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

import pytest
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from config.twin import DeviceTwin, EvTwin
from sim_devices.models import ChargerModel
from sim_devices.ocpp_charger import OcppCharger
from sim_devices.ocpp_settings import Settings, sampled_values
from sim_devices.until import ended

_QUIET = logging.getLogger("tests.central")
_QUIET.setLevel(logging.CRITICAL + 1)


class Side(ChargePoint):  # type: ignore[misc]
    """The central system's end of one connection."""

    def __init__(self, central: Central, connection: ServerConnection) -> None:
        super().__init__("CP1", connection, 5, logger=_QUIET)
        self._central = central

    def _told(self, name: str, **said: Any) -> None:
        self._central.heard.append((name, said))
        self._central.news.set()

    @on("BootNotification")
    def on_boot(self, **said: Any) -> Any:
        self._told("boot", **said)
        status = self._central.boot_answers.pop(0) if self._central.boot_answers else "Accepted"
        return call_result.BootNotification("2025-06-01T12:00:00Z", 1 if status == "Pending" else 60, status)

    @on("Heartbeat")
    def on_heartbeat(self) -> Any:
        self._told("heartbeat")
        return call_result.Heartbeat("2025-06-01T12:00:00Z")

    @on("StatusNotification")
    def on_status(self, **said: Any) -> Any:
        self._told("status", **said)
        return call_result.StatusNotification()

    @on("MeterValues")
    def on_meter_values(self, **said: Any) -> Any:
        self._told("values", **said)
        return call_result.MeterValues()

    @on("StartTransaction")
    def on_start(self, **said: Any) -> Any:
        self._told("start", **said)
        self._central.transactions += 1
        return call_result.StartTransaction(self._central.transactions, {"status": self._central.verdict})

    @on("StopTransaction")
    def on_stop(self, **said: Any) -> Any:
        self._told("stop", **said)
        return call_result.StopTransaction()


class Central:
    """A central system of one charge point, and the charge point itself."""

    def __init__(self, *evs: EvTwin) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.news = asyncio.Event()
        self.boot_answers: list[str] = []
        self.verdict = "Accepted"
        self.refuse = False
        self.transactions = 0
        self.requests: list[Request] = []
        self.side: Side | None = None
        self.model = ChargerModel("left", 22_080.0, DeviceTwin(tr90_s=0.1, evs=evs))
        self.now_s = 0.0
        self.port = 0
        self.twin: OcppCharger

    def utc(self) -> float:
        return time.time() + self.now_s

    def run(self, duration_s: float) -> None:
        for _ in range(round(duration_s * 10)):
            self.now_s += 0.1
            self.twin.evaluate()
            self.model.step(0.1, self.utc())

    def judge(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        self.news.set()
        return connection.respond(HTTPStatus.UNAUTHORIZED, "no\n") if self.refuse else None

    async def handle(self, connection: ServerConnection) -> None:
        self.side = Side(self, connection)
        self.news.set()
        with contextlib.suppress(ConnectionClosed):
            await self.side.start()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.news.clear()
                await self.news.wait()

    def said(self, name: str) -> list[dict[str, Any]]:
        return [said for each, said in self.heard if each == name]

    async def hears(self, name: str, **wanted: Any) -> dict[str, Any]:
        """Wait for this to be told, and take it from what was heard, with all before it."""

        def fits(each: tuple[str, dict[str, Any]]) -> bool:
            return each[0] == name and wanted.items() <= each[1].items()

        await self.until(lambda: any(map(fits, self.heard)))
        found = next(at for at, each in enumerate(self.heard) if fits(each))
        told = self.heard[found][1]
        del self.heard[: found + 1]
        return told

    async def ask(self, payload: Any) -> Any:
        """The answer to a request; raises the charge point's CALLERROR."""
        assert self.side is not None
        return await self.side.call(payload, suppress=False)

    async def limit(self, limit: float, **more: Any) -> str:
        """A default profile of the connector."""
        schedule = {"charging_rate_unit": "A", "charging_schedule_period": [{"start_period": 0, "limit": limit}]}
        profile = {
            "charging_profile_id": 1,
            "stack_level": 0,
            "charging_profile_purpose": "TxDefaultProfile",
            "charging_profile_kind": "Relative",
            "charging_schedule": schedule,
            **more,
        }
        return str((await self.ask(call.SetChargingProfile(1, profile))).status)


@contextlib.asynccontextmanager
async def central(
    *evs: EvTwin, prepared: Callable[[Central], None] = lambda _: None, **how: Any
) -> AsyncIterator[Central]:
    it = Central(*evs)
    prepared(it)
    async with serve(
        it.handle,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("ocpp1.6")],
        process_request=it.judge,
        compression=None,
        logger=_QUIET,
        close_timeout=1,
    ) as server:
        it.port = next(iter(server.sockets)).getsockname()[1]
        it.twin = OcppCharger(
            it.model, it.utc, url=f"ws://127.0.0.1:{it.port}/ocpp/", identity="CP1", utc=it.utc, **how
        )
        calling = asyncio.create_task(it.twin.run(), name="twin")
        try:
            yield it
        finally:
            await ended(calling)


A_CAR = EvTwin(plug_in_s=1.0, unplug_s=100.0, needed_wh=50_000.0, wake_s=0.2)


async def test_a_session_from_boot_to_departure() -> None:
    async with central(A_CAR) as it:
        assert (await it.hears("boot"))["charge_point_vendor"] == "Lamina"
        await it.hears("status", status="Available", error_code="NoError", connector_id=1)
        it.run(2.0)
        assert it.model.power_w == 0, "no energy without a transaction"
        began = await it.hears("start", connector_id=1)
        assert began["meter_start"] == 0
        await it.hears("status", status="SuspendedEV")
        it.run(3.0)
        await it.hears("status", status="Charging")
        assert it.model.power_w > 22_000
        it.model.faulted = True
        await it.hears("status", status="Faulted", error_code="OtherError")
        it.model.faulted = False
        it.run(100.0)
        stopped = await it.hears("stop", transaction_id=1)
        assert (stopped["reason"], stopped["meter_stop"]) == ("EVDisconnected", int(it.model.energy_import_wh))
        await it.hears("status", status="Available")


async def test_it_is_not_accepted_before_it_is() -> None:
    async with central(A_CAR, prepared=lambda it: it.boot_answers.append("Pending")) as it:
        it.run(2.0)
        await it.hears("boot")
        assert not it.twin.connected
        assert it.said("start") == []
        await it.hears("boot")
        await it.hears("start")


async def test_it_says_who_it_is_and_tries_again_when_it_is_not_believed() -> None:
    async with central(prepared=lambda it: setattr(it, "refuse", True), password="a word") as it:
        await it.until(lambda: len(it.requests) >= 2)
        assert it.requests[0].path == "/ocpp/CP1"
        secret = base64.b64encode(b"CP1:a word").decode()
        assert it.requests[0].headers["Authorization"] == f"Basic {secret}"
        assert it.said("boot") == []
        it.refuse = False
        await it.hears("boot")


async def test_profiles_are_followed_end_by_themselves_and_outlast_a_connection() -> None:
    async with central(A_CAR) as it:
        await it.hears("boot")
        it.run(2.0)
        await it.hears("start")
        assert await it.limit(10.0) == "Accepted"
        it.run(1.0)
        assert it.model.offered_current_a == 10
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(it.utc() + 20))
        assert await it.limit(0.0, charging_profile_id=2, stack_level=1, valid_to=ends) == "Accepted"
        it.run(3.0)
        await it.hears("status", status="SuspendedEVSE")
        assert it.model.power_w == 0
        assert it.side is not None
        side = it.side
        await side._connection.close()
        await it.until(lambda: it.side is not side)
        it.run(2.0)
        assert it.model.offered_current_a == 0
        await it.hears("status", status="SuspendedEVSE")
        it.run(20.0)
        assert it.model.offered_current_a == 10, "by its own clock"
        assert it.said("boot") == []
        assert (await it.ask(call.ClearChargingProfile(id=1))).status == "Accepted"
        assert (await it.ask(call.ClearChargingProfile(id=1))).status == "Unknown"
        it.run(0.1)
        assert it.model.offered_current_a == 32


async def test_transactions_are_ended_and_begun_from_afar() -> None:
    async with central(A_CAR) as it:
        await it.hears("boot")
        it.run(2.0)
        await it.hears("start")
        await it.hears("status", status="SuspendedEV")
        assert (await it.ask(call.RemoteStartTransaction("TAG"))).status == "Rejected"
        assert (await it.ask(call.RemoteStopTransaction(9))).status == "Rejected"
        assert (await it.ask(call.RemoteStopTransaction(1))).status == "Accepted"
        assert (await it.hears("stop"))["reason"] == "Remote"
        await it.hears("status", status="Finishing")
        it.run(3.0)
        assert it.model.power_w == 0
        assert (await it.ask(call.RemoteStartTransaction("TAG"))).status == "Accepted"
        assert (await it.hears("start"))["id_tag"] == "TAG"
        await it.hears("status", status="SuspendedEV")
        assert it.twin.transaction is not None
        assert it.twin.transaction.number == 2


async def test_who_is_not_authorized_gets_no_energy() -> None:
    async with central(A_CAR, prepared=lambda it: setattr(it, "verdict", "Invalid")) as it:
        await it.hears("boot")
        it.run(2.0)
        await it.hears("start")
        await it.hears("status", status="Finishing")
        it.run(5.0)
        assert it.model.power_w == 0
        assert it.said("start") == []


async def test_it_tells_what_it_is_asked_for() -> None:
    async with central(A_CAR) as it:
        await it.hears("boot")
        it.run(2.0)
        await it.hears("status", status="SuspendedEV")
        measurands = "Power.Active.Import,Energy.Active.Import.Register,Current.Import,Voltage"
        changed = await it.ask(call.ChangeConfiguration("MeterValuesSampledData", measurands))
        assert changed.status == "Accepted"
        it.run(3.0)
        assert (await it.ask(call.TriggerMessage("MeterValues", 1))).status == "Accepted"
        values = (await it.hears("values", transaction_id=1))["meter_value"][0]["sampled_value"]
        assert {each["context"] for each in values} == {"Trigger"}
        power = next(each for each in values if each["measurand"] == "Power.Active.Import")
        assert (float(power["value"]), power["unit"]) == (pytest.approx(it.model.power_w, abs=1e-3), "W")
        assert [each["phase"] for each in values if each["measurand"] == "Current.Import"] == ["L1", "L2", "L3"]
        it.heard.clear()
        for message, told in (
            ("StatusNotification", "status"),
            ("Heartbeat", "heartbeat"),
            ("BootNotification", "boot"),
        ):
            assert (await it.ask(call.TriggerMessage(message))).status == "Accepted"
            await it.hears(told)
        assert (await it.ask(call.TriggerMessage("FirmwareStatusNotification"))).status == "NotImplemented"
        assert (await it.ask(call.TriggerMessage("MeterValues", 2))).status == "Rejected"


async def test_meter_values_and_heartbeats_come_by_themselves() -> None:
    async with central(A_CAR) as it:
        await it.hears("boot")
        it.run(2.0)
        await it.hears("start")
        for key in ("MeterValueSampleInterval", "HeartbeatInterval"):
            assert (await it.ask(call.ChangeConfiguration(key, "1"))).status == "Accepted"
        await it.hears("values", transaction_id=1)
        await it.hears("heartbeat")


async def test_availability_and_reset() -> None:
    async with central(A_CAR) as it:
        await it.hears("boot")
        assert (await it.ask(call.ChangeAvailability(1, "Inoperative"))).status == "Accepted"
        await it.hears("status", status="Unavailable")
        it.run(2.0)
        assert (await it.ask(call.ChangeAvailability(1, "Operative"))).status == "Accepted"
        await it.hears("start")
        assert (await it.ask(call.Reset("Soft"))).status == "Accepted"
        await it.hears("boot")
        await it.hears("status")
        assert it.twin.connections == 2


async def test_what_it_does_not_know_is_an_error_and_no_end() -> None:
    async with central() as it:
        await it.hears("boot")
        with pytest.raises(Exception, match="No handler for ReserveNow"):
            await it.ask(call.ReserveNow(1, "2030-01-01T00:00:00Z", "TAG", 1))
        assert it.side is not None
        await it.side._connection.send("no json")
        await it.side._connection.send('[2, "x", "SetChargingProfile", {"connectorId": "one"}]')
        assert (await it.ask(call.TriggerMessage("Heartbeat"))).status == "Accepted"
        await it.hears("heartbeat")
        assert it.twin.connections == 1


# The configuration


def test_keys_are_read_changed_and_refused() -> None:
    settings = Settings()
    known, unknown = settings.read(["ChargeProfileMaxStackLevel", "NoSuchKey"])
    assert known == [{"key": "ChargeProfileMaxStackLevel", "readonly": True, "value": "8"}]
    assert unknown == ["NoSuchKey"]
    assert {"HeartbeatInterval", "MeterValuesSampledData"} <= {each["key"] for each in settings.read([])[0]}
    assert settings.change("HeartbeatInterval", "5") == "Accepted"
    assert settings.heartbeat_s == 5
    for value in ("", "-1", "1.5", "١٢", "9" * 20):
        assert settings.change("HeartbeatInterval", value) == "Rejected", value
    assert settings.change("MeterValuesSampledData", "Voltage,SoC") == "Rejected"
    assert settings.change("MeterValuesSampledData", "Voltage, Frequency") == "Accepted"
    assert settings.measurands == ["Voltage", "Frequency"]
    assert settings.change("NumberOfConnectors", "2") == "Rejected"
    assert settings.change("NoSuchKey", "2") == "NotSupported"


def test_a_charger_on_one_phase_samples_that_phase() -> None:
    model = ChargerModel("left", 7_360.0, DeviceTwin(), phases=(2,))
    values = sampled_values(model, ["Voltage", "Current.Import", "SoC"], asked=False)
    assert [(each["measurand"], each["phase"]) for each in values] == [("Voltage", "L2-N"), ("Current.Import", "L2")]
