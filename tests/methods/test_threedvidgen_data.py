import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.frame_archives import FrameArchive, write_frame_archive
from portraitzoo.media.frame_sets import find_frame_videos
from portraitzoo.media.images import write_image
from portraitzoo.media.video import write_video
from portraitzoo.methods.threedvidgen.data import (
    FramePairs,
    ThreeDVidGenDataModule,
    crop_and_resize,
    split_of,
    to_network,
)


def frame(shade: int, size: tuple[int, int] = (16, 16)) -> torch.Tensor:
    return torch.full((*size, 3), shade, dtype=torch.uint8)


def write_frames(folder: Path, count: int = 35, first: int = 0, size: tuple[int, int] = (16, 16)) -> Path:
    """Frames that brighten by one grey level each."""
    for index in range(count):
        write_image(folder / f"{index:07d}.png", frame(first + index, size))
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("frames")
    write_frames(root / "class_a" / "video_0")
    write_frames(root / "class_a" / "video_1", count=16, first=100)
    write_frames(root / "class_b" / "video_0", count=33, first=150)
    return root


def packed(root: Path, target: Path) -> Path:
    files = sorted(root.rglob("*.png"))
    return write_frame_archive(target, ((path.relative_to(root).as_posix(), path.read_bytes()) for path in files))


def module(root: Path, **options) -> ThreeDVidGenDataModule:
    return ThreeDVidGenDataModule(str(root), **({"image_resolution": 16, "num_workers": 0} | options))


def shades(item) -> list[int]:
    return ((item.frames.mean(dim=(1, 2, 3)) + 1) * 127.5).round().int().tolist()


def test_windows_follow_each_other_and_the_rest_is_dropped(classes):
    pairs = FramePairs(find_frame_videos(classes), 16)
    assert [(window.video.name, window.start) for window in pairs.windows] == [
        ("class_a/video_0", 0),
        ("class_a/video_0", 16),
        ("class_a/video_1", 0),
        ("class_b/video_0", 0),
        ("class_b/video_0", 16),
    ]


def test_a_pair_shows_its_times(classes):
    pairs = FramePairs(find_frame_videos(classes), 16)
    for position in range(30):
        item = pairs[position, 4]
        early, late = (item.times * 15).round().int().tolist()
        assert 0 <= early <= late <= 15
        assert shades(item) == [166 + early, 166 + late]


def test_times_follow_both_beta_distributions(classes):
    pairs = FramePairs(find_frame_videos(classes), 16)
    times = torch.stack([pairs[position, 0].times for position in range(400)]) * 15
    # Whole parts of 16 draws: means of 16 * 2/3 and 16 * 1/3, each less about a half.
    assert abs(times.sum(dim=1).mean() - 15) < 0.5
    assert len(times.unique()) == 16


def test_draws_follow_from_seed_and_position_alone(classes):
    one, other = (FramePairs(find_frame_videos(classes), 16, mirror=0.5, seed=seed) for seed in (3, 4))
    again = FramePairs(find_frame_videos(classes), 16, mirror=0.5, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one[7, 2], again[7, 2], strict=True))
    assert any(not torch.equal(one[p, 2].times, other[p, 2].times) for p in range(5))


def test_the_archive_gives_what_the_folder_gives(classes, tmp_path):
    folder = FramePairs(find_frame_videos(classes), 8)
    archive = FramePairs(find_frame_videos(packed(classes, tmp_path / "frames.zip")), 8)
    kept = FramePairs(find_frame_videos(classes), 16, in_memory=True)
    assert len(folder) == len(archive) == len(kept)
    assert [w.video.name for w in folder.windows] == [w.video.name for w in archive.windows]
    assert [w.video.group for w in folder.windows] == [w.video.group for w in archive.windows]
    for window in range(len(folder)):
        item = folder[window, window]
        assert all(torch.equal(a, b) for a, b in zip(item, archive[window, window], strict=True))
        assert shades(kept[window, window]) == shades(item)


def test_an_archive_travels_to_other_processes(classes, tmp_path):
    archive = FrameArchive(packed(classes, tmp_path / "frames.zip"))
    again = pickle.loads(pickle.dumps(archive))
    assert again.read("class_a/video_0", 3) == archive.read("class_a/video_0", 3)


def test_flat_folders_and_video_files_are_found(tmp_path):
    write_frames(tmp_path / "flat" / "video_b", 2)
    write_frames(tmp_path / "flat" / "video_a", 3)
    assert [(video.name, video.num_frames) for video in find_frame_videos(tmp_path / "flat")] == [
        ("video_a", 3),
        ("video_b", 2),
    ]
    for name in ("train/one.mp4", "train/two.mp4", "three.mp4"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, torch.stack([frame(shade) for shade in range(0, 170, 10)]))
    videos = find_frame_videos(tmp_path / "files")
    assert {video.name: video.group for video in videos} == {
        "three.mp4": "",
        "train/one.mp4": "train",
        "train/two.mp4": "train",
    }
    early, late = shades(FramePairs(videos, 16)[0, 0])
    assert early <= late + 3


