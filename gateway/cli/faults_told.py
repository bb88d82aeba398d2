"""What the fault proxies of `gateway run --faults` have done, told when it is interrupted."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

from gateway.bench.run_files import mapping
from gateway.bench.scenario.control_line import HappeningFailedError, tell

CLIENT: Final = "aiomqtt"


async def tell_faults(endpoints: Mapping[str, Any]) -> None:
    """Print each fault that was set, and how often it acted. `endpoints` is what the proxies announced."""
    control = mapping(endpoints.get("faults"))
    try:
        status = await tell((str(control.get("host")), int(control.get("port") or 0)), {"status": True}, "faults")
    except HappeningFailedError as error:
        sys.stdout.write(f"interrupted; {error}\n")
        return
    rows = [
        f"  {device:16} {fault['fault']:20} acted {fault['acted']} times{', in force' if fault['active'] else ''}"
        for device, told in mapping(status.get("devices")).items()
        for fault in told["faults"]
    ]
    sys.stdout.write("\n".join(["interrupted; faults that were set:", *(rows or ["  none"])]) + "\n")
    sys.stdout.flush()


def expect_broken_connections(loop: asyncio.AbstractEventLoop) -> None:
    """From now on a broker that goes is no news: a client that was cancelled while it connected still hears of it.

    The client's errors are known by its library, which this process may not have imported.
    """

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, asyncio.CancelledError) and type(error).__module__.partition(".")[0] != CLIENT:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    # aiomqtt sets the level of the logger that it gives paho itself.
    logging.getLogger("mqtt").setLevel(logging.CRITICAL)
