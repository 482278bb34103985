"""Portrait4D on prepared folders and streams: bad frames, tracking ahead, side by side, every pair, surfaces."""

import gc
import itertools
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from portrait4d_faces import prepared, small_model

from portraitzoo.errors import ZooError
from portraitzoo.media.images import read_image, write_image
from portraitzoo.methods.portrait4d.benchmark import driving_frames, portrait
from portraitzoo.methods.portrait4d.folders import PreparedFolder, read_frames, read_portrait
from portraitzoo.methods.portrait4d.model import Portrait4D
from portraitzoo.methods.portrait4d.prepared import Frames, Portrait

BROKEN = ZooError("the face was lost")


@pytest.fixture(scope="module")
def model() -> Portrait4D:
    return small_model()


@pytest.fixture(scope="module")
def photo(model: Portrait4D) -> Portrait:
    return portrait(model)


@pytest.fixture(scope="module")
def driving(model: Portrait4D) -> Frames:
    return driving_frames(model, 3)


@pytest.fixture
def clip(model: Portrait4D, tmp_path: Path) -> Path:
    """A prepared folder of four frames."""
    return prepared(tmp_path / "clip", model, [f"{number:05d}" for number in range(4)])


def one_by_one(frames: Frames) -> list[Frames]:
    return [frames[row : row + 1] for row in range(len(frames))]


@pytest.mark.parametrize("background", ["keep", "white"])
def test_steps_give_the_frames_of_the_clip(model, photo, driving, background):
    expected = model.animate(photo, driving, background=background).frames
    with model.session(photo, background=background) as session:
        assert torch.stack([session.step(frame) for frame in one_by_one(driving)]).equal(expected)
        assert torch.stack(list(session.steps(one_by_one(driving)))).equal(expected)


def test_a_step_sees_from_where_it_is_told(model, photo, driving):
    straight = replace(driving, head=driving.head.without_neck())
    expected = model.animate(photo, driving, neck=False).frames
    with model.session(photo) as session:
        steps = [session.step(straight[row : row + 1], driving.camera[row]) for row in range(3)]
    assert torch.stack(steps).equal(expected)


def test_bad_frames_of_a_stream(model, photo, driving):
    first, second, third = one_by_one(driving)
    short = replace(second, motion=second.motion[:, :7])
    not_a_number = Frames.attempt(second.labels() * float("nan"), second.motion)
    stream = [BROKEN, first, not_a_number, short, third]
    good = model.animate(photo, driving).frames
    with model.session(photo, on_bad_frame="skip") as session:
        assert session.step(BROKEN) is None
        assert torch.stack(list(session.steps(stream))).equal(good[[0, 2]])
    with model.session(photo, on_bad_frame="repeat") as session:
        assert session.step(BROKEN) is None, "there is nothing to repeat yet"
        assert torch.stack(list(session.steps(stream))).equal(good[[0, 0, 0, 2]])
    with model.session(photo) as session:
        with pytest.raises(ZooError, match="the face was lost"):
            session.step(BROKEN)
        with pytest.raises(ZooError, match="have 7 numbers, the network wants 20"):
            list(session.steps([first, short]))
        with pytest.raises(ZooError, match="NaN or infinite"):
            session.step(not_a_number)
        with pytest.raises(ZooError, match="1 driving frame, not 3"):
            session.step(driving)
    with pytest.raises(ZooError, match="unknown treatment of bad frames 'drop': choose stop, skip, repeat"):
        model.animate(photo, driving, on_bad_frame="drop")


def test_tracking_runs_ahead_but_not_far(model, photo, driving):
    """The frames of an endless camera are made in another thread, a few at a time, and none is kept."""
    made, alive = [], weakref.WeakSet()

    def track():
        for number in itertools.count():
            made.append(threading.current_thread())
            frame = Frames(driving.camera[:1], driving.head[:1], driving.motion[:1] + number)
            alive.add(frame)
            yield frame

    with model.session(photo) as session:
        for count, _ in enumerate(session.steps(track()), 1):
            assert len(made) <= count + 3
            gc.collect()
            assert len(alive) <= 4
            if count == 6:
                break
        assert made[0] is not threading.main_thread()
    assert not made[0].is_alive(), "leaving the session ends tracking"


