"""FLAME from the files that its users obtain themselves, under FLAME's own licence.

Two come from FLAME's home page (registration, non-commercial licence): ``generic_model.pkl`` of FLAME 2020 and
``FLAME_masks.pkl``. Three are tables that the authors of GenHead publish with their code. They are looked for in the
folder named by the environment variable ``PORTRAITZOO_FLAME``, else in ``flame`` below the cache, at any depth. Nothing
in them is executed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.flame_arrays import PARENTS, FlameArrays
from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.hub.cache import cache_root
from portraitzoo.hub.checkpoints import read_checkpoint
from portraitzoo.hub.numpy_files import read_numpy
from portraitzoo.hub.records import Global, Record, shown

VARIABLE = "PORTRAITZOO_FLAME"
HOME = "https://flame.is.tue.mpg.de"
TABLES = "https://github.com/YuDeng/Portrait-4D (portrait4d/models/FLAME)"

MODEL, MASKS = "generic_model.pkl", "FLAME_masks.pkl"
LANDMARKS, TABLES_OF_VERTICES = "landmark_embedding_with_eyes.npy", "flame_addition_info_new_smallface.npy"
DECIMATED = "simplify_baricentric2.npy"
_LONGEST = 10_000

SOURCES = {MODEL: HOME, MASKS: HOME, LANDMARKS: TABLES, TABLES_OF_VERTICES: TABLES, DECIMATED: TABLES}
"""Where each file comes from."""


def flame_folder() -> Path:
    """Where FLAME's files are looked for; the folder may not exist."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else cache_root() / "flame"


def find_flame_files(folder: str | Path | None = None) -> dict[str, Path]:
    """The files of FLAME that are there, by name.

    Args:
        folder: where to look; :func:`flame_folder` if None.
    """
    root = Path(folder) if folder is not None else flame_folder()
    found = {name: sorted(root.rglob(name)) for name in SOURCES}
    return {name: paths[0] for name, paths in found.items() if paths}


def missing_flame_files(folder: str | Path | None = None) -> str:
    """What is missing, where to get it and where to put it, in one line; empty if nothing is.

    Args:
        folder: where to look; :func:`flame_folder` if None.
    """
    found = find_flame_files(folder)
    wanted: dict[str, list[str]] = {}
    for name, source in SOURCES.items():
        if name not in found:
            wanted.setdefault(source, []).append(name)
    if not wanted:
        return ""
    told = "; ".join(f"{', '.join(names)} from {source}" for source, names in wanted.items())
    put = folder if folder is not None else flame_folder()
    return f"get {told}, under their own licences, and put them into {put} (or name a folder by {VARIABLE})"


def load_flame(folder: str | Path | None = None) -> FlameHead:
    """FLAME with its tables, from its files.

    Args:
        folder: where they are; :func:`flame_folder` if None.

    Raises:
        ZooError: if a file is missing (telling where to get it), damaged, or of another version of FLAME.
    """
    return FlameHead.from_arrays(read_flame(folder))


