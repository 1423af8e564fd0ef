"""What came of a run, in the lines that a terminal shows."""

import rich.markup

from ._fit_schema import FitSummary
from ._schema import Flow1DSummary, Forest, Pulsatile, Summary


def run_lines(said: Summary) -> list[str]:
    """What a run came to."""
    mbf, seconds = said.mbf_mean_ml_min_g, said.seconds
    return [
        f"[bold]{rich.markup.escape(said.title)}[/bold]  {', '.join(said.labels)}",
        f"  MBF      rest {mbf['rest']:.2f}, hyperemia {mbf['hyperemia']:.2f} ml/min/g, "
        f"CFR {said.cfr_mean:.2f}",
        *(
            f"  lesion   {rich.markup.escape(x.branch)} "
            f"{100 * x.diameter_reduction:.0f} %: FFR {x.ffr:.2f} behind it, {x.ffr_behind:.2f} at "
            f"{x.ffr_behind_at_mm:.0f} mm"
            + (", closed" if x.is_occlusion else f", CFR {x.cfr:.2f}")
            for x in said.lesions
        ),
        f"  FFR      lowest {said.ffr_min:.2f}, in {rich.markup.escape(said.ffr_min_branch)}",
        *(forest_lines(said.forest) if said.forest else []),
        *_pulse_lines(said.pulsatile),
        f"  balance  {said.mass_balance_relative_error:.1e} relative",
        f"  seconds  setup {seconds.setup:.1f}, compile {seconds.compile:.1f}, "
        f"solve {seconds.solve:.1f}",
        *(f"  [yellow]warning[/yellow]  {rich.markup.escape(w)}" for w in said.warnings),
    ]


def fit_lines(said: FitSummary) -> list[str]:
    """What a fit came to, with intervals."""
    shown = lambda x: f"{x.median:.2f} ({x.low:.2f} to {x.high:.2f})"
    escape = rich.markup.escape
    return [
        f"[bold]{escape(said.title)}[/bold]  {', '.join(said.labels)}",
        f"  fit      {said.values} values, {len(said.parameters)} entries, "
        f"{said.cost.modes} modes; {said.cost.solves} solves, {said.cost.columns} columns",
        *(
            f"  lesion   {escape(x.branch)} {x.start_mm:g}–{x.end_mm:g} mm: FFR {shown(x.ffr)}, "
            f"opened {shown(x.opened.ffr)} and flow × {shown(x.opened.mbf_ratio)}"
            for x in said.lesions
        ),
        *(
            f"  {escape(x.name):<8} {x.label} "
            f"({', '.join(f'{k} {v:.2f}' for k, v in x.probability.items())}). {x.evidence}"
            for x in said.diagnosis
        ),
        f"  quality  {said.quality.words}",
        *(f"  blind    {escape(x)}" for x in said.blind[:5]),
        *(
            f"  further  a {escape(x.measurement)} would take the sd of {escape(x.quantity)} from "
            f"{x.sd_before:.3f} to {x.sd_after:.3f}"
            for x in said.further
        ),
        *(f"  [yellow]warning[/yellow]  {escape(w)}" for w in said.warnings),
    ]


def flow1d_lines(said: Flow1DSummary) -> list[str]:
    """What a 1-D run came to."""
    seconds = said.seconds
    return [
        f"[bold]{rich.markup.escape(said.title)}[/bold]  {said.format}",
        f"  vessels  {said.n_vessels} in {said.n_cells} cells",
        f"  cycles   {said.cycles} of {said.period_s:g} s",
        f"  seconds  setup {seconds.setup:.1f}, compile and solve {seconds.solve:.1f}",
        *(f"  [yellow]warning[/yellow]  {rich.markup.escape(w)}" for w in said.warnings),
    ]


def forest_lines(said: Forest) -> list[str]:
    """Size and targets of a forest."""
    return [
        f"  forest   {said.trees} trees, {said.terminals} terminals of "
        f"{said.terminal_diameter_um:.0f} µm, {said.length_m:.1f} m of vessels (synthetic)",
        f"  growth   {said.terminals_per_s:.0f} terminals/s; {said.seconds:.1f} s with "
        "territories and sites",
        f"  stubs    median {said.stub_length_median_mm:.1f} mm, "
        f"longest {said.stub_length_max_mm:.1f} mm",
        f"  targets  {100 * said.projected_within_5_percent:.0f} % of the trees within 5 %, "
        f"largest deviation {100 * said.projected_deviation_max:.0f} %; "
        f"{said.trees_wider_than_their_vessel} trees wider than the vessel they leave",
        *(
            f"  share    {rich.markup.escape(name)}: "
            + (f"rest {100 * row.share_rest:.1f} %, " if row.share_rest is not None else "")
            + f"wall {100 * row.share_projected:.1f} %, target {100 * row.share_target:.1f} %"
            for name, row in said.territories.items()
        ),
    ]


def _pulse_lines(said: Pulsatile | None) -> list[str]:
    """Pulsatile flow: how much of it is diastolic, and the pressure behind lesions."""
    lines = []
    for state, beat in ({} if said is None else said.states).items():
        share = ", ".join(
            f"{rich.markup.escape(name)} {100 * beat.branches[name].diastolic_share:.0f} %"
            for name in beat.territories
        )
        lines.append(
            f"  beat     {state}: diastolic share of the flow {share}; {beat.cells} cells, "
            f"{beat.cycles} beats, {beat.seconds.bed + beat.seconds.solve:.1f} s"
        )
        lines += [
            f"           {rich.markup.escape(x.branch)}: mean pressure behind the lesion "
            f"{x.pressure_ratio:.2f} of the aortic one, {x.pressure_ratio_steady:.2f} in "
            "steady flow"
            for x in beat.lesions
        ]
    return lines
