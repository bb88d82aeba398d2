"""`gateway settle`: from a journal to a ledger, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from tests.settlement.journal import energy, interval, write

CONTRACTS = """\
site: demo
contracts:
  - id: night
    buyer: rest
    seller: {seller}
    power_w: 12000.0
    strike_per_kwh: 0.2
    begin: 2027-01-15T00:00:00Z
    end: 2027-01-15T00:05:00Z
    reference: {reference}
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("time.time", lambda: 1_800_100_000.0)
    state = tmp_path / "state"
    write(
        state,
        interval(0, energy(1000.0), battery_a=energy(0.0, 500.0)),
        interval(1, energy(800.0), battery_a=energy(0.0, 0.0, 10.0)),
    )
    return state


def settle(state: Path, *options: object) -> tuple[int, str, str]:
    window = ["--from", "2027-01-15", "--to", "2027-01-16", "--state", state]
    result = CliRunner().invoke(app, ["settle", "demo", *map(str, (*window, *options))])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def told(state: Path, *options: object) -> dict[str, Any]:
    code, out, _ = settle(state, "--json", *options)
    assert code == 0
    return dict(json.loads(out))


def test_the_window_is_settled_and_told(state: Path) -> None:
    found = told(state)
    assert (found["intervals"], found["estimated"], found["posted"]) == (2, ["2027-01-15T00:05:00Z"], 2)
    assert found["sum"] == {"energy_kwh": "0.000000", "amount": "0.000000"}
    assert found["accounts"]["resource:battery_a"] == {"energy_kwh": "-1.000000", "amount": "0.250000"}
    assert told(state)["posted"] == 0


def test_people_get_a_table(state: Path) -> None:
    code, out, _ = settle(state)
    assert code == 0
    assert "resource:battery_a" in out
    assert "2 intervals, 1 of them estimated, 0 unsettled; 2 entries posted, 0 reversed, 0 unchanged" in out


def test_every_posting_goes_into_a_csv_file(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    assert settle(state, "--csv", path)[0] == 0
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert len(rows) == 10
    assert {row["subject"] for row in rows} == {"energy"}
    assert rows[0]["begin_utc"] == "2027-01-15T00:00:00Z"
    assert settle(state, "--csv", "-")[1] == path.read_text(encoding="utf-8")


def test_a_correction_reverses_the_estimate(state: Path, tmp_path: Path) -> None:
    told(state)
    path = tmp_path / "corrected.csv"
    path.write_text("begin_utc,meter,in_wh,out_wh\n2027-01-15T00:05:00Z,battery_a,0,100\n", encoding="utf-8")
    found = told(state, "--readings", path)
    assert (found["posted"], found["reversed"], found["estimated"]) == (1, 1, [])
    assert found["accounts"]["resource:battery_a"]["energy_kwh"] == "-0.600000"


def test_the_ledger_outlives_the_journal(state: Path) -> None:
    before = told(state)["accounts"]
    (state / "gateway.jsonl").unlink()
    assert told(state)["accounts"] == before


def test_contracts_come_from_a_file(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "demo.contracts.yaml"
    path.write_text(CONTRACTS.format(seller="battery_a", reference="local"), encoding="utf-8")
    without = told(state)["accounts"]["rest"]["amount"]
    found = told(state, "--contracts", path)
    assert float(found["accounts"]["rest"]["amount"]) == pytest.approx(float(without) + 0.05)


@pytest.mark.parametrize(
    ("seller", "reference", "words"),
    [
        ("batery_a", "local", "contracts[0].seller: 'batery_a' is no party of this site; did you mean 'battery_a'?"),
        ("rest", "local", "contracts[0].seller: 'rest' is the buyer, too"),
        ("layer:north", "local", "both settle by the outside's price"),
        ("battery_a", "somewhere", "contracts[0].reference"),
    ],
)
def test_a_bad_contract_is_named_with_its_line(
    state: Path, tmp_path: Path, seller: str, reference: str, words: str
) -> None:
    path = tmp_path / "demo.contracts.yaml"
    path.write_text(CONTRACTS.format(seller=seller, reference=reference), encoding="utf-8")
    code, _, error = settle(state, "--contracts", path)
    assert code == 2
    assert words in error
    assert f"{path}:" in error


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--from", "yesterday"], 2, "--from yesterday: a time like"),
        (["--from", "2027-01-17"], 2, "is not before --to"),
        (["--from", "2020-01-01"], 2, "a year at most"),
        (["--readings", "nowhere.csv"], 2, "nowhere.csv: No such file"),
        (["--contracts", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["--csv", "/nowhere/out.csv"], 2, "--csv /nowhere/out.csv: No such file"),
        (["--state", "/nowhere"], 1, "no journal there"),
    ],
)
def test_a_mistake_is_told_in_a_line(state: Path, options: list[str], code: int, words: str) -> None:
    found, _, error = settle(state, *options)
    assert (found, words in error) == (code, True), error


def test_readings_of_a_stranger_are_refused(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "corrected.csv"
    path.write_text("begin_utc,meter,in_wh,out_wh\n2027-01-15T00:05:00Z,batt,0,100\n", encoding="utf-8")
    code, _, error = settle(state, "--readings", path)
    assert code == 2
    assert "batt: no meter of this site" in error


def test_a_ledger_that_is_none_is_told(state: Path) -> None:
    (state / "ledger.sqlite").write_text("no database " * 100, encoding="utf-8")
    code, _, error = settle(state)
    assert code == 1
    assert "not a database" in error
