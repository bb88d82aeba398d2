"""The sun without clouds, by pvlib where it is installed: what a forecast from history is a part of."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Final

FULL_SUN_W_PER_M2: Final = 1000.0
"""Standard test conditions, IEC 60904-3."""


def is_available() -> bool:
    """Whether pvlib can be imported."""
    return find_spec("pvlib") is not None


class ClearSky:
    """Global horizontal irradiance under a clear sky, per unit of 1000 W/m2 (Haurwitz 1945, as pvlib has it).

    Horizontal, because nobody says how the modules lie: their tilt is in the ratio that history is taken by.
    """

    def __init__(self, latitude: float, longitude: float) -> None:
        self._latitude, self._longitude = latitude, longitude
        self._known: dict[float, float] = {}

    def at(self, middles_utc_s: Iterable[float]) -> list[float]:
        """Per unit at each time."""
        times = list(middles_utc_s)
        missing = sorted({time for time in times if time not in self._known})
        if missing:
            self._known.update(zip(missing, self._computed(missing), strict=True))
        return [self._known[time] for time in times]

    def _computed(self, times: list[float]) -> list[float]:
        import pandas as pd
        from pvlib.clearsky import haurwitz
        from pvlib.solarposition import get_solarposition

        index = pd.to_datetime(times, unit="s", utc=True)
        zenith = get_solarposition(index, self._latitude, self._longitude)["apparent_zenith"]
        return [float(ghi) / FULL_SUN_W_PER_M2 for ghi in haurwitz(zenith)["ghi"]]
