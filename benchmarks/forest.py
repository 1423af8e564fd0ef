"""Growth of synthetic forests: `python -m benchmarks forest`."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxperf._misc import InputError
from jaxperf.growth import (
    Forest,
    join_forest,
    kassab_table,
    KASSAB_TREES,
    KassabTable,
    Morphometry,
    morphometry,
    order_rows,
    order_slopes,
)
from jaxperf.network import parent_segment

from . import _grown as measure
from ._composite import reference_data
from ._peers import classical_growth, svv_growth, SVV_PYTHON
from ._report import Report

EXPONENTS = (2.7, 7.0 / 3.0, 3.0)
SIZES, QUICK_SIZES = (1000, 6000, 20000), (1000, 3000, 6000)
SEEDS = (0, 1, 2)
REST = 1.0  # ml/min/g, the case's default
_SVV_TERMINALS, _CLASSICAL_TERMINALS = 300, 300
_GROWN = "grown forests"
_SPEED = "time of growth"
_FAILED = "growths that failed"
_ORDERS = "morphometry by order, with the segmented vessels"
_FALL = "fall of pressure from inlet to sink"
_SPLIT = "flow by vessel territory"


@dataclass(frozen=True)
class ForestReport:
    """The rows, and the figure that belongs to them."""

    report: Report

    def draw(self, path: Path) -> None:
        """Speed, morphometry beside Kassab's, and where pressure falls, for each exponent."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(2, 3, figsize=(14, 8))
        self._speed(axes[0, 0])
        for axis, key, label in (
            (axes[0, 1], "element_count", "elements"),
            (axes[0, 2], "element_length_mean_mm", "length of an element, mm"),
            (axes[1, 0], "segments_per_element", "segments per element"),
            (axes[1, 1], "element_diameter_mean_um", "diameter, µm"),
        ):
            self._orders(axis, key, label)
        self._fall(axes[1, 2])
        figure.suptitle(f"{self.report.sample}; synthetic forest")
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)

    def _speed(self, axis) -> None:
        lines = self.report.tables[_SPEED]
        for name in measure.ANATOMIES:
            of = [line for line in lines if line["anatomy"] == name]
            axis.plot(
                [line["n_terminals"] for line in of],
                [line["terminals_per_s"] for line in of],
                "o",
                label=name,
            )
        axis.set(xscale="log", xlabel="terminals", ylabel="terminals per second", ylim=(0, None))
        axis.legend()

    def _orders(self, axis, key: str, label: str) -> None:
        lines = self.report.tables.get(_ORDERS, [])
        for name in dict.fromkeys(line["tree"] for line in lines):
            of = [line for line in lines if line["tree"] == name and line[key] is not None]
            style = "k.--" if name.startswith("Kassab") else "o-"
            axis.plot(
                [line["order"] for line in of],
                [line[key] for line in of],
                style,
                label=name,
                alpha=0.5 if style == "k.--" else 1.0,
            )
        axis.set(yscale="log", xlabel="diameter-defined order", ylabel=label)
        axis.legend(fontsize=7)

    def _fall(self, axis) -> None:
        lines = [
            line for line in self.report.tables.get(_FALL, []) if line["anatomy"] == "composite"
        ]
        names = [f"{line['state']}\nγ {line['exponent']:.2f}" for line in lines]
        bottom = np.zeros(len(lines))
        for part in ("segmented", "forest", "tissue"):
            value = np.array([line[part] for line in lines])
            axis.bar(names, value, bottom=bottom, label=part)
            bottom += value
        axis.set_ylabel("part of the fall of pressure")
        axis.tick_params(axis="x", labelsize=7, rotation=90)
        axis.legend(loc="center")


@dataclass(frozen=True)
class _Grown:
    at: measure.Anatomy
    n_terminals: int
    exponent: float
    forest: Forest


def forest(data: Path, *, quick: bool, log: Callable[[str], None]) -> ForestReport:
    """Measure every row of the forest.

    **Errors:** `MissingData` without the reference data.
    """
    data = reference_data(data)
    sizes = QUICK_SIZES if quick else SIZES
    sample = f"composite case and demonstration, {', '.join(map(str, sizes))} terminals"
    report = Report("forest", quick, sample)
    with (
        measure.anatomy("composite", data) as composite,
        measure.anatomy("demo", data) as demo,
    ):
        for at in (composite, demo):
            log(f"{at.name}: {at.mesh.n_cells} voxels, {at.tree.n_segments} fixed segments")
        middle = sizes[1]
        grown = _grow_all(report, (composite, demo), sizes, log)
        if not grown:
            raise ArithmeticError("no forest grew")
        _peers(report, grown, middle, data, log)
        _reproduced(report, composite, grown, middle, sizes[-1], log)
        of = lambda at, n: [g for g in grown if g.at is at and g.n_terminals == n]
        # the largest ones have the most orders clear of truncation
        _kassab(report, of(composite, sizes[-1]), log)
        _coupled(report, [*of(composite, middle), *of(demo, middle)[:1]], log)
    return ForestReport(report)


