r"""Everything below the 1-D vessels, condensed exactly to their boundary condition.

The vessels of the bed are rigid, the dilation is given and no lesion lies among them, so the bed
is linear. With the pressures P of its b outlets and p of the tissue, eliminating its vessels gives

    q_i = G_i (P_i − Σ_c Φ_ci p_c),    S p = Φ G P + s,    Σ_c Φ_ci = 1,

G_i the conductance from outlet i to its tissue, Φ_ci the share of its flow that control volume c
receives at uniform tissue pressure, s the sink's part, and S the Schur complement of the coupled
solve, symmetric positive definite. What an outlet feels of the tissue is π = Φᵀ p, so that

    q = G (P − π),    π = X (q + G π) + X m,    X = Φᵀ S⁻¹ Φ,    q = M π − m,    M = X⁻¹ − G.

A bed at the pressure of the sink does not flow, hence m = p_snk M 1. M is symmetric positive
definite: no energy comes out of the tissue. X takes one solve of the coupled system for each
outlet.

The wall squeezes the blood upstream of the tissue too. With a part D of the resistances 1/G behind
the pressure that it squeezes, π + D q, the form is the same and M is (M⁻¹ + D)⁻¹.
"""

from collections.abc import Callable
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import as_leaf
from .._misc import by_precision, InputError, is_traced
from .._results import RESULTS, SolveError
from ..darcy import (
    AbstractDarcySolver,
    ConjugateGradient,
    darcy_operator,
    DarcyOperator,
    solve_krylov,
)
from ..network import PerfusedBed, VascularNetwork, Waveform
from ..steady import (
    Boundary,
    NetworkFactor,
    NetworkLaw,
    NetworkState,
    NodeClosure,
    solve_network,
)
from ..units import PA_PER_MMHG
from ..vessel import AbstractElasticWall
from ._part import Cut, cut_network, node_label, transient_boundary, transient_part
from ._problem import PerfusionProblem, Tissue
from ._solve import PerfusionSolution, solve_perfusion
from ._waves import arterial_compliance, impedance

# Of 1/G, in front of the vessels that the wall squeezes. The resistance that impedes the flow in
# and out of them is 0.63 Rc - 12.9 mmHg s/ml with Rc that of the whole bed (Spaan 1981): 0.37 Rc in
# a heart of Rc = 50, 0.5 Rc at 100.
_PROXIMAL_SHARE = 0.5
# R2 is never less than this share of R1 + R2: under strong dilation the characteristic impedance
# of a narrow vessel may exceed all the resistance below it.
_LEAST_SHARE = 0.05
# Of Ct, added to the vessels' Ca so that it is positive below an outlet without vessels. It takes
# up less than a hundredth of a beat's flow. Arterioles, which a larger share would stand for, lie
# in the wall: against a constant pressure around them they would fill in systole.
_LEAST_STORAGE = 1e-3
# Below this smallest eigenvalue of X scaled to ones on its diagonal, two outlets are one.
_SINGULAR = 1e-7
# 1 ml/mmHg/100 g in m3/(Pa kg)
_COMPLIANCE_UNIT = 1e-6 / PA_PER_MMHG / 0.1
# p_im over p_LV at the endocardium: 1.2·(0.167, 0.5, 0.833) in the middle of three layers is linear
# in the depth.
_LV_FACTOR = 1.2


