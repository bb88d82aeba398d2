"""The physics that makes a site of its twins: one bus, one grid impedance, one meter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias

from config.site import DeviceSite, Site
from config.vocabulary import DeviceKind
from sim_devices.disturbances import CloudShadow, SteppingLoad
from sim_devices.grid_model import Breaker, GridModel, Voltage, voltage_behind_grid
from sim_devices.heat_pump import HeatPumpModel
from sim_devices.models import (
    BatteryModel,
    ByPhase,
    ChargerModel,
    DeviceModel,
    InverterModel,
    MeterModel,
    Terminals,
)
from sim_devices.series import Series, load_series

if TYPE_CHECKING:
    from sim_devices.network_model import NetworkModel, Powers

__all__ = ["PowerDevice", "RealDevice", "SitePhysics", "voltage_behind_grid"]

REAL_POWER_LIFE_S: Final = 1.0
"""A real device's power older than this makes the sum at the bus unknown."""

HOURS_OF_STORAGE: Final = 2.0
"""A battery whose site file gives no capacity holds its rating for this long."""

NO_POWER: Final[ByPhase] = (0.0, 0.0, 0.0)

PowerDevice: TypeAlias = InverterModel | BatteryModel | ChargerModel


class RealDevice:
    """A device that exists: its measured power is told from outside and summed at the bus."""

    def __init__(self, name: str, phases: tuple[int, ...]) -> None:
        self.name = name
        self.power_w = 0.0
        self.told_s = -math.inf
        self._phases = phases

    @property
    def power_w_by_phase(self) -> ByPhase:
        """Its last known power, in equal parts on its phases."""
        each_w = self.power_w / len(self._phases)
        one, two, three = (each_w if phase in self._phases else 0.0 for phase in (1, 2, 3))
        return (one, two, three)


