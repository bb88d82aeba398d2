"""The lags file: what commissioning writes, control reads, under the site file's own values and over the profiles'."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from config.findings import ConfigError
from config.lags import MeasuredLag, lags_path, load_lags, save_lags
from config.loading import load_profiles, load_site
from gateway.control.model import build_site_model
from tests.commission.bench import gateway, site_content, write_site

LAG = MeasuredLag(tr90_s=1.7, dead_time_s=0.4, measured_on="device", measured_at=datetime(2026, 6, 8, tzinfo=UTC))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = lags_path(tmp_path / "yard.yaml")
    save_lags(path, "yard", {"battery": LAG})
    assert path.name == "yard.lags.yaml"
    assert load_lags(path, "yard") == {"battery": LAG}
    assert [entry.name for entry in tmp_path.iterdir()] == ["yard.lags.yaml"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("site: yard\nlags: {battery: {tr90_s: -1, dead_time_s: 0, measured_on: device}}\n", "2: lags.battery.tr90_s"),
        ("site: other\nlags: {}\n", "another site"),
        ("site: yard\n", "lags: is required"),
        ("{", "yard.lags.yaml"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "yard.lags.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_lags(path, "yard")


@pytest.mark.parametrize(
    ("site_says", "measured_on", "is_twin", "expected"),
    [
        ({}, "device", False, (1.7, 0.4)),
        ({}, "twin", True, (1.7, 0.4)),
        ({}, "twin", False, (0.5, 0.1)),  # a twin's lag is not the device's: the profile's holds
        ({}, "device", True, (0.5, 0.1)),
        ({"tr90_s": 0.9}, "device", False, (0.9, 0.4)),  # the site file wins, value by value
        ({"tr90_s": 0.9, "dead_time_s": 0.0}, "device", False, (0.9, 0.0)),
    ],
)
def test_control_uses_a_measured_lag(
    tmp_path: Path, site_says: dict[str, float], measured_on: str, is_twin: bool, expected: tuple[float, float]
) -> None:
    content = site_content()
    content["devices"]["battery"] |= site_says
    path = write_site(tmp_path, content)
    site = load_site(path)
    by_reference = load_profiles(site, path)
    profiles = {name: by_reference[device.profile] for name, device in site.devices.items()}
    lags = {"battery": LAG.model_copy(update={"measured_on": measured_on})}
    twins = frozenset(site.devices) if is_twin else frozenset[str]()
    model = build_site_model(site, profiles, twins, lags=lags)
    (battery,) = model.devices
    assert (battery.tr90_s, battery.dead_time_s) == expected


def test_a_gateway_does_not_start_with_a_broken_lags_file(tmp_path: Path) -> None:
    site = write_site(tmp_path, site_content())
    lags_path(site).write_text(yaml.safe_dump({"site": "yard", "lags": {"battery": {}}}), encoding="utf-8")
    ran = gateway("run", site, state=tmp_path / "state")
    assert ran.code == 2
    assert "yard.lags.yaml:" in ran.err and "tr90_s" in ran.err


TOLD = """\
yard.lags.yaml:3: warning: lags.batery: the site has no such device; did you mean 'battery'?; allowed: battery, meter
yard.lags.yaml:4: warning: lags.battery.tr90_s: 1.7 was measured, and the site file's 0.2 stands over it; \
allowed: no tr90_s in the site file
yard.lags.yaml:4: warning: lags.battery.measured_on: was measured on the twin: for the device itself the profile's \
response holds; allowed: gateway commission, on the device
"""


def test_check_holds_what_was_measured_against_the_site(tmp_path: Path) -> None:
    content = site_content()
    content["devices"]["battery"] |= {"tr90_s": 0.2}
    path = write_site(tmp_path, content)
    before = gateway("check", path, state=tmp_path / "state")
    lags = tmp_path / "yard.lags.yaml"
    lags.write_text(
        "site: yard\nlags:\n  batery: {tr90_s: 1, dead_time_s: 0, measured_on: device}\n"
        "  battery: {tr90_s: 1.7, dead_time_s: 0, measured_on: twin}\n",
        encoding="utf-8",
    )
    ran = gateway("check", path, state=tmp_path / "state")
    assert before.code == ran.code == 0
    assert sorted(ran.err.replace(f"{tmp_path}/", "").splitlines()[-3:]) == sorted(TOLD.splitlines())
    lags.write_text("site: another\nlags: {}\n", encoding="utf-8")
    refused = gateway("check", path, state=tmp_path / "state")
    assert refused.code == 2
    assert "yard.lags.yaml:1: site: 'another' is another site's name" in refused.err
