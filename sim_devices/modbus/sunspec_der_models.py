"""The SunSpec models of the 700 series (DER information models) that the twins serve.

Offsets count from the model's ID register; the first two registers (ID, L) stand in every model. A point is written as
`offset name type [scale factor]`, and its source is the document that its layout names.
"""

from __future__ import annotations

from typing import Final

from sim_devices.modbus.sunspec_layout import layout

DER_AC_MEASUREMENT: Final = layout(
    701,
    153,
    "SunSpec Information Model 701, DER AC Measurement, 2021",
    """
    2 ACType enum16;  3 St enum16;  4 InvSt enum16;  5 ConnSt enum16;  6 Alrm bitfield32;  8 DERMode bitfield32;
    10 W int16 W_SF;  11 VA int16 VA_SF;  12 Var int16 Var_SF;  13 PF int16 PF_SF;  14 A int16 A_SF;
    15 LLV uint16 V_SF;  16 LNV uint16 V_SF;  17 Hz uint32 Hz_SF;  19 TotWhInj uint64 TotWh_SF;
    23 TotWhAbs uint64 TotWh_SF;  27 TotVarhInj uint64 TotVarh_SF;  31 TotVarhAbs uint64 TotVarh_SF;
    35 TmpAmb int16 Tmp_SF;  36 TmpCab int16 Tmp_SF;  37 TmpSnk int16 Tmp_SF;  38 TmpTrns int16 Tmp_SF;
    39 TmpSw int16 Tmp_SF;  40 TmpOt int16 Tmp_SF;  41 WL1 int16 W_SF;  42 VAL1 int16 VA_SF;  43 VarL1 int16 Var_SF;
    44 PFL1 int16 PF_SF;  45 AL1 int16 A_SF;  46 VL1L2 uint16 V_SF;  47 VL1 uint16 V_SF;
    48 TotWhInjL1 uint64 TotWh_SF;  52 TotWhAbsL1 uint64 TotWh_SF;  56 TotVarhInjL1 uint64 TotVarh_SF;
    60 TotVarhAbsL1 uint64 TotVarh_SF;  64 WL2 int16 W_SF;  65 VAL2 int16 VA_SF;  66 VarL2 int16 Var_SF;
    67 PFL2 int16 PF_SF;  68 AL2 int16 A_SF;  69 VL2L3 uint16 V_SF;  70 VL2 uint16 V_SF;
    71 TotWhInjL2 uint64 TotWh_SF;  75 TotWhAbsL2 uint64 TotWh_SF;  79 TotVarhInjL2 uint64 TotVarh_SF;
    83 TotVarhAbsL2 uint64 TotVarh_SF;  87 WL3 int16 W_SF;  88 VAL3 int16 VA_SF;  89 VarL3 int16 Var_SF;
    90 PFL3 int16 PF_SF;  91 AL3 int16 A_SF;  92 VL3L1 uint16 V_SF;  93 VL3 uint16 V_SF;
    94 TotWhInjL3 uint64 TotWh_SF;  98 TotWhAbsL3 uint64 TotWh_SF;  102 TotVarhInjL3 uint64 TotVarh_SF;
    106 TotVarhAbsL3 uint64 TotVarh_SF;  110 ThrotPct uint16;  111 ThrotSrc bitfield32;  113 A_SF sunssf;
    114 V_SF sunssf;  115 Hz_SF sunssf;  116 W_SF sunssf;  117 PF_SF sunssf;  118 VA_SF sunssf;  119 Var_SF sunssf;
    120 TotWh_SF sunssf;  121 TotVarh_SF sunssf;  122 Tmp_SF sunssf;  123 MnAlrmInfo string:32;
    """,
)

