"""Replies decoded when asked for give what decoding at once gives; writes worked out once stay what they were."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.profile import PollGroup, Profile, RegisterType
from config.site import ModbusTcpAddress
from config.vocabulary import Quality
from drivers.binding import DeviceBinding
from drivers.encoding import EncodeError, RegisterCodec
from drivers.modbus.block import Block, PlacedPoint, ReplySamples, ScaleFactor
from drivers.modbus.plan import PLANS_KEPT, register_plan
from drivers.modbus.write_plan import WritePlan
from tests.drivers.modbus_server import make_profile

POINTS = {
    "power_w": {"at": {"address": 10, "type": "int32", "word_order": "little"}, "unit": "W", "sign": "generator"},
    "volts": {"at": {"address": 12, "type": "float32"}, "range": [0, 300]},
    "high_half": {"at": {"address": 10, "type": "uint16"}, "invalid": [65535]},
    "state": {"at": {"address": 15}, "values": {"1": "on", "2": "off"}},
    "serial": {"at": {"address": 16, "type": "string", "length": 3}},
}


def fast_block(points: dict[str, dict[str, object]]) -> Block:
    profile = make_profile({name: {**point, "poll": "fast"} for name, point in points.items()})
    (block,) = register_plan(profile).blocks[PollGroup.FAST]
    return block


@given(st.binary(min_size=18, max_size=18))
def test_any_reply_decoded_late_is_the_reply_decoded_at_once(registers: bytes) -> None:
    block = fast_block(POINTS)
    assert block.count == 9
    reply = bytes((3, 18)) + registers
    late = ReplySamples(block, reply, 7.0)
    assert dict(late) == block.decode(reply, 7.0)
    assert late[block.names[0]] is late[block.names[0]]


def test_a_point_that_is_not_in_the_reply_is_not_in_its_samples() -> None:
    late = ReplySamples(fast_block(POINTS), bytes(20), 7.0)
    assert "other" not in late
    assert late.get("other") is None
    assert late["power_w"].quality is Quality.GOOD
    with pytest.raises(KeyError):
        late["other"]


def test_points_behind_scale_factors_are_decoded_at_once() -> None:
    point = make_profile({"power_w": {"at": {"address": 0}}}).points["power_w"]
    scaled = RegisterCodec(point, RegisterType.INT16)
    factor = ScaleFactor(1)
    factor.scale(scaled)
    block = Block("holding", 0, 2, [PlacedPoint("power_w", "holding", 0, scaled)], [factor])
    assert not block.steady
    assert block.decode(bytes((3, 4)) + struct.pack(">hh", 42, 1), 1.0)["power_w"].value == 420.0


def test_devices_of_one_profile_share_its_plan_and_others_do_not_pile_up() -> None:
    profile = make_profile({"power_w": {"at": {"address": 0}}})
    assert register_plan(profile) is register_plan(profile)
    others = [register_plan(make_profile({"power_w": {"at": {"address": number}}})) for number in range(PLANS_KEPT)]
    assert len({id(plan) for plan in others}) == PLANS_KEPT
    assert register_plan(profile).places.points["power_w"].address == 0


def write_plan(profile: Profile) -> WritePlan:
    address = ModbusTcpAddress(driver="modbus_tcp", host="127.0.0.1")
    binding = DeviceBinding("unit", profile, address, 10e3)
    assert profile.control is not None
    return WritePlan(profile.control, profile.control.writes, binding, register_plan(profile).places.points)


CONTROLLED = {
    "power_w": {"at": {"address": 0}, "poll": "fast"},
    "setpoint_w": {"at": {"address": 5}, "access": "w", "scale": 10},
    "enable": {"at": {"address": 6}, "access": "w"},
}
CONTROL = {
    "volatile": True,
    "writes": [{"point": "setpoint_w", "quantity": "power_w"}, {"point": "enable", "value": 1, "when_changed": True}],
}


def test_a_sequence_is_written_in_order_and_neighbours_share_a_request() -> None:
    plan = write_plan(make_profile(CONTROLLED, control=CONTROL))
    (first,) = plan.segments(1000.0, 1, {})
    assert first.pdu.data.hex() == "10" + "0005" + "0002" + "04" + "0064" + "0001"
    (second,) = plan.segments(1010.0, 2, {"enable": b"\x00\x01"})
    assert second.points == (("setpoint_w", b"\x00\x65"),)
    assert plan.segments(1000.0, 3, {}) == [first], "a value that comes again is encoded as it was"


def test_a_value_that_was_refused_is_refused_again_and_what_was_taken_before_still_is() -> None:
    plan = write_plan(make_profile(CONTROLLED, control=CONTROL))
    taken = plan.segments(1000.0, 1, {})
    for _ in range(2):
        with pytest.raises(EncodeError, match="setpoint_w"):
            plan.segments(1e9, 2, {})
    assert plan.segments(1000.0, 3, {}) == taken