# ---------------------------------------------------------------- growth and audit


def _attempt(report: Report, at, n: int, exponent: float, log, seed: int = 0):
    """A forest and its time; None, and a line among those that failed, where none grows."""
    try:
        return measure.grow(at.problem(n, exponent, seed))
    except InputError as error:
        line = {"anatomy": at.name, "asked": n, "exponent": exponent, "seed": seed}
        report.tables.setdefault(_FAILED, []).append(line | {"said": str(error)})
        log(f"[red]{at.name} {n} γ {exponent:.2f} seed {seed} failed:[/red] {error}")
        return None


def _grow_all(report: Report, anatomies, sizes, log) -> list[_Grown]:
    """Every forest, its time and its audit."""
    grown, times, lines = [], [], []
    for at in anatomies:
        for n in sizes:
            for exponent in EXPONENTS:
                got = _attempt(report, at, n, exponent, log)
                if got is None:
                    continue
                found, clock = got
                times.append(_time_line(at, n, exponent, clock))
                line = {"anatomy": at.name, "asked": n, "exponent": exponent}
                line |= measure.audited(at, n, exponent, found)
                lines.append(line)
                grown.append(_Grown(at, n, exponent, found))
                log(_in_words(times[-1], line))
    report.tables[_SPEED], report.tables[_GROWN] = times, lines
    _speed_rows(report, anatomies[0], sizes, times, log)
    _audit_rows(report, lines)
    failed = report.tables.get(_FAILED, [])
    report.add("forest.failed", len(failed), "growths", error=float(bool(failed)))
    return grown


def _time_line(at, n: int, exponent: float, clock) -> dict:
    return {
        "anatomy": at.name,
        "n_terminals": n,
        "exponent": exponent,
        "terminals_per_s": clock.per_second,
        "setup_s": clock.setup,
        "total_s": clock.end - clock.begin,
        "late_over_mid": clock.late_over_mid(),
    }


def _in_words(time: dict, line: dict) -> str:
    return (
        f"{line['anatomy']} {line['asked']} γ {line['exponent']:.2f}: "
        f"{time['terminals_per_s']:.0f}/s after {time['setup_s']:.1f} s, "
        f"{line['overlaps']} overlaps, {line['second_neighbours']:.2%} second neighbours, "
        f"outside {line['outside_surface']:.2%}, CV {line['territory_cv']:.3f}, "
        f"AHA {line['aha_lowest']:.2f}-{line['aha_highest']:.2f} {line['faults']}"
    )


def _speed_rows(report: Report, composite, sizes, times, log) -> None:
    """Rates at the default exponent, the median over seeds; the slowest of all; late over mid."""
    for n in sizes:
        got = [_attempt(report, composite, n, EXPONENTS[0], log, seed) for seed in SEEDS]
        clocks = [g[1] for g in got if g is not None]
        if not clocks:
            continue
        rate = statistics.median(clock.per_second for clock in clocks)
        setup = statistics.median(clock.setup for clock in clocks)
        report.add(f"forest.terminals_per_s.{n}", rate, "1/s")
        report.add(f"forest.setup_seconds.{n}", setup, "s")
        log(f"composite {n}: {rate:.0f}/s after {setup:.1f} s, median of {len(clocks)} seeds")
        if n == sizes[1]:
            report.add("forest.terminals_per_s", rate, "1/s")
            report.add("forest.setup_seconds", setup, "s")
    # the smallest ones are over before a rate can be told
    large = [line for line in times if line["n_terminals"] > sizes[0]] or times
    report.add("forest.terminals_per_s.slowest", min(t["terminals_per_s"] for t in large), "1/s")
    report.add("forest.setup_seconds.slowest", max(t["setup_s"] for t in times), "s")
    report.add("forest.total_seconds.slowest", max(t["total_s"] for t in times), "s")
    report.add("forest.late_over_mid", max(t["late_over_mid"] for t in large), "1")


