"""Parameters, priors, measurements, fits, posteriors. Takes callables and knows no physics."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._checkpoint import drop_steps as drop_steps
    from ._demo import demo_problem as demo_problem
    from ._fit import Fit as Fit, fit as fit, FitError as FitError, Mode as Mode
    from ._identify import (
        Identifiability as Identifiability,
        identify as identify,
        Misfit as Misfit,
        misfit as misfit,
        Profile as Profile,
        profile as profile,
        Shrinkage as Shrinkage,
        shrinkage as shrinkage,
    )
    from ._importance import (
        check_laplace as check_laplace,
        LaplaceCheck as LaplaceCheck,
        mixture as mixture,
    )
    from ._method import FirstOrder as FirstOrder, LevenbergMarquardt as LevenbergMarquardt
    from ._noise import GaussianNoise as GaussianNoise, LogNormalNoise as LogNormalNoise
    from ._parameter import Parameter as Parameter
    from ._posterior import (
        AbstractPosterior as AbstractPosterior,
        GaussianPosterior as GaussianPosterior,
        laplace as laplace,
        SampledPosterior as SampledPosterior,
    )
    from ._prior import (
        AbstractPrior as AbstractPrior,
        Hierarchy as Hierarchy,
        Normal as Normal,
        SmoothField as SmoothField,
        squared_exponential as squared_exponential,
    )
    from ._problem import (
        InverseProblem as InverseProblem,
        Measurement as Measurement,
        PlainModel as PlainModel,
    )
    from ._sample import (
        NUTS as NUTS,
        sample_posterior as sample_posterior,
        TemperedSMC as TemperedSMC,
    )
    from ._transform import Identity as Identity, Interval as Interval, Log as Log
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
