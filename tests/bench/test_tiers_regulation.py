"""How well the top of the tiers followed a signal: both sides averaged over the same ten seconds."""

from __future__ import annotations

import pytest

from gateway.bench.tiers.regulation import scored

TOLD = [(100.0 + 4.0 * at, 10e3 if at % 5 else -20e3) for at in range(30)]
TIMES = [98.0 + 0.1 * at for at in range(1300)]


def asked(now: float) -> float:
    return next(power for at_s, power in reversed([(0.0, 0.0), *TOLD]) if at_s <= now)


def test_what_is_followed_at_once_is_precise() -> None:
    told = scored(TOLD, 220.0, TIMES, [asked(now) for now in TIMES])
    assert told["precision"] == pytest.approx(1.0)
    assert (told["signals"], told["reached"]) == (30, True)
    assert told["windows"] in (11, 12)


def test_half_of_it_is_half_as_precise_and_nothing_is_not_at_all() -> None:
    half = scored(TOLD, 220.0, TIMES, [0.5 * asked(now) for now in TIMES])
    none = scored(TOLD, 220.0, TIMES, [0.0] * len(TIMES))
    assert (half["precision"], half["reached"]) == (pytest.approx(0.5), False)
    assert none["precision"] == pytest.approx(0.0)


def test_without_a_record_nothing_is_reached() -> None:
    told = scored(TOLD, 220.0, [], [])
    assert (told["precision"], told["windows"], told["reached"]) == (None, 0, False)
