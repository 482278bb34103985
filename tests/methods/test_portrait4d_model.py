"""Portrait4D as users meet it: animation, streams, meshes, prepared files, bad input."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from portrait4d_faces import SMALL, prepared, small_model

import portraitzoo as pz
from portraitzoo.errors import WeightsUnavailableError, ZooError
from portraitzoo.faces.motion_embedding import MotionEncoder
from portraitzoo.media.images import write_image
from portraitzoo.methods.portrait4d.benchmark import driving_frames, frame, original, portrait, stages
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.folders import read_frames, read_portrait
from portraitzoo.methods.portrait4d.model import Portrait4D
from portraitzoo.methods.portrait4d.prepared import Frames, Portrait
from portraitzoo.rendering.cameras import Camera


@pytest.fixture(scope="module")
def model() -> Portrait4D:
    return small_model()


@pytest.fixture(scope="module")
def photo(model: Portrait4D) -> Portrait:
    return portrait(model)


@pytest.fixture(scope="module")
def driving(model: Portrait4D) -> Frames:
    return driving_frames(model, 3)


def animate(model: Portrait4D, *arguments, **options) -> torch.Tensor:
    return model.animate(*arguments, **options).frames


def test_frames_move_and_turn(model, photo, driving):
    clip = model.animate(photo, driving, maps=("raw", "depth", "opacity"), fps=30)
    assert clip.frames.shape == (3, 64, 64, 3) and clip.fps == 30 and len(clip.cameras) == 3
    assert clip.maps["raw"].shape == (3, 12, 12, 3)
    assert 3 < float(clip.maps["depth"].min()) <= float(clip.maps["depth"].max()) < 5.5
    assert 0.02 < float(clip.maps["opacity"].mean()) < 0.98, "an empty or opaque volume would hide errors"
    assert not clip.frames[0].equal(clip.frames[1])


def test_bytes_do_not_depend_on_the_batch(model, photo, driving):
    together = model.animate(photo, driving, maps=("depth",))
    seen = []
    alone = model.animate(photo, driving, maps=("depth",), memory_gb=1e-9, on_frame=seen.append)
    assert seen == [1, 2, 3]
    assert together.frames.equal(alone.frames) and together.maps["depth"].equal(alone.maps["depth"])
    assert together.frames[1:2].equal(animate(model, photo, driving[1:2]))


def test_a_photo_is_looked_at_once(model, photo, driving, monkeypatch):
    network, calls = model.generator, []
    for part in (
        network.global_encoder,
        network.detail_encoder,
        network.background,
        network.transformer.neutral_blocks[0],
    ):
        monkeypatch.setattr(part, "forward", lambda *x, run=part.forward: calls.append(run.__self__) or run(*x))
    animate(model, photo, driving, memory_gb=1e-9)
    assert len(calls) == len(set(calls)) == 4


def test_only_motion_and_pose_count_of_the_driving_face(model, photo, driving):
    other = replace(driving, head=replace(driving.head, shape=torch.randn(3, 300)))
    assert animate(model, photo, other).equal(animate(model, photo, driving))
    moved = replace(driving, motion=driving.motion + 1)
    assert not animate(model, photo, moved).equal(animate(model, photo, driving))


def test_a_static_network_ignores_motion(photo, driving):
    model = small_model(static=True)
    moved = replace(driving, motion=driving.motion + 1)
    assert animate(model, photo, moved).equal(animate(model, photo, driving))
    assert animate(model, photo, driving).equal(animate(small_model(), photo, driving, motion_scale=0.0))


def test_neck_or_camera_turn_the_head(model, photo, driving):
    """Without a turn both are the same picture; with one the camera that holds the pose shows the turned head."""
    straight = replace(driving, head=driving.head.without_neck())
    assert animate(model, photo, straight).equal(animate(model, photo, straight, neck=False))
    assert not animate(model, photo, driving).equal(animate(model, photo, driving, neck=False))


def test_trajectories(model, photo, driving):
    front = animate(model, photo, driving, trajectory="front")
    straight = replace(driving, head=driving.head.without_neck())
    assert front.equal(animate(model, photo, straight))
    assert not front.equal(animate(model, photo, driving, trajectory="orbit"))
    assert front.equal(animate(model, photo, driving, trajectory=driving.camera[0]))


def test_backgrounds(model, photo, driving):
    keep = model.animate(photo, driving, maps=("opacity",))
    white, black = (animate(model, photo, driving, background=kind).int() for kind in ("white", "none"))
    empty = keep.maps["opacity"] < 1e-3
    places = torch.nn.functional.interpolate(empty[:, None].float(), (64, 64), mode="bilinear")[:, 0] == 1
    assert places.any()
    assert (white[places] >= 254).all() and (black[places] <= 1).all()
    assert (white >= black).all()


def test_mesh(model, photo, driving):
    straight = model.mesh(photo, resolution=16, level=3.0)
    assert len(straight.faces) and float(straight.vertices.abs().max()) <= SMALL.box_warp / 2 + 1e-6
    turned = model.mesh(photo, driving[:1], resolution=16, level=3.0)
    assert turned.vertices.shape != straight.vertices.shape or not turned.vertices.equal(straight.vertices)


def test_saved_and_loaded(model, photo, driving, tmp_path):
    model.save_pretrained(tmp_path)
    again = pz.load(tmp_path, device="cpu")
    assert isinstance(again, Portrait4D) and again.config == model.config
    assert animate(again, photo, driving).equal(animate(model, photo, driving))


def test_stages_of_the_benchmark(model):
    found = {}
    for name, work, frames in stages(model, frames=2, render_resolution=8, batch=1, compiled=False):
        work()
        found[name] = frames
    assert list(found) == [
        *("motion embedding", "source", "planes", "neck field", "rays", "super-resolution"),
        *("frame", "encode", "clip"),
    ]
    assert found["clip"] == 2 and found["frame"] == 1
    assert frame(model, 8).shape == (1, 3, 64, 64)
    assert original(model, "frame", 1, 128) is None


def test_speed_of_the_original_is_known_at_the_published_size():
    published = SimpleNamespace(config=Portrait4DConfig())
    assert original(published, "frame", 1, None) == pytest.approx(19.4 / 0.3242)
    assert original(published, "clip", 16, 128) == pytest.approx(16 * 19.4 / 0.3242)
    assert original(published, "clip", 16, 64) is None


def test_prepared_folders(model, tmp_path):
    folder = prepared(tmp_path / "me", model, ["a", "b"])
    frames = read_frames(folder)
    assert len(frames) == 2
    torch.testing.assert_close(frames.labels(), driving_frames(model, 2).labels())
    assert read_portrait(folder, "b").tracked.motion.equal(frames.motion[1:])
    assert animate(model, folder, folder).equal(animate(model, read_portrait(folder), frames))


def test_simplified_parameters(model, tmp_path):
    folder = prepared(tmp_path / "me", model, ["a", "b"])
    expected = animate(model, folder, folder)
    (folder / "flame_optim_params").rename(folder / "bfm2flame_params_simplified")
    with pytest.raises(ZooError, match="flame_optim_params"):
        model.animate(folder, folder, parameters="fitted")
    assert animate(model, folder, folder, parameters="simplified").equal(expected)
    assert animate(model, folder, folder).equal(expected), "there are no others"


def test_motion_embedded_on_the_way(model, tmp_path, monkeypatch):
    folder = prepared(tmp_path / "me", model, ["a", "b"])
    (folder / "motion_feats" / "b.npy").unlink()
    with pytest.raises(ZooError, match=r"no motion embedding of b \(motion_feats/b.npy\)"):
        read_frames(folder)
    (folder / "3dldmks_align").mkdir()
    points = np.random.default_rng(0).random((70, 3)) * 64
    for name in ("a", "b"):
        np.save(folder / "3dldmks_align" / f"{name}.npy", points)
    (folder / "motion_feats" / "a.npy").unlink()
    encoder = MotionEncoder(width=8, landmarks=4, features=16).eval()
    motion = read_frames(folder, encoder=encoder).motion
    assert motion.shape == (2, 52) and torch.isfinite(motion).all()
    monkeypatch.setattr(
        "portraitzoo.methods.portrait4d.folders.load", lambda name, device: {"pdfgc-motion": encoder}[name]
    )
    assert read_frames(folder).motion.equal(motion)


def test_without_the_weights_that_embed_motion_no_frame_is_called_bad(model, tmp_path, monkeypatch):
    folder = prepared(tmp_path / "me", model, ["a", "b"])
    (folder / "motion_feats").rename(folder / "3dldmks_align")
    np.save(folder / "3dldmks_align" / "a.npy", np.ones((70, 3)))

    def refuse(*arguments):
        raise WeightsUnavailableError("there is no network")

    monkeypatch.setattr("portraitzoo.methods.portrait4d.folders.load", refuse)
    with pytest.raises(WeightsUnavailableError, match="there is no network"):
        model.animate(folder, driving_frames(model, 1))
    with pytest.raises(WeightsUnavailableError, match="there is no network"):
        read_frames(folder, on_bad_frame="skip")


@pytest.mark.parametrize(("dtype", "levels"), [(torch.bfloat16, 2), (torch.float16, 0.5)], ids=str)
def test_other_number_formats(model, photo, driving, dtype, levels):
    low = small_model().to(dtype)
    difference = animate(low, photo, driving[:1]).float() - animate(model, photo, driving[:1]).float()
    assert difference.abs().mean() < levels


def spoil_labels(folder: Path) -> None:
    np.save(folder / "flame_optim_params" / "a.npy", np.zeros(25))


def spoil_array(folder: Path) -> None:
    (folder / "motion_feats" / "a.npy").write_bytes(b"no array")


def spoil_numbers(folder: Path) -> None:
    np.save(folder / "motion_feats" / "a.npy", np.full(SMALL.motion_dim, np.nan))


def spoil_head(folder: Path) -> None:
    label = np.load(folder / "flame_optim_params" / "a.npy")
    label[30] = np.inf
    np.save(folder / "flame_optim_params" / "a.npy", label)


def spoil_length(folder: Path) -> None:
    np.save(folder / "motion_feats" / "a.npy", np.zeros(7))


def spoil_all_lengths(folder: Path) -> None:
    for name in ("a", "b"):
        np.save(folder / "motion_feats" / f"{name}.npy", np.zeros(7))


def spoil_picture(folder: Path) -> None:
    (folder / "align_images" / "a.png").unlink()


def spoil_size(folder: Path) -> None:
    write_image(folder / "align_images" / "a.png", torch.zeros(32, 48, 3, dtype=torch.uint8))


def spoil_parameters(folder: Path) -> None:
    for path in (folder / "flame_optim_params").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_labels, r"a.npy holds float64 \[25\], not \[437\] numbers"),
        (spoil_array, "a.npy: it is no array of numbers"),
        (spoil_numbers, "motion_feats/a.npy holds NaN"),
        (spoil_head, "flame_optim_params/a.npy holds NaN or infinite"),
        (spoil_length, "different lengths"),
        (spoil_all_lengths, "have 7 numbers, the network wants 20"),
        (spoil_picture, "no picture align_images/a"),
        (spoil_size, "48 x 32 pixels, the network wants 64"),
        (spoil_parameters, r"no head parameters \(flame_optim_params/\*.npy or bfm2flame_params_simplified/\*.npy\)"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_folders(model, tmp_path, spoil, told):
    folder = prepared(tmp_path / "me", model, ["a", "b"])
    spoil(folder)
    with pytest.raises(ZooError, match=told) as caught:
        model.animate(folder, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"trajectory": "spiral"}, "unknown trajectory 'spiral': choose one of driving, front, orbit"),
        ({"trajectory": Camera.canonical().expand(2)}, r"3 frames need 3 cameras \(or one\), not \[2\]"),
        ({"background": "green"}, "unknown background 'green'"),
        ({"maps": ["normal"]}, "unknown map 'normal'"),
    ],
    ids=str,
)
def test_bad_options(model, photo, driving, options, told):
    with pytest.raises(ZooError, match=told):
        model.animate(photo, driving, **options)


def test_frames_of_different_numbers(driving):
    with pytest.raises(ZooError, match="there are 3 heads for 2 motion embeddings"):
        Frames(driving.camera[:2], driving.head, driving.motion[:2])
    with pytest.raises(ZooError, match="one photo, not 3"):
        Portrait(torch.zeros(64, 64, 3, dtype=torch.uint8), driving)
