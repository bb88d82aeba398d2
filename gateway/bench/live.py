"""The live table of a running gateway: one snapshot in, one screen out.

A snapshot is a JSON object as the gateway's local socket gives it; any value in it may be missing or null. The screen
is made for 100 columns by 30 lines; with fewer it leaves columns, then rows, out. Colour marks only what needs a look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from gateway.bench.run_files import mapping, number

QUIET: Final = "grey62"
HEAD: Final = "bold grey78"
GOOD: Final = "green"
WARN: Final = "yellow"
BAD: Final = "bold red"
ACCENT: Final = "cyan"
STATE_LOOKS: Final = {"up": GOOD, "connecting": WARN, "lost": BAD, "good": GOOD, "uncertain": WARN, "bad": BAD}
WIDE_FROM: Final = 96
DEFAULT_LINES: Final = 30
NOTHING: Final = "–"
_HALF_BAR: Final = 5
_FIXED_LINES: Final = 8


class LiveView:
    """One screen; it fits itself to the console it is printed on."""

    def __init__(self, snapshot: Mapping[str, Any]) -> None:
        self._snapshot = snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield screen(self._snapshot, options.max_width, options.height or DEFAULT_LINES)


def render(snapshot: Mapping[str, Any]) -> RenderableType:
    """The screen of a snapshot."""
    return LiveView(snapshot)


def screen(snapshot: Mapping[str, Any], width: int, lines: int) -> RenderableType:
    """The screen of a snapshot for so many columns and lines."""
    devices, orders, links = (_rows(snapshot, key) for key in ("devices", "orders", "links"))
    connection = _connection(snapshot, width)
    # Header, rules, a table head and footer stand; what is left goes to devices first, then orders, then links.
    left = lines - len(connection) - _FIXED_LINES
    shown_devices = devices[: max(left - 4, 1)]
    left -= len(shown_devices)
    shown_orders = orders[: max(min(len(orders), left - 2), 1)]
    left -= max(len(shown_orders), 1)
    return Group(
        _header(snapshot),
        _rule("Connection point"),
        *connection,
        _rule("Devices", len(devices) - len(shown_devices)),
        _device_table(shown_devices, width),
        _rule("Orders", len(orders) - len(shown_orders)),
        _order_table(shown_orders, width),
        _rule("Links"),
        *_links(links, width, max(left, 1)),
        _rule(""),
        _footer(snapshot, width),
    )


def _rows(snapshot: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    given = snapshot.get(key)
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def _said(value: object) -> str:
    """A text of the snapshot, on one line."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def _kw(value: object, digits: int = 2) -> str:
    """Power in kW with its sign; a dash where there is none."""
    power_w = number(value)
    if power_w is None:
        return NOTHING
    text = f"{power_w / 1e3:+.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def _plain(value: object, digits: int, unit: str) -> str:
    found = number(value)
    return NOTHING if found is None else f"{found:.{digits}f} {unit}".rstrip()


def _rule(title: str, hidden: int = 0) -> Rule:
    more = f" ({hidden} more)" if hidden > 0 else ""
    return Rule(Text(f"{title}{more}", style=HEAD) if title else "", align="left", style="grey35")


def _sides(left: Text, right: Text) -> Table:
    """One line with something at either end."""
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_row(left, right)
    return table


def _header(snapshot: Mapping[str, Any]) -> RenderableType:
    title = Text.assemble(("Lamina ", "bold"), (_said(snapshot.get("title")) or _said(snapshot.get("site")), QUIET))
    state = _said(mapping(snapshot.get("mode")).get("state"))
    looks = {"normal": GOOD, "fallback": WARN}
    parts: list[tuple[str, str] | str] = []
    if phase := _said(snapshot.get("phase")):
        parts += [(phase, ACCENT), "  "]
    if snapshot.get("observe") is True:
        parts += [("observing, nothing is written", WARN), "  "]
    clock = _said(snapshot.get("utc"))
    time_of_day = clock[11:19] if len(clock) >= 19 else ""
    parts += [(f"{time_of_day}  ", QUIET), (f"● {state or 'starting'}", looks.get(state, QUIET))]
    return _sides(title, Text.assemble(*parts))


