"""What control knows of a site before anything is measured: numbers from the site file and the profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from config.grid_support import GridSupport
from config.lags import MeasuredLag
from config.profile import Profile
from config.site import ChildLayer, DeviceSite, Site
from config.vocabulary import POWER_W, DeviceKind
from gateway.control.clearing import Curve, make_curve

# Default curves, power per unit of rating by price: where a site file gives none, surplus goes into batteries before it
# is curtailed, and batteries give before cars wait.
DEFAULT_CURVES_PU: Final[Mapping[DeviceKind, tuple[tuple[float, float], ...]]] = {
    DeviceKind.INVERTER: ((0.0, 0.0), (0.0, -1.0)),
    DeviceKind.BATTERY: ((0.05, 1.0), (0.15, 0.0), (0.35, 0.0), (0.45, -1.0)),
    DeviceKind.CHARGER: ((0.50, 1.0), (0.60, 0.0)),
    DeviceKind.RELAY: ((0.40, 1.0), (0.40, 0.0)),
}


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """One controllable or measured device, load convention; `min_w <= max_w`.

    `ceiling`: the device takes (or generates) at most the setpoint. `step_w` and `minimum_w` describe devices that move
    in steps and not below a least power. `seen_by_meter` is False for a twin beside a real meter. `stale_after_s` is
    for devices that report more slowly than the site's own; None: as the site.

    `most_pauses`: so often is a car paused before it keeps its least current while any limit allows that; `least_on_s`:
    a car that has begun goes on so long, and `turn_s` before it makes room for one that waits.

    `deadband_w`: a smaller change is not written to it, and none within `write_interval_s` of the last.

    `reverted_w`: the least and most power of a device that nobody has written to, between `reverts_from_s` at the
    earliest and `reverts_by_s` at the latest after it was last heard; None: it holds its last setpoint. Of a layer
    below that is lost, it is the envelope that it last offered.
    """

    name: str
    kind: DeviceKind
    rating_w: float
    min_w: float
    max_w: float
    curve: Curve
    controllable: bool = True
    ceiling: bool = False
    step_w: float | None = None
    minimum_w: float = 0.0
    soc_min: float = 0.0
    soc_max: float = 1.0
    capacity_wh: float | None = None
    tr90_s: float = 1.0
    dead_time_s: float = 0.0
    needed_wh: float | None = None
    stay_s: float | None = None
    seen_by_meter: bool = True
    stale_after_s: float | None = None
    reverted_w: tuple[float, float] | None = None
    reverts_from_s: float = 0.0
    reverts_by_s: float = 0.0
    phases: tuple[int, ...] = (1, 2, 3)
    most_pauses: int = 10
    least_on_s: float = 60.0
    turn_s: float = 900.0
    deadband_w: float = 0.0
    write_interval_s: float = 0.0

    @property
    def response_s(self) -> float:
        """From a command to 90 % of its step."""
        return self.dead_time_s + self.tr90_s


@dataclass(frozen=True, slots=True)
class SiteModel:
    """The site as control sees it. Limits are magnitudes; None means unlimited.

    `meter_dead_time_s`: by how much the meter's value is older than its sample says. `grid_support` None: no function.
    """

    name: str
    rating_w: float
    meter: str
    phases: int
    nominal_voltage_v: float
    max_import_w: float
    max_export_w: float
    fuse_a: float | None
    fallback_import_w: float | None
    fallback_export_w: float | None
    rest_min_w: float
    rest_max_w: float
    rest_widens_w_per_s: float
    price_per_kwh: float
    stale_after_s: float
    margin_w: float
    integral_per_s: float
    devices: tuple[DeviceModel, ...]
    real_connection: bool = False
    meter_dead_time_s: float = 0.0
    grid_support: GridSupport | None = None


NO_LAGS: Final[Mapping[str, MeasuredLag]] = {}


def build_site_model(
    site: Site,
    profiles: Mapping[str, Profile],
    twins: frozenset[str] = frozenset(),
    *,
    on_bench: bool = False,
    lags: Mapping[str, MeasuredLag] = NO_LAGS,
) -> SiteModel:
    """The model of a site; `profiles` by device name, `twins` the devices that are simulated.

    `lags` are what commissioning has measured: they stand over the profiles' response, and the site file's own values
    over them. One measured on a twin is not used for the real device, nor the other way round.

    With `on_bench` False or every device a twin there is one world. In a mix, a real meter does not see the twins.
    """
    connection, settings = site.connection, site.control
    meter_is_real = on_bench and connection.meter not in twins
    mixed = meter_is_real and bool(twins)
    devices = tuple(
        _device_model(
            name, device, profiles[name], site, _lag(lags.get(name), name in twins), not (mixed and name in twins)
        )
        for name, device in site.devices.items()
        if profiles[name].kind is not DeviceKind.METER
    )
    return SiteModel(
        name=site.site,
        rating_w=connection.rating_w,
        meter=connection.meter,
        phases=connection.phases,
        nominal_voltage_v=connection.nominal_voltage_v,
        max_import_w=connection.rating_w if connection.max_import_w is None else connection.max_import_w,
        max_export_w=connection.rating_w if connection.max_export_w is None else connection.max_export_w,
        fuse_a=connection.fuse_a,
        fallback_import_w=_number_or_none(site.fallback.net_import_w),
        fallback_export_w=_number_or_none(site.fallback.net_export_w),
        rest_min_w=-connection.rating_w if connection.rest_min_w is None else connection.rest_min_w,
        rest_max_w=connection.rating_w if connection.rest_max_w is None else connection.rest_max_w,
        rest_widens_w_per_s=connection.rest_widens_pu_per_s * connection.rating_w,
        price_per_kwh=settings.price_per_kwh,
        stale_after_s=_stale_after_s(profiles[connection.meter]) or settings.stale_after_s,
        margin_w=settings.margin_pu * connection.rating_w,
        integral_per_s=settings.integral_per_s,
        devices=devices,
        real_connection=mixed,
        meter_dead_time_s=profiles[connection.meter].response.dead_time_s,
        grid_support=_grid_support(settings.grid_support),
    )


def with_what_may_be_written(model: SiteModel, writable: frozenset[str] | None) -> SiteModel:
    """The model in which a device that will not be written takes no share: others would count on it. None: all may be.

    Observing decides as if it wrote, to show what it would do; a gateway without leave acts on what it decides.
    """
    if writable is None:
        return model
    devices = (replace(one, controllable=one.controllable and one.name in writable) for one in model.devices)
    return replace(model, devices=tuple(devices))


def _grid_support(settings: GridSupport) -> GridSupport | None:
    return None if settings.volt_watt is None and settings.frequency_watt is None else settings


def _number_or_none(value: float | str) -> float | None:
    return None if isinstance(value, str) else value


def _lag(measured: MeasuredLag | None, is_twin: bool) -> MeasuredLag | None:
    return measured if measured is not None and (measured.measured_on == "twin") == is_twin else None


def _device_model(
    name: str, device: DeviceSite, profile: Profile, site: Site, lag: MeasuredLag | None, seen_by_meter: bool
) -> DeviceModel:
    response = profile.response if lag is None else lag
    control, rating = profile.control, device.rating_w
    least = 0.0 if profile.kind in (DeviceKind.CHARGER, DeviceKind.RELAY) else -rating
    most = 0.0 if profile.kind is DeviceKind.INVERTER else rating
    points = (
        [(point.price_per_kwh, point.power_pu) for point in device.curve]
        if device.curve is not None
        else DEFAULT_CURVES_PU.get(profile.kind, ((0.0, 0.0),))
    )
    volts = len(device.phases) * site.connection.nominal_voltage_v
    step = None
    if control is not None and control.step_a is not None:
        step = control.step_a * volts
    elif control is not None:
        step = control.step_w
    return DeviceModel(
        name=name,
        kind=profile.kind,
        rating_w=rating,
        min_w=least if device.min_w is None else device.min_w,
        max_w=most if device.max_w is None else device.max_w,
        curve=make_curve([(price, power * rating) for price, power in points]),
        controllable=control is not None and not device.read_only,
        ceiling=control is not None and control.power == "ceiling",
        step_w=step,
        minimum_w=(control.minimum_a or 0.0) * volts if control is not None else 0.0,
        soc_min=device.soc_min,
        soc_max=device.soc_max,
        capacity_wh=device.capacity_wh,
        tr90_s=response.tr90_s if device.tr90_s is None else device.tr90_s,
        dead_time_s=response.dead_time_s if device.dead_time_s is None else device.dead_time_s,
        needed_wh=device.ev.needed_wh if device.ev else None,
        stay_s=device.ev.stay_s if device.ev else None,
        seen_by_meter=seen_by_meter,
        stale_after_s=_stale_after_s(profile) or site.control.stale_after_s,
        reverted_w=_reverted_w(profile, rating),
        reverts_from_s=max((_reverts_s(device, profile) or 0.0) - (control.refresh_s if control else 0.0), 0.0),
        reverts_by_s=_reverts_s(device, profile) or _parent_is_missed_s(device),
        phases=device.phases,
        most_pauses=device.charging.most_pauses,
        least_on_s=device.charging.least_on_s,
        turn_s=device.charging.turn_s,
        deadband_w=0.0 if control is None else max(control.deadband_w, control.deadband_pu * rating),
        write_interval_s=0.0 if control is None else control.min_write_interval_s,
    )


def _reverts_s(device: DeviceSite, profile: Profile) -> float | None:
    """How long after the last write the device reverts; None where it never does."""
    if profile.on_silence.behaviour == "hold":
        return None
    armed_s = profile.control.reversion_s if profile.control is not None else None
    return (device.reversion_s if profile.on_silence.settable else None) or armed_s or profile.on_silence.after_s


def _parent_is_missed_s(device: DeviceSite) -> float:
    """How long a layer below waits for its parent until its fallback holds; 0 for all else."""
    return device.address.heartbeat_timeout_s if isinstance(device.address, ChildLayer) else 0.0


def _reverted_w(profile: Profile, rating_w: float) -> tuple[float, float] | None:
    """What silence leaves a device: everything that its kind can, or up to the value for one that takes ceilings."""
    silence, kind = profile.on_silence, profile.kind
    if silence.behaviour == "hold":
        return None
    least_w = 0.0 if kind in (DeviceKind.CHARGER, DeviceKind.RELAY) else -rating_w
    most_w = 0.0 if kind is DeviceKind.INVERTER else rating_w
    if silence.behaviour == "unlimited" or silence.value_w is None:
        return least_w, most_w
    value_w = min(max(silence.value_w, least_w), most_w)
    if profile.control is not None and profile.control.power == "ceiling":
        return min(value_w, 0.0), max(value_w, 0.0)
    return value_w, value_w


def _stale_after_s(profile: Profile) -> float | None:
    """How old the profile lets the power of a device become."""
    point = profile.points.get(POWER_W)
    return None if point is None else point.max_age_s
