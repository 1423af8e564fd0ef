"""A patient case: configuration, build, checks, run folder."""

from ._demo import demo_tree as demo_tree
from ._load import load_case as load_case
from ._progress import Progress as Progress
from ._run import run_case as run_case
from ._schema import Case as Case
from ._solve import SolveError as SolveError