def read_flame(folder: str | Path | None = None) -> FlameArrays:
    """The arrays of FLAME's files; arguments and errors as in :func:`load_flame`."""
    missing = missing_flame_files(folder)
    if missing:
        raise ZooError(f"FLAME's files are not complete: {missing}")
    paths = find_flame_files(folder)
    model = _Table(paths[MODEL], read_checkpoint(paths[MODEL]))
    masks = _Table(paths[MASKS], read_checkpoint(paths[MASKS]))
    landmarks, vertices, coarse = (
        _Table(paths[name], read_numpy(paths[name])) for name in (LANDMARKS, TABLES_OF_VERTICES, DECIMATED)
    )
    if "noinmouth" not in masks:
        raise ZooError(
            f"{paths[MASKS]} lacks 'noinmouth', which FLAME's own mask file has not: take the file that "
            "GenHead's authors publish, or load a GenHead checkpoint, which brings its FLAME along"
        )
    parents = model["kintree_table"].astype(np.int64)
    if parents.shape != (2, len(PARENTS)) or parents[0, 1:].tolist() != list(PARENTS[1:]):
        raise ZooError(f"{paths[MODEL]} is not FLAME: its joints are not root, neck, jaw and two eyes")
    try:
        return FlameArrays(
            v_template=model["v_template"],
            faces=model["f"].astype(np.int64),
            shapedirs=model["shapedirs"],
            posedirs=model["posedirs"],
            J_regressor=model["J_regressor"],
            lbs_weights=model["weights"],
            static_faces=landmarks.integers("static_lmk_faces_idx"),
            static_barycentric=landmarks["static_lmk_bary_coords"],
            contour_faces=landmarks.integers("dynamic_lmk_faces_idx"),
            contour_barycentric=landmarks["dynamic_lmk_bary_coords"],
            full_faces=landmarks.integers("full_lmk_faces_idx").reshape(-1),
            full_barycentric=landmarks["full_lmk_bary_coords"].reshape(-1, 3),
            face=masks.integers("face"),
            lips=masks.integers("lips"),
            no_inner_mouth=masks.integers("noinmouth"),
            left_eyeball=masks.integers("left_eyeball"),
            right_eyeball=masks.integers("right_eyeball"),
            small_face=vertices.integers("smallface_idxs"),
            eyelids=vertices.integers("eyelids_idxs"),
            dynamic=vertices.integers("dynamic_idxs"),
            rings=vertices.integers("vertices_region_idxs"),
            coarse_vertices=coarse.integers("idxs"),
            coarse_weights=coarse["baris"],
            coarse_faces=coarse.integers("faces"),
            coarse_regions=coarse.integers("coarse_face_region_idxs"),
        )
    except CheckpointError:
        raise
    except ZooError as error:
        raise ZooError(f"the files in {paths[MODEL].parent} do not make a head: {error}") from error


class _Table:
    """The arrays of one file by name."""

    def __init__(self, path: Path, content: Any) -> None:
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{path} holds {shown(content)}, not FLAME's tables")
        self.path, self.content = path, content

    def __contains__(self, name: str) -> bool:
        return name in self.content

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.content:
            raise CheckpointError(f"{self.path} lacks '{name}': it is not the file of FLAME 2020")
        array = _array(self.content[name])
        if array is None or array.dtype.kind not in "iuf":
            raise CheckpointError(f"{self.path}: '{name}' is not numbers but {shown(self.content[name])}")
        return array

    def integers(self, name: str) -> np.ndarray:
        """An array of indices, which some files keep as floats."""
        array = self[name]
        if array.dtype.kind == "f" and not (array == np.floor(array)).all():
            raise CheckpointError(f"{self.path}: '{name}' is not indices")
        return array.astype(np.int64)


def _array(value: Any) -> np.ndarray | None:
    """Numbers as such, inside a chumpy array, as a list, or as a sparse matrix."""
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if isinstance(value, list):
        return np.asarray(value)
    if not isinstance(value, Record):
        return None
    state = value.attributes
    return _array(state["x"]) if "x" in state else _dense(value)


def _dense(sparse: Record) -> np.ndarray | None:
    """SciPy's compressed rows or columns, as an array; None if it is something else or does not fit together."""
    state = sparse.attributes
    parts = [state.get(name) for name in ("data", "indices", "indptr")]
    shape = state.get("_shape", state.get("shape"))
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) != len(parts):
        return None
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(n) is int and 0 <= n < _LONGEST for n in shape):
        return None
    names = [sparse.name, *(part.name for part in sparse.args if isinstance(part, Global))]
    by_rows = any(name.startswith("csr") for name in names)
    data, inner, ends = arrays
    try:
        outer = np.repeat(np.arange(shape[0] if by_rows else shape[1]), np.diff(ends))
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (outer, inner) if by_rows else (inner, outer), data)
    except (ValueError, TypeError, IndexError):
        return None
    return dense
