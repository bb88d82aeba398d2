"""What the control process imports: what its site needs, and nothing of the planner's or the bench's."""

from __future__ import annotations

import signal

import pytest

from tests.system.processes import Gateway, Started, closed_port
from tests.system.sites import steady_site, written

NEVER = {"cvxpy", "numpy", "scipy", "plotly", "rich.live", "amqtt", "sim_devices.physics", "sim_devices.process"}


@pytest.mark.parametrize(
    ("devices", "libraries"),
    [
        (("battery_a",), {"drivers.modbus.driver"}),
        (("battery_a", "battery_b"), {"drivers.modbus.driver", "drivers.opcua.driver", "asyncua"}),
        (("charger_3",), {"drivers.modbus.driver", "drivers.mqtt.driver"}),
    ],
    ids=["modbus", "modbus and opcua", "modbus and mqtt"],
)
async def test_a_protocol_is_loaded_for_a_site_that_uses_it(
    devices: tuple[str, ...], libraries: set[str], started: Started
) -> None:
    site = written(steady_site(*devices), started.folder)
    arguments = ("gateway", "run", str(site), "--state", str(started.folder / "state"), "--until-eof")
    broker = ("--broker", f"127.0.0.1:{closed_port()}")
    running = started.run("gateway", *arguments, *broker, PYTHONPROFILEIMPORTTIME="1")
    await Gateway(running, started.folder / "state").ready()
    running.send(signal.SIGTERM)
    assert await running.ended() == 0
    loaded = {
        line.rpartition("|")[2].strip() for line in running.errors.splitlines() if line.startswith("import time:")
    }
    assert "gateway.cycle" in loaded
    assert loaded & NEVER == set()
    optional = {"drivers.modbus.driver", "drivers.opcua.driver", "drivers.mqtt.driver", "asyncua"}
    assert loaded & optional == libraries
