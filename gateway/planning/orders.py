"""The orders that a plan has to know of: in force, and announced."""

from __future__ import annotations

from collections.abc import Iterable

from config.messages import DispatchOrder, LimitOrder
from gateway.orders.held import HeldOrder
from gateway.planning.messages import DispatchState, LimitState


def order_states(
    held: Iterable[HeldOrder], now_s: float, utc_s: float
) -> tuple[tuple[LimitState, ...], tuple[DispatchState, ...]]:
    """Limits and dispatches with their times in UTC."""
    limits, dispatches = [], []
    for one in held:
        from_s = utc_s + one.starts_s - now_s
        until_s = None if one.ends_s is None else utc_s + one.ends_s - now_s
        order = one.message
        if isinstance(order, LimitOrder):
            limits.append(
                LimitState(
                    quantity=order.quantity,
                    value=order.value,
                    from_utc_s=from_s,
                    until_utc_s=until_s,
                    then_fallback=order.on_end == "fallback",
                )
            )
        elif isinstance(order, DispatchOrder):
            dispatches.append(
                DispatchState(
                    net_power_w=order.net_power_w,
                    regulation_up_w=order.regulation_up_w,
                    regulation_down_w=order.regulation_down_w,
                    from_utc_s=from_s,
                    until_utc_s=until_s,
                    lambda_per_kwh=order.lambda_per_kwh,
                    path_per_kwh=order.lambda_path_per_kwh,
                    until_replaced=until_s is None and order.offer_id is not None,
                )
            )
    return tuple(limits), tuple(dispatches)
