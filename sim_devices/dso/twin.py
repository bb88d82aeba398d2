"""The DSO twin at work: plays the script over its link and judges what the layer answers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from aiomqtt import Client, Message, MqttError

from config.site import MqttBroker
from config.vocabulary import Clock, UtcClock
from sim_devices.dso.expectations import UnexpectedError, read
from sim_devices.dso.judgement import Acknowledgements, Answer, AwaitedAnswer, Checks, LayerWatch
from sim_devices.dso.link import BrokerLink
from sim_devices.dso.log import JsonLines
from sim_devices.dso.payloads import Outgoing, Writer
from sim_devices.dso.script import (
    Action,
    Beat,
    GiveOrder,
    GiveSignal,
    PhaseBegins,
    Script,
    check_timing,
    timeline,
)

LONGEST_HEARTBEAT_INTERVAL_S: Final = 1.0
HEARTBEATS_PER_TIMEOUT: Final = 3
"""So that a single lost heartbeat, or two, aren't a loss of the parent."""

LONGEST_WAIT_FOR_LAYER_S: Final = 20.0
LONGEST_TELEMETRY_GAP_S: Final = 3.0
"""Telemetry comes each second at least; three times that leaves room for a busy machine."""

LOGGED_CHARACTERS: Final = 2000


class DsoSettings(NamedTuple):
    """One run of the twin; `speed` is how many seconds of the script pass in one second."""

    broker: MqttBroker
    layer: str
    duration_s: float
    rating_w: float
    heartbeat_timeout_s: float
    source: str = "dso"
    epoch: int = 1
    start_after_ready: bool = False
    speed: float = 1.0
    answer_within_s: float = 2.0
    wait_for_layer_s: float = LONGEST_WAIT_FOR_LAYER_S


class ScriptClock:
    """Seconds of the script since `start`; `speed` of them pass in one second of `clock`."""

    def __init__(self, speed: float, clock: Clock) -> None:
        self.speed = speed
        self._clock = clock
        self._started_s = clock()

    def start(self) -> None:
        """Begin at 0."""
        self._started_s = self._clock()

    @property
    def elapsed_s(self) -> float:
        """Where the script is."""
        return (self._clock() - self._started_s) * self.speed

    async def reach(self, at_s: float) -> None:
        """Sleep until the script is at `at_s`; returns at once when that has passed."""
        await asyncio.sleep(max(0.0, (at_s - self.elapsed_s) / self.speed))


