"""The ledger: SQLite, whole numbers, append-only. What changes is reversed and posted anew, never overwritten.

Readings and prices are kept beside it, so that an interval can be settled after the journal has forgotten it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from gateway.settlement.accounting import CONTRACT_PREFIX, REGULATION_PREFIX, Entry, Posting
from gateway.settlement.readings import Grade, IntervalPrice, Reading
from gateway.settlement.regulation import IntervalRegulation

FILE_NAME: Final = "ledger.sqlite"
VERSION: Final = 2
WAIT_S: Final = 10.0
"""For another settlement of the same site to end."""

_REGULATION: Final = """
CREATE TABLE regulation (begin_s INTEGER PRIMARY KEY, up_micro INTEGER NOT NULL, down_micro INTEGER NOT NULL,
    moved_micro INTEGER NOT NULL, asked_micro INTEGER NOT NULL, missed_micro INTEGER NOT NULL,
    reserved_ms INTEGER NOT NULL) STRICT;
"""
"""What version 2 has and version 1 had not."""

_SCHEMA: Final = f"""
CREATE TABLE readings (begin_s INTEGER, meter TEXT, in_micro INTEGER NOT NULL, out_micro INTEGER NOT NULL,
    known_ms INTEGER NOT NULL, grade INTEGER NOT NULL, source TEXT NOT NULL, PRIMARY KEY (begin_s, meter)) STRICT;
CREATE TABLE prices (begin_s INTEGER PRIMARY KEY, local_micro INTEGER NOT NULL, import_micro INTEGER NOT NULL,
    export_micro INTEGER NOT NULL, bound_ms INTEGER NOT NULL, known_ms INTEGER NOT NULL) STRICT;
{_REGULATION}CREATE TABLE entries (id INTEGER PRIMARY KEY, begin_s INTEGER NOT NULL, subject TEXT NOT NULL,
    estimated INTEGER NOT NULL, note TEXT NOT NULL, posted_utc TEXT NOT NULL,
    reverses INTEGER UNIQUE REFERENCES entries (id)) STRICT;
CREATE INDEX entries_by_interval ON entries (begin_s, subject);
CREATE TABLE postings (entry_id INTEGER NOT NULL REFERENCES entries (id), account TEXT NOT NULL,
    energy_micro INTEGER NOT NULL, amount_micro INTEGER NOT NULL, PRIMARY KEY (entry_id, account)) STRICT;
CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT RAISE (ABORT, 'entries are never changed'); END;
CREATE TRIGGER entries_remain BEFORE DELETE ON entries BEGIN SELECT RAISE (ABORT, 'entries are never removed'); END;
CREATE TRIGGER postings_stay BEFORE UPDATE ON postings BEGIN SELECT RAISE (ABORT, 'postings are never changed'); END;
CREATE TRIGGER postings_remain BEFORE DELETE ON postings BEGIN SELECT RAISE (ABORT, 'postings are never removed'); END;
"""


class LedgerError(Exception):
    """A ledger that can't be used, or an entry that does not balance; the text is for the user."""


class Posted(NamedTuple):
    """What a run did: entries posted anew, entries reversed, entries that were there already."""

    posted: int
    reversed: int
    unchanged: int


class Line(NamedTuple):
    """One posting as it stands in the ledger, with its entry's frame."""

    entry_id: int
    begin_s: int
    subject: str
    estimated: bool
    reverses: int | None
    note: str
    posted_utc: str
    posting: Posting


