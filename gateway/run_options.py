"""How a site is run: which devices are twins, where they are, what may be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from config.lags import MeasuredLag
from config.profile import Profile
from config.site import Address, MqttBroker, Site


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a site is run. `addresses` replace those of the site file, for twins and their ports.

    `broker` replaces the parents' brokers, `spare_broker` serves those that the site file gives none.
    """

    site: Site
    profiles: Mapping[str, Profile]
    directory: Path
    addresses: Mapping[str, Address] = field(default_factory=dict)
    twins: frozenset[str] = frozenset()
    twin_world: tuple[str, int] | None = None
    broker: MqttBroker | None = None
    spare_broker: MqttBroker | None = None
    observe: bool = False
    allow_real_writes: bool = False
    trace: bool = False
    lags: Mapping[str, MeasuredLag] = field(default_factory=dict)
    record_decisions: Path | None = None

    def all_addresses(self) -> dict[str, Address]:
        """Where each device is in this run."""
        return {name: self.addresses.get(name, device.address) for name, device in self.site.devices.items()}

    def writable(self) -> dict[str, bool]:
        """Twins may be written; real devices only by leave; neither while observing nor where the site file says no."""
        return {
            name: not self.observe and not device.read_only and (name in self.twins or self.allow_real_writes)
            for name, device in self.site.devices.items()
        }

    def written_addresses(self) -> dict[str, Address]:
        """The devices that will be written to, and where they are."""
        writable = self.writable()
        return {
            name: address
            for name, address in self.all_addresses().items()
            if writable[name] and self.profiles[name].control is not None
        }
