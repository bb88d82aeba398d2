"""Control's side of the planner on a small plant: what it says, what it takes, and when it takes it back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from config.planning import Planning
from config.vocabulary import DeviceKind
from gateway.bench.live import render
from gateway.cli.sites import loaded
from gateway.control.model import build_site_model
from gateway.control.orders_in_force import OrdersInForce
from gateway.planning.desk import ANSWER_SLACK_S, PlanDesk
from gateway.planning.messages import StateMessage, encode
from tests.control.plant import Plant
from tests.planning.states import NOON_S, plan

FREE = OrdersInForce()


@dataclass
class Bench:
    """The demo's devices on a plant, with a desk that looks on; time is the plant's."""

    planning: Planning = field(default_factory=lambda: Planning(replan_s=10.0, curves_valid_s=100.0))
    events: list[dict[str, Any]] = field(default_factory=list)
    curve: bool = False

    def __post_init__(self) -> None:
        _, site, profiles = loaded("demo")
        if self.curve:
            device = site.devices["battery_a"]
            points = [{"price_per_kwh": 0.2, "power_pu": 0.0}]
            changed = device.model_validate(device.model_dump() | {"curve": points})
            site = site.model_copy(update={"devices": site.devices | {"battery_a": changed}})
        model = replace(build_site_model(site, profiles), meter="meter")
        self.plant = Plant(model, rest_w=8e3, available_w={"pv": 30e3})
        self.held: tuple[Any, ...] = ()
        self.desk = PlanDesk(
            site, self.planning, model, lambda: self.plant.now_s, lambda: NOON_S + self.plant.now_s, self._record,
            lambda: self.held, lambda: self.plant.state.memory.plugged_in_s if self.plant.state is not None else {},
        )  # fmt: skip

    def _record(self, event: str, **fields: Any) -> None:
        assert event == "plan"
        self.events.append(fields)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / self.plant.period_s)):
            orders = self.desk.direct(FREE)
            image = self.plant.image()
            decision = self.plant.cycle(orders)
            self.desk.observe(decision, image, orders)

    def request(self) -> StateMessage:
        made = self.desk.request(float("-inf"))
        assert made is not None
        return made

    def answer(self, **changes: Any) -> None:
        self.desk.take(encode(plan(**changes)))

    @property
    def curves(self) -> set[str]:
        in_force = self.desk.direct(FREE).plan
        assert in_force is not None
        return {name for name, _ in in_force.curves}


def test_before_anything_is_decided_there_is_nothing_to_say() -> None:
    bench = Bench()
    assert bench.desk.request(0.0) is None
    assert bench.desk.snapshot()["state"] == "waiting"
    with pytest.raises(ValueError, match="no plan yet"):
        bench.desk.shown()
    in_force = bench.desk.direct(FREE).plan
    assert in_force is not None
    assert (in_force.source, in_force.curves) == ("tariff", ())


def test_the_state_has_what_can_be_planned_and_what_goes_on_beside_it() -> None:
    bench = Bench()
    bench.run(12.0)
    state = bench.request()
    assert [(one.name, one.soc, one.capacity_wh) for one in state.batteries] == [
        ("battery_a", 0.5, 100e3),
        ("battery_b", 0.5, 60e3),
    ]
    assert {one.name for one in state.cars} == {"charger_1", "charger_2", "charger_3"}
    car = next(one for one in state.cars if one.name == "charger_2")
    assert 19e3 < car.needed_wh < 20e3
    assert car.leaves_utc_s - state.utc_s == pytest.approx(14_400.0 - 12.0, abs=1.0)
    assert state.rest_w == pytest.approx(8e3, abs=200.0)
    assert state.sun_rating_w == 60e3
    assert state.sun_pu == pytest.approx(0.5, abs=0.03)


def test_a_device_with_a_curve_of_its_own_is_left_out() -> None:
    bench = Bench(curve=True)
    bench.run(1.0)
    assert [one.name for one in bench.request().batteries] == ["battery_b"]
    bench.answer(id=1)
    assert "nobody has asked for" in bench.desk.refusal


def test_a_plan_in_force_replaces_curves_until_it_expires() -> None:
    bench = Bench()
    bench.run(1.0)
    bench.answer(id=bench.request().id, valid_s=1e6)
    assert bench.curves == {"battery_a"}
    bench.run(1.0)
    decision = bench.plant.decision
    assert decision is not None
    assert any(one.cause.startswith("plan 1") for one in decision.setpoints)
    assert bench.desk.snapshot()["state"] == "in force"
    bench.plant.now_s += bench.planning.curves_valid_s
    assert bench.curves == set()
    assert bench.desk.snapshot()["state"] == "default curves"
    assert [one["state"] for one in bench.events] == ["taken", "expired"]
    assert bench.desk.shown()["plan"]["id"] == 1


REFUSED: dict[str, tuple[dict[str, Any], float, str]] = {
    "an old request's": ({"id": 1}, 0.0, "answers no open request"),
    "of a request that was never made": ({"id": 99}, 0.0, "answers no open request"),
    "late": ({"id": 2}, 10.0 + ANSWER_SLACK_S + 1.0, "1.0 s late"),
    "rising": (
        {"id": 2, "curves": [{"device": "battery_a", "prices_per_kwh": [0.1, 0.2], "powers_w": [0.0, 1.0]}]},
        0.0,
        "must not rise",
    ),
}


@pytest.mark.parametrize(("changes", "after_s", "words"), REFUSED.values(), ids=REFUSED)
def test_a_plan_that_is_not_to_be_believed_is_refused_and_counted(
    changes: dict[str, Any], after_s: float, words: str
) -> None:
    bench = Bench()
    bench.run(1.0)
    bench.request()
    bench.request()
    bench.plant.now_s += after_s
    bench.answer(**changes)
    assert words in bench.desk.refusal
    assert (bench.desk.refused, bench.desk.taken, bench.curves) == (1, 0, set())


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b'{"type": "plan"', b"\xff\xfe\n", b'{"type":"state","id":1}\n'])
def test_garbage_changes_nothing(line: bytes) -> None:
    bench = Bench()
    bench.run(1.0)
    bench.answer(id=bench.request().id)
    bench.request()
    bench.desk.take(line)
    assert bench.desk.refused == 1
    assert bench.curves == {"battery_a"}, "the plan in force stays"


def test_a_plan_that_failed_leaves_the_last_one_in_force() -> None:
    bench = Bench()
    bench.run(1.0)
    bench.answer(id=bench.request().id)
    bench.answer(id=bench.request().id, status="failed", reason="no usable point", curves=[])
    snapshot = bench.desk.snapshot()
    assert (snapshot["state"], snapshot["failed"], snapshot["reason"]) == ("in force", 1, "no usable point")
    assert bench.curves == {"battery_a"}


def test_a_plan_is_answered_once() -> None:
    bench = Bench()
    bench.run(1.0)
    number = bench.request().id
    bench.answer(id=number)
    bench.answer(id=number)
    assert (bench.desk.taken, bench.desk.refused) == (1, 1)
    assert bench.desk.waits_s is None


def test_sun_that_is_held_back_is_not_measured() -> None:
    bench = Bench()
    bench.run(3.0)
    asked = next(one for one in bench.plant.model.devices if one.kind is DeviceKind.INVERTER)
    assert bench.request().sun_pu is not None
    decision = bench.plant.decision
    assert decision is not None
    held = tuple(one._replace(power_w=-20e3) if one.device == asked.name else one for one in decision.setpoints)
    bench.plant.powers_w[asked.name] = -20e3
    bench.plant.advance(0.02)
    image = bench.plant.image()
    resources = tuple(
        one._replace(power_w=-20e3) if one.model.name == asked.name else one for one in decision.resources
    )
    bench.desk.observe(replace(decision, setpoints=held, resources=resources), image, FREE)
    assert bench.desk._sun_pu() is None, "it goes into no history"
    assert bench.request().sun_pu == pytest.approx(1 / 3), "but so much there is at least"


def test_history_is_told_from_where_it_was_told_before() -> None:
    bench = Bench()
    bench.plant.period_s = 5.0
    bench.run(1900.0)
    steps = bench.request().measured
    assert len(steps) == 2
    assert steps[1].rest_w == pytest.approx(8e3, abs=500.0)
    again = bench.desk.request(steps[0].begin_utc_s)
    assert again is not None
    assert again.measured == steps[1:]


def test_the_live_view_has_a_line_of_it() -> None:
    bench = Bench()
    bench.run(1.0)
    bench.answer(id=bench.request().id, given_up={"cars' energy": 2.0})
    screen = Console(width=100, height=40, record=True, file=StringIO())
    screen.print(render({"planner": bench.desk.snapshot(), "connection": {"lambda_per_kwh": 0.25}}))
    assert "plan 1, 0 s old   local price 0.250   given up: cars' energy" in screen.export_text()
