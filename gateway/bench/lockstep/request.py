"""What a lockstep run is asked for."""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from config.profile import Profile
from config.site import Site
from sim_devices.dso.script import Script

if TYPE_CHECKING:
    from gateway.bench.lockstep.world import LockstepWorld

Action: TypeAlias = "Callable[[LockstepWorld], Awaitable[None] | None]"
"""Done at a virtual time. What it returns to be awaited goes on beside the run."""

DEFAULT_STEP_MS: Final = 100


class LockstepError(Exception):
    """The run can't begin; the text is for the user."""


@dataclass(frozen=True, slots=True)
class LockstepRequest:
    """See the package's own description of each field."""

    site: Site
    profiles: Mapping[str, Profile]
    out: Path
    duration_s: float
    seed: int | None = None
    period_ms: int | None = None
    step_ms: int = DEFAULT_STEP_MS
    script: Script | None = None
    beside: Path | None = None
    gateway_after_s: float = 0.0
    actions: Sequence[tuple[float, Action]] = ()
    faults: bool = False
    physics_every: int = 1
    trace: bool = True

    def settled_site(self) -> Site:
        """The site as it is run: with this request's seed, step and period, and without serial ports.

        Raises LockstepError for a request that makes no sense.
        """
        self._check()
        data = self.site.model_dump()
        data["simulation"]["step_ms"] = self.step_ms
        if self.seed is not None:
            data["simulation"]["seed"] = self.seed
        control = data["control"]
        if self.period_ms is not None:
            control["period_ms"] = self.period_ms
            for name in ("stale_after_s", "setpoint_life_s"):
                # They must outlast the period.
                control[name] = max(control[name], 2.0 * self.period_ms / 1000.0)
        _take_to_the_network(data["devices"])
        try:
            return Site.model_validate(data)
        except ValueError as error:
            raise LockstepError(f"step_ms, period_ms or seed: {error}") from error

    def _check(self) -> None:
        if not 0.0 < self.duration_s < float("inf"):
            raise LockstepError(f"a duration of {self.duration_s} s is not above 0")
        if self.physics_every < 1:
            raise LockstepError(f"every {self.physics_every}th step can't be recorded")
        if not 0.0 <= self.gateway_after_s < float("inf"):
            raise LockstepError(f"the gateway can't start after {self.gateway_after_s} s")
        if any(not 0.0 <= at_s < float("inf") for at_s, _ in self.actions):
            raise LockstepError("an action before the start")


def _take_to_the_network(devices: Mapping[str, Any]) -> None:
    """Have every device reached through the network of the run, which has no serial ports and no TLS.

    A serial line is given to a serial device server: the same frames cross the network.
    """
    lines: dict[str, str] = {}
    for device in devices.values():
        address = device["address"]
        if address["driver"] == "modbus_rtu":
            host = lines.setdefault(posixpath.normpath(address["device"]), f"line-{len(lines) + 1}")
            device["address"] = {"driver": "modbus_rtu_tcp", "host": host, "port": 502, "unit": address["unit"]}
        elif address["driver"] == "ocpp":
            address["tls"] = None