def _audit_rows(report: Report, lines: list[dict]) -> None:
    """The worst of every figure over all forests."""
    column = lambda name: [line[name] for line in lines]
    witness = "tests/forest_audit.py"
    add = lambda name, value, unit: report.add(f"forest.{name}", value, unit, reference=witness)
    missing = [abs(line["asked"] - line["n_terminals"]) for line in lines]
    add("terminals_missing", max(missing), "terminals")
    add("faults", sum(bool(text) for text in column("faults")), "forests")
    for name in ("overlaps", "overlaps_stub_fixed"):
        add(name, sum(column(name)), "pairs")
    add("outside_fraction", max(column("outside_surface")), "1")
    add("outside_fraction_axis", max(column("outside_axis")), "1")
    for name in (
        "second_neighbours",
        "murray_error",
        "calibre_error",
        "volume_error",
        "territory_cv",
        "territory_empty",
        "aha_highest",
        "worst_tree",
        "projection_median",
        "projection_largest",
    ):
        add(name, max(column(name)), "1")
    add("aha_lowest", min(column("aha_lowest")), "1")
    add("trees_within_5_percent", min(column("trees_within_5_percent")), "1")
    add("stub_median_mm", max(column("stub_median_mm")), "mm")
    add("stub_longest_mm", max(column("stub_longest_mm")), "mm")
    for line in lines:
        if line["anatomy"] == "composite":
            name = f"volume_ml.{line['asked']}.{line['exponent']:.2f}"
            add(name, line["volume_ml"], "ml")


# ---------------------------------------------------------------- peers


def _peers(report: Report, grown: list[_Grown], middle: int, data: Path, log) -> None:
    """Rates beside the classical algorithm and, where it is there, svVascularize."""
    chosen = next((g for g in grown if g.n_terminals == middle), grown[-1])
    rate = next(
        line["terminals_per_s"]
        for line in report.tables[_SPEED]
        if (line["anatomy"], line["n_terminals"], line["exponent"])
        == (chosen.at.name, chosen.n_terminals, chosen.exponent)
    )
    forest = chosen.forest
    # one tree's terminals and more from its neighbours, as one tree of the classical kind
    site = forest.position[forest.terminal]
    root = forest.position[int(np.flatnonzero(forest.parent < 0)[0])]
    near = np.argsort(np.linalg.norm(site - root, axis=1), kind="stable")[:_CLASSICAL_TERMINALS]
    order = np.random.default_rng(0).permutation(near)
    radius = float(np.median(forest.radius[forest.terminal]))
    taken, *_ = classical_growth(site[order], root, radius, chosen.exponent)
    report.add(
        "forest.classical_per_s",
        len(near) / taken,
        "1/s",
        reference=f"constructive optimisation in plain NumPy, one tree of {len(near)} terminals",
        ratio=rate * taken / len(near),
    )
    log(f"classical, plain NumPy: {len(near) / taken:.0f}/s at {len(near)} terminals")
    found = svv_growth(data / "lv_patient" / "lv_wall_surface.vtp", _SVV_TERMINALS)
    if found is None or "failed" in found:
        log(f"svVascularize: {found['failed'] if found else f'no {SVV_PYTHON}'}; no row")
        return
    report.add(
        "forest.svv_per_s",
        _SVV_TERMINALS / found["grow"],
        "1/s",
        reference=f"svVascularize {found['version']}, one tree of {_SVV_TERMINALS} terminals in "
        "the same wall",
        ratio=rate * found["grow"] / _SVV_TERMINALS,
    )
    log(f"svVascularize {found['version']}: {_SVV_TERMINALS / found['grow']:.0f}/s")


# ---------------------------------------------------------------- the same forest again


def _reproduced(report: Report, at, grown: list[_Grown], middle: int, largest: int, log) -> None:
    """Again in this process, in another one, and killed and resumed."""
    of = {(g.n_terminals, g.exponent): g.forest for g in grown if g.at is at}
    exponent = EXPONENTS[0]
    if not {(middle, exponent), (largest, exponent)} <= set(of):
        log("no forest to reproduce")
        return
    again, _ = measure.grow(at.problem(middle, exponent))
    elsewhere = measure.grown_elsewhere(at, middle, exponent)
    same = [measure.same_forest(of[middle, exponent], f) for f in (again, elsewhere)]
    report.add("forest.not_reproduced", 2 - sum(same), "of 2 runs")
    other = _attempt(report, at, middle, exponent, log, seed=1)
    if other is not None:
        report.add("forest.seeds_differ", not measure.same_forest(again, other[0]), "1")
    killed = measure.killed_and_resumed(at, largest, exponent)
    same = measure.same_forest(of[largest, exponent], killed.forest)
    report.add("forest.resume_differs", not same, "1", error=float(not same))
    report.add("forest.resumed_at", killed.resumed_at / largest, "1")
    log(
        f"killed at {killed.at}, resumed at {killed.resumed_at} of {largest}: "
        f"{'the same forest' if same else 'ANOTHER FOREST'}"
    )


# ---------------------------------------------------------------- morphometry


