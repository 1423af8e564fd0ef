"""NIfTI label volumes and perfusion maps."""

import os
import zlib
from typing import Any

import numpy as np
from jaxtyping import Float

from .._misc import check_frame, InputError, note
from ..geometry import build_voxel_mesh, TetMesh, VoxelMesh
from ..units import M_PER_MM
from ._files import check_suffix, readable_file, replacing
from ._frames import affine_in_frame, LENGTH_UNIT, length_unit
from ._resample import sample_on_grid

_EXPECTED = "a NIfTI volume (.nii or .nii.gz)"
_SUFFIX = (".nii", ".nii.gz")
# More voxels than any scan of a heart has (a CT of the chest has 3e8): what a broken header says.
_MOST_VOXELS = 6e8
# Spacings of affine and pixdim that differ by more are two spacings.
_SPACING_RTOL = 0.01
# nibabel's names of the units that a NIfTI header can state
_HEADER_UNIT = {"mm": "mm", "meter": "m", "micron": "um"}


def read_voxel_labels(
    path: str | os.PathLike,
    *,
    label: int,
    cavity_label: int | None = None,
    rv_label: int | None = None,
    frame: str = "RAS",
    units: str | None = None,
    largest_piece: bool = False,
) -> VoxelMesh:
    """Read the voxels of one label of a NIfTI label volume as a tissue mesh.

    **Arguments:**

    - `label`: the label of the LV wall.
    - `cavity_label`, `rv_label`: labels that must be present too, because the ventricle's frame
      and the transmural depth are taken from them.
    - `frame`: the frame wanted, `RAS` (that of NIfTI) or `LPS`.
    - `units`: unit of the affine, only where the header does not state it.
    - `largest_piece`: keep the largest piece of a wall that falls into several.

    **Returns:** a [`jaxperf.geometry.VoxelMesh`][] in m, with all labels kept.

    **Errors:** [`InputError`][] naming the file: absent, truncated, no NIfTI, a unit that is
    unknown or contradicts `units`, a bad affine, and labels that are absent.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    affine = np.diag([5e-3, 5e-3, 5e-3, 1.0])
    mesh = jp.geometry.build_voxel_mesh(np.ones((4, 4, 4), int), affine, frame="RAS")
    jp.io.write_nifti("wall.nii", mesh, np.ones(mesh.n_cells))
    wall = jp.io.read_voxel_labels("wall.nii", label=1)
    ```
    """
    where = str(path)
    check_frame(frame, where)
    image = load_image(path)
    unit = image_unit(image, units, where)
    data = image_data(image, where)
    wanted = [label, *(x for x in (cavity_label, rv_label) if x is not None)]
    present = np.unique(np.rint(data[np.isfinite(data)]))
    for value in wanted:
        if value not in present:
            shown = ", ".join(f"{v:g}" for v in present[:20])
            raise InputError(
                f"no voxel has the label {value}; the labels present are: {shown}",
                where=where,
                expected="labels that occur in the volume",
                fix="Correct the label number",
            )
    affine = np.array(image.affine, np.float64)
    affine[:3] *= unit
    return build_voxel_mesh(
        data,
        affine_in_frame(affine, "RAS", frame),
        frame=frame,
        wall_label=label,
        largest_piece=largest_piece,
        where=where,
    )


