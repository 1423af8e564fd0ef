"""Hostile numerics for every test, set before anything imports the packages.

Shapes and types are checked at run time by the jaxtyping import hook. The pytest option for that
hook splits its argument at the first comma only, so it is installed here.

Programs are kept on disk (`JAXPERF_CACHE_DIR`), and a file of tests runs in one process, so that
its fixtures and programs are made once.
"""

import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

install_import_hook(["jaxperf", "gnn_darcy", "bridges"], _CHECKER)

from jaxperf import enable_compilation_cache

enable_compilation_cache()

# The files that take longest, longest first: a worker that begins one of them last is waited for.
_LONG = (
    "test_gnn_flux.py",
    "test_darcy_multigrid.py",
    "test_bridges_flow1d.py",
    "test_flow1d.py",
    "test_bridges_cross_check.py",
    "test_coupled_gradients.py",
    "test_bridges_functions.py",
    "test_flow1d_padding.py",
    "test_padding.py",
    "test_gnn_training.py",
    "test_bridges_graph.py",
    "test_bridges_darcy.py",
    "test_pulsatile_case.py",
    "test_cache.py",
    "test_flow1d_run.py",
    "test_failed_solves.py",
    "test_darcy.py",
    "test_case_growth.py",
    "test_growth_audit.py",
    "test_bridges_coupled.py",
    "test_case.py",
)


_SLOW = {
    line
    for line in (Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark what is slow. Long files come first; the others stay as they are."""
    used = set()
    for item in items:
        names = {item.name, item.originalname, *item.fixturenames}
        found = _SLOW & {f"{item.path.name}::{name}" for name in names}
        if found:
            item.add_marker(pytest.mark.slow)
            used |= found
    some = any("::" in x for x in config.args) or config.getoption("lf", False)
    whole = () if some else {item.path.name for item in items}
    unknown = [line for line in _SLOW - used if line.partition("::")[0] in whole]
    if unknown:
        raise pytest.UsageError(f"slow.txt names what is no test: {', '.join(sorted(unknown))}")
    rank = {name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
    """Let the programs of a file go at its end.

    Each holds mappings of memory, of which the system grants a process some 65 000; thousands of
    programs use them up, and XLA ends with a fault. What another file shares is on disk.
    """
    yield
    jax.clear_caches()
    gc.collect()
