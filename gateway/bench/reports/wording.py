"""How figures and orders read in the report."""

from __future__ import annotations

from typing import Final

from config.messages import AuthorityOrder, DispatchOrder, LimitOrder, RegulationSignal
from config.vocabulary import Quantity
from gateway.bench.dso_orders import DsoOrder

NOT_MEASURED: Final = "–"

QUANTITY_NAMES: Final = {
    Quantity.NET_IMPORT_W: "import",
    Quantity.NET_EXPORT_W: "export",
    Quantity.GENERATION_W: "generation",
    Quantity.LOAD_W: "load",
    Quantity.CONTROLLABLE_LOAD_W: "controllable load",
    Quantity.CURRENT_PER_PHASE_A: "current per phase",
}


def figure(value: float | None, unit: str = "", digits: int = 2) -> str:
    """A number with its unit; a dash where it was not measured. Trailing zeros stay, so that columns line up."""
    if value is None:
        return NOT_MEASURED
    text = f"{value:,.{digits}f}".replace(",", " ").replace("-", "−")
    return f"{text} {unit}".rstrip()


def power(power_w: float) -> str:
    """Power in W, kW or MW, with no more digits than it has."""
    for size, unit in ((1e6, "MW"), (1e3, "kW")):
        if abs(power_w) >= size:
            return f"{power_w / size:.4g} {unit}".replace("-", "−")
    return f"{power_w:.4g} W".replace("-", "−")


def duration(seconds: float) -> str:
    """A length of time as people say it: 0.3 s, 61 s, 12 min 5 s, 3 h 20 min."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest_s} s" if rest_s else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def asked(order: DsoOrder) -> str:
    """What an order asks, in a few words; empty for one whose message breaks the schema."""
    match order.message:
        case LimitOrder(quantity=quantity, value=value):
            return f"{QUANTITY_NAMES[quantity]} {_limit(quantity, value)}"
        case DispatchOrder(net_power_w=net_w, regulation_up_w=up_w, regulation_down_w=down_w):
            reserve = f", reserve {power(up_w)} up, {power(down_w)} down" if up_w or down_w else ""
            return f"net {power(net_w)}{reserve}"
        case RegulationSignal(signal=signal):
            return f"signal {signal:+.2f}".replace("-", "−")
        case AuthorityOrder(parent=parent, epoch=epoch):
            return f"{parent} dispatches, epoch {epoch}"
    return ""


def briefly(order: DsoOrder) -> str:
    """What an order asks, where its kind and quantity are said beside it."""
    match order.message:
        case LimitOrder(quantity=quantity, value=value):
            return _limit(quantity, value)
        case DispatchOrder(net_power_w=net_w):
            return power(net_w)
    return asked(order)


def _limit(quantity: Quantity, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"≤ {value:.4g} A" if quantity is Quantity.CURRENT_PER_PHASE_A else f"≤ {power(value)}"
