"""The command line: arguments in, exit code out; the work is done in `jaxperf.jobs`."""

# annotations stay text, so that `--help` loads none of the rooms they name
from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TYPE_CHECKING, TypeVar

import rich.markup
import typer
from rich.console import Console

from . import casefile, jobs, report as texts, study
from ._defaults import (
    CELL_TIME_RANGE,
    CELL_TOLERANCE_RANGE,
    DEFAULT_CELL_TIME,
    DEFAULT_CELL_TOLERANCE,
    DEFAULT_CFL,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ._progress import Progress
    from .report import FitSummary, Flow1DSummary, GrownForest, Summary
    from .study import ListedBranch

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Coronary flow and myocardial perfusion: tree and ventricle in, perfusion and FFR out.",
)

_CaseFile = Annotated[Path, typer.Argument(help="Case file (YAML).")]
_Out = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
_Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder that relative paths start from; default the case's own."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else.")]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
_Report = Annotated[
    bool, typer.Option("--report/--no-report", help="Write report.html into the run folder.")
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run folder.")]

# What came of a command.
Said = TypeVar("Said", bound="BaseModel")
BAD_INPUT, FAILED_SOLVE = 2, 1


def _fail(sentence: str, code: int) -> typer.Exit:
    typer.echo(" ".join(sentence.split()), err=True)
    return typer.Exit(code)


@contextmanager
def _in_sentences() -> Iterator[None]:
    """What cannot be done is said in a sentence, with the exit code for its reason."""
    from ._misc import InputError
    from ._results import SolveError
    from .inverse import FitError

    try:
        yield
    except InputError as error:
        raise _fail(str(error), BAD_INPUT) from None
    except (SolveError, FitError) as error:
        raise _fail(str(error), FAILED_SOLVE) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        # whatever a reader or a writer has not put into words of its own
        where = "the file system" if error.filename is None else os.fsdecode(error.filename)
        refused = InputError(
            error.strerror or str(error) or type(error).__name__,
            where=where,
            expected="a place that can be read and written, with room for what is written",
            fix="Make room there, change its rights, or choose another place",
        )
        raise _fail(str(refused), BAD_INPUT) from None


def _prepare_jax() -> None:
    # the process is the user's own here, which a library may not assume
    import jax

    from ._cache import enable_compilation_cache

    jax.config.update("jax_enable_x64", True)
    enable_compilation_cache(lambda line: typer.echo(line, err=True))


def _carry_out(
    work: Callable[[Progress], Said],
    lines: Callable[[Said], list[str]],
    as_json: bool,
    quiet: bool,
    out: Path | None = None,
) -> None:
    """Do the work of a command, and say what came of it or why it could not be done."""
    from ._progress import Progress
    from .io import json_text

    _prepare_jax()
    with _in_sentences():
        said = work(Progress(None if quiet or as_json else Console(stderr=True)))
    if as_json:
        written = {} if out is None else {"out": str(out)}
        typer.echo(json_text({**written, **said.model_dump()}))
    elif not quiet:
        console = Console()
        written = [] if out is None else [f"  written  {rich.markup.escape(str(out))}"]
        for line in (*lines(said), *written):
            console.print(line, highlight=False, soft_wrap=True)


def _print_version(wanted: bool | None) -> None:
    if wanted:
        from ._versions import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool | None,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = None,
) -> None:
    """What stands before a command."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to create.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace its files.")] = False,
    quiet: _Quiet = False,
) -> None:
    """Write a commented case file and demonstration inputs to start from."""
    with _in_sentences():
        path = jobs.write_starter(folder, overwrite=overwrite)
    if not quiet:
        typer.echo(f"{path} written; run it with: jaxperf run {path} --out {folder / 'run'}")


@app.command()
def check(
    case_file: _CaseFile,
    data: _Data = None,
    branches: Annotated[
        bool, typer.Option("--branches", help="List the branches that lesions can lie on instead.")
    ] = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """List every finding about a case: schema, units, frames, vessels, distances."""
    _prepare_jax()
    if branches:
        with _in_sentences():
            listed = study.list_branches(case_file, data or case_file.parent)
        said = json.dumps([x.as_dict() for x in listed]) if as_json else _branch_table(listed)
        typer.echo(said)
        return
    with _in_sentences():
        findings = study.check_case(case_file, data or case_file.parent)
    errors = sum(f.severity == "error" for f in findings)
    if as_json:
        typer.echo(json.dumps([f.as_dict() for f in findings]))
    elif not quiet or errors:
        for finding in findings:
            typer.echo(
                f"{finding.severity}: {finding.where}: {finding.message}",
                err=finding.severity == "error",
            )
        if not quiet:
            typer.echo(f"{errors} errors, {len(findings) - errors} warnings")
    if errors:
        raise typer.Exit(BAD_INPUT)


def _branch_table(listed: list[ListedBranch]) -> str:
    """One line for each branch, under a line of headings."""
    shown = lambda x: "-" if x is None else x if isinstance(x, str) else f"{x:.1f}"
    rows = [["branch", "automatic", "leaves", "at mm", "length mm", "diameter mm", "territory"]]
    for x in listed:
        diameter = f"{x.diameter_start_mm:.1f} to {x.diameter_end_mm:.1f}"
        cells = (x.branch, x.automatic, x.parent, x.at_mm, x.length_mm, diameter, x.territory)
        rows.append([shown(cell) for cell in cells])
    width = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    pad = lambda row: "  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True))
    return "\n".join(pad(row).rstrip() for row in rows)


@app.command()
def run(
    case_file: _CaseFile,
    out: _Out,
    data: _Data = None,
    overwrite: _Overwrite = False,
    report: _Report = True,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Run a case and write its run folder."""

    def work(progress: Progress) -> Summary:
        case, folder = casefile.load_case(case_file), data or case_file.parent
        return jobs.run_case(
            case, out=out, data=folder, overwrite=overwrite, progress=progress, report=report
        )

    _carry_out(work, texts.run_lines, as_json, quiet, out)


