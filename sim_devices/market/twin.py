"""A market at work over MQTT: authority and heartbeats down, offers and telemetry up, a dispatch at each gate."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from aiomqtt import Client, Message, MqttError

from config.site import MqttBroker
from config.vocabulary import UtcClock
from sim_devices.dso.expectations import UnexpectedError, read
from sim_devices.dso.link import BrokerLink
from sim_devices.dso.log import JsonLines, utc_text
from sim_devices.market import payloads
from sim_devices.market.market import Market, Round
from sim_devices.market.offers import OfferRefusedError
from sim_devices.market.settings import MarketSettings, Quantity, Supply
from sim_devices.until import ended

HEARTBEAT_S: Final = 1.0
TELEMETRY_S: Final = 1.0
SIGNAL_SWING_S: Final = 60.0
"""The regulation signal goes up and down once in this time."""

OFFERS_PER_INTERVAL: Final = 10
"""A market that is a child offers so often: it does not know by how much its parent's gate is earlier than its own."""

HELD: Final = 4
ASK_AGAIN_S: Final = 10.0


class Upward(NamedTuple):
    """The market as a child: its own name as a layer, its parent's source, and its rating there."""

    layer: str
    parent: str
    rating_w: float


class MarketTwin:
    """One market on one broker. `run` serves until told to stop; `market` may be looked at meanwhile."""

    def __init__(
        self,
        settings: MarketSettings,
        supply: Supply,
        broker: MqttBroker,
        log: JsonLines,
        *,
        upward: Upward | None = None,
        signal_s: float = 4.0,
        utc: UtcClock = time.time,
        new_client: Callable[..., Any] = Client,
    ) -> None:
        self.settings, self.rounds = settings, 0
        self.market = Market(settings, supply, utc())
        self._own_supply, self._upward, self._signal_s = supply, upward, signal_s
        self._log, self._utc = log, utc
        self._run = format(int(utc() * 1000), "x")
        self._sequence = int(utc())
        self._signals = int(utc())
        self._asked: dict[str, tuple[str, float]] = {}
        self._refusing: set[str] = set()
        self._held: deque[Round] = deque(maxlen=HELD)
        self._from_above: deque[tuple[float, float, float]] = deque(maxlen=HELD)
        self._epoch_above = 0
        self._outbox: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(maxsize=1000)
        identifier = f"{settings.source}-market-{os.getpid()}-{self._run}"
        self._down = BrokerLink(
            broker,
            f"lamina/v1/+/{settings.source}/up/+",
            identifier=identifier,
            on_message=self._heard,
            on_state=self._link_state,
            new_client=new_client,
        )
        self._up = None
        if upward is not None:
            self._up = BrokerLink(
                broker,
                f"lamina/v1/{upward.layer}/{upward.parent}/down/+",
                identifier=f"{identifier}-up",
                on_message=self._told,
                on_state=lambda connected, reason: log.write("parent", {"connected": connected, "reason": reason}),
                new_client=new_client,
            )

    @property
    def connected(self) -> asyncio.Event:
        """Set while the children's side of the broker is there."""
        return self._down.connected

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._down.run(), name="market link"),
                group.create_task(self._beat(), name="market heartbeats"),
                group.create_task(self._trade(), name="market gates"),
                group.create_task(self._send(), name="market outbox"),
            ]
            if self.settings.regulation_up_w or self.settings.regulation_down_w:
                tasks.append(group.create_task(self._regulate(), name="market regulation"))
            if self._up is not None:
                tasks.append(group.create_task(self._up.run(), name="market parent"))
                tasks.append(group.create_task(self._offer(), name="market offers"))
                tasks.append(group.create_task(self._report(), name="market telemetry"))
            await stop.wait()
            await ended(*tasks)

    # The children

    def _link_state(self, connected: bool, reason: str) -> None:
        self._log.write("link", {"connected": connected, "reason": reason})

    def _heard(self, message: Message) -> None:
        parts = message.topic.value.split("/")
        payload = message.payload if isinstance(message.payload, bytes) else b""
        child, kind, now_s = parts[2], parts[-1], self._utc()
        if kind == "offer":
            self._offered(child, payload, now_s)
        elif child in self.settings.children:
            try:
                told = read(kind, payload)
            except UnexpectedError as error:
                self._log.write("broken", {"child": child, "kind": kind, "reason": str(error)[:200]})
                return
            self._take(child, kind, told, now_s)

    def _offered(self, child: str, payload: bytes, now_s: float) -> None:
        try:
            offered = self.market.take_offer(child, payload, now_s)
        except OfferRefusedError as refusal:
            self._log.write("refused", {"child": child[:40], "reason": refusal.reason, "detail": str(refusal)[:200]})
            return
        self._log.write("offer", {"child": child, "id": offered.id})

    def _take(self, child: str, kind: str, told: Mapping[str, Any], now_s: float) -> None:
        if kind == "telemetry":
            good = told["quality"] != "bad"
            self.market.take_telemetry(child, told["net_power_w"] if good else None, now_s)
        elif kind == "heartbeat" and child not in self.market.book.authority_s and child not in self._refusing:
            if now_s >= self._asked.get(child, ("", -math.inf))[1] + ASK_AGAIN_S:
                self._ask_authority(child, now_s)
        elif kind == "acknowledgement":
            self._acknowledged(child, told)

    def _ask_authority(self, child: str, now_s: float) -> None:
        order_id = f"authority-{child}-{self._run}"
        self._asked[child] = order_id, now_s
        self._put(child, "authority", payloads.authority(self.settings.source, self.settings.epoch, order_id, now_s))

    def _acknowledged(self, child: str, told: Mapping[str, Any]) -> None:
        status, kind = told["status"], told["kind"]
        if kind == "authority" and told["order_id"] == self._asked.get(child, ("", 0.0))[0]:
            if status == "accepted":
                self.market.authority_taken(child, self._asked[child][1])
            elif status in ("rejected", "superseded"):
                # It is somebody else's; to have it again takes another epoch.
                self._refusing.add(child)
                self.market.authority_lost(child)
        self._log.write("answer", {"child": child, **told})

    def _put(self, child: str, kind: str, message: dict[str, Any]) -> None:
        self._queue(f"lamina/v1/{child}/{self.settings.source}/down/{kind}", message)

    def _queue(self, topic: str, message: dict[str, Any]) -> None:
        try:
            self._outbox.put_nowait((topic, message))
        except asyncio.QueueFull:
            self._log.write("dropped", {"topic": topic})

    async def _send(self) -> None:
        """What could not go out is not sent later: an order that is late is another order."""
        while True:
            topic, message = await self._outbox.get()
            once = topic.rpartition("/")[2] in ("heartbeat", "regulation", "telemetry")
            try:
                await self._down.publish(topic, json.dumps(message).encode(), qos=0 if once else 1)
            except MqttError as error:
                self._log.write("unsent", {"topic": topic, "reason": str(error)})
                self._forget_authority(topic)

    def _forget_authority(self, topic: str) -> None:
        """An unsent claim of authority is made again at the child's next life sign."""
        if topic.endswith("/down/authority"):
            self._asked.pop(topic.split("/")[2], None)

    async def _beat(self) -> None:
        while True:
            await self._down.connected.wait()
            self._sequence += 1
            for child in self.settings.children:
                self._put(child, "heartbeat", payloads.heartbeat(self._sequence, self._utc()))
            await asyncio.sleep(HEARTBEAT_S)

    async def _trade(self) -> None:
        """A dispatch at each gate; gates that were slept through are passed over."""
        while True:
            left_s = self.market.gate_closes_s - self._utc()
            if left_s > 0.0:
                await asyncio.sleep(left_s)
                continue
            missed = self.market.skip_missed(self._utc())
            if missed:
                self._log.write("missed", {"intervals": missed})
                continue
            self._clear()

    def _clear(self) -> None:
        self.market.supply = self._supply()
        made = self.market.close_gate()
        self.rounds += 1
        self._held.append(made)
        self._log.write("round", _as_logged(made))
        for one in made.dispatches:
            order_id = f"{self.settings.source}-{one.child}-{int(one.begin_s * 1000):x}-{self._run}"
            self._put(one.child, "dispatch", payloads.dispatch(one, self.settings.epoch, order_id, self._utc()))
        for shortfall in made.shortfalls:
            self._log.write("shortfall", {**shortfall._asdict(), "missed_w": shortfall.missed_w})

    def _supply(self) -> Supply:
        """What the parent dispatched for the next interval; where it dispatched nothing, the own supply."""
        begin_s = self.market.open_s
        found = [net_w for from_s, until_s, net_w in self._from_above if from_s <= begin_s < until_s]
        return Quantity(found[-1]) if found else self._own_supply

    async def _regulate(self) -> None:
        """A signal that swings evenly, to every child whose interval runs and has capacity awarded."""
        while True:
            await asyncio.sleep(self._signal_s)
            now_s = self._utc()
            self._signals += 1
            value = round(math.sin(2.0 * math.pi * now_s / SIGNAL_SWING_S), 4)
            lost_s = min(3.0 * self._signal_s, 600.0)
            message = payloads.signal(self.settings.epoch, self._signals, value, lost_s, now_s)
            running = [one for made in self._held if made.begin_s <= now_s for one in made.dispatches]
            for one in running:
                if now_s < one.begin_s + one.duration_s and (one.regulation_up_w or one.regulation_down_w):
                    self._put(one.child, "regulation", message)

    # The parent

    def _told(self, message: Message) -> None:
        """A dispatch from above is the quantity of the intervals that begin in its time."""
        kind = message.topic.value.rpartition("/")[2]
        try:
            told = json.loads(message.payload if isinstance(message.payload, bytes) else b"")
            status, order_id = self._obeyed(kind, told), str(told.get("id", ""))[:64]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._log.write("broken", {"child": "parent", "kind": kind, "reason": repr(error)[:200]})
            return
        self._log.write("told", {"kind": kind, "status": status, "message": told})
        if kind in ("dispatch", "authority"):
            answer = {"order_id": order_id, "kind": kind, "status": status, "issued_at": utc_text(self._utc())}
            self._put_up("acknowledgement", answer)

    def _obeyed(self, kind: str, told: Mapping[str, Any]) -> str:
        assert self._upward is not None
        if kind == "authority":
            if told["parent"] != self._upward.parent or int(told["epoch"]) < self._epoch_above:
                return "rejected"
            self._epoch_above = int(told["epoch"])
        if kind == "dispatch":
            if int(told["epoch"]) != self._epoch_above:
                return "rejected"
            from_s = datetime.fromisoformat(told.get("start") or told["issued_at"]).timestamp()
            until_s = from_s + float(told.get("duration_s") or math.inf)
            self._from_above.append((from_s, until_s, float(told["net_power_w"])))
        return "accepted"

    async def _offer(self) -> None:
        assert self._upward is not None
        while True:
            await asyncio.sleep(self.settings.interval_s / OFFERS_PER_INTERVAL)
            now_s = self._utc()
            offer_id = f"{self._upward.layer}-{int(now_s * 1000):x}"
            made = payloads.offer(self.market, self._upward.rating_w, offer_id, now_s)
            if made is not None:
                self._put_up("offer", made)

    async def _report(self) -> None:
        assert self._upward is not None
        while True:
            now_s = self._utc()
            powers_w = [self.market.delivery.latest_w(child, now_s) for child in self.settings.children]
            known = [power_w for power_w in powers_w if power_w is not None]
            whole = len(known) == len(powers_w)
            stamp = utc_text(now_s)
            self._sequence += 1
            self._put_up("heartbeat", payloads.heartbeat(self._sequence, now_s))
            self._put_up(
                "telemetry",
                {
                    "issued_at": stamp,
                    "measured_at": stamp if whole else None,
                    "net_power_w": sum(known) if whole else None,
                    "quality": "good" if whole else "bad",
                    "compliance": {"state": "compliant"},
                },
            )
            await asyncio.sleep(TELEMETRY_S)

    def _put_up(self, kind: str, message: dict[str, Any]) -> None:
        assert self._upward is not None
        self._queue(f"lamina/v1/{self._upward.layer}/{self._upward.parent}/up/{kind}", message)


def _as_logged(made: Round) -> dict[str, Any]:
    return {
        "begin": utc_text(made.begin_s),
        "lambda_per_kwh": made.lambda_per_kwh,
        "net_w": made.net_w,
        "unmet_w": made.unmet_w,
        "dispatches": {one.child: one.net_power_w for one in made.dispatches},
        "fixed_w": dict(made.fixed_w),
        "at_limit": list(made.at_limit),
        "regulation": made.regulation._asdict(),
    }
