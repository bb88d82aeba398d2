"""The command that decides recorded cycles again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.sites import FAILED, end, loaded, measured_lags


def replay(
    site: Annotated[str, typer.Argument(metavar="SITE", help="The site file that was run.")],
    recording: Annotated[Path, typer.Argument(metavar="FILE", help="What `gateway run --record-decisions` has left.")],
    twin: Annotated[
        list[str] | None, typer.Option("--twin", metavar="NAME", help="As the gateway was run: names, or all.")
    ] = None,
    cycle: Annotated[int | None, typer.Option("--cycle", min=1, help="Say why of this cycle.")] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="With --cycle: this one.")] = None,
    lags: Annotated[Path | None, typer.Option("--lags", metavar="FILE", help="As the gateway was run.")] = None,
    real_writes: Annotated[bool, typer.Option("--allow-real-writes", help="As the gateway was run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decide recorded cycles again from their images and orders: the same setpoints, bit for bit, or a defect.

    Ends with 1 if any setpoint differs.
    """
    from gateway.cli.operator_tables import print_why
    from gateway.cli.run import BadRequestError, twin_names
    from gateway.control.model import build_site_model, with_what_may_be_written
    from gateway.recording import RecordingError
    from gateway.recording import replay as decided_again
    from gateway.why import explain_decision

    path, model, profiles = loaded(site)
    try:
        twins = twin_names(model, tuple(twin or ()))
    except BadRequestError as error:
        end(str(error))
    site_model = build_site_model(model, profiles, twins, on_bench=bool(twins), lags=measured_lags(path, model, lags))
    site_model = with_what_may_be_written(site_model, None if real_writes else twins)
    count, differing, told = 0, [], None
    try:
        with recording.open(encoding="utf-8") as lines:
            for again in decided_again(site_model, lines):
                count += 1
                if again.differs:
                    differing.append({"cycle": count, "differs": again.differs})
                if count == cycle:
                    told = explain_decision(again.decision, again.orders, device)
    except OSError as error:
        end(f"{recording}: {error.strerror or error}")
    except (RecordingError, ValueError) as error:
        end(f"{recording}: {error}")
    if cycle is not None and told is None:
        end(f"{recording}: has {count} cycles")
    _print(count, differing, told, as_json=as_json, show=print_why)
    raise typer.Exit(FAILED if differing else 0)


def _print(
    count: int, differing: list[dict[str, Any]], told: dict[str, Any] | None, *, as_json: bool, show: Any
) -> None:
    if as_json:
        content = {"cycles": count, "differing": len(differing), "first": differing[:1], "why": told}
        sys.stdout.write(json.dumps(content) + "\n")
        return
    if told is not None:
        show(told)
    same = "every setpoint the same" if not differing else f"{len(differing)} differ, first {differing[0]}"
    sys.stdout.write(f"{count} cycles decided again: {same}\n")
