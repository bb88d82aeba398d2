"""The battery container's variables within the process, for runs on virtual time: no sockets, no OPC UA bytes.

The same controller, names, types and status codes as behind `OpcUaBattery`; what a client sees of services is kept:
changes since the last look are published at the interval, each with its time, and every third interval without any
says so (OPC 10000-4, 5.13.1, keep-alive).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from asyncua import ua

from config.vocabulary import Clock, UtcClock
from sim_devices.models import BatteryModel
from sim_devices.opcua_battery import ENABLE, NAMESPACE, PUSH_INTERVAL_S, ROOT, SETPOINT, TIMEOUT, Container

FIRST_NAMESPACE: Final = 2
KEEP_ALIVE_COUNT: Final = 3

Publish: TypeAlias = Callable[[Mapping[int, Any], datetime], None]
"""Takes what has changed, by the place of each node in the subscription, and the time of publishing."""


class InProcessSubscription:
    """Publishes the changes of some nodes, as long as it is open."""

    def __init__(self, server: InProcessOpcUa, nodes: Sequence[Any], interval_s: float, publish: Publish) -> None:
        self._server = server
        self._places: dict[str, int] = {}
        for at, node in enumerate(nodes):
            name = server.name_of(node)
            if name is not None:
                self._places[name] = at
        self._interval_s = interval_s
        self._publish = publish
        self._changes = {at: server.value(name) for name, at in self._places.items()}
        self._quiet = 0
        self._begun_s = server.loop.time()
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    @property
    def keep_alive_s(self) -> float:
        """How long it is silent at most."""
        return KEEP_ALIVE_COUNT * self._interval_s

    def monitors(self, node: Any) -> bool:
        """Whether changes of a node are published."""
        return self._server.name_of(node) in self._places

    def changed(self, name: str, value: Any) -> None:
        """Told of each change; the newest of an interval is published."""
        at = self._places.get(name)
        if at is not None:
            self._changes[at] = value

    def close(self) -> None:
        """End it."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._count += 1
        self._timer = self._server.loop.call_at(self._begun_s + self._count * self._interval_s, self._tick)

    def _tick(self) -> None:
        self._wait()
        if self._server.stalled:
            return
        self._quiet += 1
        if self._changes or self._quiet >= KEEP_ALIVE_COUNT:
            changes, self._changes = self._changes, {}
            self._quiet = 0
            self._publish(changes, self._server.now())


