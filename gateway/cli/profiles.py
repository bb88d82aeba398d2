"""`gateway profile`: the profiles that come with Lamina, and the checking of one's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from config.findings import Severity, did_you_mean
from config.loading import check_profile, load_profile, shipped_profiles
from gateway.cli.sites import BAD_INPUT, end, print_findings

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document for programs, never wrapped.")]

profile_app = typer.Typer(
    help="Device profiles: list and show those that come with Lamina, check your own.", no_args_is_help=True
)


@profile_app.command("list")
def profile_list(as_json: JsonOption = False) -> None:
    """List the profiles that come with Lamina.

    Example: gateway profile list
    """
    from gateway.cli.commission_tables import print_profiles

    rows = []
    for name in shipped_profiles():
        profile = load_profile(name)
        source = f"{profile.source.publisher}: {profile.source.document}, {profile.source.version}"
        rows.append(
            {
                "profile": name,
                "kind": profile.kind.value,
                "protocol": profile.protocol,
                "title": profile.title,
                "status": profile.status,
                "source": source,
            }
        )
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
    else:
        print_profiles(rows)


@profile_app.command("show")
def profile_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a shipped profile.")],
) -> None:
    """Print a profile that comes with Lamina, with its comments: the beginning of one's own.

    Example: gateway profile show keba_p30 > my_wallbox.yaml, then `profile: my_wallbox` in it
    """
    shipped = shipped_profiles()
    if name not in shipped:
        hint = did_you_mean(name, list(shipped))
        end(f"{name}: no shipped profile has this name{hint}; there are {', '.join(shipped)}")
    sys.stdout.write(shipped[name].read_text(encoding="utf-8"))


@profile_app.command("check")
def profile_check(
    name: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A profile file, or the name of a shipped profile.")],
    as_json: JsonOption = False,
) -> None:
    """Check a profile; list every mistake with line, path and what is allowed. Ends with 2 if there is an error.

    Example: gateway profile check my_inverter.yaml
    """
    path = Path(name)
    if not path.exists() and path.suffix == "" and "/" not in name:
        path = shipped_profiles().get(name, path)
    findings = check_profile(path)
    print_findings(findings, as_json=as_json)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise typer.Exit(BAD_INPUT)
    if not as_json:
        warnings = f", {len(findings)} warning{'s' * (len(findings) > 1)}" if findings else ""
        sys.stdout.write(f"{path}: good{warnings}\n")
