"""Names of a package that load their file on first use."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the imports in its `__init__.py`.

    The imports stand under `TYPE_CHECKING`, where type checkers and editors read them; Python runs
    none of them. They are read here, so that a public name is spelled once. A name is public where
    it is repeated (`name as name`), which is what type checkers take for an export.

    **Arguments:** `package` and `file`, the `__name__` and `__file__` of the package.
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    where = {
        alias.name: "." * node.level + (node.module or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }

    rooms = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is None
        for alias in node.names
    }

    def load(name: str) -> Any:
        if name not in where:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package]
            )
        source = import_module(where[name], package)
        value = source if name in rooms else getattr(source, name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(where), sorted(where)
