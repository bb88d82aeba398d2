"""`gateway grid`: what stands behind the connection point of running twins, and the way to move it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.bench.twins import ANNOUNCEMENT
from gateway.cli.control_line import announced, ask
from gateway.cli.sites import end, tell

TWINS: Final = "twins"
ABSENT: Final = "no twins run for it ({path} is not there); start them by: gateway twins {target}"
PHASES: Final = 3


def twins_control(target: str, state: Path | None) -> tuple[str, int]:
    """The control port of the twins of a site, or the end; HOST:PORT is taken as it is."""
    return announced(target, state, ANNOUNCEMENT, "control", ABSENT)


def announcement_folder(site: str, state: Path | None) -> Path | None:
    """Where twins say where they are, made if need be; None, and a word about it, where that can't be."""
    from gateway.state_directory import default_state_directory

    folder = state or default_state_directory(site)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if state is not None:
            end(f"--state {state}: {error.strerror}")
        tell(f"{folder}: {error.strerror}; `gateway grid` needs the control port, HOST:PORT")
        return None
    return folder


def grid(
    target: Annotated[
        str,
        typer.Argument(metavar="SITE_OR_ENDPOINT", help="A site whose twins run, or their control port, HOST:PORT."),
    ],
    frequency: Annotated[float | None, typer.Option("--frequency", metavar="HZ", help="Of the source.")] = None,
    voltage: Annotated[
        str | None,
        typer.Option("--voltage", metavar="PU", help="Of the source, per unit of nominal; 1,1,0.9: phase by phase."),
    ] = None,
    ramp: Annotated[
        float, typer.Option("--ramp", metavar="S", min=0.0, help="How long both take, linearly; default: a step.")
    ] = 0.0,
    breaker: Annotated[
        bool | None,
        typer.Option("--open/--close", help="The breaker at the connection point; open: no twin has a grid."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="The site's state directory, where not the default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The grid behind running twins: move its frequency and voltage, open and close the breaker; then how it stands.

    Without an option nothing is moved.

    \b
    Examples:
      gateway grid demo --frequency 50.3
      gateway grid demo --voltage 1.05 --ramp 10
      gateway grid demo --open
    """
    if ramp and frequency is None and voltage is None:
        end("--ramp: is of a frequency or a voltage, and none is given")
    at = twins_control(target, state)
    # One line, so that the breaker is not moved where the rest is refused.
    line: dict[str, Any] = {"state": True}
    if frequency is not None or voltage is not None:
        moved: dict[str, Any] = {"ramp_s": ramp}
        if frequency is not None:
            moved["frequency_hz"] = _above_zero(f"--frequency {frequency:g}", frequency)
        if voltage is not None:
            moved["voltage_v"] = _volts(voltage, ask(target, at, TWINS, {"state": True}))
        line["grid"] = moved
    if breaker is not None:
        line["breaker"] = "open" if breaker else "closed"
    _print(ask(target, at, TWINS, line), as_json=as_json)


def _volts(text: str, said: dict[str, Any]) -> float | list[float]:
    """Per unit as volts of the site's nominal voltage; one value, or three."""
    try:
        each = [float(part) for part in text.split(",")]
    except ValueError:
        end(f"--voltage {text}: a number, or three with commas between them")
    if len(each) not in (1, PHASES):
        end(f"--voltage {text}: one number, or three")
    nominal_v = said["grid"]["nominal_v"]
    volts = [_above_zero(f"--voltage {text}", value) * nominal_v for value in each]
    return volts if len(volts) == PHASES else volts[0]


def _above_zero(what: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0.0):
        end(f"{what}: is not above 0")
    return value


def _print(said: dict[str, Any], *, as_json: bool) -> None:
    grid_now = said["grid"]
    told = {
        "breaker": grid_now["breaker"],
        "frequency_hz": grid_now["frequency_hz"],
        "source_v": grid_now["source_v"],
        "voltage_v": said["voltage_v"],
        "net_w": said["net_w"],
    }
    if as_json:
        sys.stdout.write(json.dumps(told) + "\n")
        return
    volts = " / ".join(f"{value:.1f}" for value in told["voltage_v"])
    source = " / ".join(f"{value:.1f}" for value in told["source_v"])
    sys.stdout.write(
        f"breaker {told['breaker']}, {told['frequency_hz']:.3f} Hz, source {source} V, "
        f"connection point {volts} V, {told['net_w']:.0f} W\n"
    )
