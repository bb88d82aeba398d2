"""`gateway twins` tells people at once what it starts, then where everything is; machines get one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.commission.bench import gateway, site_content, write_site


def test_twins_tell_what_starts_and_where_it_serves(tmp_path: Path) -> None:
    site = write_site(tmp_path, site_content())
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "twins", str(site), "--ports", "free"],
        env={**os.environ, "LAMINA_STATE": str(tmp_path / "state")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    first = process.stderr.readline()
    endpoints = json.loads(process.stdout.readline())["endpoints"]
    table = ""
    while "Ctrl-C" not in table:
        table += process.stderr.readline()
    process.terminate()
    process.communicate(timeout=20)
    assert first == "starting 2 twins of yard (2 over modbus_tcp); this takes some seconds\n"
    for name, profile in (("meter", "sunspec_meter"), ("battery", "sunspec_battery")):
        (row,) = [line.split() for line in table.splitlines() if line.split()[:1] == [name]]
        assert row == [name, profile, "modbus_tcp", f"127.0.0.1:{endpoints[name]['port']}", "unit", "1"]
    assert process.returncode == 0


def test_a_twin_that_the_site_does_not_have_is_told_before_anything_starts(tmp_path: Path) -> None:
    ran = gateway("twins", write_site(tmp_path, site_content()), "--twin", "batery", state=tmp_path / "state")
    assert (ran.code, ran.out) == (2, "")
    assert "--twin batery: the site has no such device; did you mean 'battery'?" in ran.err
    assert "starting" not in ran.err
