"""The answers to `why` and `evidence`, for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from gateway.cli.commission_tables import console


def print_why(answer: Mapping[str, Any]) -> None:
    """The walk of the control functions, the connection point in words, and a line for each device."""
    walk = Table("function", "at least", "by", "at most", "by", "target", "by", box=None, title="Net power, kW")
    for step in answer["functions"]:
        style = None if step["changed"] else "dim"
        walk.add_row(
            step["function"], kw(step["lower_w"]), _said(step["lower_source"]), kw(step["upper_w"]),
            _said(step["upper_source"]), kw(step["target_w"]), _said(step["target_source"]), style=style,
        )  # fmt: skip
    console().print(walk)
    sys.stdout.write(f"\n{connection_text(answer)}\n\n")
    devices = Table("device", "kW", "setpoint", "at least", "by", "at most", "by", "because", box=None)
    for device in answer["devices"]:
        devices.add_row(
            escape(device["name"]), kw(device["power_w"]), kw(device["setpoint_w"]), kw(device["lower_w"]),
            _said(device["lower_source"]), kw(device["upper_w"]), _said(device["upper_source"]),
            _said(device["cause"]),
        )  # fmt: skip
    console().print(devices)


def connection_text(answer: Mapping[str, Any]) -> str:
    """What is measured, what of it is not ours, and what decided."""
    point = answer["connection"]
    rest = kw(point["rest_lower_w"])
    if point["rest_lower_w"] != point["rest_upper_w"]:
        rest += f" to {kw(point['rest_upper_w'])}"
    price = point["lambda_per_kwh"]
    parts = [f"net {kw(point['net_w'])} kW, of it {rest} kW not controlled"]
    if price is not None:
        parts.append(f"cleared at {price:.4f} per kWh")
    parts.append(f"bound by {point['binding']}" if point["binding"] else "nothing binds: the price decides")
    parts += [f"cannot be kept: {text}" for text in point["unmet"]]
    return "\n".join(parts)


def kw(value_w: float | None) -> str:
    """Kilowatts, or a dash."""
    return "-" if value_w is None else f"{value_w / 1e3:+.2f}"


def _said(text: str | None) -> str:
    return escape(text or "")


def print_evidence(orders: Sequence[Mapping[str, Any]], begin: str, to: str) -> None:
    """A line for each limit order."""
    title = f"Limit orders, {begin} to {to}"
    columns = ("order", "from", "asks", "received", "answered", "status", "ended", "kept", "worst")
    table = Table(*columns, box=None, title=title)
    for order in orders:
        asked = order["order"]
        kept = {True: "[green]yes[/]", False: "[red]no[/]", None: "-"}[order["kept"]]
        if order["kept"] is False:
            kept += f" ({order['outside_s']:.0f} s)"
        value = asked.get("value")
        table.add_row(
            escape(order["id"]), escape(order["source"]),
            escape(f"{asked.get('quantity', '?')} {value:g}" if isinstance(value, int | float) else f"{value}"),
            order["received_utc"][:23], order["acknowledged_utc"][11:23],
            escape(" ".join(filter(None, (order["status"], order["reason"])))), (order["ended_utc"] or "-")[:19], kept,
            "-" if order["worst_excess_w"] is None else f"{kw(order['worst_excess_w'])} kW",
        )  # fmt: skip
    console().print(table)
    if not orders:
        sys.stdout.write("none\n")
