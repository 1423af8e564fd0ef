"""Defaults that the library, the case file and the command line share, without anything to load."""

# Time that a wave takes through a cell of a vessel, s.
DEFAULT_CELL_TIME = 3e-4
