"""Control's side of the planner: the state that goes to it, the plan in force, and what is thought of what it sends.

Never waits and never raises into control: a plan that is late, stale, malformed or of an old request is refused and
counted, and while none is in force the default curves hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from config.planning import Planning, StorageSettings
from config.site import Site
from config.vocabulary import CHARGING_STATE, SESSION_ENERGY_WH, SOC, Clock, DeviceKind, Quality, UtcClock
from gateway.control.clearing import Curve
from gateway.control.decision import Decision
from gateway.control.model import DeviceModel, SiteModel
from gateway.control.orders_in_force import OrdersInForce, PlanInForce
from gateway.control.resources import SLOW_POINT_STALE_S, Resource, ceiling_headroom_w
from gateway.image import Image
from gateway.orders.held import HeldOrder
from gateway.planning.measured import StepMeans
from gateway.planning.messages import (
    BatteryState,
    CarState,
    ConnectionState,
    MeasuredStep,
    PlanMessage,
    RefusedMessageError,
    StateMessage,
    checked_curves,
    decode,
)
from gateway.planning.orders import order_states
from gateway.price.interchange_cost import terms_of

SAMPLED_S: Final = 1.0
ANSWER_SLACK_S: Final = 5.0
"""A plan may come this much after the solver's time limit: it was built, written and read besides."""

PRICE_KEPT_S: Final = 1.0
_WITH_A_CAR: Final = ("B", "C", "D")
_DEFAULT_STORAGE: Final = StorageSettings()

Record = Callable[..., None]
"""The journal's `record`."""


@dataclass(slots=True)
class _InForce:
    """A plan that was taken, with its expiry in monotonic seconds."""

    message: PlanMessage
    curves: tuple[tuple[str, Curve], ...]
    taken_s: float
    expires_s: float


