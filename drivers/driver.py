"""What the gateway asks of a driver, whatever its protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from config.vocabulary import LinkState, Setpoint


@dataclass(slots=True)
class LinkStats:
    """Counters of one link since start. `good`: answers taken as values; `rejected`: answers that failed validation.

    `dropped`: polls given up because too many waited. `refused`: callers that were not let in. `paused`: units that are
    left alone, and asked now and then, since they don't answer. `identities`: what each device says it is, where it
    says so.
    """

    state: LinkState = LinkState.CONNECTING
    good: int = 0
    lost: int = 0
    reconnects: int = 0
    timeouts: int = 0
    rejected: int = 0
    exceptions: int = 0
    dropped: int = 0
    refused: int = 0
    paused: int = 0
    writes_acknowledged: int = 0
    writes_failed: int = 0
    reason: str = ""
    devices: dict[str, bool] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)


class Driver(Protocol):
    """One link and the devices on it. All calls but `run` and `rest` return at once; results go to the `FieldSink`."""

    name: str
    devices: tuple[str, ...]
    stats: LinkStats

    async def run(self) -> None:
        """Connect, serve and reconnect until cancelled; a protocol error never leaves this function."""

    def poll(self) -> tuple[str, ...]:
        """Start the fast poll of this cycle; return the devices whose answer is to be waited for.

        A device whose previous poll is still under way, that is absent, or that pushes its values, is not among them.
        """
        ...

    def write(self, setpoint: Setpoint) -> None:
        """Queue a setpoint ahead of every poll; the newest for a device supersedes one that has not gone out."""

    async def rest(self, timeout_s: float) -> None:
        """Write each device's rest state, as far as its link is up; return when done or after `timeout_s`."""


@runtime_checkable
class Remembers(Protocol):
    """A driver that leaves out of a setpoint's writes what the device has acknowledged before."""

    def forget(self, device: str) -> None:
        """Take nothing for granted of what this device acknowledged: its next setpoint is written whole."""
