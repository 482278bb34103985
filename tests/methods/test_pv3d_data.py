import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.video import write_video
from portraitzoo.methods.pv3d.data import (
    ClipPairs,
    PV3DDataModule,
    find_clips,
    to_network,
    window_bound,
)
from portraitzoo.rendering.camera_files import load_cameras, save_cameras
from portraitzoo.rendering.cameras import Camera


def frames_of(count: int, size: int, shade: int) -> torch.Tensor:
    """Frames whose left half is darker, brightening with time."""
    frames = torch.full((count, size, size, 3), shade, dtype=torch.uint8)
    frames += (4 * torch.arange(count, dtype=torch.uint8)).view(-1, 1, 1, 1)
    frames[:, :, : size // 2] //= 2
    return frames


def write_clip(video, cameras, count=20, size=32, shade=60, names=None):
    video.parent.mkdir(parents=True, exist_ok=True)
    cameras.parent.mkdir(parents=True, exist_ok=True)
    write_video(video, frames_of(count, size, shade), quality=9)
    save_cameras(cameras, Camera.look_at(torch.linspace(0.1, 0.5, count), 0.1), names)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    for index in range(3):
        write_clip(root / f"clip{index}.mp4", root / f"clip{index}.json", shade=40 + 30 * index)
    return root


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    root = tmp_path_factory.mktemp("official")
    for name in ("a", "b"):
        names = [f"{frame:06d}" for frame in range(20)]
        write_clip(root / "recrop_faces" / f"{name}.mp4", root / "smoothed_camera2world" / f"{name}.json", names=names)
    (root / "voxceleb.list").write_text("b.mp4\na.mp4\n")
    return root


def test_plain_folder_is_found(plain):
    assert [clip.video.name for clip in find_clips(plain)] == ["clip0.mp4", "clip1.mp4", "clip2.mp4"]


def test_official_layout_is_found_in_the_order_of_its_list(official):
    clips = find_clips(official)
    assert [clip.video.name for clip in clips] == ["b.mp4", "a.mp4"]
    assert ClipPairs(clips, 16)[(0, 1)].frames.shape == (2, 3, 16, 16)


def test_a_pair_is_ordered_in_range_and_has_its_own_cameras(plain):
    pairs = ClipPairs(find_clips(plain), 32, mirror=0.0)
    track = load_cameras(plain / "clip1.json").label()
    for position in range(20):
        item = pairs[(position, 1)]
        first, second = (item.times * 15).round().int().tolist()
        assert 0 <= first <= second <= 15
        assert -1 <= item.frames.min() <= item.frames.max() <= 1
        starts = [s for s in range(3) if torch.equal(track[[s + first, s + second]], item.cameras)]
        assert len(starts) == 1, "the cameras are those of the frames shown"
        brightness = item.frames.mean(dim=(1, 2, 3))
        assert brightness[1] >= brightness[0] - 0.02, "later frames of these clips are brighter"


def test_a_mirrored_pair_is_flipped_with_its_cameras(plain):
    clips = find_clips(plain)
    straight = ClipPairs(clips, 32, mirror=0.0)[(5, 0)]
    mirrored = ClipPairs(clips, 32, mirror=1.0)[(5, 0)]
    assert torch.allclose(mirrored.frames, straight.frames.flip(-1))
    assert torch.allclose(mirrored.cameras, Camera.from_label(straight.cameras).mirrored().label())
    assert torch.equal(mirrored.generated_cameras, straight.generated_cameras), "generated cameras are never mirrored"


def test_draws_follow_from_seed_and_position_alone(plain):
    clips = find_clips(plain)
    first, again = (ClipPairs(clips, 16, seed=3)[(7, 2)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = ClipPairs(clips, 16, seed=4)[(7, 2)]
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("size", [32, 16])
def test_clips_in_memory_are_those_on_disk(plain, size):
    clips = find_clips(plain)
    lazy, eager = ClipPairs(clips, size), ClipPairs(clips, size, in_memory=True)
    for position in range(6):
        on_disk, in_memory = lazy[(position, position % 3)], eager[(position, position % 3)]
        assert torch.allclose(on_disk.frames, in_memory.frames, atol=1 / 255 + 1e-6)
        assert torch.equal(on_disk.cameras, in_memory.cameras)


@given(st.integers(1, 300), st.integers(1, 32))
def test_windows_lie_within_the_clip(total, window):
    last_start = window_bound(total, window) - 1
    assert last_start >= 0
    assert last_start + window <= max(total, window)


def test_a_clip_shorter_than_the_window_repeats_its_last_frame(tmp_path):
    write_clip(tmp_path / "short.mp4", tmp_path / "short.json", count=4)
    pairs = ClipPairs(find_clips(tmp_path), 16, mirror=0.0)
    assert torch.isfinite(torch.stack([pairs[(p, 0)].frames for p in range(10)])).all()


def module(root, **options):
    return PV3DDataModule(str(root), image_resolution=16, num_workers=0, **options)


def truncated(root):
    video = root / "clip1.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    return "clip1.mp4"


def empty(root):
    (root / "clip1.mp4").write_bytes(b"")
    return "clip1.mp4"


def short_cameras(root):
    save_cameras(root / "clip1.json", Camera.look_at(torch.zeros(5), 0.0))
    return "clip1.json"


def twenty_four_numbers(root):
    (root / "clip1.json").write_text(json.dumps([[0.0] * 24] * 20))
    return "clip1.json"


def no_cameras(root):
    (root / "clip1.json").unlink()
    return "clip1.json"


def not_json(root):
    (root / "clip1.json").write_text("{")
    return "clip1.json"


@pytest.mark.parametrize("damage", [truncated, empty, short_cameras, twenty_four_numbers, no_cameras, not_json])
def test_a_bad_clip_is_named_before_training_starts(tmp_path, damage):
    for index in range(2):
        write_clip(tmp_path / f"clip{index}.mp4", tmp_path / f"clip{index}.json")
    name = damage(tmp_path)
    with pytest.raises(MediaError) as caught:
        module(tmp_path).setup("fit")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_listed_clip_that_is_missing_is_named(official, tmp_path):
    (tmp_path / "voxceleb.list").write_text("gone.mp4\n")
    with pytest.raises(MediaError, match=r"gone\.mp4"):
        find_clips(tmp_path)


def test_an_empty_folder_and_an_impossible_batch_are_refused(plain, tmp_path):
    with pytest.raises(MediaError):
        module(tmp_path).setup("fit")
    with pytest.raises(ZooError, match="batch"):
        module(plain, batch_size=0).setup("fit")


def test_frames_reach_the_network_in_its_range():
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8))
    image = to_network(frames, 12)
    assert torch.allclose((image + 1) * 127.5, frames.permute(0, 3, 1, 2).float(), atol=1e-3)
    assert torch.equal(to_network(frames, 12, mirrored=True), image.flip(-1))
    assert to_network(frames, 7).shape == (2, 3, 7, 7)
