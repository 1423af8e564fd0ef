"""The file of a report: one page that opens offline."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._versions import __version__
from ._read_back import read_run
from ._web_page import build_page, Page

# of the surface of the wall, over all runs of a report
_TRIANGLES = 30_000


def report_html(folders: Sequence[tuple[str | os.PathLike, dict[str, str]]]) -> str:
    """The report of one run folder, or of several side by side, as HTML that fetches nothing.

    **Arguments:** `folders`, each with the SHA-256 of its files by their name.

    **Returns:** the text of the page.

    **Errors:** [`InputError`][] naming a file that is missing, broken, or of another version.

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.jobs.demo_case(spacing_mm=5.0).model_copy(update={"growth": None})
    jp.jobs.run_case(case, out="results")
    page = jp.report.report_html([("results", {})])
    ```
    """
    triangles = _TRIANGLES // len(folders)
    runs = [read_run(Path(folder), files, triangles=triangles) for folder, files in folders]
    return _render(build_page(runs, __version__))


def _render(page: Page) -> str:
    import jinja2
    import plotly.offline
    from markupsafe import Markup

    loader = jinja2.PackageLoader("jaxperf.report", "template")
    places = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    source: Any = loader
    raw = lambda name: Markup(source.get_source(places, name)[0])
    places.filters["in_script"] = lambda text: Markup(_in_script(text))
    return places.get_template("report.html").render(
        page=page,
        style=raw("report.css"),
        script=raw("report.js"),
        # ours to trust: the library as it was installed
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )


def _in_script(text: str) -> str:
    """JSON that no content can end the script element of."""
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
