"""The bench of the decision alone, and of how `clear` grows."""

from __future__ import annotations

import math
import random

from gateway.bench.machine.control_bench import SyntheticField, synthetic_site
from gateway.control.decision import decide, initial_state
from gateway.control.orders_in_force import DispatchInForce, OrdersInForce
from tests.bench.bench_command import THREE, run


async def test_the_decision_alone_and_the_scaling_of_clear() -> None:
    told = (await run("control", "--devices", "6", "--json")).figures()
    assert told["devices"] == 6
    assert set(told["decision_ms"]) == THREE
    assert set(told["clear_10000_ms"]) == {"p50", "p99"}
    assert [row["resources"] for row in told["scaling"]] == [10, 30, 100, 300, 1_000, 3_000, 10_000]
    for row in told["scaling"]:
        assert 0.0 < row["least_ms"] <= row["clear_ms"]
        n_log_n = row["resources"] * math.log2(row["resources"])
        assert math.isclose(row["ns_per_n_log2_n"], row["least_ms"] * 1e6 / n_log_n, rel_tol=0.05)


def test_the_synthetic_devices_follow_what_is_decided_for_them() -> None:
    rng = random.Random(1)
    model = synthetic_site(12, rng)
    field, state = SyntheticField(model, rng), initial_state(model)
    orders = OrdersInForce(dispatch=DispatchInForce("bench", "1", 0.1 * model.rating_w, 0.0, None, 0.0, 0.0, None))
    for _ in range(100):
        decision = decide(model, field.image(), orders, state)
        field.follow(decision)
    assert decision.net_w is not None
    assert math.isclose(decision.net_w, 0.1 * model.rating_w, abs_tol=0.01 * model.rating_w)
    assert len(decision.setpoints) == 12, "every device of the bench takes part"
