"""The command that exports evidence of limit orders."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.sites import FAILED, end, loaded


class Format(StrEnum):
    JSON = "json"
    CSV = "csv"
    TABLE = "table"


def evidence(
    site: Annotated[str, typer.Argument(metavar="SITE", help="A site file, or the name of a shipped site.")],
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="UTC, like 2026-11-22T10:00. Default: a day ago."),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Default: now.")] = None,
    form: Annotated[Format, typer.Option("--format", help="csv has a line for each second.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="A .csv or .json file.")] = None,
    state: Annotated[Path | None, typer.Option("--state", metavar="DIR", help="The gateway's state directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """What a grid operator asks for after an event: each limit order with receipt, answer, bounds, power and result.

    Read from the journal; the gateway may run or not.

    \b
    Examples:
      gateway evidence site.yaml
      gateway evidence site.yaml --from 2026-11-22T10:00 --to 2026-11-22T12:00 --out event.csv
    """
    from gateway.cli.operator_tables import print_evidence
    from gateway.evidence import as_csv, collect
    from gateway.state_directory import default_state_directory

    _, model, _ = loaded(site)
    now_s = time.time()
    from_s = now_s - 86_400.0 if begin is None else _time("--from", begin)
    until_s = now_s if to is None else _time("--to", to)
    if from_s >= until_s:
        end(f"--from {_utc(from_s)} is not before --to {_utc(until_s)}")
    try:
        found = collect(state or default_state_directory(model.site), from_s, until_s)
    except FileNotFoundError as missing:
        end(f"{missing}: no journal there; has a gateway run, with this state directory?", FAILED)
    except OSError as error:
        end(f"{error.filename}: {error.strerror}", FAILED)
    if out is not None and form is Format.TABLE:
        form = Format.CSV if out.suffix == ".csv" else Format.JSON
    form = Format.JSON if as_json else form
    if form is Format.TABLE:
        print_evidence([order.as_json() for order in found], _utc(from_s), _utc(until_s))
        return
    text = as_csv(found) if form is Format.CSV else json.dumps([order.as_json() for order in found]) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        end(f"--out {out}: {error.strerror or error}")
    sys.stdout.write(f"{out}: {len(found)} order{'s' * (len(found) != 1)}\n")


def _time(option: str, text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        end(f"{option} {text}: a time like 2026-11-22T10:00 is asked for")
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
