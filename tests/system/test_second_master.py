"""Somebody else writes to a device that the gateway controls: the read-back tells."""

from __future__ import annotations

from tests.system.processes import Started, lasting, until
from tests.system.sites import steady_site, written

LIMIT_W = 5_000.0


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
    other = started.run("other", *command, "--state", str(started.folder / "other"))
    assert await other.ended() == 0, other.errors
    await until(lambda: gateway.journal("readback"), f"the foreign write is noticed; the other said {other.out}")
    (entry,) = gateway.journal("readback")
    assert (entry["device"], entry["point"], entry["asked"], entry["read"]) == ("battery_a", "setpoint_mode", 1.0, 0.0)
    assert gateway.logged("read-back differs", "battery_a")
    assert gateway.snapshot()["read_backs"] == ["battery_a: setpoint_mode reads 0, 1 was written"]
