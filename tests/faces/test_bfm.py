"""The Basel face model's structure, its maths and its file, with made-up data."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from toy_face import patch

from portraitzoo.errors import ZooError
from portraitzoo.faces.bfm import BaselFace, in_camera, project
from portraitzoo.faces.coefficients import SIZES, FaceCoefficients
from portraitzoo.hub.bfm_files import MODEL, NAMES, bfm_folder, load_bfm, read_bfm


def faces(batch: int = 2, **given: torch.Tensor) -> FaceCoefficients:
    zeros = {name: torch.zeros(batch, size) for name, size in SIZES.items()}
    return FaceCoefficients(**zeros | given)


def test_landmarks_are_the_projected_key_vertices():
    model = BaselFace(patch())
    generator = torch.Generator().manual_seed(0)
    drawn = FaceCoefficients.from_vector(torch.randn(3, 257, generator=generator) * 0.3)
    whole = project(in_camera(model.posed(drawn)))[:, model.keypoints]
    torch.testing.assert_close(model.landmarks(drawn), whole, atol=1e-3, rtol=0)


def test_the_camera_sees_the_middle_in_the_middle_and_up_as_less_y():
    points = in_camera(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    seen = project(points)
    torch.testing.assert_close(seen[0], torch.tensor([112.0, 111.0]))
    assert float(seen[1, 1]) == pytest.approx(111 - 101.5) and float(seen[2, 0]) == pytest.approx(112 + 101.5)


def test_faces_turn_as_a_whole():
    model = BaselFace(patch())
    turned = model.posed(faces(1, angles=torch.tensor([[0.0, math.pi / 2, 0.0]])))
    still = model.shape(faces(1))
    torch.testing.assert_close(turned[..., 0], still[..., 2], atol=1e-5, rtol=0)  # what was in front is on the right
    torch.testing.assert_close(turned[..., 2], -still[..., 0], atol=1e-5, rtol=0)


def test_normals_look_at_the_viewer_and_without_light_coefficients_light_is_even():
    model = BaselFace(patch())
    normals = model.normals(model.shape(faces(1)))
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(1, 9))
    assert bool((normals[..., 2] > 0.5).all())
    lit = model.lit_colours(faces(1))
    torch.testing.assert_close(lit, torch.full_like(lit, float(lit[0, 0, 0])))
    green = model.lit_colours(faces(1, light=torch.eye(27)[9:10]))
    assert bool((green[..., 1] > lit[..., 1]).all()) and green[..., ::2].allclose(lit[..., ::2])


def test_centring_is_a_choice():
    moved = BaselFace(patch(), "mean").shape(faces(1)) - BaselFace(patch()).shape(faces(1))
    assert float(moved.std(1).max()) < 1e-6 and float(moved[..., 2].abs().max()) == pytest.approx(0.2, abs=1e-5)
    with pytest.raises(ZooError, match="portrait4d or by its mean"):
        BaselFace(patch(), "middle")  # type: ignore[arg-type]


def written(folder: Path, **changed: np.ndarray) -> Path:
    arrays = patch()
    content = {name: np.asarray(getattr(arrays, ours)) for ours, name in NAMES.items()}
    for name in ("tri", "point_buf", "keypoints"):
        content[name] = (content[name] + 1).astype(np.float64)
    for name in ("idBase", "exBase", "texBase"):
        content[name] = content[name].reshape(27, -1)
    content |= {"meanshape": content["meanshape"].reshape(1, -1), "meantex": content["meantex"].reshape(1, -1)}
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / MODEL, content | changed)
    return folder / MODEL


def test_the_file_is_found_and_read(tmp_path, monkeypatch):
    path = written(tmp_path / "deep" / "inside")
    for name in NAMES:
        np.testing.assert_allclose(getattr(read_bfm(path), name), getattr(patch(), name), atol=1e-6)
    monkeypatch.setenv("PORTRAITZOO_BFM", str(tmp_path))
    assert bfm_folder() == tmp_path
    assert load_bfm().shape(faces()).equal(BaselFace(patch()).shape(faces()))


def test_what_is_wrong_with_files_is_told_in_one_line(tmp_path):
    with pytest.raises(ZooError, match=r"faces\.dmi\.unibas\.ch.*PORTRAITZOO_BFM"):
        load_bfm(tmp_path)
    (tmp_path / MODEL).write_bytes(b"no MATLAB file at all" * 20)
    with pytest.raises(ZooError, match="damaged, or no MATLAB file"):
        load_bfm(tmp_path)
    whole = written(tmp_path).read_bytes()
    (tmp_path / MODEL).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ZooError, match="cannot read") as told:
        load_bfm(tmp_path)
    assert "\n" not in str(told.value)
    with pytest.raises(ZooError, match="counts beyond the 8"):
        read_bfm(written(tmp_path, tri=np.full((8, 3), 99)))
    with pytest.raises(ZooError, match="does not make a face"):
        read_bfm(written(tmp_path, idBase=np.zeros((27, 79))))
    with pytest.raises(ZooError, match="lacks 'keypoints'"):
        read_bfm(written(tmp_path, keypoints=np.array(["text"])))
    with pytest.raises(ZooError, match="albedo holds something that is no number"):
        patch(albedo=np.full((9, 3), np.nan))
