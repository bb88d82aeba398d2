"""A go-e charger (Gemini, HOME+ V3) on MQTT, with the keys of its vendor's public API.

Source of every key, type and topic: go-e GmbH, "go-eCharger API v2", pages "API keys" and "MQTT", as published for
firmware 051.5 and later. Payloads are JSON; values are retained on `go-eCharger/{serial}/{key}`, writes come on
`.../{key}/set`, and each is answered, not retained, on `.../{key}/result`: `success`, or else text that says what was
wrong. A real one evaluates its charging logic and publishes about once a second; the twin's `publish_interval_s` is
shorter unless told otherwise. When nobody writes to it, it keeps what it was told last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

import aiomqtt

from config.vocabulary import ChargingState, Clock
from sim_devices.models import MINIMUM_CURRENT_A, ChargerModel
from sim_devices.until import ended

PREFIX: Final = "go-eCharger"
PUBLISH_INTERVAL_S: Final = 0.2
RECONNECT_S: Final = (0.2, 2.0)
"""First and longest pause between two attempts to reach the broker."""

KEEPALIVE_S: Final = 10
TIMEOUT_S: Final = 5.0
MAX_PAYLOAD: Final = 64
SUCCESS: Final = "success"
"""Longest payload of a write, in bytes; every value that can be written is a small number."""

# "API keys", key frc: forceState.
FORCE_NEUTRAL, FORCE_OFF, FORCE_ON = 0, 1, 2

# "API keys", key psm: phaseSwitchMode.
PHASES_AUTO, PHASES_ONE, PHASES_THREE = 0, 1, 2

# "API keys", key car: carState.
CAR_IDLE, CAR_CHARGING, CAR_WAITING, CAR_COMPLETE, CAR_ERROR = 1, 2, 3, 4, 5

# "API keys", key modelStatus: why charging is allowed or not.
BECAUSE_FORCED_ON, BECAUSE_FORCED_OFF, BECAUSE_DEFAULT = 3, 4, 15


class GoeKeys:
    """The charger's API keys over its model: `values` reads all of them, `write` sets one."""

    def __init__(self, model: ChargerModel, serial: str, clock: Clock) -> None:
        self._model = model
        self._serial = serial
        self._clock = clock
        self._booted_s = clock()
        self._all_phases = model.phases
        self._amp = int(model.requested_current_a)
        self._frc = FORCE_NEUTRAL
        self._psm = PHASES_THREE if len(model.phases) == 3 else PHASES_ONE

    def values(self) -> dict[str, Any]:
        """Every key's value now, as it goes into JSON."""
        model = self._model
        return {
            "sse": self._serial,  # serial number
            "rbt": 1000 * int(self._clock() - self._booted_s),  # time since boot in ms, told once a second
            "typ": "go-eCharger_V3",  # device type
            "var": 22 if model.max_current_a > 16 else 11,  # variant: 11 is 11 kW / 16 A, 22 is 22 kW / 32 A
            "ama": int(model.max_current_a),  # ampere_max limit
            "amp": self._amp,  # requestedCurrent in ampere
            "frc": self._frc,  # forceState
            "psm": self._psm,  # phaseSwitchMode
            "alw": model.offered_current_a >= MINIMUM_CURRENT_A,  # is the car allowed to charge at all now
            "acu": int(model.offered_current_a),  # how many ampere is the car allowed to charge now
            "car": self._car(),  # carState
            "modelStatus": self._reason(),  # reason why charging is allowed or not
            "nrg": self._energy_array(),
            "wh": round(model.session_energy_wh, 2),  # energy in Wh since the car connected
            "eto": int(model.energy_import_wh),  # energy_total in Wh
        }

    def write(self, key: str, payload: bytes) -> str:
        """Take a write and return what the result topic says: `success`, or why nothing was changed."""
        result = self._written(key, payload)
        self._model.refused += result != SUCCESS
        return result

    def _written(self, key: str, payload: bytes) -> str:
        text = payload[:MAX_PAYLOAD].decode("utf-8", "replace")
        if len(payload) > MAX_PAYLOAD:
            return "payload too long"
        try:
            value = json.loads(text)
        except ValueError:
            return f"invalid json: {text}"
        ranges = {
            "amp": (int(MINIMUM_CURRENT_A), int(self._model.max_current_a)),
            "frc": (FORCE_NEUTRAL, FORCE_ON),
            "psm": (PHASES_AUTO, PHASES_THREE),
        }
        if key not in ranges:
            return f"cannot be written: {key}"
        if not isinstance(value, int) or isinstance(value, bool):
            return f"value must be uint8 {text}"
        least, most = ranges[key]
        if not least <= value <= most:
            return f"value must be between {least} and {most}: {text}"
        self._take(key, value)
        return SUCCESS

    def _take(self, key: str, value: int) -> None:
        model = self._model
        if key == "amp":
            self._amp = value
            model.set_current(float(value), None, self._clock())
        elif key == "frc":
            self._frc = value
            model.enabled = value != FORCE_OFF
        else:
            self._psm = value
            model.use_phases(self._all_phases[:1] if value == PHASES_ONE else self._all_phases)

    def _car(self) -> int:
        match self._model.state:
            case ChargingState.A:
                return CAR_IDLE
            case ChargingState.B:
                return CAR_COMPLETE if self._model.complete else CAR_WAITING
            case ChargingState.C | ChargingState.D:
                return CAR_CHARGING
            case _:
                return CAR_ERROR

    def _reason(self) -> int:
        return {FORCE_OFF: BECAUSE_FORCED_OFF, FORCE_ON: BECAUSE_FORCED_ON}.get(self._frc, BECAUSE_DEFAULT)

    def _energy_array(self) -> list[float]:
        """Key nrg: U (L1, L2, L3, N), I (L1, L2, L3), P (L1, L2, L3, N, total), power factor (L1, L2, L3, N)."""
        model = self._model
        voltages, currents, powers = model.voltage_v_by_phase, model.current_a_by_phase, model.power_w_by_phase
        factors = [100 if power > 0 else 0 for power in powers]
        return [
            *(round(value, 1) for value in voltages),
            0,
            *(round(value, 2) for value in currents),
            *(round(value, 1) for value in powers),
            0,
            round(model.power_w, 1),
            *factors,
            0,
        ]


