"""The physics that makes a site of its twins: one bus, one grid impedance, one meter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final, TypeAlias

from config.site import DeviceSite, Site
from config.twin import GridTwin
from config.vocabulary import DeviceKind
from sim_devices.disturbances import CloudShadow, SteppingLoad
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

REAL_POWER_LIFE_S: Final = 1.0
"""A real device's power older than this makes the sum at the bus unknown."""

HOURS_OF_STORAGE: Final = 2.0
"""A battery whose site file gives no capacity holds its rating for this long."""

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
    that the series doesn't have.
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
        self.voltage_v_by_phase: ByPhase = (simulation.grid.voltage_v,) * 3
        self.devices: dict[str, PowerDevice] = {}
        self.meters: dict[str, MeterModel] = {}
        self._site = site
        self._grid = simulation.grid
        self._load_phases = (1, 2, 3) if site.connection.phases == 3 else (1,)
        self._injected_w = 0.0
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

    def _add(self, name: str, kind: DeviceKind, device: DeviceSite) -> None:
        rng = Random(f"{self._site.simulation.seed}/{name}")
        if kind is DeviceKind.METER:
            self.meters[name] = MeterModel(name, device.rating_w, device.twin, rng=rng)
            return
        terminals: Terminals = {
            "phases": device.phases,
            "nominal_voltage_v": self._site.connection.nominal_voltage_v,
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

    def inject_load_step(self, power_w: float) -> None:
        """Add `power_w` (positive consumes) to the uncontrolled load until another step takes it away."""
        if not math.isfinite(power_w):
            raise ValueError(f"a load step of {power_w} W is not a number")
        self._injected_w += power_w

    def set_irradiance(self, share_pu: float) -> None:
        """Leave this share (0 to 1) of the irradiance to all PV, beside clouds, until told otherwise."""
        if not 0.0 <= share_pu <= 1.0:
            raise ValueError(f"an irradiance of {share_pu} is not a share of what the sun gives")
        self._irradiance_pu = share_pu

    def set_grid(self, voltage_v: float | None = None, frequency_hz: float | None = None) -> None:
        """Change the source behind the connection point; None: as it is. Raises ValueError unless above 0."""
        changed = {"voltage_v": voltage_v, "frequency_hz": frequency_hz}
        given = {name: value for name, value in changed.items() if value is not None}
        for name, value in given.items():
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name}: {value} is not above 0")
        self._grid = self._grid.model_copy(update=given)

    def step(self, now_s: float | None = None) -> None:
        """Advance every model by one step, which ends at `now_s` of the clock (default: one step after the last)."""
        self.steps += 1
        self.now_s = self.now_s + self.step_s if now_s is None else now_s
        self._apply_surroundings()
        for device in self._each:
            device.step(self.step_s, self.now_s)
        self._measure(self.step_s)

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
        self.load_w = load_w
        sky = self._irradiance_pu * (self._clouds.step(elapsed_s) if self._clouds is not None else 1.0)
        for device in self._each:
            if isinstance(device, InverterModel):
                device.available_pu = sky * self._sun_pu(device.name, series_s)

    def _sun_pu(self, name: str, series_s: float) -> float:
        values = self._sun_values.get(name)
        if values is None or self._series is None:
            return 1.0
        return self._series.value(values, self._series_start_s, series_s)

    def _measure(self, dt_s: float) -> None:
        each_w = self.load_w / len(self._load_phases)
        p1, p2, p3 = (each_w if phase in self._load_phases else 0.0 for phase in (1, 2, 3))
        sources: Iterable[DeviceModel | RealDevice] = (*self._each, *self.real.values()) if self.real else self._each
        for source in sources:
            d1, d2, d3 = source.power_w_by_phase
            p1, p2, p3 = p1 + d1, p2 + d2, p3 + d3
        self.net_w = p1 + p2 + p3
        v = self.voltage_v_by_phase
        grid = self._grid
        self.voltage_v_by_phase = (
            voltage_behind_grid(grid, p1, v[0]),
            voltage_behind_grid(grid, p2, v[1]),
            voltage_behind_grid(grid, p3, v[2]),
        )
        for device in self._each:
            device.voltage_v_by_phase = self.voltage_v_by_phase
            device.frequency_hz = grid.frequency_hz
        valid = all(self.now_s - device.told_s <= REAL_POWER_LIFE_S for device in self.real.values())
        for meter in self.meters.values():
            meter.measure((p1, p2, p3), self.voltage_v_by_phase, grid.frequency_hz, valid, dt_s, self.now_s)


def voltage_behind_grid(grid: GridTwin, power_w: float, voltage_v: float) -> float:
    """Phase voltage at the connection when `power_w` is drawn at unity power factor; `voltage_v` is the previous one.

    |source|^2 = (V + I R)^2 + (I X)^2. Held within half and one and a half of the source, beyond which no site works.
    """
    current_a = power_w / voltage_v
    under_root = grid.voltage_v**2 - (current_a * grid.reactance_ohm) ** 2
    solved_v = math.sqrt(max(under_root, 0.0)) - current_a * grid.resistance_ohm
    return min(max(solved_v, 0.5 * grid.voltage_v), 1.5 * grid.voltage_v)
