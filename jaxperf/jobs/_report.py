"""Reports of run folders."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from .._misc import InputError
from ..io import replacing
from ..report import report_html
from ._folder import alone, is_as_written, is_run_folder, list_file, written_files

REPORT = "report.html"


def write_report(
    folders: Sequence[str | os.PathLike],
    *,
    out: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the report of a run or fit, or of several side by side, as one page of HTML.

    It opens in a browser offline and holds everything it shows.

    **Arguments:**

    - `folders`: run folders; differences are taken from the first.
    - `out`: the file; by default `report.html`, of one run in its folder, of several here.
    - `overwrite`: replace a file that is not the report of the folder.

    **Returns:** the file.

    **Errors:** [`InputError`][] for what is no folder of a run or a fit, for a folder whose files
    are missing or changed, and for a file in the way.

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.jobs.demo_case(spacing_mm=5.0).model_copy(update={"growth": None})
    jp.jobs.run_case(case, out="results", report=False)
    print(jp.jobs.write_report(["results"]))
    ```
    """
    places = [Path(os.path.realpath(folder)) for folder in folders]
    if not places:
        raise InputError(
            "no folder is given",
            where="report",
            expected="the folder of a run or a fit, or several",
            fix="Name one",
        )
    path = Path(os.path.realpath(out or (places[0] / REPORT if len(places) == 1 else REPORT)))
    own = len(places) == 1 and path == places[0] / REPORT
    if is_run_folder(path.parent) and not own:
        raise InputError(
            "it lies in a run folder",
            where=str(path),
            expected="another place: a run folder holds its run and its own report",
            fix="Choose another name",
        )
    # nobody else replaces the folder while its report and its list are written
    with alone(places[0]) if own else nullcontext():
        read = [(place, _files_of(place)) for place in places]
        if path.exists() and not overwrite and not (own and is_as_written(places[0], REPORT)):
            raise InputError(
                "it exists",
                where=str(path),
                expected="a name for a new file",
                fix="Choose another name or pass --overwrite",
            )
        text = report_html(read)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        if own:
            list_file(places[0], REPORT)
    return path


@contextmanager
def results_stay(out: str | os.PathLike) -> Iterator[None]:
    """What fails in here says that the results are in their folder already."""
    try:
        yield
    except Exception as error:
        error.add_note(f"The results are in {out}, without a report: `jaxperf report` writes it.")
        raise


def _files_of(folder: Path) -> dict[str, str]:
    kind, files = written_files(folder, REPORT)
    if kind not in ("run", "fit"):
        raise InputError(
            f"it holds a {kind}",
            where=str(folder),
            expected="the folder of a run or a fit",
            fix="Choose another folder",
        )
    return files
