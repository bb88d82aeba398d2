"""Site files with mistakes: each is told with its file, line, path and what is allowed, and all of them at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.findings import ConfigError, Finding, Severity
from config.loading import check_profile, check_site, load_profile, load_profiles, load_site
from config.profile import Profile
from config.site import Site

SiteFile = Callable[..., Path]
KEYS = "profile, address, rating_w, min_w, max_w, phases, capacity_wh, soc_min, soc_max, reversion_s, read_only"


def told(path: Path) -> list[str]:
    """Every finding as a line, without the folder."""
    return [str(finding).replace(f"{path.parent}/", "") for finding in check_site(path)]


def test_a_right_site_loads_with_its_profiles_and_without_findings(site_file: SiteFile) -> None:
    path = site_file()
    assert told(path) == []
    site = load_site(path)
    assert site.devices["pv"].rating_w == 60_000
    assert site.simulation.start.hour == 11
    profiles = load_profiles(site, path)
    assert set(profiles) == {"meter.yaml", "inverter.yaml", "battery.yaml", "charger.yaml"}
    assert profiles["charger.yaml"].points["charging_state"].values == {1: "A", 2: "C", 3: "B", 4: "B"}


def test_profiles_are_found_beside_the_site_file_whatever_the_working_directory(
    site_file: SiteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_profiles(load_site(Path("../site.yaml")), Path("../site.yaml")).keys() == {
        device.profile for device in load_site(path).devices.values()
    }


MISTAKES: list[tuple[tuple[str, str], str]] = [
    (
        ("    rating_w: 60000\n", "    rating_w: -5\n"),
        "site.yaml:23: devices.pv.rating_w: must be greater than 0, got -5; allowed: a number greater than 0",
    ),
    (
        ("    rating_w: 60000\n", "    rating_w: '60000'\n"),
        "site.yaml:23: devices.pv.rating_w: must be a number, got '60000'; allowed: a number greater than 0",
    ),
    (
        ("    rating_w: 60000\n", "    rating_w: true\n"),
        "site.yaml:23: devices.pv.rating_w: must be a number, got true; allowed: a number greater than 0",
    ),
    (
        ("    rating_w: 60000\n", "    rating_w: .nan\n"),
        "site.yaml:23: devices.pv.rating_w: must be a finite number, got nan; allowed: a number greater than 0",
    ),
    (
        ("    rating_w: 60000\n", "    rating_w:\n"),
        "site.yaml:23: devices.pv.rating_w: must be a number, got nothing; allowed: a number greater than 0",
    ),
    (
        ("    rating_w: 60000\n", ""),
        "site.yaml:20: devices.pv.rating_w: is required; allowed: a number greater than 0",
    ),
    (
        ("    min_w: -50000\n", "    mni_w: -50000\n"),
        f"site.yaml:24: devices.pv.mni_w: unknown key 'mni_w'; did you mean 'min_w'?; allowed: {KEYS}",
    ),
    (
        ("    acknowledged_on_silence: true\n", "    acknowledged_on_silence: yes\n"),
        "site.yaml:42: devices.charger.acknowledged_on_silence: must be true or false, got 'yes'; "
        "allowed: true or false",
    ),
    (
        ("unit: 3}", "unit: 3.5}"),
        "site.yaml:22: devices.pv.address.unit: must be a whole number, got 3.5; allowed: a whole number from 0 to 255",
    ),
    (
        ("unit: 3}", "unit: 256}"),
        "site.yaml:22: devices.pv.address.unit: must be at most 255, got 256; allowed: a whole number from 0 to 255",
    ),
    (
        ("driver: opcua", "driver: opc-ua"),
        "site.yaml:29: devices.store.address.driver: unknown driver 'opc-ua'; did you mean 'opcua'?; "
        "allowed: layer, modbus_rtu, modbus_rtu_tcp, modbus_tcp, mqtt, ocpp, opcua",
    ),
    (
        ("{driver: opcua, ", "{"),
        "site.yaml:29: devices.store.address.driver: is required; "
        "allowed: layer, modbus_rtu, modbus_rtu_tcp, modbus_tcp, mqtt, ocpp, opcua",
    ),
    (
        ("opc.tcp://192.0.2.3:4840/", "192.0.2.3:4840"),
        "site.yaml:29: devices.store.address.url: has the wrong form, got '192.0.2.3:4840'; "
        "allowed: a URL like opc.tcp://HOST:PORT/PATH",
    ),
    (
        ('{driver: opcua, url: "opc.tcp://192.0.2.3:4840/"}', "opc.tcp://192.0.2.3:4840/"),
        "site.yaml:29: devices.store.address: must be a mapping, got 'opc.tcp://192.0.2.3:4840/'; allowed: a mapping",
    ),
    (
        ("  net_import_w: 25000\n", "  net_import_w: none\n"),
        "site.yaml:8: fallback.net_import_w: is not one of the allowed values, got 'none'; "
        "allowed: a number at least 0 or unlimited",
    ),
    (
        ("  net_import_w: 25000\n", "  net_import_w: -1\n"),
        "site.yaml:8: fallback.net_import_w: must be at least 0, got -1; allowed: a number at least 0 or unlimited",
    ),
    (
        ("  store:\n", "  Store 1:\n"),
        "site.yaml:27: devices.\"Store 1\": 'Store 1' cannot be a name; allowed: a name: lower-case letters, digits "
        "and _, a letter first, at most 32 characters",
    ),
    (
        ("start: 2016-06-08T11:00:00", "start: 11:00"),
        "site.yaml:49: simulation.start: must be a date and time, got '11:00'; "
        "allowed: a date and time like 2016-06-08T11:00:00",
    ),
    (
        ("start: 2016-06-08T11:00:00", "start: 20160608"),
        "site.yaml:49: simulation.start: must be a date and time, got 20160608; "
        "allowed: a date and time like 2016-06-08T11:00:00",
    ),
    (
        ("start: 2016-06-08T11:00:00", "start: 2016-06-08T11:00:00Z"),
        "site.yaml:49: simulation.start: must not name a time zone, got '2016-06-08T11:00:00Z'; "
        "allowed: a date and time like 2016-06-08T11:00:00",
    ),
    (
        ("site: depot\n", ""),
        "site.yaml:1: site: is required; "
        "allowed: a name: lower-case letters, digits and _, a letter first, at most 32 characters",
    ),
    (
        ("- {plug_in_s: 60}", "- {plug_in_s: 60, plugs_in: 60}"),
        "site.yaml:47: devices.charger.twin.evs[1].plugs_in: unknown key 'plugs_in'; did you mean 'plug_in_s'?; "
        "allowed: plug_in_s, unplug_s, needed_wh, battery_wh, max_current_a, wake_s, needs_ventilation, phases, "
        "tr90_s, dead_time_s, wakes",
    ),
    (
        ("password_env: BROKER_PASSWORD", "password: secret"),
        "site.yaml:14: parents[1].broker.password: unknown key 'password'; did you mean 'password_env'?; allowed: "
        "host, port, username, password_env, acknowledged_plain_password, tls",
    ),
    (
        (
            "curve:\n      - {price_per_kwh: 0.10, power_pu: 1}\n",
            "curve:\n      - {price_per_kwh: 0.10, power_pu: 2}\n",
        ),
        "site.yaml:33: devices.store.curve[0].power_pu: must be at most 1, got 2; allowed: a number from -1 to 1",
    ),
]


@pytest.mark.parametrize(("edit", "expected"), MISTAKES)
def test_one_mistake_is_one_line(site_file: SiteFile, edit: tuple[str, str], expected: str) -> None:
    [line] = told(site_file(edit))
    assert line.startswith(expected)
    assert line == expected or expected.endswith(KEYS)


def test_eight_mistakes_are_eight_lines_and_the_error_holds_them_all(site_file: SiteFile) -> None:
    path = site_file(
        ("  meter: grid_meter\n", "  meter: grid_metre\n"),
        ("  net_import_w: 25000\n", "  net_import_w: 95000\n"),
        ("    dispatch: true\n", "    dispatch: maybe\n"),
        ("    min_w: -50000\n", "    min_w: 5\n    max_w: -5\n    ratting_w: 1\n"),
        ("    rating_w: 30000\n", "    rating_w: -30000\n"),
        ("driver: mqtt\n      host: 192.0.2.4\n", "driver: mqtt\n      host: 192.0.2.4\n      port: 0\n"),
        ("simulation:\n", "  pv:\n    rating_w: 1\nsimulation:\n"),
    )
    lines = [line.split("; allowed: ")[0] for line in told(path)]
    assert lines == [
        "site.yaml:5: connection.meter: 'grid_metre' is not among the devices; did you mean 'grid_meter'?",
        "site.yaml:8: fallback.net_import_w: 95000 is above connection.max_import_w, 90000 (line 6)",
        "site.yaml:12: parents[0].dispatch: must be true or false, got 'maybe'",
        "site.yaml:24: devices.pv.min_w: 5 is above max_w, -5 (line 25)",
        "site.yaml:26: devices.pv.ratting_w: unknown key 'ratting_w'; did you mean 'rating_w'?",
        "site.yaml:32: devices.store.rating_w: must be greater than 0, got -30000",
        "site.yaml:42: devices.charger.address.port: must be at least 1, got 0",
        "site.yaml:51: devices.pv: 'pv' is given twice; the first is on line 20",
    ]
    with pytest.raises(ConfigError) as refused:
        load_site(path)
    assert list(refused.value.findings) == check_site(path)
    assert str(refused.value).count("\n") == 7


def test_a_mistake_in_one_device_does_not_hide_what_it_shares_with_another(site_file: SiteFile) -> None:
    path = site_file(
        ("    min_w: -50000\n", "    min_w: none\n"),
        ("address: {driver: modbus_tcp, host: 192.0.2.2, unit: 3}", "address: {driver: modbus_tcp, host: 192.0.2.1}"),
    )
    assert told(path) == [
        "site.yaml:22: devices.pv.address: the same address as device 'grid_meter' (line 18)",
        "site.yaml:24: devices.pv.min_w: must be a number, got 'none'; allowed: a number",
    ]


def test_a_mistake_is_not_made_two_by_the_default_in_its_place(site_file: SiteFile) -> None:
    [line] = told(site_file(("    capacity_wh: 60000\n", "    capacity_wh: much\n")))
    assert line.startswith("site.yaml:31: devices.store.capacity_wh: must be a number, got 'much'")


def test_a_profile_s_mistakes_are_told_with_the_site_s(site_file: SiteFile) -> None:
    path = site_file(
        ("  rating_w: 100000\n  meter", "  rating_w: 0\n  meter"),
        inverter=("profile: inverter\n", "profile: invertre\n"),
        battery=("protocol: opcua\n", "protocol: opc\n"),
    )
    assert told(path) == [
        "site.yaml:4: connection.rating_w: must be greater than 0, got 0; allowed: a number greater than 0",
        "inverter.yaml:1: profile: 'invertre' is not the name of its file, inverter.yaml: a profile is named as its "
        "file is; allowed: profile: inverter, or the file renamed to invertre.yaml",
        "battery.yaml:4: protocol: is not one of the allowed values, got 'opc'; did you mean 'opcua'?; "
        "allowed: modbus, opcua, mqtt, ocpp, layer",
    ]
    with pytest.raises(ConfigError, match=r"inverter\.yaml:1: profile"):
        load_site(path)


def test_unknown_profiles_name_those_that_exist(site_file: SiteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.loading.shipped_profiles", lambda: {"sunspec_meter": Path("sunspec_meter.yaml")})
    path = site_file(("profile: inverter.yaml", "profile: sunspec_metr"), ("profile: battery.yaml", "profile: b.yaml"))
    assert told(path) == [
        "site.yaml:21: devices.pv.profile: unknown profile 'sunspec_metr'; did you mean 'sunspec_meter'?; "
        "allowed: sunspec_meter, a path ending in .yaml",
        "site.yaml:28: devices.store.profile: the file 'b.yaml' holds no profile; its own findings say why",
        "b.yaml: does not exist; allowed: a file, or one of the shipped profiles: sunspec_meter",
    ]
    with pytest.raises(ConfigError, match="sunspec_metr: unknown profile 'sunspec_metr'; did you mean"):
        load_profile("sunspec_metr")
    site = Site.model_validate({**yaml.safe_load(path.read_text())})
    with pytest.raises(ConfigError) as refused:
        load_profiles(site, path)
    assert [finding.file.rsplit("/", 1)[-1] for finding in refused.value.findings] == ["site.yaml", "b.yaml"]


def test_a_file_that_is_not_there_is_looked_for_beside_and_among_the_shipped(site_file: SiteFile) -> None:
    path = site_file()
    for name, meant in (("sit.yaml", "'site.yaml'"), ("demmo", "'demo'"), ("demmo.yaml", "'demo'")):
        (line,) = told(path.with_name(name))
        assert line.startswith(f"{name}: does not exist; did you mean {meant}?; allowed: a file, or one of the shipped")
    (profile,) = check_profile(path.with_name("keba_p31"))
    assert "did you mean 'keba_p30'?" in profile.message


def test_a_site_file_and_a_profile_are_told_apart(site_file: SiteFile) -> None:
    path = site_file()
    assert told(path.with_name("meter.yaml")) == [
        "meter.yaml: is a profile, not a site file; `gateway profile check` checks those"
    ]
    (finding,) = check_profile(path)
    assert finding.message == "is a site file, not a profile; `gateway check` checks those"


def test_a_copied_profile_is_told_both_ways_out(site_file: SiteFile) -> None:
    path = site_file()
    for name, ways in (
        ("my_meter.yaml", "profile: my_meter, or the file renamed to meter.yaml"),
        ("My-Meter.yaml", "the file renamed to meter.yaml"),
    ):
        copy = path.with_name(name)
        copy.write_text(path.with_name("meter.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        (finding,) = check_profile(copy)
        assert finding.line == 1 and f"is not the name of its file, {name}" in finding.message
        assert finding.allowed == ways


def test_a_warning_does_not_refuse_a_site(site_file: SiteFile) -> None:
    path = site_file(("    acknowledged_on_silence: true\n", ""))
    assert told(path) == [
        "site.yaml:36: warning: devices.charger.profile: keeps its last setpoint when the gateway falls silent; "
        "allowed: a profile that goes to a value, or acknowledged_on_silence: true"
    ]
    assert check_site(path)[0].severity is Severity.WARNING
    assert load_site(path).site == "depot"


def test_a_finding_is_one_line_whatever_the_file_says(site_file: SiteFile) -> None:
    path = site_file(("title: A depot", 'title: ["\\e[31m\\n\\u2028"]\n"a\\nb": ["c\\nd"]\nlong: x'))
    lines = told(path)
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert "title: must be text, got a list" in lines[0]
    assert r"unknown key 'a\nb'" in lines[1]
    assert Finding("f", 1, "p", "x\ny").__str__() == "f:1: p: x\\ny"


def test_broken_files_are_findings_of_a_site_too(tmp_path: Path) -> None:
    for content in (b"", b"- a\n", b"\x00", b"a: [", b"devices: {1: 2}\n"):
        path = tmp_path / "site.yaml"
        path.write_bytes(content)
        assert check_site(path)
        with pytest.raises(ConfigError):
            load_site(path)


def test_profiles_that_are_no_profiles(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_profile(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        load_profile(tmp_path)
    with pytest.raises(ConfigError, match="unknown profile 'no_such'"):
        load_profile("no_such")


# Random mutations: whatever a hand or a merge tool makes of a site file, the answer is a site or findings.

ODD_VALUES: list[Any] = [
    None, True, -1, 0, 1, 255, 1e400, 10**30, "", "no", "12:30:00", "x" * 300, "\n", "{serial}", [], [[]], {},
    {"a": {"b": [1]}}, ["a", 1, None], {"driver": "mqtt"}, {"driver": ["mqtt"]}, {"driver": "opcua", "url": 1},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below the top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in [(*path, key), *places(item, (*path, key))]]


def mutate(data: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Drop, rename, replace or copy one value somewhere."""
    path = draw(st.sampled_from(places(data)))
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    key, action = path[-1], draw(st.sampled_from(["drop", "rename", "replace", "copy"]))
    if action == "replace":
        holder[key] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
    elif action == "copy":
        source = data
        for step in draw(st.sampled_from(places(data))):
            source = source[step]
        holder[key] = copy.deepcopy(source)
    elif action == "drop" or isinstance(holder, list):
        del holder[key]
    else:
        holder[draw(st.sampled_from(["x", "", 5, "Device 1", "driver", f"{key}_"]))] = holder.pop(key)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_mutated_site_is_a_site_or_findings(site_file: SiteFile, data: st.DataObject) -> None:
    path = site_file()
    target = data.draw(st.sampled_from(["site", "meter", "inverter", "battery", "charger"]))
    victim = path.with_name(f"{target}.yaml")
    content = yaml.safe_load(victim.read_text())
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            mutate(content, data.draw)
    victim.write_text(yaml.safe_dump(content, sort_keys=False))
    findings = check_site(path)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        with pytest.raises(ConfigError) as refused:
            load_site(path)
        assert list(refused.value.findings) == errors
    else:
        site = load_site(path)
        assert isinstance(site, Site)
        assert all(isinstance(profile, Profile) for profile in load_profiles(site, path).values())
    assert all(str(finding).isprintable() for finding in findings)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_site_with_random_bytes_in_it_is_a_site_or_findings(site_file: SiteFile, data: st.DataObject) -> None:
    path = site_file()
    raw = path.read_bytes()
    at, length = data.draw(st.integers(0, len(raw))), data.draw(st.integers(0, 40))
    path.write_bytes(raw[:at] + data.draw(st.binary(max_size=8)) + raw[at + length :])
    try:
        load_site(path)
    except ConfigError as refused:
        assert refused.findings
