"""The grown forest: what it holds, its file, and its union with the fixed vessels."""

import hashlib
import json
import os
import secrets
import zipfile
import zlib
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ..network import build_network, parent_segment, VascularNetwork

STUB, CONDUIT, TRANSMURAL = 0, 1, 2
_FORMAT = 2


class Forest(eqx.Module):
    """Trees grown below the vessels of a fixed network; arrays on the host.

    Vessel k leads to grown node k. Over trees r, grown nodes m, terminals t, wall cells c:

    - `root_node`: (r,), node of the fixed network that each tree hangs on.
    - `root_territory`: (r,), index into `territory_name`.
    - `root_share`: (r,), target share of the whole flow; sums to one.
    - `root_projected`: (r,), the share that a connected territory could be found for.
    - `position`: (m, 3), m. `parent`: (m,), the grown node above, or −1 − i for tree i's
      `root_node`.
    - `radius`: (m,), m, along the whole vessel. `tree`: (m,).
    - `stage`: (m,), 0 the stub from the fixed vessel into the wall, 1 epicardial conduit,
      2 transmural.
    - `terminal`: (t,), grown nodes that are leaves.
    - `cell_tree`: (c,), tree in whose territory each cell of the wall lies.
    - `settings`: JSON text of what it was grown with, see [`Forest.about`][].
    """

    root_node: Int[np.ndarray, " r"]
    root_territory: Int[np.ndarray, " r"]
    root_share: Float[np.ndarray, " r"]
    root_projected: Float[np.ndarray, " r"]
    position: Float[np.ndarray, "m 3"]
    parent: Int[np.ndarray, " m"]
    radius: Float[np.ndarray, " m"]
    tree: Int[np.ndarray, " m"]
    stage: Int[np.ndarray, " m"]
    terminal: Int[np.ndarray, " t"]
    cell_tree: Int[np.ndarray, " c"]
    territory_name: tuple[str, ...] = eqx.field(static=True)
    frame: str = eqx.field(static=True)
    settings: str = eqx.field(static=True)

    @property
    def about(self) -> dict[str, Any]:
        """Settings, fingerprint of the input, seconds and counts of the growth."""
        return json.loads(self.settings)

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return self.root_node.size

    @property
    def n_terminals(self) -> int:
        """Number of terminals."""
        return self.terminal.size

    def tail(self, network: VascularNetwork) -> Float[np.ndarray, "m 3"]:
        """The proximal end (m) of every grown vessel."""
        root = np.asarray(network.node_position)[self.root_node]
        inner = self.parent >= 0
        return np.where(
            inner[:, None],
            self.position[np.where(inner, self.parent, 0)],
            root[np.where(inner, 0, -1 - self.parent)],
        )


def join_forest(network: VascularNetwork, forest: Forest) -> VascularNetwork:
    """The fixed network and the forest as one.

    Grown node k becomes node `network.n_nodes + k`, and the segment that leads to it
    `network.n_segments + k`. The trees that leave a branch are one branch
    `forest of <branch> (synthetic)`.

    Lesions of the network stay: they may hold the origin of a tree, and are declared on the fixed
    vessels before joining.

    **Errors:** [`InputError`][] where the forest was grown in another frame or below a network
    with fewer nodes.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=2.5)
    tree, depth = jp.anatomy.demo_tree(lv), jp.geometry.transmural_depth(mesh, frame)
    problem = jp.growth.GrowthProblem(tree, mesh, depth, n_terminals=60, root_spacing=30e-3)
    grown = jp.growth.join_forest(tree, jp.growth.grow_forest(problem))
    ```
    """
    if forest.frame != network.frame or forest.root_node.max() >= network.n_nodes:
        raise InputError(
            f"the forest was grown in the frame {forest.frame}, below {forest.root_node.max() + 1} "
            "or more nodes",
            where="join_forest",
            expected=f"the network it was grown on; this one is in {network.frame} and has "
            f"{network.n_nodes} nodes",
            fix="Grow the forest again",
        )
    n, position = network.n_nodes, np.asarray(network.node_position)
    above = np.where(forest.parent >= 0, forest.parent + n, 0)
    stub = forest.parent < 0
    above[stub] = forest.root_node[-1 - forest.parent[stub]]
    grown = np.stack([above, n + np.arange(forest.parent.size)], axis=1)
    branch_of, names = _branches(network, forest)
    return build_network(
        np.concatenate([position, forest.position]),
        np.concatenate([np.asarray(network.segment_node, np.int64), grown]),
        np.concatenate([np.asarray(network.radius), np.repeat(forest.radius[:, None], 2, axis=1)]),
        length=np.concatenate(
            [
                np.asarray(network.length),
                np.linalg.norm(forest.position - forest.tail(network), axis=1),
            ]
        ),
        root=np.asarray(network.roots, np.int64),
        frame=network.frame,
        branch=np.concatenate([np.asarray(network.branch, np.int64), branch_of[forest.tree]]),
        branch_name=names,
        lesion=network.lesion,
        where="network with forest",
    )


