import json
from pathlib import Path

import pytest
import torch

from portraitzoo.cli.main import main
from portraitzoo.errors import MediaError, ZooError
from portraitzoo.media.frame_archives import FrameArchive
from portraitzoo.media.images import read_image
from portraitzoo.media.video import write_video
from portraitzoo.preprocess import frames as frames_module
from portraitzoo.preprocess.frames import archive_frames, extract_frames, read_speed


def write_clip(path: Path, count: int = 12, size: tuple[int, int] = (32, 48)) -> Path:
    """A video that brightens by 16 grey levels a frame, with black stripes left and right of the middle square."""
    height, width = size
    frames = torch.zeros(count, height, width, 3, dtype=torch.uint8)
    side, left = min(size), max(width - height, 0) // 2
    frames[:, :, left : left + side] = (16 * torch.arange(count)).to(torch.uint8)[:, None, None, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, frames, quality=10)


def levels(folder: Path) -> list[int]:
    return [round(float(read_image(path).float().mean()) / 16) for path in sorted(folder.iterdir())]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    write_clip(tmp_path / "videos" / "train" / "one.mp4")
    write_clip(tmp_path / "videos" / "val" / "two.mp4", 8, (32, 32))
    write_clip(tmp_path / "videos" / "three.mp4", 4)
    return tmp_path / "videos"


def test_frames_lie_in_the_layout_of_training_sets(videos: Path, tmp_path: Path) -> None:
    out = extract_frames(videos, tmp_path / "out", resolution=16)
    assert sorted(path.relative_to(out).as_posix() for path in out.glob("*/*")) == [
        "train/one",
        "val/two",
        "videos/three",
    ]
    assert sorted(path.name for path in (out / "val/two").iterdir())[:2] == ["0000000.png", "0000001.png"]
    assert read_image(out / "train/one/0000003.png").shape == (16, 16, 3)
    assert levels(out / "train/one") == list(range(12)), "the black stripes are cut off"


def test_every_nth_frame_is_kept_and_numbered_anew(videos: Path, tmp_path: Path) -> None:
    out = extract_frames(videos, tmp_path / "out", resolution=16, every=4)
    assert levels(out / "train/one") == [0, 4, 8]
    assert [path.name for path in sorted((out / "train/one").iterdir())][-1] == "0000002.png"
    out = extract_frames(videos, tmp_path / "few", resolution=16, every=2, limit=3, format="jpg")
    assert levels(out / "train/one") == [0, 2, 4]


def test_finished_videos_are_kept_and_an_interrupted_one_leaves_nothing(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def fails(path: Path, image: torch.Tensor) -> None:
        nonlocal written
        written += 1
        if written == 15:
            raise KeyboardInterrupt
        write(path, image)

    write = frames_module.write_image
    monkeypatch.setattr(frames_module, "write_image", fails)
    with pytest.raises(KeyboardInterrupt):
        extract_frames(videos, tmp_path / "out", resolution=16)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_dir() and path.parent.name == "val"] == []
    (finished,) = [path for path in (tmp_path / "out").glob("*/*") if path.is_dir()]
    before = finished.stat().st_mtime_ns
    calls: list[tuple[int, int]] = []
    extract_frames(videos, tmp_path / "out", resolution=16, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert finished.stat().st_mtime_ns == before


@pytest.mark.slow
def test_several_processes_write_the_same(videos: Path, tmp_path: Path) -> None:
    one = extract_frames(videos, tmp_path / "one", resolution=16)
    two = extract_frames(videos, tmp_path / "two", resolution=16, workers=2)
    files = sorted(path.relative_to(one) for path in one.rglob("*.png"))
    assert files == sorted(path.relative_to(two) for path in two.rglob("*.png"))
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_the_archive_holds_the_very_files(videos: Path, tmp_path: Path) -> None:
    out = extract_frames(videos, tmp_path / "out", resolution=16)
    archive = FrameArchive(archive_frames(out, tmp_path / "frames.zip"))
    assert list(archive.videos) == ["train/one", "val/two", "videos/three"]
    assert archive.read("train/one", 7) == (out / "train/one/0000007.png").read_bytes()
    again = archive_frames(out, tmp_path / "again.zip")
    assert again.read_bytes() == (tmp_path / "frames.zip").read_bytes()


def test_speed_is_measured_on_folders_and_archives(videos: Path, tmp_path: Path) -> None:
    out = extract_frames(videos, tmp_path / "out", resolution=16)
    archive = archive_frames(out, tmp_path / "frames.zip")
    threads = torch.get_num_threads()
    assert min(read_speed(data, 16, window=4, seconds=0.05) for data in (out, archive)) > 0
    assert torch.get_num_threads() == threads
    with pytest.raises(MediaError, match="shorter than a window of 99"):
        read_speed(out, window=99)


def test_what_cannot_be_done_is_one_line(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"three\.mp4 is 48x32, not square"):
        extract_frames(videos, tmp_path / "a", crop=False)
    with pytest.raises(ZooError, match="every must be at least 1"):
        extract_frames(videos, tmp_path / "b", every=0)
    with pytest.raises(MediaError, match="does not exist"):
        extract_frames(tmp_path / "gone", tmp_path / "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match="holds no videos"):
        extract_frames(tmp_path / "empty", tmp_path / "d")
    with pytest.raises(MediaError, match="holds no frames"):
        archive_frames(tmp_path / "empty", tmp_path / "e.zip")
    write_clip(videos / "train" / "one.avi.mp4", 2)
    extract_frames(videos, tmp_path / "f", resolution=16)
    with pytest.raises(ZooError, match="another session"):
        extract_frames(videos, tmp_path / "f", resolution=32)
    (videos / "train" / "one.m4v").write_bytes((videos / "train" / "one.mp4").read_bytes())
    with pytest.raises(ZooError, match="different names"):
        extract_frames(videos, tmp_path / "g", resolution=16)


def test_the_commands(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, archive = tmp_path / "out", tmp_path / "frames.zip"
    command = ["preprocess", "frames", "--videos", str(videos), "--out", str(out), "--resolution", "16"]
    assert main(command) == 0
    assert main(["preprocess", "archive", "--frames", str(out), "--out", str(archive)]) == 0
    assert capsys.readouterr().out.split() == [str(out), str(archive)]
    speed = ["--resolution", "16", "--window", "4", "--seconds", "0.05"]
    assert main(["preprocess", "read-speed", "--data", f"{out},{archive}", *speed, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert [Path(row["data"]) for row in measured] == [out, archive]
    assert all(row["images_per_second"] > 0 for row in measured)
    assert main(["preprocess", "frames", "--videos", str(tmp_path / "gone"), "--out", str(out)]) == 1
