"""A scenario in lockstep: the same script and the same happenings, on virtual time in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from config.scenario import Function
from gateway.bench.lockstep.request import LockstepRequest
from gateway.bench.lockstep.run import run_lockstep
from gateway.bench.run_files import read_problems
from gateway.bench.scenario.control_line import HappeningFailedError
from gateway.bench.scenario.fault_log import FaultLog
from gateway.bench.scenario.loading import WIRED_IN_LOCKSTEP
from gateway.bench.scenario.plan import Happening, Plan
from gateway.bench.scenario.sabotage import sabotaged
from sim_devices.faults.fault import FaultError
from sim_devices.faults.world import FaultWorld

if TYPE_CHECKING:
    from gateway.bench.lockstep.world import LockstepWorld

STEP_MS: Final = 100
LONG_STEP_MS: Final = 250
"""The physics' step of a scenario of half a day and more: it answers the same, and its record is read in one piece."""

LONG_S: Final = 43_200.0


def run_in_lockstep(plan: Plan, out: Path, without: Function | None) -> list[str]:
    """Run the scenario on virtual time into `out`, without a function of control if one is named; its problems."""
    loaded = plan.loaded
    duration_s = loaded.scenario.duration_s
    faults = _Faults(plan)
    between = [(0.0, faults.interpose)] if plan.has_faults else []
    request = LockstepRequest(
        site=loaded.site,
        profiles=loaded.profiles,
        out=out,
        duration_s=duration_s,
        step_ms=_step_ms(plan),
        script=plan.script,
        actions=[*between, *((happening.at_s, partial(_do, happening, faults)) for happening in plan.happenings)],
        trace=duration_s < LONG_S,
    )
    try:
        with sabotaged(without):
            run_lockstep(request)
    finally:
        faults.log.write(out, plan)
    return list(read_problems(out / "end.json"))


def _step_ms(plan: Plan) -> int:
    """The physics' step: what the scenario says of it, else one that suits its length."""
    loaded = plan.loaded
    given: int | None = (loaded.scenario.overrides.get("simulation") or {}).get("step_ms")
    usual = LONG_STEP_MS if loaded.scenario.duration_s >= LONG_S else STEP_MS
    return usual if given is None else given


class _Faults:
    """Proxies between the gateway and the Modbus twins of a run on virtual time."""

    def __init__(self, plan: Plan) -> None:
        self._loaded = plan.loaded
        self._world: FaultWorld | None = None
        self.log = FaultLog()

    def interpose(self, world: LockstepWorld) -> None:
        """Put a proxy where each server is; the connections there are end once."""
        site = self._loaded.site
        moved: dict[tuple[str, int], tuple[str, int]] = {}
        endpoints: dict[str, Any] = {}
        listen_at: dict[str, tuple[str, int]] = {}
        for name, device in site.devices.items():
            if isinstance(device.address, WIRED_IN_LOCKSTEP):
                listen_at[name] = place = world.address(name)
                if place not in moved:
                    moved[place] = world.network.move(place)
                host, port = moved[place]
                endpoints[name] = {**device.address.model_dump(mode="json"), "host": host, "port": port}
        self._world = FaultWorld(
            site,
            self._loaded.profiles,
            {"endpoints": endpoints},
            seed=site.simulation.seed,
            control_port=None,
            only=list(listen_at),
            listen_at=listen_at,
        )
        world.spawn(self._serve(self._world), "faults")

    async def _serve(self, proxies: FaultWorld) -> None:
        async with proxies:
            try:
                await asyncio.Event().wait()
            finally:
                self.log.hear(proxies.status())

    def do(self, happening: Happening, line: Mapping[str, Any]) -> None:
        """Set or clear a fault; raises HappeningFailedError."""
        assert self._world is not None
        try:
            if "clear" in line:
                self.log.hear(self._world.status())
                self._world.clear(line["device"], line["clear"])
            else:
                number = self._world.set(line["device"], line["fault"], line["parameters"])
                self.log.set(happening, {"set": number})
        except FaultError as error:
            raise HappeningFailedError(f"{happening.what}: {error}") from error


def _do(happening: Happening, faults: _Faults, world: LockstepWorld) -> Awaitable[None] | None:
    if happening.fault is not None:
        faults.do(happening, happening.fault)
    if happening.twins is not None:
        answer = world.tell_twins(happening.twins)
        if answer is not None and "error" in answer:
            raise HappeningFailedError(f"{happening.what}: {answer['error']}")
    match happening.gateway:
        case "restart":
            return _restart(world)
        case "kill":
            return world.kill_gateway()
        case "start":
            world.start_gateway()
    return None


async def _restart(world: LockstepWorld) -> None:
    await world.stop_gateway()
    world.start_gateway()