def _branches(
    network: VascularNetwork, forest: Forest
) -> tuple[Int[np.ndarray, " r"], tuple[str, ...]]:
    """The branch that each tree's vessels form, and the names of all branches."""
    into = parent_segment(network)[forest.root_node]
    of_root = np.asarray(network.branch, np.int64)[into]
    left, index = np.unique(of_root, return_inverse=True)
    plain = [network.branch_name[int(b)].removesuffix(" (synthetic)") for b in left]
    grown = tuple(f"forest of {name} (synthetic)" for name in plain)
    return len(network.branch_name) + index, (*network.branch_name, *grown)


def refuse_lesions(network: VascularNetwork) -> None:
    if network.lesion.length.size:
        raise InputError(
            f"the network has {network.lesion.length.size} declared lesions",
            where="growth",
            expected="the vessels without lesions: a forest is the same for every lesion",
            fix="Grow first, then declare lesions and join",
        )


_ARRAYS = (
    "root_node",
    "root_territory",
    "root_share",
    "root_projected",
    "position",
    "parent",
    "radius",
    "tree",
    "stage",
    "terminal",
    "cell_tree",
)


def save_arrays(path: str | os.PathLike, **arrays: Any) -> None:
    """Write arrays to a .npz file that appears complete or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"it cannot be written ({error.strerror})",
            where=str(path),
            expected="a file in a folder that may be written",
            fix="Choose another place",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def load_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a .npz file.

    **Errors:** `ValueError` for anything that is no complete one.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(str(error)) from None


def save_forest(path: str | os.PathLike, forest: Forest) -> None:
    """Write a forest to a `.npz` file: one array per field of [`Forest`][], SI units.

    `format` is the number of the layout, `territory_name`, `frame` and `settings` are text, and
    `content` is the digest of all that, by which a file that was changed since is told.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=2.5)
    tree, depth = jp.anatomy.demo_tree(lv), jp.geometry.transmural_depth(mesh, frame)
    problem = jp.growth.GrowthProblem(tree, mesh, depth, n_terminals=60, root_spacing=30e-3)
    jp.growth.save_forest("forest.npz", jp.growth.grow_forest(problem))
    ```
    """
    save_arrays(
        path,
        format=np.array(_FORMAT),
        territory_name=np.array(forest.territory_name),
        frame=np.array(forest.frame),
        settings=np.array(forest.settings),
        content=np.array(_content(forest)),
        **{name: getattr(forest, name) for name in _ARRAYS},
    )


def _content(forest: Forest) -> str:
    """The digest of a forest."""
    text = [list(forest.territory_name), forest.frame, forest.settings]
    total = hashlib.sha256(json.dumps(text).encode())
    for name in _ARRAYS:
        values = np.ascontiguousarray(getattr(forest, name))
        # as little-endian numbers, whatever the machine
        values = values.astype(values.dtype.newbyteorder("<"))
        total.update(f"{name} {values.dtype.str} {values.shape}".encode() + values.tobytes())
    return total.hexdigest()


def load_forest(path: str | os.PathLike) -> Forest:
    """Read a forest that [`save_forest`][] wrote.

    **Errors:** [`InputError`][] for a file that is missing, no forest, of another layout, or
    changed since it was written.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=2.5)
    tree, depth = jp.anatomy.demo_tree(lv), jp.geometry.transmural_depth(mesh, frame)
    problem = jp.growth.GrowthProblem(tree, mesh, depth, n_terminals=60, root_spacing=30e-3)
    jp.growth.save_forest("forest.npz", jp.growth.grow_forest(problem))
    forest = jp.growth.load_forest("forest.npz")
    ```
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            "it is not there",
            where=str(path),
            expected="a grown forest (.npz)",
            fix="Grow it with `jaxperf grow CASE.yaml`",
        )
    try:
        stored = load_arrays(path)
    except ValueError as error:
        raise _no_forest(path, str(error)) from None
    found = str(stored.get("format"))
    missing = [
        name
        for name in (*_ARRAYS, "territory_name", "frame", "settings", "content")
        if name not in stored
    ]
    if found != str(_FORMAT) or missing:
        raise _no_forest(path, f"layout {found}, without {', '.join(missing) or 'nothing'}")
    names = stored["territory_name"]
    wrong = _unlike_a_forest(stored, names.size)
    if wrong is not None:
        raise _no_forest(path, wrong)
    forest = Forest(
        **{name: stored[name] for name in _ARRAYS},
        territory_name=tuple(str(name) for name in names),
        frame=str(stored["frame"]),
        settings=str(stored["settings"]),
    )
    if str(stored["content"]) != _content(forest):
        raise _no_forest(path, "its content was changed since it was grown")
    return forest


