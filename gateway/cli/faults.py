"""`gateway faults`: what can happen at the wire, and the way into running fault proxies."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.bench.fault_proxies import ANNOUNCEMENT
from gateway.cli.control_line import announced, ask, endpoint
from gateway.cli.grid import TWINS, twins_control
from gateway.cli.sites import broker_address, end, loaded

ABSENT: Final = "no fault proxies run for it ({path} is not there); start them by: gateway faults run {target}"

faults_app = typer.Typer(
    help="Faults at the wire, between any driver and any device: list them, set and clear them while all runs.",
    no_args_is_help=True,
)

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="SITE_OR_ENDPOINT", help="A site whose fault proxies run, or their control port, HOST:PORT."
    ),
]
StateOption = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="The site's state directory, where it is not the default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@faults_app.command("list")
def list_faults(as_json: JsonOption = False) -> None:
    """Every fault: its name, what it applies to, and what it does. As JSON, one array."""
    from sim_devices.faults.registry import FAULTS

    if as_json:
        sys.stdout.write(json.dumps([kind.as_json() for kind in FAULTS.values()]) + "\n")
        return
    width = max(map(len, FAULTS))
    for kind in FAULTS.values():
        sys.stdout.write(f"{kind.name:{width}}  {kind.what} [{', '.join(kind.applies_to)}]\n")


@faults_app.command("set")
def set_fault(
    target: TargetArgument,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="A device, a parent, or broker.")],
    fault: Annotated[str, typer.Argument(metavar="FAULT", help="Its name, as `gateway faults list` has it.")],
    parameters: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="For instance delay_s=0.2 duration_s=5.")
    ] = None,
    state: StateOption = None,
) -> None:
    """Put a fault in force; prints its id. What can't be is refused with what is allowed."""
    options = _parameters(parameters or ())
    _check(target, device, fault, options)
    line = {"device": device, "fault": fault, "parameters": options}
    sys.stdout.write(f"{_ask(target, state, line)['set']}\n")


@faults_app.command()
def clear(
    target: TargetArgument,
    device: Annotated[
        str | None, typer.Argument(metavar="[DEVICE_OR_ID]", help="Default: all of them. An id says it all.")
    ] = None,
    fault: Annotated[
        str | None, typer.Argument(metavar="[FAULT]", help="Its name or the id that it was set with; default: all.")
    ] = None,
    state: StateOption = None,
) -> None:
    """Take faults out of force; prints how many were.

    A name or an id that there is not is refused; one that is not in force any more counts as 0.
    """
    if device is not None and device.isdecimal() and fault is None:
        device, fault = None, device
    what: int | str = int(fault) if fault is not None and fault.isdecimal() else fault or "all"
    named = {} if device is None else {"device": device}
    sys.stdout.write(f"{_ask(target, state, {**named, 'clear': what})['cleared']}\n")


@faults_app.command()
def status(target: TargetArgument, state: StateOption = None, as_json: JsonOption = False) -> None:
    """What has passed each proxy, and the faults that are and were in force."""
    said = _ask(target, state, {"status": True})
    if as_json:
        sys.stdout.write(json.dumps(said) + "\n")
        return
    for name, device in said["devices"].items():
        shares = f", shares its connection with {', '.join(device['shares_with'])}" if "shares_with" in device else ""
        sys.stdout.write(
            f"{name}: {'/'.join(device['protocols'])}, {device['request_bytes']} bytes to it, "
            f"{device['reply_bytes']} from it{shares}\n"
        )
        for fault in device["faults"]:
            known = ("id", "fault", "target", "acted", "active", "directions")
            options = [f"{key}={value}" for key, value in fault.items() if key not in known and value is not None]
            force = "in force" if fault["active"] else "over"
            sys.stdout.write(
                f"  {fault['id']} {' '.join([fault['fault'], *options])}: {force}, acted {fault['acted']}\n"
            )


