"""Register tables of meters as their makers document them, one file a device; `TWINS` names them by profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from config.vocabulary import DeviceKind
from sim_devices.modbus.family import ProfileTwin
from sim_devices.modbus.meters import carlo_gavazzi_em340, eastron_sdm630, janitza_umg604

TWINS: Final[Mapping[str, ProfileTwin]] = {
    "eastron_sdm630": ProfileTwin(DeviceKind.METER, eastron_sdm630.make),
    "carlo_gavazzi_em340": ProfileTwin(DeviceKind.METER, carlo_gavazzi_em340.make),
    "janitza_umg604": ProfileTwin(DeviceKind.METER, janitza_umg604.make),
}
