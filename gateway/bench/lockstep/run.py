"""Puts a site, its twins, a gateway and an operator together in one process, and runs them on virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from datetime import UTC
from itertools import count
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import TypeAdapter

from config.site import Address, MqttBroker, OpcUaServer, Parent, Site
from config.vocabulary import DeviceKind
from drivers.transports import Transports
from gateway.bench.lockstep.mqtt_session import InProcessMqttSession
from gateway.bench.lockstep.opcua_session import InProcessOpcUaSession
from gateway.bench.lockstep.request import LockstepError, LockstepRequest
from gateway.bench.lockstep.virtual_loop import BEGIN_S, VirtualLoop
from gateway.bench.lockstep.world import LockstepWorld
from gateway.bench.realtime import SCRIPT_OVERRUN_S
from gateway.bench.run_directory import prepare
from gateway.bench.run_files import DSO_FILE, END_FILE, PHYSICS_FILE
from gateway.run_options import RunOptions
from gateway.runtime import Runtime
from gateway.surroundings import Surroundings
from sim_devices.dso.log import JsonLines
from sim_devices.dso.script import ScriptError, check_timing
from sim_devices.dso.twin import DsoSettings, DsoTwin
from sim_devices.endpoints import Endpoints, TwinError, WithinProcess, twin_kinds
from sim_devices.faults.world import FaultWorld
from sim_devices.mqtt_in_process import InProcessBroker, client_factory
from sim_devices.network_model import NetworkError
from sim_devices.physics import SitePhysics
from sim_devices.series import SeriesError
from sim_devices.trace import Trace

LOG_FILE: Final = "gateway.log"

TWINS_AT: Final = 0.2
GATEWAY_AT: Final = 0.5
OPERATOR_AT: Final = 0.7
"""Shares of a physics step at which the parts begin, so that none of their rhythms coincides with a step: what comes
first is then no matter of rounding."""

BROKER: Final = MqttBroker(host="127.0.0.1", port=1883)
"""The one in this process; addresses of brokers mean nothing here."""


def run_lockstep(request: LockstepRequest) -> None:
    """Run a request to its end, as the package says. Raises LockstepError before the start, or what went wrong."""
    site = request.settled_site()
    try:
        kinds = twin_kinds(site, None)
        if request.script is not None:
            check_timing(request.script, request.duration_s, _operator(site).heartbeat_timeout_s)
        with ExitStack() as stack:
            _prepare(request)
            runner = stack.enter_context(asyncio.Runner(loop_factory=VirtualLoop))
            stack.enter_context(_logging_to(request.out / LOG_FILE, runner.get_loop()))
            runner.run(_Run(request, site, kinds).run())
    except (TwinError, NetworkError, SeriesError, ScriptError) as error:
        raise LockstepError(str(error)) from error


def _prepare(request: LockstepRequest) -> None:
    try:
        prepare(request.out)
    except OSError as error:
        raise LockstepError(f"{request.out}: {error.strerror}") from error


class _Run:
    """One run: its parts, from the first to the last of them."""

    def __init__(self, request: LockstepRequest, site: Site, kinds: Mapping[str, DeviceKind]) -> None:
        self._request = request
        self._site = site
        self._kinds = kinds
        self._problems: list[str] = []
        self._defect: BaseException | None = None
        self._broker = InProcessBroker()
        self._within = WithinProcess(client_factory(self._broker), self._utc)
        self._addresses: dict[str, Address] = {}
        self._offers = count(1)
        self._began_utc_s = site.simulation.start.replace(tzinfo=UTC).timestamp()

    async def run(self) -> None:
        """From the start to the end; what went wrong is raised."""
        self._loop = loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        own = asyncio.current_task()
        assert own is not None

        def defect(_: object, context: dict[str, Any]) -> None:
            self._defect = self._defect or context.get("exception") or RuntimeError(str(context.get("message")))
            own.cancel()

        loop.set_exception_handler(defect)
        try:
            await self._run(loop)
        except BaseExceptionGroup as group:
            raise _first(group) from None
        except asyncio.CancelledError:
            if self._defect is None:
                raise
        if self._defect is not None:
            raise self._defect
        end = {"planned_s": self._request.duration_s, "problems": self._problems}
        (self._request.out / END_FILE).write_text(json.dumps(end))

    async def _run(self, loop: VirtualLoop) -> None:
        request, site = self._request, self._site
        physics = SitePhysics(site, self._kinds, start_s=loop.time())
        step_s = physics.step_s
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            trace = Trace(request.out / PHYSICS_FILE, physics, own_thread=False)
            stack.callback(trace.close)
            world = LockstepWorld(site, physics, loop.network, self._broker, self._new_runtime, loop.time, tasks)
            world.opcua = self._within.opcua
            lasting = [tasks.create_task(_step(physics, trace, request.physics_every), name="physics")]
            await asyncio.sleep(TWINS_AT * step_s)
            endpoints = Endpoints(site, physics, loop.time, ports="declared", within=self._within)
            world.endpoints = await stack.enter_async_context(endpoints)
            lasting += endpoints.run_clients(tasks)
            await self._take_addresses(endpoints, world, stack)
            await asyncio.sleep((GATEWAY_AT - TWINS_AT) * step_s + request.gateway_after_s)
            world.start_gateway()
            await asyncio.sleep((OPERATOR_AT - GATEWAY_AT) * step_s)
            await self._until_the_end(world)
            await world.stop_gateway()
            for task in lasting:
                task.cancel()
            await asyncio.wait(lasting)
            await world.end()
        if trace.error is not None:
            raise trace.error

    async def _until_the_end(self, world: LockstepWorld) -> None:
        """Until the operator's script ends, or for the duration where there is none."""
        request = self._request
        if request.script is None:
            self._begin_actions(world)()
            await asyncio.sleep(request.duration_s)
            return
        parent = _operator(self._site)
        with (request.out / DSO_FILE).open("w", encoding="utf-8") as file:
            log = JsonLines(file, self._loop.time, self._utc)
            settings = DsoSettings(
                broker=BROKER,
                layer=self._site.site,
                source=parent.name,
                duration_s=request.duration_s,
                rating_w=self._site.connection.rating_w,
                heartbeat_timeout_s=parent.heartbeat_timeout_s,
                start_after_ready=True,
            )
            twin = world.dso = DsoTwin(
                settings,
                request.script,
                log,
                beside=request.beside,
                clock=self._loop.time,
                utc_clock=self._utc,
                new_client=client_factory(self._broker),
                rng=self._rng("operator"),
                on_started=self._begin_actions(world),
            )
            try:
                async with asyncio.timeout(request.duration_s + SCRIPT_OVERRUN_S):
                    await twin.run(asyncio.Event())
            except TimeoutError:
                self._problems.append("the operator's script did not end")
            log.write("done", {"stopped": False, "passed": twin.checks.passed, "failed": twin.checks.failed})
        if twin.checks.failed:
            self._problems.append("a check of the operator's failed; see the report and dso.jsonl")

    def _begin_actions(self, world: LockstepWorld) -> Callable[[], None]:
        """Called when the script begins: from now on the actions are counted."""

        def begin() -> None:
            world.began_s = world.clock()
            world.spawn(self._act(world), "actions")

        return begin

    async def _act(self, world: LockstepWorld) -> None:
        """The actions at their times."""
        for at_s, action in sorted(self._request.actions, key=lambda item: item[0]):
            await asyncio.sleep(max(at_s - world.now_s, 0.0))
            awaited = action(world)
            if awaited is not None:
                world.spawn(_awaited(awaited), f"action at {at_s:g} s")

    # What the parts are given

    def _new_runtime(self) -> Runtime:
        site = self._site
        options = RunOptions(
            site=site,
            profiles=self._request.profiles,
            directory=self._request.out,
            addresses=self._addresses,
            twins=frozenset(site.devices),
            broker=BROKER,
            trace=self._request.trace,
        )
        surroundings = Surroundings(
            own_process=False,
            transports=Transports(self._rng, self._mqtt_session, self._opcua_session, self._utc),
            mqtt_client=client_factory(self._broker),
            rng=self._rng,
            new_id=lambda: f"offer-{next(self._offers)}",
        )
        return Runtime(options, self._loop.time, self._utc, surroundings)

    async def _take_addresses(self, endpoints: Endpoints, world: LockstepWorld, stack: AsyncExitStack) -> None:
        """Where the gateway finds each device: at its twin, or at the proxy before it."""
        told = dict(endpoints.addresses)
        if self._request.faults:
            seed = self._site.simulation.seed
            faults = FaultWorld(self._site, self._request.profiles, {"endpoints": told}, seed=seed, control_port=None)
            world.faults = await stack.enter_async_context(faults)
            told |= {name: found for name, found in faults.endpoints.items() if "modbus" in found["driver"]}
        adapter: TypeAdapter[Address] = TypeAdapter(Address)
        self._addresses = {name: adapter.validate_python(address) for name, address in told.items()}

    def _mqtt_session(
        self, broker: MqttBroker, identifier: str, timeout_s: float, topics: Any, every: Any = ()
    ) -> InProcessMqttSession:
        return InProcessMqttSession(self._broker, identifier, topics, every)

    def _opcua_session(self, address: OpcUaServer, timeout_s: float) -> InProcessOpcUaSession:
        name = address.url.removeprefix("opc.tcp://").partition(":")[0]
        return InProcessOpcUaSession(self._within.opcua.get(name), timeout_s)

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self._site.simulation.seed}/{name}")

    def _utc(self) -> float:
        """Wall-clock time: that of the simulation's start, and it passes as the virtual time does."""
        return self._began_utc_s + self._loop.time() - BEGIN_S


