"""Compiles the C sources of `jaxperf/_native` when the package is installed or a wheel is built.

`python hatch_build.py` does it in place, for work on the sources.
"""

import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# A C compiler that pip installs, for machines without one.
ZIG = "ziglang>=0.14,<0.18"
# By system: zig's name of it with the oldest version the library runs on, and the wheel's.
_SYSTEMS = {
    "Linux": ("linux-gnu.2.17", "manylinux_2_17"),
    "Darwin": ("macos.11.0", "macosx_11_0"),
    "Windows": ("windows-gnu", "win"),
}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class CustomBuildHook(BuildHookInterface):
    """The hook that `pyproject.toml` names."""

    def dependencies(self) -> list[str]:
        return [] if os.environ.get("CC") else [ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        library = compile_library()
        build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform_tag()}"


def compile_library() -> Path:
    """Compile the sources beside them; what the last build left is replaced at once or not at all.

    The compiler is `$CC` where it is set, else that of the package ziglang.
    """
    sources = _load_sources()
    library = sources.library_file()
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as folder:
        made = Path(folder) / library.name
        command = [
            *_compiler(), *sources.FLAGS, f'-DJAXPERF_SOURCES="{sources.digest()}"',
            *map(str, sources.source_files()), "-lm", "-o", str(made),
        ]  # fmt: skip
        # zig's own default is a folder in HOME, which need not be writable.
        caches = {f"ZIG_{which}_CACHE_DIR": folder for which in ("GLOBAL", "LOCAL")}
        try:
            code = subprocess.run(command, check=False, env=os.environ | caches).returncode
        except OSError as error:
            code = error.strerror
        if code != 0:
            sys.exit(
                f"{library}: it could not be compiled ({shlex.join(command[:3])} … ended with "
                f"{code}). Expected a C11 compiler: that of $CC, which gcc and clang can be, else "
                f"of the package {ZIG}. Set CC, or install that package."
            )
        os.replace(made, library)
    return library


def _compiler() -> list[str]:
    if given := os.environ.get("CC"):
        return shlex.split(given)
    system, machine = _SYSTEMS[platform.system()][0], _machine()
    target = f"{machine}-{system}"
    return [sys.executable, "-m", "ziglang", "cc", "-target", target, "-mcpu=baseline"]


def _machine() -> str:
    name = platform.machine().lower()
    return _MACHINES.get(name, name)


def _platform_tag() -> str:
    """The part of a wheel's name that says where it runs.

    Which C library a compiler of one's own links is not known, and so neither is where else a wheel
    made with it runs.
    """
    machine, system = platform.machine().lower(), platform.system()
    name = _SYSTEMS[system][1]
    return f"{'linux' if system == 'Linux' and os.environ.get('CC') else name}_{machine}"


def _load_sources() -> Any:
    file = Path(__file__).resolve().parent / "jaxperf" / "_native" / "_sources.py"
    spec = importlib.util.spec_from_file_location("_sources", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(compile_library())
