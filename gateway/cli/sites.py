"""Site files as commands name them, and how their mistakes are told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import typer
from pydantic import ValidationError

from config.findings import ConfigError, Finding, did_you_mean
from config.lags import MeasuredLag, lags_path, load_lags
from config.loading import load_profiles, load_site, shipped_sites
from config.profile import Profile
from config.site import MqttBroker, Site

BAD_INPUT: Final = 2
FAILED: Final = 1
INTERRUPTED: Final = 130
"""What a shell says of a process that SIGINT ended (128 + 2)."""


def site_path(text: str) -> Path:
    """A path, or the name of a shipped site."""
    path = Path(text)
    if not path.exists() and "/" not in text and path.suffix == "":
        return shipped_sites().get(text, path)
    return path


def loaded(text: str) -> tuple[Path, Site, dict[str, Profile]]:
    """The site and its profiles by device, or an end with every mistake listed."""
    path = site_path(text)
    try:
        site = load_site(path)
        by_reference = load_profiles(site, path)
        return path, site, {name: by_reference[device.profile] for name, device in site.devices.items()}
    except ConfigError as error:
        end_with_findings(error.findings)


def measured_lags(path: Path, site: Site, given: Path | None = None) -> dict[str, MeasuredLag]:
    """What commissioning has left beside the site file, or in the file `given`; or an end with every mistake listed."""
    lags = lags_path(path) if given is None else given
    if given is None and not lags.exists():
        return {}
    try:
        return load_lags(lags, site.site)
    except ConfigError as error:
        end_with_findings(error.findings)


def broker_address(text: str | None) -> MqttBroker | None:
    """HOST:PORT as a broker, None as none; or an end with what is asked for."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    try:
        return MqttBroker(host=host, port=int(port))
    except (ValueError, ValidationError):
        end(f"--broker {text}: HOST:PORT is asked for")


def end_with_findings(findings: Iterable[Finding], *, as_json: bool = False) -> NoReturn:
    """Print findings, one a line, and end with the code for bad input."""
    print_findings(findings, as_json=as_json)
    raise typer.Exit(BAD_INPUT)


def print_findings(findings: Iterable[Finding], *, as_json: bool = False) -> None:
    """One line a finding, never wrapped; as JSON, one array."""
    findings = list(findings)
    if as_json:
        keys = ("severity", "file", "line", "path", "message", "allowed")
        items = [{key: getattr(finding, key) for key in keys} for finding in findings]
        sys.stdout.write(json.dumps(items, default=str) + "\n")
        return
    for finding in findings:
        sys.stderr.write(f"{finding}\n")


def no_such_device(site: Site, names: Iterable[str]) -> str:
    """Names that are no devices of a site, with what may have been meant."""
    unknown, there = sorted(names), list(site.devices)
    hint = did_you_mean(unknown[0], there) if len(unknown) == 1 else ""
    return f"{', '.join(unknown)}: the site has no such device{hint}; there are {', '.join(there)}"


def end(text: str, code: int = BAD_INPUT) -> NoReturn:
    """Tell the user and end."""
    sys.stderr.write(f"{text}\n")
    raise typer.Exit(code)


def tell(text: str) -> None:
    """A line of progress on standard error, at once; closed or broken, it loses lines and stops nothing."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
