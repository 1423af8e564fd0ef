"""Defaults that the library, the case file and the command line share, without anything to load."""

# Time that a wave takes through a cell of a vessel, s.
DEFAULT_CELL_TIME = 3e-4
# Longest time step over it. Waves under load and on moving blood are faster than in the unloaded
# vessel; this leaves them a factor of two.
DEFAULT_CFL = 0.45
# Cell times that a run takes, s: above, a cell is longer than vessels are.
CELL_TIME_RANGE = (1e-6, 1e-1)
# What cells may change a ratio of mean pressures by.
DEFAULT_CELL_TOLERANCE = 5e-3
# Tolerances that can be asked for: halved cells reach none below.
CELL_TOLERANCE_RANGE = (1e-5, 1e-1)
# Fractional flow reserve at or below it is treated (Tonino et al. 2009, doi 10.1056/NEJMoa0807611).
FFR_ISCHAEMIC = 0.80
