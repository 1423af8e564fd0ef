"""Reports: what they say, that they keep to themselves, and that a browser draws them."""

import base64
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import pyvista
import yaml
from report_folders import figures_in, write_fit, write_run
from typer.testing import CliRunner

from jaxperf import InputError
from jaxperf.cli import app, BAD_INPUT
from jaxperf.jobs import run_folder, write_report
from jaxperf.jobs._report import results_stay
from jaxperf.report import Inputs, report_html, settings_without_places
from jaxperf.report._read_back import read_run

EVIL = "<script>alert(1)</script>"
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--virtual-time-budget=60000", "--dump-dom"),
)


class Outline(html.parser.HTMLParser):
    """The elements of a page, what they refer to, and its text outside of scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.text, self._inside = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = tag
        self.links += [v for k, v in attrs if k in ("src", "href", "action", "data")]
        assert not [k for k, _ in attrs if k.startswith("on")]

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs and a fit; one run and the fit bear the name of a script."""
    place = tmp_path_factory.mktemp("folders")
    return {
        "run": write_run(place / "run", warnings=["Take care of this."]),
        "evil": write_run(place / "evil", EVIL, EVIL, ffr=0.9, warnings=[EVIL]),
        "fit": write_fit(place / "fit", EVIL, EVIL),
    }


@pytest.fixture(scope="module")
def pages(folders, tmp_path_factory):
    """The reports of the run, of the fit, and of all side by side."""
    place = tmp_path_factory.mktemp("pages")
    asked = {"run": ["run"], "fit": ["fit"], "all": ["run", "evil", "fit"]}
    return {
        name: write_report([folders[k] for k in of], out=place / f"{name}.html").read_text("utf-8")
        for name, of in asked.items()
    }


def text_of(page):
    return " ".join(" ".join(Outline(page).text).split())


def numbers(spec):
    """An array of a figure, which plotly packs."""
    if not isinstance(spec, dict):
        return np.array(spec, float)
    flat = np.frombuffer(base64.b64decode(spec["bdata"]), spec["dtype"])
    return flat.reshape([int(n) for n in spec.get("shape", str(len(flat))).split(",")])


def test_first_screen_of_a_run(pages):
    said = text_of(pages["run"])
    first = said[said.index("What was asked") : said.index("Wall and vessels Wall")]
    assert "LAD, 12 to 22 mm, 60 % 0.78 at 22 mm 0.77 at 42 mm" in first
    assert "Take care of this." in first and "not validated for clinical use" in first
    assert "The lowest FFR of all vessels is 0.73, in LAD." in first
    assert "RCA 50 % 1.00 3.00 3.00" in first


def test_first_screen_of_a_fit_has_intervals(pages):
    said = text_of(pages["fit"])
    assert "0.80 (0.72 to 0.88) at 22 mm 0.42" in said
    assert "PET of rest was left out." in said and "The model explains the measurements." in said
    assert "cannot tell apart: demand and reserve of the RCA move together" in said
    assert {"run-fit-0-pet", "run-fit-0-apart", "run-fit-0-width", "run-convergence"} <= set(
        figures_in(pages["fit"])
    )


def test_the_rest_of_a_run(pages, folders):
    said = text_of(pages["run"])
    listed = json.loads((folders["run"] / "written.json").read_text())["files"]
    for word in ("1 basal anterior LAD 3.25 1.00 3.00", "Newton iterations, hyperemia 5", "seed 3"):
        assert word in said
    assert all(name in said and digest in said for name, digest in listed.items())
    assert "@article{one" in said and "microcirculation:" in said


