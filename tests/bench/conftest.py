"""A small simulated site with its own gateway and DSO, which leaves the files that a bench run leaves.

Nothing of it comes from the code under test: its physics, its control and its journal are written here, simply, from
the description of the files.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.site import Site

DEMO_SITE = Path(__file__).parents[2] / "config" / "sites" / "demo.yaml"
KINDS = {"pv": "inverter", "battery_a": "battery", "battery_b": "battery", "charger_1": "charger"}
KINDS |= {"charger_2": "charger", "charger_3": "charger"}
RATINGS = {"pv": 60e3, "battery_a": 50e3, "battery_b": 30e3, "charger_1": 22e3, "charger_2": 22e3, "charger_3": 22e3}
CAPACITY_WH = {"battery_a": 100e3, "battery_b": 60e3}
PLUG_IN_S = {"charger_1": 0.0, "charger_2": 6.0, "charger_3": 3.0}
LINKS = ("modbus 15020", "modbus 15021", "modbus 15022", "opcua 15023", "modbus 15024", "modbus 15025", "mqtt 15026")
RATING_W = 100e3
ZERO_S = 5000.0
UTC_ZERO = datetime(2026, 6, 8, 9, 0, tzinfo=UTC)
TAU_S = 0.2 / math.log(10)


def utc(at_s: float) -> str:
    """The wall clock of the simulated host at a monotonic time."""
    return (UTC_ZERO + timedelta(seconds=at_s - ZERO_S)).isoformat()


@dataclass
class Simulation:
    """One run. `control_delay_s` makes the gateway slow, `killed` ends it without a summary and tears both files."""

    duration_s: float = 60.0
    seed: int = 1
    physics_step_s: float = 0.01
    traced: bool = True
    killed: bool = False
    control_delay_s: float = 0.0
    now_s: float = ZERO_S
    gateway: list[dict[str, Any]] = field(default_factory=list)
    dso: list[dict[str, Any]] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    power: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    setpoint: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    soc: dict[str, float] = field(default_factory=lambda: {"battery_a": 0.55, "battery_b": 0.45})
    limits: dict[str, tuple[str, float | None]] = field(default_factory=dict)
    dispatch: dict[str, Any] | None = None
    signal: float = 0.0
    heartbeat_s: float | None = None
    cycles: int = 0
    last_envelope: tuple[Any, ...] = ()
    cycle_ms: list[float] = field(default_factory=list)
    jitter_ms: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.load_steps = [(self.random.uniform(0, self.duration_s), self.random.uniform(-4e3, 5e3)) for _ in range(7)]
        self.clouds = [self.random.uniform(0, self.duration_s) for _ in range(max(int(self.duration_s / 20), 1))]

    def journal(self, event: str, at_s: float | None = None, **data: Any) -> None:
        at_s = self.now_s if at_s is None else at_s
        self.gateway.append({"event": event, "monotonic_s": round(at_s, 6), "utc": utc(at_s), **data})

    def log(self, event: str, **data: Any) -> None:
        self.dso.append({"event": event, "monotonic_s": round(self.now_s, 6), **data})

    def send(self, kind: str, **message: Any) -> None:
        """The DSO sends; the gateway has it 3 ms later and has written what follows from it 9 ms after that."""
        message = {"issued_at": utc(self.now_s), **message}
        self.log("sent", kind=kind, id=message.get("id"), message=message)
        received_s = self.now_s + 0.003
        refusal = ""
        if kind == "limits" and not isinstance(message.get("value"), float | str):
            refusal = "value: expected a number, unlimited or unknown"
        name = message.get("id") or f"signal-{message.get('epoch')}-{message.get('sequence')}"
        status = {"status": "rejected", "reason": refusal} if refusal else {"status": "accepted", "reason": ""}
        self.journal("order", received_s, id=name, kind=kind, source="dso", message=message, **status)
        if refusal:
            return
        if kind == "limits":
            value = message["value"]
            self.limits[message["quantity"]] = (name, None if isinstance(value, str) else value)
        elif kind == "dispatch":
            self.dispatch = message
        elif kind == "regulation":
            self.signal = message["signal"]
        self.journal("written", received_s, id=name, received_s=received_s, written_s=received_s + 0.009)

    def beat(self, sequence: int) -> None:
        self.log("sent", kind="heartbeat", id=None, message={"sequence": sequence, "issued_at": utc(self.now_s)})
        if self.heartbeat_s is None or self.now_s - self.heartbeat_s > 3:
            self.journal("mode", state="normal", reason="heartbeat from dso")
        self.heartbeat_s = self.now_s

    def script(self) -> list[tuple[float, Callable[[], None]]]:
        """What the DSO does when, for a run of 60 s; other durations scale it."""
        send = self.send

        def phase(name: str) -> Callable[[], None]:
            return lambda: self.log("phase", name=name)

        def limit(name: str, quantity: str, value: Any, **more: Any) -> Callable[[], None]:
            return lambda: send("limits", id=name, quantity=quantity, value=value, **more)

        def dispatch(name: str, power: float, **more: Any) -> Callable[[], None]:
            return lambda: send("dispatch", id=name, epoch=1, net_power_w=power, **more)

        def signal(sequence: int) -> Callable[[], None]:
            value = round(math.sin(sequence * 0.9) * 0.9, 2)
            return lambda: send("regulation", epoch=1, sequence=sequence, signal=value)

        def note_lost() -> None:
            self.journal("mode", state="fallback", reason="heartbeat of dso lost for 3.0 s")

        def charger_gone() -> None:
            self.journal("link", name=LINKS[6], state="lost", reason="connection reset by peer")
            self.journal("device", name="charger_3", present=False, reason="link lost")

        def charger_back() -> None:
            self.journal("link", name=LINKS[6], state="up", reason="reconnected")
            self.journal("device", name="charger_3", present=True, reason="")

        steps: list[tuple[float, Callable[[], None]]] = [
            (2.0, phase("free")),
            (6.0, phase("export limit")),
            (6.2, limit("lim-exp-1", "net_export_w", 2000.0)),
            (14.0, phase("import limit")),
            (14.1, limit("lim-imp-1", "net_import_w", 12000.0, duration_s=8.0, on_end="unlimited")),
            (15.5, limit("lim-bad-1", "net_import_w", None)),
            (20.0, limit("lim-exp-2", "net_export_w", "unlimited")),
            (23.0, phase("dispatch")),
            (23.1, dispatch("dis-1", -12000.0, regulation_up_w=8000.0, regulation_down_w=8000.0)),
            (31.0, phase("regulation")),
            *((32.0 + 2 * index, signal(index)) for index in range(6)),
            (44.0, phase("silence")),
            (46.9, note_lost),
            (47.5, charger_gone),
            (51.0, charger_back),
            (53.0, phase("recovery")),
            (53.2, dispatch("dis-2", 6000.0)),
        ]
        scale = self.duration_s / 60.0
        timed = [(at_s * scale, action) for at_s, action in steps]
        silence = (43.9 * scale, 53.0 * scale)
        beats = [index + 1.0 for index in range(int(self.duration_s) - 1)]
        timed += [
            (at_s, lambda at_s=at_s: self.beat(int(at_s))) for at_s in beats if not silence[0] < at_s < silence[1]
        ]
        return sorted(timed, key=lambda step: step[0])

    def load_w(self, at_s: float) -> float:
        base = 17e3 + 3e3 * math.sin(at_s / 9.0)
        return base + sum(size for start, size in self.load_steps if start <= at_s < start + 6)

    def sun_w(self, at_s: float) -> float:
        shade = 0.0
        for start in self.clouds:
            ramp = min((at_s - start) / 3.0, (start + 9.0 - at_s) / 3.0, 1.0)
            shade = max(shade, 0.5 * ramp)
        return 41e3 * (1.0 - shade)

    def bounds(self) -> tuple[float, str, float, str]:
        lower, upper = (-RATING_W, "connection export limit"), (RATING_W, "connection import limit")
        candidates = []
        if self.heartbeat_s is None or self.now_s - self.heartbeat_s > 3:
            candidates += [("net_export_w", ("fallback", 5000.0)), ("net_import_w", ("fallback", 25000.0))]
        for quantity, (name, value) in (*self.limits.items(), *candidates):
            if value is None or (name == "lim-imp-1" and self.now_s > ZERO_S + 22.1 * self.duration_s / 60):
                continue
            if quantity == "net_export_w" and -value > lower[0]:
                lower = (-value, name)
            if quantity == "net_import_w" and value < upper[0]:
                upper = (value, name)
        return *lower, *upper

    def control(self) -> None:
        at_s = self.now_s - ZERO_S
        rest = self.load_w(at_s - 0.03)
        lower, lower_source, upper, upper_source = self.bounds()
        cars = [name for name, plugged in PLUG_IN_S.items() if at_s >= plugged]
        wish = dict.fromkeys(KINDS, 0.0) | dict.fromkeys(cars, 16e3)
        wish["pv"] = -self.sun_w(at_s)
        net = rest + sum(wish.values())
        target = min(max(net, lower + 200.0), upper - 200.0)
        source = None
        if self.dispatch is not None:
            asked = self.dispatch["net_power_w"]
            source = self.dispatch["id"]
            if self.signal:
                asked -= self.signal * self.dispatch.get("regulation_up_w", 0.0)
                source += " regulation"
            target = min(max(asked, lower + 200.0), upper - 200.0)
        missing = target - net
        for name in ("battery_a", "battery_b"):
            share = max(min(missing, RATINGS[name]), -RATINGS[name])
            wish[name] += share
            missing -= share
        if missing > 0:
            wish["pv"] += min(missing, -wish["pv"])
        for name in cars:
            cut = max(missing, -wish[name]) if missing < 0 else 0.0
            wish[name] += cut
            missing -= cut
        self.setpoint = wish
        envelope = (lower, lower_source, upper, upper_source, target if source else None, source)
        if envelope != self.last_envelope:
            keys = ("lower_w", "lower_source", "upper_w", "upper_source", "target_w", "target_source")
            self.journal("envelope", **dict(zip(keys, envelope, strict=True)))
            self.last_envelope = envelope
        self.cycles += 1
        jitter, took = abs(self.random.gauss(0.25, 0.2)), self.random.gauss(7.5, 0.8)
        self.jitter_ms.append(jitter)
        self.cycle_ms.append(took)
        if self.traced:
            causes = dict.fromkeys(KINDS, source or upper_source)
            rounded = {name: round(value, 1) for name, value in wish.items()}
            net_w = round(rest + sum(self.power.values()), 1)
            figures = {"net_w": net_w, "cycle_ms": round(took, 3), "start_jitter_ms": round(jitter, 3)}
            self.journal("cycle", **figures, setpoints=rounded, causes=causes)

    def physics(self, applied: dict[str, float]) -> None:
        at_s, step = self.now_s - ZERO_S, self.physics_step_s
        share = 1.0 - math.exp(-step / TAU_S)
        for name in KINDS:
            asked = max(applied[name], -self.sun_w(at_s)) if name == "pv" else applied[name]
            self.power[name] += (asked - self.power[name]) * share
        for name in self.soc:
            self.soc[name] += self.power[name] * step / 3600.0 / CAPACITY_WH[name]
        load = self.load_w(at_s)
        net = load + sum(self.power.values())
        volts = 230.0 - net / 3 / 230.0 * 0.04
        cells = [f"{self.now_s:.4f}", f"{net:.1f}", f"{load:.1f}", f"{volts:.2f}"]
        cells += [f"{self.power[name]:.1f}" for name in KINDS] + [f"{self.soc[name]:.6f}" for name in self.soc]
        self.rows.append(",".join(cells))

    def run(self, folder: Path) -> Path:
        devices = {name: {"kind": kind, "rating_w": RATINGS[name]} for name, kind in KINDS.items()}
        devices["grid_meter"] = {"kind": "meter", "rating_w": RATING_W}
        self.journal("start", pid=4711, site="demo", period_ms=100, rating_w=RATING_W, devices=devices)
        for link in LINKS:
            self.journal("link", name=link, state="connecting", reason="")
            self.journal("link", self.now_s + self.random.uniform(0.05, 0.4), name=link, state="up", reason="")
        script = self.script()
        waiting: list[tuple[float, dict[str, float]]] = []
        applied = dict(self.setpoint)
        ticks_a_cycle = round(0.1 / self.physics_step_s)
        for tick in range(int(self.duration_s / self.physics_step_s)):
            self.now_s = ZERO_S + tick * self.physics_step_s
            while script and script[0][0] <= self.now_s - ZERO_S:
                script.pop(0)[1]()
            if tick % ticks_a_cycle == 0 and self.now_s >= ZERO_S + 0.8:
                if not self.cycles:
                    self.journal("ready", first_setpoint_s=0.8)
                self.control()
                waiting.append((self.now_s + self.control_delay_s, self.setpoint))
            while waiting and waiting[0][0] <= self.now_s:
                applied = waiting.pop(0)[1]
            self.physics(applied)
        if not self.killed:
            self.finish()
        self.write(folder)
        return folder

    def finish(self) -> None:
        def spread(values: list[float]) -> dict[str, float]:
            ordered = sorted(values)
            return {"p50": ordered[len(ordered) // 2], "p99": ordered[int(len(ordered) * 0.99)], "max": ordered[-1]}

        links = {name: {"good": 20 * self.cycles // 3, "lost": 0, "reconnects": 0} for name in LINKS}
        links[LINKS[6]] |= {"lost": 1, "reconnects": 1}
        process = {"rss_mb": 118.4, "cpu_pct": 21.5, "first_setpoint_s": 0.8}
        figures = {"cycles": self.cycles, "missed_cycles": 0, "refused_orders": 1, "links": links, "process": process}
        self.journal("summary", **figures, cycle_ms=spread(self.cycle_ms), jitter_ms=spread(self.jitter_ms))
        for kind in ("offer", "telemetry", "acknowledgement", "heartbeat"):
            self.log("check", name=f"{kind} messages", passed=True, detail="every message matched its schema")

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        devices = ",".join(f"{name}_w" for name in KINDS) + "," + ",".join(f"{name}_soc" for name in self.soc)
        tail = "" if self.killed else "\n"
        rows = [f"monotonic_s,net_w,load_w,voltage_v,{devices}", *self.rows]
        (folder / "physics.csv").write_text("\n".join(rows) + tail)
        for name, events in (("gateway.jsonl", self.gateway), ("dso.jsonl", self.dso)):
            lines = [json.dumps(event) for event in sorted(events, key=lambda event: event["monotonic_s"])]
            (folder / name).write_text("\n".join(lines)[: -20 if self.killed else None] + tail)
        (folder / "jitter.json").write_text(json.dumps({"p50": 0.11, "p99": 0.62, "max": 1.04}))


@pytest.fixture
def demo_site() -> Site:
    """The demo site file, as its schema reads it."""
    return Site.model_validate(yaml.safe_load(DEMO_SITE.read_text(encoding="utf-8")))


@pytest.fixture
def simulate(tmp_path: Path) -> Callable[..., Path]:
    """Runs a simulation with the given settings and returns its run directory."""

    def run(**settings: Any) -> Path:
        return Simulation(**settings).run(tmp_path / "run")

    return run
