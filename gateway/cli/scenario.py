"""`gateway scenario`: run scenarios and list those that come with Lamina."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from config.findings import ConfigError, Finding
from config.scenario import Mode
from gateway.cli.sites import broker_address, end, end_with_findings

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON array for programs, never wrapped.")]

scenario_app = typer.Typer(
    help="Scenarios: a site, events in time and checks with limits, run and judged.", no_args_is_help=True
)


@scenario_app.command("list")
def scenario_list(
    as_json: JsonOption = False,
    names: Annotated[bool, typer.Option("--names", help="The names alone, one a line.")] = False,
) -> None:
    """List the scenarios that come with Lamina.

    Example: gateway scenario list
    """
    from gateway.bench.scenario.loading import load_scenario, shipped_scenarios

    rows: list[dict[str, Any]] = []
    for path in shipped_scenarios().values():
        try:
            loaded = load_scenario(path)
        except ConfigError as error:
            end_with_findings(error.findings, as_json=as_json)
        scenario = loaded.scenario
        rows.append(
            {
                "name": loaded.name,
                "mode": scenario.mode.value,
                "duration_s": scenario.duration_s,
                "site": scenario.site,
                "soak": scenario.soak,
                "sabotage": scenario.sabotage.value,
                "title": scenario.title,
                "source": scenario.source,
            }
        )
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for row in rows:
        if names:
            sys.stdout.write(f"{row['name']}\n")
            continue
        length = f"{row['duration_s']:g} s"
        sys.stdout.write(f"{row['name']:28} {row['mode']:9} {length:>9}  {row['title']}\n")


@scenario_app.command("run")
def scenario_run(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Scenario files, or names of shipped scenarios.")
    ],
    site: Annotated[
        str | None, typer.Option("--site", metavar="SITE", help="Another site than the scenario's.")
    ] = None,
    twin: Annotated[
        list[str] | None,
        typer.Option("--twin", metavar="NAME", help="A device that is a twin; repeat it. Default: all are."),
    ] = None,
    mode: Annotated[Mode | None, typer.Option("--mode", help="Another mode than the scenario's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Another seed than the scenario's.")] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A directory for each scenario's report is made in it.")
    ] = Path("out/scenarios"),
    sabotage: Annotated[
        bool, typer.Option("--sabotage", help="Take the function under test out of control; the checks must fail.")
    ] = False,
    broker: Annotated[
        str | None, typer.Option("--broker", metavar="HOST:PORT", help="An MQTT broker that runs; default: one starts.")
    ] = None,
    allow_real_writes: Annotated[
        bool, typer.Option("--allow-real-writes", help="Write to devices that are not twins. Without it they are read.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run scenarios one after another and judge each by the bench's own measurement.

    Ends with 1 if a check failed, with 2 if a file has a mistake (nothing runs then), with 130 after Ctrl-C: what has
    ended by then is told.
    """
    from gateway.bench.scenario.loading import Changes, load_scenario, scenario_path
    from gateway.bench.scenario.running import RunOptions, cannot_run
    from gateway.cli.scenario_series import run_series

    broker_address(broker)
    options = RunOptions(tuple(twin or ()), sabotage, allow_real_writes, broker)
    findings: list[Finding] = []
    loaded = []
    for file in files:
        try:
            loaded.append(load_scenario(scenario_path(file), Changes(site, mode, seed)))
        except ConfigError as error:
            findings += error.findings
    if findings:
        end_with_findings(dict.fromkeys(findings), as_json=as_json)
    names = [each.name for each in loaded]
    if len(set(names)) < len(names):
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        end(f"named twice: {', '.join(twice)}; each scenario has one folder in --out")
    for why in [why for each in loaded if (why := cannot_run(each, options))]:
        end(why)
    raise typer.Exit(run_series(loaded, out, options, seed_given=seed is not None, as_json=as_json))
