"""`gateway read`, `write`, `try` and `profile` as a commissioner runs them, against twins in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.loading import shipped_profiles
from config.site import ModbusTcpAddress
from drivers.inspection import PointReading
from gateway.device_locks import held_devices
from gateway.state_directory import held_state_directory
from tests.commission.bench import changed_profile, gateway, modbus, site_content, write_site
from tests.commission.conftest import Yard


def points(ran: Any) -> dict[str, Any]:
    return {row["point"]: row for row in ran.json["points"]}


def at(yard: Yard, folder: Path, change: Any, device: str = "battery", name: str = "changed") -> Path:
    """A site whose battery is the yard's twin, seen through a changed profile."""
    content = site_content()
    base = "sunspec_battery" if device == "battery" else "sunspec_meter"
    content["devices"][device]["profile"] = changed_profile(folder, base, name, change)
    for each in content["devices"]:
        content["devices"][each]["address"] = modbus(yard.endpoints[each]["port"])
    return write_site(folder, content)


# read


def test_every_point_is_read_once_with_its_registers(yard: Yard, tmp_path: Path) -> None:
    ran = gateway("read", yard.site, "battery", "--addresses", yard.addresses, "--json", state=tmp_path)
    assert ran.code == 0
    assert ran.json["identity"][0] == "Lamina"
    read = points(ran)
    assert read["soc"] | {"value": 0.5, "unit": "pu", "quality": "good", "access": "r"} == read["soc"]
    assert read["soc"]["raw"] == "0x1388" and read["soc"]["where"].endswith("(SoC of model 713)")
    assert {"power_w", "setpoint_enable", "energy_import_wh"} <= read.keys()
    assert all(row["age_s"] < 5.0 for row in read.values())


def test_one_point_is_read_alone(yard: Yard, tmp_path: Path) -> None:
    ran = gateway("read", yard.site, "meter", "frequency_hz", "--addresses", yard.addresses, state=tmp_path)
    assert ran.code == 0
    assert "50" in ran.out and "power_w" not in ran.out


