"""Somebody else writes to a device that the gateway controls: the read-back tells, and the gateway repairs it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from pymodbus.client import AsyncModbusTcpClient

from tests.system.processes import Started, lasting, until
from tests.system.sites import steady_site, written

LIMIT_W = 5_000.0
SETPOINTS, MODE_OFFSET = 704, 23
"""DERCtlAC of the SunSpec models, and where WSetMod is in it."""


@contextlib.asynccontextmanager
async def foreign_master(host: str, port: int) -> AsyncIterator[AsyncModbusTcpClient]:
    """A Modbus client that knows nothing of the gateway."""
    client = AsyncModbusTcpClient(host, port=port)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


async def read_by(master: AsyncModbusTcpClient, unit: int, offset: int) -> int:
    """A register of the setpoints' model."""
    answer = await master.read_holding_registers(await _setpoints(master, unit) + offset, count=1, device_id=unit)
    value: int = answer.registers[0]
    return value


async def written_by(master: AsyncModbusTcpClient, unit: int, offset: int, value: int) -> None:
    """Write a register of the setpoints' model."""
    answer = await master.write_register(await _setpoints(master, unit) + offset, value, device_id=unit)
    assert not answer.isError(), answer


async def _setpoints(master: AsyncModbusTcpClient, unit: int) -> int:
    address = 40_002
    while True:
        answer = await master.read_holding_registers(address, count=2, device_id=unit)
        model, length = answer.registers
        if model == SETPOINTS:
            return address
        assert model != 0xFFFF, "the battery has the model"
        address += 2 + length


async def test_a_foreign_write_is_reported(started: Started) -> None:
    site = steady_site("battery_a", load_w=25_000.0)
    site["parents"] = []
    site["connection"]["max_import_w"] = LIMIT_W
    site["fallback"] = {"net_import_w": LIMIT_W, "net_export_w": 0}
    path = written(site, started.folder)
    twins = await started.twins(path, ports="declared")
    gateway = started.gateway(path, started.folder / "state", "--twin", "all", twins=twins)
    await gateway.ready()
    await lasting(lambda: twins.net_w <= LIMIT_W + 1_000.0, 2.5, "the battery keeps the limit")
    assert gateway.snapshot()["read_backs"] == []

    command = ["gateway", "write", str(path), "battery_a", "setpoint_mode", "0", "--yes"]
    refused = started.run("refused", *command, "--state", str(started.folder / "other"))
    assert await refused.ended() == 2
    assert "battery_a: another gateway on this machine writes to it" in refused.errors

    address = site["devices"]["battery_a"]["address"]
    async with foreign_master(address["host"], address["port"]) as master:
        await written_by(master, address["unit"], MODE_OFFSET, 0)
        await until(lambda: gateway.journal("readback"), "the foreign write is noticed")
        (entry,) = gateway.journal("readback")
        told = (entry["device"], entry["point"], entry["asked"], entry["read"])
        assert told == ("battery_a", "setpoint_mode", 1.0, 0.0)
        assert gateway.logged("read-back differs", "battery_a")

        await until(lambda: not gateway.snapshot()["read_backs"], "the mode is written again, and read so")
        assert await read_by(master, address["unit"], MODE_OFFSET) == 1
    await lasting(lambda: twins.net_w <= LIMIT_W + 1_000.0, 2.5, "the battery keeps the limit")
    assert len(gateway.journal("readback")) == 1
