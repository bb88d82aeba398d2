"""The settings of the compliance functions: what a grid rule asks of this site beyond the limits that it is sent.

Every function is off unless it is named. Powers are magnitudes. `docs/compliance.md` says what each does and by which
clause.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from config.findings import Problem
from config.partial import known
from config.strict import Flag, Name, NotNegative, Positive, Rule, Strict

FAILSAFE_LEAST_S: Final = 2 * 3600.0
FAILSAFE_MOST_S: Final = 24 * 3600.0
"""The range of the fail-safe duration minimum: [LPC-022], [LPP-022]."""

_Autonomous = Literal["unlimited", "failsafe"]
_DURATION: Final = "shortest stay in the fail-safe state, unless the parent comes back; 2 to 24 h ([LPC-022])"
_AUTONOMOUS: Final = (
    "what holds when the fail-safe has ended without the parent: nothing, as [LPC-921] and [LPC-922] allow, or still "
    "the fail-safe value"
)


class EebusLpc(Strict):
    """EEBus limitation of power consumption (use case LPC 1.0.0); this site is the controllable system."""

    source: Name = Field(description="the parent that is the energy guard")
    failsafe_w: NotNegative = Field(description="holds from the start and while the energy guard is silent")
    failsafe_duration_s: Annotated[float, Field(strict=True, ge=FAILSAFE_LEAST_S, le=FAILSAFE_MOST_S)] = Field(
        FAILSAFE_LEAST_S, description=_DURATION
    )
    quantity: Literal["net_import_w", "load_w", "controllable_load_w"] = Field(
        "net_import_w", description="what the limit is on; section 14a EnWG means controllable_load_w"
    )
    autonomous: _Autonomous = Field("unlimited", description=_AUTONOMOUS)


class EebusLpp(Strict):
    """EEBus limitation of power production (use case LPP 1.0.0); this site is the controllable system."""

    source: Name = Field(description="the parent that is the energy guard")
    failsafe_w: NotNegative = Field(description="holds from the start and while the energy guard is silent")
    failsafe_duration_s: Annotated[float, Field(strict=True, ge=FAILSAFE_LEAST_S, le=FAILSAFE_MOST_S)] = Field(
        FAILSAFE_LEAST_S, description=_DURATION
    )
    quantity: Literal["net_export_w", "generation_w"] = Field("net_export_w", description="what the limit is on")
    autonomous: _Autonomous = Field("unlimited", description=_AUTONOMOUS)


def _limits_something(settings: ErecG100) -> Iterator[Problem]:
    if settings.max_export_w is None and settings.max_import_w is None:
        yield Problem((), "limits neither import nor export", "max_export_w, max_import_w, or both")


class ErecG100(Strict):
    """ENA EREC G100 issue 2: a customer limitation scheme with its excursion counts and lock-out."""

    max_export_w: NotNegative | None = Field(None, description="the maximum export limit (MEL) agreed")
    max_import_w: NotNegative | None = Field(None, description="the maximum import limit (MIL) agreed")
    premises: Literal["domestic", "commercial"] = Field("domestic", description="decides how a lock-out is reset")
    count_trigger: Literal["third", "more_than_three"] = Field(
        "third", description="how many excursions of 15 s in 24 h lock out: the third, or more than three"
    )
    tolerance_w: NotNegative = Field(0.0, description="beyond a limit by up to this is no excursion; the rule has none")

    rules: ClassVar[tuple[Rule, ...]] = (_limits_something,)


class Section14a(Strict):
    """Section 14a EnWG, BNetzA BK6-22-300: a minimum of power for controllable devices that are reduced."""

    source: Name = Field(description="the parent that passes on the network operator's reductions")
    devices: Annotated[dict[Name, Literal["charge_point", "heat_pump", "cooling", "storage"]], Field(min_length=1)] = (
        Field(description="the controllable devices of this site by name, and which case each is")
    )
    control: Literal["ems", "direct"] = Field(
        "ems", description="one value for all (simultaneity factors), or each device by itself (4.2 kW, or 40 %)"
    )
    raise_to_minimum: Flag = Field(
        False, description="holds the minimum where less is ordered; else the order holds, and the state says so"
    )
    heartbeat_timeout_s: Positive = Field(120.0, description="silence after which the devices are held to the minimum")


class CsipProgram(Strict):
    """One DER program: a parent and its primacy."""

    source: Name = Field(description="the parent that passes on the program's controls")
    primacy: Annotated[int, Field(strict=True, ge=0, le=255)] = Field(
        0, description="lower goes first: of controls at the same time the one of the lowest primacy holds"
    )


def _programs_once(settings: CsipAus) -> Iterator[Problem]:
    names = [program.source for program in settings.programs]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem(("programs", index, "source"), f"'{name}' has two programs", "each parent once")


class CsipAus(Strict):
    """CSIP-AUS (SA HB 218): the default control on loss, primacy, setGradW and randomised starts."""

    programs: Annotated[tuple[CsipProgram, ...], Field(min_length=1)] = Field(description="the programs followed")
    default_export_w: NotNegative = Field(description="the default control's opModExpLimW: holds without any control")
    default_import_w: NotNegative | None = Field(None, description="opModImpLimW; default not governed")
    default_generation_w: NotNegative | None = Field(None, description="opModGenLimW; default not governed")
    default_load_w: NotNegative | None = Field(None, description="opModLoadLimW; default not governed")
    set_max_w: Positive = Field(description="setMaxW, of which set_grad_w is a share")
    set_grad_w: Annotated[int, Field(strict=True, ge=0, le=65_535)] = Field(
        27, description="setGradW: hundredths of a percent of set_max_w a second; 0 for no ramp"
    )
    ramp: Literal["relaxing", "both"] = Field(
        "relaxing", description="what setGradW ramps: only what relaxes, or every change"
    )
    randomise_start_s: Annotated[float, Field(strict=True, ge=0, le=3600)] = Field(
        0.0, description="a control begins and ends later by a part of this, which its id decides"
    )
    heartbeat_timeout_s: Positive = Field(600.0, description="silence after which the default control holds, too")

    rules: ClassVar[tuple[Rule, ...]] = (_programs_once,)


def _soft_within_hard(settings: As4777) -> Iterator[Problem]:
    pairs = (("soft_export_w", "hard_export_w"), ("soft_generation_w", "hard_generation_w"))
    if all(getattr(settings, name) is None for pair in pairs for name in pair):
        yield Problem((), "limits neither export nor generation", "a soft or a hard limit")
    for soft, hard in pairs:
        low, high = getattr(settings, soft), getattr(settings, hard)
        if low is not None and high is not None and low > high:
            yield Problem((soft,), f"{low:g} is above {hard}, {high:g}", see=(hard,))


class As4777(Strict):
    """AS/NZS 4777.1 and 4777.2: soft and hard limits on export and generation."""

    soft_export_w: NotNegative | None = Field(None, description="kept by control; beyond it at most 15 s")
    hard_export_w: NotNegative | None = Field(None, description="beyond it generation stops")
    soft_generation_w: NotNegative | None = Field(None, description="kept by control; beyond it at most 15 s")
    hard_generation_w: NotNegative | None = Field(None, description="beyond it generation stops")
    trip_after_s: Positive = Field(5.0, description="beyond a hard limit for this long, generation stops")
    reconnect_after_s: Positive = Field(60.0, description="generation stays stopped for this long")

    rules: ClassVar[tuple[Rule, ...]] = (_soft_within_hard,)


class DisturbanceMargin(Strict):
    """Zero export and fuse protection: a margin at the connection point that follows the measured disturbance."""

    most_pu: Annotated[float, Field(strict=True, gt=0, le=0.1)] = Field(
        0.03, description="of the rating, the largest margin; the smallest is `control.margin_pu`"
    )
    window_s: Annotated[float, Field(strict=True, ge=5, le=600)] = Field(
        30.0, description="how far back the disturbance is looked at"
    )
    kept_pu: Annotated[float, Field(strict=True, ge=0.5, lt=1)] = Field(
        0.98, description="the share of the time beside a bound that the margin is made for"
    )


class Compliance(Strict):
    """The compliance functions of a site. Several hold together: the tightest binds and is named."""

    eebus_lpc: EebusLpc | None = Field(None, description="limitation of power consumption; default off")
    eebus_lpp: EebusLpp | None = Field(None, description="limitation of power production; default off")
    g100: ErecG100 | None = Field(None, description="customer limitation scheme, UK; default off")
    section_14a: Section14a | None = Field(None, description="minimum power of controllable devices, DE; default off")
    csip_aus: CsipAus | None = Field(None, description="default control and programs, AU; default off")
    as4777: As4777 | None = Field(None, description="soft and hard limits, AU and NZ; default off")
    disturbance_margin: DisturbanceMargin | None = Field(None, description="default the declared margin alone")


def compliance_names(site: Any) -> Iterator[Problem]:
    """Sources are parents of the site, and devices its devices."""
    compliance = site.compliance
    parents = [parent.name for parent in site.parents if known(parent, "name")]
    for path, source in _sources(compliance):
        if source not in parents:
            yield Problem(("compliance", *path), f"'{source}' is not a parent of this site", ", ".join(parents))
    if compliance.section_14a is not None:
        for name in compliance.section_14a.devices:
            if name not in site.devices:
                at = ("compliance", "section_14a", "devices", name)
                yield Problem(at, f"'{name}' is not a device of this site", ", ".join(site.devices))


def _sources(compliance: Compliance) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for name in ("eebus_lpc", "eebus_lpp", "section_14a"):
        settings = getattr(compliance, name)
        if settings is not None:
            yield (name, "source"), settings.source
    if compliance.csip_aus is not None:
        for index, program in enumerate(compliance.csip_aus.programs):
            yield ("csip_aus", "programs", index, "source"), program.source
