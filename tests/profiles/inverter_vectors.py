"""Registers and values of inverters and storages, worked out by hand from the vendors' documents.

Registers are hexadecimal, as they go over the wire, by the address of the first; `bad` registers hold no value.
"""

from typing import NamedTuple

Registers = dict[int, str]
Writes = list[tuple[int, str]]


class Golden(NamedTuple):
    """What a device holds and what that means; what it is sent for 5 kW of charging, for nothing, and for -5 kW."""

    profile: str
    rating_w: float
    registers: Registers
    values: dict[str, float | str]
    bad: Registers
    charge: Writes
    idle: Writes
    discharge: Writes
    rest: Writes


_COMMON = "0001 0041" + " 0000" * 65
_TEXT = " 0000" * 8


def _module(number: int, power: str, energy: str) -> str:
    return f" {number:04X}{_TEXT} 0000 0000 {power} {energy} 0000 0000 0000 0000 0000 0000"


# Model 160 has 8 fixed registers and 20 for each module (factors A, V, W, Wh; events; count; period); model 124 has 24.
_THREE_PHASES = "0067 0032" + " 0000" * 50
_MODULES = "00A0 0058 0000 0000 0001 0000 0000 0000 0004 0000"
_STORAGE = "007C 0018 2710 0000 0000 0000 0000 01F4 157C 0000 0000 0004 0000 0000 0000 0000 0000 0001"
_STORAGE_FACTORS = " 0000 0000 0000 FFFE FFFE 0000 0000 FFFE"


def gen24_registers(charge: str, discharge: str) -> Registers:
    modules = [("0064", "0000 0000"), ("0064", "0000 0000"), (charge, "0001 86A0"), (discharge, "0000 2710")]
    return {
        40000: "5375 6E53",
        40002: _COMMON,
        40069: _THREE_PHASES,
        40121: _MODULES + "".join(_module(at, *module) for at, module in enumerate(modules, start=1)),
        40211: _STORAGE + _STORAGE_FACTORS,
        40237: "FFFF 0000",
    }


# 500 x 10 W charge the battery; StorCtl_Mod is register 5, OutWRte 12 and InWRte 13 of the model, its timer 15.
GEN24 = Golden(
    "fronius_gen24",
    10_000.0,
    gen24_registers("01F4", "0000"),
    {
        "power_w": 5_000.0,
        "soc": 0.55,
        "storage_status": "charging",
        "max_charge_w": 10_000.0,
        "reserve_pu": 0.05,
        "energy_import_wh": 100_000.0,
        "energy_export_wh": 10_000.0,
    },
    gen24_registers("0000", "FFFF"),
    [(40226, "003C"), (40223, "EC78 1388"), (40216, "0003")],
    [(40223, "0000 0000"), (40216, "0003")],
    [(40223, "1388 EC78"), (40216, "0003")],
    [(40223, "0000 0000"), (40216, "0003")],
)

# Floats with the low word first: 5000.0 is 459C 4000, 1500.0 is 44BB 8000, -1500.0 is C4BB 8000, 55.0 is 425C 0000.
STOREDGE = Golden(
    "solaredge_storage",
    10_000.0,
    {
        0xE144: "4000 459C",
        0xE146: "8000 44BB",
        0xE174: "8000 C4BB",
        0xE176: "86A0 0001 0000 0000",
        0xE184: "0000 425C",
        0xE186: "0004 0000",
        0xE005: "0001",
    },
    {
        "power_w": -1_500.0,
        "soc": 0.55,
        "state": "discharge",
        "max_charge_w": 5_000.0,
        "max_discharge_w": 1_500.0,
        "energy_export_wh": 100_000.0,
        "ac_charge_policy": "always",
    },
    {0xE174: "0000 7FC0"},
    [(0xE004, "0004"), (0xE00A, "0000 003C 0000"), (0xE00E, "4000 459C 0000 0000"), (0xE00D, "0003")],
    [(0xE00E, "0000 0000 0000 0000"), (0xE00D, "0000")],
    [(0xE00E, "0000 0000 4000 459C"), (0xE00D, "0004")],
    [(0xE00E, "0000 0000 0000 0000"), (0xE00D, "0000")],
)

