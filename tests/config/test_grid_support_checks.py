"""Grid support that could not act is told before anything runs."""

from __future__ import annotations

from pathlib import Path

from config.loading import check_site

SITE = """
site: small
connection: {{rating_w: 10000, meter: grid_meter, max_import_w: 10000, max_export_w: 10000}}
fallback: {{net_import_w: 5000, net_export_w: 0}}
control: {{grid_support: {support}}}
devices:
  grid_meter:
    profile: sunspec_meter
    address: {{driver: modbus_tcp, host: 127.0.0.1}}
    rating_w: 10000
{more}
"""
BATTERY = """
  battery:
    profile: sunspec_battery
    address: {driver: modbus_tcp, host: 127.0.0.1, port: 503}
    rating_w: 5000
    capacity_wh: 5000
"""


def told(folder: Path, support: str, more: str = BATTERY, profile: str = "sunspec_meter") -> list[str]:
    path = folder / "site.yaml"
    path.write_text(SITE.format(support=support, more=more).replace("sunspec_meter", profile))
    return [str(finding) for finding in check_site(path) if "grid_support" in str(finding)]


def test_a_meter_that_tells_voltage_and_frequency_will_do(tmp_path: Path) -> None:
    assert told(tmp_path, "{volt_watt: {}, frequency_watt: {}}") == []


def test_a_meter_without_frequency_is_refused(tmp_path: Path) -> None:
    found = told(tmp_path, "{frequency_watt: {}}", profile="phoenix_charx")
    assert len(found) == 1
    assert "control.grid_support.frequency_watt: the profile of the meter has no frequency_hz" in found[0]


def test_a_site_without_anything_to_move_is_warned_of(tmp_path: Path) -> None:
    found = told(tmp_path, "{volt_watt: {}}", more="")
    assert len(found) == 1
    assert "warning: control.grid_support.volt_watt: the site has no device that it could move" in found[0]
