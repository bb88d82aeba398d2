"""Site functions at abnormal voltage and frequency, for sites whose devices do not do it themselves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.grid_functions import FrequencyDroop, VoltWatt
from config.strict import Strict


class GridSupport(Strict):
    """Bounds on net active power by the meter's voltage and frequency: IEEE 1547-2018, of the connection's rating.

    Off unless given. Not for devices that have these functions themselves: both would act. Limits come before them.
    """

    volt_watt: VoltWatt | None = Field(None, description="the most net export by voltage; {}: the standard's curve")
    frequency_watt: FrequencyDroop | None = Field(
        None, description="the devices' power by frequency; {}: the standard's droop"
    )
    nominal_frequency_hz: Literal[50, 60] = Field(50, description="of the grid")
