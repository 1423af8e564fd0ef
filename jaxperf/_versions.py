"""The version of the package as it was installed, and of what else computes a result."""

import importlib.metadata
import platform
import sys

__version__ = importlib.metadata.version("jaxperf")

_PACKAGES = ("jaxperf", "jax", "jaxlib", "equinox", "numpy", "scipy", "pyvista", "nibabel")


def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