def test_leaving_a_session_ends_a_stream_that_nobody_finished(model, photo, driving):
    ended = threading.Event()

    def track():
        try:
            yield from itertools.repeat(driving[:1])
        finally:
            ended.set()

    source = track()
    with model.session(photo) as session:
        next(session.steps(source))
    source.close()
    assert ended.is_set()


def test_an_error_of_the_tracker_reaches_the_user(model, photo, driving):
    def track():
        yield driving[:1]
        raise ZooError("the camera was unplugged")

    with model.session(photo) as session, pytest.raises(ZooError, match="unplugged"):
        list(session.steps(track()))


def remove(part: str, name: str):
    def spoil(folder: Path) -> None:
        (folder / part / f"{name}.npy").unlink()

    return spoil


def remove_all(name: str):
    def spoil(folder: Path) -> None:
        for path in folder.glob(f"*/{name}.*"):
            path.unlink()

    return spoil


def nan_label(folder: Path) -> None:
    label = np.load(folder / "flame_optim_params" / "00002.npy")
    label[400] = np.nan
    np.save(folder / "flame_optim_params" / "00002.npy", label)


def cut_array(folder: Path) -> None:
    path = folder / "motion_feats" / "00002.npy"
    path.write_bytes(path.read_bytes()[:140])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (remove("flame_optim_params", "00002"), r"no head parameters of 00002 \(flame_optim_params/00002.npy\)"),
        (remove("motion_feats", "00002"), r"no motion embedding of 00002 \(motion_feats/00002.npy\)"),
        (remove_all("00002"), "no head parameters of 00002"),
        (nan_label, "flame_optim_params/00002.npy holds NaN or infinite numbers"),
        (cut_array, "motion_feats/00002.npy: it is no array of numbers"),
    ],
    ids=["no label", "no motion", "gap in the numbers", "NaN", "cut short"],
)
def test_bad_frames_of_a_folder(model, clip, photo, spoil, told):
    whole = read_frames(clip)
    spoil(clip)
    with pytest.raises(ZooError, match=told) as caught:
        model.animate(photo, clip)
    assert "skip or repeat" in str(caught.value) and "\n" not in str(caught.value)
    for choice, expected in (("skip", [0, 1, 3]), ("repeat", [0, 1, 1, 3])):
        found = read_frames(clip, on_bad_frame=choice)
        assert found.labels().equal(whole.labels()[expected]) and found.motion.equal(whole.motion[expected])


def test_a_folder_as_a_stream(model, clip, photo):
    whole = model.animate(photo, clip).frames
    cut_array(clip)
    assert model.animate(photo, clip, on_bad_frame="repeat").frames.equal(whole[[0, 1, 1, 3]])
    with model.session(photo, on_bad_frame="repeat") as session:
        assert torch.stack(list(session.steps(PreparedFolder(clip).attempts()))).equal(whole[[0, 1, 1, 3]])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["00003", "00250", "69000"], ["00003", "00250", "69000"]),
        (["008", "009", "011"], ["008", "009", "010", "011"]),
        (["8", "9", "11"], ["8", "9", "10", "11"]),
        (["f2", "f10", "f9"], ["f2", "f9", "f10"]),
        (["01", "2", "3"], ["01", "2", "3"]),
    ],
    ids=["of a collection", "padded", "plain", "within names", "mixed"],
)
def test_frames_are_in_the_order_of_their_numbers(tmp_path, names, expected):
    (tmp_path / "flame_optim_params").mkdir()
    for name in names:
        (tmp_path / "flame_optim_params" / f"{name}.npy").touch()
    assert PreparedFolder(tmp_path).names == expected


def test_a_folder_without_one_good_frame(model, clip):
    for path in (clip / "motion_feats").iterdir():
        path.unlink()
    with pytest.raises(ZooError, match=r"has no good frame; of the last one: .* no motion embedding of 00003"):
        read_frames(clip, on_bad_frame="skip")


