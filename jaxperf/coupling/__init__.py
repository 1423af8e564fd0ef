"""Network and tissue as one problem: the only room that knows both sides."""

from ._calibrate import Calibration as Calibration
from ._calibrate import calibrate as calibrate
from ._problem import Autoregulation as Autoregulation
from ._problem import Microcirculation as Microcirculation
from ._problem import PerfusionProblem as PerfusionProblem
from ._problem import Tissue as Tissue
from ._problem import perfused_tissue as perfused_tissue
from ._solve import PerfusionSolution as PerfusionSolution
from ._solve import perfusion_system as perfusion_system
from ._solve import solve_perfusion as solve_perfusion
from ._system import Exchange as Exchange
from ._system import PerfusionState as PerfusionState
from ._system import PerfusionSystem as PerfusionSystem
from ._system import exchange as exchange
from ._system import initial_perfusion as initial_perfusion
