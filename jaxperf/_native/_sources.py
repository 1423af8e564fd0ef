"""The C sources, their digest, and the library they are compiled into.

Nothing but the standard library is imported: the build loads this file by its path, before the
package is installed.
"""

import hashlib
import platform
from pathlib import Path

# The result is that of the operations as they are written, one after the other, on every
# processor: no fused multiply-add, no reordering, no instructions beyond the baseline (what a
# compiler takes where none is named; zig would take the machine's own).
FLAGS = (
    "-O3", "-std=c11", "-ffp-contract=off", "-fno-fast-math", "-fno-math-errno",
    "-fPIC", "-fvisibility=hidden", "-shared",
)  # fmt: skip
FOLDER = Path(__file__).resolve().parent
_ENDING = {"Windows": ".dll", "Darwin": ".dylib"}


def library_file() -> Path:
    """Where the compiled library lies."""
    return FOLDER / f"compiled{_ENDING.get(platform.system(), '.so')}"


def source_files() -> list[Path]:
    """The C files that are compiled."""
    return sorted(FOLDER.glob("*.c"))


def digest() -> str | None:
    """What tells these sources and flags from others, 16 hexadecimal digits; None where there are
    no sources."""
    files = sorted([*source_files(), *FOLDER.glob("*.h")])
    if not files:
        return None
    found = hashlib.sha256(" ".join(FLAGS).encode())
    for file in files:
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]
