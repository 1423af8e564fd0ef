"""Maps of myocardial blood flow from PET."""

import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from .._misc import check_frame, InputError
from ..geometry import AbstractMesh
from ..units import M3_S_KG_PER_ML_MIN_G, M_PER_MM
from ._frames import affine_in_frame, to_frame
from ._images import image_data, image_unit, load_image

# SI (m³/(s·kg)) in one unit of blood flow
FLOW_UNIT = {
    "ml/min/g": M3_S_KG_PER_ML_MIN_G,
    "ml/min/100g": M3_S_KG_PER_ML_MIN_G / 100.0,
    "ml/s/g": M3_S_KG_PER_ML_MIN_G * 60.0,
    "m3/s/kg": 1.0,
}
# What a living heart's wall can have at the median, ml/min/g, and what no tissue has.
MEDIAN_ML_MIN_G = (0.1, 10.0)
# such as ml/min/g and ml/g/min, after blanks are removed
_STATED = re.compile(r"(ml|m3)/(min|s|100g|kg|g)/(min|s|100g|kg|g)(?![a-z0-9])")
_LEAST_OVERLAP = 0.9


@dataclass(frozen=True)
class PETImage:
    """A map of myocardial blood flow on the grid of its camera.

    **Attributes:**

    - `mbf` (i, j, k): m³/(s·kg), NaN where it was not measured.
    - `affine` (4, 4): grid index to the centre of the voxel, m.
    - `frame`: patient frame of these positions, `LPS` or `RAS`.
    - `path`: the file that messages name.
    """

    mbf: Float[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    frame: str
    path: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the grid."""
        i, j, k = self.mbf.shape
        return i, j, k

    def at(self, point: Float[np.ndarray, "c 3"]) -> Float[np.ndarray, " c"]:
        """The value of the voxel that holds each point (m, in `frame`), NaN outside the image."""
        affine = self.affine
        index = np.linalg.solve(affine[:3, :3], (point - affine[None, :3, 3]).T).T
        index = np.floor(index + 0.5)
        inside = ((index >= 0.0) & (index < np.array(self.shape)[None, :])).all(axis=1)
        value = np.full(len(point), np.nan)
        value[inside] = self.mbf[tuple(index[inside].astype(np.int64).T)]
        return value

    @property
    def mbf_ml_min_g(self) -> Float[np.ndarray, "i j k"]:
        """The map in ml/min/g."""
        return self.mbf / M3_S_KG_PER_ML_MIN_G


def read_pet(
    path: str | os.PathLike,
    *,
    units: str | None = None,
    frame: str = "LPS",
    length_units: str | None = None,
    mesh: AbstractMesh | None = None,
) -> PETImage:
    """Read a map of myocardial blood flow from a NIfTI volume.

    NaN and 0 stand for voxels without a value. The unit is checked against what tissue can have:
    the median must lie between 0.1 and 10 ml/min/g, that of the wall where a mesh is given and else
    that of all positive voxels.

    **Arguments:**

    - `units`: `ml/min/g`, `ml/min/100g`, `ml/s/g` or `m3/s/kg`; only where the text of the header
      (`descrip`) does not state it.
    - `frame`: the frame wanted, `LPS` or `RAS` (that of NIfTI).
    - `length_units`: unit of the affine, only where the header does not state it.
    - `mesh`: the wall that the map must cover; see [`jaxperf.io.check_overlap`][].

    **Returns:** a [`PETImage`][] in SI.

    **Errors:** [`InputError`][] naming the file: those of a NIfTI volume, a unit that is unknown,
    not stated or contradicts the header, negative or no values, a median that no heart has (the
    sentence names the units that would fit), a map that does not cover the wall.

    **Example:**

    ```python
    import numpy as np, jaxperf as jp
    mesh, _, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    wall = jp.io.mesh_in_frame(jp.study.voxels_in_patient(mesh), "LPS")
    jp.io.write_nifti("mbf.nii.gz", wall, np.ones(wall.n_cells), description="MBF ml/min/g")
    image = jp.io.read_pet("mbf.nii.gz", mesh=wall)
    ```
    """
    where = str(path)
    check_frame(frame, where)
    image = load_image(path)
    scale = image_unit(image, length_units, where)
    unit = _flow_unit(image, units, where)
    data = image_data(image, where).astype(np.float64)
    _check_values(data, where)
    affine = np.array(image.affine, np.float64)
    affine[:3] *= scale
    if not (np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) == 3):
        raise InputError(
            f"its affine is {affine.tolist()}",
            where=where,
            expected="a matrix from grid indices to positions that can be inverted",
            fix="Export the volume with its orientation",
        )
    found = PETImage(data * FLOW_UNIT[unit], affine_in_frame(affine, "RAS", frame), frame, where)
    if mesh is None:
        _check_median(data[data > 0.0], unit, f"{(data > 0.0).sum()} positive voxels", where)
    else:
        check_overlap(found, mesh)
        inside = found.at(mesh.centre) / FLOW_UNIT[unit]
        _check_median(inside[inside > 0.0], unit, "the wall", where)
    return found


def check_overlap(image: PETImage, mesh: AbstractMesh, *, least: float = _LEAST_OVERLAP) -> float:
    """Refuse a map of another heart, or one in another frame.

    **Arguments:**

    - `mesh`: the wall, in the frame of the image.
    - `least`: share of the wall's volume that must lie in voxels with a value; 0 and NaN are none.

    **Returns:** that share.

    **Errors:** [`InputError`][] with the share that was found, and with the one that the other
    handedness of x and y would give where that is enough.

    ```python
    share = check_overlap(read_pet("mbf_rest.nii.gz"), mesh)
    ```
    """
    if mesh.frame != image.frame:
        raise InputError(
            f"the map is in {image.frame} and the mesh in {mesh.frame}",
            where=image.path,
            expected="one patient frame for both",
            fix=f"Read the map with frame={mesh.frame!r}",
        )
    share = _share(image, mesh.centre, mesh.volume)
    if share >= least:
        return share
    turned = _share(image, to_frame(mesh.centre, "LPS", "RAS"), mesh.volume)
    middle = ", ".join(f"{x / M_PER_MM:.0f}" for x in mesh.centre.mean(axis=0))
    raise InputError(
        f"{100.0 * share:.1f} % of the wall (about {middle} mm) lies in voxels with a value",
        where=image.path,
        expected=f"at least {100.0 * least:g} %",
        fix=f"With x and y negated it would be {100.0 * turned:.1f} %: the mesh or the map names "
        "the wrong frame (LPS or RAS)"
        if turned >= least
        else "Check that both belong to one patient and are registered to each other",
    )


def _share(
    image: PETImage, point: Float[np.ndarray, "c 3"], volume: Float[np.ndarray, " c"]
) -> float:
    return float(volume[image.at(point) > 0.0].sum() / volume.sum())


def _flow_unit(image: Any, units: str | None, where: str) -> str:
    text = image.header["descrip"].item().decode("latin-1")
    match = _STATED.search(text.lower().replace(" ", ""))
    if match is None:
        stated = None
    else:
        volume, *per = match.groups()
        time, mass = sorted(per, key=lambda x: x not in ("min", "s"))
        stated = f"{volume}/{time}/{mass}"
    known = f"one of {', '.join(FLOW_UNIT)}"
    for unit, source in ((stated, f"its header says {text!r}"), (units, f"units is {units!r}")):
        if unit is not None and unit not in FLOW_UNIT:
            raise InputError(source, where=where, expected=known, fix="Name the unit of the values")
    if stated is not None and units not in (None, stated):
        raise InputError(
            f"its header states {stated} and units is {units!r}",
            where=where,
            expected="one unit of blood flow",
            fix="Leave units out, or correct the header",
        )
    unit = stated or units
    if unit is None:
        raise InputError(
            f"its header does not state the unit of blood flow (descrip is {text!r})",
            where=where,
            expected="a unit in the header, or units=",
            fix=f"Pass units=, {known}",
        )
    return unit


def _check_values(data: np.ndarray, where: str) -> None:
    if data.ndim != 3:
        raise InputError(
            f"its shape is {data.shape}",
            where=where,
            expected="one volume of three dimensions",
            fix="Export the map of one state, and not the frames of the scan",
        )
    if np.isinf(data).any():
        raise InputError(
            f"{np.isinf(data).sum()} voxels are infinite",
            where=where,
            expected="numbers, and NaN where nothing was measured",
            fix="Export these voxels as NaN",
        )
    if (data < 0.0).any():
        raise InputError(
            f"{(data < 0.0).sum()} of {data.size} voxels are negative, the least "
            f"{np.nanmin(data):.4g}",
            where=where,
            expected="blood flow of at least 0, and NaN where nothing was measured",
            fix="Export a map of flow, and negative voxels of a poor fit as NaN",
        )
    if not (data > 0.0).any():
        raise InputError(
            "it has no positive voxel",
            where=where,
            expected="a map of blood flow",
            fix="Check that this is the right file",
        )


def _check_median(values: Float[np.ndarray, " n"], unit: str, of: str, where: str) -> None:
    low, high = (x * M3_S_KG_PER_ML_MIN_G for x in MEDIAN_ML_MIN_G)
    median = float(np.median(values))
    if low <= median * FLOW_UNIT[unit] <= high:
        return
    others = [repr(name) for name, scale in FLOW_UNIT.items() if low <= median * scale <= high]
    raise InputError(
        f"the median of {of} is {median:.4g} {unit}, which is "
        f"{median * FLOW_UNIT[unit] / M3_S_KG_PER_ML_MIN_G:.4g} ml/min/g",
        where=where,
        expected=f"{MEDIAN_ML_MIN_G[0]:g} to {MEDIAN_ML_MIN_G[1]:g} ml/min/g",
        fix=f"The values fit units={' or '.join(others)}"
        if others
        else "No unit of blood flow fits; check that this is a map of flow and not of activity",
    )
