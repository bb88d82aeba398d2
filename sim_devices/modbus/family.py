"""What a Modbus twin of a profile is: the kind of device it shows, and how its unit is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias, TypeVar

from config.vocabulary import Clock, DeviceKind
from sim_devices.modbus.pdu import Unit
from sim_devices.models import BatteryModel, ChargerModel, InverterModel, MeterModel

Model = TypeVar("Model")
ModbusModel: TypeAlias = BatteryModel | ChargerModel | InverterModel | MeterModel


class ProfileTwin(NamedTuple):
    """`make` takes the device's model, the clock of its physics, and a serial number.

    `make_beside`, given the same, makes the units that the device has at fixed ids beside the one it is known by.
    """

    kind: DeviceKind
    make: Callable[[ModbusModel, Clock, str], Unit]
    make_beside: Callable[[ModbusModel, Clock, str], Mapping[int, Unit]] | None = None


def of_kind(kind: type[Model], model: object) -> Model:
    """The model, if it is of this kind; raises TypeError."""
    if not isinstance(model, kind):
        raise TypeError(f"the profile needs a {kind.__name__}, not a {type(model).__name__}")
    return model
