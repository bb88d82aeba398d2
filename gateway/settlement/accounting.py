"""What an interval comes to in energy and money by account; pure, in whole numbers, every entry sums to zero in both.

An amount is what the account receives, below 0 what it pays, in millionths of the currency; energy is what it takes
from the layer, below 0 what it brings, in millionths of a kWh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from config.contracts import LAYER_PREFIX, REST, Contract
from gateway.settlement.estimation import MeteredInterval
from gateway.settlement.readings import CONNECTION, INTERVAL_S, MICRO_PER_WH, MILLION, IntervalPrice, micro

OUTSIDE: Final = "outside"
CONGESTION: Final = "surplus:congestion"
INTERCHANGE: Final = "surplus:interchange"
REGULATION: Final = "surplus:regulation"
ENERGY: Final = "energy"
CONTRACT_PREFIX: Final = "contract:"
REGULATION_PREFIX: Final = "regulation:"


class Posting(NamedTuple):
    """One line of an entry."""

    account: str
    energy_micro: int
    amount_micro: int


class Entry(NamedTuple):
    """One interval's postings for one subject: `energy`, `contract:ID` or `regulation:ID`."""

    begin_s: int
    subject: str
    estimated: bool
    note: str
    postings: tuple[Posting, ...]

    @property
    def balanced(self) -> bool:
        """Whether energy and money sum to zero."""
        return not sum(one.energy_micro for one in self.postings) and not sum(one.amount_micro for one in self.postings)


def account_of(party: str) -> str:
    """The account of a contract's party."""
    return party if party == REST or party.startswith(LAYER_PREFIX) else resource_account(party)


def resource_account(name: str) -> str:
    """The account of a device or a layer below."""
    return f"resource:{name}"


def worth_micro(price_micro: int, energy_micro: int) -> int:
    """Price times energy in millionths, halves away from zero, so that both directions round alike."""
    product = price_micro * energy_micro
    size = (2 * abs(product) + MILLION) // (2 * MILLION)
    return size if product >= 0 else -size


def energy_entry(interval: MeteredInterval) -> Entry:
    """Every resource and the rest at the local price, the outside at its own; the surplus is what is left.

    The rest is what the connection measured less all resources. The surplus of the time in which a limit pressed is
    congestion, that of the other time the interchange's.
    """
    price = interval.price
    readings = dict(interval.readings)
    connection = readings.pop(CONNECTION)
    nets = {resource_account(name): reading.net_micro for name, reading in readings.items()}
    nets[REST] = connection.net_micro - sum(nets.values())
    postings = [Posting(name, net, -worth_micro(price.local_micro, net)) for name, net in nets.items()]
    paid = worth_micro(price.import_micro, connection.in_micro) - worth_micro(price.export_micro, connection.out_micro)
    postings.append(Posting(OUTSIDE, -connection.net_micro, paid))
    surplus = -sum(one.amount_micro for one in postings)
    congestion = _part(surplus, price.bound_ms, price.known_ms)
    postings += [Posting(CONGESTION, 0, congestion), Posting(INTERCHANGE, 0, surplus - congestion)]
    note = f"estimated: {', '.join(sorted(interval.estimated))}" if interval.estimated else ""
    return Entry(price.begin_s, ENERGY, bool(interval.estimated), note, tuple(postings))


def contract_entry(contract: Contract, price: IntervalPrice, *, estimated: bool) -> Entry | None:
    """What a contract for difference moves in an interval; None outside its time."""
    if not contract.begin.timestamp() <= price.begin_s < contract.end.timestamp():
        return None
    energy = round(contract.power_w * INTERVAL_S / 3600.0 * MICRO_PER_WH)
    reference = price.local_micro if contract.reference == "local" else price.import_micro
    difference = worth_micro(reference - micro(contract.strike_per_kwh), energy)
    note = f"{contract.power_w:g} W at {contract.strike_per_kwh:g} against {contract.reference} {reference / MILLION:g}"
    postings = (
        Posting(account_of(contract.buyer), 0, difference),
        Posting(account_of(contract.seller), 0, -difference),
    )
    return Entry(price.begin_s, f"{CONTRACT_PREFIX}{contract.id}", estimated, note, postings)


def entries(intervals: Iterable[MeteredInterval], contracts: Iterable[Contract]) -> list[Entry]:
    """All entries of some intervals."""
    found = []
    contracts = tuple(contracts)
    for interval in intervals:
        found.append(energy_entry(interval))
        guessed = "price" in interval.estimated
        made = (contract_entry(contract, interval.price, estimated=guessed) for contract in contracts)
        found += [entry for entry in made if entry is not None]
    return found


def balances(postings: Iterable[Posting]) -> Mapping[str, Posting]:
    """Sums by account, in the order of their names."""
    sums: dict[str, Posting] = {}
    for one in postings:
        known = sums.get(one.account, Posting(one.account, 0, 0))
        energy, amount = known.energy_micro + one.energy_micro, known.amount_micro + one.amount_micro
        sums[one.account] = Posting(one.account, energy, amount)
    return dict(sorted(sums.items()))


def _part(amount: int, time_ms: int, of_ms: int) -> int:
    """A part of an amount in proportion to time, at most all of it."""
    size = abs(amount) * min(max(time_ms, 0), of_ms) // max(of_ms, 1)
    return size if amount >= 0 else -size
