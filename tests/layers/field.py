"""Both ends of the layer interface on a broker: the parent's driver, and a layer with the gateway's own parent side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from config.loading import load_profile
from config.messages import Acknowledgement
from config.site import ChildLayer, MqttBroker
from config.vocabulary import AUTHORITY, AUTHORITY_HELD, Setpoint
from drivers.binding import DeviceBinding
from drivers.cancellation import ended
from drivers.layer.driver import LayerDriver
from drivers.mqtt.connection import MqttConnection
from gateway.journal import Journal
from gateway.orders.book import OrderBook, ParentState
from gateway.orders.desk import OrderDesk
from gateway.parent.mqtt_parent import MqttParent
from tests.drivers.field import Field
from tests.system.processes import until

CHILD, LAYER, SOURCE = "building", "house", "microgrid"
RATING_W = 50_000.0


def address(broker: MqttBroker, layer: str = LAYER) -> ChildLayer:
    return ChildLayer(
        driver="layer", host=broker.host, port=broker.port, layer=layer, source=SOURCE, heartbeat_timeout_s=1.0
    )


@dataclass
class Parent:
    """The driver, and where it delivers."""

    driver: LayerDriver
    sink: Field
    sequence: int = 0

    def ask(self, power_w: float, price: float | None = None, life_s: float = 2.0) -> int:
        """Write a share; its sequence."""
        self.sequence += 1
        setpoint = Setpoint(CHILD, power_w, "test", time.monotonic() + life_s, self.sequence, lambda_per_kwh=price)
        self.driver.write(setpoint)
        return self.sequence

    def value(self, point: str) -> object:
        return self.sink.sample(CHILD, point).value

    def fate(self, sequence: int) -> str:
        """What became of a write; empty while it is open."""
        return next((r.status.value for r in self.sink.results if r.sequence == sequence), "")

    async def until_held(self) -> None:
        await self.sink.until(lambda: self.value(AUTHORITY) == AUTHORITY_HELD)

    async def until_answered(self, sequence: int) -> str:
        await self.sink.until(lambda: bool(self.fate(sequence)))
        return self.fate(sequence)


@asynccontextmanager
async def parent(broker: MqttBroker, epoch: int = 5, timeout_s: float = 1.0) -> AsyncIterator[Parent]:
    profile = load_profile("child_layer")
    quick = profile.model_copy(update={"pace": profile.pace.model_copy(update={"timeout_s": timeout_s})})
    binding = DeviceBinding(CHILD, quick, address(broker), RATING_W)
    sink = Field()
    driver = LayerDriver("layers", [binding], sink, time.monotonic, time.time, {CHILD: epoch}, MqttConnection)
    running = asyncio.create_task(driver.run(), name="parent's driver")
    try:
        yield Parent(driver, sink)
    finally:
        await ended((running,))


@dataclass
class Layer:
    """The gateway's order desk and its side of the parent, without devices."""

    link: MqttParent
    desk: OrderDesk
    woken: list[str] = field(default_factory=list)

    @property
    def book(self) -> OrderBook:
        return self.desk.book

    @property
    def asked_w(self) -> float | None:
        """The dispatch in force."""
        dispatch = self.book.in_force().dispatch
        return None if dispatch is None else dispatch.net_power_w


@asynccontextmanager
async def layer(broker: MqttBroker, folder: Path, *sources: str) -> AsyncIterator[Layer]:
    """The first source dispatches."""
    names = sources or (SOURCE,)
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    journal = Journal(folder, time.monotonic, time.time)
    book = OrderBook(RATING_W, {name: ParentState(5.0, name == names[0]) for name in names}, time.monotonic, time.time)
    woken: list[str] = []
    links: dict[str, MqttParent] = {}

    def acknowledge(source: str, message: Acknowledgement) -> None:
        links[source].acknowledge(message)

    desk = OrderDesk(book, journal, time.time, acknowledge, woken.append)
    for name in names:
        links[name] = MqttParent(
            LAYER,
            name,
            broker,
            lambda kind, payload, retained, name=name: desk.handle(name, kind, payload, retained),  # type: ignore[misc]
            time.time,
            0.3,
            10,
        )
    stored, _ = journal.stored_orders()
    book.restore(stored)
    running = [asyncio.create_task(each.run(), name=f"layer's {name}") for name, each in links.items()]
    try:
        await until(lambda: all(each.connected for each in links.values()), "the layer connects")
        yield Layer(links[SOURCE], desk, woken)
    finally:
        await ended(running)
        await journal.close()
