"""The imports of the code against the table of docs/architecture.md."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("jaxperf", "gnn_darcy", "bridges")
FORBIDDEN = {
    "jaxperf": {"torch", "torch_geometric", "jraph", "gnn_darcy", "bridges"},
    "gnn_darcy": {"torch", "torch_geometric", "bridges"},
    "bridges": set(),
    "bridges/reference": {"jax", "jaxlib", "equinox", "jraph", *PACKAGES},
}
_ROW = re.compile(r"^(\w+)( \(planned\))? .*\[([\w ]*)\]$")


def _table():
    """The rooms each room may import, and which rooms are planned."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [_ROW.match(line) for line in text.split("```")[1].strip().splitlines()]
    assert all(rows), "a row of the table is not `room  purpose  [rooms]`"
    allowed = {row[1]: set(row[3].split()) for row in rows}
    return allowed, {row[1] for row in rows if row[2]}


ALLOWED, PLANNED = _table()


def _files(package):
    return sorted((REPOSITORY / package).rglob("*.py"))


def _room(path):
    """The room of a file of jaxperf; None for the core and the package's own `__init__`."""
    parts = path.relative_to(REPOSITORY / "jaxperf").with_suffix("").parts
    return None if _is_core(parts[0]) else parts[0]


def _is_core(name):
    """Private files, and the units, which users need too."""
    return name.startswith("_") or name == "units"


def _imports(path):
    """The dotted modules a file imports; `from a import b` counts as a.b where b may be a room."""
    package = path.relative_to(REPOSITORY).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            if module == "jaxperf":
                yield from (f"jaxperf.{alias.name}" for alias in node.names)
            else:
                yield module


def _room_imports():
    for path in _files("jaxperf"):
        for module in _imports(path):
            head, _, rest = module.partition(".")
            if head == "jaxperf":
                yield path.relative_to(REPOSITORY), _room(path), rest


def test_every_room_stands_in_the_table():
    rooms = {_room(path) for path in _files("jaxperf")} - {None}
    assert rooms <= set(ALLOWED) - PLANNED
    assert not PLANNED & rooms, "a planned room exists: take its mark away"
    assert all(names <= set(ALLOWED) for names in ALLOWED.values())


def test_imports_follow_the_table():
    wrong = []
    for path, room, target in _room_imports():
        other = target.split(".")[0]
        is_top = path.as_posix() == "jaxperf/__init__.py"
        if other == room or _is_core(other) or (is_top and "." not in target):
            continue
        if room is None or other not in ALLOWED[room]:
            wrong.append(f"{path}: {room or 'core'} may not import {other}")
        elif "." in target:
            wrong.append(f"{path}: {target} is private, import from {other}")
    assert not wrong, "\n".join(wrong)


def test_no_cycles_between_rooms():
    graph = {}
    for _, room, target in _room_imports():
        other = target.split(".")[0]
        if room is not None and other != room and not _is_core(other):
            graph.setdefault(room, set()).add(other)
    list(graphlib.TopologicalSorter(graph).static_order())
    list(graphlib.TopologicalSorter(ALLOWED).static_order())


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_that_may_not_be_imported(package):
    found = {
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in _files(package)
        for module in _imports(path)
        if module.split(".")[0] in FORBIDDEN[package]
        and not module.startswith(package.replace("/", "."))
    }
    assert not found


@pytest.mark.parametrize("package", ["gnn_darcy", "bridges"])
def test_the_satellites_use_rooms_through_their_front_door(package):
    found = {
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in _files(package)
        for module in _imports(path)
        if module.startswith("jaxperf.")
        and not re.fullmatch(r"jaxperf\.(_[a-z_]+|[a-z]\w*)", module)
    }
    assert not found


@pytest.mark.parametrize("package", PACKAGES)
def test_the_library_never_switches_on_x64(package):
    """The command line is the user's own process and may; a library may not."""
    for path in _files(package):
        if path.name in ("cli.py", "__main__.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("config.update"):
                assert "x64" not in ast.unparse(node), path


def test_the_top_level_stays_small():
    tree = ast.parse((REPOSITORY / "jaxperf" / "__init__.py").read_text(encoding="utf-8"))
    names = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname
    ]
    assert 40 < len(names) <= 60


@pytest.mark.parametrize("package", [*PACKAGES, "tests", "examples", "benchmarks"])
def test_files_and_functions_stay_short(package):
    for path in _files(package):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 600, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 90, f"{path}: {node.name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_argument_and_return_has_a_type(package):
    """Of nested functions too; a lambda has no place for them."""
    wrong = []
    for path in _files(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            given += [a for a in (node.args.vararg, node.args.kwarg) if a is not None]
            bare = [a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")]
            bare += [] if node.returns is not None else ["return"]
            if bare:
                place = f"{path.relative_to(REPOSITORY)}:{node.lineno}"
                wrong.append(f"{place}: {node.name} says no type of {', '.join(bare)}")
    assert not wrong, "\n".join(wrong)
