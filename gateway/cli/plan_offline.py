"""A plan without a running gateway: from the site file alone, with the twins' series as history and forecast."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from config.planning import Planning, StorageSettings
from config.profile import Profile
from config.site import Site
from config.vocabulary import DeviceKind
from gateway.control.model import DeviceModel, SiteModel, build_site_model
from gateway.planning.messages import BatteryState, CarState, ConnectionState, MeasuredStep, PlanMessage, StateMessage
from sim_devices.series import Series, SeriesError, load_series

HISTORY_DAYS = 7


class OfflineError(Exception):
    """The site file does not say enough; the text is for the user."""


def plan_offline(site: Site, profiles: dict[str, Profile]) -> PlanMessage:
    """One plan from the simulation's start on: batteries and cars as their twins begin; raises OfflineError."""
    from gateway.planning.planner import Planner

    return Planner(None).plan(offline_state(site, profiles))


def offline_state(site: Site, profiles: dict[str, Profile]) -> StateMessage:
    """What control would say at the simulation's start, had it measured the series for a week."""
    planning = site.planning or Planning()
    model = build_site_model(site, profiles)
    begin_s = site.simulation.start.replace(tzinfo=ZoneInfo(planning.time_zone)).timestamp()
    measured = _measured(site, model, planning, begin_s)
    inverters = [one for one in model.devices if one.kind is DeviceKind.INVERTER]
    return StateMessage(
        id=1,
        utc_s=begin_s,
        planning=planning,
        connection=ConnectionState(
            max_import_w=model.max_import_w,
            max_export_w=model.max_export_w,
            fallback_import_w=model.fallback_import_w,
            fallback_export_w=model.fallback_export_w,
            fallback_holds=False,
            watts_per_a=model.phases * model.nominal_voltage_v,
            rest_min_w=model.rest_min_w,
            rest_max_w=model.rest_max_w,
        ),
        rest_w=measured[-1].rest_w,
        sun_pu=measured[-1].sun_pu,
        sun_rating_w=sum(one.rating_w for one in inverters),
        batteries=tuple(_battery(one, site, planning) for one in model.devices if one.capacity_wh is not None),
        cars=tuple(
            CarState(
                name=one.name,
                max_w=one.max_w,
                needed_wh=one.needed_wh or 0.0,
                leaves_utc_s=begin_s + (one.stay_s or 0.0),
            )
            for one in model.devices
            if one.needed_wh is not None and site.devices[one.name].twin.evs
        ),
        measured=measured,
    )


def _battery(one: DeviceModel, site: Site, planning: Planning) -> BatteryState:
    return BatteryState(
        name=one.name,
        capacity_wh=one.capacity_wh or 0.0,
        soc=site.devices[one.name].twin.soc,
        soc_min=one.soc_min,
        soc_max=one.soc_max,
        charge_w=max(one.max_w, 0.0),
        discharge_w=max(-one.min_w, 0.0),
        settings=planning.storages.get(one.name, StorageSettings()),
    )


def _measured(site: Site, model: SiteModel, planning: Planning, begin_s: float) -> tuple[MeasuredStep, ...]:
    """A week before the start, by the clock's steps; a series that is shorter repeats, as it does for the twins."""
    try:
        series = load_series()
        start_s = series.position(site.simulation.start)
        loads = None if site.simulation.load.series is None else series.column(site.simulation.load.series)
        suns = {
            one.name: series.column(column)
            for one in model.devices
            if one.kind is DeviceKind.INVERTER and (column := site.devices[one.name].twin.series) is not None
        }
    except SeriesError as error:
        raise OfflineError(str(error)) from error
    step_s = float(planning.step_s)
    first_s = (begin_s - HISTORY_DAYS * 86_400.0) // step_s * step_s
    rating_w = sum(site.devices[name].rating_w for name in suns)
    steps = []
    for at in range(int((begin_s - first_s) // step_s)):
        elapsed_s = first_s + (at + 0.5) * step_s - begin_s
        load = site.simulation.load
        rest_w = load.constant_w + (0.0 if loads is None else load.scale_w * series.value(loads, start_s, elapsed_s))
        sun_pu = _sun_pu(site, series, suns, start_s, elapsed_s, rating_w)
        steps.append(MeasuredStep(begin_utc_s=first_s + at * step_s, rest_w=rest_w, sun_pu=sun_pu))
    return tuple(steps)


def _sun_pu(
    site: Site, series: Series, suns: dict[str, list[float]], start_s: float, elapsed_s: float, rating_w: float
) -> float | None:
    if not rating_w:
        return None
    powers = (site.devices[name].rating_w * series.value(values, start_s, elapsed_s) for name, values in suns.items())
    return max(sum(powers) / rating_w, 0.0)