class MqttCharger:
    """The charger as a client of a broker: `run` connects, serves and reconnects until it is cancelled.

    `connected` tells whether the broker has it now. Its availability is the retained key `mcc`, which is also its last
    will ("MQTT", section Last Will).
    """

    def __init__(
        self,
        model: ChargerModel,
        clock: Clock,
        *,
        serial: str,
        host: str,
        port: int,
        publish_interval_s: float = PUBLISH_INTERVAL_S,
        username: str | None = None,
        password: str | None = None,
        seed: int = 0,
        new_client: Callable[..., Any] | None = None,
    ) -> None:
        self.connected = False
        self.connections = 0
        self._keys = GoeKeys(model, serial, clock)
        self._base = f"{PREFIX}/{serial}"
        self._identifier = f"go-echarger_{serial}"
        self._host = host
        self._port = port
        self._publish_interval_s = publish_interval_s
        self._username = username
        self._password = password
        self._rng = Random(f"{seed}/{serial}")
        self._new_client = new_client or aiomqtt.Client
        self._published: dict[str, Any] = {}
        self._dirty = asyncio.Event()

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
        availability = f"{self._base}/mcc"
        client = self._new_client(
            self._host,
            self._port,
            identifier=self._identifier,
            username=self._username,
            password=self._password,
            will=aiomqtt.Will(availability, b"false", qos=1, retain=True),
            protocol=aiomqtt.ProtocolVersion.V311,
            keepalive=KEEPALIVE_S,
            timeout=TIMEOUT_S,
            max_queued_incoming_messages=100,
            max_queued_outgoing_messages=1000,
        )
        async with client:
            # A connection that breaks while this end is leaving is nobody's news, and would be logged as an exception.
            client._disconnected.add_done_callback(lambda future: future.cancelled() or future.exception())
            await client.subscribe(f"{self._base}/+/set")
            await client.publish(availability, b"true", qos=1, retain=True)
            self._published.clear()
            self.connections += 1
            self.connected = True
            publishing = asyncio.create_task(self._publish_forever(client), name=f"publish {self._base}")
            try:
                await self._take_writes(client)
            except asyncio.CancelledError:
                # An orderly end says so itself; the will is for the other kind.
                with contextlib.suppress(aiomqtt.MqttError):
                    await client.publish(availability, b"false", qos=1, retain=True, timeout=1.0)
                raise
            finally:
                self.connected = False
                await ended(publishing)

    async def _publish_forever(self, client: aiomqtt.Client) -> None:
        while True:
            self._dirty.clear()
            await self._publish_changes(client)
            try:
                async with asyncio.timeout(self._publish_interval_s):
                    await self._dirty.wait()
            except TimeoutError:
                continue

    async def _publish_changes(self, client: aiomqtt.Client) -> None:
        for key, value in self._keys.values().items():
            if self._published.get(key) != value:
                await client.publish(f"{self._base}/{key}", json.dumps(value), retain=True)
                self._published[key] = value

    async def _take_writes(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            key = str(message.topic).split("/")[-2]
            payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
            result = self._keys.write(key, payload)
            await client.publish(f"{self._base}/{key}/result", result)
            self._dirty.set()
