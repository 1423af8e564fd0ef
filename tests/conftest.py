"""Hostile numerics for every test, set before anything imports the packages.

Shapes and types are checked at run time by the jaxtyping import hook. The pytest option for that
hook splits its argument at the first comma only, so it is installed here.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

install_import_hook(["jaxperf", "gnn_darcy", "bridges"], _CHECKER)

from jaxperf import enable_compilation_cache

enable_compilation_cache()
