"""What a driver is told about one device: its profile and what the site file says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from config.profile import Profile
    from config.site import Address


@dataclass(frozen=True, slots=True)
class DeviceBinding:
    """One device of a link: profile, address and the figures that turn a setpoint into the device's own quantities.

    `phases` is how many of them the device uses; `reversion_s` is the device-side timer to arm, from the site file or
    else the profile (None: there is none); with `writable` False nothing is ever sent to the device but reads.
    """

    name: str
    profile: Profile
    address: Address
    rating_w: float
    phases: int = 3
    nominal_voltage_v: float = 230.0
    reversion_s: float | None = None
    writable: bool = True
