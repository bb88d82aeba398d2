"""A Shelly Pro 3EM on MQTT: its EM and EMData components, in the triphase profile.

Sources, seen: Shelly, "Shelly Technical Documentation", Gen2: page "Shelly Pro 3 EM" (components em:0 and emdata:0;
what is reported when a value passes its threshold: power 5 % and 10 W, voltage 5 % and 1 V, current 5 % and 0.05 A;
energy in intervals of a minute) and page "MQTT" (QoS 1; the whole status on `<topic_prefix>/status/<component:id>`;
RPC on `<topic_prefix>/rpc`, answered on `<src>/rpc`; notifications on `<topic_prefix>/events/rpc`). Keys, units and
decimals are those of the example of EM.GetStatus and of recorded messages of devices; evcc (meter/shelly/gen2.go) and
Victron's driver read the same ones. Active power is positive for import where the clamps point to the load; currents
have no sign.

As reported by users: `online` is a retained "true", its last will a retained "false"; "status_update" on
`<topic_prefix>/command` makes the device publish every status. Status messages are not retained here: nobody says that
they are. "Device reports periodically on a predefined interval, regardless of the thresholds": here each second, as
with the script on the device that users publish em:0 by, without which no connection point can be held by this meter.
A meter that fails names `power_meter_failure` among its errors, and shows null for its values.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

import aiomqtt

from config.vocabulary import Clock
from sim_devices.models import MeterModel
from sim_devices.until import ended

MEASURE_S: Final = 1.0
"""How often a value is held against its threshold."""

REPORT_S: Final = 1.0
ENERGY_S: Final = 60.0
RECONNECT_S: Final = (0.2, 2.0)
"""First and longest pause between two attempts to reach the broker."""

KEEPALIVE_S: Final = 10
TIMEOUT_S: Final = 5.0
MAX_PAYLOAD: Final = 4096
PHASES: Final = "abc"
EM: Final = "em:0"
EM_DATA: Final = "emdata:0"
NOT_FOUND: Final = 404

# "Shelly Pro 3 EM", Parameters: share of the last value reported, and absolute difference; both must be passed.
THRESHOLDS: Final[Mapping[str, tuple[float, float]]] = {
    "act_power": (0.05, 10.0),
    "voltage": (0.05, 1.0),
    "current": (0.05, 0.05),
}

Status = dict[str, Any]


class ShellyComponents:
    """The statuses of the components over a meter's model."""

    def __init__(self, model: MeterModel, device_id: str) -> None:
        self._model = model
        self._device_id = device_id

    def em(self) -> Status:
        """EM.GetStatus, in V, A, W, VA and Hz."""
        model = self._model
        if not model.valid:
            return self._failed()
        status: Status = {"id": 0}
        volts, amperes, watts = model.voltage_v_by_phase, model.current_a_by_phase, model.power_w_by_phase
        for name, volt, ampere, watt in zip(PHASES, volts, amperes, watts, strict=True):
            status |= {
                f"{name}_current": round(abs(ampere), 3),
                f"{name}_voltage": round(volt, 1),
                f"{name}_act_power": round(watt, 1),
                f"{name}_aprt_power": round(abs(watt), 1),
                f"{name}_pf": 1.0,
                f"{name}_freq": round(model.frequency_hz, 1),
            }
        return status | {
            "n_current": None,
            "total_current": round(sum(map(abs, amperes)), 3),
            "total_act_power": round(model.power_w, 3),
            "total_aprt_power": round(sum(map(abs, watts)), 3),
            "user_calibrated_phase": [],
        }

    def _failed(self) -> Status:
        each = ("current", "voltage", "act_power", "aprt_power", "pf", "freq")
        values = {f"{name}_{key}": None for name in PHASES for key in each}
        sums = dict.fromkeys(("n_current", "total_current", "total_act_power", "total_aprt_power"))
        return {"id": 0, **values, **sums, "user_calibrated_phase": [], "errors": ["power_meter_failure"]}

    def em_data(self) -> Status:
        """EMData.GetStatus, in Wh: what was imported, and returned."""
        imported, returned = self._model.energy_import_wh, self._model.energy_export_wh
        status: Status = {"id": 0}
        for name in PHASES:
            status[f"{name}_total_act_energy"] = round(imported / 3, 2)
            status[f"{name}_total_act_ret_energy"] = round(returned / 3, 2)
        return status | {"total_act": round(imported, 2), "total_act_ret": round(returned, 2)}

    def answer(self, request: bytes) -> tuple[str, Status] | None:
        """Where the answer to an RPC goes, and what it is; None for what is no request with a source."""
        try:
            frame = json.loads(request[:MAX_PAYLOAD])
        except (ValueError, RecursionError):
            return None
        source = frame.get("src") if isinstance(frame, dict) else None
        if not isinstance(source, str) or not source or any(character in source for character in "+#\0"):
            return None
        methods: Mapping[object, Callable[[], Status]] = {
            "EM.GetStatus": self.em,
            "EMData.GetStatus": self.em_data,
            "Shelly.GetStatus": lambda: {EM: self.em(), EM_DATA: self.em_data()},
            "Shelly.GetDeviceInfo": self._device_info,
        }
        said: Status = {"id": frame.get("id"), "src": self._device_id, "dst": source}
        method = frame.get("method")
        act = methods.get(method) if isinstance(method, str) else None
        if act is None:
            return source, said | {"error": {"code": NOT_FOUND, "message": f"No handler for {method}"}}
        return source, said | {"result": act()}

    def _device_info(self) -> Status:
        return {
            "id": self._device_id,
            "model": "SPEM-003CEBEU",
            "gen": 2,
            "ver": "1.4.4",
            "app": "Pro3EM",
            "auth_en": False,
            "profile": "triphase",
        }


