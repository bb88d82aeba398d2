"""The SunSpec models of inverters and meters that the twins serve.

Offsets count from the model's ID register; the first two registers (ID, L) stand in every model. A point is written as
`offset name type [scale factor]`, and its source is the document that its layout names.
"""

from __future__ import annotations

from typing import Final

from sim_devices.modbus.sunspec_layout import layout

COMMON: Final = layout(
    1,
    66,
    "SunSpec Information Model 1, Common, 2021",
    """
    2 Mn string:16;  18 Md string:16;  34 Opt string:8;  42 Vr string:8;  50 SN string:16;  66 DA uint16;
    67 Pad pad;
    """,
)

INVERTER_THREE_PHASE: Final = layout(
    103,
    50,
    "SunSpec Information Model 103, Inverter (Three Phase), 2021",
    """
    2 A uint16 A_SF;  3 AphA uint16 A_SF;  4 AphB uint16 A_SF;  5 AphC uint16 A_SF;  6 A_SF sunssf;
    7 PPVphAB uint16 V_SF;  8 PPVphBC uint16 V_SF;  9 PPVphCA uint16 V_SF;  10 PhVphA uint16 V_SF;
    11 PhVphB uint16 V_SF;  12 PhVphC uint16 V_SF;  13 V_SF sunssf;  14 W int16 W_SF;  15 W_SF sunssf;
    16 Hz uint16 Hz_SF;  17 Hz_SF sunssf;  18 VA int16 VA_SF;  19 VA_SF sunssf;  20 VAr int16 VAr_SF;
    21 VAr_SF sunssf;  22 PF int16 PF_SF;  23 PF_SF sunssf;  24 WH acc32 WH_SF;  26 WH_SF sunssf;
    27 DCA uint16 DCA_SF;  28 DCA_SF sunssf;  29 DCV uint16 DCV_SF;  30 DCV_SF sunssf;  31 DCW int16 DCW_SF;
    32 DCW_SF sunssf;  33 TmpCab int16 Tmp_SF;  34 TmpSnk int16 Tmp_SF;  35 TmpTrns int16 Tmp_SF;
    36 TmpOt int16 Tmp_SF;  37 Tmp_SF sunssf;  38 St enum16;  39 StVnd enum16;  40 Evt1 bitfield32;
    42 Evt2 bitfield32;  44 EvtVnd1 bitfield32;  46 EvtVnd2 bitfield32;  48 EvtVnd3 bitfield32;
    50 EvtVnd4 bitfield32;
    """,
)

NAMEPLATE: Final = layout(
    120,
    26,
    "SunSpec Information Model 120, Nameplate, 2021",
    """
    2 DERTyp enum16;  3 WRtg uint16 WRtg_SF;  4 WRtg_SF sunssf;  5 VARtg uint16 VARtg_SF;  6 VARtg_SF sunssf;
    7 VArRtgQ1 int16 VArRtg_SF;  8 VArRtgQ2 int16 VArRtg_SF;  9 VArRtgQ3 int16 VArRtg_SF;
    10 VArRtgQ4 int16 VArRtg_SF;  11 VArRtg_SF sunssf;  12 ARtg uint16 ARtg_SF;  13 ARtg_SF sunssf;
    14 PFRtgQ1 int16 PFRtg_SF;  15 PFRtgQ2 int16 PFRtg_SF;  16 PFRtgQ3 int16 PFRtg_SF;  17 PFRtgQ4 int16 PFRtg_SF;
    18 PFRtg_SF sunssf;  19 WHRtg uint16 WHRtg_SF;  20 WHRtg_SF sunssf;  21 AhrRtg uint16 AhrRtg_SF;
    22 AhrRtg_SF sunssf;  23 MaxChaRte uint16 MaxChaRte_SF;  24 MaxChaRte_SF sunssf;
    25 MaxDisChaRte uint16 MaxDisChaRte_SF;  26 MaxDisChaRte_SF sunssf;  27 Pad pad;
    """,
)

