"""The data-set writer around a stand-in for the studio (fast), and the studio itself (slow: it needs Anny's model)."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from portraitzoo.errors import ZooError
from portraitzoo.media.frame_sets import find_frame_videos
from portraitzoo.media.portrait_lmdb import ClipLMDB, ClipRecord
from portraitzoo.media.video import VideoReader
from portraitzoo.preprocess import synthetic
from portraitzoo.preprocess.studio.materials import Label
from portraitzoo.preprocess.studio.stage import HeadClip
from portraitzoo.preprocess.synthetic import Session, capture, synthesise
from portraitzoo.rendering.camera_files import load_cameras
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rasterisation import project
from portraitzoo.rendering.rays import cast_rays

torch.set_num_threads(1)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces the studio by flat pictures; returns the list of clips that were made."""
    made: list[int] = []

    def shoot(session: Session, index: int) -> HeadClip:
        made.append(index)
        grey = (40 * session.seed + 7 * index) % 200
        frames, side = session.frames, session.resolution
        return HeadClip(
            image=torch.full((frames, side, side, 3), grey, dtype=torch.uint8),
            camera=Camera.look_at(torch.linspace(-0.1, 0.1, frames) + 0.01 * index, 0.0),
            actions=torch.zeros(frames, 1),
            landmarks_3d=torch.zeros(frames, 1, 3),
            landmarks_2d=torch.zeros(frames, 1, 2),
            landmark_names=("nose_tip",),
            parameters={},
        )

    monkeypatch.setattr(synthetic, "capture", shoot)
    return made


def test_official_layout(tmp_path: Path, stand_in: list[int]) -> None:
    synthesise(tmp_path / "set", clips=3, seed=2, resolution=32, frames=5)
    names = (tmp_path / "set/voxceleb.list").read_text().split()
    assert len(names) == 3
    for index, name in enumerate(names):
        with VideoReader(tmp_path / "set/recrop_faces" / name) as video:
            assert (video.num_frames, video.fps, video.height) == (5, 25.0, 32)
        file = tmp_path / "set/smoothed_camera2world" / (name.removesuffix(".mp4") + ".json")
        entries = json.loads(file.read_text())
        assert [len(entry) for entry in entries] == [2] * 5
        assert all(isinstance(entry[0], str) and len(entry[1]) == 25 for entry in entries)
        expected = Camera.look_at(torch.linspace(-0.1, 0.1, 5) + 0.01 * index, 0.0)
        torch.testing.assert_close(load_cameras(file, 5).label(), expected.label())


def test_plain_layout(tmp_path: Path, stand_in: list[int]) -> None:
    synthesise(tmp_path, clips=2, resolution=32, frames=3, layout="plain")
    videos = sorted(tmp_path.glob("*.mp4"))
    assert len(videos) == 2
    assert all(video.with_suffix(".json").exists() for video in videos)


def test_frames_for_threedvidgen(tmp_path: Path, stand_in: list[int]) -> None:
    root = synthesise(tmp_path / "set", family="threedvidgen", clips=2, seed=2, resolution=32, frames=17)
    videos = find_frame_videos(root)
    assert [(video.group, video.num_frames) for video in videos] == [("heads", 17), ("heads", 17)]
    assert {round(float(video.read(3).float().mean())) for video in videos} == {80, 87}, "without loss"
    made = len(stand_in)
    synthesise(tmp_path / "set", family="threedvidgen", clips=3, seed=2, resolution=32, frames=17)
    assert len(stand_in) == made + 1
    with pytest.raises(ZooError, match="unknown layout 'plain' of threedvidgen data: choose one of official"):
        synthesise(tmp_path / "other", family="threedvidgen", layout="plain")


@pytest.mark.parametrize(("family", "name"), [("genhead", "heads_32_{}"), ("portrait4d", "heads_sub3_32_{}")])
def test_lmdbs_of_portraits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, name: str) -> None:
    pytest.importorskip("lmdb")
    made: list[int] = []

    def shoot(session: Session, index: int) -> ClipRecord:
        made.append(index)
        level = 10 * index + torch.arange(session.frames)
        images = level.to(torch.uint8)[:, None, None, None].expand(-1, 32, 32, 3)
        labels = level[:, None].float()
        return ClipRecord(images, images, labels.expand(-1, 437), labels.expand(-1, 109))

    key = (family, "official")
    monkeypatch.setitem(synthetic.FORMATS, key, replace(synthetic.FORMATS[key], shoot=shoot))
    per_record = 1 if family == "genhead" else 3
    for clips in (2, 3, 1):
        path = synthesise(tmp_path / "set", family, clips=clips, resolution=32, frames=3)
        count = clips * 3 // per_record
        assert path == tmp_path / "set" / name.format(count)
        stored = ClipLMDB(path)
        labels = torch.cat([stored.labels(index) for index in range(len(stored))])
        assert labels[:, 0].tolist() == [10 * clip + frame for clip in range(clips) for frame in range(3)]
        motions = np.load(tmp_path / "set/heads_all_motion_params.npy")
        assert motions.shape == ((3 * clips, 112) if family == "genhead" else (clips, 3, 112))
    assert made == [0, 1, 2], "finished clips are kept"