def passes_threshold(reported: Status, now: Status) -> bool:
    """Whether a value of EM has moved so far that the device reports it."""
    if ("errors" in reported) != ("errors" in now):
        return True
    for name in PHASES:
        for key, (share, least) in THRESHOLDS.items():
            old, new = reported.get(f"{name}_{key}"), now.get(f"{name}_{key}")
            if old is not None and new is not None and abs(new - old) >= max(least, share * abs(old)):
                return True
    return False


class ShellyMeter:
    """The meter as a client of a broker: `run` connects, serves and reconnects until it is cancelled.

    `clock` says when the next report is due; `look_s` is how often that is looked at.
    """

    def __init__(
        self,
        model: MeterModel,
        clock: Clock,
        *,
        topic_prefix: str,
        host: str,
        port: int,
        look_s: float = MEASURE_S,
        username: str | None = None,
        password: str | None = None,
        seed: int = 0,
        new_client: Callable[..., Any] | None = None,
    ) -> None:
        self.connected = False
        self.connections = 0
        self._components = ShellyComponents(model, topic_prefix)
        self._clock = clock
        self._prefix = topic_prefix
        self._host = host
        self._port = port
        self._look_s = look_s
        self._username = username
        self._password = password
        self._rng = Random(f"{seed}/{topic_prefix}")
        self._new_client = new_client or aiomqtt.Client
        self._reported: Status = {}
        self._report_due_s = self._energy_due_s = float("-inf")

    async def run(self) -> None:
        """Serve until cancelled; a broker that is away is tried again, ever more slowly."""
        pause_s, longest_s = RECONNECT_S
        while True:
            connections = self.connections
            try:
                await self._session()
            except aiomqtt.MqttError:
                # A disconnection that fails while being cancelled must not turn the cancellation into another attempt.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError from None
            if self.connections > connections:
                pause_s = RECONNECT_S[0]
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(2.0 * pause_s, longest_s)

    async def _session(self) -> None:
        online = f"{self._prefix}/online"
        client = self._new_client(
            self._host,
            self._port,
            identifier=self._prefix.replace("/", "-"),
            username=self._username,
            password=self._password,
            will=aiomqtt.Will(online, b"false", qos=1, retain=True),
            protocol=aiomqtt.ProtocolVersion.V311,
            keepalive=KEEPALIVE_S,
            timeout=TIMEOUT_S,
            max_queued_incoming_messages=100,
            max_queued_outgoing_messages=1000,
        )
        async with client:
            # A connection that breaks while this end is leaving is nobody's news, and would be logged as an exception.
            client._disconnected.add_done_callback(lambda future: future.cancelled() or future.exception())
            await client.subscribe([(f"{self._prefix}/rpc", 1), (f"{self._prefix}/command", 1)])
            await client.publish(online, b"true", qos=1, retain=True)
            self._report_due_s = self._energy_due_s = float("-inf")
            self.connections += 1
            self.connected = True
            reporting = asyncio.create_task(self._report_forever(client), name=f"report {self._prefix}")
            try:
                await self._take_requests(client)
            except asyncio.CancelledError:
                # An orderly end says so itself; the will is for the other kind.
                with contextlib.suppress(aiomqtt.MqttError):
                    await client.publish(online, b"false", qos=1, retain=True, timeout=1.0)
                raise
            finally:
                self.connected = False
                await ended(reporting)

    async def _report_forever(self, client: aiomqtt.Client) -> None:
        while True:
            await self._report(client)
            await asyncio.sleep(self._look_s)

    async def _report(self, client: aiomqtt.Client) -> None:
        now_s, em = self._clock(), self._components.em()
        if now_s >= self._report_due_s or passes_threshold(self._reported, em):
            self._reported, self._report_due_s = em, now_s + REPORT_S
            await self._publish(client, EM, em)
        if now_s >= self._energy_due_s:
            self._energy_due_s = now_s + ENERGY_S
            await self._publish(client, EM_DATA, self._components.em_data())

    async def _publish(self, client: aiomqtt.Client, component: str, status: Status) -> None:
        await client.publish(f"{self._prefix}/status/{component}", json.dumps(status), qos=1)
        notification = {
            "src": self._prefix,
            "dst": f"{self._prefix}/events",
            "method": "NotifyStatus",
            "params": {component: status},
        }
        await client.publish(f"{self._prefix}/events/rpc", json.dumps(notification), qos=1)

    async def _take_requests(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
            if str(message.topic).endswith("/command"):
                if payload == b"status_update":
                    self._report_due_s = self._energy_due_s = float("-inf")
                    await self._report(client)
                continue
            answer = self._components.answer(payload)
            if answer is not None:
                await client.publish(f"{answer[0]}/rpc", json.dumps(answer[1]), qos=1)
