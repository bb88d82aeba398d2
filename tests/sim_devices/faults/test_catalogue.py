"""The catalogue as a whole: every fault has its tests, the page shows every fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim_devices.faults import FAULTS
from sim_devices.faults.page import table, with_table
from sim_devices.faults.registry import EVERY, MODBUS, PARENT
from tests.sim_devices.faults import (
    test_guards_messages,
    test_guards_meter,
    test_guards_modbus,
    test_guards_ocpp,
    test_mqtt_wire,
    test_ocpp_wire,
    test_opcua_wire,
    test_values,
    test_wire,
)

PAGE = Path("docs/faults.md")


def test_every_fault_has_a_test_that_reads_the_bytes_on_both_sides() -> None:
    on_the_wire = {
        *(case.fault for case in (*test_wire.CASES, *test_values.CASES, *test_mqtt_wire.CASES)),
        *test_wire.WIRE_TESTS,
        *test_values.VALUE_TESTS,
        *test_mqtt_wire.OTHER_TESTS,
        *test_opcua_wire.TESTS,
        *test_ocpp_wire.TESTS,
    }
    assert on_the_wire == FAULTS.keys()


def test_every_fault_has_a_check_of_the_gateways_without_which_it_does_harm() -> None:
    guards = (
        *test_guards_modbus.GUARDS,
        *test_guards_meter.GUARDS,
        *test_guards_messages.UA_GUARDS,
        *test_guards_messages.PARENT_GUARDS,
        *test_guards_ocpp.OCPP_GUARDS,
    )
    assert {guard.fault for guard in guards} == FAULTS.keys()


def test_the_page_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_table(text) == text, "python -m sim_devices.faults.page docs/faults.md"
    for kind in FAULTS.values():
        assert f"| `{kind.name}` |" in table()


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="the page has no"):
        with_table("# Faults\n")


def test_what_faults_apply_to_are_protocols_as_the_site_file_names_them() -> None:
    for kind in FAULTS.values():
        assert set(kind.applies_to) <= {*EVERY, PARENT}
        assert set(kind.default) <= set(kind.allowed)
        assert kind.points is None or kind.understands
        assert not kind.frames or kind.selects
        assert (
            {"modbus_tcp"} & set(kind.applies_to) or not set(MODBUS) & set(kind.applies_to) or kind.name == "wrong_crc"
        )