async def _step(physics: SitePhysics, trace: Trace, every: int) -> None:
    """Advance the physics by virtual time until cancelled."""
    loop, origin_s, step_s = asyncio.get_running_loop(), physics.now_s, physics.step_s
    for done in count(1):
        now_s = origin_s + done * step_s
        await asyncio.sleep(now_s - loop.time())
        physics.step(now_s)
        if done % every == 0:
            trace.add()


def _operator(site: Site) -> Parent:
    """The parent that dispatches. Raises LockstepError where there is none."""
    for parent in site.parents:
        if parent.dispatch:
            return parent
    raise LockstepError("a script needs a parent in the site file that may dispatch")


async def _awaited(awaitable: Any) -> None:
    await awaitable


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextmanager
def _logging_to(path: Path, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """The gateway's log as JSON lines on virtual time, while the context lasts."""

    def stamp(_: Any, __: str, entry: Any) -> Any:
        entry["monotonic_s"] = round(loop.time(), 6)
        return entry

    before = structlog.get_config() if structlog.is_configured() else None
    with path.open("w", encoding="utf-8") as file:
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                stamp,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=repr),
            ],
            logger_factory=structlog.WriteLoggerFactory(file),
            wrapper_class=structlog.make_filtering_bound_logger(20),
        )
        try:
            yield
        finally:
            if before is None:
                structlog.reset_defaults()
            else:
                structlog.configure(**before)