@app.command()
def grow(
    case_file: _CaseFile,
    data: _Data = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File (.npz) to write; default growth.file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a forest.")] = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Grow the forest of a case into a file; goes on where a stopped growth left off."""
    _forest_work(jobs.grow_case, case_file, data, as_json, quiet, out=out, overwrite=overwrite)


@app.command()
def growth_report(
    case_file: _CaseFile,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    data: _Data = None,
    forest: Annotated[
        Path | None, typer.Option("--forest", help="Forest (.npz); default growth.file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report.")] = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Draw a grown forest, and its morphometry beside Kassab's table."""
    _forest_work(
        jobs.report_growth,
        case_file,
        data,
        as_json,
        quiet,
        out=out,
        forest=forest,
        overwrite=overwrite,
    )


def _forest_work(
    work: Callable[..., GrownForest],
    case_file: Path,
    data: Path | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Do something with the forest of a case, and say what came of it."""

    def forest(progress: Progress) -> GrownForest:
        case = casefile.load_case(case_file)
        return work(case, data=data or case_file.parent, progress=progress, **given)

    lines = lambda said: [
        *texts.forest_lines(said.forest),
        f"  file     {rich.markup.escape(said.file)}",
        *(f"  [yellow]warning[/yellow]  {rich.markup.escape(w)}" for w in said.warnings),
    ]
    _carry_out(forest, lines, as_json, quiet)


def _cell_time(given: str) -> str:
    """A number of seconds or `auto`."""
    low, high = CELL_TIME_RANGE
    try:
        sound = given == "auto" or low <= float(given) <= high
    except ValueError:
        sound = False
    if not sound:
        raise typer.BadParameter(f"{given} is neither auto nor a number from {low:g} to {high:g} s")
    return given


@app.command()
def flow1d(
    case_file: Annotated[
        Path, typer.Argument(metavar="CASE", help="openBF case (YAML) or svOneDSolver file (.in).")
    ],
    out: _Out,
    cycles: Annotated[
        int | None,
        typer.Option(min=1, help="Cycles to run; until nothing changes where left out."),
    ] = None,
    max_cycles: Annotated[int, typer.Option(min=1, help="Without --cycles: cycles at most.")] = 100,
    tolerance: Annotated[
        float, typer.Option(min=1e-12, max=1e-1, help="Change over a cycle that counts as none.")
    ] = 1e-5,
    cell_time: Annotated[
        str,
        typer.Option(
            callback=_cell_time, help="Time of a wave through a cell, s, or auto: short enough."
        ),
    ] = str(DEFAULT_CELL_TIME),
    cell_tolerance: Annotated[
        float,
        typer.Option(
            min=CELL_TOLERANCE_RANGE[0],
            max=CELL_TOLERANCE_RANGE[1],
            help="With auto: change of a pressure ratio by cells.",
        ),
    ] = DEFAULT_CELL_TOLERANCE,
    cfl: Annotated[
        float, typer.Option(min=1e-3, max=0.9, help="Longest time step over it.")
    ] = DEFAULT_CFL,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Run a case of openBF or svOneDSolver and write its run folder."""

    def work(progress: Progress) -> Flow1DSummary:
        return jobs.run_flow1d(
            case_file,
            out=out,
            cycles=cycles,
            max_cycles=max_cycles,
            tolerance=tolerance,
            cell_time="auto" if cell_time == "auto" else float(cell_time),
            cell_tolerance=cell_tolerance,
            cfl=cfl,
            overwrite=overwrite,
            progress=progress,
        )

    _carry_out(work, texts.flow1d_lines, as_json, quiet, out)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any file that can be read.")],
    units: Annotated[
        str | None, typer.Option("--units", help="Its unit of length, where it states none.")
    ] = None,
    frame: Annotated[
        str | None, typer.Option("--frame", help="LPS, RAS or model, where it states none.")
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="Its format, where its name does not say it.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Say what is in a file: kind, branches, outlets, grid, labels, units, frame."""
    from .io import json_text

    _prepare_jax()
    with _in_sentences():
        said = jobs.show_file(file, units=units, frame=frame, format=file_format)
    typer.echo(json_text(said.model_dump()) if as_json else "\n".join(jobs.shown_lines(said)))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A tree, a 1-D or a 0-D case.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="New file: .vtp, .swc, .csv or .json (0-D).")
    ],
    units: Annotated[
        str | None, typer.Option("--units", help="Those of IN, where it states none.")
    ] = None,
    frame: Annotated[
        str | None, typer.Option("--frame", help="That of IN, where it states none.")
    ] = None,
    to_units: Annotated[
        str | None, typer.Option("--to-units", help="Of a 0-D case: cgs, mmHg or SI.")
    ] = None,
    to_frame: Annotated[
        str | None, typer.Option("--to-frame", help="Another patient frame: LPS or RAS.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    as_json: _Json = False,
) -> None:
    """Write a network in another format, and list what that cannot hold."""
    from .io import json_text

    _prepare_jax()
    with _in_sentences():
        said = jobs.convert_file(
            source,
            target,
            units=units,
            frame=frame,
            to_units=to_units,
            to_frame=to_frame,
            overwrite=overwrite,
        )
    lines = "\n".join(jobs.converted_lines(said))
    typer.echo(json_text(said.model_dump()) if as_json else lines)


@app.command()
def demo(
    out: _Out,
    overwrite: _Overwrite = False,
    report: _Report = True,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Run the embedded demonstration; needs no data."""

    def work(progress: Progress) -> Summary:
        given = {"out": out, "overwrite": overwrite, "progress": progress, "report": report}
        return jobs.run_case(jobs.demo_case(), **given)

    _carry_out(work, texts.run_lines, as_json, quiet, out)


@app.command()
def fit(
    out: _Out,
    case_file: Annotated[
        Path | None, typer.Argument(metavar="CASE", help="Case file; left out with --demo.")
    ] = None,
    pet: Annotated[
        list[str] | None,
        typer.Option(
            "--pet", help="CSV of the AHA segments, or STATE=FILE for a map; may stand twice."
        ),
    ] = None,
    ffr: Annotated[
        Path | None, typer.Option("--ffr", help="CSV of a pressure wire: branch, at_mm, ffr.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Fit the demonstration to a synthetic scan.")
    ] = False,
    data: _Data = None,
    overwrite: _Overwrite = False,
    report: _Report = True,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Fit a case to PET and pressure wires, and write parameters with intervals."""

    def work(progress: Progress) -> FitSummary:
        given = {"out": out, "overwrite": overwrite, "progress": progress, "report": report}
        if demo:
            if case_file is not None or pet or ffr is not None:
                raise typer.BadParameter("it takes no case and no files", param_hint="--demo")
            return jobs.demo_fit(**given)
        if case_file is None:
            raise typer.BadParameter("give a case file, or --demo", param_hint="CASE")
        case = jobs.with_measurements(casefile.load_case(case_file), pet or [], ffr)
        return jobs.fit_case(case, data=data or case_file.parent, **given)

    _carry_out(work, texts.fit_lines, as_json, quiet, out)


@app.command("report")
def write_report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Folders of runs or fits.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File to write; default report.html, of one run in its folder, else here."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file.")] = False,
    quiet: _Quiet = False,
) -> None:
    """Write the report of a run, or of several side by side: one page that opens offline."""
    with _in_sentences():
        path = jobs.write_report(folders, out=out, overwrite=overwrite)
    if not quiet:
        typer.echo(f"{path} written")


@app.command()
def schema(
    summary: Annotated[
        bool, typer.Option("--summary", help="That of summary.json, which a run writes.")
    ] = False,
) -> None:
    """Print the JSON schema of the case file."""
    typer.echo(json.dumps(texts.summary_schema() if summary else casefile.case_schema(), indent=2))


def _end(signal_number: int, _frame: object) -> None:
    if signal_number != signal.SIGTERM:
        # the terminal is gone: to write to it would fail, and hide why the run has ended
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    # as an exception, so that a half-written run folder is removed
    raise SystemExit(128 + signal_number)


def main() -> None:
    """Entry point of the `jaxperf` command."""
    # Windows knows no SIGHUP; under nohup it is ignored, and stays so
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    app()


if __name__ == "__main__":
    main()
