"""Passwords that the environment does not have: each is told by `gateway check`, and all of them by `gateway run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from config.loading import check_site, load_profiles, load_site
from config.security_files import password_problems
from gateway.cli.run import RunRequest, run_site

SiteFile = Callable[..., Path]
DEVICE = (
    "      host: 192.0.2.4\n",
    "      host: 192.0.2.4\n      username: u\n      password_env: CHARGER_PASSWORD\n"
    "      acknowledged_plain_password: true\n",
)


def told(path: Path) -> list[str]:
    return [str(finding).replace(f"{path.parent}/", "") for finding in check_site(path, (password_problems,))]


def test_every_unset_password_is_found(site_file: SiteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER_PASSWORD", "CHARGER_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    path = site_file(DEVICE)
    found = [line for line in told(path) if "is not set" in line]
    assert [line.partition(" allowed")[0] for line in found] == [
        "site.yaml:14: warning: parents[1].broker.password_env: the environment variable BROKER_PASSWORD is not set "
        "here;",
        "site.yaml:41: warning: devices.charger.address.password_env: the environment variable CHARGER_PASSWORD is not "
        "set here;",
    ]
    mistaken = site_file(DEVICE, ("username: depot, password_env: BROKER_PASSWORD", "username: 5, password_env: 6"))
    assert [line for line in told(mistaken) if "CHARGER_PASSWORD is not set" in line]
    site_file(DEVICE)
    monkeypatch.setenv("BROKER_PASSWORD", "x")
    monkeypatch.setenv("CHARGER_PASSWORD", "")
    assert not [line for line in told(path) if "is not set" in line]


def test_a_run_that_misses_passwords_names_all_of_them(
    site_file: SiteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("BROKER_PASSWORD", "CHARGER_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    path = site_file(DEVICE)
    site = load_site(path)
    request = RunRequest(
        path, site, load_profiles(site, path), (), True, False, tmp_path / "state", None, False, None, False
    )
    assert run_site(request) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: devices.charger.address.password_env: the environment variable CHARGER_PASSWORD is not set",
        f"{path}: parents[1].broker.password_env: the environment variable BROKER_PASSWORD is not set",
    ]
    assert not (tmp_path / "state").exists()
