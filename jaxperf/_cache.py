"""The cache of compiled programs on disk, for programs that own their process."""

import hashlib
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

# Bytes of compiled programs that are kept; those not used for longest go first.
_LARGEST = 2 * 1024**3
# JAX opens every entry of the folder before it writes another, which in a full folder takes longer
# than most programs take to compile. Here it looks once for so many bytes that a process has
# written, and once a day (s).
_LOOK_BYTES, _LOOK_SECONDS = 64 * 1024**2, 86_400
_LOOKED = ".looked"
_UNUSABLE = ("Error reading persistent compilation", "Error writing persistent compilation")


def enable_compilation_cache(
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Path | None:
    """Keep compiled programs on disk, so that the next process need not compile them again.

    For programs that own their process: the command line, the examples and the tests call it. The
    library never does by itself. It changes JAX's configuration (`jax_compilation_cache_dir` and
    its neighbours); a folder that the user has configured there already is left as it is.

    A program compiled for a processor is machine code. So the folder has the version of jaxlib
    and the features of the processor in its name, and no other processor runs what is in it. It
    lies in `JAXPERF_CACHE_DIR`, else in the user's cache directory, and holds 2 GiB at most.

    **Arguments:** `say`, takes one line where the cache stays off because no folder can be
    written, and one at the first entry that cannot be read or written; its program is compiled.

    **Returns:** the folder, or None where the cache is off.
    """
    import jax

    configured = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if configured:
        return Path(configured)
    folder = _root() / f"programs-{_jaxlib_version()}-{processor_mark()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        say(
            f"Compiled programs are not kept: {folder} cannot be written "
            f"({error.strerror or error}). Name another folder in JAXPERF_CACHE_DIR."
        )
        return None
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    # JAX's own threshold of one second would leave out nearly all of our programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # With a bound JAX also takes a lock: without one another process could read half an entry.
    jax.config.update("jax_compilation_cache_max_size", _LARGEST)
    _look_seldom(folder)
    _say_once_of_unusable_entries(folder, say)
    return folder


def _look_seldom(folder: Path) -> None:
    """Let JAX look for entries to evict now and then, and not before each that it writes.

    There is no setting for it. A version of JAX that evicts otherwise is left as it is.
    """
    try:
        from jax._src.lru_cache import LRUCache

        look = LRUCache._evict_if_needed
    except (ImportError, AttributeError):
        return
    stamp = folder / _LOOKED
    unseen = 0 if stamp.is_file() and time.time() - stamp.stat().st_mtime < _LOOK_SECONDS else None

    def seldom(self: LRUCache, *, additional_size: int = 0) -> None:
        nonlocal unseen
        unseen = _LOOK_BYTES if unseen is None else unseen + additional_size
        if unseen >= _LOOK_BYTES:
            look(self, additional_size=additional_size)
            stamp.touch()
            unseen = 0

    LRUCache._evict_if_needed = seldom


def _root() -> Path:
    named = os.environ.get("JAXPERF_CACHE_DIR")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("jaxperf")


def _jaxlib_version() -> str:
    import jaxlib.version

    return jaxlib.version.__version__


def processor_mark() -> str:
    """A short name of this processor's architecture, model and instruction sets."""
    said = [platform.machine(), platform.system()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        # The first processor speaks for all of them.
        wanted = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")
        for name in wanted:
            said += [line for line in lines if line.startswith(name)][:1]
    except OSError:
        # Elsewhere the operating system has one name for what the processor can do.
        said += [platform.processor(), platform.version()]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]


def _say_once_of_unusable_entries(folder: Path, say: Callable[[str], None]) -> None:
    """JAX warns of every such entry by the name of its program; one line for all is enough."""
    shown, said = warnings.showwarning, False

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        nonlocal said
        if not str(message).startswith(_UNUSABLE):
            shown(message, category, filename, lineno, file, line)
        elif not said:
            said = True
            say(
                f"Some compiled programs in {folder} cannot be read or written and are compiled "
                "again. Delete the folder, or make room, if this line comes back."
            )

    for text in _UNUSABLE:
        warnings.filterwarnings("always", message=text)
    warnings.showwarning = show
