"""``zoo preprocess fit``: prepared faces get fitted head parameters."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.images import write_image
from portraitzoo.methods.portrait4d.folders import PreparedFolder
from portraitzoo.preprocess.landmark_fits import fit_portraits
from portraitzoo.preprocess.portraits import prepare_portraits

sys.path.append(str(Path(__file__).parents[1] / "faces"))
from marked_faces import marked_tracker, picture

QUICK = {"head": "small", "placing_steps": 20, "posing_steps": 10, "fitting_steps": 10, "device": "cpu"}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    for number in range(3):
        write_image(root / "in" / f"{number}.png", picture((50 + 10 * number, 50)))
    prepare_portraits(root / "in", root / "out", tracker=marked_tracker())
    return root / "out"


@pytest.fixture
def prepared(original: Path, tmp_path: Path) -> Path:
    """Three prepared faces, of which only numbers are copied."""
    for path in original.rglob("*.npy"):
        target = tmp_path / "me" / path.relative_to(original)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "me"


def labels(folder: Path) -> torch.Tensor:
    return PreparedFolder(folder, parameters="fitted").read()[1].labels()


def test_faces_are_fitted_and_kept(prepared):
    counted = []
    fit_portraits(prepared, batch_size=2, progress=lambda done, total: counted.append((done, total)), **QUICK)
    assert counted == [(2, 3), (3, 3)]
    fitted, simplified = labels(prepared), PreparedFolder(prepared, parameters="simplified").read()[1].labels()
    assert fitted.shape == (3, 437)
    assert fitted[:, 16:25].allclose(simplified[:, 16:25]), "the camera's intrinsics"
    assert fitted[:, 25:125].any() and fitted[:, 425:431].any()
    assert fitted[:, 431:434].equal(fitted[:, 434:437]) and not (fitted[:, 431:434] == 0).all()
    place = prepared / "flame_optim_params" / "1.npy"
    assert np.load(place).dtype == np.float32
    before = [path.stat().st_mtime_ns for path in place.parent.iterdir()]
    place.unlink()
    fit_portraits(prepared, **QUICK)
    assert sum(path.stat().st_mtime_ns not in before for path in place.parent.iterdir()) == 1


def test_one_person_has_one_shape(prepared):
    fit_portraits(prepared.parent, one_person=True, **QUICK)
    shapes = labels(prepared)[:, 25:325]
    assert (shapes == shapes[0]).all() and shapes.any()


def test_unusable_faces_are_one_line(prepared, tmp_path):
    (prepared / "2dldmks_align" / "1.npy").write_bytes(b"torn")
    with pytest.raises(MediaError, match=r"cannot read .*2dldmks_align/1\.npy"):
        fit_portraits(prepared, **QUICK)
    np.save(prepared / "2dldmks_align" / "1.npy", np.zeros((68, 2)))
    with pytest.raises(MediaError, match=r"2dldmks_align/1\.npy holds float64 \[68, 2\], not \[98, 2\]"):
        fit_portraits(prepared, **QUICK)
    (prepared / "2dldmks_align" / "1.npy").unlink()
    with pytest.raises(ZooError, match=r"no 98 landmarks of 1 \(2dldmks_align/1\.npy\)"):
        fit_portraits(prepared, **QUICK)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="holds no faces to fit a head to"):
        fit_portraits(tmp_path / "empty", **QUICK)
    with pytest.raises(ZooError, match="batch-size must be at least 1"):
        fit_portraits(prepared, batch_size=0, **QUICK)


def test_without_flame_it_is_told_where_to_get_it(prepared, monkeypatch, tmp_path):
    monkeypatch.setenv("PORTRAITZOO_FLAME", str(tmp_path / "nothing"))
    with pytest.raises(ZooError, match="FLAME's files are not complete"):
        fit_portraits(prepared)