class Ledger:
    """One site's ledger; `with ledger.change():` makes all or nothing of what is done inside it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @contextmanager
    def change(self) -> Iterator[None]:
        """One transaction; what raises inside leaves nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise
        self._db.commit()

    def take(
        self,
        readings: Iterable[Reading],
        prices: Iterable[IntervalPrice],
        regulation: Iterable[IntervalRegulation] = (),
    ) -> None:
        """Keep what is better than what is known: a higher grade, longer known, or the newest correction."""
        self._db.executemany(
            "INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (begin_s, meter) DO UPDATE SET "
            "in_micro = excluded.in_micro, out_micro = excluded.out_micro, known_ms = excluded.known_ms, "
            "grade = excluded.grade, source = excluded.source WHERE excluded.grade > grade OR (excluded.grade = grade "
            f"AND (excluded.known_ms > known_ms OR excluded.grade = {Grade.CORRECTED:d}))",
            [(*one[:5], int(one.grade), one.source) for one in readings],
        )
        self._db.executemany(
            "INSERT INTO prices VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (begin_s) DO UPDATE SET "
            "local_micro = excluded.local_micro, import_micro = excluded.import_micro, "
            "export_micro = excluded.export_micro, bound_ms = excluded.bound_ms, known_ms = excluded.known_ms "
            "WHERE excluded.known_ms > known_ms",
            prices,
        )
        self._db.executemany(
            "INSERT INTO regulation VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (begin_s) DO UPDATE SET "
            "up_micro = excluded.up_micro, down_micro = excluded.down_micro, moved_micro = excluded.moved_micro, "
            "asked_micro = excluded.asked_micro, missed_micro = excluded.missed_micro, "
            "reserved_ms = excluded.reserved_ms WHERE excluded.reserved_ms > reserved_ms",
            regulation,
        )

    def readings(self, from_s: int, until_s: int) -> list[Reading]:
        """What is known of the meters of the intervals that begin in a window."""
        rows = self._db.execute("SELECT * FROM readings WHERE begin_s >= ? AND begin_s < ?", (from_s, until_s))
        return [Reading._make((*row[:5], Grade(row[5]), row[6])) for row in rows]

    def prices(self, from_s: int, until_s: int) -> list[IntervalPrice]:
        """What is known of the prices of the intervals that begin in a window."""
        rows = self._db.execute("SELECT * FROM prices WHERE begin_s >= ? AND begin_s < ?", (from_s, until_s))
        return [IntervalPrice(*row) for row in rows]

    def regulation(self, from_s: int, until_s: int) -> list[IntervalRegulation]:
        """What is known of the regulation in the intervals that begin in a window."""
        rows = self._db.execute("SELECT * FROM regulation WHERE begin_s >= ? AND begin_s < ?", (from_s, until_s))
        return [IntervalRegulation(*row) for row in rows]

    def newest_s(self) -> int | None:
        """Begin of the last interval that anything is known of."""
        sql = "SELECT max(begin_s) FROM (SELECT begin_s FROM readings UNION ALL SELECT begin_s FROM prices)"
        found: int | None = self._db.execute(sql).fetchone()[0]
        return found

    def post(self, wanted: Iterable[Entry], from_s: int, until_s: int, posted_utc: str) -> Posted:
        """Make the window's entries the wanted ones.

        What is the same stays. What differs, and an agreement that is no longer wanted, is reversed. Raises LedgerError
        for an entry that does not sum to zero.
        """
        standing = self._standing(from_s, until_s)
        posted = turned = unchanged = 0
        for entry in wanted:
            if not entry.balanced:
                raise LedgerError(f"{entry.subject} of {entry.begin_s} does not sum to zero")
            known = standing.pop((entry.begin_s, entry.subject), None)
            if known is not None and _same(known[1], entry):
                unchanged += 1
                continue
            if known is not None:
                self._reverse(*known, posted_utc)
                turned += 1
            self._insert(entry, None, posted_utc)
            posted += 1
        for entry_id, entry in standing.values():
            if entry.subject.startswith((CONTRACT_PREFIX, REGULATION_PREFIX)):
                self._reverse(entry_id, entry, posted_utc)
                turned += 1
        return Posted(posted, turned, unchanged)

    def lines(self, from_s: int, until_s: int) -> list[Line]:
        """Every posting of the intervals that begin in a window, reversed ones and reversals included."""
        rows = self._db.execute(
            "SELECT id, begin_s, subject, estimated, reverses, note, posted_utc, account, energy_micro, amount_micro "
            "FROM entries JOIN postings ON entry_id = id WHERE begin_s >= ? AND begin_s < ? "
            "ORDER BY begin_s, id, account",
            (from_s, until_s),
        )
        return [Line(row[0], row[1], row[2], bool(row[3]), row[4], row[5], row[6], Posting(*row[7:])) for row in rows]

    def standing(self, from_s: int, until_s: int) -> list[Entry]:
        """The entries of a window that are in force."""
        return [entry for _, entry in self._standing(from_s, until_s).values()]

    def _standing(self, from_s: int, until_s: int) -> dict[tuple[int, str], tuple[int, Entry]]:
        frames: dict[int, Line] = {}
        postings: dict[int, list[Posting]] = {}
        lines = self.lines(from_s, until_s)
        gone = {line.reverses for line in lines}
        for line in lines:
            if line.reverses is None and line.entry_id not in gone:
                frames[line.entry_id] = line
                postings.setdefault(line.entry_id, []).append(line.posting)
        return {
            (line.begin_s, line.subject): (
                entry_id,
                Entry(line.begin_s, line.subject, line.estimated, line.note, tuple(postings[entry_id])),
            )
            for entry_id, line in frames.items()
        }

    def _reverse(self, entry_id: int, entry: Entry, posted_utc: str) -> None:
        turned = tuple(Posting(one.account, -one.energy_micro, -one.amount_micro) for one in entry.postings)
        self._insert(entry._replace(note="reversal", postings=turned), entry_id, posted_utc)

    def _insert(self, entry: Entry, reverses: int | None, posted_utc: str) -> None:
        frame = (entry.begin_s, entry.subject, int(entry.estimated), entry.note, posted_utc, reverses)
        made = self._db.execute(
            "INSERT INTO entries (begin_s, subject, estimated, note, posted_utc, reverses) VALUES (?, ?, ?, ?, ?, ?)",
            frame,
        )
        self._db.executemany(
            "INSERT INTO postings VALUES (?, ?, ?, ?)", [(made.lastrowid, *posting) for posting in entry.postings]
        )


@contextmanager
def opened(path: Path | str) -> Iterator[Ledger]:
    """A ledger, made where there is none; raises LedgerError for what is no ledger or can't be read or written."""
    try:
        db = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error
    try:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = FULL")
        _prepare(db, path)
        yield Ledger(db)
    except (sqlite3.Error, OverflowError) as error:
        raise LedgerError(f"{path}: {error}") from error
    finally:
        db.close()


def _prepare(db: sqlite3.Connection, path: Path | str) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise LedgerError(f"{path}: a database, but no ledger")
        # One script in one transaction: after a crash there is a whole schema or none.
        db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
    elif version == 1:
        db.executescript(f"BEGIN IMMEDIATE;{_REGULATION}PRAGMA user_version = {VERSION};COMMIT;")
    elif version != VERSION:
        raise LedgerError(f"{path}: a ledger of version {version}; this reads version {VERSION}")


def _same(one: Entry, other: Entry) -> bool:
    return one.estimated == other.estimated and sorted(one.postings) == sorted(other.postings)