BASIC_SETTINGS: Final = layout(
    121,
    30,
    "SunSpec Information Model 121, Basic Settings, 2021",
    """
    2 WMax uint16 WMax_SF;  3 VRef uint16 VRef_SF;  4 VRefOfs int16 VRefOfs_SF;  5 VMax uint16 VMinMax_SF;
    6 VMin uint16 VMinMax_SF;  7 VAMax uint16 VAMax_SF;  8 VArMaxQ1 int16 VArMax_SF;  9 VArMaxQ2 int16 VArMax_SF;
    10 VArMaxQ3 int16 VArMax_SF;  11 VArMaxQ4 int16 VArMax_SF;  12 WGra uint16 WGra_SF;  13 PFMinQ1 int16 PFMin_SF;
    14 PFMinQ2 int16 PFMin_SF;  15 PFMinQ3 int16 PFMin_SF;  16 PFMinQ4 int16 PFMin_SF;  17 VArAct enum16;
    18 ClcTotVA enum16;  19 MaxRmpRte uint16 MaxRmpRte_SF;  20 ECPNomHz uint16 ECPNomHz_SF;  21 ConnPh enum16;
    22 WMax_SF sunssf;  23 VRef_SF sunssf;  24 VRefOfs_SF sunssf;  25 VMinMax_SF sunssf;  26 VAMax_SF sunssf;
    27 VArMax_SF sunssf;  28 WGra_SF sunssf;  29 PFMin_SF sunssf;  30 MaxRmpRte_SF sunssf;  31 ECPNomHz_SF sunssf;
    """,
)

MEASUREMENTS_STATUS: Final = layout(
    122,
    44,
    "SunSpec Information Model 122, Measurements_Status, 2021",
    """
    2 PVConn bitfield16;  3 StorConn bitfield16;  4 ECPConn bitfield16;  5 ActWh acc64;  9 ActVAh acc64;
    13 ActVArhQ1 acc64;  17 ActVArhQ2 acc64;  21 ActVArhQ3 acc64;  25 ActVArhQ4 acc64;  29 VArAval int16 VArAval_SF;
    30 VArAval_SF sunssf;  31 WAval uint16 WAval_SF;  32 WAval_SF sunssf;  33 StSetLimMsk bitfield32;
    35 StActCtl bitfield32;  37 TmSrc string:4;  41 Tms uint32;  43 RtSt bitfield16;  44 Ris uint16 Ris_SF;
    45 Ris_SF sunssf;
    """,
)

IMMEDIATE_CONTROLS: Final = layout(
    123,
    24,
    "SunSpec Information Model 123, Immediate Controls, 2021",
    """
    2 Conn_WinTms uint16;  3 Conn_RvrtTms uint16;  4 Conn enum16;  5 WMaxLimPct uint16 WMaxLimPct_SF;
    6 WMaxLimPct_WinTms uint16;  7 WMaxLimPct_RvrtTms uint16;  8 WMaxLimPct_RmpTms uint16;  9 WMaxLim_Ena enum16;
    10 OutPFSet int16 OutPFSet_SF;  11 OutPFSet_WinTms uint16;  12 OutPFSet_RvrtTms uint16;
    13 OutPFSet_RmpTms uint16;  14 OutPFSet_Ena enum16;  15 VArWMaxPct int16 VArPct_SF;
    16 VArMaxPct int16 VArPct_SF;  17 VArAvalPct int16 VArPct_SF;  18 VArPct_WinTms uint16;
    19 VArPct_RvrtTms uint16;  20 VArPct_RmpTms uint16;  21 VArPct_Mod enum16;  22 VArPct_Ena enum16;
    23 WMaxLimPct_SF sunssf;  24 OutPFSet_SF sunssf;  25 VArPct_SF sunssf;
    """,
)