class SitePhysics:
    """All models of a site on one bus, advanced in fixed steps.

    `kinds` says which devices are twins and of what kind; `real` names the devices whose power is told by
    `set_real_power`. Deterministic by the site's seed. Raises SeriesError when the site asks for a column or an instant
    that the series doesn't have, NetworkError when its network can't be simulated.
    """

    def __init__(
        self,
        site: Site,
        kinds: Mapping[str, DeviceKind],
        *,
        real: Iterable[str] = (),
        start_s: float = 0.0,
        series: Series | None = None,
    ) -> None:
        simulation = site.simulation
        self.step_s = simulation.step_ms / 1000.0
        self.steps = 0
        self.now_s = start_s
        self.load_w = 0.0
        self.net_w = 0.0
        self.grid = GridModel(simulation.grid)
        self.nominal_voltage_v = site.connection.nominal_voltage_v
        self.voltage_v_by_phase: ByPhase = self.grid.source_v_by_phase
        self.devices: dict[str, PowerDevice] = {}
        self.meters: dict[str, MeterModel] = {}
        self._site = site
        self.network = self._made_network()
        load_phases = (1, 2, 3) if site.connection.phases == 3 else (1,)
        self._load_phases = load_phases
        self._load_shares = simulation.load.shares_by_phase
        self._injected_w = 0.0
        self._injected_w_by_phase: ByPhase | None = None
        pump = simulation.load.heat_pump
        self.heat_pump = None if pump is None else HeatPumpModel("heat_pump", pump, phases=load_phases)
        self._irradiance_pu = 1.0
        for name, kind in kinds.items():
            self._add(name, kind, site.devices[name])
        self._each: tuple[PowerDevice, ...] = tuple(self.devices.values())
        self.real = {name: RealDevice(name, site.devices[name].phases) for name in real}
        self._prepare_series(series)
        seed = simulation.seed
        steps, clouds = simulation.load_steps, simulation.clouds
        self._load_steps = SteppingLoad(steps, Random(f"{seed}/load steps")) if steps else None
        self._clouds = CloudShadow(clouds, Random(f"{seed}/clouds")) if clouds else None
        self._apply_surroundings()
        for device in self._each:
            if isinstance(device, InverterModel):
                device.settle()
        self._measure(dt_s=0.0)

    def _made_network(self) -> NetworkModel | None:
        settings = self._site.simulation.network
        if settings is None:
            return None
        # Imported for sites that have cables alone: it needs an extra.
        from sim_devices.network_model import NetworkModel

        return NetworkModel(settings, self.nominal_voltage_v, self.step_s)

    def _add(self, name: str, kind: DeviceKind, device: DeviceSite) -> None:
        rng = Random(f"{self._site.simulation.seed}/{name}")
        if kind is DeviceKind.METER:
            self.meters[name] = MeterModel(name, device.rating_w, device.twin, rng=rng)
            return
        terminals: Terminals = {
            "phases": device.phases,
            "nominal_voltage_v": self.nominal_voltage_v,
            "nominal_frequency_hz": self.grid.nominal_frequency_hz,
            "rng": rng,
        }
        model: PowerDevice
        match kind:
            case DeviceKind.INVERTER:
                model = InverterModel(name, device.rating_w, device.twin, **terminals)
            case DeviceKind.BATTERY:
                capacity_wh = device.capacity_wh or device.rating_w * HOURS_OF_STORAGE
                model = BatteryModel(name, device.rating_w, device.twin, capacity_wh=capacity_wh, **terminals)
            case DeviceKind.CHARGER:
                model = ChargerModel(name, device.rating_w, device.twin, **terminals)
            case _:
                raise ValueError(f"{name}: there is no model of a {kind}")
        self.devices[name] = model

    def _prepare_series(self, series: Series | None) -> None:
        simulation = self._site.simulation
        load_column = simulation.load.series
        columns = {name: self._site.devices[name].twin.series for name in self.devices}
        wanted = {name: column for name, column in columns.items() if column and self._is_inverter(name)}
        self._series = series
        self._load_values: list[float] | None = None
        self._sun_values: dict[str, list[float]] = {}
        self._series_start_s = 0.0
        if load_column is None and not wanted:
            return
        self._series = series if series is not None else load_series()
        self._series_start_s = self._series.position(simulation.start)
        if load_column is not None:
            self._load_values = self._series.column(load_column)
        self._sun_values = {name: self._series.column(column) for name, column in wanted.items()}

    def _is_inverter(self, name: str) -> bool:
        return isinstance(self.devices[name], InverterModel)

    @property
    def elapsed_s(self) -> float:
        """Simulated seconds since the start."""
        return self.steps * self.step_s

    def set_real_power(self, name: str, power_w: float, now_s: float) -> None:
        """Tell the measured power of a real device (load convention); raises KeyError when none has that name.

        A value that isn't finite is no value: the device's last one ages.
        """
        device = self.real[name]
        if math.isfinite(power_w):
            device.power_w, device.told_s = power_w, now_s

    def inject_load_step(self, power_w: float | Sequence[float]) -> None:
        """Add `power_w` (positive consumes) to the uncontrolled load until another step takes it away.

        Three values are for phases 1, 2, 3. Raises ValueError for what isn't a number, or three.
        """
        if isinstance(power_w, int | float):
            if not math.isfinite(power_w):
                raise ValueError(f"a load step of {power_w} W is not a number")
            self._injected_w += power_w
            return
        if len(power_w) != 3 or not all(map(math.isfinite, power_w)):
            raise ValueError(f"a load step of {power_w} W is not three numbers")
        one, two, three = self._injected_w_by_phase or (0.0, 0.0, 0.0)
        self._injected_w_by_phase = (one + power_w[0], two + power_w[1], three + power_w[2])

    def set_irradiance(self, share_pu: float) -> None:
        """Leave this share (0 to 1) of the irradiance to all PV, beside clouds, until told otherwise."""
        if not 0.0 <= share_pu <= 1.0:
            raise ValueError(f"an irradiance of {share_pu} is not a share of what the sun gives")
        self._irradiance_pu = share_pu

    def set_grid(
        self, voltage_v: Voltage | None = None, frequency_hz: float | None = None, ramp_s: float = 0.0
    ) -> None:
        """Change the source behind the connection point, at once or linearly within `ramp_s`; None: as it is.

        `voltage_v`: of all phases, or three values. Raises ValueError unless above 0.
        """
        self.grid.change(self.elapsed_s, voltage_v, frequency_hz, ramp_s)

    def set_breaker(self, breaker: Breaker) -> None:
        """Open or close the breaker at the connection point; while it is open no twin has a grid."""
        self.grid.change(self.elapsed_s, breaker=breaker)
        self._tell_grid()

    def step(self, now_s: float | None = None) -> None:
        """Advance every model by one step, which ends at `now_s` of the clock (default: one step after the last)."""
        self.steps += 1
        self.now_s = self.now_s + self.step_s if now_s is None else now_s
        was_energized = self.grid.energized
        self.grid.step(self.elapsed_s)
        if self.grid.energized is not was_energized:
            self._tell_grid()
        if self.heat_pump is not None:
            self.heat_pump.step(self.step_s, self.now_s)
        self._apply_surroundings()
        for device in self._each:
            device.step(self.step_s, self.now_s)
        self._measure(self.step_s)

    def _tell_grid(self) -> None:
        """What changes between a measurement and the next step, for devices that step before they are measured."""
        grid = self.grid
        self.voltage_v_by_phase = grid.source_v_by_phase if grid.energized else (0.0, 0.0, 0.0)
        if self.network is not None and not grid.energized:
            self.network.rest()
        for device in (*self._each, *((self.heat_pump,) if self.heat_pump is not None else ())):
            device.energized = grid.energized
            device.voltage_v_by_phase = self._voltage_at(device.name)
            device.frequency_hz = grid.frequency_hz

    def _voltage_at(self, name: str) -> ByPhase:
        """Phase voltages at a device, at its place in the network where there is one."""
        connection_v = self.voltage_v_by_phase
        return connection_v if self.network is None else self.network.voltages(name, connection_v)

    def _apply_surroundings(self) -> None:
        elapsed_s = self.elapsed_s
        simulation = self._site.simulation
        series_s = elapsed_s * simulation.acceleration
        load_w = simulation.load.constant_w + self._injected_w
        if self._series is not None and self._load_values is not None:
            load_pu = self._series.value(self._load_values, self._series_start_s, series_s)
            load_w += load_pu * simulation.load.scale_w
        if self._load_steps is not None:
            load_w += self._load_steps.step(elapsed_s)
        self._load_w_by_phase = self._spread(load_w)
        # A sum of phases would differ from the load in the last digit.
        extra_w = sum(self._injected_w_by_phase) if self._injected_w_by_phase is not None else 0.0
        extra_w += self.heat_pump.power_w if self.heat_pump is not None else 0.0
        self.load_w = load_w + extra_w if self.grid.energized else 0.0
        sky = self._irradiance_pu * (self._clouds.step(elapsed_s) if self._clouds is not None else 1.0)
        for device in self._each:
            if isinstance(device, InverterModel):
                device.available_pu = sky * self._sun_pu(device.name, series_s)

    def _spread(self, load_w: float) -> ByPhase:
        """The uncontrolled load by phase: its shares, what was injected on a phase, and the heat pump."""
        if not self.grid.energized:
            return (0.0, 0.0, 0.0)
        if self._load_shares is not None:
            s1, s2, s3 = self._load_shares
            p1, p2, p3 = load_w * s1, load_w * s2, load_w * s3
        else:
            each_w = load_w / len(self._load_phases)
            p1, p2, p3 = (each_w if phase in self._load_phases else 0.0 for phase in (1, 2, 3))
        if self._injected_w_by_phase is not None:
            d1, d2, d3 = self._injected_w_by_phase
            p1, p2, p3 = p1 + d1, p2 + d2, p3 + d3
        if self.heat_pump is not None:
            h1, h2, h3 = self.heat_pump.power_w_by_phase
            p1, p2, p3 = p1 + h1, p2 + h2, p3 + h3
        return (p1, p2, p3)

    def _sun_pu(self, name: str, series_s: float) -> float:
        values = self._sun_values.get(name)
        if values is None or self._series is None:
            return 1.0
        return self._series.value(values, self._series_start_s, series_s)

    def _measure(self, dt_s: float) -> None:
        p1, p2, p3 = self._load_w_by_phase
        sources: Iterable[DeviceModel | RealDevice] = (*self._each, *self.real.values()) if self.real else self._each
        for source in sources:
            d1, d2, d3 = source.power_w_by_phase
            p1, p2, p3 = p1 + d1, p2 + d2, p3 + d3
        reactive_var = self._reactive_var_by_phase()
        network = self.network
        if network is not None:
            (p1, p2, p3), reactive_var = self._with_losses(network, (p1, p2, p3), reactive_var)
        self.net_w = p1 + p2 + p3
        grid = self.grid
        connection_v = grid.voltages((p1, p2, p3), reactive_var, self.voltage_v_by_phase)
        self.voltage_v_by_phase = connection_v
        for device in self._each:
            device.voltage_v_by_phase = connection_v if network is None else network.voltages(device.name, connection_v)
            device.frequency_hz = grid.frequency_hz
        valid = all(self.now_s - device.told_s <= REAL_POWER_LIFE_S for device in self.real.values())
        for meter in self.meters.values():
            meter.measure((p1, p2, p3), connection_v, grid.frequency_hz, valid, dt_s, self.now_s, reactive_var)

    def _reactive_var_by_phase(self) -> ByPhase:
        """Reactive power drawn at the connection; the load has none."""
        q1 = q2 = q3 = 0.0
        for device in self._each:
            if device.reactive_var:
                d1, d2, d3 = device.reactive_var_by_phase
                q1, q2, q3 = q1 + d1, q2 + d2, q3 + d3
        return (q1, q2, q3)

    def _with_losses(self, network: NetworkModel, power_w: ByPhase, reactive_var: ByPhase) -> Powers:
        """What is drawn at the connection, with what the network takes on the way; solves it when that is due."""
        if self.grid.energized and self.steps % network.steps_between == 0:
            network.solve(self.voltage_v_by_phase, self._drawn_at_nodes(network))
        return plus(power_w, network.losses_w_by_phase), plus(reactive_var, network.losses_var_by_phase)

    def _drawn_at_nodes(self, network: NetworkModel) -> dict[str, Powers]:
        drawn: dict[str, Powers] = {network.load_node: (self._load_w_by_phase, NO_POWER)}
        for device in self._each:
            p, q = drawn.get(node := network.node_of(device.name), (NO_POWER, NO_POWER))
            drawn[node] = plus(p, device.power_w_by_phase), plus(q, device.reactive_var_by_phase)
        for real in self.real.values():
            p, q = drawn.get(node := network.node_of(real.name), (NO_POWER, NO_POWER))
            drawn[node] = plus(p, real.power_w_by_phase), q
        return drawn


def plus(one: ByPhase, other: ByPhase) -> ByPhase:
    """The sum, phase by phase."""
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2])
