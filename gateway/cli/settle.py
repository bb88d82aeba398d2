"""The command that settles a site: energy at the local price, contracts, the ledger."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from config.contracts import Contracts, contracts_path, load_agreements
from config.findings import ConfigError
from config.site import Site
from gateway.cli.sites import BAD_INPUT, FAILED, end, end_with_findings, loaded

if TYPE_CHECKING:
    from gateway.settlement.readings import Reading
    from gateway.settlement.statement import Statement

LONGEST_S = 366 * 86_400.0


def settle(
    site: Annotated[str, typer.Argument(metavar="SITE", help="A site file, or the name of a shipped site.")],
    begin: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="UTC, like 2026-11-22T10:00. Default: a day ago.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Default: now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write every posting; - prints it.")] = None,
    contracts: Annotated[
        Path | None,
        typer.Option("--contracts", metavar="FILE", help="Default: SITE.contracts.yaml beside the site, if there."),
    ] = None,
    readings: Annotated[
        Path | None,
        typer.Option("--readings", metavar="FILE", help="Corrected readings: CSV of begin_utc,meter,in_wh,out_wh."),
    ] = None,
    state: Annotated[Path | None, typer.Option("--state", metavar="DIR", help="The gateway's state directory.")] = None,
) -> None:
    """Settle each five-minute interval of a window: energy at the local price, contracts, regulation, surplus.

    The same window can be settled again at any time: what has not changed stays, what has is reversed and posted anew.
    Missing readings are estimated and marked.

    \b
    Examples:
      gateway settle site.yaml --from 2026-11-22 --to 2026-11-23 --csv november_22.csv
      gateway settle site.yaml --readings meter_operator.csv --json
    """
    from gateway.settlement.ledger import FILE_NAME, LedgerError, opened
    from gateway.settlement.readings import from_journal
    from gateway.settlement.regulation import regulation_from_journal
    from gateway.settlement.statement import settle as settled
    from gateway.state_directory import default_state_directory

    path, model, _ = loaded(site)
    now_s = time.time()
    window_s = _window(begin, to, now_s)
    agreed = _contracts(contracts, path, model)
    corrected = [] if readings is None else _corrected(readings, model)
    directory = state or default_state_directory(model.site)
    try:
        known, prices = from_journal(directory)
        regulation = regulation_from_journal(directory)
    except FileNotFoundError as missing:
        if not (directory / FILE_NAME).exists():
            end(f"{missing}: no journal there; has a gateway run, with this state directory?", FAILED)
        known, prices, regulation = [], [], []
    except OSError as error:
        end(f"{error.filename}: {error.strerror}", FAILED)
    try:
        with opened(directory / FILE_NAME) as ledger:
            every = [*known, *corrected]
            made = settled(ledger, agreed.contracts, every, prices, window_s, now_s, regulation, agreed.regulation)
    except LedgerError as error:
        end(str(error), FAILED)
    if out is not None:
        _export(made, out)
    if as_json:
        sys.stdout.write(json.dumps(made.as_json()) + "\n")
    elif out is None or str(out) != "-":
        _print(made)
    if any(made.sum_micro):
        end("the ledger does not sum to zero: it was changed from outside", FAILED)


def _window(begin: str | None, to: str | None, now_s: float) -> tuple[int, int]:
    from_s = now_s - 86_400.0 if begin is None else _time("--from", begin)
    until_s = now_s if to is None else _time("--to", to)
    if from_s >= until_s:
        end(f"--from {_utc(from_s)} is not before --to {_utc(until_s)}")
    if until_s - from_s > LONGEST_S:
        end(f"--from {_utc(from_s)} --to {_utc(until_s)}: a year at most is settled at once")
    return int(-(-from_s // 1)), int(-(-until_s // 1))


def _contracts(given: Path | None, site_path: Path, site: Site) -> Contracts:
    path = given or contracts_path(site_path)
    if given is None and not path.exists():
        return Contracts(site=site.site, contracts=())
    try:
        return load_agreements(path, site)
    except ConfigError as error:
        end_with_findings(error.findings)


def _corrected(path: Path, site: Site) -> list[Reading]:
    from gateway.settlement.readings import CONNECTION, ReadingsError, from_csv

    meters = {*site.devices, CONNECTION} - {site.connection.meter}
    try:
        found = from_csv(path)
    except OSError as error:
        end(f"--readings {path}: {error.strerror or error}", BAD_INPUT)
    except ReadingsError as error:
        end(str(error), BAD_INPUT)
    strangers = sorted({one.meter for one in found} - meters)
    if strangers:
        end(f"--readings {path}: {', '.join(strangers)}: no meter of this site; allowed: {', '.join(sorted(meters))}")
    return found


def _export(made: Statement, path: Path) -> None:
    if str(path) == "-":
        sys.stdout.write(made.as_csv())
        return
    try:
        path.write_text(made.as_csv(), encoding="utf-8")
    except OSError as error:
        end(f"--csv {path}: {error.strerror or error}")


def _print(made: Statement) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gateway.cli.commission_tables import console

    told = made.as_json()
    table = Table("account", "takes, kWh", "receives", box=None, title=f"Settlement, {told['from']} to {told['to']}")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, sums in told["accounts"].items():
        table.add_row(escape(name), sums["energy_kwh"], sums["amount"])
    table.add_row("sum", told["sum"]["energy_kwh"], told["sum"]["amount"], style="bold")
    console().print(table)
    sys.stdout.write(
        f"\n{made.intervals} intervals, {len(made.estimated)} of them estimated, {len(made.unsettled)} unsettled; "
        f"{made.posted.posted} entries posted, {made.posted.reversed} reversed, {made.posted.unchanged} unchanged\n"
    )


def _time(option: str, text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        end(f"{option} {text}: a time like 2026-11-22T10:00 is asked for")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
