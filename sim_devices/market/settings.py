"""What a market twin is told of its network and its rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sim_devices.market.clearing import Bid, Points


@dataclass(frozen=True, slots=True)
class Interface:
    """The network's limits at one child's connection, magnitudes in watts."""

    import_limit_w: float
    export_limit_w: float


@dataclass(frozen=True, slots=True)
class SupplyCurve:
    """What the outside gives at each price, watts: prices ascend and supply does not fall; below 0 it takes."""

    points: Points

    def as_bid(self) -> Bid:
        """The supply as whoever takes less the higher the price."""
        points = tuple((price, -supply_w) for price, supply_w in self.points)
        return Bid(points, points[-1][1], points[0][1])


@dataclass(frozen=True, slots=True)
class Quantity:
    """Net power that the market itself was dispatched to, watts in load convention."""

    net_w: float


Supply: TypeAlias = SupplyCurve | Quantity


def constant_price(price_per_kwh: float, import_limit_w: float, export_limit_w: float) -> SupplyCurve:
    """As much as the market's own interface carries, all at one price."""
    return SupplyCurve(((price_per_kwh, -export_limit_w), (price_per_kwh, import_limit_w)))


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """One market. Its own name stands as the source in topics.

    The gate of an interval closes `gate_s` before it begins. Regulation is bought for each interval, magnitudes in
    watts. What a child delivers beside its dispatch by more than `tolerance_pu` of what it offered, or `tolerance_w`,
    is a shortfall.
    """

    source: str
    children: dict[str, Interface]
    interval_s: float = 300.0
    gate_s: float = 60.0
    epoch: int = 1
    regulation_up_w: float = 0.0
    regulation_down_w: float = 0.0
    tolerance_pu: float = 0.05
    tolerance_w: float = 100.0
    path_intervals: int = 12

    def __post_init__(self) -> None:
        if not 0.0 < self.gate_s <= self.interval_s / 2.0:
            # An interval is judged when the next one's gate closes, so that has to leave something to judge.
            raise ValueError(
                f"gate {self.gate_s:g} s: above 0 and at most half of an interval of {self.interval_s:g} s"
            )
