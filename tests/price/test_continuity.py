"""The seed paper's property: the outside's price fades out of the local one as interchange goes to nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.price import continuity
from gateway.price.continuity import FORMS, RATING_W, Study, main, study


@pytest.fixture(scope="module")
def found() -> Study:
    return study()


@pytest.mark.parametrize("name", FORMS)
def test_what_two_clearings_differ_by_is_what_the_formula_says(found: Study, name: str) -> None:
    for effect in found.forms[name].effects:
        assert effect.measured == pytest.approx(effect.expected, rel=0.25 if abs(effect.net_pu) < 1e-4 else 0.05)


def test_only_the_root_forms_fade_out(found: Study) -> None:
    assert {name for name, one in found.forms.items() if one.vanishes} == {"root", "spread and root"}
    assert found.forms["LMP + D"].at_balance == pytest.approx(1.0)
    assert found.forms["spread"].at_balance == pytest.approx(1.0)
    assert found.forms["quadratic"].at_balance == pytest.approx(0.5)


def test_it_fades_alike_from_import_and_from_export(found: Study) -> None:
    effects = found.forms["root"].effects
    imports = {one.net_pu: one.measured for one in effects if one.net_pu > 0}
    assert {-one.net_pu: one.measured for one in effects if one.net_pu < 0} == pytest.approx(imports, rel=1e-6)


def test_jumps_shrink_as_curves_are_drawn_finer(found: Study) -> None:
    for coarse, fine in zip(found.refinement, found.refinement[1:], strict=False):
        assert fine.effect_at_balance < coarse.effect_at_balance / 3.0
        assert fine.price_error < coarse.price_error / 3.0


def test_no_effect_without_interchange_or_at_the_limit(found: Study) -> None:
    assert found.islanded_effect == 0.0
    assert found.limit_effect == 0.0
    assert found.illiquid_flagged


def test_half_the_effect_is_where_the_formula_has_it(found: Study) -> None:
    assert found.half_effect_w == pytest.approx((0.005 / 1000**0.5 * 1e6 / 2) ** 2)
    assert found.half_effect_w < RATING_W


def test_the_command_prints_the_figures_and_writes_a_page(
    found: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuity, "study", lambda: found)
    page = tmp_path / "price.html"
    assert main(["--json", "--out", str(page)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["as_known"] is True
    assert told["forms"]["LMP + D"]["has_property"] is False
    assert "<script src=" not in page.read_text(encoding="utf-8")
    assert main([]) == 0
    assert "LMP + D" in capsys.readouterr().out
    assert main(["--out", str(tmp_path / "no" / "price.html")]) == 2


def test_a_form_that_does_not_do_what_is_known_of_it_ends_with_1(
    found: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = found._replace(forms={**found.forms, "LMP + D": found.forms["LMP + D"]._replace(known=True)})
    monkeypatch.setattr(continuity, "study", lambda: broken)
    assert main([]) == 1
    assert "property" in capsys.readouterr().out
