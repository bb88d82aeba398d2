"""What a site file's grid support needs of the meter's profile: without its point it would have no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from config.findings import Problem, Severity
from config.profile import Profile
from config.site import Site
from config.vocabulary import FREQUENCY_HZ, VOLTAGE_V, DeviceKind

_NEEDS: Final = (("volt_watt", VOLTAGE_V), ("frequency_watt", FREQUENCY_HZ))


def grid_support_is_measured(site: Site, profiles: Mapping[str, Profile]) -> Iterator[Problem]:
    """Each function needs its point of the connection's meter, and devices that it can move."""
    support, meter = site.control.grid_support, site.devices.get(site.connection.meter)
    profile = None if meter is None else profiles.get(meter.profile)
    for function, point in _NEEDS:
        if getattr(support, function) is None:
            continue
        path = ("control", "grid_support", function)
        if profile is not None and point not in profile.points:
            words = f"the profile of the meter has no {point}, so that this would do nothing"
            yield Problem(path, words, f"a meter that tells {point}", see=("connection", "meter"))
        movable = [
            name
            for name, device in site.devices.items()
            if not device.read_only
            and (found := profiles.get(device.profile)) is not None
            and found.kind is not DeviceKind.METER
            and found.control is not None
        ]
        if not movable:
            yield Problem(path, "the site has no device that it could move", "", Severity.WARNING)
