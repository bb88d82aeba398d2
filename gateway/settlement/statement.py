"""A site settled over a window: readings taken, intervals completed, entries posted, balances told."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from config.contracts import Contract, RegulationTerms
from gateway.settlement.accounting import CONGESTION, ENERGY, INTERCHANGE, REGULATION, Posting, balances, entries
from gateway.settlement.estimation import STANDS_FOR_S, completed
from gateway.settlement.ledger import Ledger, Line, Posted
from gateway.settlement.readings import INTERVAL_S, MILLION, IntervalPrice, Reading, utc_text
from gateway.settlement.regulation import IntervalRegulation, regulation_entries

CSV_COLUMNS: Final = (
    *(
        "begin_utc",
        "subject",
        "account",
        "energy_kwh",
        "amount",
        "estimated",
        "entry",
        "reverses",
        "posted_utc",
        "note",
    ),
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A window's balances; energies in kWh taken, amounts received, both exact to the millionth."""

    from_s: int
    until_s: int
    posted: Posted
    accounts: Mapping[str, Posting]
    intervals: int
    estimated: tuple[int, ...]
    unsettled: tuple[int, ...]
    lines: tuple[Line, ...]

    @property
    def sum_micro(self) -> tuple[int, int]:
        """Energy and money over all postings, reversed ones included: zero, or the ledger is broken."""
        postings = [line.posting for line in self.lines]
        return sum(one.energy_micro for one in postings), sum(one.amount_micro for one in postings)

    def as_json(self) -> dict[str, Any]:
        """A plain object; decimals as text, since a float would round them."""
        return {
            "from": utc_text(self.from_s),
            "to": utc_text(self.until_s),
            "intervals": self.intervals,
            "estimated": [utc_text(begin_s) for begin_s in self.estimated],
            "unsettled": [utc_text(begin_s) for begin_s in self.unsettled],
            "accounts": {
                name: {"energy_kwh": decimal(one.energy_micro), "amount": decimal(one.amount_micro)}
                for name, one in self.accounts.items()
            },
            "surplus": {
                name.partition(":")[2]: decimal(self.accounts[name].amount_micro)
                for name in (CONGESTION, INTERCHANGE, REGULATION)
                if name in self.accounts
            },
            "sum": dict(zip(("energy_kwh", "amount"), map(decimal, self.sum_micro), strict=True)),
            **self.posted._asdict(),
        }

    def as_csv(self) -> str:
        """A line for each posting, reversals included."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for line in self.lines:
            account, energy, amount = line.posting
            writer.writerow(
                [utc_text(line.begin_s), line.subject, account, decimal(energy), decimal(amount), int(line.estimated),
                 line.entry_id, "" if line.reverses is None else line.reverses, line.posted_utc, line.note]
            )  # fmt: skip
        return text.getvalue()


def settle(
    ledger: Ledger,
    contracts: Iterable[Contract],
    readings: Iterable[Reading],
    prices: Iterable[IntervalPrice],
    window_s: tuple[int, int],
    now_s: float,
    regulation: Iterable[IntervalRegulation] = (),
    terms: Iterable[RegulationTerms] = (),
) -> Statement:
    """Settle the intervals that begin in a window and have ended; the same again changes nothing.

    `readings`, `prices` and `regulation` are added to what the ledger knows. Raises LedgerError.
    """
    from_s, until_s = window_s[0], min(window_s[1], int(now_s // INTERVAL_S) * INTERVAL_S)
    with ledger.change():
        ledger.take(readings, prices, regulation)
        looked_s = from_s - STANDS_FOR_S
        newest_s = ledger.newest_s()
        last_s = until_s if newest_s is None else min(until_s, newest_s + INTERVAL_S)
        known = ledger.readings(looked_s, last_s), ledger.prices(looked_s, last_s)
        intervals, unsettled = completed(*known, from_s, last_s)
        wanted = entries(intervals, contracts) + regulation_entries(ledger.regulation(from_s, until_s), terms)
        posted = ledger.post(wanted, from_s, until_s, utc_text(now_s))
        lines = ledger.lines(from_s, until_s)
        standing = ledger.standing(from_s, until_s)
    settled = [entry for entry in standing if entry.subject == ENERGY]
    return Statement(
        from_s,
        until_s,
        posted,
        balances(line.posting for line in lines),
        len(settled),
        tuple(entry.begin_s for entry in settled if entry.estimated),
        tuple(unsettled),
        tuple(lines),
    )


def decimal(micro: int) -> str:
    """Millionths as a decimal with six places."""
    sign = "-" if micro < 0 else ""
    return f"{sign}{abs(micro) // MILLION}.{abs(micro) % MILLION:06d}"
