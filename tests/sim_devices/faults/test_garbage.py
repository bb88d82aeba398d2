"""Whatever passes a proxy that understands its protocol, it stays up and without faults passes everything on."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_devices.faults import FAULTS, Direction, FaultSet, FaultyLine, Target
from sim_devices.faults.line import Act
from sim_devices.faults.modbus_speech import ModbusUnderstanding
from sim_devices.faults.mqtt_packets import Publication
from sim_devices.faults.mqtt_speech import MqttUnderstanding
from sim_devices.faults.points import KnownDevice
from sim_devices.faults.registry import MODBUS_RTU_TCP, MODBUS_TCP, MQTT, OPCUA, PARENT
from sim_devices.faults.speech import Understanding
from sim_devices.modbus.rtu_frames import framed
from sim_devices.opcua_speech import UaUnderstanding
from tests.sim_devices.faults import sites, test_mqtt_wire, test_opcua_wire
from tests.sim_devices.faults.field import mbap

KNOWN = {
    MODBUS_TCP: sites.known(sites.register_profile()),
    MODBUS_RTU_TCP: sites.known(sites.register_profile(), driver=MODBUS_RTU_TCP),
    MQTT: test_mqtt_wire.known(),
    OPCUA: test_opcua_wire.known(),
}


def understanding(protocol: str, device: KnownDevice) -> Understanding:
    if protocol == MQTT:
        return MqttUnderstanding([device])
    return UaUnderstanding([device]) if protocol == OPCUA else ModbusUnderstanding(protocol, [device])


def _ua(message: object, request: int) -> bytes:
    body = struct_to_binary(message)
    return b"MSGF" + (24 + len(body)).to_bytes(4, "little") + struct.pack("<IIII", 1, 1, request, request) + body


def _said(protocol: str) -> list[bytes]:
    """Frames of the protocol, right ones."""
    pdus = [struct.pack(">BHH", 3, 10, 6), b"\x03\x0c" + bytes(range(12)), struct.pack(">BHH", 6, 100, 7), b"\x83\x02"]
    pdus += [struct.pack(">BHHBHH", 16, 100, 2, 4, 5, 1), struct.pack(">BHH", 16, 100, 2), b"\x03\x00", b"\x10"]
    match protocol:
        case "mqtt":
            topics = [test_mqtt_wire.AT, test_mqtt_wire.BEAT, f"{test_mqtt_wire.CHARGER}/amp/set"]
            topics += [f"{test_mqtt_wire.DSO}/{kind}" for kind in ("limits", "dispatch", "heartbeat")]
            orders = [test_mqtt_wire.LIMIT, test_mqtt_wire.DISPATCH, [1, 2], 3, test_mqtt_wire.NRG]
            messages = [test_mqtt_wire.said(topic, order) for topic in topics for order in orders]
            return [
                *messages,
                Publication("x", b"", 1, identifier=3).packet(),
                b"\x40\x02\0\3",
                b"\x30\x00",
                b"\x30\x01\0",
            ]
        case "opcua":
            read, write = ua.ReadRequest(), ua.WriteRequest()
            node = ua.NodeId("BatteryContainer.ActivePower", 2)
            read.Parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=ua.AttributeIds.Value)]
            write.Parameters.NodesToWrite = [ua.WriteValue(NodeId=node, AttributeId=ua.AttributeIds.Value)]
            answer, published = ua.ReadResponse(), ua.PublishResponse()
            answer.Results = [ua.DataValue(ua.Variant(4.0, ua.VariantType.Double))]
            messages = [read, write, answer, published, ua.ServiceFault(), ua.CreateMonitoredItemsRequest()]
            return [_ua(message, number) for number, message in enumerate(messages, start=1)]
        case "modbus_tcp":
            return [mbap(pdu) for pdu in pdus]
    return [framed(1, pdu) for pdu in pdus]


SAID = {protocol: _said(protocol) for protocol in KNOWN}
BOTH = st.sampled_from(list(Direction))


@st.composite
def streams(draw: st.DrawFn, protocol: str) -> list[tuple[Direction, bytes]]:
    """Right frames, damaged ones and bytes that are none, either way."""
    pieces = []
    for _ in range(draw(st.integers(1, 8))):
        data = draw(st.sampled_from(SAID[protocol]) | st.binary(max_size=40))
        if data and draw(st.booleans()):
            at = draw(st.integers(0, len(data) - 1))
            data = data[:at] + bytes((draw(st.integers(0, 255)),)) + data[at + 1 :]
        pieces.append((draw(BOTH), data))
    return pieces


def passed(acts: Sequence[Act], direction: Direction) -> bytes:
    return b"".join(act.what for act in acts if act.direction is direction and isinstance(act.what, bytes))


@pytest.mark.parametrize("protocol", KNOWN)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_without_faults_everything_passes(protocol: str, data: st.DataObject) -> None:
    faults = FaultSet(protocol, lambda: 0.0)
    line = FaultyLine(faults, understanding(protocol, KNOWN[protocol]).speech())
    said = data.draw(streams(protocol))
    acts = [act for direction, piece in said for act in line.feed(direction, piece, 0.0)]
    acts += line.due(100.0)
    for direction in Direction:
        assert passed(acts, direction) == b"".join(piece for way, piece in said if way is direction)


@pytest.mark.parametrize("protocol", KNOWN)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_bytes_and_no_faults_bring_a_proxy_down(protocol: str, data: st.DataObject) -> None:
    now_s = 0.0
    faults = FaultSet(protocol, lambda: now_s)
    understood = understanding(protocol, KNOWN[protocol])
    faults.struck, faults.understood = understood.struck, True
    line = FaultyLine(faults, understood.speech())
    protocols = (protocol, PARENT) if protocol == MQTT else (protocol,)
    target = Target(protocols, "unit", KNOWN[protocol], understood=True)
    usable = [name for name, kind in FAULTS.items() if set(protocols) & set(kind.applies_to)]
    if KNOWN[protocol].released_w() is None:
        usable.remove("reversion")
    for name in data.draw(st.lists(st.sampled_from(usable), max_size=3)):
        faults.set_by(name, {}, target)
        line.due(now_s)
    for direction, piece in data.draw(streams(protocol)):
        line.feed(direction, piece, now_s)
        now_s += 0.3
        line.due(now_s)
        assert line.next_due_s(now_s) >= 0.0
    for direction in Direction:
        line.ended(direction, now_s)
