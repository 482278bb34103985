"""Prepared faces to LMDB folders: ``zoo preprocess ffhq`` and ``zoo preprocess vfhq``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from portraitzoo.cli.main import main
from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.images import write_image
from portraitzoo.media.portrait_lmdb import ClipLMDB, ClipRecord, PortraitLMDB
from portraitzoo.preprocess.portrait_sets import pack_ffhq, pack_vfhq
from portraitzoo.preprocess.prepared_folders import write_prepared

pytest.importorskip("lmdb")
pytest.importorskip("google.protobuf")

SIDE = 16


def frames(first: int, count: int, side: int = SIDE) -> ClipRecord:
    """Flat pictures of grey level and labels that tell their number."""
    level = torch.arange(first, first + count)
    images = level.to(torch.uint8)[:, None, None, None].expand(count, side, side, 3)
    labels, motions = (level[:, None].float().expand(count, size) for size in (437, 548))
    return ClipRecord(images, torch.full_like(images, 255), labels, motions)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos of each half of FFHQ."""
    for folder, first in (("00000", 0), ("70000", 70000)):
        names = [f"{first + index:05d}" for index in range(3)]
        write_prepared(tmp_path / "data" / folder, frames(first // 1000, 3), names)
    return tmp_path / "data"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for index in range(3):
        names = [f"frame{place}" for place in range(12)]
        write_prepared(tmp_path / "data" / f"clip{index}", frames(20 * index, 12), names)
    return tmp_path / "data"


def told(stored: PortraitLMDB) -> list[int]:
    return [int(stored.label(index)[0]) for index in range(len(stored))]


def test_photos_become_genheads_set(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    packed = pack_ffhq(photos, tmp_path / "out", SIDE, progress=lambda done, total: seen.append((done, total)))
    assert (packed.path, packed.count, packed.left_out) == (tmp_path / f"out/FFHQ_{SIDE}_6", 6, 0)
    assert seen == [(done, 6) for done in range(1, 7)]
    stored = PortraitLMDB(packed.path)
    assert told(stored) == [0, 1, 2, 70, 71, 72]
    photo = stored[4]
    assert photo.image.unique().tolist() == [71] and photo.segmentation.unique().tolist() == [255]
    assert photo.motion is not None and photo.motion.shape == (548,)
    shapes = np.load(tmp_path / "out/ffhq_all_shape_n_c_params.npy")
    motions = np.load(tmp_path / "out/ffhq_all_motion_params.npy")
    assert (shapes.shape, motions.shape, shapes.dtype) == ((6, 325), (6, 112), np.float32)
    assert shapes[:, 0].tolist() == motions[:, 0].tolist() == [0, 1, 2, 70, 71, 72]


def test_flips_limit_and_one_folder(photos: Path, tmp_path: Path) -> None:
    assert told(PortraitLMDB(pack_ffhq(photos, tmp_path / "a", SIDE, flips=False).path)) == [0, 1, 2]
    assert told(PortraitLMDB(pack_ffhq(photos, tmp_path / "b", SIDE, limit=4).path)) == [0, 1, 2, 70]
    assert told(PortraitLMDB(pack_ffhq(photos / "70000", tmp_path / "c", SIDE, name="MIRRORED").path)) == [70, 71, 72]
    assert (tmp_path / "c/mirrored_all_motion_params.npy").is_file()


@pytest.mark.parametrize("content", [{"00000.png": 2, "1": 1, "2": 0}, [2, 1, 0]])
def test_rebalancing_repeats_photos_and_their_mirrored_ones(photos: Path, tmp_path: Path, content: object) -> None:
    table = tmp_path / "rebalance.json"
    table.write_text(json.dumps(content))
    packed = pack_ffhq(photos, tmp_path / "out", SIDE, rebalance=table)
    assert told(PortraitLMDB(packed.path)) == [0, 0, 1, 70, 70, 71]
    assert packed.path.name == f"FFHQ_{SIDE}_6"


def test_photos_without_motion_are_left_out_unless_wanted(photos: Path, tmp_path: Path) -> None:
    (photos / "00000/motion_feats/00001.npy").unlink()
    packed = pack_ffhq(photos, tmp_path / "a", SIDE)
    assert (packed.path.name, packed.left_out) == (f"FFHQ_{SIDE}_5", 1)
    assert told(PortraitLMDB(packed.path)) == [0, 2, 70, 71, 72]
    every = PortraitLMDB(pack_ffhq(photos, tmp_path / "b", SIDE, motions=False).path)
    assert told(every) == [0, 1, 2, 70, 71, 72] and every[1].motion is None
    for path in photos.glob("*/motion_feats/*"):
        path.unlink()
    with pytest.raises(MediaError, match="6 photos lack a motion embedding"):
        pack_ffhq(photos, tmp_path / "c", SIDE)


def test_files_of_the_right_size_are_kept_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "data/00000"
    write_prepared(folder, frames(0, 1, 64), ["00000"])
    (folder / "align_images/00000.png").unlink()
    picture = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8)
    write_image(folder / "align_images/00000.jpg", picture)
    stored = PortraitLMDB(pack_ffhq(tmp_path / "data", tmp_path / "out", 64).path)
    content = (folder / "align_images/00000.jpg").read_bytes()
    assert content in (stored.path / "data.mdb").read_bytes()
    small = PortraitLMDB(pack_ffhq(tmp_path / "data", tmp_path / "out", 32).path)
    mean = picture.view(32, 2, 32, 2, 3).float().mean((1, 3))
    assert (small[0].image.float() - mean).abs().mean() < 25, "JPEG of noise, averaged over squares"


def test_clips_become_portrait4ds_set(clips: Path, tmp_path: Path) -> None:
    (clips / "clip1/select_index_8.txt").write_text("0\n3 11,\t2\n")
    packed = pack_vfhq(clips, tmp_path / "out", SIDE, frames=8)
    assert (packed.path.name, packed.count) == (f"VFHQ_sub8_{SIDE}_3", 3)
    stored = ClipLMDB(packed.path)
    assert [stored.labels(index)[:, 0].int().tolist() for index in range(3)] == [
        list(range(8)),
        [20, 23, 31, 22],
        list(range(40, 48)),
    ]
    assert [frame.unique().tolist() for frame in stored[1].images] == [[20], [23], [31], [22]]
    assert stored[1].motions.shape == (4, 548)
    assert np.load(tmp_path / "out/vfhq_all_motion_params.npy").shape == (2, 8, 112)
    assert pack_vfhq(clips, tmp_path / "out", SIDE, limit=2).path.name == f"VFHQ_sub50_{SIDE}_2"


def test_frames_without_files_and_empty_clips_are_left_out(clips: Path, tmp_path: Path) -> None:
    for place, part in ((1, "flame_optim_params"), (2, "motion_feats"), (3, "flame_optim_params")):
        (clips / "clip0" / part / f"frame{place}.npy").unlink()
    (clips / "clip0/segs/frame4.png").unlink()
    for path in (clips / "clip2/motion_feats").iterdir():
        path.unlink()
    packed = pack_vfhq(clips, tmp_path / "out", SIDE, frames=6)
    assert (packed.count, packed.left_out, packed.clips_left_out) == (2, 4 + 6, 1)
    assert ClipLMDB(packed.path).labels(0)[:, 0].int().tolist() == [0, 5]
    for path in clips.glob("*/motion_feats/*"):
        path.unlink()
    with pytest.raises(MediaError, match="no frame of 3 clips has all of its files"):
        pack_vfhq(clips, tmp_path / "none", SIDE)
    assert list((tmp_path / "none").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("segs/00001.png", None, "no segmentation of 00001"),
        ("flame_optim_params/00001.npy", None, "no parameters of 00001"),
        ("flame_optim_params/00001.npy", np.zeros(436), "holds 436 numbers, not 437"),
        ("flame_optim_params/00001.npy", np.full(437, np.nan), "holds NaN"),
        ("flame_optim_params/00001.npy", np.array([object()]), "no array that can be read"),
        ("motion_feats/00001.npy", b"junk", "no array that can be read"),
        ("motion_feats/00001.npy", np.array(["a"]), "no array that can be read"),
        ("align_images/00001.png", b"junk", "no image that can be read"),
        ("align_images/00001.png", torch.zeros(8, 9, 3, dtype=torch.uint8), "is 9x8, not square"),
    ],
)
def test_what_is_wrong_in_a_folder_is_one_line(photos: Path, path: str, content: object, said: str) -> None:
    file = photos / "00000" / path
    file.unlink()
    if isinstance(content, np.ndarray):
        np.save(file, content, allow_pickle=True)
    elif isinstance(content, torch.Tensor):
        write_image(file, content)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(MediaError, match=said) as caught:
        pack_ffhq(photos, photos.parent / "out", SIDE)
    assert "\n" not in str(caught.value)
    assert list((photos.parent / "out").iterdir()) == [], "whole or absent"


def test_impossible_requests_are_one_line(photos: Path, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="resolution must be at least 16"):
        pack_ffhq(photos, tmp_path / "out", 8)
    with pytest.raises(ZooError, match="limit must be at least 1"):
        pack_vfhq(clips, tmp_path / "out", SIDE, limit=0)
    with pytest.raises(ZooError, match="frames must be at least 1"):
        pack_vfhq(clips, tmp_path / "out", SIDE, frames=0)
    with pytest.raises(MediaError, match="there is no folder"):
        pack_ffhq(tmp_path / "gone", tmp_path / "out")
    with pytest.raises(MediaError, match="holds no prepared faces"):
        pack_vfhq(tmp_path, tmp_path / "out")
    with pytest.raises(MediaError, match="not called by its number"):
        pack_ffhq(clips, tmp_path / "out", SIDE, flips=False)
    for content, said in (
        ("{", "no JSON file"),
        ("{}", "says nothing"),
        ('{"a": 1}', "by number"),
        ("[1.5]", "by number"),
    ):
        (tmp_path / "table.json").write_text(content)
        with pytest.raises(MediaError, match=said):
            pack_ffhq(photos, tmp_path / "out", SIDE, rebalance=tmp_path / "table.json")
    with pytest.raises(MediaError, match="cannot read"):
        pack_ffhq(photos, tmp_path / "out", SIDE, rebalance=tmp_path / "none.json")
    for content, said in (("0 x", "whole numbers"), ("12", "asks for frame 12"), ("", "whole numbers")):
        (clips / "clip1/select_index_50.txt").write_text(content)
        with pytest.raises(MediaError, match=said):
            pack_vfhq(clips, tmp_path / "out", SIDE)
    (clips / "clip1/select_index_50.txt").unlink()
    np.save(clips / "clip1/motion_feats/frame3.npy", np.zeros(5, np.float32))
    with pytest.raises(MediaError, match="different lengths"):
        pack_vfhq(clips, tmp_path / "out", SIDE)


def test_the_commands(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "00000/motion_feats/00001.npy").unlink()
    out = ["--data", str(photos), "--out", str(tmp_path / "out"), "--resolution", str(SIDE)]
    assert main(["preprocess", "ffhq", *out, "--no-flips"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(tmp_path / f"out/FFHQ_{SIDE}_2")]
    assert "1 pictures were left out" in printed.err
    assert main(["preprocess", "vfhq", *out, "--frames", "2"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / f"out/VFHQ_sub2_{SIDE}_2")]
    assert main(["preprocess", "vfhq", *out[2:], "--data", str(tmp_path / "gone")]) == 1
    assert "there is no folder" in capsys.readouterr().err
