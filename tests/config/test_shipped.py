"""What comes with Lamina loads, from wherever it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.findings import Severity
from config.loading import check_profile, check_site, load_profile, series_columns, shipped_profiles, shipped_sites
from config.vocabulary import DeviceKind


@pytest.mark.parametrize("name", shipped_profiles())
def test_every_shipped_profile_loads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    errors = [str(finding) for finding in check_profile(shipped_profiles()[name]) if finding.severity is Severity.ERROR]
    assert errors == []
    assert load_profile(name).profile == name


@pytest.mark.parametrize("name", shipped_profiles())
def test_no_shipped_profile_gives_a_warning(name: str) -> None:
    assert [str(finding) for finding in check_profile(shipped_profiles()[name])] == []


@pytest.mark.parametrize("name", shipped_sites())
def test_every_shipped_site_loads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(finding) for finding in check_site(shipped_sites()[name]) if finding.severity is Severity.ERROR] == []


def test_the_demo_site_ships() -> None:
    assert "demo" in shipped_sites()


def test_the_series_has_the_columns_that_the_demo_plays() -> None:
    assert {"G1-A", "PV3"} <= set(series_columns())
    assert "time" not in series_columns()


def test_each_kind_but_the_relay_has_a_shipped_profile() -> None:
    kinds = {load_profile(name).kind for name in shipped_profiles()}
    assert kinds >= set(DeviceKind) - {DeviceKind.RELAY}
