"""The SunSpec models of hybrid inverters that the meter, the plain inverter and the DER battery don't have.

Offsets count from the model's ID register. Sources: SunSpec Information Models 1, 124 and 160, 2021, which agree with
Fronius, "GEN24 Primo/Symo Inverter Register Map, Integer + SF, storage", sheets common (1), storage (124), mppt (160).
"""

from __future__ import annotations

from typing import Final

from sim_devices.modbus import sunspec_models as ic
from sim_devices.modbus.sunspec_layout import Layout, layout

COMMON_WITHOUT_PAD: Final = layout(
    1,
    65,
    "SunSpec Information Model 1, Common, in the older length of 65",
    "2 Mn string:16;  18 Md string:16;  34 Opt string:8;  42 Vr string:8;  50 SN string:16;  66 DA uint16;",
)

BASIC_STORAGE: Final = layout(
    124,
    24,
    "SunSpec Information Model 124, Basic Storage Controls, 2021",
    """
    2 WChaMax uint16 WChaMax_SF;  3 WChaGra uint16 WChaDisChaGra_SF;  4 WDisChaGra uint16 WChaDisChaGra_SF;
    5 StorCtl_Mod bitfield16;  6 VAChaMax uint16 VAChaMax_SF;  7 MinRsvPct uint16 MinRsvPct_SF;
    8 ChaState uint16 ChaState_SF;  9 StorAval uint16 StorAval_SF;  10 InBatV uint16 InBatV_SF;  11 ChaSt enum16;
    12 OutWRte int16 InOutWRte_SF;  13 InWRte int16 InOutWRte_SF;  14 InOutWRte_WinTms uint16;
    15 InOutWRte_RvrtTms uint16;  16 InOutWRte_RmpTms uint16;  17 ChaGriSet enum16;  18 WChaMax_SF sunssf;
    19 WChaDisChaGra_SF sunssf;  20 VAChaMax_SF sunssf;  21 MinRsvPct_SF sunssf;  22 ChaState_SF sunssf;
    23 StorAval_SF sunssf;  24 InBatV_SF sunssf;  25 InOutWRte_SF sunssf;
    """,
)


def multiple_mppt(modules: int) -> Layout:
    """Model 160 with this many modules; the points of module 3 are named `3.DCW` and so on."""
    fixed = """
        2 DCA_SF sunssf;  3 DCV_SF sunssf;  4 DCW_SF sunssf;  5 DCWH_SF sunssf;  6 Evt bitfield32;  8 N uint16;
        9 TmsPer uint16;
    """
    text = fixed
    for module in range(1, modules + 1):
        at = 10 + 20 * (module - 1)
        text += f"""
            {at} {module}.ID uint16;  {at + 1} {module}.IDStr string:8;  {at + 9} {module}.DCA uint16 DCA_SF;
            {at + 10} {module}.DCV uint16 DCV_SF;  {at + 11} {module}.DCW uint16 DCW_SF;
            {at + 12} {module}.DCWH acc32 DCWH_SF;  {at + 14} {module}.Tms uint32;  {at + 16} {module}.Tmp int16;
            {at + 17} {module}.DCSt enum16;  {at + 18} {module}.DCEvt bitfield32;
        """
    source = "SunSpec Information Model 160, Multiple MPPT Inverter Extension, 2021"
    return layout(160, 8 + 20 * modules, source, text)


def inverter_model(phases: int) -> Layout:
    """Model 103, or 101 for one phase, which differs in its number alone."""
    return ic.INVERTER_THREE_PHASE if phases == 3 else ic.INVERTER_THREE_PHASE._replace(number=101)


def unscaled(model: Layout, *names: str) -> Layout:
    """The model with these points taken as raw numbers: their scale factor changes, and the device applies it."""
    points = (point._replace(scale_factor=None) if point.name in names else point for point in model.points)
    return model._replace(points=tuple(points))