def _connection(snapshot: Mapping[str, Any], width: int) -> list[RenderableType]:
    """Net power, the bar between the bounds in force, where the bounds come from, and what cannot be kept."""
    point = mapping(snapshot.get("connection"))
    net_w, target_w = number(point.get("net_w")), number(point.get("target_w"))
    lower_w, upper_w = number(point.get("lower_w")), number(point.get("upper_w"))
    tolerance_w = 0.01 * (number(point.get("rating_w")) or 0.0)
    outside = net_w is not None and (
        (lower_w is not None and net_w < lower_w - tolerance_w)
        or (upper_w is not None and net_w > upper_w + tolerance_w)
    )
    direction = "" if net_w is None else " import" if net_w > 0 else " export" if net_w < 0 else ""
    left = Text.assemble((f"{_kw(net_w)} kW", BAD if outside else "bold"), (direction, BAD if outside else QUIET))
    if target_w is not None:
        left.append(f"   target {_kw(target_w)} kW", style=ACCENT)
        left.append(f" {_said(point.get('target_source'))}", style=QUIET)
    quality = _said(point.get("quality"))
    right = Text(f"{_plain(point.get('voltage_v'), 1, 'V')}  {_plain(point.get('frequency_hz'), 2, 'Hz')}  ", QUIET)
    right.append(f"{quality or NOTHING} {_plain(point.get('age_s'), 1, 's')}", style=_quality_look(quality))
    rows = [_sides(left, right), _bar(net_w, target_w, lower_w, upper_w, width), _sources(point)]
    if reason := _said(mapping(snapshot.get("mode")).get("reason")):
        rows.append(Text(reason, style=WARN, no_wrap=True, overflow="ellipsis"))
    if meter := _said(point.get("meter")):
        rows.append(Text(meter, style=BAD, no_wrap=True, overflow="ellipsis"))
    unmet = point.get("unmet")
    if isinstance(unmet, list) and unmet:
        text = "cannot be kept: " + "; ".join(_said(item) for item in unmet)
        rows.append(Text(text, style=BAD, no_wrap=True, overflow="ellipsis"))
    if planner := mapping(snapshot.get("planner")):
        rows.append(_plan(planner, point))
    return rows


def _plan(planner: Mapping[str, Any], point: Mapping[str, Any]) -> Text:
    """The plan in force and the local price; or that there is none, and why."""
    in_force = planner.get("state") == "in force"
    text = Text("plan ", style=QUIET, no_wrap=True, overflow="ellipsis")
    if in_force:
        text.append(f"{_plain(planner.get('id'), 0, '')}, {_length(number(planner.get('age_s')) or 0.0)} old")
    else:
        text.append(_said(planner.get("state")) or NOTHING, style=WARN)
    text.append(f"   local price {_plain(point.get('lambda_per_kwh'), 3, '')}", style=ACCENT)
    if given_up := mapping(planner.get("given_up")):
        text.append(f"   given up: {', '.join(map(str, given_up))}", style=WARN)
    elif not in_force and (reason := _said(planner.get("reason"))):
        text.append(f"   {reason}", style=QUIET)
    return text


def _quality_look(quality: str) -> str:
    return QUIET if quality == "good" else STATE_LOOKS.get(quality, QUIET)


def _bar(
    net_w: float | None, target_w: float | None, lower_w: float | None, upper_w: float | None, width: int
) -> RenderableType:
    """The room between the bounds, with zero, target and net power in it; an arrow where net power is outside."""
    low, high = _kw(lower_w, 1), _kw(upper_w, 1)
    cells = width - len(low) - len(high) - 4
    if lower_w is None or upper_w is None or upper_w <= lower_w or cells < 10:
        return Text.assemble(
            (low, QUIET), "  ", ("no room to show" if cells < 10 else NOTHING, QUIET), "  ", (high, QUIET)
        )
    room_w = upper_w - lower_w

    def cell(power_w: float) -> int:
        return min(max(round((power_w - lower_w) / room_w * (cells - 1)), 0), cells - 1)

    line, looks = ["─"] * cells, ["grey42"] * cells
    if lower_w < 0 < upper_w:
        line[cell(0.0)], looks[cell(0.0)] = "┼", QUIET
    if target_w is not None:
        line[cell(target_w)], looks[cell(target_w)] = "◇", ACCENT
    if net_w is not None:
        is_outside = not lower_w <= net_w <= upper_w
        place = cell(net_w)
        line[place] = ("◀" if net_w < lower_w else "▶") if is_outside else "●"
        looks[place] = BAD if is_outside else "bold bright_white"
    bar = Text.assemble((f"{low} ", QUIET), ("┣", QUIET))
    for mark, look in zip(line, looks, strict=True):
        bar.append(mark, style=look)
    return bar.append("┫", style=QUIET).append(f" {high}", style=QUIET)