@faults_app.command()
def counts(
    target: Annotated[
        str,
        typer.Argument(metavar="SITE_OR_ENDPOINT", help="A site whose twins run, or their control port, HOST:PORT."),
    ],
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """What each running twin was asked for beyond what it has, and answered as its device would.

    Of its server: exceptions, requests to absent units, what was no Modbus; devices behind one address share these. Of
    itself: commands that it refused or cut to its rating, and setpoints that ran out.
    """
    counted = ask(target, twins_control(target, state), TWINS, {"state": True})["counts"]
    if as_json:
        sys.stdout.write(json.dumps(counted) + "\n")
        return
    width = max(map(len, counted), default=0)
    for name, each in counted.items():
        said = ", ".join(f"{count} {what}" for what, count in each.items() if count) or "nothing"
        sys.stdout.write(f"{name:{width}}  {said}\n")


@faults_app.command()
def run(
    site: Annotated[str, typer.Argument(metavar="SITE", help="A site file, or the name of a shipped site.")],
    addresses: Annotated[
        Path | None, typer.Option("--addresses", metavar="FILE", help="Endpoints as `gateway twins` prints them.")
    ] = None,
    broker: Annotated[
        str | None, typer.Option("--broker", metavar="HOST:PORT", help="The parents' broker, to have a proxy too.")
    ] = None,
    control: Annotated[int, typer.Option(min=0, max=65_535, help="Control port; 0: a free one.")] = 0,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A list of faults, YAML or JSON, that is watched.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that happens by chance.")] = 0,
    state: StateOption = None,
) -> None:
    """Put proxies in front of a site's devices and broker, print every endpoint as one JSON line, serve until Ctrl-C.

    `gateway run --addresses` takes what this prints, as it takes what `gateway twins` prints.
    """
    from gateway.state_directory import default_state_directory
    from sim_devices.faults.world import main

    broker_address(broker)
    for option, given in (("--addresses", addresses), ("--file", file)):
        if given is not None and not given.is_file():
            end(f"{option} {given}: {'is not a file' if given.exists() else 'No such file'}")
    path, model, _ = loaded(site)
    directory = state or default_state_directory(model.site)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        end(f"--state {directory}: {error.strerror}")
    arguments = [str(path), "--seed", str(seed), "--control", str(control), "--announce", str(directory / ANNOUNCEMENT)]
    for name, value in (("--endpoints", addresses), ("--broker", broker), ("--file", file)):
        arguments += [] if value is None else [name, str(value)]
    raise typer.Exit(main(arguments))


def _check(target: str, device: str, fault: str, options: dict[str, Any]) -> None:
    """Refuse what can be known to be wrong before anybody is asked."""
    from sim_devices.faults.fault import FaultError
    from sim_devices.faults.registry import FAULTS
    from sim_devices.faults.world import check_fault

    if fault not in FAULTS:
        end(f"no fault {fault!r}; there are {', '.join(FAULTS)}")
    if endpoint(target) is None:
        _, model, profiles = loaded(target)
        try:
            check_fault(model, profiles, device, fault, options)
        except FaultError as error:
            end(str(error))


def _parameters(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE of the command line; each key once."""
    pairs = [_parameter(text) for text in given]
    names = [key for key, _ in pairs]
    twice = sorted({key for key in names if names.count(key) > 1})
    if twice:
        end(f"{', '.join(twice)}: given twice")
    return dict(pairs)


def _parameter(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        end(f"{text}: KEY=VALUE is asked for")
    try:
        number = json.loads(value)
    except ValueError:
        return key, value
    return key, number if isinstance(number, int | float) and not isinstance(number, bool) else value


def _ask(target: str, state: Path | None, line: dict[str, Any]) -> dict[str, Any]:
    """The answer to one line of the fault proxies' control port; where there is none, or a refusal, the end."""
    return ask(target, announced(target, state, ANNOUNCEMENT, "faults", ABSENT), "fault proxies", line)
