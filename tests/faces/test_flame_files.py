"""FLAME out of files like the official ones (made up here), and one clear line for each thing wrong with them."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
from toy_head import as_dict, toy_arrays

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.hub.flame_files import (
    DECIMATED,
    LANDMARKS,
    MASKS,
    MODEL,
    TABLES_OF_VERTICES,
    flame_folder,
    load_flame,
    missing_flame_files,
)
from portraitzoo.hub.numpy_files import read_numpy

torch.set_num_threads(1)


class Ch:
    """Stands for chumpy's array while a file is written; nothing of that name exists where it is read."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


Ch.__module__ = "chumpy.ch"


def model_content() -> dict:
    arrays = toy_arrays()
    tree = np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.int64)
    return {
        "v_template": Ch(arrays.v_template),
        "f": arrays.faces.astype(np.uint32),
        "shapedirs": Ch(arrays.shapedirs),
        "posedirs": arrays.posedirs,
        "J_regressor": scipy.sparse.csc_matrix(arrays.J_regressor),
        "kintree_table": tree,
        "weights": arrays.lbs_weights,
        "bs_style": "lbs",
    }


def mask_content() -> dict:
    arrays = toy_arrays()
    names = {"face": "face", "lips": "lips", "noinmouth": "no_inner_mouth"}
    return {name: getattr(arrays, ours) for name, ours in names.items()} | {
        "left_eyeball": arrays.left_eyeball,
        "right_eyeball": arrays.right_eyeball,
    }


def dump(path: Path, content: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle that names chumpy, which is importable only meanwhile."""
    with monkeypatch.context() as patch:
        module = types.ModuleType("chumpy.ch")
        module.Ch = Ch  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
        patch.setitem(sys.modules, "chumpy.ch", module)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All the files, some in subfolders as they are published."""
    a = as_dict(toy_arrays())
    dump(tmp_path / "geometry" / MODEL, model_content(), monkeypatch)
    dump(tmp_path / "mask" / MASKS, mask_content(), monkeypatch)
    landmarks = {
        "static_lmk_faces_idx": a["static_faces"].astype(np.int32),
        "static_lmk_bary_coords": a["static_barycentric"],
        "dynamic_lmk_faces_idx": a["contour_faces"],
        "dynamic_lmk_bary_coords": a["contour_barycentric"],
        "full_lmk_faces_idx": a["full_faces"][None],
        "full_lmk_bary_coords": a["full_barycentric"][None],
    }
    np.save(tmp_path / "geometry" / LANDMARKS, landmarks, allow_pickle=True)  # type: ignore[arg-type]
    np.save(
        tmp_path / TABLES_OF_VERTICES,
        {
            "smallface_idxs": a["small_face"],
            "eyelids_idxs": a["eyelids"],
            "dynamic_idxs": a["dynamic"],
            "vertices_region_idxs": a["rings"],
        },  # type: ignore[arg-type]
    )
    names = {"idxs": "coarse_vertices", "baris": "coarse_weights", "faces": "coarse_faces"}
    coarse = {name: a[ours] for name, ours in names.items()} | {"coarse_face_region_idxs": a["coarse_regions"]}
    np.save(tmp_path / DECIMATED, coarse)  # type: ignore[arg-type]
    return tmp_path


def test_files_make_the_head_that_their_arrays_make(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAITZOO_FLAME", str(folder))
    assert flame_folder() == folder and missing_flame_files() == ""
    ours, expected = load_flame().state_dict(), FlameHead.from_arrays(toy_arrays()).state_dict()
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, msg=name)


def test_missing_files_tell_where_they_come_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "geometry" / MODEL).unlink()
    with pytest.raises(ZooError, match=r"generic_model\.pkl from https://flame\.is\.tue\.mpg\.de.*PORTRAITZOO_FLAME"):
        load_flame(folder)
    monkeypatch.setenv("PORTRAITZOO_CACHE", str(folder / "cache"))
    monkeypatch.delenv("PORTRAITZOO_FLAME", raising=False)
    with pytest.raises(ZooError, match=r"simplify_baricentric2\.npy from .*Portrait-4D"):
        load_flame()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shapedirs": np.zeros((168, 3, 10))}, r"shapedirs is \[.*10\], not \[.*400\]: FLAME 2020"),
        ({"weights": np.zeros((24, 5))}, "lbs_weights is .*FLAME 2020"),
        ({"posedirs": None}, "'posedirs' is not numbers"),
        ({"kintree_table": np.zeros((2, 24), np.int64)}, "is not FLAME: its joints"),
        ({"v_template": Ch(np.full((168, 3), np.nan))}, "v_template is|something that is no number"),
        ({"f": np.full((320, 3), 10**6)}, "faces counts beyond"),
    ],
)
def test_another_model_is_told_from_flame(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict, complaint: str
) -> None:
    content = model_content() | change
    if isinstance(change.get("v_template"), Ch):
        content["v_template"] = Ch(np.full_like(toy_arrays().v_template, np.nan))
    dump(folder / "geometry" / MODEL, content, monkeypatch)
    with pytest.raises(ZooError, match=complaint) as caught:
        load_flame(folder)
    assert "\n" not in str(caught.value)


def test_a_model_without_an_array_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model_content()
    del content["weights"]
    dump(folder / "geometry" / MODEL, content, monkeypatch)
    with pytest.raises(CheckpointError, match="lacks 'weights'"):
        load_flame(folder)


def test_the_public_masks_lack_the_inner_mouth(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = mask_content()
    del content["noinmouth"]
    dump(folder / "mask" / MASKS, content, monkeypatch)
    with pytest.raises(ZooError, match=r"lacks 'noinmouth'.*GenHead checkpoint"):
        load_flame(folder)


def test_an_object_array_brings_its_content_and_runs_nothing(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    np.save(tmp_path / "table.npy", {"a": np.arange(3), "b": ["x", 2.5], "trap": Trap()})  # type: ignore[arg-type]
    content = read_numpy(tmp_path / "table.npy")
    assert content["a"].tolist() == [0, 1, 2] and content["b"] == ["x", 2.5]
    assert not (tmp_path / "sprung").exists() and "touch" in repr(content["trap"])
    np.save(tmp_path / "rows.npy", np.array([{"a": 1}, None], dtype=object))
    assert read_numpy(tmp_path / "rows.npy").tolist() == [{"a": 1}, None]
    np.save(tmp_path / "plain.npy", np.eye(2))
    assert read_numpy(tmp_path / "plain.npy").tolist() == np.eye(2).tolist()


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "missing"])
def test_a_damaged_npy_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "table.npy"
    np.save(path, {"a": np.arange(300)})  # type: ignore[arg-type]
    content = {"cut": path.read_bytes()[:400], "text": b"not at all", "empty": b""}.get(damage)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot read .*table\.npy") as caught:
        read_numpy(path)
    assert "\n" not in str(caught.value)


def test_a_header_that_lies_about_the_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.npy"
    np.save(path, np.array([{"a": 1}, None], dtype=object))
    path.write_bytes(path.read_bytes().replace(b"(2,)", b"(9,)", 1))
    with pytest.raises(CheckpointError, match="not of the shape that its header states"):
        read_numpy(path)
