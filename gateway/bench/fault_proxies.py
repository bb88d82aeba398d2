"""The fault proxies of a site as a child process, between its endpoints and the gateway."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from config.site import MqttBroker
from gateway.bench.children import Child

ANNOUNCEMENT: Final = "faults.json"
"""In the state directory: where the fault proxies that run for the site are."""


class FaultProxies:
    """The proxies' process; `endpoints` is what it was given, with the proxies' addresses in it."""

    def __init__(self, child: Child, said: Mapping[str, Any]) -> None:
        self.child = child
        self.endpoints = dict(said)
        broker = said.get("broker")
        self.broker = None if broker is None else MqttBroker(host=broker["host"], port=broker["port"])

    @classmethod
    async def start(
        cls, site: Path, endpoints: Mapping[str, Any], broker: MqttBroker | None, directory: Path, *, seed: int = 0
    ) -> FaultProxies:
        """Start them in front of `endpoints`, as twins print them, and of the parents' broker; return when they serve.

        Raises ChildFailedError.
        """
        given = directory / "endpoints.json"
        given.write_text(json.dumps(endpoints))
        arguments = ["sim_devices.faults.world", str(site), "--endpoints", str(given), "--seed", str(seed)]
        arguments += ["--announce", str(directory / ANNOUNCEMENT), "--until-eof"]
        if broker is not None:
            arguments += ["--broker", f"{broker.host}:{broker.port}"]
        child = await Child.start("faults", arguments, directory / "faults.log")
        try:
            return cls(child, await child.ready())
        except BaseException:
            await child.stop()
            raise

    async def stop(self) -> None:
        """End the process."""
        await self.child.stop()
