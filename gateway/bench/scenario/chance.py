"""What of a scenario is left to chance, and so depends on its seed."""

from __future__ import annotations

from gateway.bench.scenario.loading import LoadedScenario


def what_is_random(loaded: LoadedScenario) -> tuple[str, ...]:
    """Everything that another seed would make another; empty where none of it is there.

    A driver that has lost its device draws the pause before its next attempt, so that whatever breaks connections is
    left to chance as well.
    """
    simulation = loaded.site.simulation
    found = {
        "load steps": simulation.load_steps is not None,
        "clouds": simulation.clouds is not None,
        "noise": any(device.twin.noise_w > 0.0 for device in loaded.site.devices.values()),
        "reconnection": any(event.fault is not None or event.gateway is not None for event in loaded.events),
    }
    return tuple(name for name, is_there in found.items() if is_there)
