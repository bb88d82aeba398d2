"""What a measured step says about a device, its profile and the meter: sign, size, phase, response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gateway.commission.response import Seen

NO_RESPONSE_PU = 0.2
"""Of the step: less than this is no response."""

DELIVERS_PU = (0.85, 1.15)
METER_AGREES_PU = 0.1
_SIGMAS = 4.0


def own_findings(asked_w: float, own: Seen, meter: Seen | None) -> Iterator[str]:
    """What is wrong with the device's own power after a step of `asked_w`."""
    share = own.change_w / asked_w
    if abs(share) < NO_RESPONSE_PU:
        if meter is not None and abs(meter.change_w) >= 0.5 * abs(asked_w):
            yield (
                f"the meter sees {meter.change_w:+.0f} W and the device's own power_w only {own.change_w:+.0f} W: "
                "is power_w the right point, with the right scale?"
            )
        else:
            yield f"does not respond: {asked_w:+.0f} W asked, {own.change_w:+.0f} W came"
    elif share < 0:
        yield (
            f"moves the other way: {asked_w:+.0f} W asked, {own.change_w:+.0f} W came; its profile has the wrong sign"
        )
    elif not DELIVERS_PU[0] <= share <= DELIVERS_PU[1]:
        yield f"delivers {100 * share:.0f} % of the step: {asked_w:+.0f} W asked, {own.change_w:+.0f} W came"


def meter_findings(meter_name: str, asked_w: float, own: Seen, meter: Seen) -> Iterator[str]:
    """What is wrong with the meter's view of a step that the device has made; nothing where it has made none."""
    if abs(own.change_w) < NO_RESPONSE_PU * abs(asked_w):
        return
    tolerance_w = max(METER_AGREES_PU * abs(own.change_w), _SIGMAS * meter.noise_w)
    if abs(meter.change_w) < NO_RESPONSE_PU * abs(own.change_w):
        yield (
            f"meter {meter_name} does not see the step: the device moved by {own.change_w:+.0f} W, "
            f"the meter by {meter.change_w:+.0f} W"
        )
    elif meter.change_w * own.change_w < 0:
        yield (
            f"meter {meter_name} shows the opposite sign: the device moved by {own.change_w:+.0f} W, "
            f"the meter by {meter.change_w:+.0f} W; it is mounted the wrong way round, or its profile has a wrong sign"
        )
    elif abs(meter.change_w - own.change_w) > tolerance_w:
        yield (
            f"meter {meter_name} sees {meter.change_w:+.0f} W of the device's {own.change_w:+.0f} W: "
            "a transformer ratio, a scale, or another load moved"
        )


def phase_findings(phases: Sequence[int], changes_w: Mapping[int, float], own: Seen) -> Iterator[str]:
    """Where the step shows on other phases of the meter than the site file says; `changes_w` by phase."""
    if len(changes_w) < 3 or own.change_w == 0.0:
        return
    shares = {phase: change_w / own.change_w for phase, change_w in changes_w.items()}
    expected = 1.0 / len(phases)
    seen = sorted(phase for phase, share in shares.items() if abs(share) > 0.5 * expected)
    if seen != sorted(phases):
        on = ", ".join(map(str, seen)) or "none"
        yield f"the step is seen on phases {on}; the site file says {', '.join(map(str, sorted(phases)))}"
