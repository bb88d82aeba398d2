"""A charge point with OCPP 1.6J and one connector, as a client of the central system.

Source: OCPP 1.6 edition 2: sections 4.2 (BootNotification, its interval and retry), 4.6 (Heartbeat), 4.7 (MeterValues),
4.8 to 4.10 (transactions, StatusNotification and its states), 5.1 to 5.17 (what the central system asks), 9.1 and 9.4
(configuration keys); OCPP-J 1.6, sections 3 and 4 (WebSocket, `ocpp1.6`, basic authentication).

What this charge point chose where the standard leaves it: it needs no card (its id tag is configured) and begins a
transaction when a car plugs in; it supplies energy, and samples meter values, in transactions alone; its clock is
right, and isn't set by the central system; profiles last until they end or are cleared, across connections. A
transaction that begins or ends while the central system is away is told when it is back, and supplies nothing before.
Not served, and answered NotImplemented: reservations, local lists, firmware, diagnostics, composite schedules.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import time
from datetime import UTC, datetime
from random import Random
from typing import Final

import ocpp.messages
from ocpp.exceptions import OCPPError
from ocpp.v16 import call
from ocpp.v16.enums import ChargePointErrorCode, ChargePointStatus, MessageTrigger, Reason, RegistrationStatus
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from config.vocabulary import ChargingState, Clock, UtcClock
from sim_devices.models import MINIMUM_CURRENT_A, ChargerModel
from sim_devices.ocpp_limits import ChargingProfiles, Transaction
from sim_devices.ocpp_requests import CONNECTOR, QUIET, TIMEOUT_S, CentralRequests
from sim_devices.ocpp_settings import Settings, sampled_values
from sim_devices.until import ended

# Else each message is checked in a thread of its own.
ocpp.messages.ASYNC_VALIDATION = False

LOOK_S: Final = 0.1
"""How often the twin looks at its car, its profiles and what is due."""

RECONNECT_S: Final = (0.2, 2.0)
"""First and longest pause between two attempts to reach the central system."""

LARGEST_MESSAGE: Final = 65_536
ID_TAG: Final = "PLUG-AND-CHARGE"


class OcppCharger:
    """The charge point: `run` connects, serves and reconnects until it is cancelled.

    `clock` is that of the model's physics, `utc` the charge point's own, by which profiles begin and end. `tls` is what
    the central system's certificate is held against, for a `url` of wss.
    """

    def __init__(
        self,
        model: ChargerModel,
        clock: Clock,
        *,
        url: str,
        identity: str,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        id_tag: str | None = None,
        utc: UtcClock = time.time,
        seed: int = 0,
    ) -> None:
        self.connected = False
        self.connections = 0
        self.profiles = ChargingProfiles(len(model.phases), model.nominal_voltage_v)
        self.settings = Settings()
        self.transaction: Transaction | None = None
        self.operative = True
        self._model = model
        self._clock = clock
        self._utc = utc
        self._url = f"{url.rstrip('/')}/{identity}"
        self._identity = identity
        self._password = password
        self._tls = tls
        self._rng = Random(f"{seed}/{identity}")
        self._booted = False
        self._may_begin = True
        self._id_tag = id_tag or ID_TAG
        self._stop_reason: Reason | None = None
        self._session = model.sessions
        self._offered_a: float | None = None
        self._told_status: str | None = None
        self._wanted: set[str] = set()
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled; a central system that is away is tried again, ever more slowly."""
        limiting = asyncio.create_task(self._keep_limit(), name=f"limit {self._identity}")
        pause_s, longest_s = RECONNECT_S
        try:
            while True:
                connections = self.connections
                with contextlib.suppress(OSError, TimeoutError, WebSocketException, OCPPError):
                    await self._connection()
                if self.connections > connections:
                    pause_s = RECONNECT_S[0]
                await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(2.0 * pause_s, longest_s)
        finally:
            await ended(limiting)

    def evaluate(self) -> None:
        """Offer what the profiles allow now, in a transaction; nothing without one."""
        limit_a = self.profiles.limit_a(self._utc(), self.transaction)
        most_a = self._model.max_current_a
        offered_a = most_a if limit_a is None else min(limit_a, most_a)
        if offered_a != self._offered_a:
            self._offered_a = offered_a
            self._model.set_current(offered_a, None, self._clock())
        self._model.enabled = self.transaction is not None and self.operative

    async def _keep_limit(self) -> None:
        while True:
            self.evaluate()
            await asyncio.sleep(LOOK_S)

    async def _connection(self) -> None:
        headers = {}
        if self._password is not None:
            secret = f"{self._identity}:{self._password}".encode()
            headers["Authorization"] = "Basic " + base64.b64encode(secret).decode()
        async with connect(
            self._url,
            subprotocols=[Subprotocol("ocpp1.6")],
            additional_headers=headers,
            ssl=self._tls,
            proxy=None,
            compression=None,
            open_timeout=TIMEOUT_S,
            close_timeout=1.0,
            max_size=LARGEST_MESSAGE,
            logger=QUIET,
        ) as socket:
            point = CentralRequests(self, self._identity, socket)
            tasks = [
                asyncio.create_task(point.start(), name=f"listen {self._identity}"),
                asyncio.create_task(self._serve(point), name=f"serve {self._identity}"),
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                self.connected = False
                await ended(*tasks)

    async def _serve(self, point: CentralRequests) -> None:
        """Boot, where it hasn't yet, and tell what happens, until a reset or the connection's end."""
        while not self._booted:
            await self._boot(point)
        self.connections += 1
        self.connected = True
        self._told_status = None
        loop = asyncio.get_running_loop()
        beaten_s = sampled_s = loop.time()
        while self._booted:
            self._woken.clear()
            self.evaluate()
            await self._follow_car(point)
            await self._tell_wanted(point)
            now_s = loop.time()
            if 0 < self.settings.heartbeat_s <= now_s - beaten_s:
                beaten_s = now_s
                await point.call(call.Heartbeat())
            if self.transaction is None:
                sampled_s = now_s
            elif 0 < self.settings.sample_interval_s <= now_s - sampled_s:
                sampled_s = now_s
                await self._tell_meter_values(point, asked=False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()

    async def _boot(self, point: CentralRequests) -> None:
        said = call.BootNotification("Twin", "Lamina", charge_point_serial_number=self._identity[:25])
        answer = await point.call(said)
        if answer is None or answer.status != RegistrationStatus.accepted:
            await asyncio.sleep(max(answer.interval if answer is not None else 0, 1))
            return
        self.settings.set_heartbeat(answer.interval)
        self._booted = True

    async def _follow_car(self, point: CentralRequests) -> None:
        model = self._model
        left = model.ev is None or model.sessions != self._session
        if self.transaction is not None and (left or self._stop_reason is not None):
            await self._end(point, Reason.ev_disconnected if left else self._stop_reason)
        if left:
            self._session = model.sessions
            self._may_begin = True
        if model.ev is not None and self.transaction is None and self._may_begin and self.operative:
            await self._begin(point)
        await self._tell_status(point)

    async def _begin(self, point: CentralRequests) -> None:
        began_utc = self._utc()
        meter_wh = int(self._model.energy_import_wh)
        answer = await point.call(call.StartTransaction(CONNECTOR, self._id_tag, meter_wh, _text(began_utc)))
        self._may_begin = False
        if answer is not None and answer.id_tag_info["status"] == "Accepted":
            self.transaction = Transaction(answer.transaction_id, began_utc)
            self._stop_reason = None
            self.evaluate()

    async def _end(self, point: CentralRequests, reason: Reason | None) -> None:
        assert self.transaction is not None
        number, self.transaction = self.transaction.number, None
        self.profiles.end_transaction()
        self.evaluate()
        said = call.StopTransaction(int(self._model.energy_import_wh), _text(self._utc()), number, reason=reason)
        await point.call(said)

    async def _tell_status(self, point: CentralRequests, *, again: bool = False) -> None:
        status = self.status()
        if status == self._told_status and not again:
            return
        error = ChargePointErrorCode.no_error
        if status == ChargePointStatus.faulted:
            error = ChargePointErrorCode.other_error
        await point.call(call.StatusNotification(CONNECTOR, error, status, timestamp=_text(self._utc())))
        self._told_status = status

    async def _tell_meter_values(self, point: CentralRequests, *, asked: bool) -> None:
        values = sampled_values(self._model, self.settings.measurands, asked=asked)
        if not values:
            return
        meter_value = [{"timestamp": _text(self._utc()), "sampled_value": values}]
        number = self.transaction.number if self.transaction is not None else None
        await point.call(call.MeterValues(CONNECTOR, meter_value, number), skip_schema_validation=True)

    async def _tell_wanted(self, point: CentralRequests) -> None:
        wanted, self._wanted = self._wanted, set()
        if MessageTrigger.boot_notification in wanted:
            await self._boot(point)
        if MessageTrigger.heartbeat in wanted:
            await point.call(call.Heartbeat())
        if MessageTrigger.status_notification in wanted:
            await self._tell_status(point, again=True)
        if MessageTrigger.meter_values in wanted:
            await self._tell_meter_values(point, asked=True)

    def status(self) -> str:
        """The connector's status (4.9)."""
        model = self._model
        if model.state is ChargingState.F:
            return str(ChargePointStatus.faulted.value)
        if model.state is ChargingState.E or not self.operative:
            return str(ChargePointStatus.unavailable.value)
        if model.state is ChargingState.A:
            return str(ChargePointStatus.available.value)
        if self.transaction is None:
            waits = ChargePointStatus.preparing if self._may_begin else ChargePointStatus.finishing
            return str(waits.value)
        if model.power_w > 0:
            return str(ChargePointStatus.charging.value)
        offers = model.offered_current_a >= MINIMUM_CURRENT_A
        return str((ChargePointStatus.suspended_ev if offers else ChargePointStatus.suspended_evse).value)

    # What the central system asks

    def want(self, message: str) -> bool:
        """Send this message soon; False where it can't be triggered."""
        if message not in _TRIGGERS:
            return False
        self._wanted.add(message)
        self._woken.set()
        return True

    def begin_remotely(self, id_tag: str) -> bool:
        """Begin a transaction with the car that is there or comes; False while one runs."""
        if self.transaction is not None or not self.operative:
            return False
        self._id_tag, self._may_begin = id_tag, True
        self._woken.set()
        return True

    def end_remotely(self, number: int) -> bool:
        """End the transaction of this number; False if it doesn't run."""
        if self.transaction is None or self.transaction.number != number:
            return False
        self._stop_reason = Reason.remote
        self._woken.set()
        return True

    def reset(self) -> None:
        """Break the connection and boot anew."""
        self._booted = False
        self._woken.set()

    def count_refusal(self) -> None:
        """Something that the central system asked for was refused."""
        self._model.refused += 1


_TRIGGERS: Final = frozenset(
    trigger.value
    for trigger in (
        MessageTrigger.boot_notification,
        MessageTrigger.heartbeat,
        MessageTrigger.meter_values,
        MessageTrigger.status_notification,
    )
)


def _text(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