def test_finished_clips_are_kept_and_sets_grow(tmp_path: Path, stand_in: list[int]) -> None:
    synthesise(tmp_path, clips=2, resolution=32, frames=3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    seen: list[tuple[int, int]] = []
    synthesise(tmp_path, clips=4, resolution=32, frames=3, progress=lambda done, total: seen.append((done, total)))
    assert stand_in == [0, 1, 2, 3]
    assert seen == [(2, 4), (3, 4), (4, 4)]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len((tmp_path / "voxceleb.list").read_text().split()) == 4


def test_another_session_does_not_mix_in(tmp_path: Path, stand_in: list[int]) -> None:
    synthesise(tmp_path, clips=1, seed=0, resolution=32, frames=3)
    with pytest.raises(ZooError, match="another session"):
        synthesise(tmp_path, clips=1, seed=1, resolution=32, frames=3)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_clip_leaves_nothing(
    failure: BaseException, tmp_path: Path, stand_in: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(path: Path, *rest: object, **more: object) -> None:
        if "00001" in path.name:
            raise failure
        write(path, *rest, **more)

    write = synthetic.write_video
    monkeypatch.setattr(synthetic, "write_video", break_off)
    with pytest.raises((KeyboardInterrupt, OSError)):
        synthesise(tmp_path, clips=3, resolution=32, frames=3)
    assert [path.name for path in tmp_path.rglob("*.mp4")] == ["head0000_00000.mp4"]
    assert not list(tmp_path.rglob(".*"))
    assert not (tmp_path / "voxceleb.list").exists()
    monkeypatch.undo()


@pytest.mark.parametrize(
    "wrong",
    [
        {"clips": 0},
        {"frames": 0},
        {"workers": 0},
        {"seed": -1},
        {"people": 0},
        {"liveliness": 0},
        {"liveliness": float("nan")},
        {"resolution": 33},
        {"family": "nobody"},
        {"layout": "zip"},
        {"background": "sea"},
    ],
)
def test_impossible_settings_are_one_line(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(ZooError) as caught:
        synthesise(tmp_path / "set", **wrong)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


@pytest.mark.slow
def test_clips_are_reproducible_and_differ() -> None:
    first, again = (capture(Session(5, 48, 3), 3) for _ in range(2))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.camera.label(), again.camera.label())
    other = capture(Session(5, 48, 3), 4)
    assert not torch.equal(first.image, other.image)
    assert first.parameters != other.parameters


@pytest.mark.slow
def test_the_same_person_comes_back() -> None:
    session = Session(5, 32, 2, people=2)
    first, second, again = (capture(session, index) for index in range(3))
    assert first.parameters == again.parameters != second.parameters
    assert not torch.equal(first.actions, again.actions)


@pytest.mark.slow
def test_workers_change_nothing(tmp_path: Path) -> None:
    alone = synthesise(tmp_path / "one", clips=2, resolution=64, frames=2)
    pair = synthesise(tmp_path / "two", clips=2, resolution=64, frames=2, workers=2)
    files = sorted(path.relative_to(alone) for path in alone.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(pair) for path in pair.rglob("*") if path.is_file())
    for file in files:
        assert (alone / file).read_bytes() == (pair / file).read_bytes()


@pytest.mark.slow
def test_maps_and_landmarks_agree_with_the_camera() -> None:
    clip = capture(Session(1, 64, 2, background="plain"), 0, maps=True)
    assert clip.depth is not None and clip.normals is not None and clip.segmentation is not None
    assert clip.image.shape == (2, 64, 64, 3)
    wall = clip.segmentation == Label.BACKGROUND
    assert (clip.depth[wall] == 0).all()
    lengths = clip.normals.norm(dim=-1)
    torch.testing.assert_close(lengths[~wall], torch.ones(int((~wall).sum())), atol=1e-3, rtol=0)
    shares = {label: float((clip.segmentation == label).float().mean()) for label in Label}
    assert shares[Label.SKIN] > 0.15
    assert shares[Label.EYES] > 0.001 and shares[Label.LIPS] > 0.002 and shares[Label.BROWS] > 0.001
    # What is seen lies inside the box that a tri-plane of width 1 can hold.
    rays = cast_rays(clip.camera, 64)
    cosine = (rays.directions * clip.camera.cam2world[:, None, :3, 2]).sum(-1, keepdim=True)
    points = rays.at(clip.depth.view(2, -1, 1) / cosine)[:, :, 0][~wall.view(2, -1)]
    assert points.abs().max() < 0.5
    image, depth = project(clip.landmarks_3d, clip.camera)
    torch.testing.assert_close(image, clip.landmarks_2d)
    nose = clip.landmark_names.index("nose_tip")
    column, row = (clip.landmarks_2d[0, nose] * 64).long().tolist()
    assert float(clip.depth[0, row, column]) == pytest.approx(float(depth[0, nose]), abs=0.02)


@pytest.mark.slow
def test_heads_talk_blink_and_turn() -> None:
    clip = capture(Session(0, 32, 75), 1)
    moved = np.ptp(clip.actions.numpy(), axis=0)
    assert (moved > 0.1).sum() >= 5
    label = clip.camera.label()
    torch.testing.assert_close(label[:, [3, 7, 11]].norm(dim=-1), torch.full((75,), 2.7), atol=1e-4, rtol=0)
    assert label[:, 3].std() > 1e-3
    assert float(label[0, 16]) == pytest.approx(4.2647)