def _sources(point: Mapping[str, Any]) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis", justify="right")
    lower, upper = (_said(point.get(key)) for key in ("lower_source", "upper_source"))
    table.add_row(Text(lower or NOTHING, style=QUIET), Text(upper or NOTHING, style=QUIET))
    return table


def _plain_table(columns: Sequence[tuple[str, str]], stretched: str, wide: bool) -> Table:
    """A table without lines; the column named `stretched` takes the room that is left, cut where it is too narrow."""
    table = Table(box=None, expand=True, padding=(0, 2 if wide else 1, 0, 0), header_style=QUIET, show_edge=False)
    for name, justify in columns:
        is_stretched = name == stretched
        table.add_column(
            name,
            justify="right" if justify == "right" else "left",
            no_wrap=True,
            overflow="ellipsis" if is_stretched else "crop",
            ratio=1 if is_stretched else None,
        )
    return table


def _device_table(devices: Sequence[Mapping[str, Any]], width: int) -> RenderableType:
    wide = width >= WIDE_FROM
    columns = [("device", "left"), ("", "left"), ("kW", "right"), ("setpoint", "right")]
    columns += [("room", "right")] if wide else []
    columns += [("state", "left"), ("age", "right"), ("cause", "left")]
    table = _plain_table(columns, stretched="cause", wide=wide)
    for device in devices:
        quality = _said(device.get("quality"))
        power = Text(_kw(device.get("power_w")), style="" if quality in ("good", "") else STATE_LOOKS.get(quality, ""))
        low, high = (_kw(device.get(key), 1) for key in ("lower_w", "upper_w"))
        room = [Text(f"{low:>6} … {high:>6}", style=QUIET)] if wide else []
        read_only = device.get("writable") is False
        age = _plain(device.get("age_s"), 1, "s")
        table.add_row(
            Text(_said(device.get("name")), style="bold"),
            _small_bar(device),
            power,
            Text("read only" if read_only else _kw(device.get("setpoint_w")), style=QUIET if read_only else ""),
            *room,
            _state(device),
            Text(age if quality == "good" else f"{quality} {age}".strip(), style=_quality_look(quality)),
            Text(_said(device.get("cause")), style=QUIET),
        )
    return table


def _small_bar(device: Mapping[str, Any]) -> Text:
    """Power against the rating: to the left of the middle what the device gives, to the right what it takes."""
    power_w, rating_w = number(device.get("power_w")), number(device.get("rating_w"))
    if power_w is None or not rating_w:
        return Text("·" * (2 * _HALF_BAR + 1), style="grey35")
    full = min(round(abs(power_w) / rating_w * _HALF_BAR), _HALF_BAR)
    bar = Text("╌" * (_HALF_BAR - full) if power_w < 0 else "╌" * _HALF_BAR, style="grey35")
    if power_w < 0:
        bar.append("━" * full, style="green")
    bar.append("│", style=QUIET)
    if power_w >= 0:
        bar.append("━" * full, style="blue")
    return bar.append("╌" * (_HALF_BAR if power_w < 0 else _HALF_BAR - full), style="grey35")


def _state(device: Mapping[str, Any]) -> Text:
    """State of charge of a battery, IEC 61851 state of a charger."""
    soc, state = number(device.get("soc")), _said(device.get("state"))
    words = {"A": "no car", "B": "car waits", "C": "charging", "D": "charging", "E": "no supply", "F": "fault"}
    if soc is not None:
        return Text(f"{100.0 * soc:.1f} %")
    return Text(words.get(state, state), style=BAD if state in ("E", "F") else "")