def test_splits_are_told_by_class_names_as_published(classes, tmp_path):
    videos = find_frame_videos(classes)
    for name in ("train_1", "val_1", "val_2"):
        write_frames(tmp_path / name / "video", 2)
    named = find_frame_videos(tmp_path)

    def groups(root: str, training: bool, split: str = "auto") -> list[str]:
        return [video.group for video in split_of(named, split, root, training)]

    assert groups("/data/faceforensics", True) == ["train_1"]
    assert groups("/data/faceforensics", False) == ["val_1", "val_2"]
    assert groups("/data/taichi_faceforensics", True) == ["train_1", "val_1", "val_2"]
    assert groups("/data/other", True) == ["train_1", "val_1", "val_2"]
    assert groups("/data/other", True, "train") == ["train_1"]
    assert split_of(videos, "train", "x", True) == videos
    with pytest.raises(MediaError, match="split all"):
        split_of(named[1:], "train", "x", True)


def test_held_out_classes_are_those_that_training_leaves_out(tmp_path):
    for name in ("train_1", "val_1", "val_2"):
        write_frames(tmp_path / "set" / name / "video", 16)
    data = module(tmp_path / "set", split="train", val_root=str(tmp_path / "set"))
    data.setup("fit")
    assert [window.video.group for window in data.dataset.windows] == ["train_1"]
    assert [window.video.group for window in data.held_out.windows] == ["val_1", "val_2"]


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (16, 16)])
def test_the_middle_square_is_kept(size):
    height, width = size
    picture = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    side = min(size)
    top, left = (height - side) // 2, (width - side) // 2
    picture[:, top : top + side, left : left + side] = 200
    assert (crop_and_resize(picture, 8) == 200).all()
    assert to_network(picture, 8).shape == (1, 3, 8, 8)


def test_network_input_is_in_its_range():
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8))
    image = to_network(frames, 12)
    assert torch.allclose((image + 1) * 127.5, frames.permute(0, 3, 1, 2).float(), atol=1e-3)


def one_frame(root: Path) -> str:
    write_frames(root / "c" / "lonely", 1)
    return r"c/lonely has only one frame"


def too_short(root: Path) -> str:
    write_frames(root / "c" / "brief", 15)
    return r"c/brief has 15 frames, fewer than a window of 16"


def two_sizes(root: Path) -> str:
    folder = write_frames(root / "c" / "mixed", 16)
    write_image(folder / "0000016.png", frame(3, (16, 18)))
    return r"frames of c/mixed differ in size: frame 16 is 18x16, the first 16x16"


def no_image(root: Path) -> str:
    (write_frames(root / "c" / "damaged", 16) / "0000005.png").write_bytes(b"nothing")
    return r"c/damaged/0000005\.png is no image"


@pytest.mark.parametrize("damage", [one_frame, too_short, two_sizes, no_image])
@pytest.mark.parametrize("archived", [False, True])
def test_a_bad_video_is_named_before_training_starts(tmp_path, damage, archived):
    root = tmp_path / "set"
    write_frames(root / "c" / "good", 16)
    message = damage(root)
    if archived:
        root = packed(root, tmp_path / "set.zip")
        message = message.replace(r"c/damaged/0000005\.png", "frame 5 of c/damaged in .*set.zip")
    with pytest.raises(MediaError, match=message) as caught:
        module(root).setup("fit")
    assert "\n" not in str(caught.value)


def test_short_videos_are_left_out_on_demand(classes, tmp_path):
    write_frames(tmp_path / "c" / "good", 16)
    write_frames(tmp_path / "c" / "brief", 5)
    data = module(tmp_path, skip_short=True)
    data.setup("fit")
    assert len(data.dataset) == 1
    with pytest.raises(MediaError, match="all videos"):
        module(tmp_path, skip_short=True, window=17).setup("fit")


def test_other_sets_that_cannot_be_used_are_refused(classes, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="holds no videos"):
        module(tmp_path / "empty").setup("fit")
    with pytest.raises(MediaError, match="no folder or archive"):
        module(tmp_path / "gone").setup("fit")
    with pytest.raises(ZooError, match="batch"):
        module(classes, batch_size=0).setup("fit")
    with pytest.raises(MediaError, match="no pairs"):
        module(classes, window=1).setup("fit")
    (tmp_path / "cut.zip").write_bytes(packed(classes, tmp_path / "whole.zip").read_bytes()[:-200])
    with pytest.raises(MediaError, match="cut off"):
        module(tmp_path / "cut.zip").setup("fit")
    with zipfile.ZipFile(tmp_path / "squeezed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(classes / "class_a" / "video_0" / "0000000.png", "c/v/0.png")
    with pytest.raises(MediaError, match="compressed"):
        module(tmp_path / "squeezed.zip").setup("fit")
    with pytest.raises(MediaError, match=r"\.zip"):
        write_frame_archive(tmp_path / "x.tar", [])


def test_a_flipped_byte_in_an_archive_is_noticed(classes, tmp_path):
    path = packed(classes, tmp_path / "frames.zip")
    content = bytearray(path.read_bytes())
    content[80] ^= 1
    path.write_bytes(content)
    with pytest.raises(MediaError, match="damaged"):
        module(path).setup("fit")