def test_figures_hold_the_numbers_of_the_folder(pages, folders):
    found = figures_in(pages["run"])
    tree = pyvista.read(folders["run"] / "tree.vtp")
    line, own = tree.lines.reshape(-1, 3)[:, 1:], tree.cell_data["branch_name"] == "LAD"
    ends = tree.point_data["pressure_ratio_hyperemia"][line[own]]
    curve = [t for t in found["run-pull-back"]["data"] if t["visible"] and t["name"] == "hyperemia"]
    assert np.allclose(numbers(curve[0]["y"])[-2 * own.sum() :], ends.ravel())
    arc = numbers(curve[0]["x"])
    assert arc[0] == 0.0 and (np.diff(arc) >= -1e-4).all()
    length = tree.cell_data["length_mm"]
    bands = [t for t in found["run-pull-back"]["data"] if t["visible"] and t.get("fill")]
    (band,) = bands
    reduced = tree.cell_data["lesion_diameter_reduction"] > 0.0
    assert band["x"][2] - band["x"][0] == pytest.approx(length[reduced].sum(), rel=1e-5)
    # a segment without a flow reserve is grey, and says so
    reserve = found["run-map-cfr"]["data"][0]
    assert reserve["marker"]["color"][3] == "#d9d9d9" and "no value" in reserve["text"][3]
    wall = pyvista.read(folders["run"] / "perfusion.vtu").cell_data
    flow, layer = wall["mbf_hyperemia_ml_min_g"], (10.0 * wall["transmural_depth"]).astype(int)
    profile = [t for t in found["run-transmural"]["data"] if t["visible"]]
    here = flow[layer == layer[0]].mean()
    assert numbers(profile[0]["y"])[layer[0]] == pytest.approx(here, rel=1e-5)
    waves = [t for t in found["run-waves"]["data"] if t["visible"]]
    assert len(waves) == 4 and len(numbers(waves[0]["x"])) == 20


def test_side_by_side(pages):
    said = text_of(pages["all"])
    assert "FFR just behind LAD 12 to 22 mm 0.78 – – – –" in said
    assert "MBF RCA, hyperemia 3.00 3.00 – +0.00 –" in said
    assert "lowest FFR" in said and "B less A" in said
    apart = figures_in(pages["all"])["compare-apart-C-1"]["data"][0]["marker"]["color"]
    assert np.allclose(apart, 3.0 - (3.0 + 0.01 * np.arange(1, 18)))
    drawn = figures_in(pages["all"])["compare-pull-back"]["data"]
    assert {t["name"] for t in drawn if t["visible"]} >= {"A: hyperemia", "A: rest"}


def test_a_name_that_is_a_script_is_inert(pages):
    for name in ("fit", "all"):
        outline = Outline(pages[name])
        figures = figures_in(pages[name])
        assert outline.tags.count("script") == len(figures) + 2
        assert "<script>alert(1)" not in pages[name]
        assert EVIL in text_of(pages[name])
        # plotly would take tags in its texts for its own
        for figure in figures.values():
            assert EVIL not in json.dumps(figure)


def test_nothing_is_fetched(pages):
    for page in pages.values():
        outline = Outline(page)
        assert all(link.startswith(("#", "data:")) for link in outline.links)
        assert not {"iframe", "img", "object", "form"} & set(outline.tags)
        # the one link is an empty icon, without which a browser asks for one
        assert outline.tags.count("link") == 1 and 'href="data:,"' in page
        style = page.partition("<style>")[2].partition("</style>")[0]
        assert style and "@import" not in style and "url(" not in style
        assert "default-src 'none'" in page


def test_surfaces_and_vessels_are_thinned_and_it_is_said(folders, monkeypatch):
    from jaxperf.report import _web_scene

    whole = read_run(folders["run"], {}, triangles=10**6).wall
    thin = read_run(folders["run"], {}, triangles=500).wall
    assert whole is not None and thin is not None
    assert len(whole.triangle) == whole.triangles_before == thin.triangles_before
    assert 300 < len(thin.triangle) <= 500
    middle = lambda w: w.point[w.triangle].mean(axis=(0, 1))
    assert np.abs(middle(whole) - middle(thin)).max() < 2.0
    monkeypatch.setattr(_web_scene, "MOST_GROWN", 2)
    page = report_html([(folders["run"], {})])
    assert "Of 4 grown vessels the 2 widest are drawn" in page


def test_a_report_is_of_its_folder(folders, tmp_path):
    own = shutil.copytree(folders["run"], tmp_path / "own")
    path = write_report([own])
    assert path == own / "report.html"
    first = path.read_bytes()
    # it is on the list, so that the next run may replace the folder and the next report the file
    assert write_report([own]).read_bytes() == first
    with run_folder(own, True) as folder:
        (folder / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="there is no such file"):
        write_report([own])
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    with pytest.raises(InputError, match="it exists"):
        write_report([folders["run"]], out=mine)
    assert mine.read_text() == "mine"
    assert write_report([folders["fit"]], out=mine, overwrite=True).stat().st_size > 10**6


