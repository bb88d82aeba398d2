"""The load and the sun over a plan's horizon: from history where there is any, else from a stated prior."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import exp
from typing import Final

from gateway.planning.clear_sky import ClearSky, is_available
from gateway.planning.forecast import Band, History, forecast
from gateway.planning.history import LOAD, SUN, SiteHistory
from gateway.planning.messages import StateMessage
from gateway.planning.site_input import horizon_of

SUN_FADES_S: Final = 2.0 * 3600.0
LEAST_CLEAR_PU: Final = 0.05
"""With less sun than this a ratio to it says nothing."""

PRIOR_CLEARNESS: Final = 0.6
PRIOR_CLEARNESS_RANGE: Final = (0.2, 1.0)
MOST_CLEARNESS: Final = 1.5
MOST_SUN_PU: Final = 1.1

NO_LOAD: Final = "no history of the load yet: the present load is taken to go on, within the site's declared range"
NO_LOAD_AT_ALL: Final = "no load is measured: the middle of the site's declared range is taken"
NO_SUN: Final = "no history of the sun yet: what the inverters give now is taken to fade within hours"
NO_SUN_BUT_SKY: Final = "no history of the sun yet: a part of the clear sky is taken"


@dataclass(frozen=True, slots=True)
class Expectation:
    """Bands by step, watts; the sun as magnitudes of all inverters. `assumptions` say what is only supposed."""

    load: Band
    sun: Band
    assumptions: tuple[str, ...]


def clear_sky_of(state: StateMessage) -> ClearSky | None:
    """The sky above a site that says where it is, if pvlib is there."""
    planning = state.planning
    if planning.latitude is None or planning.longitude is None or not is_available():
        return None
    return ClearSky(planning.latitude, planning.longitude)


def expect(state: StateMessage, history: SiteHistory, sky: ClearSky | None, *, scored: bool = True) -> Expectation:
    """The bands from the state's time on; `scored` remembers those of the clock's own steps, to be scored."""
    horizon = horizon_of(state)
    begin_s = state.utc_s // horizon.step_s * horizon.step_s
    share = (state.utc_s - begin_s) / horizon.step_s
    load, load_prior = _load(state, history, begin_s, horizon.steps + 1)
    sun, sun_prior = _sun(state, history, sky, begin_s, horizon.steps + 1)
    if scored:
        history.expect(LOAD, state.utc_s, begin_s, load)
        history.expect(SUN, state.utc_s, begin_s, sun)
    rating_w = state.sun_rating_w
    watts = Band(*(tuple(value * rating_w for value in side) for side in sun))
    assumptions = tuple(filter(None, (load_prior, sun_prior if rating_w > 0.0 else "")))
    return Expectation(_shifted(load, share), _shifted(watts, share), assumptions)


def _shifted(band: Band, share: float) -> Band:
    """Steps that begin a part of a step later: of each the rest, and of the next one that part."""
    return Band(*(tuple(a + share * (b - a) for a, b in pairwise(side)) for side in band))


def _load(state: StateMessage, history: SiteHistory, begin_s: float, steps: int) -> tuple[Band, str]:
    band = forecast(history.history(LOAD), begin_s, steps, state.planning.offset_s(begin_s))
    if band is not None:
        return band, ""
    low_w, high_w = state.connection.rest_min_w, state.connection.rest_max_w
    said, middle_w = NO_LOAD, state.rest_w
    if middle_w is None:
        said, middle_w = NO_LOAD_AT_ALL, (low_w + high_w) / 2.0
    low_w, high_w = min(low_w, middle_w), max(high_w, middle_w)
    return Band((low_w,) * steps, (middle_w,) * steps, (high_w,) * steps), said


def _sun(
    state: StateMessage, history: SiteHistory, sky: ClearSky | None, begin_s: float, steps: int
) -> tuple[Band, str]:
    """Per unit of the ratings."""
    known, step_s = history.history(SUN), history.step_s
    offset_s = state.planning.offset_s(begin_s)
    if sky is None:
        band = forecast(known, begin_s, steps, offset_s)
        return (_clipped(band, MOST_SUN_PU), "") if band is not None else (_fading_sun(state, steps, step_s), NO_SUN)
    clear = sky.at(begin_s + (at + 0.5) * step_s for at in range(steps))
    ratio = forecast(_clearness(known, sky), begin_s, steps, offset_s)
    if ratio is None:
        return _part_of(clear, state.sun_pu), NO_SUN_BUT_SKY
    ratio = _clipped(ratio, MOST_CLEARNESS)
    return Band(*(tuple(a * b for a, b in zip(side, clear, strict=True)) for side in ratio)), ""


def _clearness(known: History, sky: ClearSky) -> History:
    """The history as parts of the clear sky, by day."""
    begins = list(known.powers_w)
    clear = sky.at(begin_s + known.step_s / 2.0 for begin_s in begins)
    parts = {at: known.powers_w[at] / full for at, full in zip(begins, clear, strict=True) if full >= LEAST_CLEAR_PU}
    return History(known.step_s, parts)


def _part_of(clear: list[float], now_pu: float | None) -> Band:
    full = clear[0]
    middle = PRIOR_CLEARNESS if now_pu is None or full < LEAST_CLEAR_PU else min(now_pu / full, MOST_CLEARNESS)
    low, high = min(PRIOR_CLEARNESS_RANGE[0], middle), max(PRIOR_CLEARNESS_RANGE[1], middle)
    return Band(*(tuple(part * value for value in clear) for part in (low, middle, high)))


def _fading_sun(state: StateMessage, steps: int, step_s: float) -> Band:
    now_pu = state.sun_pu or 0.0
    middle = tuple(now_pu * exp(-at * step_s / SUN_FADES_S) for at in range(steps))
    return Band((0.0,) * steps, middle, (1.0,) * steps)


def _clipped(band: Band, most: float) -> Band:
    return Band(*(tuple(min(max(value, 0.0), most) for value in side) for side in band))
