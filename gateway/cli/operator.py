"""Commands of an operator at the site: hold, stop, limit, release, and why."""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.cli.sites import FAILED, end, loaded

ANSWER_S: Final = 10.0
_UNITS: Final = {"": 1.0, "w": 1.0, "kw": 1e3, "mw": 1e6, "a": 1.0}
_TIMES: Final = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER: Final = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")

SiteArgument = Annotated[str, typer.Argument(metavar="SITE", help="A site file, or the name of a shipped site.")]
DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="A device that the gateway controls.")]
MaybeDevice = Annotated[str | None, typer.Argument(metavar="[DEVICE]", help="One device; without it the whole site.")]
ForOption = Annotated[
    str | None, typer.Option("--for", metavar="TIME", help="How long: 90s, 15min, 2h, 1d. Without it until released.")
]
StateOption = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="The running gateway's state directory.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def add_operator(app: typer.Typer) -> None:
    """Put the commands on the command line. Powers may be negative: they are arguments, not options."""
    negative = {"ignore_unknown_options": True}
    app.command("hold", context_settings=negative)(hold)
    app.command("stop")(stop)
    app.command("limit", context_settings=negative)(limit)
    app.command("release")(release)
    app.command("comply")(comply)
    app.command("authority")(authority)
    app.command("why")(why)


def hold(
    site: SiteArgument,
    device: DeviceArgument,
    power: Annotated[
        str | None, typer.Argument(metavar="[POWER]", help="Like 5kW, -3000 or 0; consuming is positive. Default: now.")
    ] = None,
    lasting: ForOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold one device at a power, whatever the price says. Protection and limits stay in force.

    \b
    Examples:
      gateway hold site.yaml battery_a -5kW --for 15min
      gateway hold site.yaml charger_1
    """
    request = {"command": "hold", "device": device, "duration_s": _seconds(lasting)}
    _send(site, state, request | {"power_w": None if power is None else _watts(power)}, as_json=as_json)


def stop(
    site: SiteArgument,
    device: MaybeDevice = None,
    lasting: ForOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring one device, or every device that is controlled, to 0 W until released.

    \b
    Examples:
      gateway stop site.yaml
      gateway stop site.yaml charger_2 --for 1h
    """
    _send(site, state, {"command": "stop", "device": device, "duration_s": _seconds(lasting)}, as_json=as_json)


def limit(
    site: SiteArgument,
    what: Annotated[
        str,
        typer.Argument(
            metavar="QUANTITY|DEVICE",
            help="A device, or net_import_w, net_export_w, generation_w, load_w, controllable_load_w, "
            "current_per_phase_a.",
        ),
    ],
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="A magnitude like 10kW, or unlimited; for a device LOWER:UPPER.")
    ],
    lasting: ForOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Limit a quantity of the site, or keep a device within bounds. The tightest of all limits holds.

    \b
    Examples:
      gateway limit site.yaml net_import_w 20kW --for 2h
      gateway limit site.yaml net_import_w unlimited
      gateway limit site.yaml battery_a -5kW:0
    """
    from config.vocabulary import Quantity

    request: dict[str, Any] = {"command": "limit", "duration_s": _seconds(lasting)}
    if what in list(Quantity):
        request |= {"quantity": what, "value": value if value == "unlimited" else _watts(value)}
    else:
        lower, separator, upper = value.partition(":")
        if not separator:
            quantities = ", ".join(Quantity)
            end(f"{what} {value}: for a device LOWER:UPPER is asked for, like -5kW:0; quantities are {quantities}")
        request |= {"device": what, "lower_w": _watts(lower) if lower else None}
        request |= {"upper_w": _watts(upper) if upper else None}
    _send(site, state, request, as_json=as_json)


def release(
    site: SiteArgument,
    device: MaybeDevice = None,
    meter: Annotated[
        bool, typer.Option("--meter", help="The meter is good: ends the fail-safe of a meter that was found wrong.")
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """End what the operator ordered: for one device, or everything, limits included."""
    _send(site, state, {"command": "release", "device": device, "meter": meter}, as_json=as_json)


def comply(
    site: SiteArgument,
    function: Annotated[str, typer.Argument(metavar="FUNCTION", help="A compliance function of the site file.")],
    reset: Annotated[
        str | None, typer.Option("--reset", metavar="WHO", help="Reset a lock-out of g100, as user or installer.")
    ] = None,
    failsafe: Annotated[
        str | None, typer.Option("--failsafe", metavar="POWER", help="The fail-safe value of eebus_lpc or eebus_lpp.")
    ] = None,
    failsafe_for: Annotated[
        str | None, typer.Option("--failsafe-for", metavar="TIME", help="Its shortest duration, 2h to 24h.")
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a compliance function a word: reset a lock-out, or set a fail-safe value.

    \b
    Examples:
      gateway comply site.yaml g100 --reset user
      gateway comply site.yaml eebus_lpc --failsafe 4.2kW --failsafe-for 2h
    """
    request: dict[str, Any] = {"command": "comply", "function": function}
    request |= {} if reset is None else {"reset": reset}
    request |= {} if failsafe is None else {"failsafe_w": _watts(failsafe)}
    request |= {} if failsafe_for is None else {"failsafe_duration_s": _seconds(failsafe_for)}
    _send(site, state, request, as_json=as_json)