def test_a_source_without_face_parameters(model, clip, tmp_path):
    picture = clip / "align_images" / "00001.png"
    assert read_portrait(picture).tracked.motion.equal(read_frames(clip).motion[1:2])
    driving = read_frames(clip)
    (clip / "flame_optim_params" / "00001.npy").unlink()
    with pytest.raises(ZooError, match="no head parameters of 00001"):
        model.animate(picture, driving)
    write_image(tmp_path / "holiday.png", read_image(picture))
    with pytest.raises(ZooError, match=r"no head parameters of .*holiday.png: prepare it first"):
        read_portrait(tmp_path / "holiday.png")
    with pytest.raises(ZooError, match=r"holiday.png is aligned to 512 pixels, and this network takes 64"):
        model.animate(tmp_path / "holiday.png", driving)
    with pytest.raises(ZooError, match=r"nowhere does not exist"):
        model.animate(tmp_path / "nowhere", driving)


def test_a_file_is_no_prepared_folder(clip):
    (clip / "me.mp4").write_bytes(b"")
    with pytest.raises(ZooError, match=r"me.mp4 is a file: give the folder that it was prepared into"):
        PreparedFolder(clip / "me.mp4")


def test_driving_pictures_of_another_size(model, clip, photo):
    write_image(clip / "align_images" / "00000.png", torch.zeros(36, 64, 3, dtype=torch.uint8))
    with pytest.raises(ZooError, match=r"00000.png has 64 x 36 pixels, the network wants 64 x 64: align it first"):
        model.animate(photo, clip)


def test_a_photo_with_an_alpha_channel_is_the_photo_without(model, clip):
    expected = model.animate(clip, clip).frames
    path = clip / "align_images" / "00000.png"
    pixels = cv2.imread(str(path))
    cv2.imwrite(str(path), np.dstack([pixels, np.full(pixels.shape[:2], 9, np.uint8)]))
    assert model.animate(clip, clip).frames.equal(expected)


def test_photo_result_and_driving_picture_side_by_side(model, clip, photo, driving):
    alone = model.animate(photo, clip).frames
    beside = model.animate(photo, clip, grid=True, memory_gb=1e-9).frames
    assert beside.shape == (4, 64, 192, 3)
    assert beside[:, :, 64:128].equal(alone)
    assert beside[2, :, :64].equal(photo.image)
    assert beside[2, :, 128:].equal(read_image(clip / "align_images" / "00002.png"))
    with pytest.raises(ZooError, match="a grid shows the driving pictures: give the video or their folder"):
        model.animate(photo, driving, grid=True)


def test_every_photo_with_every_driving_picture(model, clip, tmp_path):
    photos = prepared(tmp_path / "photos", model, ["anna", "bert"])
    remove("motion_feats", "00001")(clip)
    counts = []
    options = {"on_bad_frame": "skip", "neck": False}
    written = model.animate_all(photos, clip, tmp_path / "out", on_frame=counts.append, **options)
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        f"{photo}/{number:05d}.jpg" for photo in ("anna", "bert") for number in (0, 2, 3)
    ]
    assert counts[-1] == 6
    expected = model.animate(photos / "align_images" / "bert.png", clip, grid=True, **options).frames[1]
    shown = read_image(tmp_path / "out" / "bert" / "00002.jpg")
    assert shown.shape == (64, 192, 3) and (shown.float() - expected.float()).abs().mean() < 12, "JPEG loses little"


def test_surfaces_beside_the_frames(photo, driving, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    dense = small_model()
    with torch.no_grad():
        dense.generator.decoder.output.bias[0] = 25  # the density of the authors' surfaces
    dense.animate(photo, driving[:1], shapes=tmp_path / "shapes")
    (path,) = (tmp_path / "shapes").iterdir()
    written, rough = trimesh.load(path, process=False), dense.mesh(photo, driving[:1], resolution=32)
    assert path.name == "00000.ply" and len(written.faces) > len(rough.faces) > 100
    for edge in (np.min, np.max):
        np.testing.assert_allclose(edge(written.vertices, 0), edge(rough.vertices.numpy(), 0), atol=0.04)