# 50.0 % is 4248 0000. A model 103 with W 5000, the other points 0.
_INVERTER = "0067 0032" + " 0000" * 12 + " 1388 0000" + " 0000" * 36
SOLAREDGE = Golden(
    "solaredge_inverter",
    10_000.0,
    {
        40000: "5375 6E53",
        40002: _COMMON,
        40069: _INVERTER,
        40121: "FFFF 0000",
        0xF304: "4000 461C",
        0xF30C: "4000 461C",
        0xF312: "0000 42C8",
        0xF322: "0000 42C8",
    },
    {
        "power_w": -5_000.0,
        "rated_power_w": 10_000.0,
        "active_power_limit_w": 10_000.0,
        "fallback_pu": 1.0,
        "limit_pu": 1.0,
    },
    {40083: "8000"},
    [(0xF310, "003C 0000"), (0xF322, "0000 0000"), (0xF300, "0001")],
    [(0xF322, "0000 0000")],
    [(0xF322, "0000 4248")],
    [(0xF322, "0000 0000"), (0xF300, "0001")],
)

# SMA counts feeding in as positive: 5 kW of charging is -5000, FFFF EC78; active is 802, 0322.
SMA = Golden(
    "sma_storage",
    10_000.0,
    {
        30201: "0000 0133",
        30775: "FFFF EC78",
        30783: "0000 59E2",
        30803: "0000 1388",
        30845: "0000 0037",
        30849: "0000 00FB",
        41195: "0000 003C",
    },
    {
        "health": "ok",
        "power_w": 5_000.0,
        "voltage_v": 230.1,
        "frequency_hz": 50.0,
        "soc": 0.55,
        "battery_temperature_c": 25.1,
        "fallback_timeout_s": 60.0,
    },
    {30775: "8000 0000"},
    [(40149, "FFFF EC78 0000 0322")],
    [(40149, "0000 0000 0000 0322")],
    [(40149, "0000 1388 0000 0322")],
    [(40149, "0000 0000 0000 0322")],
)

# 4 kW, -2 kW and 0.5 kW at the inputs of the phases in steps of 10 W; a third of 5 kW is 1667 W, 0683.
VICTRON = Golden(
    "victron_gx",
    15_000.0,
    {
        3: "08FD",
        9: "1388",
        12: "0190 FF38 0032",
        26: "14B4",
        27: "FF9C",
        28: "0003",
        29: "0000",
        30: "0226",
        31: "00FC",
    },
    {
        "power_w": 2_500.0,
        "input_power_l2_w": -2_000.0,
        "voltage_v": 230.1,
        "frequency_hz": 50.0,
        "battery_voltage_v": 53.0,
        "battery_current_a": -10.0,
        "soc": 0.55,
        "state": "external_control",
    },
    {},
    [(38, "0000 0000"), (96, "0000 0683 0000 0683 0000 0683")],
    [(96, "0000 0000 0000 0000 0000 0000")],
    [(96, "FFFF F97D FFFF F97D FFFF F97D")],
    [(96, "0000 0000 0000 0000 0000 0000")],
)
VICTRON_1PH = Golden(
    "victron_gx_1ph",
    10_000.0,
    {3: "08FD", 12: "FF38", 30: "0226", 31: "0008"},
    {"power_w": -2_000.0, "voltage_v": 230.1, "soc": 0.55, "state": "passthru"},
    {},
    [(37, "1388 0000 0000")],
    [(37, "0000 0000 0000")],
    [(37, "EC78 0000 0000")],
    [(37, "0000")],
)

