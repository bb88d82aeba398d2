"""Control's side of the planner: the state that goes to it, the plan in force, and what is thought of what it sends.

Never waits and never raises into control: a plan that is late, stale, malformed or of an old request is refused and
counted, and while none is in force the default curves hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from config.messages import DispatchOrder
from config.planning import Planning
from config.site import Site
from config.strict import Strict
from config.vocabulary import Clock, DeviceKind, UtcClock
from gateway.control.clearing import Curve
from gateway.control.decision import Decision
from gateway.control.interchange import InterchangeCost
from gateway.control.model import SiteModel
from gateway.control.orders_in_force import OrdersInForce, PlanInForce
from gateway.control.resources import Resource, ceiling_headroom_w
from gateway.image import Image
from gateway.orders.held import HeldOrder
from gateway.parent.intervals import POWER_GRID_PU
from gateway.planning.children import DeliveryRecord, Offered, child_states
from gateway.planning.measured import StepMeans
from gateway.planning.messages import (
    ConnectionState,
    MeasuredStep,
    OfferMessage,
    OutlookMessage,
    PlanMessage,
    RefusedMessageError,
    StateMessage,
    checked_curves,
    decode,
    kind_of,
)
from gateway.planning.offer_desk import OfferDesk
from gateway.planning.orders import order_states
from gateway.planning.path import PathAhead, PathHeard
from gateway.planning.plannable import Plannable
from gateway.price.interchange_cost import terms_of

SAMPLED_S: Final = 1.0
ANSWER_SLACK_S: Final = 5.0
"""A plan may come this much after the solver's time limit: it was built, written and read besides."""

PRICE_KEPT_S: Final = 1.0
Announce = Callable[[Mapping[float, float], int], None]


def _nobody_below(_: Mapping[float, float], __: int) -> None:
    """Without layers below nobody has to know the prices ahead."""


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
    """`held` gives the orders in force and announced, `plugged_in` since when each car is there (monotonic).

    `offered` are the offers of the layers below that hold now; `announce` tells them the prices ahead.
    """

    site: Site
    planning: Planning
    model: SiteModel
    clock: Clock
    utc: UtcClock
    record: Record
    held: Callable[[], tuple[HeldOrder, ...]]
    plugged_in: Callable[[], Mapping[str, float]]
    offered: Offered = dict
    announce: Announce = _nobody_below
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
    _answering: tuple[str, PlanInForce, PlanInForce] | None = None
    offers: OfferDesk = field(init=False)
    delivery: DeliveryRecord = field(default_factory=DeliveryRecord)
    path: PathAhead = field(init=False)
    _heard: PathHeard = field(init=False)
    _looked_at: str = ""
    _offer_id: str | None = None
    _discounted: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._means = StepMeans(self.planning.step_s)
        self.path = PathAhead(self.planning.path, float(self.planning.step_s))
        self._heard = PathHeard(float(self.planning.step_s))
        model = self.model
        bounds_w = {one.name: (one.min_w, one.max_w) for one in model.devices if one.controllable}
        limits_w = -model.max_export_w, model.max_import_w
        self.offers = OfferDesk(
            self.utc, POWER_GRID_PU * model.rating_w, bounds_w, limits_w, self.planning.offer.gate_s
        )

    # Control's cycle

    def direct(self, orders: OrdersInForce) -> OrdersInForce:
        """The orders of this cycle with the tariff, and the curves of a plan that has not expired."""
        return replace(orders, plan=self._answered(orders, self._in_force()))

    def _answered(self, orders: OrdersInForce, plan: PlanInForce) -> PlanInForce:
        """With the curves that made the offer which the dispatch in force answers, while its interval lasts."""
        if orders.dispatch is None:
            self._looked_at, self._offer_id = "", None
            self._heard.forget()
            return plan
        if orders.dispatch.order_id != self._looked_at:
            self._look_at(orders.dispatch.order_id)
        offer_id = self._offer_id
        curves = self.offers.curves_of(offer_id) if offer_id else None
        if offer_id is None or curves is None:
            return plan
        known = self._answering
        if known is None or known[0] != offer_id or known[1] is not plan or known[2].curves is not curves:
            self._answering = known = offer_id, plan, plan._replace(source=f"offer {offer_id}", curves=curves)
        return known[2]

    def _look_at(self, order_id: str) -> None:
        """A dispatch that has come into force: which offer it answers, and the path that it announces."""
        self._looked_at, self._offer_id = order_id, None
        for one in self.held():
            if one.message.id == order_id and isinstance(one.message, DispatchOrder):
                self._offer_id = one.message.offer_id
                self._heard.hear(one.message.lambda_path_per_kwh, self.utc())

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

    def interchange_cost(self) -> InterchangeCost:
        """What stands between the parent's price and the local one, now; its own spread besides the tariff's form."""
        prices = self.planning.prices_at(self.utc())
        return terms_of(self.planning.interchange.cost, (prices.import_per_kwh - prices.export_per_kwh) / 2.0)

    def observe(self, decision: Decision, image: Image, orders: OrdersInForce) -> None:
        """One cycle, of which one a second is looked at."""
        self._decision, self._image, self._orders = decision, image, orders
        now_s = self.clock()
        if now_s - self._sampled_s >= SAMPLED_S:
            self._sampled_s = now_s
            self._means.add(self.utc(), self._rest_w(), self._sun_pu())
            self.delivery.observe(now_s, decision.resources, {one.device: one.power_w for one in decision.setpoints})
            self._tell_discounted()

    def _tell_discounted(self) -> None:
        """Journal which layers below are counted on in part, whenever others are."""
        found = self.delivery.discounted()
        if found.keys() != self._discounted.keys():
            self.record("plan", state="discounted", delivered_pu=found)
        self._discounted = found

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
        now_s, utc_s, step_s = self.clock(), self.utc(), float(self.planning.step_s)
        limits, dispatches = order_states(self.held(), now_s, utc_s)
        seen = Plannable(self.site, self.planning, self._decision, self._image)
        batteries, cars = seen.batteries(), seen.cars(self.plugged_in(), now_s, utc_s)
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
            unplanned_w=seen.unplanned_w({one.name for one in cars}),
            batteries=batteries,
            cars=cars,
            children=child_states(
                self._decision.resources, self.offered(), self.delivery, utc_s, step_s, self.planning.steps
            ),
            limits=limits,
            dispatches=tuple(self._heard.fill(one) for one in dispatches),
            offers=bool(self.site.parents),
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
            rating_w=model.rating_w,
        )

    # From the planner

    def take(self, line: bytes) -> None:
        """A line from the planner; refused and counted unless it answers the newest request in time and in full."""
        try:
            if (kind := kind_of(line)) is not PlanMessage:
                self._take_offer(decode(line, kind))
                return
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
        if self.path.take(plan.begin_utc_s, plan.series.lambda_per_kwh, self.utc()):
            self.announce(self.path.prices, self.path.version)
        self.record(
            "plan", state="taken", id=plan.id, status=plan.status, cost=plan.cost, given_up=plan.given_up,
            solve_s=plan.solve_s, curves=len(curves), repairs=plan.repairs,
        )  # fmt: skip

    def _take_offer(self, message: Strict) -> None:
        if isinstance(message, OfferMessage):
            self.offers.take(message)
        elif isinstance(message, OutlookMessage):
            self.offers.take_outlook(message)

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
            "offers": self.offers.snapshot(),
            "discounted": self._discounted,
            "path": self.path.snapshot(),
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
