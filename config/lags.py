"""The lags file beside a site file: what commissioning has measured of each device's response.

Control uses it over the profiles' values; what the site file itself states wins over both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import AwareDatetime, Field

from config.explain import examine
from config.findings import ConfigError, Finding
from config.strict import Name, NotNegative, Positive, Strict
from config.yaml_source import read_document

SUFFIX: Final = ".lags.yaml"
_HEADER: Final = """\
# Written by `gateway commission`: each device's response to a step, as it was measured.
# Control uses these over the profiles' values; tr90_s and dead_time_s of the site file win over both.
"""


class MeasuredLag(Strict):
    """One device's measured response, as `Response` of a profile states it."""

    tr90_s: Positive = Field(description="from 0 to 90 % of a step, after the dead time")
    dead_time_s: NotNegative = Field(description="before the first movement")
    measured_on: Literal["device", "twin"] = Field(description="a twin's lag is used for the twin alone")
    seen_by: Literal["device", "meter"] = Field("device", description="whose readings gave it")
    measured_at: AwareDatetime | None = Field(None, description="when, UTC")


class Lags(Strict):
    """The lags of one site."""

    site: Name = Field(description="the site's name")
    lags: dict[Name, MeasuredLag] = Field(description="by device")


def lags_path(site_path: Path) -> Path:
    """Where a site's lags file is: beside the site file."""
    return site_path.with_name(site_path.stem + SUFFIX)


def load_lags(path: Path, site: str) -> dict[str, MeasuredLag]:
    """The lags of a site by device; raises ConfigError with every error of the file."""
    document = read_document(path)
    if document.root is None:
        raise ConfigError(document.findings)
    lags, problems = examine(Lags, document.data)
    findings = [*document.findings, *(document.finding(problem) for problem in problems)]
    if findings:
        raise ConfigError(findings)
    if lags.site != site:
        words = f"'{lags.site}' is another site's name"
        raise ConfigError([Finding(str(path), document.line(("site",)), "site", words, site)])
    return dict(lags.lags)


def save_lags(path: Path, site: str, lags: Mapping[str, MeasuredLag]) -> None:
    """Replace the file at once, so that a gateway never reads half of it; raises OSError."""
    content = Lags(site=site, lags=dict(lags)).model_dump(mode="json", exclude_none=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(_HEADER + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
