"""Hybrid inverters: photovoltaics and a battery behind one unit, each by a profile and a model of its own.

A site describes them as two devices at one address, so that the twins of both have to become one unit.
"""

from __future__ import annotations

from sim_devices.modbus.pdu import Unit
from sim_devices.modbus.register_table import RegisterTable
from sim_devices.modbus.table_unit import SettingsUnit
from sim_devices.models import BatteryModel, DeviceModel, InverterModel


class Parts:
    """The models of a hybrid: a battery, photovoltaics or both, whose alternating current is one."""

    def __init__(self, battery: BatteryModel | None, pv: InverterModel | None) -> None:
        self.battery = battery
        self.pv = pv
        present: tuple[DeviceModel | None, ...] = (battery, pv)
        self.models = tuple(model for model in present if model is not None)
        if not self.models:
            raise ValueError("a hybrid needs a battery or photovoltaics")
        self.terminals = self.models[0]
        """Whose phases, voltages and frequency are the hybrid's."""

    @property
    def rating_w(self) -> float:
        """Rated power of the inverter: that of its larger part."""
        return max(model.rating_w for model in self.models)

    @property
    def power_w(self) -> float:
        """Power at the terminals, load convention."""
        return sum(model.power_w for model in self.models)

    def current_a(self, phase: int) -> float:
        """Current on a phase (from 0), load convention."""
        return sum(model.current_a_by_phase[phase] for model in self.models)

    @property
    def pv_w(self) -> float:
        """What the photovoltaics generate, a magnitude: the twin converts without losses."""
        return 0.0 if self.pv is None else -self.pv.power_w

    def plus(self, other: Parts) -> Parts | None:
        """Both together; None where they don't complement each other."""
        both_have = (self.battery and other.battery) or (self.pv and other.pv)
        return None if both_have else Parts(self.battery or other.battery, self.pv or other.pv)


class HybridUnit(SettingsUnit):
    """A unit that can be put together of its two parts."""

    def __init__(self, parts: Parts, holding: RegisterTable, inputs: RegisterTable | None = None) -> None:
        self.parts = parts
        super().__init__(holding, inputs)

    def with_parts(self, parts: Parts) -> HybridUnit:
        """A unit of the same kind with these models."""
        raise NotImplementedError

    def joined(self, other: Unit) -> Unit | None:
        """One unit in place of this one and `other`; None where they aren't the two parts of one device."""
        if not isinstance(other, HybridUnit) or type(other) is not type(self):
            return None
        parts = self.parts.plus(other.parts)
        return None if parts is None else self.with_parts(parts)
