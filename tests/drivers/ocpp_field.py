"""A charger with OCPP 1.6J, built on the ocpp package's own charge point, for the tests of the driver."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import ocpp.messages
from ocpp.routing import on
from ocpp.v16 import ChargePoint, call, call_result
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

# Else each message is checked in a thread, and the threads outlive the tests.
ocpp.messages.ASYNC_VALIDATION = False
_QUIET = logging.getLogger("tests.ocpp")
_QUIET.setLevel(logging.CRITICAL + 1)


class Charger(ChargePoint):  # type: ignore[misc]
    """One charger of one connector: what it was asked, what it answers, and the charging profiles it holds."""

    def __init__(self, connection: ClientConnection, identity: str) -> None:
        super().__init__(identity, connection, 5, logger=_QUIET)
        self.socket = connection
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refuses: dict[str, str] = {}
        self.deaf_to: set[str] = set()
        self.configuration = {
            "ChargingScheduleAllowedChargingRateUnit": "Current,Power",
            "ChargeProfileMaxStackLevel": "8",
        }
        self.unsupported: set[str] = set()
        self.profiles: dict[int, dict[str, Any]] = {}
        self.transaction: int | None = None
        self._was_asked = asyncio.Event()

    # What it says

    async def boots(self) -> Any:
        return await self.call(call.BootNotification("Model", "Vendor", firmware_version="1.2"))

    async def beats(self) -> Any:
        return await self.call(call.Heartbeat())

    async def status(self, status: str, connector: int = 1) -> None:
        await self.call(call.StatusNotification(connector, "NoError", status))

    async def measures(self, *values: dict[str, Any], age_s: float = 0.0, connector: int = 1) -> None:
        said = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="milliseconds")
        meter_value = [{"timestamp": said, "sampledValue": list(values)}]
        await self.call(call.MeterValues(connector, meter_value, self.transaction), skip_schema_validation=True)

    async def starts(self, id_tag: str = "TAG", meter_start: int = 1000, timestamp: str = "") -> Any:
        said = timestamp or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        answer = await self.call(call.StartTransaction(1, id_tag, meter_start, said))
        self.transaction = answer.transaction_id
        return answer

    async def stops(self) -> None:
        assert self.transaction is not None
        number, self.transaction = self.transaction, None
        self.profiles = {k: p for k, p in self.profiles.items() if p["chargingProfilePurpose"] != "TxProfile"}
        await self.call(call.StopTransaction(2000, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), number))

    # What it was asked

    def all(self, action: str) -> list[dict[str, Any]]:
        return [payload for name, payload in self.asked if name == action]

    def setpoints(self) -> list[dict[str, Any]]:
        """The charging profiles above the fallback's level."""
        return [
            profile
            for payload in self.all("SetChargingProfile")
            if (profile := payload["csChargingProfiles"])["chargingProfileId"] % 10 != 1
        ]

    async def until(self, condition: Callable[[], bool], within_s: float = 5.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                self._was_asked.clear()
                await self._was_asked.wait()

    async def is_set_up(self) -> None:
        await self.until(lambda: any(p["key"] == "MeterValuesSampledData" for p in self.all("ChangeConfiguration")))

    def limit(self, after_s: float = 0.0) -> float | None:
        """What it lets a car draw, some time from now: the highest valid profile of the running or next transaction."""
        now = datetime.now(UTC) + timedelta(seconds=after_s)
        valid = [profile for profile in self.profiles.values() if _is_valid(profile, now)]
        running = [p for p in valid if p["chargingProfilePurpose"] == "TxProfile"]
        best = max(running or valid, key=lambda profile: int(profile["stackLevel"]), default=None)
        return None if best is None else float(best["chargingSchedule"]["chargingSchedulePeriod"][0]["limit"])

    async def route_message(self, raw: str) -> None:
        message = json.loads(raw)
        if message[0] != 2:
            await super().route_message(raw)
            return
        self.asked.append((message[2], message[3]))
        if message[2] not in self.deaf_to:
            await super().route_message(raw)
        self._was_asked.set()

    @on("GetConfiguration")
    def on_get_configuration(self, key: list[str]) -> Any:
        known = [{"key": k, "readonly": True, "value": self.configuration[k]} for k in key if k in self.configuration]
        return call_result.GetConfiguration(known, [k for k in key if k not in self.configuration])

    @on("ChangeConfiguration")
    def on_change_configuration(self, key: str, value: str) -> Any:
        if any(word in self.unsupported for word in (key, *value.split(","))):
            return call_result.ChangeConfiguration("Rejected")
        self.configuration[key] = value
        return call_result.ChangeConfiguration("Accepted")

    @on("SetChargingProfile")
    def on_set_charging_profile(self, connector_id: int, cs_charging_profiles: dict[str, Any]) -> Any:
        new = self.all("SetChargingProfile")[-1]["csChargingProfiles"]
        verdict = self.refuses.get(f"SetChargingProfile {new['chargingProfileId'] % 10}", "Accepted")
        if verdict == "Accepted":
            place = ("chargingProfilePurpose", "stackLevel")
            same = [k for k, old in self.profiles.items() if all(old[field] == new[field] for field in place)]
            for number in {*same, new["chargingProfileId"]} & self.profiles.keys():
                del self.profiles[number]
            self.profiles[new["chargingProfileId"]] = new
        return call_result.SetChargingProfile(verdict)

    @on("ClearChargingProfile")
    def on_clear_charging_profile(self, id: int) -> Any:
        return call_result.ClearChargingProfile("Accepted" if self.profiles.pop(id, None) else "Unknown")

    @on("TriggerMessage")
    def on_trigger_message(self, requested_message: str, connector_id: int) -> Any:
        return call_result.TriggerMessage(self.refuses.get("TriggerMessage", "Accepted"))

    @on("RemoteStartTransaction")
    def on_remote_start(self, id_tag: str, connector_id: int) -> Any:
        return call_result.RemoteStartTransaction(self.refuses.get("RemoteStartTransaction", "Accepted"))

    @on("RemoteStopTransaction")
    def on_remote_stop(self, transaction_id: int) -> Any:
        verdict = "Accepted" if transaction_id == self.transaction else "Rejected"
        return call_result.RemoteStopTransaction(verdict)


def power(watts: float, **fields: str) -> dict[str, Any]:
    return {"value": str(watts), "measurand": "Power.Active.Import", "unit": "W", **fields}


def _is_valid(profile: dict[str, Any], now: datetime) -> bool:
    schedule = profile["chargingSchedule"]
    if "validTo" in profile and now >= datetime.fromisoformat(profile["validTo"]):
        return False
    if profile["chargingProfileKind"] != "Absolute":
        return True
    start = datetime.fromisoformat(schedule["startSchedule"])
    return start <= now < start + timedelta(seconds=schedule["duration"])


def authorization(user: str, password: str | bytes) -> dict[str, str]:
    word = password.encode() if isinstance(password, str) else password
    return {"Authorization": "Basic " + base64.b64encode(user.encode() + b":" + word).decode()}


def dial(
    port: int,
    identity: str = "CP1",
    *,
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    subprotocols: tuple[str, ...] = ("ocpp1.6",),
) -> connect:
    """The WebSocket alone."""
    return connect(
        f"{'ws' if tls is None else 'wss'}://127.0.0.1:{port}/some/path/{identity}",
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        additional_headers=headers or {},
        ssl=tls,
        proxy=None,
        compression=None,
        logger=_QUIET,
        close_timeout=1,
    )


@contextlib.asynccontextmanager
async def online(port: int, identity: str = "CP1", boots: bool = True, **how: Any) -> AsyncIterator[Charger]:
    """A charger that is connected, and has booted unless it was only cut off."""
    prepared: Callable[[Charger], None] = how.pop("prepared", lambda _: None)
    async with dial(port, identity, **how) as connection:
        charger = Charger(connection, identity)
        prepared(charger)
        listening = asyncio.create_task(_listen(charger), name=f"charger {identity}")
        try:
            if boots:
                await charger.boots()
            yield charger
        finally:
            await connection.close()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _listen(charger: Charger) -> None:
    with contextlib.suppress(ConnectionClosed):
        await charger.start()


SERIALS = itertools.count(1)


def frame(action: str, payload: Any) -> str:
    """A request as it goes over the wire, right or wrong."""
    return json.dumps([2, f"raw-{next(SERIALS)}", action, payload])
