"""A site of its own for these tests: every kind of device, every protocol, profiles beside the site file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SITE = """\
site: depot
title: A depot
connection:
  rating_w: 100000
  meter: grid_meter
  max_import_w: 90000
fallback:
  net_import_w: 25000
  net_export_w: unlimited
parents:
  - name: dso
    dispatch: true
  - name: aggregator
    broker: {host: broker.example, username: depot, password_env: BROKER_PASSWORD, acknowledged_plain_password: true}
devices:
  grid_meter:
    profile: meter.yaml
    address: {driver: modbus_tcp, host: 192.0.2.1}
    rating_w: 100000
  pv:
    profile: inverter.yaml
    address: {driver: modbus_tcp, host: 192.0.2.2, unit: 3}
    rating_w: 60000
    min_w: -50000
    reversion_s: 30
    twin: {series: PV3}
  store:
    profile: battery.yaml
    address: {driver: opcua, url: "opc.tcp://192.0.2.3:4840/"}
    rating_w: 30000
    capacity_wh: 60000
    curve:
      - {price_per_kwh: 0.10, power_pu: 1}
      - {price_per_kwh: 0.30, power_pu: -1}
  charger:
    profile: charger.yaml
    address:
      driver: mqtt
      host: 192.0.2.4
      parameters: {serial: "000815"}
    rating_w: 22000
    acknowledged_on_silence: true
    ev: {needed_wh: 20000, stay_s: 14400}
    twin:
      evs:
        - {plug_in_s: 0, unplug_s: 50}
        - {plug_in_s: 60}
simulation:
  start: 2016-06-08T11:00:00
"""

METER = """\
profile: meter
title: A meter
kind: meter
protocol: modbus
source: {document: A manual, version: "1.0", publisher: A maker}
pace:
  unreadable: [[100, 199]]
points:
  power_w:
    modbus: {address: 0, type: int32}
    unit: W
    poll: fast
    range: [-200000, 200000]
    invalid: [0x80000000]
    source: table 1
  serial_number:
    modbus: {address: 10, type: string, length: 8}
    poll: once
    source: table 2
"""

INVERTER = """\
profile: inverter
title: An inverter
kind: inverter
protocol: modbus
source: {document: SunSpec models, version: "1.9", publisher: SunSpec Alliance}
points:
  power_w:
    sunspec: {models: [103, 101], point: W}
    sign: generator
    poll: fast
    source: model 103
  limit_pu:
    sunspec: {models: [123], point: WMaxLimPct}
    scale: 0.01
    unit: pu
    access: rw
    source: model 123
  limit_time_s:
    sunspec: {models: [123], point: WMaxLimPct_RvrtTms}
    access: rw
    source: model 123
control:
  power: ceiling
  writes:
    - {point: limit_pu, quantity: generation_pu}
    - {point: limit_time_s, quantity: reversion_s}
  reversion_s: 60
  volatile: true
on_silence: {behaviour: value, value_w: 0, after_s: 60, settable: true}
"""

BATTERY = """\
profile: battery
title: A battery
kind: battery
protocol: opcua
source: {document: An information model, version: "1", publisher: A maker}
points:
  power_w:
    opcua: {namespace: "urn:maker:battery", identifier: s=Power}
    scale: 1000
    sign: generator
    poll: fast
    source: table 1
  soc:
    opcua: {namespace: "urn:maker:battery", path: [Battery, Charge]}
    scale: 0.01
    source: table 1
  setpoint_w:
    opcua: {namespace: "urn:maker:battery", identifier: s=Setpoint}
    scale: 1000
    sign: generator
    access: rw
    source: table 1
control:
  writes:
    - {point: setpoint_w, quantity: power_w}
  refresh_s: 4
  volatile: true
on_silence: {behaviour: value, value_w: 0, after_s: 10}
"""

CHARGER = """\
profile: charger
title: A charger
kind: charger
protocol: mqtt
source: {document: A manual, version: "2", publisher: A maker}
parameters: [serial]
points:
  power_w:
    mqtt: {topic: "charger/{serial}/energy", json_path: [11]}
    poll: fast
    source: key nrg
  charging_state:
    mqtt: {topic: "charger/{serial}/car"}
    values: {1: A, 2: C, 3: B, 4: B}
    source: key car
  current_a:
    mqtt: {topic: "charger/{serial}/amp", command_topic: "charger/{serial}/amp/set"}
    access: rw
    source: key amp
control:
  power: ceiling
  writes:
    - {point: current_a, quantity: current_a}
  volatile: true
  step_a: 1
  minimum_a: 6
on_silence: {behaviour: hold}
"""

PROFILES = {"meter": METER, "inverter": INVERTER, "battery": BATTERY, "charger": CHARGER}

Edit = tuple[str, str]
"""Text and what stands in its place."""


def edited(text: str, *edits: Edit) -> str:
    """The text with each edit applied; an edit that finds nothing, or more than one place, is a wrong test."""
    for old, new in edits:
        assert text.count(old) == 1, f"{text.count(old)} times: {old}"
        text = text.replace(old, new)
    return text


@pytest.fixture
def site_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes the site with its profiles and edits; returns the site file."""

    def write(*edits: Edit, **profiles: Edit) -> Path:
        for name, text in PROFILES.items():
            own = (profiles[name],) if name in profiles else ()
            (tmp_path / f"{name}.yaml").write_text(edited(text, *own), encoding="utf-8")
        path = tmp_path / "site.yaml"
        path.write_text(edited(SITE, *edits), encoding="utf-8")
        return path

    return write


@pytest.fixture
def profile_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes one of the profiles with edits; returns its file."""

    def write(name: str, *edits: Edit) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(edited(PROFILES[name], *edits), encoding="utf-8")
        return path

    return write
