"""What control's trust in its meter is good for: the meter's bytes pass the faults, the plant is the bench's."""

from __future__ import annotations

import struct
from typing import NamedTuple

import pytest

from config.vocabulary import DeviceKind, Quantity
from gateway.bench.feedback_plant import FeedbackPlant, Sampling, plant_device, plant_site
from gateway.control.meter_trust import MeterTrust
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce
from sim_devices.faults import Direction, FaultSet, FaultyLine
from sim_devices.faults.modbus_speech import ModbusUnderstanding
from sim_devices.faults.registry import MODBUS_TCP
from tests.sim_devices.faults.field import mbap
from tests.sim_devices.faults.sites import known, register_profile, target

DEVICES = (
    plant_device("battery", DeviceKind.BATTERY, 50e3, 0.5, 0.1),
    plant_device("pv", DeviceKind.INVERTER, 40e3, 1.0, 0.0),
)
LIMIT_W, GRACE_W = 25e3, 1e3


class Wire:
    """A meter on Modbus TCP behind the core of a proxy, by the plant's own time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.device = known(register_profile())
        self.faults = FaultSet(MODBUS_TCP, lambda: self.now_s)
        self.faults.understood = True
        self._line = FaultyLine(self.faults, ModbusUnderstanding(MODBUS_TCP, [self.device]).speech())

    def read(self, power_w: float) -> float:
        """What a driver reads while the meter measures this."""
        self.now_s += 0.1
        self._line.feed(Direction.REQUEST, mbap(struct.pack(">BHH", 3, 10, 2)), self.now_s)
        (act,) = self._line.feed(Direction.REPLY, mbap(struct.pack(">BBi", 3, 4, round(power_w))), self.now_s)
        assert isinstance(act.what, bytes)
        return float(int.from_bytes(act.what[-4:], signed=True))


class Guard(NamedTuple):
    """A fault of the meter; the check is the same for all."""

    fault: str


GUARDS = [Guard("flipped_sign"), Guard("frozen_value")]


def orders(net_w: float, name: str) -> OrdersInForce:
    limits = [
        LimitInForce("dso", f"{quantity}", quantity, LIMIT_W)
        for quantity in (Quantity.NET_EXPORT_W, Quantity.NET_IMPORT_W)
    ]
    return OrdersInForce(tuple(limits), DispatchInForce("dso", name, net_w, 0.0, None, 0.0, 0.0, None))


def limits_are_broken(fault: str) -> bool:
    """Whether the connection is beyond its limits long after a step, while the meter lies."""
    plant, wire = FeedbackPlant(plant_site(DEVICES), Sampling(), noise_w=200.0, available_w={"pv": 20e3}), Wire()
    plant.shows = wire.read
    plant.run(20.0, orders(0.0, "start"))
    wire.faults.set_by(fault, {"point": "power_w"}, target(wire.device))
    beyond = False
    for number in range(4):
        trace_w = plant.run(15.0, orders(-20e3 if number % 2 else 15e3, f"step {number}"))
        beyond |= max(map(abs, trace_w[-50:])) > LIMIT_W + GRACE_W
    return beyond


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.fault)
def test_a_lying_meter_breaks_limits_only_when_it_is_believed(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not limits_are_broken(guard.fault)
    monkeypatch.setattr(MeterTrust, "observe", lambda *_: None)
    assert limits_are_broken(guard.fault)
