"""What a setpoint comes to in a device's own quantities: the ordered writes of its profile, with their values.

Protocol-free and pure. A charger's current rounds down to its step and is 0 below its least; power is brought
to the device's resolution; every other quantity is exact here and rounded where it is encoded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, assert_never

from config.profile import ByDirection, CommandQuantity
from drivers.encoding import Rounding, round_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from config.profile import Control, ControlWrite
    from drivers.binding import DeviceBinding

_TOLERANCE: Final = 1e-9

ValueOf: TypeAlias = "Callable[[float, int, int], float]"
"""What one write sends for a resolved power (load convention), its direction, and the counter of the sequence."""


class Command(NamedTuple):
    """One value for one point, in the point's unit and load convention.

    `gate`: the value says what to do with those before it (a mode, an enable), so it must not go out before they have
    been taken.
    """

    point: str
    value: float
    when_changed: bool = False
    gate: bool = False


def setpoint_commands(control: Control, power_w: float, binding: DeviceBinding, counter: int) -> tuple[Command, ...]:
    """The writes of a setpoint of `power_w` (load convention), in the order in which they have to go out.

    More than the rating is taken as the rating; with `step_w`, the power is first brought to the device's resolution.
    """
    return _commands(control, control.writes, resolved_power_w(control, power_w, binding.rating_w), binding, counter)


def rest_commands(control: Control, binding: DeviceBinding, counter: int) -> tuple[Command, ...]:
    """The writes of the rest state, in order; quantities are those of 0 W."""
    return _commands(control, control.rest, 0.0, binding, counter)


def resolved_power_w(control: Control, power_w: float, rating_w: float) -> float:
    """The power a device can resolve within its rating: a ceiling rounds towards zero, an exact one to the nearest."""
    within = rating_w if power_w > rating_w else -rating_w if power_w < -rating_w else power_w
    if control.step_w is None:
        return within
    rounding = Rounding.TOWARD_ZERO if control.power == "ceiling" else Rounding.NEAREST
    return round_raw(within / control.step_w, rounding) * control.step_w


def current_a(control: Control, power_w: float, binding: DeviceBinding) -> float:
    """Amperes per phase of a charging power, rounded down to `step_a`, 0 below `minimum_a`; never negative."""
    amperes = max(power_w, 0.0) / (binding.phases * binding.nominal_voltage_v)
    if control.step_a is not None:
        amperes = math.floor(amperes / control.step_a + _TOLERANCE) * control.step_a
    if control.minimum_a is not None and amperes < control.minimum_a - _TOLERANCE:
        return 0.0
    return amperes


def _commands(
    control: Control, writes: Sequence[ControlWrite], power_w: float, binding: DeviceBinding, counter: int
) -> tuple[Command, ...]:
    direction = direction_of(control, power_w, binding)
    commands: list[Command] = []
    for write in writes:
        if write.skip_when_idle and direction == 0:
            continue
        value = value_of(write, control, binding)(power_w, direction, counter)
        gate = bool(commands) and write.quantity is None
        commands.append(Command(write.point, value, write.when_changed, gate))
    return tuple(commands)


def direction_of(control: Control, power_w: float, binding: DeviceBinding) -> int:
    """1 charging, 0 idle, -1 discharging, of what is left after rounding: 5 A asked of a charger is a pause."""
    if any(write.quantity is CommandQuantity.CURRENT_A for write in control.writes):
        return int(current_a(control, power_w, binding) > 0)
    return (power_w > 0) - (power_w < 0)


def value_of(write: ControlWrite, control: Control, binding: DeviceBinding) -> ValueOf:
    """How a write's value follows from the setpoint, worked out once for a device."""
    if write.value is not None:
        constant = write.value
        return lambda power_w, direction, counter: constant
    if write.by_direction is not None:
        modes = write.by_direction
        return lambda power_w, direction, counter: _mode(modes, direction)
    assert write.quantity is not None  # the schema: exactly one of the three
    return _quantity_of(write.quantity, control, binding)


def _mode(modes: ByDirection, direction: int) -> float:
    if direction > 0:
        return modes.charge
    if direction < 0 and modes.discharge is not None:
        return modes.discharge
    return modes.idle


def _quantity_of(quantity: CommandQuantity, control: Control, binding: DeviceBinding) -> ValueOf:
    match quantity:
        case CommandQuantity.POWER_W:
            return lambda power_w, direction, counter: power_w
        case CommandQuantity.GENERATION_W:
            return lambda power_w, direction, counter: -power_w
        case CommandQuantity.CHARGE_W:
            return lambda power_w, direction, counter: max(power_w, 0.0)
        case CommandQuantity.DISCHARGE_W:
            return lambda power_w, direction, counter: max(-power_w, 0.0)
        case CommandQuantity.MAGNITUDE_W:
            return lambda power_w, direction, counter: abs(power_w)
        case CommandQuantity.GENERATION_PU:
            return lambda power_w, direction, counter: max(-power_w, 0.0) / binding.rating_w
        case CommandQuantity.POWER_PU:
            return lambda power_w, direction, counter: power_w / binding.rating_w
        case CommandQuantity.CURRENT_A:
            return lambda power_w, direction, counter: current_a(control, power_w, binding)
        case CommandQuantity.REVERSION_S:
            return lambda power_w, direction, counter: binding.reversion_s or 0.0
        case CommandQuantity.COUNTER:
            return lambda power_w, direction, counter: float(counter)
        case _:
            assert_never(quantity)
