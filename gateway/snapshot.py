"""What the live view and local commands are shown of a running gateway: one plain JSON object."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.vocabulary import CHARGING_STATE, COMPLIANCE, FREQUENCY_HZ, POWER_W, SOC, VOLTAGE_V, Clock, DeviceKind
from gateway.compliance.frame import Ruling
from gateway.control.resources import SLOW_POINT_STALE_S
from gateway.orders.book import utc_text
from gateway.orders.held import HeldOrder
from gateway.orders.overrides import HeldOverride
from gateway.regulation_record import RegulationFigures

if TYPE_CHECKING:
    from gateway.runtime import Runtime

RECENT_CYCLES = 600


class ProcessUse:
    """Memory and processor time of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cpu_s = time.process_time()
        self._since_s = clock()
        self.process_started_s = self._since_s - _age_s()
        self.pid = os.getpid()

    def cpu_pct(self) -> float | None:
        """Processor time since start, percent of one core."""
        elapsed_s = self._clock() - self._since_s
        return round(100.0 * (time.process_time() - self._cpu_s) / elapsed_s, 1) if elapsed_s > 0.0 else None

    @staticmethod
    def rss_mb() -> float | None:
        """Resident memory; None where the system does not tell."""
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return None
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


class SharedProcess(ProcessUse):
    """A process that runs more than the gateway: nothing is known of the gateway's part."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.process_started_s = clock()
        self.pid = 0

    def cpu_pct(self) -> float | None:
        """Not known."""
        return None

    @staticmethod
    def rss_mb() -> float | None:
        """Not known."""
        return None


def _age_s() -> float:
    """How long this process has existed, imports included; 0 where the system does not tell."""
    try:
        started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(uptime_s - started_ticks / os.sysconf("SC_CLK_TCK"), 0.0)


def snapshot(runtime: Runtime) -> dict[str, Any]:
    """The present state; values that are not known are None."""
    now_s, report, image = runtime.clock(), runtime.report, runtime.cycle.image
    model = runtime.model
    result: dict[str, Any] = {
        "site": model.name,
        "title": runtime.options.site.title,
        "monotonic_s": now_s,
        "utc": utc_text(runtime.utc()),
        "observe": runtime.options.observe,
        "mode": {"state": None, "reason": None},
        "connection": {"rating_w": model.rating_w},
        "orders": [
            *(_order(held, now_s) for held in runtime.book.held()),
            *(_override(held, now_s) for held in runtime.book.overrides()),
        ],
        "compliance": [_ruling(ruling) for ruling in runtime.book.compliance.rulings],
        "devices": [],
        "links": _links(runtime),
        "cycle": {
            "count": runtime.cycle.count,
            "missed": runtime.cycle.missed,
            "cycle_ms_p50": runtime.cycle.cycle_ms.recent(RECENT_CYCLES)["p50"],
            "cycle_ms_p99": runtime.cycle.cycle_ms.recent(RECENT_CYCLES)["p99"],
            "jitter_ms_p99": runtime.cycle.jitter_ms.recent(RECENT_CYCLES)["p99"],
            "period_ms": runtime.cycle.period_s * 1e3,
        },
        "process": {"rss_mb": runtime.use.rss_mb(), "cpu_pct": runtime.use.cpu_pct()},
        "refused_orders": runtime.book.refused,
        "planner": None if runtime.planner is None else runtime.planner.snapshot(),
        "read_backs": [found.text() for found in runtime.read_backs.differences],
        "tier_bypass": list(runtime.bypass.found.values()),
        "regulation": runtime.regulation.shown(),
    }
    if report is None or image is None:
        return result
    decision, reason = report.decision, report.orders.fallback_reason
    envelope, meter = decision.envelope, image.devices.get(model.meter)
    sample = meter.sample(POWER_W) if meter is not None else None
    result["mode"] = {"state": "fallback" if reason else "normal", "reason": reason}
    result["connection"] |= {
        "net_w": decision.net_w,
        "quality": sample.quality.name.lower() if sample is not None else "bad",
        "age_s": now_s - sample.measured_s if sample is not None else None,
        "voltage_v": meter.number(VOLTAGE_V, now_s, SLOW_POINT_STALE_S) if meter is not None else None,
        "frequency_hz": meter.number(FREQUENCY_HZ, now_s, SLOW_POINT_STALE_S) if meter is not None else None,
        "lower_w": envelope.lower.value_w,
        "lower_source": envelope.lower.source,
        "upper_w": envelope.upper.value_w,
        "upper_source": envelope.upper.source,
        "target_w": envelope.target.value_w if envelope.target is not None else None,
        "target_source": envelope.target.source if envelope.target is not None else None,
        "meter": decision.meter,
        "binding": decision.binding,
        "unmet": list(decision.unmet),
        "lambda_per_kwh": decision.lambda_per_kwh,
    }
    if report.orders.regulation is not None:
        regulation = report.orders.regulation
        result["orders"].append(
            {
                "id": f"regulation {regulation.sequence}",
                "kind": "regulation",
                "source": regulation.source,
                "text": _regulation(regulation.signal, runtime.regulation.figures()),
                "remaining_s": regulation.lost_after_s - (now_s - regulation.received_s),
            }
        )
    asked = {item.device: item for item in decision.setpoints}
    for resource in decision.resources:
        name, device = resource.model.name, image.devices.get(resource.model.name)
        setpoint = asked.get(name)
        shown = COMPLIANCE if resource.model.kind is DeviceKind.LAYER else CHARGING_STATE
        state = device.sample(shown).value if device is not None else None
        result["devices"].append(
            {
                "name": name,
                "kind": resource.model.kind.value,
                "power_w": resource.power_w,
                "setpoint_w": setpoint.power_w if setpoint else None,
                "lower_w": resource.lower.value_w,
                "upper_w": resource.upper.value_w,
                "cause": setpoint.cause if setpoint else resource.lower.source,
                "state": state,
                "soc": device.number(SOC, now_s, SLOW_POINT_STALE_S) if device is not None else None,
                "quality": resource.quality.name.lower(),
                "age_s": now_s - resource.measured_s if resource.measured_s else None,
                "rating_w": resource.model.rating_w,
                "writable": resource.model.controllable,
            }
        )
    return result


def _regulation(signal: float, figures: RegulationFigures) -> str:
    """The signal, and how well it is followed as far as that is known."""
    text = f"signal {signal:+.3f}"
    if figures.precision is not None:
        text += f", precision {figures.precision:.3f}"
    return text if figures.score is None else f"{text}, score {figures.score:.3f}"


def _order(held: HeldOrder, now_s: float) -> dict[str, Any]:
    return {
        "id": held.message.id,
        "kind": held.kind.value,
        "source": held.source,
        "text": describe(held),
        "starts_in_s": max(held.starts_s - now_s, 0.0),
        "remaining_s": None if held.ends_s is None else max(held.ends_s - now_s, 0.0),
    }


def _ruling(ruling: Ruling) -> dict[str, Any]:
    return {
        "function": ruling.function,
        "state": ruling.state,
        "failsafe": ruling.failsafe,
        "bounds": [bound._asdict() for bound in ruling.bounds],
        "facts": dict(ruling.facts),
    }


def _override(held: HeldOverride, now_s: float) -> dict[str, Any]:
    order = held.in_force
    bounds = f"at {order.lower_w:+.0f} W" if order.holds else f"in {order.lower_w:+.0f} to {order.upper_w:+.0f} W"
    return {
        "id": order.order_id,
        "kind": "override",
        "source": order.source,
        "text": f"{order.device} {bounds}",
        "starts_in_s": 0.0,
        "remaining_s": None if held.ends_s is None else max(held.ends_s - now_s, 0.0),
    }


def describe(held: HeldOrder) -> str:
    """An order in words."""
    content = held.message.model_dump()
    if "quantity" in content:
        value, quantity = content["value"], str(content["quantity"])
        return f"{quantity} <= {value:g}" if isinstance(value, float) else f"{quantity} {value}"
    if "net_power_w" in content:
        return f"net power {content['net_power_w']:+.0f} W"
    return held.kind.value


def _links(runtime: Runtime) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = [
        {
            "name": driver.name,
            "state": driver.stats.state.value,
            "good": driver.stats.good,
            "timeouts": driver.stats.timeouts,
            "reconnects": driver.stats.reconnects,
            "refused": driver.stats.refused,
            "paused": driver.stats.paused,
            "reason": driver.stats.reason,
            "devices": list(driver.devices),
        }
        for driver in runtime.drivers
    ]
    links += [
        {
            "name": f"parent {name}",
            "state": "up" if parent.connected else "lost",
            "good": None,
            "timeouts": None,
            "reconnects": parent.reconnects,
            "reason": parent.reason,
            "devices": [],
        }
        for name, parent in runtime.parents.items()
    ]
    return links