@dataclass(slots=True)
class PlanDesk:
    """`held` gives the orders in force and announced, `plugged_in` since when each car is there (monotonic)."""

    site: Site
    planning: Planning
    model: SiteModel
    clock: Clock
    utc: UtcClock
    record: Record
    held: Callable[[], tuple[HeldOrder, ...]]
    plugged_in: Callable[[], Mapping[str, float]]
    refused: int = 0
    refusal: str = ""
    taken: int = 0
    failed: int = 0
    _means: StepMeans = field(init=False)
    _plan: _InForce | None = None
    _last: PlanMessage | None = None
    _request: tuple[int, float] | None = None
    _requests: int = 0
    _bounds_w: dict[str, tuple[float, float]] = field(default_factory=dict)
    _decision: Decision | None = None
    _image: Image | None = None
    _orders: OrdersInForce | None = None
    _sampled_s: float = float("-inf")
    _prices: tuple[float, PlanInForce] | None = None

    def __post_init__(self) -> None:
        self._means = StepMeans(self.planning.step_s)

    # Control's cycle

    def direct(self, orders: OrdersInForce) -> OrdersInForce:
        """The orders of this cycle with the tariff, and the curves of a plan that has not expired."""
        return replace(orders, plan=self._in_force())

    def _in_force(self) -> PlanInForce:
        """The same object for a second: prices change by the minute."""
        now_s = self.clock()
        if self._plan is not None and now_s >= self._plan.expires_s:
            self.record("plan", state="expired", id=self._plan.message.id)
            self._plan = self._prices = None
        if self._prices is None or not 0.0 <= now_s - self._prices[0] < PRICE_KEPT_S:
            known = self._prices[1] if self._prices is not None else None
            made = self._made(self.utc())
            self._prices = now_s, known if known == made else made
        return self._prices[1]

    def _made(self, utc_s: float) -> PlanInForce:
        prices, cost = self.planning.prices_at(utc_s), terms_of(self.planning.interchange.cost)
        if self._plan is None:
            return PlanInForce("tariff", *prices, cost=cost)
        source = f"plan {self._plan.message.id}"
        return PlanInForce(source, *prices, self._plan.curves, cost)

    def observe(self, decision: Decision, image: Image, orders: OrdersInForce) -> None:
        """One cycle, of which one a second is looked at."""
        self._decision, self._image, self._orders = decision, image, orders
        now_s = self.clock()
        if now_s - self._sampled_s >= SAMPLED_S:
            self._sampled_s = now_s
            self._means.add(self.utc(), self._rest_w(), self._sun_pu())

    def _rest_w(self) -> float | None:
        """What nobody controls: net power less that of all that can be controlled, lost or not, as far as known."""
        decision = self._decision
        if decision is None or decision.net_w is None:
            return None
        ours = (one.power_w for one in decision.resources if one.model.controllable and one.model.seen_by_meter)
        return decision.net_w - sum(power_w or 0.0 for power_w in ours)

    def _sun_pu(self) -> float | None:
        """What the inverters give by unit of rating, from those that nobody holds back; None where all are."""
        if self._decision is None:
            return None
        asked = {one.device: one.power_w for one in self._decision.setpoints}
        free = [
            one
            for one in self._inverters()
            if one.power_w is not None and not _held_back(one, asked.get(one.model.name))
        ]
        rating_w = sum(one.model.rating_w for one in free)
        return sum(max(-(one.power_w or 0.0), 0.0) for one in free) / rating_w if rating_w else None

    def _least_sun_pu(self) -> float | None:
        """What the inverters give, held back or not; None where nothing is known of any."""
        known = [one for one in self._inverters() if one.power_w is not None]
        rating_w = sum(one.model.rating_w for one in known)
        return sum(max(-(one.power_w or 0.0), 0.0) for one in known) / rating_w if rating_w else None

    def _inverters(self) -> list[Resource]:
        known = self._decision.resources if self._decision is not None else ()
        return [one for one in known if one.model.kind is DeviceKind.INVERTER and one.model.controllable]

    # To the planner

    def request(self, since_utc_s: float) -> StateMessage | None:
        """The present state as a new request, with the history since a time; None before anything was decided."""
        if self._decision is None or self._image is None or self._orders is None:
            return None
        now_s, utc_s = self.clock(), self.utc()
        limits, dispatches = order_states(self.held(), now_s, utc_s)
        batteries, cars = self._batteries(), self._cars(now_s, utc_s)
        self._requests += 1
        self._request = self._requests, now_s
        self._bounds_w = {one.name: (-one.discharge_w, one.charge_w) for one in batteries}
        self._bounds_w |= {one.name: (0.0, one.max_w) for one in cars}
        return StateMessage(
            id=self._requests,
            utc_s=utc_s,
            planning=self.planning,
            connection=self._connection(self._orders),
            rest_w=self._rest_w(),
            sun_pu=self._least_sun_pu() if (sun_pu := self._sun_pu()) is None else sun_pu,
            sun_rating_w=sum(one.model.rating_w for one in self._inverters()),
            unplanned_w=self._unplanned_w({one.name for one in cars}),
            batteries=batteries,
            cars=cars,
            limits=limits,
            dispatches=dispatches,
            measured=tuple(
                MeasuredStep(begin_utc_s=one.begin_utc_s, rest_w=one.rest_w, sun_pu=one.sun_pu)
                for one in self._means.since(since_utc_s)
            ),
        )

    def _connection(self, orders: OrdersInForce) -> ConnectionState:
        model = self.model
        return ConnectionState(
            max_import_w=model.max_import_w,
            max_export_w=model.max_export_w,
            fallback_import_w=model.fallback_import_w,
            fallback_export_w=model.fallback_export_w,
            fallback_holds=bool(orders.fallback_reason),
            watts_per_a=model.phases * model.nominal_voltage_v,
            rest_min_w=model.rest_min_w,
            rest_max_w=model.rest_max_w,
        )

    def _plannable(self, kind: DeviceKind) -> list[Resource]:
        """Usable devices of a kind for which the site file names no curve."""
        assert self._decision is not None
        return [
            one
            for one in self._decision.resources
            if one.usable and one.model.kind is kind and self.site.devices[one.model.name].curve is None
        ]

    def _number(self, device: DeviceModel, point: str) -> float | None:
        assert self._image is not None
        known = self._image.devices.get(device.name)
        return None if known is None else known.number(point, self._image.now_s, SLOW_POINT_STALE_S)

    def _batteries(self) -> tuple[BatteryState, ...]:
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

    def _cars(self, now_s: float, utc_s: float) -> tuple[CarState, ...]:
        found, since = [], self.plugged_in()
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
        assert self._image is not None
        known = self._image.devices.get(model.name)
        if known is None:
            return False
        value, quality, _ = known.sample(CHARGING_STATE)
        return quality is not Quality.BAD and value in _WITH_A_CAR

    def _unplanned_w(self, planned: set[str]) -> float:
        """What goes on beside the plan: the power of controllable loads of which nobody knows what they need."""
        assert self._decision is not None
        loads = (one for one in self._decision.resources if one.model.kind in (DeviceKind.CHARGER, DeviceKind.RELAY))
        return sum(
            max(one.power_w or 0.0, 0.0) for one in loads if one.model.controllable and one.model.name not in planned
        )

    # From the planner

    def take(self, line: bytes) -> None:
        """A line from the planner; refused and counted unless it answers the newest request in time and in full."""
        try:
            plan = decode(line, PlanMessage)
            self._check_asked(plan)
            curves = checked_curves(plan, self._bounds_w)
        except RefusedMessageError as error:
            self.refuse(str(error))
            return
        self._request, self._last = None, plan
        if plan.status == "failed":
            self.failed += 1
            self.record("plan", state="failed", id=plan.id, reason=plan.reason)
            return
        now_s = self.clock()
        self.taken += 1
        self._plan = _InForce(plan, curves, now_s, now_s + min(plan.valid_s, self.planning.curves_valid_s))
        self._prices = None
        self.record(
            "plan", state="taken", id=plan.id, status=plan.status, cost=plan.cost, given_up=plan.given_up,
            solve_s=plan.solve_s, curves=len(curves), repairs=plan.repairs,
        )  # fmt: skip

    def _check_asked(self, plan: PlanMessage) -> None:
        if self._request is None or plan.id != self._request[0]:
            raise RefusedMessageError(f"plan {plan.id} answers no open request; the newest is {self._requests}")
        late_s = self.clock() - self._request[1] - self.planning.time_limit_s - ANSWER_SLACK_S
        if late_s > 0.0:
            self._request = None
            raise RefusedMessageError(f"plan {plan.id} is {late_s:.1f} s late")

    def refuse(self, reason: str) -> None:
        """Count what was not taken."""
        self.refused += 1
        self.refusal = reason
        self.record("plan", state="refused", reason=reason)

    def drop_request(self) -> None:
        """Nobody will answer it any more."""
        self._request = None

    @property
    def waits_s(self) -> float | None:
        """How long the open request has been waiting; None without one."""
        return None if self._request is None else self.clock() - self._request[1]

    # For whoever looks

    def snapshot(self) -> dict[str, Any]:
        """In short."""
        now_s, plan, last = self.clock(), self._plan, self._last
        return {
            "state": self._state(),
            "id": None if plan is None else plan.message.id,
            "age_s": None if plan is None else now_s - plan.taken_s,
            "expires_in_s": None if plan is None else plan.expires_s - now_s,
            "reason": last.reason if last is not None and last.status == "failed" else self.refusal,
            "status": None if plan is None else plan.message.status,
            "cost": None if plan is None else plan.message.cost,
            "solve_s": None if plan is None else plan.message.solve_s,
            "given_up": {} if plan is None else dict(plan.message.given_up),
            "scores": {} if last is None else {name: one.model_dump() for name, one in last.scores.items()},
            "taken": self.taken,
            "refused": self.refused,
            "failed": self.failed,
        }

    def _state(self) -> str:
        if self._plan is not None:
            return "in force"
        return "waiting" if self.taken == 0 and self._last is None else "default curves"

    def shown(self) -> dict[str, Any]:
        """In full: the snapshot and the newest plan that was taken, or failed; raises ValueError before the first."""
        if self._last is None:
            raise ValueError(f"there is no plan yet{': ' + self.refusal if self.refusal else ''}")
        newest = self._plan.message if self._plan is not None else self._last
        return {"planner": self.snapshot(), "plan": newest.model_dump(mode="json")}


def _held_back(one: Resource, asked_w: float | None) -> bool:
    """Whether an inverter runs at a ceiling below its rating, so that there may be more sun than it shows."""
    if asked_w is None or one.power_w is None or asked_w <= one.model.min_w + 1.0:
        return False
    return abs(one.power_w) >= abs(asked_w) - ceiling_headroom_w(one.model)
