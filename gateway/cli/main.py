"""Commands for integrators and bench engineers. Exit codes: 0 done, 1 a check failed, 2 bad input."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from config.findings import Severity
from gateway.cli.certificates import certificate_app
from gateway.cli.command_groups import GroupedCommands
from gateway.cli.commission import add_commissioning
from gateway.cli.evidence import evidence
from gateway.cli.faults import faults_app
from gateway.cli.grid import announcement_folder, grid
from gateway.cli.logs import log_to_stderr
from gateway.cli.operator import add_operator
from gateway.cli.plan import plan
from gateway.cli.price import study_price
from gateway.cli.record import record
from gateway.cli.replay import replay
from gateway.cli.scenario import scenario_app
from gateway.cli.settle import settle
from gateway.cli.sites import BAD_INPUT, FAILED, broker_address, end, loaded, measured_lags, print_findings, site_path
from gateway.cli.study import study_app

app = typer.Typer(
    name="gateway",
    cls=GroupedCommands,
    help="Lamina: makes a site of inverters, batteries and EV chargers one resource to its grid operator.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help="A site file, or the name of a shipped site: demo.")]
TwinOption = Annotated[
    list[str] | None,
    typer.Option("--twin", metavar="NAME", help="Replace this device by its twin; repeat it, or give: all."),
]


class SchemaName(StrEnum):
    SITE = "site"
    PROFILE = "profile"
    LAYER = "layer"


@app.callback()
def _every_command(context: typer.Context) -> None:
    log_to_stderr(logging.INFO if context.invoked_subcommand == "run" else logging.WARNING)


@app.command()
def check(
    site: SiteArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array of findings.")] = False,
) -> None:
    """Check a site file and the profiles it uses; list every mistake with file, line, path and what is allowed.

    What commissioning has measured (SITE.lags.yaml beside the site) is held against it as well.
    Ends with 2 if there is an error; warnings alone end with 0.
    """
    from config.lag_checks import lag_findings
    from config.loading import check_site, load_site
    from config.security_files import file_problems, password_problems
    from gateway.cli.certificate_checks import opcua_certificate_problems

    path = site_path(site)
    findings = check_site(path, (file_problems, password_problems, opcua_certificate_problems))
    if not any(finding.severity is Severity.ERROR for finding in findings):
        findings += lag_findings(load_site(path), path)
    print_findings(findings, as_json=as_json)
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    if errors:
        raise typer.Exit(BAD_INPUT)
    if not as_json:
        warnings = len(findings)
        sys.stdout.write(f"{path}: good" + (f", {warnings} warning{'s' * (warnings > 1)}" if warnings else "") + "\n")


@app.command()
def run(
    site: SiteArgument,
    twin: TwinOption = None,
    observe: Annotated[bool, typer.Option("--observe", help="Decide and show, but write nothing.")] = False,
    allow_real_writes: Annotated[
        bool, typer.Option("--allow-real-writes", help="Write to devices that are not twins. Without it they are read.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="State directory: journal, orders, lock, local socket."),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option("--broker", metavar="HOST:PORT", help="The parents' MQTT broker, instead of the site's."),
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Journal every cycle.")] = False,
    addresses: Annotated[
        Path | None, typer.Option("--addresses", metavar="FILE", help="Endpoints as `gateway twins` prints them.")
    ] = None,
    lags: Annotated[
        Path | None,
        typer.Option("--lags", metavar="FILE", help="Measured responses; default: SITE.lags.yaml beside the site."),
    ] = None,
    record_decisions: Annotated[
        Path | None,
        typer.Option("--record-decisions", metavar="FILE", help="Every image, order and setpoint, for `replay`."),
    ] = None,
    faults: Annotated[
        bool, typer.Option("--faults", help="Put fault proxies before all devices; `gateway faults set` uses them.")
    ] = False,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """Run a site until SIGTERM or Ctrl-C, then write each device's rest state.

    Real devices are only read unless --allow-real-writes is given.
    """
    from gateway.cli.run import RunRequest, run_site

    path, model, profiles = loaded(site)
    measured = measured_lags(path, model, lags)
    request = RunRequest(
        path, model, profiles, tuple(twin or ()), observe, allow_real_writes, state, broker, trace, addresses,
        until_eof, measured, record_decisions, faults,
    )  # fmt: skip
    raise typer.Exit(run_site(request))


@app.command()
def twins(
    site: SiteArgument,
    twin: TwinOption = None,
    ports: Annotated[str, typer.Option(help="declared: the site file's ports; free: whatever is free.")] = "declared",
    broker: Annotated[
        str | None,
        typer.Option("--broker", metavar="HOST:PORT", help="MQTT broker for MQTT twins; default: one starts."),
    ] = None,
    replay_file: Annotated[
        Path | None,
        typer.Option("--replay", metavar="FILE", help="Serve what `gateway record` has left, instead of physics."),
    ] = None,
    replay_end: Annotated[
        str | None, typer.Option(help="With --replay. hold: its end stays, the default; loop: it begins again.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="Where `gateway grid` finds them; default: as `gateway run`."),
    ] = None,
) -> None:
    """Start only the twins of a site, print every endpoint as one JSON line, and serve until Ctrl-C.

    `gateway grid` and `gateway faults counts` reach them while they run.
    """
    from gateway.bench.twins import serve_twins
    from gateway.cli.twins_table import chosen_twins, tell_serving, tell_starting

    if ports not in ("declared", "free"):
        end(f"--ports {ports}: allowed are declared and free")
    if replay_end not in (None, "hold", "loop"):
        end(f"--replay-end {replay_end}: allowed are hold and loop")
    if replay_end is not None and replay_file is None:
        end(f"--replay-end {replay_end}: is of a recording; --replay FILE names one")
    if replay_file is not None and twin:
        end("--replay: serves the devices that were recorded; --twin can't be given")
    replayed = () if replay_file is None else ("--replay", str(replay_file), "--replay-end", replay_end or "hold")
    broker_address(broker)
    path, model, _ = loaded(site)
    declared = {address.port for device in model.devices.values() if (address := device.address).driver == "mqtt"}
    port = declared.pop() if len(declared) == 1 else 0
    announce = announcement_folder(model.site, state)
    names = chosen_twins(model, twin or ())
    tell_starting(model, names)
    serving = partial(tell_serving, model)
    served = serve_twins(path, names, ports, broker, port, replayed, announce, serving)
    raise typer.Exit(asyncio.run(served))


@app.command()
def demo(
    site: SiteArgument = "demo",
    duration: Annotated[
        float, typer.Option(min=30.0, max=86_400.0, help="Seconds the operator's script takes.")
    ] = 60.0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where report.html and report.json go.")] = Path("out/demo"),
    headless: Annotated[bool, typer.Option("--headless", help="No live table; a line each few seconds.")] = False,
    broker: Annotated[
        str | None, typer.Option("--broker", metavar="HOST:PORT", help="An MQTT broker that runs; default: one starts.")
    ] = None,
    tiers: Annotated[
        bool, typer.Option("--tiers", help="An operator above a microgrid above three buildings; SITE is not used.")
    ] = False,
) -> None:
    """Bring up a site against its twins and an operator that sends limits, dispatch and regulation; then report.

    Everything runs in processes of its own on real sockets and ends with the command.
    """
    from gateway.bench.demo import DemoRequest, run_demo

    broker_address(broker)
    if tiers:
        from gateway.bench.tiers.demo import TiersRequest, run_tiers_demo

        shown = TiersRequest(duration, out, headless or not sys.stdout.isatty(), broker)
        raise typer.Exit(asyncio.run(run_tiers_demo(shown)))
    path, model, _ = loaded(site)
    request = DemoRequest(path, model, duration, out, headless or not sys.stdout.isatty(), broker)
    raise typer.Exit(asyncio.run(run_demo(request)))


bench_app = typer.Typer(
    help="Measure this machine: figures as ratios to a bare floor in the same run.", no_args_is_help=True
)
app.add_typer(bench_app, name="bench")


@bench_app.command("cycle")
def bench_cycle(
    devices: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    period_ms: Annotated[int, typer.Option(min=20, max=1000)] = 50,
    duration: Annotated[float, typer.Option(min=1.0, max=3600.0, help="Seconds of cycles, in five blocks.")] = 10.0,
    servers: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Servers that run at PORT, PORT+1, ...; default: own ones.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """A whole control cycle over Modbus TCP devices: tick, all read, decided, every write acknowledged.

    Every device gets a changed setpoint in every cycle. The floor is bare protocol work with the same requests.
    """
    import uvloop

    from gateway.bench.children import ChildFailedError
    from gateway.bench.machine.cycle_bench import CycleBenchRequest, run_cycle_bench, server_address
    from gateway.bench.machine.figures_table import print_figures, tell

    try:
        address = None if servers is None else server_address(servers, devices)
        figures = uvloop.run(run_cycle_bench(CycleBenchRequest(devices, period_ms, duration, address), tell))
    except (ChildFailedError, ValueError) as error:
        end(str(error))
    except OSError as error:
        end(f"{servers or 'servers'}: {error.strerror or error}")
    print_figures("control cycle", figures, as_json=as_json)


@bench_app.command("dispatch")
def bench_dispatch(
    devices: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    period_ms: Annotated[int, typer.Option(min=20, max=1000)] = 100,
    dispatches: Annotated[int, typer.Option(min=1, max=100_000, help="They fall at any phase of the cycle.")] = 300,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="The embedded broker, also where mosquitto is installed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """From the operator's publication of a dispatch to the acknowledgement of the last register that it changes.

    Broker, gateway, Modbus servers and the operator each run in a process of their own.
    """
    import uvloop

    from gateway.bench.children import ChildFailedError
    from gateway.bench.machine.dispatch_bench import DispatchBenchRequest, run_dispatch_bench
    from gateway.bench.machine.figures_table import print_figures, tell

    try:
        request = DispatchBenchRequest(devices, period_ms, dispatches, embedded)
        figures = uvloop.run(run_dispatch_bench(request, tell))
    except (ChildFailedError, OSError) as error:
        end(str(error))
    print_figures("dispatch", figures, as_json=as_json)


@bench_app.command("control")
def bench_control(
    devices: Annotated[int, typer.Option(min=3, max=10_000)] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The decision of one cycle alone, and the clearing of up to 10,000 resources; no input or output."""
    from gateway.bench.machine.control_bench import run_control_bench
    from gateway.bench.machine.figures_table import print_figures, tell

    print_figures("control", run_control_bench(devices, tell), as_json=as_json)