def _kassab(report: Report, chosen: list[_Grown], log) -> None:
    """Orders of the whole tree, segmented vessels included, beside Kassab's pooled trees.

    The orders follow Kassab's rule from the forest's own diameters, and a second time his
    published ranges (of the LAD), in which the exponent shows in the counts.
    """
    if not chosen:
        log("no forest to measure orders of")
        return
    lines, slopes = [], []
    for g in chosen:
        name = f"γ {g.exponent:.2f}"
        for which, ranges in (("", None), (".published_ranges", kassab_table("LAD"))):
            found = _whole(g, ranges)
            if ranges is None:
                lines += [{"tree": name, **_shown(row)} for row in order_rows(found)]
            slope = order_slopes(found)
            line: dict[str, float | str] = {
                "tree": name,
                "ranges": which.removeprefix(".") or "own",
                "orders": ", ".join(map(str, slope.order.tolist())),
            }
            for k, quantity in enumerate(slope.quantity):
                ours, pooled = float(slope.slope[k]), float(slope.pooled_slope[k])
                line |= {quantity: ours, f"{quantity}, Kassab": pooled}
                if not np.isfinite(ours):
                    continue
                short = quantity.removeprefix("element_")
                report.add(
                    f"forest.kassab_{short}_slope{which}.{g.exponent:.2f}",
                    ours,
                    "1/order",
                    reference="Kassab 1993, three trees pooled, same orders",
                    error=abs(ours / pooled - 1.0),
                )
            slopes.append(line)
            log(f"{name}, {line['ranges']} ranges, orders {line['orders']} beside Kassab's")
    for tree in KASSAB_TREES:
        rows = [row for row in order_rows(kassab_table(tree)) if row["order"] >= 5]
        lines += [{"tree": f"Kassab {tree}", **_shown(row)} for row in rows]
    report.tables[_ORDERS] = lines
    report.tables["slopes of log10 over the order"] = slopes


_SHOWN = (
    "order",
    "element_count",
    "segments_per_element",
    "element_diameter_mean_um",
    "element_length_mean_mm",
    "segment_length_mean_mm",
)


def _shown(row: dict) -> dict:
    return {name: row[name] for name in _SHOWN}


def _whole(g: _Grown, ranges: KassabTable | None) -> Morphometry:
    network = join_forest(g.at.tree, g.forest)
    parent = parent_segment(network)[np.asarray(network.segment_node)[:, 0]]
    radius = np.asarray(network.radius).mean(axis=1)
    return morphometry(parent, radius, np.asarray(network.length), ranges=ranges)


# ---------------------------------------------------------------- the coupled solve


def _coupled(report: Report, chosen: list[_Grown], log) -> None:
    """Rest and hyperemia on the grown forests: balance, targets, split, fall of pressure."""
    falls, splits, worst, balance, reached, trees = [], [], {}, [], [], []
    if not chosen:
        log("no forest to solve on")
        return
    for g in chosen:
        found = measure.solve_on(g.at, g.n_terminals, g.exponent, g.forest)
        states = {
            "rest": found.solved.solutions["rest"],
            "rest, not regulated": found.unregulated,
            "hyperemia": found.solved.solutions["hyperemia"],
        }
        balance += [float(s.mass_balance_relative_error) for s in states.values()]
        reached.append(abs(measure.mean_mbf(found, found.solved.solutions["rest"]) / REST - 1.0))
        for state, solution in states.items():
            split = measure.flow_split(found, solution)
            error = max(abs(line["error"]) for line in split)
            worst[g.at.name, g.exponent, state] = error
            head = {"anatomy": g.at.name, "state": state, "exponent": g.exponent}
            splits += [head | line for line in split]
            falls.append(head | measure.pressure_shares(found, solution))
        trees.append(measure.trees_within(found, found.solved.solutions["rest"]))
        error = worst[g.at.name, g.exponent, "rest"]
        factor = found.solved.calibration.hyperemia_factor
        log(f"{g.at.name} γ {g.exponent:.2f}: split off by {error:.2%}, factor {factor:.2f}")
    report.tables[_FALL], report.tables[_SPLIT] = falls, splits
    largest = lambda state: max(e for (_, _, s), e in worst.items() if s == state)
    report.add("forest.mass_balance", max(balance), "1", error=max(balance))
    report.add("forest.rest_target_error", max(reached), "1", error=max(reached))
    target = "the unprojected target shares"
    for state, name in (("rest", ""), ("rest, not regulated", ".unregulated")):
        report.add(f"forest.flow_split_error{name}", largest(state), "1", reference=target)
    report.add("forest.solved_trees_within_5_percent", min(trees), "1")
    for line in falls:
        if line["anatomy"] == "composite" and line["state"] != "rest, not regulated":
            for part in ("segmented", "forest", "tissue"):
                name = f"forest.fall.{part}.{line['state']}.{line['exponent']:.2f}"
                report.add(name, line[part], "1")
