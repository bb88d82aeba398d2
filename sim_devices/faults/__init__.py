"""Faults at the wire: a proxy between any driver and any device, twin or real, that does to bytes what fields do."""

from sim_devices.faults.control import FaultControl
from sim_devices.faults.fault import Fault, FaultError, make_fault
from sim_devices.faults.fault_set import ActiveFault, FaultSet
from sim_devices.faults.line import Act, Close, FaultyLine
from sim_devices.faults.registry import FAULTS, Direction, FaultKind
from sim_devices.faults.serial_proxy import SerialFaultProxy
from sim_devices.faults.tcp_proxy import TcpFaultProxy

__all__ = [
    "FAULTS",
    "Act",
    "ActiveFault",
    "Close",
    "Direction",
    "Fault",
    "FaultControl",
    "FaultError",
    "FaultKind",
    "FaultSet",
    "FaultyLine",
    "SerialFaultProxy",
    "TcpFaultProxy",
    "make_fault",
]