# The forced period is 120 s, 2 minutes; the mode, 47246, adjoins the powers and goes out with them the first time.
LUNA = Golden(
    "huawei_luna",
    10_000.0,
    {
        37046: "0000 1388 0000 1388",
        37758: "0000 3A98",
        37760: "0226",
        37762: "0002 119D FFF6",
        37765: "FFFF EC78",
        37780: "0000 2710 0000 1F40",
        47086: "0002 0001",
    },
    {
        "power_w": -5_000.0,
        "soc": 0.55,
        "state": "running",
        "battery_voltage_v": 450.9,
        "battery_current_a": -1.0,
        "rated_energy_wh": 15_000.0,
        "max_charge_w": 5_000.0,
        "energy_import_wh": 100_000.0,
        "energy_export_wh": 80_000.0,
        "working_mode": "self_consumption",
        "charge_from_grid": "enabled",
    },
    {37765: "7FFF FFFF"},
    [(47083, "0002"), (47246, "0000 0000 1388 0000 0000"), (47100, "0001")],
    [(47083, "0002"), (47247, "0000 0000 0000 0000"), (47100, "0001")],
    [(47083, "0002"), (47247, "0000 0000 0000 1388"), (47100, "0002")],
    [(47247, "0000 0000 0000 0000"), (47100, "0001")],
)

# A ceiling of 0 W is the same for charging and for nothing, and is not repeated.
SUN2000 = Golden(
    "huawei_sun2000",
    10_000.0,
    {
        30073: "0000 2710",
        32064: "0000 1450",
        32069: "08FD",
        32072: "0000 1C52",
        32080: "0000 1388",
        32085: "1388",
        32089: "0200",
        32106: "0000 2710",
    },
    {
        "power_w": -5_000.0,
        "input_power_w": -5_200.0,
        "voltage_v": 230.1,
        "current_l1_a": 7.25,
        "frequency_hz": 50.0,
        "state": "on_grid",
        "energy_export_wh": 100_000.0,
        "rated_power_w": 10_000.0,
    },
    {32080: "7FFF FFFF"},
    [(40126, "0000 0000")],
    [],
    [(40126, "0000 1388")],
    [],
)
HYBRID_PV = Golden(
    "huawei_hybrid_pv",
    10_000.0,
    {32064: "0000 1450", 32080: "0000 1F40", 32108: "0000 2710"},
    {"power_w": -5_200.0, "inverter_power_w": -8_000.0, "energy_export_wh": 100_000.0},
    {32064: "7FFF FFFF"},
    [],
    [],
    [],
    [],
)

# Wire addresses are one less than the document's; the low word comes first.
SUNGROW = Golden(
    "sungrow_sh",
    10_000.0,
    {
        5000: "0064",
        5018: "08FD",
        5213: "EC78 FFFF",
        5241: "1388",
        13022: "0226 03E8 00FB",
        13026: "03E8 0000",
        33046: "01F4 01F4",
    },
    {
        "rated_power_w": 10_000.0,
        "voltage_v": 230.1,
        "power_w": 5_000.0,
        "frequency_hz": 50.0,
        "soc": 0.55,
        "soh_pu": 1.0,
        "battery_temperature_c": 25.1,
        "energy_export_wh": 100_000.0,
        "max_charge_w": 5_000.0,
    },
    {},
    [(13049, "0002 00AA 1388")],
    [(13050, "00CC 0000")],
    [(13050, "00BB 1388")],
    [(13050, "00CC 0000")],
)
SUNGROW_PV = Golden(
    "sungrow_sh_pv",
    10_000.0,
    {5016: "1450 0000", 13002: "03E8 0000", 13033: "EC78 FFFF"},
    {"power_w": -5_200.0, "energy_export_wh": 100_000.0, "inverter_power_w": 5_000.0},
    {5016: "FFFF FFFF"},
    [],
    [],
    [],
    [],
)

ALL = (
    GEN24,
    STOREDGE,
    SOLAREDGE,
    SMA,
    VICTRON,
    VICTRON_1PH,
    LUNA,
    SUN2000,
    HYBRID_PV,
    SUNGROW,
    SUNGROW_PV,
)