def load_image(path: str | os.PathLike) -> Any:
    """A NIfTI image that states where its grid lies; its voxels are not read yet."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    file = check_suffix(readable_file(path, _EXPECTED), _SUFFIX)
    try:
        image = nibabel.load(file)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            f"its header cannot be read ({error})",
            where=str(path),
            expected=_EXPECTED,
            fix="Check that the file is complete, or export it again",
        ) from error
    header: Any = image.header
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise InputError(
            "its header has neither an sform nor a qform",
            where=str(path),
            expected="the position of the grid in patient coordinates",
            fix="Export the volume with its orientation",
        )
    _note_grids(image, str(path))
    return image


def _note_grids(image: Any, where: str) -> None:
    """Say where the header places its grid in two ways."""
    header, shape = image.header, np.array(image.shape[:3])
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    pixdim = np.array(header.get_zooms()[:3], np.float64)
    said = lambda size: " × ".join(f"{x:g}" for x in size)
    if shape.size == 3 and not np.allclose(spacing, pixdim, rtol=_SPACING_RTOL, atol=0.0):
        ratio = float(np.prod(spacing) / np.prod(pixdim)) if np.all(pixdim > 0.0) else np.inf
        note(
            f"its header has voxels of {said(spacing)} by the affine and of {said(pixdim)} by "
            f"pixdim; the affine is used, so that volumes are {ratio:.3g} times those of pixdim",
            where=where,
        )
        return
    if int(header["sform_code"]) == 0 or int(header["qform_code"]) == 0:
        return
    corner = np.array(np.meshgrid(*([0, n - 1] for n in shape))).reshape(3, -1)
    matrix = header.get_sform() - header.get_qform()
    apart = float(np.linalg.norm(matrix[:3, :3] @ corner + matrix[:3, 3:], axis=0).max())
    if apart > spacing.min():
        note(
            f"its sform and its qform place voxels up to {apart:.3g} apart, in the header's unit; "
            "the sform is used",
            where=where,
        )


def image_unit(image: Any, units: str | None, where: str) -> float:
    """Metres in the unit of length that the header states, or else `units`."""
    stated = _HEADER_UNIT.get(image.header.get_xyzt_units()[0])
    if stated is None and units is None:
        raise InputError(
            "its header does not state the unit of length",
            where=where,
            expected="a unit in the header, or units=",
            fix=f"Pass units=, one of {', '.join(LENGTH_UNIT)}",
        )
    if stated is not None and units not in (None, stated):
        raise InputError(
            f"its header states {stated} and units is {units!r}",
            where=where,
            expected="one unit of length",
            fix="Leave units out, or correct the header",
        )
    return length_unit(stated or str(units), where)


def image_data(image: Any, where: str) -> np.ndarray:
    """The voxels, one number each; axes of one entry behind the third are left out."""
    count = float(np.prod([float(n) for n in image.shape]))
    if count > _MOST_VOXELS:
        raise InputError(
            f"its header says {' × '.join(str(n) for n in image.shape)} voxels, {count:.3g}",
            where=where,
            expected=f"at most {_MOST_VOXELS:.3g} voxels",
            fix="Check the header; crop a larger volume to the heart, or resample it",
        )
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(
            f"its voxels are of type {image.get_data_dtype()}",
            where=where,
            expected="one number for each voxel",
            fix="Export one number for each voxel and not a colour image",
        )
    try:
        data = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            f"its voxels cannot be read ({error})",
            where=where,
            expected=f"{image.shape} voxels, as the header says",
            fix="The file is truncated; copy or export it again",
        ) from error
    more = data.shape[3:]
    return data.reshape(data.shape[:3]) if more and all(n == 1 for n in more) else data


def write_nifti(
    path: str | os.PathLike,
    mesh: VoxelMesh | TetMesh,
    values: Float[np.ndarray, " c"],
    *,
    background: float = 0.0,
    spacing_mm: float = 1.25,
    description: str = "",
) -> None:
    """Write a field of a tissue mesh as a NIfTI volume, float32, mm, RAS.

    A voxel mesh is written on its own grid. A tetrahedral mesh is sampled on a grid of
    `spacing_mm` along the RAS axes, linearly in each tetrahedron.

    **Arguments:**

    - `values`: one for each control volume, in any unit; say which in the file's name.
    - `background`: value outside the tissue, such as 0 or NaN.
    - `description`: text of the header; NIfTI keeps its first 79 characters.

    **Errors:** [`InputError`][] for a mesh in model coordinates, which belongs to no patient.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    affine = np.diag([5e-3, 5e-3, 5e-3, 1.0])
    mesh = jp.geometry.build_voxel_mesh(np.ones((4, 4, 4), int), affine, frame="RAS")
    jp.io.write_nifti("mbf_ml_min_g.nii.gz", mesh, np.ones(mesh.n_cells))
    ```
    """
    import nibabel

    file = check_suffix(path, _SUFFIX)
    if isinstance(mesh, TetMesh):
        volume, affine = sample_on_grid(mesh, values, spacing_mm=spacing_mm, background=background)
    else:
        volume = mesh.to_grid(values, background)
        affine = affine_in_frame(mesh.affine, mesh.frame, "RAS")
    affine = np.array(affine)
    affine[:3] /= M_PER_MM
    image = nibabel.Nifti1Image(volume.astype(np.float32), affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    with replacing(file) as temporary:
        nibabel.save(image, temporary)
