"""The command that records what Modbus devices say."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.sites import FAILED, end, loaded

if TYPE_CHECKING:
    from gateway.bench.record import RecordRequest, RecordSummary


def record(
    site: Annotated[str, typer.Argument(metavar="SITE", help="A site file, or the name of a shipped site.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="JSON lines; must not be there yet.")],
    duration: Annotated[
        float | None, typer.Option("--duration", metavar="S", min=0.1, help="Seconds; default: until Ctrl-C.")
    ] = None,
    addresses: Annotated[
        Path | None, typer.Option("--addresses", metavar="FILE", help="Endpoints as `gateway twins` prints them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read every point of every Modbus device as the gateway does, and store every register seen with its time.

    Nothing is written to any device. `gateway twins SITE --replay FILE` serves the file as twins. Ends with 1 if a
    device has not given a single register.

    \b
    Examples:
      gateway record site.yaml --out fault.jsonl
      gateway record site.yaml --out hour.jsonl --duration 3600
    """
    from gateway.bench.record import RecordingFailedError, RecordRequest
    from gateway.cli.run import BadRequestError, read_addresses, site_addresses

    _, model, profiles = loaded(site)
    try:
        given = site_addresses(model, read_addresses(addresses).get("endpoints", {}))
        at = {name: given.get(name, device.address) for name, device in model.devices.items()}
        summary = asyncio.run(_record(RecordRequest(model, profiles, at, out, duration)))
    except (BadRequestError, RecordingFailedError, ValueError) as error:
        end(str(error))
    _print(summary, out, as_json=as_json)
    raise typer.Exit(FAILED if summary.never_heard else 0)


async def _record(request: RecordRequest) -> RecordSummary:
    from gateway.bench.record import record as recorded

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await recorded(request, stop)


def _print(summary: RecordSummary, out: Path, *, as_json: bool) -> None:
    if as_json:
        content = {
            "file": str(out) if out.exists() else None,
            "reads": summary.reads,
            "exceptions": summary.exceptions,
            "unanswered": summary.unanswered,
        }
        sys.stdout.write(json.dumps(content) + "\n")
        return
    for name, reads in summary.reads.items():
        refused, silent = summary.exceptions.get(name, 0), summary.unanswered.get(name, 0)
        more = f", {refused} refused" * bool(refused) + f", {silent} without an answer" * bool(silent)
        sys.stdout.write(f"{name}: {reads} reads{more}\n")
    if not out.exists():
        sys.stderr.write(f"{out}: is not there, since nothing was recorded\n")
