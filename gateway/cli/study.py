"""`gateway study`: ways of running a grid compared on one fleet, and layers against the central optimum."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.cli.sites import FAILED, end

NEEDS_PLANNING: Final = "the studies need the solvers: pip install 'lamina-gateway[planning]'"

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object for programs, never wrapped.")]

study_app = typer.Typer(
    help="Studies: the visions of a grid compared, and layers held against the central optimum.", no_args_is_help=True
)


@study_app.command("visions")
def study_visions(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the report and every schedule go.")] = Path(
        "out/visions"
    ),
    devices: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="The largest fleet, whatever it takes. Default: up to 1,000 in 15 min."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the fleets and of the day's prices.")] = 1,
    day: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="The day whose load and sun are used; default: a June day.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The same fleet, day and prices under Total TSO, Minimal DSO and Total DSO.

    Total TSO is one program that sees all devices and the network. Under Minimal DSO it sees the devices alone and the
    DSO curtails afterwards. Under Total DSO each layer solves only its own inside and shows one curve.
    """
    _needs_solvers()
    from gateway.study.central import NoOptimumError
    from gateway.study.day_series import DEFAULT_DAY, NoSuchDayError
    from gateway.study.site_program import NoSitePlanError
    from gateway.study.visions import run_study
    from gateway.study.visions_page import write_visions

    try:
        out.mkdir(parents=True, exist_ok=True)
        study = run_study(out, devices, seed, day or DEFAULT_DAY, _tell)
        write_visions(out, study)
    except NoSuchDayError as error:
        end(f"--day: {error}")
    except (NoOptimumError, NoSitePlanError) as error:
        end(str(error), FAILED)
    except OSError as error:
        end(f"{error.filename or out}: {error.strerror or error}")
    if as_json:
        sys.stdout.write(json.dumps(study.as_json()) + "\n")
        return
    width = max(map(len, study.main.visions))
    for name, vision in study.main.visions.items():
        figures = vision.figures
        sys.stdout.write(
            f"{name:{width}}  cost {figures.cost:.2f}, {figures.violations} violations of "
            f"{figures.violation_wh:.0f} Wh, {figures.orders_undone} orders undone, {figures.solve_s:.2f} s\n"
        )
    sys.stdout.write(f"report: {out / 'visions.html'}\n")


@study_app.command("layered")
def study_layered(
    fleets: Annotated[int, typer.Option(min=1, max=10_000, help="Random fleets of three tiers.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the fleets.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Layers against the central optimum: random fleets with storage and limits that bind, and single intervals.

    Ends with 1 if a limit is broken, a cost is more than 1 % beyond the optimum, less than 95 % of the attainable
    savings are left, or a single interval without storage differs by more than 1e-6.
    """
    _needs_solvers()
    from gateway.bench.machine.figures_table import print_figures
    from gateway.study.central import NoOptimumError
    from gateway.study.layered import run_layered
    from gateway.study.site_program import NoSitePlanError

    try:
        figures = run_layered(fleets, seed, _tell)
    except (NoOptimumError, NoSitePlanError) as error:
        end(str(error), FAILED)
    print_figures("layered against central", figures, as_json=as_json)
    if not figures["reached"]:
        raise typer.Exit(FAILED)


def _needs_solvers() -> None:
    try:
        import clarabel  # noqa: F401
        import scipy  # noqa: F401
    except ImportError:
        end(NEEDS_PLANNING)


def _tell(text: str) -> None:
    """Progress, beside whatever a program reads."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
