"""Register tables of meters as their makers document them, one file a device; `TWINS` names them by profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sim_devices.modbus.family import ProfileTwin

TWINS: Final[Mapping[str, ProfileTwin]] = {}
