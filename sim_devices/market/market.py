"""The market itself, by messages alone: offers and telemetry in, dispatches out. No clock, no connection, no chance.

Times are UTC seconds that the caller states; intervals begin at multiples of their length.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Final, NamedTuple

from sim_devices.market.clearing import Bid, Cleared, clear
from sim_devices.market.delivery import Delivery, Shortfall
from sim_devices.market.offers import Interval, OfferBook, Offered
from sim_devices.market.regulation import Awards, Capacity, award
from sim_devices.market.settings import Interface, MarketSettings, Quantity, Supply, SupplyCurve

AT_LIMIT_W: Final = 1e-3


class Dispatch(NamedTuple):
    """What one child is told: net power that binds, the price that settles, and the prices to come."""

    child: str
    offer_id: str
    begin_s: float
    duration_s: float
    net_power_w: float
    lambda_per_kwh: float
    path_per_kwh: tuple[float, ...]
    regulation_up_w: float
    regulation_down_w: float


class Round(NamedTuple):
    """One interval's clearing. `fixed_w`: children without an offer, at the power they have; `unmet_w`: net power that
    could not be reached, come to less asked; `at_limit`: children that the network holds back; `shortfalls`: who was
    beside its dispatch in the interval before, as far as that had gone."""

    begin_s: float
    lambda_per_kwh: float
    dispatches: tuple[Dispatch, ...]
    fixed_w: Mapping[str, float]
    net_w: float
    unmet_w: float
    at_limit: tuple[str, ...]
    regulation: Awards
    shortfalls: tuple[Shortfall, ...]
    tolerances_w: Mapping[str, float]


class _Side(NamedTuple):
    """One child in one interval: its offer and its bounds before and after reserve and network."""

    offered: Offered
    interval: Interval
    lower_w: float
    upper_w: float


class Market:
    """Clears interval after interval. `supply` may be replaced at any time; the next gate goes by it."""

    def __init__(self, settings: MarketSettings, supply: Supply, now_s: float) -> None:
        self.settings = settings
        self.supply = supply
        self.book = OfferBook({})
        self.open_s = ceil((now_s + settings.gate_s) / settings.interval_s) * settings.interval_s
        self.delivery = Delivery(self.open_s)
        self.running: Round | None = None

    def authority_taken(self, child: str, now_s: float) -> None:
        """A child is this market's from now on; what it offered before belongs to an old epoch."""
        if child in self.settings.children:
            self.book.authority_s[child] = now_s

    def authority_lost(self, child: str) -> None:
        """Another parent has it: its offers are a stranger's."""
        self.book.authority_s.pop(child, None)

    def take_offer(self, child: str, payload: bytes, now_s: float) -> Offered:
        """An offer; raises offers.OfferRefusedError, which is counted in the book."""
        return self.book.take(child, payload, now_s, self.open_s)

    def take_telemetry(self, child: str, net_power_w: float | None, now_s: float) -> None:
        """What a child measures at its connection; None where it has no good value."""
        if child in self.settings.children:
            self.delivery.sample(child, net_power_w, now_s)

    @property
    def gate_closes_s(self) -> float:
        """When the next interval is cleared."""
        return self.open_s - self.settings.gate_s

    def close_gate(self) -> Round:
        """Clear the next interval, with the prices of those after it as far as anybody offers.

        Who is beside its dispatch in the interval that runs is believed no more than it shows, so that the others take
        over what it leaves.
        """
        shortfalls = self._judge()
        begin_s, length_s = self.open_s, self.settings.interval_s
        sides = self._sides(begin_s)
        awards = self._awards(sides)
        cleared, bids, fixed_w = self._cleared(sides, awards)
        path = self._path(begin_s)
        names, price = list(sides), round(cleared.price_per_kwh, 6)
        dispatches = tuple(
            Dispatch(
                child, sides[child].offered.id, begin_s, length_s, round(power_w, 3), price, path,
                awards.up_w.get(child, 0.0), awards.down_w.get(child, 0.0),
            )
            for child, power_w in zip(names, cleared.powers_w, strict=False)
        )  # fmt: skip
        net_w = sum(one.net_power_w for one in dispatches) + sum(fixed_w.values())
        made = Round(
            begin_s,
            cleared.price_per_kwh,
            dispatches,
            fixed_w,
            net_w,
            net_w - self.supply.net_w if isinstance(self.supply, Quantity) else 0.0,
            tuple(child for child, bid in zip(names, bids, strict=True) if self._held_back(child, bid, sides, cleared)),
            awards,
            shortfalls,
            {child: self._tolerance_w(child, sides, awards) for child in names},
        )
        self.running, self.open_s = made, begin_s + length_s
        return made

    def skip_missed(self, now_s: float) -> int:
        """Pass over intervals that have begun without having been cleared; how many."""
        missed = 0
        while now_s >= self.open_s:
            self.open_s += self.settings.interval_s
            self.running, missed = None, missed + 1
        return missed

    def bids(self, begin_s: float) -> dict[str, Bid]:
        """What each child that offers for an interval could be dispatched to there, no reserve taken off."""
        sides = self._sides(begin_s)
        return {child: self._bid(child, side, 0.0, 0.0) for child, side in sides.items()}

    def energies_wh(self, begin_s: float) -> tuple[float, float]:
        """What the children could give and take from their storage."""
        intervals = [side.interval for side in self._sides(begin_s).values()]
        return sum(one.energy_up_wh for one in intervals), sum(one.energy_down_wh for one in intervals)

    def fixed_w(self, begin_s: float) -> dict[str, float]:
        """Children without an offer for an interval, at the power they last told; 0 where they told none."""
        now_s = begin_s - self.settings.gate_s
        sides = self._sides(begin_s)
        silent = [child for child in self.settings.children if child not in sides]
        return {child: self.delivery.latest_w(child, now_s) or 0.0 for child in silent}

    def _judge(self) -> tuple[Shortfall, ...]:
        running = self.running
        asked_w = {} if running is None else {one.child: one.net_power_w for one in running.dispatches}
        tolerances_w = {} if running is None else dict(running.tolerances_w)
        begin_s = self.open_s - self.settings.interval_s
        return tuple(self.delivery.judge(begin_s, self.gate_closes_s, self.open_s, asked_w, tolerances_w))

    def _sides(self, begin_s: float) -> dict[str, _Side]:
        found = {}
        end_s = begin_s + self.settings.interval_s
        for child in self.settings.children:
            # A child that another parent has taken is nobody's to dispatch, whatever it offered before.
            if child not in self.book.authority_s:
                continue
            known = self.book.over(child, begin_s, end_s, self.gate_closes_s)
            if known is None:
                continue
            offered, interval = known
            seen_lower_w, seen_upper_w = self.delivery.bounds_w(child)
            lower_w = min(max(interval.lower_w, seen_lower_w), interval.upper_w)
            upper_w = max(min(interval.upper_w, seen_upper_w), lower_w)
            found[child] = _Side(offered, interval, lower_w, upper_w)
        return found

    def _awards(self, sides: Mapping[str, _Side]) -> Awards:
        capacities = {}
        for child, side in sides.items():
            bid = self._bid(child, side, 0.0, 0.0)
            one = side.interval
            room_w = bid.upper_w - bid.lower_w
            price = one.regulation_price_per_kwh
            capacities[child] = Capacity(one.regulation_up_w, one.regulation_down_w, price, room_w)
        return award(capacities, self.settings.regulation_up_w, self.settings.regulation_down_w)

    def _bid(self, child: str, side: _Side, up_w: float, down_w: float) -> Bid:
        """Reserve is kept between the dispatch and the bounds; the network's limit is never given up for an offer."""
        interface: Interface = self.settings.children[child]
        least_w, most_w = -interface.export_limit_w, interface.import_limit_w
        lower_w = min(max(side.lower_w, least_w), most_w) + up_w
        upper_w = min(max(side.upper_w, least_w), most_w) - down_w
        return Bid(side.interval.points, lower_w, max(lower_w, upper_w))

    def _cleared(self, sides: Mapping[str, _Side], awards: Awards) -> tuple[Cleared, list[Bid], dict[str, float]]:
        bids = [
            self._bid(child, side, awards.up_w.get(child, 0.0), awards.down_w.get(child, 0.0))
            for child, side in sides.items()
        ]
        now_s = self.gate_closes_s
        silent = [child for child in self.settings.children if child not in sides]
        fixed_w = {child: self.delivery.latest_w(child, now_s) or 0.0 for child in silent}
        return self._against_supply(bids, sum(fixed_w.values())), bids, fixed_w

    def _against_supply(self, bids: list[Bid], fixed_w: float) -> Cleared:
        if isinstance(self.supply, SupplyCurve):
            return clear([*bids, self.supply.as_bid()], -fixed_w)
        return clear(bids, self.supply.net_w - fixed_w)

    def _path(self, begin_s: float) -> tuple[float, ...]:
        path: list[float] = []
        for at in range(1, self.settings.path_intervals + 1):
            sides = self._sides(begin_s + at * self.settings.interval_s)
            if not sides:
                break
            cleared, _, _ = self._cleared(sides, self._awards(sides))
            path.append(round(cleared.price_per_kwh, 6))
        return tuple(path)

    def _held_back(self, child: str, bid: Bid, sides: Mapping[str, _Side], cleared: Cleared) -> bool:
        """Whether the network's limit, and not the child's own, is where it was cleared to."""
        power_w = cleared.powers_w[list(sides).index(child)]
        free = Bid(bid.points, sides[child].lower_w, sides[child].upper_w)
        wanted = free.above(cleared.price_per_kwh), free.below(cleared.price_per_kwh)
        short_w = max(wanted[0] - power_w, power_w - wanted[1])
        interface = self.settings.children[child]
        near_w = min(abs(power_w - interface.import_limit_w), abs(power_w + interface.export_limit_w))
        return short_w > AT_LIMIT_W and near_w <= AT_LIMIT_W

    def _tolerance_w(self, child: str, sides: Mapping[str, _Side], awards: Awards) -> float:
        """Regulation moves a child away from its dispatch, so its capacity is tolerated as well."""
        interval = sides[child].interval
        own_w = self.settings.tolerance_pu * (interval.upper_w - interval.lower_w)
        reserve_w = max(awards.up_w.get(child, 0.0), awards.down_w.get(child, 0.0))
        return max(own_w, self.settings.tolerance_w) + reserve_w
