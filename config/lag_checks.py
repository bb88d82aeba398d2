"""What `gateway check` says of the lags file beside a site file: its own mistakes, and what of it control won't use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from config.findings import ConfigError, Finding, Problem, Severity, did_you_mean
from config.lags import MeasuredLag, lags_path, load_lags
from config.site import DeviceSite, Site
from config.yaml_source import read_document

_ASIDE: Final = 2.0
"""A value stated in the site file that is so many times the measured one, or so small a part of it, is told."""

_NEGLIGIBLE_S: Final = 0.2


def lag_findings(site: Site, site_path: Path) -> list[Finding]:
    """Every error and warning of the lags file beside the site file; none where there is no such file."""
    path = lags_path(site_path)
    if not path.exists():
        return []
    try:
        lags = load_lags(path, site.site)
    except ConfigError as error:
        return list(error.findings)
    document = read_document(path)
    return [document.finding(problem) for problem in _problems(site, lags)]


def _problems(site: Site, lags: dict[str, MeasuredLag]) -> Iterator[Problem]:
    for name, lag in lags.items():
        device, place = site.devices.get(name), ("lags", name)
        if device is None:
            words = f"the site has no such device{did_you_mean(name, list(site.devices))}"
            yield Problem(place, words, ", ".join(site.devices), Severity.WARNING)
            continue
        if lag.measured_on == "twin":
            words = "was measured on the twin: for the device itself the profile's response holds"
            yield Problem((*place, "measured_on"), words, "gateway commission, on the device", Severity.WARNING)
        yield from _set_aside(name, device, lag)


def _set_aside(name: str, device: DeviceSite, lag: MeasuredLag) -> Iterator[Problem]:
    for field in ("tr90_s", "dead_time_s"):
        stated, measured = getattr(device, field), getattr(lag, field)
        if stated is None or abs(stated - measured) <= _NEGLIGIBLE_S:
            continue
        if max(stated, measured) > _ASIDE * min(stated, measured):
            words = f"{measured:g} was measured, and the site file's {stated:g} stands over it"
            yield Problem(("lags", name, field), words, f"no {field} in the site file", Severity.WARNING)
