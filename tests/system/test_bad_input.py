"""What a user's mistakes get: every one listed, exit code 2, no traceback, nothing started."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.system.processes import Running, Started, closed_port
from tests.system.sites import demo_site, steady_site, written

MISTAKES = {
    ("controll",): "unknown",
    ("connection", "rating_w"): "number",
    ("devices", "battery_a", "min_w"): "above max_w",
    ("devices", "battery_b", "soc_min"): "not below soc_max",
    ("devices", "charger_2", "address"): "address",
    ("devices", "charger_3", "profile"): "unknown profile",
    ("fallback", "net_export_w"): "required",
}


def site_with_mistakes() -> dict[str, Any]:
    """The demo site with one mistake of each kind, and one of those twice."""
    site = demo_site()
    site["controll"] = {}
    site["connection"]["rating_w"] = "much"
    site["devices"]["battery_a"] |= {"min_w": 10_000, "max_w": -10_000}
    site["devices"]["battery_b"] |= {"soc_min": 0.9, "soc_max": 0.1}
    site["devices"]["charger_2"]["address"] = site["devices"]["charger_1"]["address"] | {}
    site["devices"]["charger_3"]["profile"] = "goe_chargr"
    del site["fallback"]["net_export_w"]
    return site


async def refusal(running: Running) -> list[str]:
    """The lines that a command said when it refused; nothing else came of it."""
    assert await running.ended() == 2, running.errors
    assert "Traceback" not in running.errors
    assert running.alive() == {}
    assert running.out == ""
    return running.errors.splitlines()


async def test_check_and_run_list_every_mistake_of_a_site_file(started: Started) -> None:
    path = written(site_with_mistakes(), started.folder)
    checked = await refusal(started.run("check", "gateway", "check", str(path)))
    for where, words in MISTAKES.items():
        assert any(".".join(where) in line and words in line for line in checked), (where, words, checked)
    assert all(line.startswith(f"{path}:") for line in checked if ": warning: " not in line)
    state = started.folder / "state"
    errors = [line for line in checked if ": warning: " not in line]
    run = started.run("run", "gateway", "run", str(path), "--twin", "all", "--state", str(state))
    assert await refusal(run) == errors
    assert not state.exists()


async def test_check_as_json_names_file_line_and_path(started: Started) -> None:
    path = written(site_with_mistakes(), started.folder)
    checked = started.run("check", "gateway", "check", str(path), "--json")
    assert await checked.ended() == 2
    findings = json.loads(checked.out)
    found = {finding["path"] for finding in findings}
    assert {".".join(where) for where in MISTAKES} <= found
    lines = path.read_text().splitlines()
    reversed_power = next(finding for finding in findings if finding["path"] == "devices.battery_a.min_w")
    assert "min_w" in lines[reversed_power["line"] - 1]


async def test_a_key_given_twice_is_a_mistake(started: Started) -> None:
    path = written(demo_site(), started.folder)
    path.write_text(path.read_text() + "site: again\n")
    (line,) = await refusal(started.run("run", "gateway", "run", str(path), "--twin", "all"))
    assert "site" in line


COMMANDS: dict[str, tuple[str, str]] = {
    "no site file": ("run missing.yaml", "missing.yaml"),
    "an unknown twin": ("run SITE --twin nobody", "--twin nobody: no such device; allowed: all, grid_meter"),
    "a broker that is none": ("run SITE --twin all --broker nonsense", "--broker nonsense: HOST:PORT is asked for"),
    "a port that is none": ("run SITE --twin all --broker host:99999", "--broker host:99999: HOST:PORT is asked for"),
    "no broker at all": ("run SITE", "parents.dso.broker is required"),
    "endpoints that are not there": ("run SITE --twin all --addresses nowhere.json", "--addresses nowhere.json"),
    "endpoints that are none": ("run SITE --twin all --addresses FILE", "--addresses FILE"),
    "an endpoint without a host": (
        "run SITE --twin all --addresses endpoints.json",
        "endpoints.battery_a.modbus_tcp.host: Field required",
    ),
    "a state directory below a file": ("run SITE --twin all --state FILE/state", "FILE/state: Not a directory"),
    "a state directory that is a file": ("run SITE --twin all --state FILE", "FILE: File exists"),
    "a state directory too long": (f"run SITE --twin all --state {'x' * 120}", "too long for a local socket"),
    "twins of nobody": ("twins SITE --twin nobody", "nobody: the site has no such device"),
    "twins at a broker that is none": ("twins SITE --broker nonsense", "--broker nonsense: HOST:PORT is asked for"),
    "twins at ports that are none": ("twins SITE --ports some", "--ports some: allowed are declared and free"),
    "a demo into a file": ("demo SITE --duration 30 --headless --out FILE", "--out FILE: File exists"),
    "a demo too short": ("demo SITE --duration 3 --headless --out out", "greater than or equal to 30"),
    "a demo at a broker that is none": (
        "demo SITE --duration 30 --headless --out out --broker nonsense",
        "--broker nonsense: HOST:PORT is asked for",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
async def test_a_command_that_cannot_be_done_says_why(case: str, started: Started) -> None:
    words, said = COMMANDS[case]
    site = written(steady_site("battery_a"), started.folder)
    (started.folder / "a_file").write_text("[]")
    (started.folder / "endpoints.json").write_text('{"endpoints": {"battery_a": {"driver": "modbus_tcp"}}}')
    words, said = (text.replace("FILE", "a_file").replace("SITE", site.name) for text in (words, said))
    default = str(started.folder / "default")
    command = started.run("command", "gateway", *words.split(), LAMINA_STATE=default)
    assert said in "\n".join(await refusal(command))


async def test_watching_a_gateway_that_does_not_run_ends_with_1(started: Started) -> None:
    site = written(steady_site("battery_a"), started.folder)
    watching = started.run("watch", "gateway", "watch", str(site), "--state", str(started.folder / "nowhere"))
    assert await watching.ended() == 1
    assert "is the gateway running, with this state directory?" in watching.errors


@pytest.mark.skipif(os.geteuid() == 0, reason="to root every directory is writable")
async def test_a_state_directory_that_may_not_be_written_is_named(started: Started) -> None:
    site, state = written(steady_site("battery_a"), started.folder), started.folder / "state"
    state.mkdir(mode=0o500)
    (line,) = await refusal(started.run("run", "gateway", "run", str(site), "--twin", "all", "--state", str(state)))
    assert line == f"{state}: Permission denied"


async def test_a_second_gateway_on_a_site_names_the_first_and_leaves_it_alone(started: Started) -> None:
    site, state = written(steady_site("battery_a"), started.folder), started.folder / "state"
    broker = f"127.0.0.1:{closed_port()}"
    first = started.gateway(site, state, "--twin", "all", broker=broker)
    await first.ready()
    second = started.gateway(site, state, "--twin", "all", broker=broker)
    (line,) = await refusal(second.running)
    assert line == f"{state}: another gateway (process {first.running.pid}) holds this site"
    assert first.snapshot()["devices"], "the socket is still the first one's"


async def test_twins_name_a_port_that_is_taken(started: Started) -> None:
    site = steady_site("battery_a")
    port = site["devices"]["battery_a"]["address"]["port"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        path: Path = written(site, started.folder)
        lines = await refusal(started.run("twins", "gateway", "twins", str(path), "--ports", "declared"))
    assert any(f"battery_a: 127.0.0.1:{port}: Address already in use" in line for line in lines)


async def test_a_second_gateway_with_another_state_directory_may_not_write_to_the_same_devices(
    started: Started,
) -> None:
    site = written(steady_site("battery_a"), started.folder)
    broker = f"127.0.0.1:{closed_port()}"
    twins = await started.twins(site)
    first = started.gateway(site, started.folder / "one", "--twin", "all", broker=broker, twins=twins)
    await first.ready()
    second = started.gateway(site, started.folder / "two", "--twin", "all", broker=broker, twins=twins)
    (line,) = await refusal(second.running)
    assert line.startswith("battery_a: another gateway on this machine writes to it, at modbus://127.0.0.1:")
    watching = started.gateway(site, started.folder / "two", "--twin", "all", "--observe", broker=broker, twins=twins)
    await watching.ready()
