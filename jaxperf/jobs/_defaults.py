"""Defaults that the command line shows before anything that uses them is loaded."""

# Time that a wave takes through a cell of a foreign 1-D case, s.
DEFAULT_CELL_TIME = 3e-4