def _order_table(orders: Sequence[Mapping[str, Any]], width: int) -> RenderableType:
    if not orders:
        return Text("none in force", style=QUIET)
    columns = [("order", "left"), ("from", "left")] + ([("kind", "left")] if width >= WIDE_FROM else [])
    table = _plain_table([*columns, ("asks", "left"), ("", "right")], stretched="asks", wide=width >= WIDE_FROM)
    table.show_header = False
    for order in orders:
        kind = [Text(_said(order.get("kind")), style=QUIET)] if width >= WIDE_FROM else []
        table.add_row(
            Text(_said(order.get("id")), style="bold"),
            Text(_said(order.get("source")), style=QUIET),
            *kind,
            Text(_said(order.get("text"))),
            Text(_remaining(order), style=QUIET),
        )
    return table


def _remaining(order: Mapping[str, Any]) -> str:
    starts_s, left_s = number(order.get("starts_in_s")), number(order.get("remaining_s"))
    if starts_s:
        return f"starts in {_length(starts_s)}"
    return "until replaced" if left_s is None else f"{_length(max(left_s, 0.0))} left"


def _length(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _links(links: Sequence[Mapping[str, Any]], width: int, lines: int) -> list[RenderableType]:
    """Every link and what is wrong with those that are not up; where there is no room for all, how many are up."""
    trouble: list[RenderableType] = [_trouble(link) for link in links if link.get("state") != "up"]
    every = _every_link(links, width)
    if len(every) + len(trouble) <= lines:
        return [*every, *trouble]
    up = f"{len(links) - len(trouble)} of {len(links)} up"
    return [Text(up, style=WARN if trouble else QUIET), *trouble][:lines]


def _every_link(links: Sequence[Mapping[str, Any]], width: int) -> list[RenderableType]:
    """As many links beside each other as fit, each with a mark for its state and its reconnections."""
    if not links:
        return [Text("none", style=QUIET)]
    cells = []
    for link in links:
        state = _said(link.get("state"))
        reconnects = number(link.get("reconnects")) or 0
        text = Text.assemble(("● ", STATE_LOOKS.get(state, QUIET)), _said(link.get("name")))
        text.append(f" ↻{reconnects:.0f}" if reconnects else "", style=QUIET)
        paused = number(link.get("paused")) or 0
        cells.append(text.append(f" {paused:.0f} paused" if paused else "", style=WARN))
    cell_width = min(max(cell.cell_len for cell in cells) + 2, width)
    beside = max(width // cell_width, 1)
    lines: list[RenderableType] = []
    for first in range(0, len(cells), beside):
        line = Text(no_wrap=True, overflow="ellipsis")
        for cell in cells[first : first + beside]:
            cell.truncate(cell_width, overflow="ellipsis", pad=True)
            line.append_text(cell)
        lines.append(line)
    return lines


def _trouble(link: Mapping[str, Any]) -> Text:
    state = _said(link.get("state")) or "unknown"
    devices = link.get("devices")
    names = f" ({', '.join(map(str, devices))})" if isinstance(devices, list) and devices else ""
    text = f"{_said(link.get('name'))}{names} {state}: {_said(link.get('reason')) or 'no reason known'}"
    return Text(text, style=STATE_LOOKS.get(state, WARN), no_wrap=True, overflow="ellipsis")


def _footer(snapshot: Mapping[str, Any], width: int) -> RenderableType:
    cycle, process = mapping(snapshot.get("cycle")), mapping(snapshot.get("process"))
    missed = number(cycle.get("missed"))
    parts: list[tuple[str, str] | str] = [
        (f"cycle {_plain(cycle.get('count'), 0, '')}", QUIET),
        (f"  missed {_plain(missed, 0, '')}", WARN if missed else QUIET),
        (f"  took {_plain(cycle.get('cycle_ms_p50'), 1, '')}, p99 {_plain(cycle.get('cycle_ms_p99'), 1, 'ms')}", QUIET),
        (f"  jitter p99 {_plain(cycle.get('jitter_ms_p99'), 1, 'ms')}", QUIET),
    ]
    right = f"{_plain(process.get('rss_mb'), 0, 'MB')}  {_plain(process.get('cpu_pct'), 0, '%')}"
    if width >= WIDE_FROM:
        parts.append((f"  of {_plain(cycle.get('period_ms'), 0, 'ms')}", QUIET))
        refused = number(snapshot.get("refused_orders"))
        parts.append((f"  refused {refused:.0f}", QUIET) if refused is not None else "")
    return _sides(Text.assemble(*parts), Text(right, style=QUIET))
