"""The pointwise laws of `jaxperf.vessel` against published values, quadrature and differences."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy.integrate
from helpers import central_difference

from jaxperf.units import M3_S_PER_ML_MIN, PA_PER_MMHG
from jaxperf.vessel import (
    Blood,
    ConstantStiffness,
    ConstantViscosity,
    OlufsenStiffness,
    PriesViscosity,
    resistance_integral,
    RigidWall,
    SqrtAreaWall,
    stenosis_coefficients,
    SvOneDWall,
    young_tsai_drop,
)

RADIUS = jnp.array([0.2e-3, 0.8e-3, 1.5e-3, 2.2e-3])
PRESSURE = jnp.array([7e3, 9e3, 12e3, 14e3])
FLOW = jnp.array([1e-8, 2e-7, -1e-6, 3e-6])
DENSITY = 1060.0

# reduction: ((flow ml/min, viscous mmHg, turbulent mmHg), ...) for D0 3 mm, 10 mm long
YOUNG_TSAI = [
    (0.4, 60.0, "1.15", "0.38"),
    (0.4, 150.0, "2.87", "2.39"),
    (0.4, 250.0, "4.78", "6.64"),
    (0.5, 60.0, "2.27", "1.09"),
    (0.5, 150.0, "5.68", "6.80"),
    (0.5, 250.0, "9.47", "18.9"),
    (0.6, 60.0, "5.30", "3.33"),
    (0.6, 150.0, "13.2", "20.8"),
    (0.6, 250.0, "22.1", "57.9"),
    (0.7, 60.0, "15.9", "12.4"),
    (0.7, 150.0, "39.8", "77.3"),
]
PRIES = [
    (10, "5.87"), (20, "3.23"), (50, "2.28"), (100, "2.53"), (200, "2.86"), (500, "3.13"),
    (1000, "3.20"),
]  # fmt: skip


def _walls():
    olufsen = OlufsenStiffness()
    return [
        SqrtAreaWall(olufsen, pressure_reference=10e3),
        SqrtAreaWall(ConstantStiffness(2e5), pressure_reference=9e3, pressure_external=500.0),
        SvOneDWall(olufsen),
    ]


def _printed(value, text):
    """Whether the value prints as the table has it: within half a unit of its last digit."""
    digits = len(text.split(".")[1])
    return abs(float(value) - float(text)) <= 0.5 * 10.0**-digits + 1e-12


@pytest.mark.parametrize(("reduction", "flow", "viscous", "turbulent"), YOUNG_TSAI)
def test_young_tsai_table(reduction, flow, viscous, turbulent):
    q, r, s, length = (jnp.array(v) for v in (flow * M3_S_PER_ML_MIN, 1.5e-3, reduction, 1e-2))
    first, second = young_tsai_drop(q, r, s, length, 3.5e-3, DENSITY)
    assert _printed(first / PA_PER_MMHG, viscous)
    assert _printed(second / PA_PER_MMHG, turbulent)


def test_stenosis_is_exact_without_reduction_and_close_to_the_pure_law():
    radius, length, viscosity = jnp.full(5, 1.5e-3), jnp.full(5, 1e-2), 3.5e-3
    reduction = jnp.array([0.0, 0.4, 0.5, 0.6, 0.7])
    linear, quadratic = stenosis_coefficients(radius, reduction, length, viscosity, DENSITY)
    assert linear[0] == 0.0
    assert quadratic[0] == 0.0
    flow = jnp.full(5, 150.0 * M3_S_PER_ML_MIN)
    poiseuille = 8.0 * jnp.pi * viscosity * resistance_integral(radius, radius, length)
    drop = (poiseuille + linear) * flow + quadratic * jnp.abs(flow) * flow
    pure = sum(young_tsai_drop(flow, radius, reduction, length, viscosity, DENSITY))
    assert float(jnp.max(jnp.abs(drop / pure - 1.0)[1:])) < 0.04


def test_stenosis_drop_is_odd_in_the_flow():
    radius, reduction, length = jnp.array(1.5e-3), jnp.array(0.6), jnp.array(1e-2)
    there = young_tsai_drop(jnp.array(1e-6), radius, reduction, length, 3.5e-3, DENSITY)
    back = young_tsai_drop(jnp.array(-1e-6), radius, reduction, length, 3.5e-3, DENSITY)
    np.testing.assert_allclose(np.array(there), -np.array(back), rtol=1e-15)


@pytest.mark.parametrize(("diameter", "printed"), PRIES)
def test_pries_values(diameter, printed):
    relative = PriesViscosity(plasma_viscosity=1.0)(jnp.array(0.5e-6 * diameter))
    assert _printed(relative, printed)


@pytest.mark.parametrize("haematocrit", [0.0, 0.2, 0.45, 0.6])
def test_pries_against_the_formula_as_printed(haematocrit):
    """Also across the diameter near 8 µm at which the exponent C goes through zero."""
    d = np.concatenate([np.linspace(4.0, 12.0, 401), np.geomspace(12.0, 4500.0, 100)])
    u = 1.0 / (1.0 + 1e-11 * d**12)
    c = (0.8 + np.exp(-0.075 * d)) * (-1.0 + u) + u
    eta45 = 6.0 * np.exp(-0.085 * d) + 3.2 - 2.44 * np.exp(-0.06 * d**0.645)
    share = ((1.0 - haematocrit) ** c - 1.0) / ((1.0 - 0.45) ** c - 1.0)
    w = (d / (d - 1.1)) ** 2
    expected = 1.2e-3 * (1.0 + (eta45 - 1.0) * share * w) * w
    law = jax.jit(lambda r: PriesViscosity(haematocrit=haematocrit)(r))
    np.testing.assert_allclose(law(jnp.asarray(0.5e-6 * d)), expected, rtol=1e-11)
    slopes = jax.jit(jax.vmap(jax.grad(law)))(jnp.asarray(0.5e-6 * d))
    assert bool(jnp.all(jnp.isfinite(slopes)))


def test_resistance_integral_against_quadrature():
    cases = [(1.5e-3, 1.5e-3), (2.0e-3, 0.7e-3), (0.1e-3, 0.15e-3)]
    for a, b in cases:
        length = 2e-2

        def integrand(x, a=a, b=b, length=length):
            return 1.0 / (np.pi * (a + (b - a) * x / length) ** 2) ** 2

        expected = scipy.integrate.quad(integrand, 0.0, length, epsrel=1e-13, epsabs=0.0)[0]
        found = resistance_integral(jnp.array(a), jnp.array(b), jnp.array(length))
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_blood_coefficients_follow_the_profile():
    parabolic, blunt = Blood(), Blood(profile_exponent=9.0)
    np.testing.assert_allclose(parabolic.friction_coefficient, 8.0 * np.pi, rtol=1e-15)
    np.testing.assert_allclose(blunt.friction_coefficient, 22.0 * np.pi, rtol=1e-15)
    np.testing.assert_allclose(parabolic.alpha, 4.0 / 3.0, rtol=1e-15)
    np.testing.assert_allclose(Blood(profile_exponent=9.0, momentum_coefficient=1.0).alpha, 1.0)
    slope = jax.grad(lambda blood: blood.alpha)(parabolic)
    np.testing.assert_allclose(slope.profile_exponent, -1.0 / 9.0, rtol=1e-14)


def test_blood_parameters_are_differentiable_leaves():
    def loss(blood):
        return jnp.sum(blood.density * blood.viscosity(RADIUS) * blood.friction_coefficient)

    slope = jax.grad(loss)(Blood(viscosity=ConstantViscosity(4e-3)))
    np.testing.assert_allclose(slope.viscosity.viscosity, 4 * 1060.0 * 8.0 * np.pi, rtol=1e-14)
    np.testing.assert_allclose(slope.density, 4 * 4e-3 * 8.0 * np.pi, rtol=1e-14)


@pytest.mark.parametrize("wall", _walls())
def test_wall_round_trip_and_wave_speed(wall):
    area = wall.area(PRESSURE, RADIUS)
    np.testing.assert_allclose(wall.pressure(area, RADIUS), PRESSURE, rtol=1e-12)
    slope = jax.vmap(jax.grad(wall.pressure))(area, RADIUS)
    expected = jnp.sqrt(area / DENSITY * slope)
    np.testing.assert_allclose(wall.wave_speed(area, RADIUS, DENSITY), expected, rtol=1e-13)
    assert bool(jnp.all(wall.is_open(PRESSURE, RADIUS)))


def test_wall_laws_as_written():
    radius, area = 1.5e-3, 8e-6
    eh_over_r = 2e6 * np.exp(-2253.0 * radius) + 8.65e4
    reference = np.pi * radius**2
    beta = 4.0 / 3.0 * np.sqrt(np.pi) * eh_over_r * radius / reference
    expected = 200.0 + 10e3 + beta * (np.sqrt(area) - np.sqrt(reference))
    wall = SqrtAreaWall(OlufsenStiffness(), pressure_reference=10e3, pressure_external=200.0)
    np.testing.assert_allclose(wall.pressure(jnp.array(area), jnp.array(radius)), expected)
    expected = 4.0 / 3.0 * eh_over_r * (1.0 - np.sqrt(reference / area))
    wall = SvOneDWall(OlufsenStiffness())
    np.testing.assert_allclose(wall.pressure(jnp.array(area), jnp.array(radius)), expected)


@pytest.mark.parametrize("wall", _walls())
def test_area_from_total_solves_its_equation(wall):
    area = wall.area_from_total(PRESSURE, FLOW, RADIUS, DENSITY, 4.0 / 3.0)
    dynamic = 0.5 * 4.0 / 3.0 * DENSITY * FLOW**2 / area**2
    np.testing.assert_allclose(wall.pressure(area, RADIUS) + dynamic, PRESSURE, rtol=1e-12)
    assert bool(jnp.all(wall.is_open_at_total(PRESSURE, FLOW, RADIUS, DENSITY, 4.0 / 3.0)))
    still = wall.area_from_total(PRESSURE, 0.0 * FLOW, RADIUS, DENSITY, 4.0 / 3.0)
    np.testing.assert_allclose(still, wall.area(PRESSURE, RADIUS), rtol=1e-15)


@pytest.mark.parametrize("wall", _walls())
def test_area_from_total_derivatives_of_first_and_second_order(wall):
    """Against the implicit-function rule, whose right side knows no Newton step."""
    radius, flow, alpha = RADIUS[2], jnp.array(4e-6), 1.1

    def total(area, flow):
        return wall.pressure(area, radius) + 0.5 * alpha * DENSITY * flow**2 / area**2

    def found(flow):
        return wall.area_from_total(PRESSURE[2], flow, radius, DENSITY, alpha)

    area = jax.jit(found)(flow)
    p_a, p_q = jax.jit(jax.grad(total, (0, 1)))(area, flow)
    first = -p_q / p_a
    np.testing.assert_allclose(jax.jit(jax.grad(found))(flow), first, rtol=1e-12)
    (p_aa, p_aq), (_, p_qq) = jax.jit(jax.hessian(total, (0, 1)))(area, flow)
    second = -(p_qq + 2.0 * p_aq * first + p_aa * first**2) / p_a
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(found)))(flow), second, rtol=1e-11)


@pytest.mark.parametrize("wall", _walls())
@pytest.mark.parametrize("mach", [0.3, 0.6, 0.8])
def test_area_from_total_near_the_sonic_point(wall, mach):
    area = wall.area(PRESSURE, RADIUS)
    flow = mach * area * wall.wave_speed(area, RADIUS, DENSITY)
    total = PRESSURE + 0.5 * DENSITY * (flow / area) ** 2
    found = wall.area_from_total(total, flow, RADIUS, DENSITY, 1.0)
    np.testing.assert_allclose(found, area, rtol=1e-12)


@pytest.mark.parametrize("wall", _walls())
def test_a_shut_or_choked_vessel_is_reported_and_gives_no_nan(wall):
    pressure = jnp.full(4, -1e7) if isinstance(wall, SqrtAreaWall) else jnp.full(4, 1e7)
    assert not bool(jnp.any(wall.is_open(pressure, RADIUS)))
    assert not bool(jnp.any(wall.is_open_at_total(PRESSURE, FLOW * 1e5, RADIUS, DENSITY, 1.0)))

    def both(pressure, flow, radius):
        static = wall.area(pressure, radius)
        total = wall.area_from_total(pressure, flow, radius, DENSITY, 1.0)
        return jnp.sum(static) + jnp.sum(total)

    for p, q in ((pressure, FLOW), (PRESSURE, FLOW * 1e5)):
        slopes = jax.jit(jax.grad(both, (0, 1, 2)))(p, q, RADIUS)
        assert all(bool(jnp.all(jnp.isfinite(s))) for s in slopes)


@pytest.mark.parametrize("wall", _walls())
def test_wall_derivatives_against_differences(wall):
    def of_pressure(p):
        return jnp.sum(wall.area_from_total(p, FLOW, RADIUS, DENSITY, 1.0)) * 1e6

    def of_radius(r):
        return jnp.sum(wall.area_from_total(PRESSURE, FLOW, r, DENSITY, 1.0)) * 1e6

    for function, x in ((of_pressure, PRESSURE), (of_radius, RADIUS)):
        expected = central_difference(function, x, 1e-5)
        np.testing.assert_allclose(jax.jit(jax.grad(function))(x), expected, rtol=1e-6)


def test_law_derivatives_against_differences():
    functions = [
        (lambda r: jnp.sum(PriesViscosity(haematocrit=0.4)(r)), jnp.array([4e-6, 2e-5, 1e-3])),
        (lambda r: jnp.sum(resistance_integral(r, 0.7 * r, 10.0 * r)), RADIUS),
        (lambda s: sum(stenosis_coefficients(RADIUS[2], s, RADIUS[3], 3e-3, 1e3)), jnp.array(0.5)),
        (lambda r: sum(stenosis_coefficients(r, r * 300.0, 9.0 * r, 3e-3, 1e3)), RADIUS[2]),
    ]
    for function, x in functions:
        expected = central_difference(function, x, 1e-5)
        np.testing.assert_allclose(jax.jit(jax.grad(function))(x), expected, rtol=1e-6)


def test_a_stiff_wall_is_a_rigid_wall():
    stiff = SqrtAreaWall(ConstantStiffness(1e14), pressure_reference=0.0)
    rigid = RigidWall()
    arguments = (PRESSURE, FLOW, RADIUS, DENSITY, 1.0)
    expected = rigid.area_from_total(*arguments)
    np.testing.assert_allclose(stiff.area_from_total(*arguments), expected, rtol=1e-9)
    np.testing.assert_allclose(rigid.area(PRESSURE, RADIUS), expected, rtol=1e-15)
    assert rigid.is_rigid
    assert not stiff.is_rigid
    assert bool(jnp.all(rigid.is_open(PRESSURE, RADIUS)))
    assert bool(jnp.all(rigid.is_open_at_total(*arguments)))


def test_float32_without_x64():
    """The stated error in float32: 2e-5 for Pries (a power near a zero), 2e-6 elsewhere."""

    def values(dtype):
        cast = [jnp.asarray(np.asarray(x), dtype) for x in (RADIUS, PRESSURE, FLOW)]
        radius, pressure, flow = cast
        small = jnp.asarray([4e-6, 8.2e-6, 5e-5, 2.2e-3], dtype)
        wall, blood = SvOneDWall(OlufsenStiffness()), Blood(viscosity=PriesViscosity())
        out = [
            wall.area_from_total(pressure, flow, radius, blood.density, blood.alpha),
            SqrtAreaWall(OlufsenStiffness(), 1e4).area(pressure, radius),
            resistance_integral(radius, small, radius),
            *stenosis_coefficients(radius, 200.0 * radius, radius, 3e-3, blood.density),
            blood.viscosity(small),
        ]
        assert {x.dtype for x in out} == {jnp.dtype(dtype)}
        return [np.asarray(x, np.float64) for x in out]

    exact = values(jnp.float64)
    with jax.enable_x64(False):
        single = values(jnp.float32)
    for found, expected in zip(single[:-1], exact[:-1], strict=True):
        np.testing.assert_allclose(found, expected, rtol=5e-6)
    np.testing.assert_allclose(single[-1], exact[-1], rtol=2e-5)


def test_float32_inputs_keep_their_precision_under_x64():
    viscosity = PriesViscosity()(RADIUS.astype(jnp.float32))
    assert viscosity.dtype == jnp.float32
    area = SvOneDWall(OlufsenStiffness()).area(
        PRESSURE.astype(jnp.float32), RADIUS.astype(jnp.float32)
    )
    assert area.dtype == jnp.float32


def test_shapes_are_enforced():
    with pytest.raises(jaxtyping.TypeCheckError):
        resistance_integral(RADIUS, RADIUS[:2], RADIUS)