class DsoTwin:
    """One source of orders for one layer.

    Raises ScriptError for a script that can't be played in the time given and BrokerSettingsError for settings that
    can't be used; both before anything is sent.
    """

    def __init__(
        self,
        settings: DsoSettings,
        script: Script,
        log: JsonLines,
        *,
        beside: Path | None = None,
        on_connected: Callable[[], None] = lambda: None,
        clock: Clock = time.monotonic,
        utc_clock: UtcClock = time.time,
        new_client: Callable[..., Any] = Client,
        rng: Random | None = None,
        on_started: Callable[[], None] = lambda: None,
    ) -> None:
        check_timing(script, settings.duration_s, settings.heartbeat_timeout_s)
        interval_s = min(LONGEST_HEARTBEAT_INTERVAL_S, settings.heartbeat_timeout_s / HEARTBEATS_PER_TIMEOUT)
        self._settings = settings
        self._actions: Sequence[Action] = timeline(script, settings.duration_s, interval_s, beside)
        self._log = log
        self._clock = clock
        self._script_clock = ScriptClock(settings.speed, clock)
        run = format(int(utc_clock() * 1000), "x")
        self._writer = Writer(settings.source, settings.rating_w, run, settings.epoch, settings.speed, utc_clock)
        self._topic = f"lamina/v1/{settings.layer}/{settings.source}"
        self._link = BrokerLink(
            settings.broker,
            f"{self._topic}/up/+",
            identifier=f"{settings.source}-twin-{os.getpid()}-{run}",
            on_message=self._received,
            on_state=self._link_state,
            new_client=new_client,
            rng=rng,
        )
        self._on_connected = on_connected
        self._on_started = on_started
        self._layer_seen = asyncio.Event()
        self._watch = LayerWatch()
        self._acknowledgements = Acknowledgements()
        self._silent_since_s: float | None = None
        self.checks = Checks(log)

    async def run(self, stop: asyncio.Event) -> None:
        """Play the script once, or until `stop`; what was checked by then is in `checks`."""
        async with asyncio.TaskGroup() as group:
            link = group.create_task(self._link.run(), name="dso link")
            play = group.create_task(self._play(), name="dso script")
            stopper = group.create_task(_cancel_on(stop, play), name="dso stop")
            # The group waits for all three, so the end of the script ends the other two.
            play.add_done_callback(lambda _: (link.cancel(), stopper.cancel()))

    async def _play(self) -> None:
        await self._wait_for_layer()
        self._script_clock.start()
        self._on_started()
        async with asyncio.TaskGroup() as judging:
            for action in self._actions:
                await self._script_clock.reach(action.at_s)
                await self._do(action, judging)
            await self._script_clock.reach(self._settings.duration_s)
        self._judge_layer()

    async def _wait_for_layer(self) -> None:
        awaited = self._layer_seen if self._settings.start_after_ready else self._link.connected
        within_s = self._settings.wait_for_layer_s
        try:
            async with asyncio.timeout(within_s):
                await awaited.wait()
        except TimeoutError:
            self.checks.record("layer_seen", False, f"nothing heard for {within_s:g} s; the script starts without it")

    async def _do(self, action: Action, judging: asyncio.TaskGroup) -> None:
        match action:
            case PhaseBegins():
                self._begin(action, judging)
            case Beat():
                await self._send_plain(self._writer.heartbeat())
            case GiveSignal():
                await self._signal(action, judging)
            case GiveOrder():
                judging.create_task(self._order(action), name=f"dso order {action.step.name}")

    def _begin(self, action: PhaseBegins, judging: asyncio.TaskGroup) -> None:
        self._log.write("phase", {"name": action.phase.name})
        self._end_silence(judging)
        if action.phase.silence:
            self._silent_since_s = self._clock()

    def _end_silence(self, judging: asyncio.TaskGroup) -> None:
        """Judge the silence that ends now, if any."""
        if self._silent_since_s is None:
            return
        reported = self._watch.fallback_seen_s > self._silent_since_s
        self.checks.record("fallback_reported", reported, "" if reported else "no telemetry said fallback")
        self._silent_since_s = None
        judging.create_task(self._judge_recovery(self._clock()), name="dso recovery")

    async def _judge_recovery(self, spoke_s: float) -> None:
        within_s = self._settings.answer_within_s
        await asyncio.sleep(within_s)
        left = self._watch.normal_seen_s > spoke_s
        self.checks.record("fallback_left", left, "" if left else f"telemetry says fallback for {within_s:g} s")

    async def _order(self, order: GiveOrder) -> None:
        """Send one order, when the broker is there, and judge what is said of it."""
        check = f"acknowledged:{order.step.name}"
        if not self._link.connected.is_set():
            await self._wait_for_broker(order)
            order = order._replace(at_s=self._script_clock.elapsed_s)
        outgoing = self._writer.order(order)
        awaited = AwaitedAnswer(outgoing.kind, outgoing.order_id, order.step.expected_id)
        self._acknowledgements.await_answer(awaited)
        try:
            sent_s = await self._send(outgoing, qos=1)
            if sent_s is None:
                self.checks.record(check, False, "the broker didn't take it")
                return
            answer = await self._judge_first(check, order, awaited)
            if order.step.then is not None and answer is not None and answer.status == "accepted":
                await self._judge_final(order, awaited, sent_s)
        finally:
            self._acknowledgements.forget(awaited)

    async def _wait_for_broker(self, order: GiveOrder) -> None:
        """Return when connected, or when the order would have ended."""
        end_s = self._settings.duration_s if order.until_s is None else order.until_s
        try:
            async with asyncio.timeout((end_s - order.at_s) / self._settings.speed):
                await self._link.connected.wait()
        except TimeoutError:
            pass

    async def _judge_first(self, check: str, order: GiveOrder, awaited: AwaitedAnswer) -> Answer | None:
        within_s = self._settings.answer_within_s
        try:
            async with asyncio.timeout(within_s):
                answer = await awaited.first
        except TimeoutError:
            self.checks.record(check, False, f"no acknowledgement within {within_s:g} s")
            return None
        detail = f"{answer.status}: {answer.reason}" if answer.reason else answer.status
        if answer.status != order.step.expect:
            self.checks.record(check, False, f"must be {order.step.expect}, is {detail}")
        elif answer.status == "rejected" and not answer.reason:
            self.checks.record(check, False, "rejected without a reason")
        else:
            self.checks.record(check, True, detail)
        return answer

    async def _judge_final(self, order: GiveOrder, awaited: AwaitedAnswer, sent_s: float) -> None:
        check, wanted = f"ended:{order.step.name}", order.step.then
        lasts_s = ((order.until_s or order.at_s) - order.at_s) / self._settings.speed
        try:
            async with asyncio.timeout(sent_s + lasts_s + self._settings.answer_within_s - self._clock()):
                answer = await awaited.final
        except TimeoutError:
            self.checks.record(check, False, f"nothing said that it was {wanted}")
            return
        self.checks.record(check, answer.status == wanted, answer.status)

    async def _signal(self, action: GiveSignal, judging: asyncio.TaskGroup) -> None:
        outgoing = self._writer.signal(action.step, action.signal)
        sent_s = await self._send_plain(outgoing)
        if sent_s is not None and isinstance(outgoing.message, dict):
            self._watch.signal_sent(outgoing.message["sequence"], sent_s)
        if action.last:
            judging.create_task(self._judge_echo(action.step.name), name="dso echo")

    async def _judge_echo(self, name: str) -> None:
        within_s = self._settings.answer_within_s
        await asyncio.sleep(within_s)
        echoed, missing, longest_s = self._watch.take_echoes(within_s)
        detail = f"{echoed} of {echoed + missing} signals echoed, the slowest after {longest_s:.3f} s"
        self.checks.record(f"regulation_echo:{name}", missing == 0 and echoed > 0, detail)

    def _judge_layer(self) -> None:
        """What holds for the whole run."""
        heard, gap_s = self._watch.counts, self._watch.silent_for(self._clock())
        self.checks.record("up_messages_valid", not self._watch.invalid, f"{self._watch.invalid} invalid")
        for kind in ("telemetry", "heartbeat", "offer", "acknowledgement"):
            self.checks.record(f"heard:{kind}", heard.get(kind, 0) > 0, f"{heard.get(kind, 0)} valid")
        self.checks.record("telemetry_steady", gap_s <= LONGEST_TELEMETRY_GAP_S, f"longest gap {gap_s:.2f} s")

    async def _send_plain(self, outgoing: Outgoing) -> float | None:
        """Send at QoS 0: a life sign or a signal that comes late is worth nothing."""
        return await self._send(outgoing, qos=0)

    async def _send(self, outgoing: Outgoing, qos: int) -> float | None:
        """Publish; the time of sending, or None when the broker didn't take it."""
        sent_s = self._clock()
        fields = {"kind": outgoing.kind, "id": outgoing.order_id}
        if self._link.connected.is_set():
            self._log.exchanged("sent", outgoing.message, fields, monotonic_s=sent_s)
        try:
            await self._link.publish(f"{self._topic}/down/{outgoing.kind}", outgoing.payload, qos)
        except MqttError as error:
            self._log.write("unsent", {**fields, "reason": str(error)})
            return None
        return sent_s

    def _received(self, message: Message) -> None:
        at_s = self._clock()
        kind = message.topic.value.rpartition("/")[2]
        payload = message.payload if isinstance(message.payload, bytes) else b""
        try:
            if message.retain and kind != "offer":
                raise UnexpectedError("retained: only an offer may be")
            content = read(kind, payload)
        except UnexpectedError as error:
            self._watch.invalid += 1
            text = payload[:LOGGED_CHARACTERS].decode(errors="replace")
            self._log.write("invalid", {"kind": kind, "reason": str(error)[:LOGGED_CHARACTERS], "payload": text})
            return
        self._log.exchanged("received", content, {"kind": kind}, monotonic_s=at_s)
        self._take(kind, content, at_s)

    def _take(self, kind: str, content: dict[str, Any], at_s: float) -> None:
        self._watch.heard(kind, content, at_s)
        if kind == "acknowledgement":
            self._acknowledgements.take(content)
        elif kind in ("telemetry", "heartbeat") and not self._layer_seen.is_set():
            self._layer_seen.set()

    def _link_state(self, connected: bool, reason: str) -> None:
        self._log.write("connection", {"state": "connected" if connected else "away", "reason": reason})
        if connected:
            self._on_connected()
        else:
            self._watch.connection_lost()


async def _cancel_on(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    await stop.wait()
    task.cancel()
