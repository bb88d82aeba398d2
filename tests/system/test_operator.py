"""The operator at the site: hold, stop, limit, release and why, by the command line against a running gateway."""

from __future__ import annotations

import json
import signal
from typing import Any

from tests.system.processes import Gateway, Started, Twins, lasting, until
from tests.system.sites import steady_site, written

LOAD_W = 10_000.0


class Site:
    """A site with two batteries and a load that stands still, and its command line."""

    def __init__(self, started: Started) -> None:
        site = steady_site("battery_a", "battery_c", load_w=LOAD_W)
        site["parents"] = []
        self.started = started
        self.path = written(site, started.folder)
        self.state = started.folder / "state"
        self.twins: Twins
        self.gateway: Gateway

    async def start(self) -> Site:
        self.twins = await self.started.twins(self.path)
        await self.run()
        return self

    async def run(self) -> None:
        self.gateway = self.started.gateway(self.path, self.state, "--twin", "all", twins=self.twins)
        await self.gateway.ready()

    async def say(self, command: str, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What a command prints and says of errors."""
        state = ("--state", str(self.state))
        done = self.started.run(command, "gateway", command, str(self.path), *arguments, *state)
        assert await done.ended() == code, done.errors
        assert "Traceback" not in done.errors
        return done.out, done.errors

    async def asked(self, command: str, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((await self.say(command, *arguments, "--json"))[0])
        return answer

    def power_w(self, name: str) -> float:
        return float(self.twins.device(name)["power_w"])


async def test_hold_limit_stop_and_release(started: Started) -> None:
    site = await Site(started).start()
    said, _ = await site.say("hold", "battery_a", "-6kW", "--for", "15min")
    assert "hold battery_a at -6000 W until " in said
    await lasting(lambda: abs(site.power_w("battery_a") + 6_000.0) < 300.0, 0.3, "battery_a gives 6 kW")
    (order,) = site.gateway.snapshot()["orders"]
    assert (order["kind"], order["source"], order["text"]) == ("override", "operator", "battery_a at -6000 W")
    assert 800 < order["remaining_s"] <= 900

    answer = await site.asked("why", "battery_a")
    (device,) = answer["devices"]
    assert (device["name"], device["setpoint_w"], device["cause"]) == ("battery_a", -6_000.0, "operator")
    assert [step["function"] for step in answer["functions"]][:3] == ["connection protection", "fallback", "limits"]

    await site.say("limit", "net_import_w", "1kW")
    await lasting(lambda: site.twins.net_w < 1_500.0, 0.3, "the other battery keeps the operator's limit")
    assert abs(site.power_w("battery_a") + 6_000.0) < 300.0
    said, _ = await site.say("why")
    assert "operator limit-" in said and "cleared at" in said

    await site.say("limit", "battery_c", "0:5kW")
    await until(lambda: site.power_w("battery_c") > -300.0, "battery_c may not give any more")
    await site.say("stop", "battery_a")
    await until(lambda: abs(site.power_w("battery_a")) < 300.0, "battery_a stands still")
    assert site.twins.net_w > 9_000.0

    said, _ = await site.say("release")
    assert "release everything" in said
    await until(lambda: site.gateway.snapshot()["orders"] == [], "nothing is in force")
    kinds = [entry["kind"] for entry in site.gateway.journal("order", source="operator")]
    assert kinds == ["override", "limits", "override", "override", "limits", "override"]


async def test_an_operators_order_survives_kill_9(started: Started) -> None:
    site = await Site(started).start()
    await site.say("hold", "battery_a", "4000")
    await site.say("limit", "net_import_w", "20kW", "--for", "1h")
    site.gateway.running.send(signal.SIGKILL)
    await site.gateway.running.ended()
    await site.run()
    assert {order["kind"] for order in site.gateway.snapshot()["orders"]} == {"override", "limits"}
    await lasting(lambda: abs(site.power_w("battery_a") - 4_000.0) < 300.0, 0.3, "battery_a takes 4 kW again")


async def test_what_cannot_be_done_is_refused_and_changes_nothing(started: Started) -> None:
    site = await Site(started).start()
    for arguments, words in (
        (("hold", "battery_z", "1kW"), "no such device"),
        (("hold", "grid_meter", "1kW"), "no such device"),
        (("hold", "battery_a", "900kW"), "outside of what the site file allows"),
        (("hold", "battery_a", "much"), "a power like 5kW"),
        (("hold", "battery_a", "1kW", "--for", "soon"), "a time like"),
        (("limit", "net_import_w", "-1kW"), "magnitude"),
        (("limit", "battery_a", "5kW"), "LOWER:UPPER"),
        (("limit", "battery_a", "5kW:1kW"), "leave nothing"),
        (("why", "battery_z"), "no such device"),
    ):
        _, errors = await site.say(*arguments, code=2)
        assert words in errors, errors
    assert site.gateway.snapshot()["orders"] == []


async def test_no_gateway_runs(started: Started) -> None:
    site = Site(started)
    _, errors = await site.say("hold", "battery_a", "1kW", code=1)
    assert "is the gateway running" in errors


async def test_evidence_of_a_limit_is_exported_after_the_event(started: Started) -> None:
    site = await Site(started).start()
    await site.say("limit", "net_import_w", "3kW")
    await lasting(lambda: site.twins.net_w < 3_500.0, 2.5, "the limit is kept")
    await until(lambda: len(site.gateway.journal("power")) > 4, "rows of power are recorded")
    (order,) = json.loads((await site.say("evidence", "--json"))[0])
    assert (order["source"], order["status"], order["kept"]) == ("operator", "accepted", True)
    assert order["order"]["value"] == 3_000.0
    assert order["clock"] != ""
    assert order["received_utc"] <= order["acknowledged_utc"]
    assert all(row["upper_source"].startswith("operator limit-") for row in order["series"][2:])
    assert max(row["net_w"] for row in order["series"][3:]) < 3_500.0

    await site.say("limit", "net_import_w", "unlimited")
    path = started.folder / "event.csv"
    assert "2 orders" in (await site.say("evidence", "--out", str(path)))[0]
    header, first, *_ = path.read_text(encoding="utf-8").splitlines()
    assert header.startswith("id,source,quantity,value,status")
    assert "net_import_w,3000.0,superseded" in first
    assert "superseded" in (await site.say("evidence"))[0]
    _, errors = await site.say("evidence", "--from", "yesterday", code=2)
    assert "a time like" in errors
    _, errors = await site.say("evidence", "--from", "2026-02-02", "--to", "2026-02-01", code=2)
    assert "is not before" in errors


async def test_recorded_cycles_are_decided_again_bit_for_bit(started: Started) -> None:
    site = Site(started)
    site.twins = await started.twins(site.path)
    recording = started.folder / "decisions.jsonl"
    options = ("--twin", "all", "--record-decisions", str(recording))
    site.gateway = started.gateway(site.path, site.state, *options, twins=site.twins)
    await site.gateway.ready()
    await site.say("limit", "net_import_w", "3kW")
    await site.say("hold", "battery_a", "-2kW", "--for", "1s")
    await lasting(lambda: site.twins.net_w < 3_500.0, 1.0, "the limit is kept")
    site.gateway.running.send(signal.SIGTERM)
    assert await site.gateway.running.ended() == 0

    replay = ("replay", "gateway", "replay", str(site.path), str(recording), "--twin", "all")
    done = started.run(*replay, "--json", "--cycle", "20", PYTHONHASHSEED="7")
    assert await done.ended() == 0, done.out + done.errors
    told = json.loads(done.out)
    assert told["cycles"] > 20
    assert told["differing"] == 0
    assert {device["name"] for device in told["why"]["devices"]} == {"battery_a", "battery_c"}

    lines = recording.read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    last["setpoints"][0][1] += 1e-9
    recording.write_text("\n".join([*lines[:-1], json.dumps(last)]), encoding="utf-8")
    done = started.run(*replay)
    assert await done.ended() == 1
    assert "1 differ" in done.out