def _unlike_a_forest(stored: dict[str, np.ndarray], n_names: int) -> str | None:
    """What in the arrays of a file can be no forest's; None where nothing is."""
    if stored["position"].ndim != 2 or stored["position"].shape[1] != 3:
        return "position has other axes than (m, 3)"
    m, r = len(stored["position"]), stored["root_node"].size
    sizes = {"root_territory": r, "root_share": r, "root_projected": r}
    sizes |= dict.fromkeys(("parent", "radius", "tree", "stage"), m)
    for name in (n for n in _ARRAYS if n != "position"):
        if stored[name].shape != (sizes.get(name, stored[name].size),):
            return f"{name} does not fit the other arrays"
    bounds = {"root_node": (0, 2**31), "root_territory": (0, n_names), "parent": (-r, m)}
    bounds |= {"tree": (0, r), "stage": (0, TRANSMURAL + 1), "terminal": (0, m)}
    bounds["cell_tree"] = (-1, r)
    for name, (low, high) in bounds.items():
        values = stored[name]
        if values.dtype.kind not in "iu" or ((values < low) | (values >= high)).any():
            return f"{name} has other numbers than whole ones from {low} to {high - 1}"
    for name in ("root_share", "root_projected", "position", "radius"):
        if stored[name].dtype.kind != "f" or not np.isfinite(stored[name]).all():
            return f"{name} has other numbers than finite ones"
    if not (m and r and (stored["radius"] > 0).all()):
        return "a radius is not above zero" if m and r else "it has no vessels"
    try:
        about = json.loads(str(stored["settings"]))
    except ValueError:
        about = None
    if not isinstance(about, dict) or not isinstance(about.get("fingerprint"), str):
        return "settings say of no input that it was grown for"
    return None


def is_forest(path: str | os.PathLike) -> bool:
    """Whether a file is a forest, of whatever layout.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    np.savez("posterior.npz", xi=np.zeros(3))
    jp.growth.is_forest("posterior.npz")  # False
    ```
    """
    try:
        stored = load_arrays(path)
    except ValueError:
        return False
    return {"format", "root_node", "cell_tree", "settings"} <= set(stored)


def _no_forest(path: Path, said: str) -> InputError:
    return InputError(
        f"it is no forest of this version ({said})",
        where=str(path),
        expected=f"a file of layout {_FORMAT}, written by `jaxperf grow`",
        fix="Grow the forest again",
    )
