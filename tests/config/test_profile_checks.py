"""What a profile must mean: each contradiction is told at its own line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from config.findings import ConfigError
from config.loading import check_profile, load_profile, shipped_profiles

ProfileFile = Callable[..., Path]
Edit = tuple[str, str]
POINT = "  serial_number:\n"


def told(path: Path) -> list[str]:
    """Every finding as a line, without folder and what is allowed."""
    return [str(finding).replace(f"{path.parent}/", "").split("; allowed: ")[0] for finding in check_profile(path)]


def register(name: str, address: str, more: str = "") -> Edit:
    """Adds a point to the meter, at line 15."""
    return (POINT, f"  {name}:\n    modbus: {{{address}}}\n    source: table 3\n{more}{POINT}")


def summed(parts: str, *more: str) -> Edit:
    """Adds a sum to the meter, at line 16."""
    lines = "".join(f"    {line}\n" for line in more)
    return (POINT, f"  total_w:\n    sum: {parts}\n{lines}    source: table 3\n{POINT}")


CASES: dict[str, tuple[str, list[Edit], list[str]]] = {
    "registers read in two ways": (
        "meter",
        [register("other", "address: 1, type: uint16")],
        ["meter.yaml:17: points.other.modbus: registers 1 to 1 are read in another way by point 'power_w' (line 10)"],
    ),
    "registers in two orders": (
        "meter",
        [register("other", "address: 0, type: int32, word_order: little")],
        ["meter.yaml:10: points.power_w.modbus: registers 0 to 1 are read in another way by point 'other' (line 17)"],
    ),
    "the same registers in the other table": ("meter", [register("other", "address: 0, table: input")], []),
    "one value with two scales": (
        "meter",
        [register("other_w", "address: 0, type: int32", "    unit: W\n    scale: 10\n")],
        [
            "meter.yaml:16: points.other_w: the same value as point 'power_w', in the same unit, with another scale, "
            "offset or sign (line 9)"
        ],
    ),
    "one value with two meanings": (
        "meter",
        [register("flags", "address: 0, type: int32", "    values: {1: on}\n")],
        [],
    ),
    "a sum of what is not there": (
        "meter",
        [summed("{power_l1_w: 1}", "unit: W")],
        ["meter.yaml:17: points.total_w.sum.power_l1_w: 'power_l1_w' is not among the points; did you mean 'power_w'?"],
    ),
    "a sum of another unit": (
        "meter",
        [summed("{power_w: 1}", "poll: fast")],
        ["meter.yaml:17: points.total_w.sum.power_w: 'power_w' is in 'W', and the sum in '' (line 9)"],
    ),
    "a sum at another pace": (
        "meter",
        [summed("{power_w: 1}", "unit: W")],
        ["meter.yaml:17: points.total_w.sum.power_w: 'power_w' is polled fast, and the sum slow (line 9)"],
    ),
    "a sum of text": (
        "meter",
        [summed("{serial_number: 1}", "poll: once")],
        ["meter.yaml:17: points.total_w.sum.serial_number: 'serial_number' is not a number that is read (line 20)"],
    ),
    "a sum of itself": (
        "meter",
        [summed("{total_w: 1}")],
        ["meter.yaml:17: points.total_w.sum.total_w: 'total_w' is a sum itself (line 16)"],
    ),
    "a sum that is scaled and written": (
        "meter",
        [summed("{power_w: 1}", "unit: W", "poll: fast", "scale: 10", "access: rw")],
        [
            "meter.yaml:20: points.total_w.scale: belongs to the parts of a sum; here each has its factor",
            "meter.yaml:21: points.total_w.access: a sum cannot be written",
        ],
    ),
    "a sum over another protocol": (
        "battery",
        [("  setpoint_w:\n", "  all_w:\n    sum: {power_w: 1}\n    poll: fast\n    source: table 3\n  setpoint_w:\n")],
        ["battery.yaml:18: points.all_w.sum: is for protocol modbus, not opcua"],
    ),
    "beyond the last register": (
        "meter",
        [register("other", "address: 65535, type: int32")],
        ["meter.yaml:17: points.other.modbus.address: the value ends at register 65536, beyond the last one, 65535"],
    ),
    "where nothing may be read": (
        "meter",
        [register("other", "address: 99, type: int32")],
        [
            "meter.yaml:7: pace.unreadable[0]: point 'other' is read from registers 99 to 100, "
            "which are in here (line 16)"
        ],
    ),
    "a range of addresses the wrong way round": (
        "meter",
        [("[[100, 199]]", "[[199, 100]]")],
        ["meter.yaml:7: pace.unreadable[0]: the first address, 199, is above the last, 100"],
    ),
    "a length without text": (
        "meter",
        [register("other", "address: 5, length: 2")],
        ["meter.yaml:17: points.other.modbus.length: is for type string alone, not uint16"],
    ),
    "text without a length": (
        "meter",
        [register("other", "address: 5, type: string")],
        ["meter.yaml:17: points.other.modbus.length: is required for type string"],
    ),
    "a number as the key of text": (
        "meter",
        [register("other", "address: 30, type: string, length: 1", "    values: {1: one}\n")],
        ["meter.yaml:19: points.other.values[1]: string is text, and 1 is a number"],
    ),
    "text as the key of a number": (
        "meter",
        [register("other", "address: 5", '    values: {"1": one, 2: two}\n')],
        ["meter.yaml:19: points.other.values.1: uint16 is a number, and '1' is text"],
    ),
    "names for fractions": (
        "meter",
        [register("other", "address: 5, type: float32", "    values: {1: one}\n")],
        ["meter.yaml:19: points.other.values: float32 holds fractions, which name nothing"],
    ),
    "text with a scale and a range": (
        "meter",
        [register("other", "address: 30, type: string, length: 1", "    scale: 2\n    range: [0, 1]\n")],
        [
            "meter.yaml:19: points.other.scale: is for numbers, and string is text",
            "meter.yaml:20: points.other.range: is for numbers, and string is text",
        ],
    ),
    "a range out of reach": (
        "meter",
        [register("other", "address: 5", "    range: [70000, 80000]\n")],
        [
            "meter.yaml:19: points.other.range: no raw value is in it: uint16 with this scale and offset carries 0 to "
            "65535"
        ],
    ),
    "a range between two raw values": (
        "meter",
        [register("other", "address: 5", "    range: [0.1, 0.9]\n")],
        [
            "meter.yaml:19: points.other.range: no raw value is in it: uint16 with this scale and offset carries 0 to "
            "65535, in steps of 1"
        ],
    ),
    "a range that a scale reaches": (
        "meter",
        [register("other", "address: 5", "    range: [0.1, 0.9]\n    scale: 0.1\n")],
        [],
    ),
    "a range that is read with room": ("meter", [register("other", "address: 5", "    range: [-10, 80000]\n")], []),
    "a range that cannot be written": (
        "meter",
        [register("other", "address: 5", "    range: [-10, 100]\n    access: rw\n")],
        [
            "meter.yaml:19: points.other.range: reaches beyond what can be written: uint16 with this scale and offset "
            "carries 0 to 65535"
        ],
    ),
    "a range that a node cannot carry": (
        "battery",
        [
            (
                "identifier: s=Setpoint}\n    scale: 1000\n",
                "identifier: s=Setpoint, type: int16}\n    range: [-40, 40]\n    scale: 0.001\n",
            )
        ],
        [
            "battery.yaml:19: points.setpoint_w.range: reaches beyond what can be written: int16 with this scale and "
            "offset carries -32.767 to 32.768"
        ],
    ),
    "a least current that its point refuses": (
        "charger",
        [("    source: key amp\n", "    range: [0, 5]\n    source: key amp\n")],
        [
            "charger.yaml:27: control.minimum_a: 6 is above the range of 'current_a': no current could be asked "
            "(line 19)"
        ],
    ),
    "currents and pauses that their point refuses": (
        "charger",
        [("    source: key amp\n", "    range: [8, 32]\n    source: key amp\n")],
        [
            "charger.yaml:24: control.writes[0]: a pause writes 0, which is outside of the range of 'current_a' "
            "(line 19)",
            "charger.yaml:27: control.minimum_a: 6 is below the range of 'current_a', which refuses currents under 8 "
            "(line 19)",
        ],
    ),
    "a pause that another write makes": (
        "charger",
        [
            ("    source: key amp\n", "    range: [6, 32]\n    source: key amp\n"),
            ("quantity: current_a}", "quantity: current_a, skip_when_idle: true}"),
        ],
        [],
    ),
    "a range the wrong way round": (
        "meter",
        [("range: [-200000, 200000]", "range: [200000, -200000]")],
        ["meter.yaml:13: points.power_w.range: the lower end, 200000, is not below the upper, -200000"],
    ),
    "an invalid value that never comes": (
        "meter",
        [register("other", "address: 5", "    invalid: [0xFFFF, -1]\n")],
        ["meter.yaml:19: points.other.invalid[1]: -1 can never be read from uint16"],
    ),
    "a scale of nothing": (
        "meter",
        [register("other", "address: 5", "    scale: 0\n")],
        ["meter.yaml:19: points.other.scale: 0 would lose the value"],
    ),
    "a unit that is a thousand times the name's": (
        "meter",
        [("    unit: W\n", "    unit: kW\n")],
        ["meter.yaml:11: points.power_w.unit: 'kW' does not fit the point's name"],
    ),
    "a meter that is read slowly": (
        "meter",
        [("    poll: fast\n", "    poll: slow\n")],
        ["meter.yaml:12: points.power_w.poll: is slow, but control needs power_w with every cycle"],
    ),
    "an inverter that is read slowly": (
        "inverter",
        [("    poll: fast\n", "")],
        ["inverter.yaml:7: warning: points.power_w.poll: is slow, but control needs power_w with every cycle"],
    ),
    "a charger that publishes by itself": ("charger", [("    poll: fast\n", "")], []),
    "a number for a name": (
        "meter",
        [("  power_w:\n", "  5:\n")],
        [
            "meter.yaml:8: points.power_w: is required for a meter",
            "meter.yaml:9: points[5]: 5 cannot be a name",
        ],
    ),
    "a meter without power": (
        "meter",
        [("  power_w:\n", "  powr_w:\n")],
        ["meter.yaml:8: points.power_w: is required for a meter"],
    ),
    "a battery without state of charge": (
        "battery",
        [("  soc:\n", "  charge:\n")],
        ["battery.yaml:6: points.soc: is required for a battery"],
    ),
    "a charger without charging state": (
        "charger",
        [("  charging_state:\n", "  car:\n")],
        ["charger.yaml:7: points.charging_state: is required for a charger"],
    ),
    "a charging state by its own name": (
        "charger",
        [("2: C,", "2: charging,")],
        ["charger.yaml:14: points.charging_state.values[2]: 'charging' is not a charging state of IEC 61851"],
    ),
    "two addresses": (
        "battery",
        [("    opcua: {namespace: \"urn:maker:battery\", path: [Battery, Charge]}\n",
          "    opcua: {namespace: \"urn:maker:battery\", path: [Battery, Charge]}\n    mqtt: {topic: a}\n")],
        [
            "battery.yaml:13: points.soc: has opcua and mqtt; a point has exactly one",
            "battery.yaml:15: points.soc.mqtt: protocol opcua does not address points by mqtt",
        ],
    ),
    "no address": (
        "meter",
        [("    modbus: {address: 0, type: int32}\n", "")],
        ["meter.yaml:9: points.power_w: has no address; a point has exactly one"],
    ),
    "a node by two names": (
        "battery",
        [("path: [Battery, Charge]", "path: [Battery, Charge], identifier: s=C")],
        ["battery.yaml:14: points.soc.opcua: name the node by exactly one of `identifier` and `path`"],
    ),
    "no topic to read": (
        "charger",
        [('{topic: "charger/{serial}/car"}', "{command_topic: a}")],
        ["charger.yaml:13: points.charging_state.mqtt.topic: is required for access r"],
    ),
    "no topic to write": (
        "charger",
        [(', command_topic: "charger/{serial}/amp/set"', "")],
        ["charger.yaml:17: points.current_a.mqtt.command_topic: is required for access rw"],
    ),
    "a topic with an unknown parameter": (
        "charger",
        [('"charger/{serial}/car"', '"charger/{number}/car"')],
        ["charger.yaml:13: points.charging_state.mqtt.topic: {number} is not among the parameters"],
    ),
    "a parameter that no topic has": (
        "charger",
        [("parameters: [serial]", "parameters: [serial, site]")],
        ["charger.yaml:6: warning: parameters[1]: no topic has {site}"],
    ),
    "a write to a point that is not there": (
        "battery",
        [("point: setpoint_w, quantity", "point: set_point_w, quantity")],
        ["battery.yaml:25: control.writes[0].point: 'set_point_w' is not among the points; did you mean 'setpoint_w'?"],
    ),
    "a write to a point that is only read": (
        "battery",
        [("    access: rw\n", "    access: r\n")],
        ["battery.yaml:25: control.writes[0].point: 'setpoint_w' has access r (line 17)"],
    ),
    "a write of nothing": (
        "battery",
        [("- {point: setpoint_w, quantity: power_w}", "- {point: setpoint_w}")],
        ["battery.yaml:25: control.writes[0]: says nothing to write; a write has exactly one"],
    ),
    "a quantity that is none": (
        "battery",
        [("quantity: power_w}", "quantity: powr_w}")],
        [
            "battery.yaml:25: control.writes[0].quantity: is not one of the allowed values, got 'powr_w'; "
            "did you mean 'power_w'?"
        ],
    ),
    "an input register that is written": (
        "meter",
        [register("other", "address: 5, table: input", "    access: rw\n")],
        ["meter.yaml:19: points.other.access: an input register cannot be written (line 17)"],
    ),
    "a timer that runs out between refreshes": (
        "battery",
        [("  refresh_s: 4\n", "  refresh_s: 10\n")],
        ["battery.yaml:28: on_silence.after_s: 10 is not longer than the time between refreshes, 10 (line 26)"],
    ),
    "a refresh that the least interval holds back": (
        "battery",
        [("  refresh_s: 4\n", "  refresh_s: 4\n  min_write_interval_s: 5\n")],
        ["battery.yaml:27: control.min_write_interval_s: 5 is longer than the time between refreshes, 4 (line 26)"],
    ),
    "a timer that nothing arms": (
        "inverter",
        [("    - {point: limit_time_s, quantity: reversion_s}\n", "")],
        ["inverter.yaml:28: on_silence.settable: no write of the control sequence has quantity reversion_s"],
    ),
    "a timer without a time": (
        "inverter",
        [("  reversion_s: 60\n", "")],
        ["inverter.yaml:22: control.reversion_s: is required: a write arms the timer with it"],
    ),
    "silence without its value and time": (
        "battery",
        [("value_w: 0, after_s: 10", "settable: false")],
        [
            "battery.yaml:28: on_silence.value_w: is required for behaviour value",
            "battery.yaml:28: on_silence.after_s: is required for behaviour value",
        ],
    ),
    "a meter that is controlled": (
        "meter",
        [("  power_w:\n", "  power_w:\n    access: rw\n"),
         ("source: table 2\n", "source: table 2\ncontrol: {writes: [{point: power_w, value: 1}], volatile: true}\n")],
        ["meter.yaml:21: control: a meter has nothing to control"],
    ),
    "another name than the file's": (
        "meter",
        [("profile: meter\n", "profile: metre\n")],
        ["meter.yaml:1: profile: 'metre' is not the name of its file, meter.yaml: a profile is named as its file is"],
    ),
    "several at once, and one of them hides nothing": (
        "battery",
        [
            ("    poll: fast\n", "    poll: quick\n"),
            ("    scale: 0.01\n", "    scale: 0\n"),
            ("    access: rw\n", "    access: r\n    unit: kW\n"),
            ("  refresh_s: 4\n", "  refresh_s: 10\n"),
            ("  volatile: true\n", ""),
        ],
        [
            "battery.yaml:11: points.power_w.poll: is not one of the allowed values, got 'quick'",
            "battery.yaml:15: points.soc.scale: 0 would lose the value",
            "battery.yaml:22: points.setpoint_w.unit: 'kW' does not fit the point's name",
            "battery.yaml:24: control.volatile: is required",
            "battery.yaml:26: control.writes[0].point: 'setpoint_w' has access r (line 17)",
            "battery.yaml:28: on_silence.after_s: 10 is not longer than the time between refreshes, 10 (line 27)",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_contradiction_is_told(profile_file: ProfileFile, case: str) -> None:
    name, edits, expected = CASES[case]
    path = profile_file(name, *edits)
    assert told(path) == expected
    if any(": warning: " not in line for line in expected):
        with pytest.raises(ConfigError):
            load_profile(path)
    else:
        assert load_profile(path).profile == name


@pytest.mark.parametrize("name", ["meter", "inverter", "battery", "charger"])
def test_a_right_profile_loads_without_findings(profile_file: ProfileFile, name: str) -> None:
    path = profile_file(name)
    assert told(path) == []
    assert load_profile(path).profile == load_profile(str(path)).profile == name


@pytest.mark.parametrize(
    ("shipped", "change", "words"),
    [
        ("eastron_sdm630", ("pace:\n", "pace:\n  max_registers: 1\n"), "takes 2 registers, and one request 1"),
        ("alfen_eve", ("pace:\n", "pace:\n  write_function: single\n"), "function 6 alone"),
    ],
)
def test_a_value_that_no_request_can_hold_is_refused(
    tmp_path: Path, shipped: str, change: tuple[str, str], words: str
) -> None:
    text = shipped_profiles()[shipped].read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if not line.strip().startswith(("max_registers:", "write_function:"))]
    path = tmp_path / f"{shipped}.yaml"
    path.write_text("\n".join(kept).replace(*change, 1) + "\n", encoding="utf-8")
    found = check_profile(path)
    assert any(words in finding.message for finding in found), found


def test_a_constant_outside_of_its_points_range_is_refused(tmp_path: Path) -> None:
    text = shipped_profiles()["keba_p30"].read_text(encoding="utf-8")
    path = tmp_path / "keba_p30.yaml"
    path.write_text(re.sub(r"(rest:\n\s+- \{point: \w+, value: )[\d.]+", r"\g<1>99999", text), encoding="utf-8")
    assert "99999" in path.read_text(encoding="utf-8")
    assert any("is outside of the range of" in finding.message for finding in check_profile(path))