class CondensedBed(eqx.Module):
    r"""The pulsatile 1-D part of a perfusion problem with the rest as its boundary condition.

    The steady flows are exact, $q_i = (P_i-\pi_i)/(R_1+R_2)_i = (M\pi-m)_i$ (see the head of this
    file); the storage is lumped, two capacitors for each outlet:

    - $R_1+R_2 = 1/(2G_i)$ is in front of the vessels that the wall squeezes, the other half goes
      into M. Spaan et al. (1981) found 0.37 of a bed of 50 mmHg s/ml, 0.5 at 100, drain included.
    - $R_1 = 1/\sum A/(\rho c)$ over the vessels that leave the outlet, at the steady pressure:
      the characteristic impedance that fast waves meet there. Below an outlet that is itself a
      terminal, that of the 1-D vessels that meet there. $R_2$ is at least 5 % of the two.
    - $C_{a,i} = \sum\int A/(\rho c^2)\,dx + 0.001\,C_{t,i}$: the bed's vessels at the steady
      pressure, under a constant pressure from outside although some lie in the wall. The small
      share keeps $C_a$ positive below an outlet without vessels.
    - $C_{t,i}$, compliance per mass times the mass that the outlet's terminals perfuse: of all
      that the wall squeezes, arterioles, capillaries and veins. Default 0.10 ml/mmHg/100 g,
      which Chilian and Marcus (1984) measured with vasomotor tone, and 0.21 without. The 0.01 to
      0.05 of Lee et al. (1984) are of the intramural arteries alone.
    - $p_{im}(t) = 1.2\,(1-d)\,p_{LV}(t)$ at depth d, which is 1.2·(0.167, 0.5, 0.833)·p_LV in three
      layers, averaged over the tissue that the outlet feeds with the weights Φ.

    **Attributes:**

    - `network`, of the 1-D part, with `node` (n,) and `segment` (s,), the numbers its nodes and
      segments have in the whole network. `flipped` (s,): which of its segments point the other way
      there, so that places on them count from the other end and flows have the other sign; only
      segments of a loop may.
    - `boundary`: the problem's, in the numbers of the 1-D part, and the [`PerfusedBed`][] last.
    - `terminal_outlet`: (t,), the outlet that feeds each terminal, an index into the bed's nodes.
    - `state`: steady total pressures and flows of the 1-D part.
    - `outlet_flow` (b,) m³/s, `arterial_pressure`, `intramural_pressure` (b,) Pa: the steady state
      of the bed, q, a and π of [`PerfusedBed`][].
    - `relative_error`: max |q − (Mπ − m)| / max |q| in that state.
    """

    network: VascularNetwork
    node: Int[np.ndarray, " n"]
    segment: Int[np.ndarray, " s"]
    flipped: Bool[np.ndarray, " s"]
    boundary: Boundary
    terminal_outlet: Int[np.ndarray, " t"]
    state: NetworkState
    outlet_flow: Float[Array, " b"]
    arterial_pressure: Float[Array, " b"]
    intramural_pressure: Float[Array, " b"]
    relative_error: Float[Array, ""]

    @property
    def bed(self) -> PerfusedBed:
        """The condensed bed, the last of the boundary conditions."""
        return cast(PerfusedBed, self.boundary[-1])


class _Linear(eqx.Module):
    """The coupled equations at the dilation found, the whole 1-D part at given pressures.

    `operator` is the tissue's with source and sink, `link` (k,) the conductance (m³/(Pa·s)) from a
    terminal to a control volume, `factor` the network with the links at its terminals. Written
    out, as in `PerfusionSystem.schur`, a product takes half as long as by linearising: what ties a
    control volume to the pressures held is summed up once.
    """

    tissue: Tissue
    link: Float[Array, " k"]
    operator: DarcyOperator
    factor: NetworkFactor

    def terminal_pressure(
        self, at_node: Float[Array, " n"], from_tissue: Float[Array, " t"]
    ) -> Float[Array, " t"]:
        """Terminal pressures for pressures of the 1-D part and flows from the tissue."""
        node = self.tissue.terminal_node
        right = at_node.at[node].add(-from_tissue)
        right = jnp.where(self.factor.fixed, at_node, right)
        return solve_network(self.factor, jnp.zeros_like(self.factor.y), right)[0][node]

    def schur(self, pressure: Float[Array, " c"]) -> Float[Array, " c"]:
        """S p."""
        tissue = self.tissue
        from_tissue = tissue.to_terminals(self.link * pressure[tissue.cell])
        nothing = jnp.zeros_like(self.factor.conductance)
        terminal = self.terminal_pressure(nothing, from_tissue)
        return self.operator(pressure) - tissue.to_cells(self.link * terminal[tissue.terminal])