def test_what_a_report_cannot_be_made_of(folders, tmp_path):
    runner, changed = CliRunner(), shutil.copytree(folders["fit"], tmp_path / "changed")
    (changed / "summary.json").write_text("{}")
    with run_folder(tmp_path / "foreign", False, "1-D run") as folder:
        (folder / "summary.json").write_text("{}")
    cases = {
        changed: "summary.json changed since the fit was written",
        tmp_path / "foreign": "it holds a 1-D run",
        tmp_path: "no folder that jaxperf wrote",
    }
    for place, words in cases.items():
        result = runner.invoke(app, ["report", str(place)])
        assert result.exit_code == BAD_INPUT and words in result.output
        assert not list(tmp_path.rglob("report.html"))
    lost = shutil.copytree(folders["fit"], tmp_path / "lost")
    (lost / "summary.json").unlink()
    with pytest.raises(InputError, match=r"summary\.json are missing or changed"):
        write_report([lost])
    with pytest.raises(InputError, match="lies in a run folder"):
        write_report([folders["fit"]], out=folders["run"] / "summary.json", overwrite=True)
    with pytest.raises(InputError, match="no folder is given"):
        write_report([])
    torn = shutil.copytree(folders["run"], tmp_path / "torn")
    (torn / "tree.vtp").write_text("<VTKFile")
    with pytest.raises(InputError, match="VTK cannot read it"):
        report_html([(torn, {})])


def test_a_report_that_fails_says_where_the_results_are(folders):
    with pytest.raises(ValueError, match="no figure") as caught, results_stay(folders["run"]):
        raise ValueError("no figure")
    assert f"The results are in {folders['run']}" in caught.value.__notes__[0]


# --- nobody is in it by accident ---


def test_places_of_files_are_kept_out(tmp_path):
    home = tmp_path / "DOE JOHN 19500101"
    home.mkdir()
    (home / "scan.nii.gz").write_bytes(b"scan")
    inputs = Inputs({"ventricle": {"file": "scan.nii.gz"}, "title": "x" * 5000}, home)
    assert list(inputs.digests()) == ["scan.nii.gz"]
    for text, wanted in {
        f"{home}/scan.nii.gz: it has no unit.": "scan.nii.gz: it has no unit.",
        f"'{home}/a/b.vtp' and 2.5 ml/min/g": "'a/b.vtp' and 2.5 ml/min/g",
        "/home/alice/x/tree.swc: read as mm": "tree.swc: read as mm",
        r"C:\Users\alice\tree.swc: read as mm": "tree.swc: read as mm",
        "~alice/data/tree.swc is LPS": "tree.swc is LPS",
        "5 mm / 3 mm, 1/2, rest/stress, ml/min/g": "5 mm / 3 mm, 1/2, rest/stress, ml/min/g",
    }.items():
        assert inputs.sentence(text) == wanted
    settings = ["/home/alice/t.swc", "sub/t.swc", "../../alice/t.swc", r"C:\alice\t.swc", 3]
    settings += ["a/../../alice/t.swc", "~alice/t.swc", "~50 % LAD, before/after"]
    wanted = ["t.swc", "sub/t.swc", "t.swc", "t.swc", 3, "t.swc", "t.swc", settings[-1]]
    assert settings_without_places({"a": settings}) == {"a": wanted}