def test_a_bad_sample_is_shown_with_its_reason(yard: Yard, tmp_path: Path) -> None:
    ran = gateway("read", yard.site, "meter", "--addresses", yard.addresses, "--json", state=tmp_path)
    row = points(ran)["reactive_power_var"]
    assert (row["value"], row["quality"], row["raw"]) == (None, "bad", "0x8000")
    assert "says that it has no value" in row["reason"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("batery",), 2, "no such device; did you mean 'battery'?; there are"),
        (("battery", "powr_w"), 2, "no such point; did you mean 'power_w'?; there are"),
        (("battery",), 1, "Connection refused"),
        (("battery", "--addresses", "missing.json"), 2, "missing.json"),
    ],
)
def test_a_read_that_fails_says_why_in_one_line(
    yard: Yard, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ran = gateway("read", yard.site, *arguments, state=tmp_path)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert words in ran.err


# write


WRITE = ("setpoint_readback_w", "-2000")


def test_a_write_asks_shows_what_goes_out_and_reads_it_back(yard: Yard, tmp_path: Path) -> None:
    ran = gateway("write", yard.site, "battery", *WRITE, "--addresses", yard.addresses, state=tmp_path, answer="y\n")
    assert ran.code == 0
    assert "to be written: -2000 W" in ran.out
    assert "function 16, holding" in ran.out and f"0x{struct.pack('>i', 2000)[2:].hex()}" in ran.out
    assert "acknowledged" in ran.out and "read back: -2000 W" in ran.out
    again = gateway(
        "write", yard.site, "battery", "setpoint_readback_w", "0", "--yes", "--json", "--addresses", yard.addresses,
        state=tmp_path,
    )  # fmt: skip
    assert again.code == 0
    assert again.json | {"before": -2000.0, "status": "acknowledged", "read_back": 0.0, "agrees": True} == again.json


def test_ctrl_c_at_the_question_writes_nothing(yard: Yard, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "write", yard.site, "battery", *WRITE, "--addresses", yard.addresses],
        env={**os.environ, "LAMINA_STATE": str(tmp_path)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    said = b""
    while b"[y/N]" not in said:
        said += os.read(process.stdout.fileno(), 1024)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.strip()) == (1, b"nothing was written")


@pytest.mark.parametrize("answer", ["", "n\n", "what\n"])
def test_nothing_is_written_without_a_yes(yard: Yard, tmp_path: Path, answer: str) -> None:
    arguments = ("battery", "setpoint_readback_w", "-3000", "--addresses", yard.addresses)
    ran = gateway("write", yard.site, *arguments, state=tmp_path, answer=answer)
    assert (ran.code, ran.err) == (1, "nothing was written\n")
    read = gateway("read", yard.site, *arguments[:2], *arguments[3:], "--json", state=tmp_path)
    assert points(read)["setpoint_readback_w"]["value"] != -3000.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("power_w", "1"), "read-only"),
        (("setpoint_readback_w", "40001"), "outside -40000 to 40000, the site file's limits"),
        (("setpoint_enable", "2"), "outside 0 to 1"),
        (("setpoint_enable", "on"), "is not a number"),
        (("nothing", "1"), "no such point"),
        (("reversion_s", "nan"), "is not a number"),
        (("reversion_s", "1", "--bogus"), "unexpected extra argument"),
    ],
)
def test_what_must_not_be_written_is_refused_before_it_is_sent(
    yard: Yard, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    ran = gateway("write", yard.site, "battery", *arguments, "--yes", "--addresses", yard.addresses, state=tmp_path)
    assert ran.code == 2
    assert words in ran.err


def test_a_read_only_device_is_not_written(yard: Yard, tmp_path: Path) -> None:
    content = site_content()
    content["devices"]["battery"]["read_only"] = True
    site = write_site(tmp_path, content)
    ran = gateway("write", site, "battery", *WRITE, "--yes", "--addresses", yard.addresses, state=tmp_path / "state")
    assert (ran.code, ran.err) == (2, "battery is read_only in the site file\n")


def test_a_running_gateway_keeps_others_from_writing_but_not_from_reading(yard: Yard, tmp_path: Path) -> None:
    with held_state_directory(tmp_path / "yard"):
        write = gateway("write", yard.site, "battery", *WRITE, "--yes", "--addresses", yard.addresses, state=tmp_path)
        read = gateway("read", yard.site, "battery", "soc", "--addresses", yard.addresses, state=tmp_path)
        step = gateway("commission", yard.site, "--allow-real-writes", state=tmp_path)
    assert write.code == 2 and "another gateway" in write.err and "stop it first" in write.err
    assert read.code == 0
    assert step.code == 2 and "another gateway" in step.err


def test_a_gateway_of_another_site_that_writes_to_the_device_keeps_others_from_writing(
    yard: Yard, tmp_path: Path
) -> None:
    address = ModbusTcpAddress.model_validate(yard.endpoints["battery"] | {"host": "localhost"})
    with held_devices({"that_battery": address}):
        write = gateway("write", yard.site, "battery", *WRITE, "--yes", "--addresses", yard.addresses, state=tmp_path)
        step = gateway(
            "commission", yard.site, "--allow-real-writes", "--addresses", yard.addresses, state=tmp_path / "other"
        )
        read = gateway("read", yard.site, "battery", "soc", "--addresses", yard.addresses, state=tmp_path)
    for ran in (write, step):
        assert (ran.code, ran.err.startswith("battery: another gateway on this machine writes to it, at ")) == (2, True)
    assert read.code == 0


def test_a_read_back_that_differs_is_reported(yard: Yard, tmp_path: Path) -> None:
    def shifted(profile: dict[str, Any]) -> None:
        # The device takes 0 or 1 here; what is read through this point afterwards is something else.
        profile["points"]["reversion_s"]["sunspec"] = {"models": [704], "point": "WSetRvrtRem"}

    site = at(yard, tmp_path, shifted)
    ran = gateway("write", site, "battery", "reversion_s", "77", "--yes", "--json", state=tmp_path / "state")
    assert ran.code == 1
    assert ran.json["agrees"] is not True


def test_a_refusal_of_the_device_is_told(yard: Yard, tmp_path: Path) -> None:
    def unlimited(profile: dict[str, Any]) -> None:
        del profile["points"]["setpoint_mode"]["range"]

    site = at(yard, tmp_path, unlimited)
    ran = gateway("write", site, "battery", "setpoint_mode", "9", "--yes", "--json", state=tmp_path / "state")
    assert ran.code == 1
    assert ran.json["status"] == "refused" and "exception 3" in ran.json["detail"]


# try


def test_a_profile_that_fits_is_plausible(yard: Yard, tmp_path: Path) -> None:
    ran = gateway("try", "sunspec_meter", yard.target("meter"), "--json", state=tmp_path)
    assert ran.code == 0
    assert ran.json["good"] is True and ran.json["problems"] == []
    assert points(ran)["power_w"]["verdict"] == "plausible"
    assert points(ran)["power_w"]["raw"].startswith("0x")


def test_a_wrong_scale_is_told(yard: Yard, tmp_path: Path) -> None:
    def scaled(profile: dict[str, Any]) -> None:
        profile["points"]["power_w"]["scale"] = 10
        profile["points"]["frequency_hz"]["scale"] = 0.1

    changed_profile(tmp_path, "sunspec_meter", "scaled", scaled)
    ran = gateway("try", tmp_path / "scaled.yaml", yard.target("meter"), "--json", state=tmp_path)
    assert ran.code == 1
    assert any("voltage x current" in problem for problem in ran.json["problems"])
    assert any(problem.startswith("frequency_hz: 5 Hz is outside") for problem in ran.json["problems"])


def test_the_wrong_profile_is_told_with_the_device_s_own_words(yard: Yard, tmp_path: Path) -> None:
    ran = gateway("try", "keba_p30", yard.target("meter"), state=tmp_path)
    assert ran.code == 1
    assert "exception 2" in ran.out and "power_w: control needs it" in ran.err
    assert "no point could be read: this is another kind of device, or another unit" in ran.err
    other = gateway("try", "sunspec_battery", yard.target("meter"), state=tmp_path)
    assert other.code == 1 and "the device does not offer it" in other.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("keba_p31", "127.0.0.1"), 2, "did you mean 'keba_p30'"),
        (("keba_p30",), 2, "HOST[:PORT] or --serial"),
        (("keba_p30", "127.0.0.1:99999"), 2, "port 99999: must be at most 65535"),
        (("opcua_battery", "opc.tcp://h"), 2, "has the wrong form; allowed: a URL like opc.tcp://HOST:PORT/PATH"),
        (("opcua_battery", "h:99999"), 2, "99999 is no TCP port"),
        (("goe_charger", "127.0.0.1:1"), 2, "--param serial=..."),
        (("goe_charger", "127.0.0.1:1", "--param", "serial"), 2, "--param serial: NAME=TEXT is asked for"),
        (("keba_p30", "127.0.0.1:9"), 1, "Connection refused"),
        (("opcua_battery", "127.0.0.1:9"), 1, "cannot connect"),
    ],
)
def test_a_try_that_fails_says_why(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    ran = gateway("try", *arguments, state=tmp_path)
    assert ran.code == code
    assert words in ran.err


@pytest.mark.parametrize(
    ("pace", "words"),
    [({"unreadable": [[39_000, 60_000]]}, "pace.unreadable"), ({"max_registers": 1}, "pace.max_registers")],
)
def test_a_point_that_no_request_can_carry_is_named(
    yard: Yard, tmp_path: Path, pace: dict[str, Any], words: str
) -> None:
    def paced(profile: dict[str, Any]) -> None:
        profile["pace"] = pace

    changed_profile(tmp_path, "sunspec_battery", "paced", paced)
    ran = gateway("try", tmp_path / "paced.yaml", yard.target("battery"), state=tmp_path)
    assert ran.code == 1
    assert "this profile can't be used on this device: profile paced, point " in ran.err
    assert words in ran.err


def test_a_silent_device_ends_a_try_soon(yard: Yard, tmp_path: Path) -> None:
    ran = gateway("try", "sunspec_meter", yard.target("meter"), "--unit", "9", state=tmp_path)
    assert ran.code == 1
    assert "unit 9: no answer within 1 s" in ran.err


# profile


def test_the_shipped_profiles_are_listed(tmp_path: Path) -> None:
    ran = gateway("profile", "list", "--json", state=tmp_path)
    by_name = {row["profile"]: row for row in ran.json}
    assert (
        by_name["keba_p30"] | {"kind": "charger", "protocol": "modbus", "status": "from_document"}
        == (by_name["keba_p30"])
    )
    assert "KEBA" in by_name["keba_p30"]["source"]
    assert "keba_p30" in gateway("profile", "list", state=tmp_path).out


def test_a_shipped_profile_is_shown_to_be_copied(tmp_path: Path) -> None:
    shown = gateway("profile", "show", "keba_p30", state=tmp_path)
    assert shown.code == 0 and shown.out == shipped_profiles()["keba_p30"].read_text(encoding="utf-8")
    wrong = gateway("profile", "show", "keba_p31", state=tmp_path)
    assert wrong.code == 2 and "did you mean 'keba_p30'?" in wrong.err


def test_a_profile_is_checked_with_every_line(tmp_path: Path) -> None:
    assert gateway("profile", "check", "keba_p30", state=tmp_path).code == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text("profile: bad\nkind: toaster\nfingerprint: [{point: x, values: [1], range: [0, 1]}]\n")
    ran = gateway("profile", "check", bad, state=tmp_path)
    assert ran.code == 2
    assert f"{bad}:2: kind" in ran.err
    found = gateway("profile", "check", bad, "--json", state=tmp_path)
    assert found.code == 2
    assert {finding["line"] for finding in json.loads(found.out)} >= {2}


def test_a_fingerprint_that_means_nothing_is_refused(tmp_path: Path) -> None:
    def wrong(profile: dict[str, Any]) -> None:
        profile["fingerprint"] = [
            {"point": "enable"},
            {"point": "nothing"},
            {"point": "power_w", "values": [1], "range": [0, 1]},
            {"manufacturer": "("},
            {},
        ]

    changed_profile(tmp_path, "keba_p30", "wrong", wrong)
    ran = gateway("profile", "check", tmp_path / "wrong.yaml", state=tmp_path)
    assert ran.code == 2
    for words in ("cannot be read", "not among the points", "one condition", "no regular expression", "exactly one"):
        assert words in ran.err


def test_a_reading_is_good_unless_its_sample_is_bad() -> None:
    from config.vocabulary import Quality, Sample

    assert PointReading(Sample(1.0, Quality.UNCERTAIN, 0.0)).good
    assert not PointReading(Sample(None, Quality.BAD, 0.0)).good
