"""The control process put together: drivers, image, cycle, orders, parents, journal, local socket."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import structlog

from config.messages import Acknowledgement, Offer
from config.vocabulary import POWER_W, Clock, DeviceKind, UtcClock, WriteResult, WriteStatus
from drivers.backoff import Backoff
from drivers.cancellation import ended
from drivers.driver import Driver
from gateway.child_epochs import next_epochs
from gateway.compliance.board import build_board
from gateway.composition import bind_devices, build_drivers
from gateway.control.decision import Decision
from gateway.control.model import build_site_model, with_what_may_be_written
from gateway.control.orders_in_force import OrdersInForce
from gateway.cycle import ControlCycle, CycleReport
from gateway.cycle_journal import CycleJournal
from gateway.image import Image, ImageInbox
from gateway.journal import Journal
from gateway.local_socket import local_socket
from gateway.orders.book import OrderBook
from gateway.orders.desk import OrderDesk
from gateway.orders.held import ParentState
from gateway.orders.operator import Operable, OperatorDesk
from gateway.parent.aggregate import compliance, flexibility, offer, telemetry
from gateway.parent.mqtt_parent import MqttParent
from gateway.parent.publication import MOVED_PU, Publication
from gateway.readback import ReadBackWatch
from gateway.regulation_record import RegulationRecord
from gateway.run_options import RunOptions
from gateway.snapshot import ProcessUse, SharedProcess, snapshot
from gateway.state_directory import SOCKET_NAME
from gateway.surroundings import FIELD, Surroundings
from gateway.tier_bypass import BypassWatch
from gateway.twin_world import TwinWorld
from gateway.wall_clock import clock_quality
from gateway.why import explain
from gateway.writer import WritePace, Writer

if TYPE_CHECKING:
    from gateway.planning.desk import PlanDesk

REST_TIMEOUT_S: Final = 2.0
CLOCK_STEP_S: Final = 0.5
"""A wall clock that moved by more than this against the monotonic one was corrected."""

HEARTBEATS_PER_TIMEOUT: Final = 3.0

SETTLED_S: Final = 15.0
"""By then every link that answers has read its models and made its plans."""


class Runtime:
    """One running gateway. `run` serves until `stop` is set, then writes the rest states and ends."""

    def __init__(
        self,
        options: RunOptions,
        clock: Clock = time.monotonic,
        utc: UtcClock = time.time,
        surroundings: Surroundings = FIELD,
    ) -> None:
        self.options, self.clock, self.utc, self._around = options, clock, utc, surroundings
        site = options.site
        self.model = with_what_may_be_written(
            build_site_model(site, options.profiles, options.twins, on_bench=bool(options.twins), lags=options.lags),
            None if options.observe or options.allow_real_writes else options.twins,
        )
        self.journal = Journal(options.directory, clock, utc, own_thread=surroundings.own_process)
        self.inbox = ImageInbox(self._write_result, self._transition)
        self.drivers: list[Driver] = build_drivers(
            site,
            options.profiles,
            self.inbox,
            clock,
            options.all_addresses(),
            options.writable(),
            surroundings.transports,
            next_epochs(options.directory, self._layers(), utc()),
        )
        self.bypass = BypassWatch()
        self.read_backs = ReadBackWatch(
            bind_devices(site, options.profiles, options.all_addresses(), options.writable())
        )
        by_device = {device: driver for driver in self.drivers for device in driver.devices}
        self.writer = Writer(
            by_device, self._paces(), clock, site.control.setpoint_life_s, self._written, options.observe
        )
        parents = {parent.name: ParentState(parent.heartbeat_timeout_s, parent.dispatch) for parent in site.parents}
        self.book = OrderBook(site.connection.rating_w, parents, clock, utc, compliance=build_board(site))
        self.book.clock_trusted = site.control.clock == "always"
        self.desk = OrderDesk(self.book, self.journal, utc, self._acknowledge, self._wake)
        self.operator = OperatorDesk(
            self.book, self.journal, utc, self._operable(), self._present_w, self._wake, self.desk.conclude
        )
        self.cycle = ControlCycle(
            self.model,
            self.drivers,
            self.inbox,
            self.writer,
            clock,
            site.control.period_ms / 1000.0,
            self._orders_in_force,
            self._on_cycle,
        )
        self.planner = self._planner()
        self.parents = {parent.name: self._parent(parent.name) for parent in site.parents}
        self.twin_world = TwinWorld(*options.twin_world) if options.twin_world else None
        self.report: CycleReport | None = None
        self.regulation = RegulationRecord(self.cycle.period_s)
        self.use = (ProcessUse if surroundings.own_process else SharedProcess)(clock)
        self.started_s = clock()
        self.restarts = 0
        self._cycle_journal = CycleJournal(
            self.journal, self.model, utc, trace=options.trace, recording=options.record_decisions
        )
        self._received: dict[str, float] = {}
        self._publication = Publication(MOVED_PU * site.connection.rating_w)
        self._log = structlog.get_logger()

    # Assembly

    def _layers(self) -> list[str]:
        return [name for name, profile in self.options.profiles.items() if profile.kind is DeviceKind.LAYER]

    def _operable(self) -> dict[str, Operable]:
        return {one.name: Operable(one.min_w, one.max_w, one.controllable) for one in self.model.devices}

    def _paces(self) -> dict[str, WritePace]:
        paces = {}
        for name, device in self.options.site.devices.items():
            control = self.options.profiles[name].control
            if control is None:
                continue
            refresh_s = control.refresh_s
            if device.reversion_s is not None:
                refresh_s = min(refresh_s, device.reversion_s / 3.0)
            deadband_w = max(control.deadband_w, control.deadband_pu * device.rating_w)
            paces[name] = WritePace(deadband_w, control.min_write_interval_s, refresh_s)
        return paces

    def _parent(self, name: str) -> MqttParent:
        parent = next(item for item in self.options.site.parents if item.name == name)
        broker = self.options.broker or parent.broker or self.options.spare_broker
        if broker is None:
            raise ValueError(f"parents.{name}.broker is required; only the demo brings its own broker")
        return MqttParent(
            self.options.site.site,
            name,
            broker,
            lambda kind, payload, retained: self.desk.handle(name, kind, payload, retained),
            self.utc,
            parent.heartbeat_timeout_s / HEARTBEATS_PER_TIMEOUT,
            parent.telemetry_backlog,
            self._around.mqtt_client,
            self._around.rng(f"parent {name}"),
        )

    def _planner(self) -> PlanDesk | None:
        """Control's side of the planner, where the site has one."""
        site = self.options.site
        if site.planning is None:
            return None
        from gateway.planning.children import Offering
        from gateway.planning.desk import PlanDesk

        def plugged_in() -> Mapping[str, float]:
            return self.cycle.state.memory.plugged_in_s if self.cycle.state is not None else {}

        def offered() -> Mapping[str, Offer]:
            links = (driver for driver in self.drivers if isinstance(driver, Offering))
            return {name: offer for driver in links for name, offer in driver.offered().items()}

        def announce(prices: Mapping[float, float], version: int) -> None:
            for driver in self.drivers:
                if isinstance(driver, Offering):
                    driver.announce(prices, version)

        return PlanDesk(
            site, site.planning, self.model, self.clock, self.utc, self.journal.record, self.book.held, plugged_in,
            offered, announce,
        )  # fmt: skip

    # Run

    async def run(self, stop: asyncio.Event, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`; then rest states, summary, end. An error of control itself is raised."""
        self._start_journal()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.journal.close)
            self._cycle_journal.open()
            stack.push_async_callback(self._cycle_journal.close)
            if self._around.own_process:
                await stack.enter_async_context(
                    local_socket(self.options.directory / SOCKET_NAME, self._answer, self.snapshot)
                )
            async with asyncio.TaskGroup() as group:
                links = [
                    group.create_task(self._supervise(driver.run, driver.name), name=f"link {driver.name}")
                    for driver in self.drivers
                ]
                links += [
                    group.create_task(self._supervise(parent.run, f"parent {name}"), name=f"parent {name}")
                    for name, parent in self.parents.items()
                ]
                if self.planner is not None and self._around.own_process:
                    from gateway.planning.link import PlannerLink

                    planner = PlannerLink(self.planner, self.options.directory)
                    links.append(group.create_task(self._supervise(planner.run, "planner"), name="planner"))
                if self.twin_world is not None:
                    links.append(group.create_task(self._supervise(self.twin_world.run, "twins"), name="twin world"))
                cycle = group.create_task(self.cycle.run(), name="control cycle")
                clock = group.create_task(self._watch_clock(), name="wall clock")
                own = [cycle, clock]
                if self._around.own_process:
                    own.append(group.create_task(_settle_memory(), name="settle memory"))
                ready()
                await stop.wait()
                for task in own:
                    task.cancel()
                await asyncio.gather(*own, return_exceptions=True)
                await self._rest()
                await ended(links)
            self._end_journal()

    async def _supervise(self, run: Callable[[], Any], name: str) -> None:
        """A link that crashes is lost and starts again; control and the other links go on."""
        backoff = Backoff(random.Random(name), 0.2, 10.0)
        while True:
            try:
                await run()
            except Exception as error:  # noqa: BLE001 (the one place where a link's defect must not reach control)
                self.restarts += 1
                self._log.error("link crashed, starting it again", link=name, error=repr(error), exc_info=error)
                self.journal.record("crash", link=name, error=repr(error))
            await asyncio.sleep(backoff.pause_s())

    async def _watch_clock(self) -> None:
        """Notice corrections of the wall clock, so that orders yet to start are mapped anew, and its quality."""
        offset_s = self.utc() - self.clock()
        synchronised: bool | str | None = "not asked yet"
        while True:
            if self._around.own_process and (found := clock_quality()).synchronised != synchronised:
                synchronised = found.synchronised
                self.journal.record("clock", quality=found.text())
                self.book.clock_trusted = self.options.site.control.clock == "always" or found.synchronised is True
            await asyncio.sleep(1.0)
            moved_s = self.utc() - self.clock() - offset_s
            if abs(moved_s) > CLOCK_STEP_S:
                offset_s += moved_s
                self.book.wall_clock_corrected()
                self._log.warning("wall clock corrected", by_s=round(moved_s, 3))
                self.journal.record("clock", moved_s=moved_s)

    async def _rest(self) -> None:
        """The orderly stop: each device to its rest state, all links at once, within a bound."""
        if self.options.observe:
            return
        results = await asyncio.gather(
            *(driver.rest(REST_TIMEOUT_S) for driver in self.drivers), return_exceptions=True
        )
        for driver, result in zip(self.drivers, results, strict=True):
            if isinstance(result, Exception):
                self._log.error("rest state not written", link=driver.name, error=repr(result))

    # What comes from below, above and inside

    def _write_result(self, result: WriteResult) -> None:
        before = self.writer.first_acknowledged_s
        self.writer.result(result)
        if result.status is WriteStatus.ACKNOWLEDGED:
            power_w = self.writer.asked_w(result.device, result.sequence)
            if power_w is not None:
                self.read_backs.acknowledged(result.device, power_w, result.at_s)
        if before is None and self.writer.first_acknowledged_s is not None:
            self.journal.record("ready", first_setpoint_s=round(self.first_setpoint_s or 0.0, 3))

    @property
    def first_setpoint_s(self) -> float | None:
        """Seconds from the start of the process to the first acknowledged setpoint."""
        first_s = self.writer.first_acknowledged_s
        return None if first_s is None else first_s - self.use.process_started_s

    def _transition(self, kind: str, name: str, state: str, reason: str) -> None:
        if kind == "device" and state == "present":
            self.writer.device_returned(name)
            self.read_backs.forget(name)
        fields = {"state": state} if kind == "link" else {"present": state == "present"}
        self.journal.record(kind, name=name, reason=reason, **fields)

    def _wake(self, order_id: str) -> None:
        self._received[order_id] = self.clock()
        self.cycle.wake(order_id)

    def _written(self, order_ids: tuple[str, ...], at_s: float) -> None:
        for order_id in order_ids:
            received_s = self._received.pop(order_id, None)
            if received_s is not None:
                self.journal.record("written", id=order_id, received_s=received_s, written_s=at_s)

    def _acknowledge(self, source: str, acknowledgement: Acknowledgement) -> None:
        parent = self.parents.get(source)
        if parent is not None:
            parent.acknowledge(acknowledgement)
        self._publication.acknowledged(acknowledgement)

    def _orders_in_force(self) -> OrdersInForce:
        orders = self.desk.in_force()
        return orders if self.planner is None else self.planner.direct(orders)

    def _on_cycle(self, report: CycleReport) -> None:
        self.report = report
        decision = report.decision
        self.desk.measure(decision)
        self.regulation.see(report)
        if self.planner is not None and self.cycle.image is not None:
            self.planner.observe(decision, self.cycle.image, report.orders)
        self._look_at_read_backs()
        self._cycle_journal.take(report, self.cycle.image)
        self._tell_parents(report)
        if self.twin_world is not None:
            self.twin_world.tell(
                {
                    resource.model.name: resource.power_w
                    for resource in decision.resources
                    if resource.model.name not in self.options.twins and resource.power_w is not None
                }
            )

    def _look_at_read_backs(self) -> None:
        assert self.cycle.image is not None
        for found in self.read_backs.look(self.cycle.image):
            self._log.warning("a read-back differs", device=found.device, reason=found.text())
            self.journal.record("readback", device=found.device, point=found.point, asked=found.asked, read=found.read)
            if found.was_written:
                control = self.options.profiles[found.device].control
                # Registers that wear out wait for their refresh.
                self.writer.repair(found.device, at_once=control is not None and control.volatile)
        assert self.report is not None
        for device, text in self.bypass.look(self.cycle.image, self.report.decision, self.read_backs.differences):
            self._log.warning("commanded behind this gateway's back", device=device, reason=text)
            self.journal.record("bypass", device=device, reason=text)

    def _tell_parents(self, report: CycleReport) -> None:
        """Telemetry and offers, as they are due."""
        now_s, decision = self.clock(), report.decision
        image = self.cycle.image
        if not self.parents or image is None:
            return
        regulation = report.orders.regulation
        regulated = regulation is not None and now_s - regulation.received_s <= regulation.lost_after_s
        twice = self.book.promises.stands(self.utc())
        complies = compliance(decision, bypassed=bool(self.bypass.found), promised_twice=twice)
        if self._publication.telemetry_is_due(now_s, decision.net_w, complies.state, regulated=regulated):
            message = telemetry(self.model, image, decision, self.utc(), self.book.regulation_sequence, complies)
            self._publication.tell(self.parents, now_s, message, report.orders.dispatch)
        told = self._publication.offer(self.parents, now_s, lambda: self._offered(image, decision))
        if told is not None:
            self.book.promises.told(told)
            if self.planner is not None:
                self.planner.offers.told(told)

    def _offered(self, image: Image, decision: Decision) -> Offer | None:
        planner = self.planner
        found = flexibility(self.model, image, decision, None if planner is None else planner.interchange_cost())
        planned = () if planner is None else planner.offers.planned()
        return None if found is None else offer(found, self.utc(), self._around.new_id(), planned)

    # Local commands and the journal's frame

    def snapshot(self) -> dict[str, Any]:
        """The state for the live view."""
        return snapshot(self)

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """A local command's answer; raises ValueError with a text for whoever asks."""
        command = request.get("command")
        if command == "snapshot":
            return self.snapshot()
        if command == "why":
            if self.report is None:
                raise ValueError("nothing is decided yet")
            return explain(self.report, request.get("device"))
        if command == "plan":
            if self.planner is None:
                raise ValueError("the site file has no `planning`")
            return self.planner.shown()
        return await self.operator.answer(request)

    def _present_w(self, device: str) -> float | None:
        image = self.cycle.image
        known = None if image is None else image.devices.get(device)
        return None if known is None else known.number(POWER_W, self.clock(), self.model.stale_after_s)

    def _start_journal(self) -> None:
        site = self.options.site
        self.journal.record(
            "start",
            pid=self.use.pid,
            site=site.site,
            period_ms=site.control.period_ms,
            rating_w=site.connection.rating_w,
            devices={
                name: {"kind": self.options.profiles[name].kind, "rating_w": device.rating_w}
                for name, device in site.devices.items()
            },
        )
        stored, unreadable = self.journal.stored_orders()
        if unreadable:
            self._log.error("stored orders cannot be read and are put aside; nothing is in force", reason=unreadable)
            self.journal.record("store", problem=unreadable)
        for problem in self.book.restore(stored):
            self._log.warning("a stored order is left behind", reason=problem)

    def _end_journal(self) -> None:
        self._cycle_journal.last_interval(self.cycle.image)
        self.journal.record("summary", **self.figures())

    def figures(self) -> dict[str, Any]:
        """Totals since start, as the report wants them."""
        return {
            "cycles": self.cycle.count,
            "missed_cycles": self.cycle.missed,
            "cycle_ms": self.cycle.cycle_ms.summary(),
            "jitter_ms": self.cycle.jitter_ms.summary(),
            "links": {
                driver.name: {
                    "good": driver.stats.good,
                    "lost": driver.stats.lost,
                    "reconnects": driver.stats.reconnects,
                }
                for driver in self.drivers
            },
            "refused_orders": self.book.refused,
            "journal_dropped": self.journal.dropped,
            "process": {
                "rss_mb": self.use.rss_mb(),
                "cpu_pct": self.use.cpu_pct(),
                "first_setpoint_s": None if self.first_setpoint_s is None else round(self.first_setpoint_s, 3),
            },
        }


async def _settle_memory() -> None:
    """Keep what lives as long as the process out of the garbage collector's passes: a full one costs 20 ms and more.

    Once before the links build their plans and once after; the second pass falls into the pause of a cycle.
    """
    for pause_s in (SETTLED_S, 0.0):
        gc.collect()
        gc.freeze()
        await asyncio.sleep(pause_s)