class InProcessOpcUa:
    """A battery container's server.

    `stalled`: nothing is published any more. `silent`: requests are not answered either. `status`: the status code with
    which each variable named there is shown, instead of good.
    """

    def __init__(self, model: BatteryModel, clock: Clock, utc: UtcClock) -> None:
        self.loop = asyncio.get_running_loop()
        self.running = False
        self.stalled = False
        self.silent = False
        self._container = Container(model, clock)
        self._clock = clock
        self._utc = utc
        self._index = FIRST_NAMESPACE
        self._shown: dict[str, Any] = {}
        self._data: dict[str, Any] = {}
        self._status: dict[str, int] = {}
        self._subscriptions: list[InProcessSubscription] = []
        self._clients: list[Callable[[], None]] = []
        self._started_s = clock()
        self._pushes = 0
        self._timer: asyncio.TimerHandle | None = None

    # Of the bench

    def start(self) -> None:
        """Serve; the watchdog and the measurements begin with it."""
        self.running = True
        self._started_s = self._clock()
        self._pushes = 0
        self._shown.clear()
        self._show(0)
        self._wait()

    def stop(self) -> None:
        """Drop every client and serve no more."""
        self.running = False
        if self._timer is not None:
            self._timer.cancel()
        clients, self._clients = self._clients, []
        for lost in clients:
            lost()

    def restart(self) -> None:
        """Come back at once, with the namespace at another index, as after an update."""
        self.stop()
        self._index += 1
        self.start()

    def show_status(self, name: str, status: int | None) -> None:
        """Show a variable with this status code from now on; None: good again. Raises KeyError for an unknown name."""
        value = self._shown[name]
        if status is None:
            self._status.pop(name, None)
        else:
            self._status[name] = status
        self._put(name, value, self._data[name].Value.VariantType)

    # Of clients

    def attach(self, lost: Callable[[], None]) -> None:
        """Connect; `lost` is called when the server drops its clients."""
        self._clients.append(lost)

    def detach(self, lost: Callable[[], None], subscription: InProcessSubscription | None) -> None:
        """Leave."""
        if lost in self._clients:
            self._clients.remove(lost)
        if subscription is not None:
            subscription.close()
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

    def resolve(self, namespace: str, identifier: str | None, path: Sequence[str] | None) -> Any:
        """The node id of an address; a text saying why not where there is none."""
        if namespace != NAMESPACE:
            return f"namespace {namespace} is not on the server"
        wanted = ".".join(path) if path is not None else (identifier or "").removeprefix("s=")
        name = wanted.removeprefix(f"{ROOT}.")
        if wanted == name or name not in self._shown:
            return "BadNodeIdUnknown" if path is None else "BadNoMatch"
        return ua.NodeId(wanted, self._index)

    def name_of(self, node: Any) -> str | None:
        """The variable of a node id; None if there is none now."""
        if node.NamespaceIndex != self._index:
            return None
        name = str(node.Identifier).removeprefix(f"{ROOT}.")
        return name if name in self._shown else None

    def value(self, name: str) -> Any:
        """The data value of a variable."""
        return self._data[name]

    def now(self) -> datetime:
        """The server's own clock."""
        return datetime.fromtimestamp(self._utc(), UTC)

    def read(self, node: Any) -> Any:
        """The data value of a node; one that is not there has a bad status."""
        name = self.name_of(node)
        if name is None:
            return ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadNodeIdUnknown))
        return self._data[name]

    def write(self, node: Any, variant: Any) -> Any:
        """Write a node's value; the status code, as `OpcUaBattery` gives it."""
        name = self.name_of(node)
        if name is None:
            return ua.StatusCode(ua.StatusCodes.BadNodeIdUnknown)
        if name not in (SETPOINT, ENABLE, TIMEOUT):
            return ua.StatusCode(ua.StatusCodes.BadUserAccessDenied)
        refusal = self._container.refusal(name, variant.Value)
        if refusal is not None:
            return ua.StatusCode(refusal)
        self._put(name, variant.Value, variant.VariantType)
        self._container.take(name, variant.Value)
        return ua.StatusCode(ua.StatusCodes.Good)

    def subscribe(self, nodes: Sequence[Any], interval_s: float, publish: Publish) -> InProcessSubscription:
        """Have changes published from now on, beginning with the present values."""
        subscription = InProcessSubscription(self, nodes, interval_s, publish)
        self._subscriptions.append(subscription)
        return subscription

    def _wait(self) -> None:
        self._pushes += 1
        self._timer = self.loop.call_at(self._started_s + self._pushes * PUSH_INTERVAL_S, self._push)

    def _push(self) -> None:
        self._wait()
        self._container.watch()
        self._show(math.floor(self._clock() - self._started_s))

    def _show(self, heartbeat: int) -> None:
        shown = self._shown
        for name, (value, kind) in self._container.values(heartbeat).items():
            if name not in shown or value != shown[name]:
                self._put(name, value, ua.VariantType[kind])

    def _put(self, name: str, value: Any, kind: Any) -> None:
        self._shown[name] = value
        now = self.now()
        status = ua.StatusCode(self._status.get(name, ua.StatusCodes.Good))
        data = ua.DataValue(ua.Variant(value, kind), status, SourceTimestamp=now, ServerTimestamp=now)
        self._data[name] = data
        for subscription in self._subscriptions:
            subscription.changed(name, data)
