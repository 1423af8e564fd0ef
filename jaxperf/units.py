r"""Conversion factors between clinical units and SI.

Everything inside jaxperf is in SI. A factor is named SI unit per other unit, so a value in the
other unit times the factor is in SI, and a value in SI divided by it is in the other unit,

$$x_{SI} = k\,x,\qquad x = x_{SI}/k.$$

| factor | turns | into |
|---|---|---|
| `PA_PER_MMHG` | mmHg | Pa |
| `M_PER_MM` | mm | m |
| `M3_S_PER_ML_MIN` | ml/min | m³/s |
| `M3_S_KG_PER_ML_MIN_G` | ml/min/g, of blood flow in tissue | m³/(s·kg) |
| `M_PER_CM` | cm | m |
| `PA_PER_DYN_CM2` | dyn/cm² | Pa |
| `KG_M3_PER_G_CM3` | g/cm³ | kg/m³ |
| `PA_S_PER_POISE` | poise | Pa·s |
| `M3_S_PER_CM3_S` | cm³/s | m³/s |
| `PA_S_M3_PER_DYN_S_CM5` | dyn·s/cm⁵, of a resistance | Pa·s/m³ |
| `M3_PA_PER_CM5_DYN` | cm⁵/dyn, of a compliance | m³/Pa |
"""

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
