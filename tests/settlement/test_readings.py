"""Readings from journals, whatever has become of these, and from files of corrections."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settlement.readings import Grade, ReadingsError, from_csv, from_journal
from tests.settlement.journal import BEGIN_S, energy, interval, write


def test_the_journal_s_intervals_become_whole_numbers(tmp_path: Path) -> None:
    write(tmp_path, interval(0, energy(100.0005, 2.5), 0.123456, battery=energy(0.0, 33.333)))
    readings, prices = from_journal(tmp_path)
    by_meter = {one.meter: one for one in readings}
    assert by_meter["connection"].in_micro == 100_000
    assert by_meter["connection"].net_micro == 97_500
    assert by_meter["battery"].net_micro == -33_333
    assert by_meter["battery"].grade is Grade.MEASURED
    assert prices[0][:4] == (BEGIN_S, 123_456, 300_000, 100_000)


def test_what_two_processes_saw_of_one_interval_is_added_up(tmp_path: Path) -> None:
    write(tmp_path, interval(0, energy(60.0, 0.0, 100.0), 0.10), rotated=True)
    write(tmp_path, interval(0, energy(40.0, 0.0, 190.0), 0.40))
    readings, prices = from_journal(tmp_path)
    assert (readings[0].in_micro, readings[0].known_ms, readings[0].grade) == (100_000, 290_000, Grade.MEASURED)
    assert prices[0].local_micro == (100_000 * 100 + 400_000 * 190) // 290


def test_of_an_interval_that_was_lived_twice_the_longer_counts(tmp_path: Path) -> None:
    write(tmp_path, interval(0, energy(60.0)), interval(0, energy(40.0, 0.0, 250.0)))
    readings, _ = from_journal(tmp_path)
    assert (readings[0].in_micro, readings[0].known_ms) == (60_000, 300_000)


def test_what_a_crash_or_a_foreign_hand_left_is_passed_over(tmp_path: Path) -> None:
    good = interval(0, energy(60.0))
    broken = [
        {**good, "begin_s": BEGIN_S + 17},
        {**good, "begin_s": "now"},
        {**good, "connection": energy(-1.0)},
        {**good, "connection": {"in_wh": "much"}, "lambda_per_kwh": None},
        {**good, "connection": 5, "resources": ["battery"], "lambda_per_kwh": 1e300},
        {**good, "event": "power"},
    ]
    write(tmp_path, good, *broken[:3])
    with (tmp_path / "gateway.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event": "interval", "begin_s": \n\x00\xff\n[1, 2, "interval"]\n')
    readings, _ = from_journal(tmp_path)
    assert [(one.begin_s, one.in_micro) for one in readings] == [(BEGIN_S, 60_000)]
    write(tmp_path, *broken)
    readings, _ = from_journal(tmp_path)
    assert readings == []


def test_no_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        from_journal(tmp_path)


def test_corrected_readings_come_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "corrected.csv"
    path.write_text("begin_utc,meter,in_wh,out_wh\n2027-01-15T00:00:00Z,battery,12.5,0\n", encoding="utf-8")
    (reading,) = from_csv(path)
    assert (reading.meter, reading.in_micro, reading.grade) == ("battery", 12_500, Grade.CORRECTED)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ":1: the columns"),
        ("begin,meter,in_wh,out_wh\n", ":1: the columns"),
        ("begin_utc,meter,in_wh,out_wh\nnever,battery,1,0\n", ":2: "),
        ("begin_utc,meter,in_wh,out_wh\n2027-01-15T00:01:00Z,battery,1,0\n", ":2: 2027-01-15T00:01:00Z is no begin"),
        ("begin_utc,meter,in_wh,out_wh\n2027-01-15,battery,-1,0\n", ":2: energies are magnitudes"),
        ("begin_utc,meter,in_wh,out_wh\n2027-01-15,battery,nan,0\n", ":2: energies are magnitudes"),
        ("begin_utc,meter,in_wh,out_wh\n2027-01-15,battery,1\n", ":2: "),
        ("begin_utc,meter,in_wh,out_wh\n2027-01-15,battery,1,0,9\n", ":2: four columns"),
        ("begin_utc,meter,in_wh,out_wh\n2027-01-15,a,1,0\n2027-01-15,a,2,0\n", "a has two readings"),
    ],
)
def test_a_bad_file_names_its_line(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "corrected.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ReadingsError, match=place):
        from_csv(path)