@bench_app.command("feedback")
def bench_feedback(
    quick: Annotated[bool, typer.Option("--quick", help="The corners of the grid alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The feedback over a grid of device lags and sample ages, beside a control that pairs ages wrongly."""
    from gateway.bench.feedback_sweep import run_feedback_bench
    from gateway.bench.machine.figures_table import print_figures, tell

    figures = run_feedback_bench(quick, tell)
    print_figures("feedback", figures, as_json=as_json)
    if figures["unstable"]:
        raise typer.Exit(1)


@bench_app.command("twins")
def bench_twins(
    devices: Annotated[int, typer.Option(min=2, max=1000)] = 200,
    rate: Annotated[float, typer.Option(min=1.0, max=100_000.0, help="Requests a second, over all twins.")] = 2000.0,
    duration: Annotated[float, typer.Option(min=1.0, max=3600.0, help="Seconds of them, in five blocks.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Many Modbus twins of one process in real time, asked evenly from another process, and all at once.

    The floor is as many bare servers, asked by the same client.
    """
    from gateway.bench.children import ChildFailedError
    from gateway.bench.machine.figures_table import print_figures, tell
    from gateway.bench.machine.twins_bench import TwinsBenchRequest, run_twins_bench

    try:
        figures = asyncio.run(run_twins_bench(TwinsBenchRequest(devices, rate, duration), tell))
    except (ChildFailedError, OSError) as error:
        end(str(error))
    print_figures("twins", figures, as_json=as_json)


@bench_app.command("plan")
def bench_plan(
    steps: Annotated[int, typer.Option(min=2, max=576, help="Quarters of an hour.")] = 96,
    resources: Annotated[int, typer.Option(min=3, max=1000)] = 70,
    solves: Annotated[int, typer.Option(min=1, max=10_000)] = 30,
    time_limit: Annotated[float, typer.Option(min=0.1, max=600.0, help="Of the solver, seconds.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The planner's program for a synthetic microgrid: solved the first time, and again with new numbers."""
    from gateway.cli.plan import bench

    bench(steps, resources, solves, time_limit, as_json=as_json)


@bench_app.command("children")
def bench_children(
    children: Annotated[int, typer.Option(min=1, max=10_000, help="Layers below, simulated as messages.")] = 1000,
    duration: Annotated[float, typer.Option(min=4.0, max=86_400.0, help="Seconds under regulation.")] = 60.0,
    period_ms: Annotated[int, typer.Option(min=20, max=1000, help="The parent's control cycle.")] = 1000,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="The embedded broker, also where mosquitto is installed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """One parent above many layers: a regulation signal every 4 s, a market of 5 min, and what the parent uses.

    Broker, children, the parent and its operator each run in a process of their own; the figures are the parent's.
    """
    import uvloop

    from gateway.bench.children import ChildFailedError
    from gateway.bench.machine.children_bench import ChildrenBenchRequest, run_children_bench
    from gateway.bench.machine.figures_table import print_figures, tell

    try:
        request = ChildrenBenchRequest(children, duration, period_ms, embedded)
        figures = uvloop.run(run_children_bench(request, tell))
    except (ChildFailedError, OSError) as error:
        end(str(error))
    print_figures("children", figures, as_json=as_json)


@app.command()
def watch(
    site: SiteArgument,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="The running gateway's state directory.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, until Ctrl-C.")] = False,
) -> None:
    """Show a running gateway live: connection point, envelope with its sources, devices, orders, links."""
    from gateway.bench.watch import watch_gateway
    from gateway.state_directory import SOCKET_NAME, default_state_directory

    _, model, _ = loaded(site)
    directory = state or default_state_directory(model.site)
    raise typer.Exit(asyncio.run(watch_gateway(directory / SOCKET_NAME, as_json=as_json)))


@app.command()
def schema(
    name: Annotated[
        SchemaName, typer.Argument(help="site and profile for editors; layer for whoever talks to Lamina.")
    ],
) -> None:
    """Print a JSON Schema."""
    from config.schema_export import layer_schema, profile_schema, site_schema

    made = {SchemaName.SITE: site_schema, SchemaName.PROFILE: profile_schema, SchemaName.LAYER: layer_schema}[name]()
    sys.stdout.write(json.dumps(made, indent=2) + "\n")


app.add_typer(scenario_app, name="scenario")
study_app.command("price")(study_price)
app.add_typer(study_app, name="study")
app.add_typer(faults_app, name="faults")
add_commissioning(app)
app.add_typer(certificate_app, name="certificate")
add_operator(app)
app.command("evidence")(evidence)
app.command("settle")(settle)
app.command("replay")(replay)
app.command("plan")(plan)
app.command("record")(record)
app.command("grid")(grid)


def main() -> None:
    """The entry point; a mistake of the user's never shows a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
