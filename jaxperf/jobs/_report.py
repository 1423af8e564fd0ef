"""Reports of run folders."""

import os
from collections.abc import Sequence
from pathlib import Path

from .._misc import InputError
from ..io import replacing
from ..report import report_html
from ._folder import file_digests, is_as_written, list_file, written_files

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

    **Errors:** [`InputError`][] for what is no folder of a run or a fit, and for a file in the way.

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.jobs.demo_case(spacing_mm=5.0).model_copy(update={"growth": None})
    jp.jobs.run_case(case, out="results", report=False)
    print(jp.jobs.write_report(["results"]))
    ```
    """
    places = [Path(folder) for folder in folders]
    own = len(places) == 1 and out is None
    path = places[0] / REPORT if own else Path(out or REPORT)
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


def write_own_report(folder: Path) -> None:
    """Write the report of a folder whose run has not yet listed its files."""
    text = report_html([(folder, file_digests(folder))])
    (folder / REPORT).write_text(text, encoding="utf-8")


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