def authority(
    site: SiteArgument,
    parent: Annotated[
        str | None,
        typer.Argument(metavar="[PARENT]", help="The parent that dispatches from now on. Default: who does."),
    ] = None,
    epoch: Annotated[
        int | None, typer.Option("--epoch", metavar="NUMBER", help="Above the present epoch. Default: the next one.")
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hand dispatch over to one of the site's parents, whoever has it now. Its dispatch ends; limits stay in force.

    \b
    Examples:
      gateway authority site.yaml
      gateway authority site.yaml aggregator --epoch 8
    """
    _send(site, state, {"command": "authority", "parent": parent, "epoch": epoch}, as_json=as_json)


def why(site: SiteArgument, device: MaybeDevice = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Why the site, or one device, has its power: the interval after each control function, and what bound it."""
    from gateway.cli.operator_tables import print_why

    answer = ask_gateway(site, state, {"command": "why", "device": device})
    if as_json:
        sys.stdout.write(json.dumps(answer) + "\n")
    else:
        print_why(answer)


def _send(site: str, state: Path | None, request: dict[str, Any], *, as_json: bool) -> None:
    answer = ask_gateway(site, state, request)
    if as_json:
        sys.stdout.write(json.dumps(answer) + "\n")
        return
    until = f" until {answer['until']}" if answer.get("until") else ""
    sys.stdout.write(f"{answer['id']}: {answer['text']}{until}\n")
    if answer.get("warning"):
        sys.stderr.write(f"in force, but {answer['warning']}: it would not survive a restart\n")


def ask_gateway(site: str, state: Path | None, request: dict[str, Any]) -> dict[str, Any]:
    """One request to the running gateway; ends with 2 for what it refuses, with 1 where none runs."""
    from gateway.state_directory import SOCKET_NAME, default_state_directory

    _, model, _ = loaded(site)
    path = (state or default_state_directory(model.site)) / SOCKET_NAME
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile(encoding="utf-8") as lines:
                line = lines.readline()
    except OSError as error:
        end(f"{path}: {error.strerror or error}; is the gateway running, with this state directory?", FAILED)
    if not line:
        end(f"{path}: the gateway ended without an answer", FAILED)
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        end(str(answer["error"]))
    return answer


def _watts(text: str) -> float:
    """A power (or current) with its unit."""
    return _measure(text, _UNITS, "a power like 5kW, -3000 or 2.5 kW")


def _seconds(text: str | None) -> float | None:
    """A duration with its unit."""
    return None if text is None else _measure(text, _TIMES, "a time like 90s, 15min, 2h or 1d")


def _measure(text: str, units: dict[str, float], asked_for: str) -> float:
    found = _NUMBER.fullmatch(text)
    factor = None if found is None else units.get(found[2].lower())
    if found is None or factor is None:
        end(f"{text}: {asked_for} is asked for")
    return float(found[1]) * factor
