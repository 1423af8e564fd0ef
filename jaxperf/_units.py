"""Conversion factors between the units at the borders and SI inside."""

PA_PER_MMHG = 133.322
M_PER_MM = 1e-3
M3_S_PER_ML_MIN = 1e-6 / 60.0
# 1 ml/min/g = 1e-6 m3 / 60 s / 1e-3 kg
M3_S_KG_PER_ML_MIN_G = 1e-3 / 60.0
# svOneDSolver and svZeroDSolver cases are written in centimetre, gram, second
M_PER_CM = 1e-2
PA_PER_DYN_CM2 = 0.1
KG_M3_PER_G_CM3 = 1e3
PA_S_PER_POISE = 0.1
M3_S_PER_CM3_S = 1e-6
PA_S_M3_PER_DYN_S_CM5 = 1e5
M3_PA_PER_CM5_DYN = 1e-5