METER_WYE_THREE_PHASE: Final = layout(
    203,
    105,
    "SunSpec Information Model 203, Wye-Connect Three Phase (abcn) Meter, 2021",
    """
    2 A int16 A_SF;  3 AphA int16 A_SF;  4 AphB int16 A_SF;  5 AphC int16 A_SF;  6 A_SF sunssf;  7 PhV int16 V_SF;
    8 PhVphA int16 V_SF;  9 PhVphB int16 V_SF;  10 PhVphC int16 V_SF;  11 PPV int16 V_SF;  12 PhVphAB int16 V_SF;
    13 PhVphBC int16 V_SF;  14 PhVphCA int16 V_SF;  15 V_SF sunssf;  16 Hz int16 Hz_SF;  17 Hz_SF sunssf;
    18 W int16 W_SF;  19 WphA int16 W_SF;  20 WphB int16 W_SF;  21 WphC int16 W_SF;  22 W_SF sunssf;
    23 VA int16 VA_SF;  24 VAphA int16 VA_SF;  25 VAphB int16 VA_SF;  26 VAphC int16 VA_SF;  27 VA_SF sunssf;
    28 VAR int16 VAR_SF;  29 VARphA int16 VAR_SF;  30 VARphB int16 VAR_SF;  31 VARphC int16 VAR_SF;
    32 VAR_SF sunssf;  33 PF int16 PF_SF;  34 PFphA int16 PF_SF;  35 PFphB int16 PF_SF;  36 PFphC int16 PF_SF;
    37 PF_SF sunssf;  38 TotWhExp acc32 TotWh_SF;  40 TotWhExpPhA acc32 TotWh_SF;  42 TotWhExpPhB acc32 TotWh_SF;
    44 TotWhExpPhC acc32 TotWh_SF;  46 TotWhImp acc32 TotWh_SF;  48 TotWhImpPhA acc32 TotWh_SF;
    50 TotWhImpPhB acc32 TotWh_SF;  52 TotWhImpPhC acc32 TotWh_SF;  54 TotWh_SF sunssf;
    55 TotVAhExp acc32 TotVAh_SF;  57 TotVAhExpPhA acc32 TotVAh_SF;  59 TotVAhExpPhB acc32 TotVAh_SF;
    61 TotVAhExpPhC acc32 TotVAh_SF;  63 TotVAhImp acc32 TotVAh_SF;  65 TotVAhImpPhA acc32 TotVAh_SF;
    67 TotVAhImpPhB acc32 TotVAh_SF;  69 TotVAhImpPhC acc32 TotVAh_SF;  71 TotVAh_SF sunssf;
    72 TotVArhImpQ1 acc32 TotVArh_SF;  74 TotVArhImpQ1PhA acc32 TotVArh_SF;  76 TotVArhImpQ1PhB acc32 TotVArh_SF;
    78 TotVArhImpQ1PhC acc32 TotVArh_SF;  80 TotVArhImpQ2 acc32 TotVArh_SF;  82 TotVArhImpQ2PhA acc32 TotVArh_SF;
    84 TotVArhImpQ2PhB acc32 TotVArh_SF;  86 TotVArhImpQ2PhC acc32 TotVArh_SF;  88 TotVArhExpQ3 acc32 TotVArh_SF;
    90 TotVArhExpQ3PhA acc32 TotVArh_SF;  92 TotVArhExpQ3PhB acc32 TotVArh_SF;  94 TotVArhExpQ3PhC acc32 TotVArh_SF;
    96 TotVArhExpQ4 acc32 TotVArh_SF;  98 TotVArhExpQ4PhA acc32 TotVArh_SF;  100 TotVArhExpQ4PhB acc32 TotVArh_SF;
    102 TotVArhExpQ4PhC acc32 TotVArh_SF;  104 TotVArh_SF sunssf;  105 Evt bitfield32;
    """,
)