class _Outlets(eqx.Module):
    """G, and Φ as pairs of a control volume and an outlet."""

    conductance: Float[Array, " b"]
    outlet: Int[Array, " k"]
    weight: Float[Array, " k"]

    def mean(self, tissue: Tissue, values: Float[Array, " c"]) -> Float[Array, " b"]:
        """Φᵀ values."""
        carried = self.weight * values[tissue.cell]
        return jax.ops.segment_sum(carried, self.outlet, self.conductance.shape[0])


def condense_bed(
    problem: PerfusionProblem,
    is_transient: Bool[np.ndarray, " s"],
    *,
    wall: AbstractElasticWall,
    pressure_lv: Waveform | None = None,
    depth: Float[np.ndarray, " c"] | None = None,
    tissue_compliance_ml_mmHg_100g: float = 0.10,
    solution: PerfusionSolution | None = None,
    method: AbstractDarcySolver = ConjugateGradient(),
    rtol: float | None = None,
    max_linear_steps: int = 20_000,
    chunk: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> CondensedBed:
    r"""Condense everything below the given vessels to a [`PerfusedBed`][].

    What is exact in it and what is lumped, a [`CondensedBed`][] says.

    **Arguments:**

    - `is_transient`: (s,), the segments of the 1-D part, closed towards the roots; see
      [`transient_segments`][].
    - `wall`: the wall law of the vessels, for $R_1$ and $C_a$. The problem's own wall is rigid.
    - `pressure_lv`: left-ventricular pressure (Pa), one row; `depth`: (c,) 0 at the endocardium,
      1 at the epicardium. Without them the intramyocardial pressure is constant.
    - `solution`: the steady solution of `problem`, solved for where left out. The bed keeps its
      dilation: one that regulates itself is condensed at the dilation it has found (and a
      derivative with respect to the dilation runs through the solution).
    - `method`: a Darcy solver, used as preconditioner; `rtol`, on each tissue solve, 1e-6 in
      double and 1e-4 in single precision where left out: M errs by about its square.
    - `max_linear_steps`: as in `solve_perfusion`; `chunk`: outlets solved for at once;
      `progress` is called with (done, all) outlets.

    **Returns:** a [`CondensedBed`][]; differentiable in the parameters that `problem` holds as
    floating-point arrays (those of `solve_perfusion`), in either mode. Not to be jitted: the cut
    runs on the host. Single precision errs by about 1e-6. Memory: 16 bytes (8 in single
    precision) for each outlet and control volume.

    **Errors:** [`InputError`][] naming the vessel or the node: an elastic wall in the problem, a
    1-D part that is not closed towards the roots, a loop, a lesion or a boundary condition in the
    bed, an outlet that feeds no tissue, two outlets that the mesh cannot tell apart, a vessel
    without lumen, a pressure waveform without depth. [`SolveError`][] where a solve fails; under a
    transformation the bed is NaN then.

    **Source:** abstracts of J. A. E. Spaan, N. P. W. Breuls, J. D. Laird, Circ Res 49:584 (1981);
    W. M. Chilian, M. L. Marcus, Am J Physiol 247:H984 (1984); J. A. E. Spaan, Circ Res 56:293
    (1985); J. Lee, D. E. Chambers, S. Akizuki, J. M. Downey, Circ Res 55:751 (1984). The circuit is
    that of `CoronaryOutletSvOneD` (Kim et al. 2010), its venous part coupled.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    mesh, _, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    tree = jp.anatomy.demo_tree(lv)
    terminal = np.asarray(tree.terminals)
    site = jp.anatomy.terminal_sites(tree, terminal, 0.02)
    regions = jp.geometry.terminal_regions(mesh, *site, len(terminal))
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    bed = jp.Microcirculation(1.7e-6, 8.7e-6, 2e-9, 700.0, 1.0)
    problem = jp.PerfusionProblem(tree, jp.perfused_tissue(mesh, regions, terminal), (inlet,), bed)
    followed = jp.coupling.transient_segments(tree, 0, min_radius_m=0.7e-3)
    wall = jp.SqrtAreaWall(jp.OlufsenStiffness(), 12000.0)
    bed = jp.coupling.condense_bed(problem, followed, wall=wall)
    ```
    """
    _refuse_arguments(problem, pressure_lv, depth, tissue_compliance_ml_mmHg_100g)
    cut = cut_network(problem, is_transient)
    solution = solution or solve_perfusion(problem, method, max_linear_steps=max_linear_steps)
    held = np.isin(np.arange(problem.network.n_nodes), cut.node)
    linear = _linear(problem, solution, as_leaf(held))
    outlets = _outlets(problem.network, linear, cut)
    default = by_precision(solution.pressure_total, float64=1e-6, float32=1e-4)
    within = as_leaf(default if rtol is None else rtol, solution.pressure_total.dtype)
    interaction = _interaction(
        problem.network, linear, method, outlets, cut, within, max_linear_steps, chunk, progress
    )
    _refuse_twins(problem.network, cut, interaction)
    bed = _perfused_bed(
        outlets,
        interaction,
        node=as_leaf(np.searchsorted(cut.node, cut.outlet), np.int32),
        proximal=impedance(problem, solution, cut, wall),
        arterial=arterial_compliance(problem, solution, cut, wall),
        storage=_storage(problem, cut, tissue_compliance_ml_mmHg_100g),
        pressure_sink=problem.microcirculation.pressure_sink,
        pressure_im=_intramyocardial(problem.tissue, outlets, pressure_lv, depth),
    )
    return _condensed(problem, solution, cut, outlets, bed)


@eqx.filter_jit
def _perfused_bed(
    outlets: _Outlets,
    interaction: Float[Array, "b b"],
    *,
    node: Int[Array, " b"],
    proximal: Float[Array, " b"],
    arterial: Float[Array, " b"],
    storage: Float[Array, " b"],
    pressure_sink: Float[Array, ""],
    pressure_im: Waveform | None,
) -> PerfusedBed:
    inverse = jnp.linalg.inv(interaction)
    tissue = 0.5 * (inverse + inverse.T) - jnp.diag(outlets.conductance)
    distal = (1.0 - _PROXIMAL_SHARE) / outlets.conductance
    # (M⁻¹ + D)⁻¹ by way of √D, which keeps it symmetric and needs no M⁻¹
    root = jnp.sqrt(distal)
    scaled = root[:, None] * tissue * root[None, :]
    scaled = jnp.linalg.solve(scaled + jnp.eye(len(root), dtype=root.dtype), scaled)
    scaled = 0.5 * (scaled + scaled.T)
    matrix = scaled / (root[:, None] * root[None, :])
    upstream = _PROXIMAL_SHARE / outlets.conductance
    front = jnp.minimum(proximal, (1.0 - _LEAST_SHARE) * upstream)
    return PerfusedBed(
        node=node,
        resistance_proximal=front,
        resistance_distal=upstream - front,
        compliance_proximal=arterial + _LEAST_STORAGE * storage,
        compliance_distal=storage,
        conductance=matrix,
        inflow=pressure_sink * jnp.sum(matrix, axis=1),
        pressure_im=pressure_im,
    )


def _storage(problem: PerfusionProblem, cut: Cut, compliance: float) -> Float[Array, " b"]:
    """Ct, of the tissue that the outlets' terminals perfuse."""
    tissue = problem.tissue
    outlet = as_leaf(cut.terminal_outlet, np.int32)
    volume = _sums(tissue.terminal_volume, outlet, cut.outlet.size)
    return compliance * _COMPLIANCE_UNIT * tissue.density * volume


@eqx.filter_jit
def _sums(values: Float[Array, " k"], group: Int[Array, " k"], n: int) -> Float[Array, " n"]:
    return jax.ops.segment_sum(values, group, n)


def _refuse_arguments(
    problem: PerfusionProblem,
    pressure_lv: Waveform | None,
    depth: Float[np.ndarray, " c"] | None,
    compliance: float,
) -> None:
    if not problem.wall.is_rigid:
        raise InputError(
            f"the wall of the problem is {type(problem.wall).__name__}",
            where="problem.wall",
            expected="RigidWall: the bed is condensed as a linear one",
            fix="Give the elastic law as the argument wall, and solve the steady problem rigid",
        )
    if (pressure_lv is None) != (depth is None):
        raise InputError(
            "one of pressure_lv and depth is missing",
            where="condense_bed",
            expected="both, or neither for a constant intramyocardial pressure",
            fix="Give the left-ventricular pressure and the transmural depth of every cell",
        )
    if pressure_lv is not None and pressure_lv.value.shape[0] != 1:
        raise InputError(
            f"pressure_lv has {pressure_lv.value.shape[0]} rows",
            where="pressure_lv",
            expected="one: there is one left ventricle",
            fix="Give one row of values",
        )
    if not compliance > 0:
        raise InputError(
            f"tissue_compliance_ml_mmHg_100g is {compliance}",
            where="condense_bed",
            expected="a positive number, 0.01 to 0.2",
            fix="Leave it out for the default",
        )


@eqx.filter_jit
def _linear(
    problem: PerfusionProblem, solution: PerfusionSolution, node: Bool[Array, " n"]
) -> _Linear:
    tissue, bed = problem.tissue, problem.microcirculation
    on_pairs = lambda beta: jnp.broadcast_to(beta, (tissue.n_cells,))[tissue.cell]
    dilated = tissue.overlap * solution.dilation[tissue.terminal]
    link = dilated * on_pairs(bed.beta_source)
    taken = tissue.to_cells(link + dilated * on_pairs(bed.beta_sink))
    transmissibility = tissue.mesh.transmissibility(bed.permeability)
    law = NetworkLaw(problem.network, problem.blood, problem.wall)
    zero = jnp.zeros_like(solution.pressure_total)
    factor = law.factor(
        NetworkState(solution.pressure_total, solution.flow),
        NodeClosure(node, zero, zero, zero),
        zero.at[tissue.terminal_node].add(tissue.to_terminals(link)),
    )
    return _Linear(tissue, link, darcy_operator(tissue.mesh.graph, transmissibility, taken), factor)


def _terminal_share(linear: _Linear) -> Float[Array, " t"]:
    """Pressure at the terminals for 1 at every outlet and 0 in the tissue.

    One sweep over the network answers for all outlets: below them the trees are apart.
    """
    held = jnp.where(linear.factor.fixed, 1.0, 0.0).astype(linear.link.dtype)
    return linear.terminal_pressure(held, jnp.zeros(linear.tissue.n_terminals, held.dtype))


@eqx.filter_jit
def _shared_out(linear: _Linear, terminal_outlet: Int[Array, " t"], n_outlets: int) -> _Outlets:
    terminal = linear.tissue.terminal
    carried = linear.link * _terminal_share(linear)[terminal]
    outlet = terminal_outlet[terminal]
    conductance = jax.ops.segment_sum(carried, outlet, n_outlets)
    return _Outlets(conductance, outlet, carried / conductance[outlet])


def _outlets(network: VascularNetwork, linear: _Linear, cut: Cut) -> _Outlets:
    outlets = _shared_out(linear, as_leaf(cut.terminal_outlet, np.int32), cut.outlet.size)
    conductance = outlets.conductance
    if not is_traced(conductance) and not (np.asarray(conductance) > 0).all():
        bad = int(cut.outlet[np.argmin(np.asarray(conductance))])
        raise InputError(
            f"the terminals below {node_label(network, bad)} perfuse no tissue",
            where="outlet",
            expected="an outlet that feeds tissue",
            fix="Give its terminals a region, or remove the vessels below it",
        )
    return outlets


@eqx.filter_jit
def _responses(
    linear: _Linear,
    method: AbstractDarcySolver,
    outlet: Int[Array, " k"],
    weight: Float[Array, " k"],
    number: Int[np.ndarray | Array, " m"],
    rtol: Float[Array, ""],
    max_linear_steps: int,
) -> tuple[Float[Array, "m c"], Float[Array, "m c"], Bool[Array, " m"]]:
    """z = S⁻¹ φ of some outlets (NaN where none was found), the residuals φ − S z, and whether
    each was found.

    Nothing here depends on the number of outlets: another cut is the same program.
    """
    prepared = method.init(jax.lax.stop_gradient(linear.operator))
    if method.is_linear_symmetric:
        kind, precondition = "conjugate_gradient", lambda r: method.precondition(prepared, r)
    else:
        kind, precondition = (
            "defect_correction",
            lambda r: method.solve(prepared, r).pressure_tissue,
        )

    def one(
        i: Int[np.ndarray | Array, ""],
    ) -> tuple[Float[Array, " c"], Float[Array, " c"], Bool[Array, ""]]:
        share = linear.tissue.to_cells(jnp.where(outlet == i, weight, jnp.zeros_like(weight)))
        found = solve_krylov(
            linear.schur, precondition, share, method=kind, rtol=rtol, max_steps=max_linear_steps
        )
        return found.value, share - linear.schur(found.value), found.converged

    return jax.vmap(one)(number)


def _interaction(
    network: VascularNetwork,
    linear: _Linear,
    method: AbstractDarcySolver,
    outlets: _Outlets,
    cut: Cut,
    rtol: Float[Array, ""],
    max_linear_steps: int,
    chunk: int,
    progress: Callable[[int, int], None] | None,
) -> Float[Array, "b b"]:
    r"""X = Φᵀ S⁻¹ Φ, in blocks of columns of one size so that they share one program.

    From solutions z and residuals r, $X_{ij} = \phi_i^Tz_j + r_i^Tz_j$ errs by $e_i^TSe_j$ only: by
    the square of the solves' error.
    """
    n_outlets = cut.outlet.size
    solutions, residuals = [], []
    for first in range(0, n_outlets, chunk):
        number = np.minimum(np.arange(first, first + chunk), n_outlets - 1)
        value, residual, converged = _responses(
            linear,
            method,
            outlets.outlet,
            outlets.weight,
            number.astype(np.int32),
            rtol,
            max_linear_steps,
        )
        if not is_traced(converged) and not np.asarray(converged).all():
            bad = int(cut.outlet[number[np.argmin(np.asarray(converged))]])
            raise SolveError(
                RESULTS.linear_solver_failed, f"The outlet is {node_label(network, bad)}."
            )
        solutions.append(value)
        residuals.append(residual)
        if progress is not None:
            if not is_traced(value):
                value.block_until_ready()
            progress(min(first + chunk, n_outlets), n_outlets)
    return _met(linear.tissue, outlets, solutions, residuals)


@eqx.filter_jit
def _met(
    tissue: Tissue,
    outlets: _Outlets,
    solutions: list[Float[Array, "m c"]],
    residuals: list[Float[Array, "m c"]],
) -> Float[Array, "b b"]:
    """X from the blocks of solutions and residuals; the last block may repeat its last outlet."""
    n_outlets = outlets.conductance.shape[0]
    solution, residual = (jnp.concatenate(blocks)[:n_outlets] for blocks in (solutions, residuals))
    matrix = jax.lax.map(lambda row: outlets.mean(tissue, row), solution) + solution @ residual.T
    return 0.5 * (matrix + matrix.T)


def _refuse_twins(network: VascularNetwork, cut: Cut, interaction: Float[Array, "b b"]) -> None:
    if is_traced(interaction):
        return
    matrix = np.asarray(interaction, np.float64)
    size = np.sqrt(np.diagonal(matrix))
    alike = matrix / size[:, None] / size[None, :]
    if np.linalg.eigvalsh(alike)[0] > _SINGULAR:
        return
    pair = np.unravel_index(np.argmax(alike - np.eye(len(alike))), alike.shape)
    first, second = (node_label(network, int(cut.outlet[i])) for i in pair)
    raise InputError(
        f"{first} and {second} feed the same tissue, as far as the mesh can tell",
        where="outlet",
        expected="outlets with tissue of their own",
        fix="Refine the mesh, or let 1-D vessels end further up",
    )


def _intramyocardial(
    tissue: Tissue,
    outlets: _Outlets,
    pressure_lv: Waveform | None,
    depth: Float[np.ndarray, " c"] | None,
) -> Waveform | None:
    if pressure_lv is None or depth is None:
        return None
    inward = (1.0 - depth).astype(outlets.weight.dtype)
    value = _squeeze(tissue, outlets, as_leaf(inward), pressure_lv.value)
    return Waveform(pressure_lv.time, value, pressure_lv.period)


@eqx.filter_jit
def _squeeze(
    tissue: Tissue,
    outlets: _Outlets,
    inward: Float[Array, " c"],
    pressure_lv: Float[Array, "1 k"],
) -> Float[Array, "b k"]:
    return _LV_FACTOR * outlets.mean(tissue, inward)[:, None] * pressure_lv


def _condensed(
    problem: PerfusionProblem,
    solution: PerfusionSolution,
    cut: Cut,
    outlets: _Outlets,
    bed: PerfusedBed,
) -> CondensedBed:
    network, flipped = transient_part(problem.network, cut)
    state = _steady_state(problem.tissue, solution, outlets, bed, cut.terminal_outlet, cut.outlet)
    outlet_flow, arterial_pressure, intramural_pressure, relative_error = state
    return CondensedBed(
        network=network,
        node=cut.node,
        segment=cut.segment,
        flipped=flipped,
        boundary=(*transient_boundary(problem.boundary, cut), bed),
        terminal_outlet=cut.terminal_outlet,
        state=_state_of(solution, cut.node, cut.segment, flipped),
        outlet_flow=outlet_flow,
        arterial_pressure=arterial_pressure,
        intramural_pressure=intramural_pressure,
        relative_error=relative_error,
    )


@eqx.filter_jit
def _steady_state(
    tissue: Tissue,
    solution: PerfusionSolution,
    outlets: _Outlets,
    bed: PerfusedBed,
    terminal_outlet: Int[np.ndarray | Array, " t"],
    outlet: Int[np.ndarray | Array, " b"],
) -> tuple[Float[Array, " b"], Float[Array, " b"], Float[Array, " b"], Float[Array, ""]]:
    """q, a and π of the bed, and how far they are from its own equation."""
    flow = jax.ops.segment_sum(solution.terminal_flow, terminal_outlet, outlet.size)
    distal = 1.0 / outlets.conductance - bed.resistance_proximal - bed.resistance_distal
    intramural = outlets.mean(tissue, solution.pressure_tissue) + distal * flow
    error = jnp.max(jnp.abs(flow - (bed.conductance @ intramural - bed.inflow)))
    arterial = solution.pressure_total[outlet] - bed.resistance_proximal * flow
    return flow, arterial, intramural, error / jnp.max(jnp.abs(flow))


@eqx.filter_jit
def _state_of(
    solution: PerfusionSolution,
    node: Int[np.ndarray | Array, " n"],
    segment: Int[np.ndarray | Array, " s"],
    flipped: Bool[np.ndarray | Array, " s"],
) -> NetworkState:
    flow = solution.flow[segment]
    return NetworkState(solution.pressure_total[node], jnp.where(flipped, -flow, flow))
