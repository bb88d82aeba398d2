"""A building as a layer: it answers a path of prices, makes offers, and takes what it is dispatched.

Its parent has its offers and nothing else of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np

from gateway.control.clearing import Bid, make_curve
from gateway.planning.model import BatteryPlan, ThermalPlan, VehiclePlan
from gateway.study.accounts import stored_after_wh
from gateway.study.central import State
from gateway.study.fleet import Building
from gateway.study.site_program import SitePlan, SiteProgram

STEADYING_PER_KWH: Final = 0.2
"""How far the price has to move that a building, asked again, moves by the whole width of its connection."""

UNSTEADIED_PER_KWH: Final = 1e-3
"""As little as makes the answer one; for a building that was told no path there is nothing to be held near."""


class BuildingLayer:
    """One building over its day. `path_per_kwh` is what it believes of the prices from the present interval on."""

    def __init__(
        self, building: Building, state: State, hours: float, path_per_kwh: Sequence[float], steadying_per_kwh: float
    ) -> None:
        self.building = building
        self.path_per_kwh = np.asarray(path_per_kwh, dtype=float)
        self.solved = 0
        self._hours = hours
        self._per_kwh_w = steadying_per_kwh / (building.import_limit_w + building.export_limit_w)
        self._step = state.step
        self._stored_wh = {
            device.name: state.stored_wh[device.name] for device in building.devices if device.name in state.stored_wh
        }
        self._held_w: Any = np.asarray(building.load_w[state.step :])
        self._program: SiteProgram | None = None
        self._offered: list[SitePlan] = []

    # The path ahead

    def answer(self) -> list[Bid]:
        """A line in each interval: what is planned against the path, and how it would move with the price."""
        plan = self._solve(self.path_per_kwh)
        lower_w, upper_w = -self.building.export_limit_w, self.building.import_limit_w
        bids = []
        for price, power in zip(self.path_per_kwh.tolist(), plan.net_w.tolist(), strict=True):
            ends = [(price + self._per_kwh_w * (power - end), end) for end in (upper_w, lower_w)]
            bids.append(Bid(make_curve(ends), lower_w, upper_w))
        return bids

    def hear(self, path_per_kwh: Sequence[float], shown: Sequence[Bid]) -> float:
        """Take a new path; what the lines gave at its prices is what the next plan is held near. How far it moved."""
        path = np.asarray(path_per_kwh, dtype=float)
        moved = float(np.max(np.abs(path - self.path_per_kwh)))
        self._held_w = np.asarray(
            [
                min(max(bid.curve.limits_at(price)[0], bid.lower_w), bid.upper_w)
                for price, bid in zip(path.tolist(), shown, strict=True)
            ]
        )
        self.path_per_kwh = path
        return moved

    # The present interval

    def offer(self, prices: Sequence[float]) -> Bid:
        """The net power of the present interval at each price, by solving the rest of the day for each."""
        self._offered = []
        for price in prices:
            path = self.path_per_kwh.copy()
            path[0] = price
            self._offered.append(self._solve(path))
        # What the solver leaves of a rise is its tolerance.
        powers = list(accumulate((float(plan.net_w[0]) for plan in self._offered), min))
        return Bid(make_curve(list(zip(prices, powers, strict=True))), powers[-1], powers[0])

    def take(self, power_w: float) -> dict[str, float]:
        """Do the present interval at a net power inside what was offered; each device's power, watts.

        It lies between two of the plans that made the offer, and so does what will be done after it.
        """
        plan = self._between(power_w)
        powers_w = {name: float(power[0]) for name, power in plan.powers_w.items()}
        for device in self.building.devices:
            power = powers_w[device.name]
            if isinstance(device, BatteryPlan | ThermalPlan):
                held = self._stored_wh[device.name]
                self._stored_wh[device.name] = stored_after_wh(device, held, power, self._step, self._hours)
            elif isinstance(device, VehiclePlan):
                self._stored_wh[device.name] -= power * self._hours
        self._held_w = plan.net_w[1:]
        self.path_per_kwh = self.path_per_kwh[1:]
        self._step += 1
        self._program = None
        return powers_w

    def energy_wh(self) -> tuple[float, float]:
        """What its batteries could give and take now."""
        up = down = 0.0
        for one in self.building.batteries:
            held = self._stored_wh[one.name]
            up += max(held - one.soc_min * one.capacity_wh, 0.0)
            down += max(one.soc_max * one.capacity_wh - held, 0.0)
        return up, down

    def _between(self, power_w: float) -> SitePlan:
        powers = list(accumulate((float(plan.net_w[0]) for plan in self._offered), min))
        after = next((at for at, power in enumerate(powers) if power <= power_w), len(powers) - 1)
        if after == 0:
            return self._offered[0]
        high_w, low_w = powers[after - 1], powers[after]
        share = (high_w - power_w) / (high_w - low_w) if high_w > low_w else 0.0
        return self._offered[after - 1].towards(self._offered[after], min(max(share, 0.0), 1.0))

    def _solve(self, path_per_kwh: Any) -> SitePlan:
        if self._program is None:
            state = State(self._step, self._stored_wh)
            self._program = SiteProgram(self.building, state, self._hours, self._per_kwh_w)
        self.solved += 1
        return self._program.plan(path_per_kwh, self._held_w)
