"""The page of a report: what stands in it, in order, without a word of HTML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ._fit_schema import Estimate, FitSummary
from ._read_back import RunData
from ._schema import LesionFlow, Summary
from ._web import Figure
from ._web_curves import convergence, intervals, pull_back, waveforms
from ._web_maps import difference_maps, fit_maps, run_maps, transmural
from ._web_scene import scene

LIMITS = (
    "This is the output of a model. It is not validated for clinical use and jaxperf is no medical "
    "device."
)


@dataclass(frozen=True)
class Table:
    """A table; cells of the columns after the first are numbers where `numbers` is true."""

    heading: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    numbers: bool = True


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading; `texts` are long texts that open on a click."""

    heading: str
    words: Sequence[str] = ()
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    texts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Chapter:
    """A run, or the comparison of several."""

    key: str
    heading: str
    sections: Sequence[Section]


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    version: str
    chapters: Sequence[Chapter] = field(default_factory=tuple)


def shown(value: float | None, digits: int = 2) -> str:
    """A number as a reader wants it; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}"


def _interval(x: Estimate, digits: int = 2) -> str:
    return f"{shown(x.median, digits)} ({shown(x.low, digits)} to {shown(x.high, digits)})"


def _spoken(state: str) -> str:
    return state.replace("_", " ")


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def build_page(runs: Sequence[RunData], version: str) -> Page:
    """The page of one run or fit, or of several side by side."""
    if len(runs) == 1:
        return Page(runs[0].said.title, version, [_chapter(runs[0], "")])
    letters = [chr(ord("A") + i) for i in range(len(runs))]
    title = " and ".join(dict.fromkeys(run.said.title for run in runs))
    chapters = [_comparison(runs, letters)]
    chapters += [_chapter(run, letter) for run, letter in zip(runs, letters, strict=True)]
    return Page(title, version, chapters)


def _chapter(run: RunData, letter: str) -> Chapter:
    said = run.said
    heading = f"{letter}: {said.title}" if letter else said.title
    first = _fit_first(run, said) if isinstance(said, FitSummary) else _run_first(run, said)
    states = list(said.states)
    sections = [first]
    if figures := scene(run, states):
        sections.append(Section("Wall and vessels", figures=figures))
    maps = fit_maps(said) if isinstance(said, FitSummary) else run_maps(run, said)
    sections.append(Section("Flow by segment", figures=maps, tables=_feeding(run)))
    curves = []
    if run.tree is not None:
        chosen = said.lesions[0].branch if said.lesions else None
        curves.append(pull_back([("", run.tree)], states, chosen))
    if isinstance(said, Summary) and said.pulsatile is not None and run.waves:
        curves.append(waveforms(run, said.pulsatile))
    if run.wall is not None:
        curves.append(transmural(run.wall))
    if curves:
        sections.append(Section("Pressure and flow", figures=curves))
    if isinstance(said, FitSummary):
        sections.append(_fit_details(said))
    sections += [_numerics(said), _origin(run)]
    return Chapter(letter or "run", heading, sections)


def _lesion_names(lesions: Sequence) -> list[str]:
    return [
        f"{x.branch}, {x.start_mm:g} to {x.end_mm:g} mm, {100 * x.diameter_reduction:.0f} %"
        for x in lesions
    ]


def _asked(run: RunData, what: str) -> str:
    """The case in a sentence."""
    case, said = run.case, run.said
    lesions = "; ".join(_lesion_names(said.lesions)) or "none"
    labels = f"Anatomy: {', '.join(said.labels)}. " if said.labels else ""
    states = ", ".join(map(_spoken, said.states))
    return f"{labels}{what} States: {states}; {case.flow} flow. Lesions: {lesions}."


def _run_first(run: RunData, said: Summary) -> Section:
    what = (
        f"{_counted(said.n_vessels, 'vessel')} with {_counted(said.n_terminals, 'terminal')} feed "
        f"a wall of {said.wall_mass_g:.0f} g in {said.n_cells} cells."
    )
    states = said.states
    head = [
        "lesion",
        "FFR just behind",
        "FFR further on",
        *(f"ml/min, {_spoken(s)}" for s in states),
    ]
    lesions = Table(
        "Behind each lesion",
        [*head, "CFR", "wall behind it"],
        [
            _lesion_row(name, x, states)
            for name, x in zip(_lesion_names(said.lesions), said.lesions, strict=True)
        ],
        "FFR is static over aortic pressure at hyperemia. Distances are along the branch.",
    )
    rows = [
        [
            name,
            f"{100 * x.volume_share:.0f} %",
            *(shown(x.mbf_ml_min_g[s]) for s in states),
            shown(x.cfr),
        ]
        for name, x in said.mbf_by_territory.items()
    ]
    mean = ["whole wall", "100 %", *(shown(said.mbf_mean_ml_min_g[s]) for s in states)]
    territories = Table(
        "By territory",
        ["territory", "share", *(f"MBF, {_spoken(s)} (ml/min/g)" for s in states), "CFR"],
        [*rows, [*mean, shown(said.cfr_mean)]],
    )
    lowest = f"The lowest FFR of all vessels is {shown(said.ffr_min)}, in {said.ffr_min_branch}."
    tables = [*([lesions] if said.lesions else []), territories]
    return Section(
        "What was asked, what came out, what to doubt",
        [_asked(run, what), lowest],
        _doubts(said.warnings),
        tables,
    )


def _lesion_row(name: str, x: LesionFlow, states: Sequence[str]) -> list[str]:
    return [
        name + (", closed" if x.is_occlusion else ""),
        f"{shown(x.ffr)} at {x.end_mm:g} mm",
        f"{shown(x.ffr_behind)} at {x.ffr_behind_at_mm:.0f} mm",
        *(shown(x.flow_ml_min[s], 1) for s in states),
        shown(x.cfr),
        f"{100 * x.wall_share_below:.0f} %",
    ]


def _doubts(warnings: Sequence[str]) -> list[str]:
    return [*(warnings or ["The run itself gave no warning."]), LIMITS]


def _fit_first(run: RunData, said: FitSummary) -> Section:
    level = f"{100 * said.level:.0f} %"
    values, unknowns = _counted(said.values, "measured value"), len(said.parameters)
    what = (
        f"{values} fitted with {_counted(unknowns, 'unknown')}; "
        f"numbers are medians with {level} intervals of the {said.posterior} posterior."
    )
    lesions = Table(
        "Behind each lesion",
        ["lesion", "FFR at its end", "P(FFR ≤ 0.80)", "FFR once opened", "flow once opened, ratio"],
        [
            [
                name,
                f"{_interval(x.ffr)} at {x.end_mm:g} mm",
                shown(x.ffr_ischaemic_probability),
                _interval(x.opened.ffr),
                _interval(x.opened.mbf_ratio),
            ]
            for name, x in zip(_lesion_names(said.lesions), said.lesions, strict=True)
        ],
    )
    head = [f"MBF, {_spoken(s)} (ml/min/g)" for s in said.states]
    territories = Table(
        "By territory",
        ["territory", *head, "CFR", "CFR without lesions"],
        [
            [
                name,
                *(_interval(x.mbf_ml_min_g[s]) for s in said.states),
                _interval(x.cfr),
                _interval(x.cfr_without_lesions),
            ]
            for name, x in said.territories.items()
        ],
    )
    diagnosis = Table(
        "What explains the measurements",
        ["where", "most probable", "probabilities", "evidence"],
        [
            [
                x.name,
                x.label,
                ", ".join(f"{k} {shown(v)}" for k, v in x.probability.items()),
                x.evidence,
            ]
            for x in said.diagnosis
        ],
        numbers=False,
    )
    tables = [lesions] if said.lesions else []
    tables += [territories, *([diagnosis] if said.diagnosis else [])]
    return Section(
        "What was asked, what came out, what to doubt",
        [_asked(run, what), said.quality.words],
        _doubts(said.warnings),
        tables,
    )


def _fit_details(said: FitSummary) -> Section:
    tables = []
    if said.wires:
        tables.append(
            Table(
                "Pressure wires",
                ["wire", "measured", "fitted"],
                [
                    [
                        f"{x.branch} at {x.at_mm:g} mm, {_spoken(x.state)}",
                        shown(x.measured, 3),
                        _interval(x.fitted, 3),
                    ]
                    for x in said.wires
                ],
            )
        )
    tables.append(
        Table(
            "Parameters",
            ["entry", "before", "after", "sd after over before"],
            [
                [x.entry, _interval(x.prior, 3), _interval(x.posterior, 3), shown(x.sd_ratio)]
                for x in said.parameters
            ],
        )
    )
    if said.further:
        tables.append(
            Table(
                "What one measurement more would be worth",
                ["measurement", "quantity", "sd now", "sd then"],
                [
                    [x.measurement, x.quantity, shown(x.sd_before, 3), shown(x.sd_after, 3)]
                    for x in said.further
                ],
                numbers=False,
            )
        )
    blind = said.blind or ["Nothing that the check of identifiability names."]
    cost = (
        f"The fit took {said.cost.solves} solves and {said.cost.columns} tangents or adjoints, and "
        f"found {_counted(said.cost.modes, 'mode')}."
    )
    words = [cost, *([said.quality.check] if said.quality.check else [])]
    words += [f"What the measurements cannot tell apart: {text}" for text in blind]
    figures = [*intervals(said), *([convergence(said)] if said.cost.history else [])]
    return Section("The fit", words, tables=tables, figures=figures)


def _feeding(run: RunData) -> list[Table]:
    """Which vessel feeds which segment; a table for each state would hide what belongs together."""
    if not run.feeding:
        return []
    states = [k for k in run.feeding[0] if k.startswith("mbf_")]
    spoken = [_spoken(k.removeprefix("mbf_").removesuffix("_ml_min_g")) for k in states]
    rows = [
        [
            f"{row['segment']} {row['name']}",
            row["branch"],
            shown(float(row["mass_g"])),
            *(shown(float(row[k])) for k in states),
        ]
        for row in run.feeding
    ]
    return [
        Table(
            "Which vessel feeds which segment",
            ["segment", "vessel", "mass (g)", *(f"MBF, {s} (ml/min/g)" for s in spoken)],
            rows,
            "The vessel is the branch whose end, or whose grown vessels, end in the tissue.",
        )
    ]


def _numerics(said: Summary | FitSummary) -> Section:
    """Residuals, errors by cells, and seconds."""
    heading = "How well it was solved"
    if isinstance(said, FitSummary):
        rows = [[k, shown(v, 1)] for k, v in said.seconds.items()]
        return Section(heading, tables=[Table("Seconds", ["stage", "s"], rows)])
    rows = [
        ["largest relative error of the mass balance", f"{said.mass_balance_relative_error:.1e}"]
    ]
    for state in said.states:
        rows.append([f"Newton iterations, {_spoken(state)}", str(said.newton_iterations[state])])
        rows.append([f"linear iterations, {_spoken(state)}", str(said.linear_iterations[state])])
    pulse = {} if said.pulsatile is None else said.pulsatile.states
    for state, beat in pulse.items():
        worst = max(beat.branches.values(), key=lambda b: abs(b.pressure_ratio_error))
        rows += [
            [f"{_spoken(state)}: cells, beats", f"{beat.cells}, {beat.cycles}"],
            [
                f"{_spoken(state)}: largest error of a pressure ratio by cells",
                f"{worst.pressure_ratio_error:.1e}",
            ],
            [
                f"{_spoken(state)}: flow, relative difference from steady flow",
                f"{beat.flow_relative_difference:.1e}",
            ],
            [
                f"{_spoken(state)}: relative error of the condensed bed",
                f"{beat.bed_relative_error:.1e}",
            ],
        ]
    seconds = said.seconds
    rows += [
        [
            "seconds: setup, compile, solve",
            ", ".join(shown(x, 1) for x in (seconds.setup, seconds.compile, seconds.solve)),
        ]
    ]
    words = [
        "The error by the mesh of the wall is not estimated in a run. Run the case with a finer "
        "spacing and compare the two reports."
    ]
    return Section(heading, words, tables=[Table("Solver", ["quantity", "value"], rows)])


def _origin(run: RunData) -> Section:
    """Versions, seeds, inputs, files, configuration and sources."""
    seed = "none" if run.said.seed is None else str(run.said.seed)
    versions = [["seed", seed], *([k, v] for k, v in run.versions.items())]
    tables = [Table("Versions and seed", ["what", "value"], versions, numbers=False)]
    digests = {"Inputs": run.inputs, "Files of the run": run.files}
    tables += [
        Table(heading, ["file", "SHA-256"], [[k, v] for k, v in of.items()], numbers=False)
        for heading, of in digests.items()
        if of
    ]
    texts = [("Configuration", run.configuration)]
    texts += [("Sources to cite (BibTeX)", run.citation)] if run.citation else []
    return Section("Where it comes from", tables=tables, texts=texts)


# --- several runs ---


def _figures_of(run: RunData) -> dict[str, Estimate]:
    """What runs are compared by, each with its interval where it has one."""
    said, found = run.said, {}
    exact = lambda x: Estimate(median=x, low=math.nan, high=math.nan)
    if isinstance(said, FitSummary):
        for name, x in zip(_places(said.lesions), said.lesions, strict=True):
            found[f"FFR just behind {name}"] = x.ffr
        for name, x in said.territories.items():
            found |= {f"MBF {name}, {_spoken(s)}": x.mbf_ml_min_g[s] for s in said.states}
            found[f"CFR {name}"] = x.cfr
        return found
    for name, x in zip(_places(said.lesions), said.lesions, strict=True):
        found[f"FFR just behind {name}"] = exact(x.ffr)
        found[f"diameter reduction of {name}"] = exact(x.diameter_reduction)
    found |= {f"lowest FFR, {name}": exact(x) for name, x in said.ffr_by_branch.items()}
    for name, x in said.mbf_by_territory.items():
        found |= {f"MBF {name}, {_spoken(s)}": exact(x.mbf_ml_min_g[s]) for s in said.states}
        found[f"CFR {name}"] = exact(x.cfr)
    found |= {f"MBF whole wall, {_spoken(s)}": exact(x) for s, x in said.mbf_mean_ml_min_g.items()}
    found["CFR whole wall"] = exact(said.cfr_mean)
    return found


def _places(lesions: Sequence) -> list[str]:
    return [f"{x.branch} {x.start_mm:g} to {x.end_mm:g} mm" for x in lesions]


def _comparison(runs: Sequence[RunData], letters: Sequence[str]) -> Chapter:
    found = [_figures_of(run) for run in runs]
    names = list(dict.fromkeys(name for of in found for name in of))
    rows = []
    for name in names:
        cells = [_cell(of.get(name)) for of in found]
        first = found[0].get(name)
        for of in found[1:]:
            other = of.get(name)
            apart = math.nan if first is None or other is None else other.median - first.median
            cells.append("–" if math.isnan(apart) else f"{apart:+.2f}")
        rows.append([name, *cells])
    less = [f"{letter} less {letters[0]}" for letter in letters[1:]]
    table = Table("Side by side", ["quantity", *letters, *less], rows)
    about = [
        [
            letter,
            run.said.title,
            "fit" if isinstance(run.said, FitSummary) else "run",
            run.files.get("config.yaml", "–"),
        ]
        for letter, run in zip(letters, runs, strict=True)
    ]
    key = Table(
        "What is compared",
        ["", "title", "kind", "SHA-256 of its configuration"],
        about,
        numbers=False,
    )
    figures = [
        figure
        for run, letter in zip(runs[1:], letters[1:], strict=True)
        for figure in difference_maps(runs[0], run, (letters[0], letter))
    ]
    trees = [
        (letter, run.tree)
        for letter, run in zip(letters, runs, strict=True)
        if run.tree is not None
    ]
    if trees:
        states = [s for s in runs[0].said.states if all(s in tree.pressure for _, tree in trees)]
        lesion = next((x.branch for run in runs for x in run.said.lesions), None)
        figures.append(pull_back(trees, states, lesion))
    heading = " and ".join(letters)
    return Chapter(
        "compare",
        f"{heading} side by side",
        [Section("Differences", tables=[key, table], figures=figures)],
    )


def _cell(x: Estimate | None) -> str:
    if x is None:
        return "–"
    return shown(x.median) if math.isnan(x.low) else _interval(x)
