"""The written-out derivatives of the laws of cells and faces, against those of the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxperf.flow1d import _flux
from jaxperf.vessel import ConstantStiffness, SqrtAreaWall, SvOneDWall

_N = 7
_SHAPE = {
    "sqrt": SqrtAreaWall(ConstantStiffness(0.0), 0.0),
    "svOneD": SvOneDWall(ConstantStiffness(0.0)),
}


def table(wall, area, modulus, unloaded):
    one = jnp.ones(())
    return _flux.WallTable(wall, area, 1.0 / area, modulus, 1.0 / modulus, unloaded, one)


def laws(wall, root):
    """Every law as a function of arrays alone, written out or (`plain`) as its formula."""
    pair = lambda law, plain: law.fun if plain else law
    return {
        "cell_pressure": lambda plain, a, m, u, x, *_: pair(_flux.cell_pressure, plain)(
            table(wall, a, m, u), a * (1.0 + 0.1 * x)
        ),
        "momentum_rate": lambda plain, a, m, u, x, q, r, k, rho, alpha: pair(
            _flux.momentum_rate, plain
        )(a, q, r, x, k, rho, alpha),
        "van_albada": lambda plain, a, m, u, x, q, *_: pair(_flux.van_albada, plain)(x, q, 0.5),
        "face_flow": lambda plain, a, m, u, x, q, r, k, rho, alpha: pair(_flux.face_flow, plain)(
            table(wall, a, m, u), rho, root, _flux.Reconstruction(0.2 * x, k), q
        ),
        "face_total": lambda plain, a, m, u, x, q, r, k, rho, alpha: pair(_flux.face_total, plain)(
            table(wall, a, m, u), rho, alpha, root, 0.2 * x, r, q
        ),
    }


def arguments():
    rng = np.random.default_rng(3)
    some = lambda: jnp.asarray(rng.uniform(0.5, 1.5, _N))
    scalar = lambda: jnp.asarray(rng.uniform(0.5, 1.5))
    # area, modulus, unloaded pressure, pressure or gradient, flow, its jump, friction, ρ, α
    return [some(), some(), 0.1 * scalar(), *(some() for _ in range(4)), scalar(), scalar()]


def derivatives(law, plain, given, along):
    """First ones by one argument at a time, second ones along all of them, and the gradient."""
    first = []
    for k in range(len(given)):
        of = lambda one, k=k: law(plain, *given[:k], one, *given[k + 1 :])
        first.append(jax.jvp(of, (given[k],), (along[k],)))
    path = lambda s: law(plain, *(x + s * d for x, d in zip(given, along, strict=True)))
    slope = lambda s: jax.jvp(path, (s,), (jnp.ones(()),))[1]
    second = jax.jvp(slope, (jnp.zeros(()),), (jnp.ones(()),))[1]
    gradient = jax.grad(lambda every: jnp.sum(law(plain, *every)))(given)
    return first, (second, gradient)


@pytest.mark.parametrize("with_inertia", [False, True])
@pytest.mark.parametrize("shape", _SHAPE)
def test_derivatives_are_those_of_the_formulas(shape, with_inertia):
    root = jnp.linspace(0.3, 1.0, _N) if with_inertia else None
    given = arguments()
    assert len(given) == 9
    along = [0.3 + 0.5 * x for x in given]
    every = laws(_SHAPE[shape], root)
    run = lambda plain: jax.jit(
        lambda *a: {name: derivatives(law, plain, *a) for name, law in every.items()}
    )(given, along)
    found, expected = run(False), run(True)
    for name in every:
        for k, pair in enumerate(zip(found[name][0], expected[name][0], strict=True)):
            for x, y in zip(*pair, strict=True):
                assert np.allclose(x, y, rtol=1e-12, atol=1e-13), (name, k)
        for x, y in zip(*(jax.tree.leaves(of[name][1]) for of in (found, expected)), strict=True):
            assert np.allclose(x, y, rtol=1e-11, atol=1e-12), name


def test_no_momentum_coefficient():
    """The dynamic pressure is linear in α, also at α = 0."""
    law = laws(_SHAPE["sqrt"], None)["face_total"]
    *given, _ = arguments()
    slope = jax.jvp(lambda a: law(False, *given, a), (jnp.zeros(()),), (jnp.ones(()),))[1]
    assert np.allclose(slope, law(True, *given, jnp.ones(())) - law(True, *given, jnp.zeros(())))
