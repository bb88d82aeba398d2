"""The command line's help lists every command by what it is for."""

from __future__ import annotations

from typer.testing import CliRunner

from gateway.cli.command_groups import GROUPS
from gateway.cli.main import app


def test_every_command_has_its_group() -> None:
    told = CliRunner().invoke(app, ["--help"]).output
    assert all(f"{title}:" in told for title in GROUPS)
    assert "More:" not in told
    shown = {line.split()[0] for line in told.splitlines() if line.startswith("  ") and line.strip()}
    assert shown >= {name for names in GROUPS.values() for name in names}
