"""Faults at the wire: proxies between any driver and any device, twin or real, that do to bytes what fields do.

**A whole site.** `FaultWorld` (`world.py`) puts one proxy in front of each connection to a device of a site, and of the
parents' broker:

    async with FaultWorld(site, profiles, endpoints, broker=("127.0.0.1", 1883), seed=1) as world:
        world.endpoints           each device's address, with its proxy's place in it
        world.broker              (host, port) of the proxy in front of the parents' broker, None without one
        world.set("pv", "latency", {"delay_s": 0.2})        the fault's id; FaultError says what is allowed
        world.clear("pv", "latency"), world.clear("pv"), world.clear()                 how many were in force
        world.schedule([FaultEvent(5.0, "pv", "no_answer", {"duration_s": 3.0})], start_s=loop.time())
        world.status()

`profiles` are by device. `endpoints` is the object that `gateway twins` prints; for a device that is not in its key
`endpoints`, the site's own address is the target. A fault is named by device and name: a device of the site, a parent
of it (its messages), or `broker` (the connection to the parents' broker). Several devices on one connection share a
proxy; faults of frames and values then concern the named one alone, faults of the connection all of them. Chargers that
call by OCPP find the proxy where the gateway would listen, and `endpoints` tells the gateway to listen elsewhere.
`check_fault(site, profiles, device, fault, parameters)` says beforehand, without a proxy, whether it could be set.

All run in the running loop, through `create_server`, `create_connection` and timers and nothing else, serial lines,
the control file and the control topic apart; so a loop with virtual time and in-memory transports runs them too:
`FaultWorld(..., control_port=None, only=names, listen_at={"pv": ("127.0.0.1", 502)})` gives these devices proxies at
the addresses that their servers have left.

**A schedule** is a list of `FaultEvent(at_s, device, fault, parameters, clear=False)`, seconds after its start;
`FaultEvent.parse` reads one from `{"at", "device", "fault", "parameters"}` or `{"at", "device", "clear"}`. A fault with
`duration_s` ends by itself.

**A process of its own**, `python -m sim_devices.faults.world SITE --endpoints FILE [--broker HOST:PORT]`, prints one
line, `{"endpoints", "broker", "control", "faults": {"host", "port"}, "pid"}`, and is told the rest by its control port.
`gateway faults run` and `gateway run --faults` start it, `gateway faults set` talks to it.

**The control port** takes JSON lines on loopback and answers each by one line (`control.py`):

    {"device": "pv", "fault": "latency", "parameters": {"delay_s": 0.2}}        {"set": 1}
    {"device": "pv", "clear": "latency"}  (also an id, or "all")                {"cleared": 1}
    {"clear": "all"}                                                            {"cleared": 3}
    {"status": true}                                                            {"devices": {...}}
    {"list": true}                                                              {"faults": [{"name", ...}]}

What can't be used is answered by `{"error": WHY}`, which names what is allowed, and changes nothing. The topic
`lamina-bench/SITE/faults/set` takes the same lines and is answered on `.../answer` (`control_topic.py`). A watched file
of `[{"device", "fault", "parameters"}]`, YAML or JSON, says which faults there are, beside those set otherwise
(`control_file.py`).

How it is built: `registry.py` has the faults as data, `fault.py` holds what is asked for against them, `fault_set.py`
those in force on a link; `line.py` is the core, bytes and times in and out; `effects.py` does what needs frames alone,
a `Speech` (`modbus_speech.py`, `mqtt_speech.py`, `ocpp_speech.py`, `sim_devices/opcua_speech.py`) what needs their
meaning. `tcp_proxy.py` and `serial_proxy.py` bring it to wires. `FaultWorld`, `FaultEvent`, `check_fault`,
`fault_targets` and `BROKER` are in `sim_devices.faults.world`.
"""

from sim_devices.faults.board import FaultBoard, Placed
from sim_devices.faults.control import FaultControl
from sim_devices.faults.fault import Fault, FaultError, Target, make_fault
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
    "FaultBoard",
    "FaultControl",
    "FaultError",
    "FaultKind",
    "FaultSet",
    "FaultyLine",
    "Placed",
    "SerialFaultProxy",
    "Target",
    "TcpFaultProxy",
    "make_fault",
]
