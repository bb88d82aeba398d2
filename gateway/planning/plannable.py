"""Which devices can be planned with now, and what the planner has to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from config.planning import Planning, StorageSettings
from config.site import Site
from config.vocabulary import CHARGING_STATE, SESSION_ENERGY_WH, SOC, DeviceKind, Quality
from gateway.control.decision import Decision
from gateway.control.model import DeviceModel
from gateway.control.resources import SLOW_POINT_STALE_S, Resource
from gateway.image import Image
from gateway.planning.messages import BatteryState, CarState

_WITH_A_CAR: Final = ("B", "C", "D")
_DEFAULT_STORAGE: Final = StorageSettings()


@dataclass(frozen=True, slots=True)
class Plannable:
    """One cycle's decision and image, read for the planner."""

    site: Site
    planning: Planning
    decision: Decision
    image: Image

    def _plannable(self, kind: DeviceKind) -> list[Resource]:
        """Usable devices of a kind for which the site file names no curve."""
        return [
            one
            for one in self.decision.resources
            if one.usable and one.model.kind is kind and self.site.devices[one.model.name].curve is None
        ]

    def _number(self, device: DeviceModel, point: str) -> float | None:
        known = self.image.devices.get(device.name)
        return None if known is None else known.number(point, self.image.now_s, SLOW_POINT_STALE_S)

    def batteries(self) -> tuple[BatteryState, ...]:
        """Batteries of which the state of charge is known."""
        found = []
        for one in self._plannable(DeviceKind.BATTERY):
            model, soc = one.model, self._number(one.model, SOC)
            if model.capacity_wh is None or soc is None or not 0.0 <= soc <= 1.0:
                continue
            state = BatteryState(
                name=model.name,
                capacity_wh=model.capacity_wh,
                soc=soc,
                soc_min=model.soc_min,
                soc_max=model.soc_max,
                charge_w=max(model.max_w, 0.0),
                discharge_w=max(-model.min_w, 0.0),
                settings=self.planning.storages.get(model.name, _DEFAULT_STORAGE),
            )
            found.append(state)
        return tuple(found)

    def cars(self, since: Mapping[str, float], now_s: float, utc_s: float) -> tuple[CarState, ...]:
        """`since` is when each car has come, monotonic."""
        found = []
        for one in self._plannable(DeviceKind.CHARGER):
            model = one.model
            if model.needed_wh is None or model.stay_s is None or model.name not in since or not self._has_car(model):
                continue
            charged_wh = self._number(model, SESSION_ENERGY_WH) or 0.0
            left_s = since[model.name] + model.stay_s - now_s
            needed_wh = max(model.needed_wh - charged_wh, 0.0)
            if left_s > 0.0 and needed_wh > 0.0:
                car = CarState(name=model.name, max_w=model.max_w, needed_wh=needed_wh, leaves_utc_s=utc_s + left_s)
                found.append(car)
        return tuple(found)

    def _has_car(self, model: DeviceModel) -> bool:
        known = self.image.devices.get(model.name)
        if known is None:
            return False
        value, quality, _ = known.sample(CHARGING_STATE)
        return quality is not Quality.BAD and value in _WITH_A_CAR

    def unplanned_w(self, planned: set[str]) -> float:
        """What goes on beside the plan: the power of controllable loads of which nobody knows what they need."""
        loads = (one for one in self.decision.resources if one.model.kind in (DeviceKind.CHARGER, DeviceKind.RELAY))
        return sum(
            max(one.power_w or 0.0, 0.0) for one in loads if one.model.controllable and one.model.name not in planned
        )
