"""Register tables of chargers as their makers document them, one file a device; `TWINS` names them by profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from config.vocabulary import DeviceKind
from sim_devices.modbus.chargers import abb_terra_ac, alfen_eve, phoenix_charx
from sim_devices.modbus.family import ProfileTwin

TWINS: Final[Mapping[str, ProfileTwin]] = {
    "alfen_eve": ProfileTwin(DeviceKind.CHARGER, alfen_eve.make, alfen_eve.make_station),
    "abb_terra_ac": ProfileTwin(DeviceKind.CHARGER, abb_terra_ac.make),
    "phoenix_charx": ProfileTwin(DeviceKind.CHARGER, phoenix_charx.make),
}