@pytest.mark.parametrize("data", ["DOE_JOHN", "./DOE_JOHN", "DOE JOHN/../DOE JOHN"])
def test_places_that_are_relative_are_kept_out(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    for place in (data, "SMITH"):
        Path(place.split("/")[-1]).mkdir()
        (Path(place.split("/")[-1]) / "heart.nii.gz").write_bytes(b"scan")
    inputs = Inputs(["heart.nii.gz", "../SMITH/heart.nii.gz"], Path(data))
    for file in (Path(data) / "heart.nii.gz", Path(data) / "../SMITH/heart.nii.gz"):
        assert inputs.sentence(f"{file}: no unit") == "heart.nii.gz: no unit"
    assert inputs.sentence(f"{Path(data) / 'rows.csv'}:3: no number") == "rows.csv:3: no number"
    assert inputs.sentence("DOE_JOHNS is a name") == "DOE_JOHNS is a name"


def test_digests_are_of_what_was_read(tmp_path):
    (tmp_path / "pet.csv").write_text("one")
    inputs = Inputs(["pet.csv"], tmp_path)
    before = inputs.digests()
    (tmp_path / "pet.csv").unlink()
    assert inputs.digests() == before


def test_files_of_one_name_have_each_their_digest(tmp_path):
    for name, text in {"a": "one", "b": "two"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "pet.csv").write_text(text)
    found = Inputs(["a/pet.csv", "b/pet.csv"], tmp_path).digests()
    assert list(found) == ["pet.csv", "pet.csv (2)"] and len(set(found.values())) == 2


def test_an_older_folder_tells_no_place(folders, tmp_path):
    old = shutil.copytree(folders["run"], tmp_path / "DOE^JOHN")
    about = json.loads((old / "versions.json").read_text())
    (old / "versions.json").write_text(json.dumps({**about, "data": "/home/DOE^JOHN/scan"}))
    said = json.loads((old / "summary.json").read_text())
    said["warnings"] = ["/home/DOE^JOHN/scan/heart.nii.gz: it has no unit"]
    (old / "summary.json").write_text(json.dumps(said))
    case = yaml.safe_load((old / "config.yaml").read_text())
    case["tree"] = {"file": "/home/DOE^JOHN/scan/tree.swc", "frame": "LPS", "units": "mm"}
    (old / "config.yaml").write_text(yaml.safe_dump(case))
    found = report_html([(old, {})])
    assert "DOE^JOHN" not in found and "heart.nii.gz: it has no unit" in found


# --- in a browser ---

_WATCH = """<script>window.faults = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(kind, (e) => faults.push(kind + " " + (e.message || e.reason || e.blockedURI)));
for (const kind of ["error", "warn"]) console[kind] = (...all) => faults.push(all.join(" "));
window.alert = (text) => faults.push("alert " + text);</script>"""
_TRY = """<pre id="tried"></pre><script>addEventListener("load", async () => {
  const said = {}, wait = (ms) => new Promise((done) => setTimeout(done, ms));
  try {
    const plots = [...document.querySelectorAll(".plot")];
    dispatchEvent(new Event("beforeprint"));
    const drawn = () => plots.filter((p) => p.querySelector(".main-svg")).length;
    for (let i = 0; i < 200 && drawn() < plots.length; i++) await wait(50);
    said.plots = plots.length;
    said.drawn = drawn();
    said.controls = [];
    for (const control of document.querySelectorAll(".control")) {
      const { of, name } = control.dataset;
      const plot = document.getElementById(of), seen = new Set();
      const list = control.querySelector("select");
      const all = list ? list.options : control.querySelectorAll("button");
      const options = [...all].slice(0, 4);
      for (const option of options) {
        if (list) { list.value = option.value; list.dispatchEvent(new Event("change")); }
        else option.click();
        await wait(30);
        seen.add(plot.data.map((t) => t.visible).join());
      }
      said.controls.push([`${of} ${name}`, options.length, seen.size]);
    }
    const width = document.documentElement;
    said.overflow = width.scrollWidth - width.clientWidth;
  } catch (fault) { faults.push(String(fault)); }
  said.faults = faults;
  document.getElementById("tried").textContent = JSON.stringify(said);
});</script>"""


def in_browser(page: str, place: Path, width: int) -> dict:
    """What a headless browser says of a page whose every control was used."""
    page = page.replace("<head>", "<head>" + _WATCH, 1)
    head, _, tail = page.rpartition("</body>")
    place.write_text(f"{head}{_TRY}</body>{tail}", encoding="utf-8")
    assert _CHROMIUM is not None
    command = [_CHROMIUM, *_FLAGS, f"--window-size={width},900", place.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    said = re.search(r'<pre id="tried">(.*?)</pre>', done.stdout, re.S)
    assert said is not None, done.stderr[-2000:]
    return json.loads(html.unescape(said[1]))


@pytest.mark.skipif(_CHROMIUM is None, reason="there is no chromium to open the report in")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_draws_it(pages, tmp_path, width):
    page = pages["all"] if width == 1280 else pages["run"]
    said = in_browser(page, tmp_path / "page.html", width)
    assert said["faults"] == []
    assert said["drawn"] == said["plots"] == len(figures_in(page))
    assert said["controls"] and said["overflow"] <= 0
    for name, options, seen in said["controls"]:
        assert seen == options, name
