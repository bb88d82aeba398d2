"""Whether a fault can be set, by name: asked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config.findings import did_you_mean, shown
from config.profile import Profile
from config.site import Site
from sim_devices.faults.fault import FaultError
from sim_devices.faults.registry import FAULTS
from sim_devices.faults.world import BROKER, check_fault


def fault_problem(
    site: Site, profiles: Mapping[str, Profile], device: str, fault: str, parameters: Mapping[str, Any]
) -> str:
    """Why the fault can't be set there; empty where it can. Devices, parents and `broker` can be struck."""
    there = [*site.devices, *(parent.name for parent in site.parents), BROKER]
    if device not in there:
        return f"unknown device {shown(device)}{did_you_mean(device, there)}; there are {', '.join(there)}"
    if fault not in FAULTS:
        return f"unknown fault {shown(fault)}{did_you_mean(fault, list(FAULTS))}; there are {', '.join(FAULTS)}"
    try:
        check_fault(site, profiles, device, fault, parameters)
    except FaultError as error:
        return str(error)
    return ""