DER_CAPACITY: Final = layout(
    702,
    50,
    "SunSpec Information Model 702, DER Capacity, 2021",
    """
    2 WMaxRtg uint16 W_SF;  3 WOvrExtRtg uint16 W_SF;  4 WOvrExtRtgPF uint16 PF_SF;  5 WUndExtRtg uint16 W_SF;
    6 WUndExtRtgPF uint16 PF_SF;  7 VAMaxRtg uint16 VA_SF;  8 VarMaxInjRtg uint16 Var_SF;
    9 VarMaxAbsRtg uint16 Var_SF;  10 WChaRteMaxRtg uint16 W_SF;  11 WDisChaRteMaxRtg uint16 W_SF;
    12 VAChaRteMaxRtg uint16 VA_SF;  13 VADisChaRteMaxRtg uint16 VA_SF;  14 VNomRtg uint16 V_SF;
    15 VMaxRtg uint16 V_SF;  16 VMinRtg uint16 V_SF;  17 AMaxRtg uint16 A_SF;  18 PFOvrExtRtg uint16 PF_SF;
    19 PFUndExtRtg uint16 PF_SF;  20 ReactSusceptRtg uint16 S_SF;  21 NorOpCatRtg enum16;  22 AbnOpCatRtg enum16;
    23 CtrlModes bitfield32;  25 IntIslandCatRtg bitfield16;  26 WMax uint16 W_SF;  27 WMaxOvrExt uint16 W_SF;
    28 WOvrExtPF uint16 PF_SF;  29 WMaxUndExt uint16 W_SF;  30 WUndExtPF uint16 PF_SF;  31 VAMax uint16 VA_SF;
    32 VarMaxInj uint16 Var_SF;  33 VarMaxAbs uint16 Var_SF;  34 WChaRteMax uint16 W_SF;
    35 WDisChaRteMax uint16 W_SF;  36 VAChaRteMax uint16 VA_SF;  37 VADisChaRteMax uint16 VA_SF;
    38 VNom uint16 V_SF;  39 VMax uint16 V_SF;  40 VMin uint16 V_SF;  41 AMax uint16 A_SF;
    42 PFOvrExt uint16 PF_SF;  43 PFUndExt uint16 PF_SF;  44 IntIslandCat bitfield16;  45 W_SF sunssf;
    46 PF_SF sunssf;  47 VA_SF sunssf;  48 Var_SF sunssf;  49 V_SF sunssf;  50 A_SF sunssf;  51 S_SF sunssf;
    """,
)

DER_AC_CONTROLS: Final = layout(
    704,
    65,
    "SunSpec Information Model 704, DER AC Controls, 2021",
    """
    2 PFWInjEna enum16;  3 PFWInjEnaRvrt enum16;  4 PFWInjRvrtTms uint32;  6 PFWInjRvrtRem uint32;
    8 PFWAbsEna enum16;  9 PFWAbsEnaRvrt enum16;  10 PFWAbsRvrtTms uint32;  12 PFWAbsRvrtRem uint32;
    14 WMaxLimPctEna enum16;  15 WMaxLimPct uint16 WMaxLimPct_SF;  16 WMaxLimPctRvrt uint16 WMaxLimPct_SF;
    17 WMaxLimPctEnaRvrt enum16;  18 WMaxLimPctRvrtTms uint32;  20 WMaxLimPctRvrtRem uint32;  22 WSetEna enum16;
    23 WSetMod enum16;  24 WSet int32 WSet_SF;  26 WSetRvrt int32 WSet_SF;  28 WSetPct int16 WSetPct_SF;
    29 WSetPctRvrt int16 WSetPct_SF;  30 WSetEnaRvrt enum16;  31 WSetRvrtTms uint32;  33 WSetRvrtRem uint32;
    35 VarSetEna enum16;  36 VarSetMod enum16;  37 VarSetPri enum16;  38 VarSet int32 VarSet_SF;
    40 VarSetRvrt int32 VarSet_SF;  42 VarSetPct int16 VarSetPct_SF;  43 VarSetPctRvrt int16 VarSetPct_SF;
    44 VarSetEnaRvrt enum16;  45 VarSetRvrtTms uint32;  47 VarSetRvrtRem uint32;  49 WRmp uint16;
    50 WRmpRef enum16;  51 VarRmp uint16;  52 AntiIslEna enum16;  53 PF_SF sunssf;  54 WMaxLimPct_SF sunssf;
    55 WSet_SF sunssf;  56 WSetPct_SF sunssf;  57 VarSet_SF sunssf;  58 VarSetPct_SF sunssf;
    59 PFWInj.PF uint16 PF_SF;  60 PFWInj.Ext enum16;  61 PFWInjRvrt.PF uint16 PF_SF;  62 PFWInjRvrt.Ext enum16;
    63 PFWAbs.PF uint16 PF_SF;  64 PFWAbs.Ext enum16;  65 PFWAbsRvrt.PF uint16 PF_SF;  66 PFWAbsRvrt.Ext enum16;
    """,
)

DER_STORAGE_CAPACITY: Final = layout(
    713,
    7,
    "SunSpec Information Model 713, DER Storage Capacity, 2021",
    """
    2 WHRtg uint16 WH_SF;  3 WHAvail uint16 WH_SF;  4 SoC uint16 Pct_SF;  5 SoH uint16 Pct_SF;  6 Sta enum16;
    7 WH_SF sunssf;  8 Pct_SF sunssf;
    """,
)

DER_CONTROL: Final = layout(
    715,
    7,
    "SunSpec Information Model 715, DERCtl, 2021",
    """
    2 LocRemCtl enum16;  3 DERHb uint32;  5 ControllerHb uint32;  7 AlarmReset uint16;  8 OpCtl enum16;
    """,
)
