"""The settings in a site file: what they must be, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from config.checks import site_problems
from config.compliance import Compliance
from config.site import Site
from config.strict import BrokenRulesError
from config.vocabulary import Quantity
from gateway.compliance.board import build_board

DEMO = Path(__file__).parents[2] / "config" / "sites"


def site(**compliance: Any) -> Site:
    """The smallest site with these functions."""
    address = {"driver": "modbus_tcp", "host": "127.0.0.1", "unit": 1}
    return Site.model_validate(
        {
            "site": "house",
            "connection": {"rating_w": 30e3, "meter": "meter", "max_export_w": 10e3},
            "fallback": {"net_import_w": 5e3, "net_export_w": 0.0},
            "parents": [{"name": "dso", "dispatch": True}],
            "devices": {
                "meter": {"profile": "m", "address": address, "rating_w": 30e3},
                "charger": {"profile": "c", "address": address | {"unit": 2}, "rating_w": 11e3},
                "battery": {"profile": "b", "address": address | {"unit": 3}, "rating_w": 10e3, "capacity_wh": 10e3},
            },
            "compliance": compliance,
        }
    )


def test_nothing_is_on_unless_it_is_named() -> None:
    board = build_board(site())
    assert board.functions == ()
    assert board.rulings == ()
    for path in DEMO.glob("*.yaml"):
        assert "compliance" not in yaml.safe_load(path.read_text(encoding="utf-8")), path


def test_every_function_is_built_from_its_settings() -> None:
    board = build_board(
        site(
            eebus_lpc={"source": "dso", "failsafe_w": 4200.0, "quantity": "controllable_load_w"},
            eebus_lpp={"source": "dso", "failsafe_w": 99e3},
            g100={"max_export_w": 3680.0},
            section_14a={"source": "dso", "devices": {"charger": "charge_point", "battery": "storage"}},
            csip_aus={"programs": [{"source": "dso"}], "default_export_w": 1500.0, "set_max_w": 10e3},
            as4777={"soft_export_w": 5e3},
            disturbance_margin={},
        )
    )
    assert [ruling.function for ruling in board.rulings] == list(Compliance.model_fields)
    bounds = {(ruling.function, bound.quantity): bound.value_w for ruling in board.rulings for bound in ruling.bounds}
    assert bounds["eebus_lpp", Quantity.NET_EXPORT_W] == 10e3, "never above the installer's"
    assert bounds["section_14a", Quantity.CONTROLLABLE_LOAD_W] == pytest.approx(7560.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"eebus_lpc": {"source": "dso", "failsafe_w": 1.0, "failsafe_duration_s": 7199}}, "7200"),
        ({"eebus_lpc": {"source": "dso", "failsafe_w": -1.0}}, "greater than or equal to 0"),
        ({"eebus_lpc": {"source": "dso"}}, "failsafe_w"),
        ({"g100": {}}, "limits neither"),
        ({"as4777": {}}, "limits neither"),
        ({"as4777": {"soft_export_w": 6e3, "hard_export_w": 5e3}}, "is above hard_export_w"),
        ({"section_14a": {"source": "dso", "devices": {}}}, "at least 1"),
        (
            {"csip_aus": {"programs": [{"source": "a"}] * 2, "default_export_w": 1.0, "set_max_w": 1.0}},
            "has two programs",
        ),
        ({"disturbance_margin": {"most_pu": 0.5}}, "0.1"),
        ({"eebus": {}}, "Extra inputs"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, BrokenRulesError), match=words):
        Compliance.model_validate(settings)


def test_sources_are_parents_and_devices_devices() -> None:
    wrong = site(
        eebus_lpc={"source": "dno", "failsafe_w": 4200.0},
        section_14a={"source": "dso", "devices": {"wallbox": "charge_point"}},
        csip_aus={"programs": [{"source": "utility"}], "default_export_w": 1500.0, "set_max_w": 10e3},
    )
    told = {problem.path: problem.message for problem in site_problems(wrong, {}) if problem.path[0] == "compliance"}
    assert told == {
        ("compliance", "eebus_lpc", "source"): "'dno' is not a parent of this site",
        ("compliance", "section_14a", "devices", "wallbox"): "'wallbox' is not a device of this site",
        ("compliance", "csip_aus", "programs", 0, "source"): "'utility' is not a parent of this site",
    }
