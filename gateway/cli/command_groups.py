"""The commands in the order in which a site meets them: set up, run, operate, settle, try on a bench."""

from __future__ import annotations

from typing import Any, Final

import typer.core

GROUPS: Final = {
    "Set up a site": ("check", "profile", "scan", "try", "read", "write", "commission", "certificate", "schema"),
    "Run it": ("run", "watch", "why", "plan"),
    "Operate it": ("hold", "limit", "stop", "release", "comply", "authority"),
    "Account for it": ("evidence", "settle", "replay", "record"),
    "On the bench": ("demo", "twins", "grid", "faults", "scenario", "bench", "study"),
}


class GroupedCommands(typer.core.TyperGroup):
    """A command line whose help lists its commands by what they are for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        named = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in named)
        for title, names in (*GROUPS.items(), ("More", others)):
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, one.get_short_help_str(62)) for name, one in found if one is not None and not one.hidden]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
