"""Portrait4D from raw photos and videos."""

import sys
from pathlib import Path

import pytest
import torch
from portrait4d_faces import small_model

from portraitzoo.errors import MediaError, WeightsUnavailableError, ZooError
from portraitzoo.media.images import write_image
from portraitzoo.media.video import write_video
from portraitzoo.methods.portrait4d import raw, raw_benchmark
from portraitzoo.methods.portrait4d.benchmark import portrait
from portraitzoo.methods.portrait4d.model import Portrait4D
from portraitzoo.methods.portrait4d.prepared import Frames
from portraitzoo.methods.portrait4d.raw import RawFootage, is_raw

sys.path.append(str(Path(__file__).parents[1] / "faces"))
from marked_faces import marked_tracker, picture

TRACKER = marked_tracker()


@pytest.fixture(scope="module")
def model() -> Portrait4D:
    size = {"image_resolution": 512, "super_resolution_input": 128, "super_resolution_channels": (4, 4)}
    return small_model(motion_dim=548, **size)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return write_image(tmp_path / "me.png", picture((60, 50)))


@pytest.fixture
def video(tmp_path: Path) -> Path:
    frames = torch.stack([picture((40 + 8 * step, 50)) for step in range(3)])
    write_video(tmp_path / "talking.mp4", frames, fps=25, quality=10)
    return tmp_path / "talking.mp4"


@pytest.fixture(autouse=True)
def at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published networks cannot be had here; these take their place."""
    monkeypatch.setattr(raw, "shared_tracker", lambda device: TRACKER)


def test_a_photo_follows_a_video(model, photo, video):
    clip = model.animate(photo, video, grid=True)
    assert clip.frames.shape == (3, 512, 3 * 512, 3)
    aligned = RawFootage(photo, tracker=TRACKER).picture("me")
    assert clip.frames[0, :, :512].equal(aligned)
    faces = RawFootage(video, tracker=TRACKER)
    portrait = RawFootage(photo, tracker=TRACKER).portrait("me")
    same = model.animate(portrait, Frames.cat([f for f in faces.attempts() if isinstance(f, Frames)]))
    assert same.frames.equal(clip.frames[:, :, 512:1024])


def test_pictures_that_are_shown_are_searched_once(model, photo, tmp_path):
    for number in range(2):
        write_image(tmp_path / "pictures" / f"{number}.png", picture((50 + 20 * number, 60)))
    looked = TRACKER.detector.looked
    assert model.animate(photo, tmp_path / "pictures", grid=True).frames.shape[0] == 2
    assert TRACKER.detector.looked - looked == 3, "the photo and two pictures"


def test_a_stream_of_raw_frames(model, photo, video):
    expected = model.animate(photo, video).frames
    with model.session(photo) as session:
        assert torch.stack(list(session.steps(RawFootage(video).attempts()))).equal(expected)


def test_pictures_of_a_folder_are_searched_one_by_one(model, photo, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, x in enumerate((40, 100)):
        write_image(folder / f"{number}.png", picture((x, 60)))
    write_image(folder / "1_empty.png", picture())
    footage = RawFootage(folder, tracker=TRACKER)
    assert footage.names == ["0", "1", "1_empty"]
    places, frames = footage.read("skip")
    assert places == [0, 1] and len(frames) == 2
    with pytest.raises(ZooError, match=r"1_empty\.png: no face was found"):
        footage.read("stop")
    with pytest.raises(ZooError, match="no face was found"):
        model.animate(photo, folder)
    assert len(model.animate(photo, folder, on_bad_frame="repeat")) == 3


def test_a_mesh_of_a_raw_photo(model, photo, video):
    assert len(model.mesh(photo, resolution=24, level=0.0).vertices)
    assert len(model.mesh(photo, video, resolution=24, level=0.0).vertices)


def test_what_is_raw(photo, video, tmp_path):
    assert is_raw(photo) and is_raw(video) and is_raw(tmp_path)
    assert not is_raw(tmp_path / "nothing") and not is_raw(Path(__file__))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert not is_raw(empty)


def test_bad_footage_is_one_line(model, photo, tmp_path):
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(b"\xff\xd8torn")
    with pytest.raises(MediaError, match=r"torn\.jpg"):
        model.animate(torn, photo)
    (tmp_path / "torn.mp4").write_bytes(b"torn")
    with pytest.raises(MediaError, match=r"torn\.mp4"):
        model.animate(photo, tmp_path / "torn.mp4")
    with pytest.raises(ZooError, match="is aligned to 512 pixels, and this network takes 64: give a prepared folder"):
        small_model().animate(photo, photo)
    with pytest.raises(MediaError, match="there is no picture you in"):
        RawFootage(photo, tracker=TRACKER).face("you")
    write_image(tmp_path / "me.jpg", picture((60, 50)))
    with pytest.raises(MediaError, match="differ in their suffix only"):
        RawFootage(tmp_path, tracker=TRACKER)


def test_without_the_published_networks_their_name_is_told(model, photo, monkeypatch):
    def unavailable(device: object) -> None:
        raise WeightsUnavailableError("retinaface-resnet50 is not here")

    monkeypatch.setattr(raw, "shared_tracker", unavailable)
    with pytest.raises(WeightsUnavailableError, match="retinaface-resnet50"):
        model.animate(photo, photo)


@pytest.mark.slow
def test_stages_of_raw_footage_run(model):
    assert raw_benchmark.fits(model.config) and not raw_benchmark.fits(small_model().config)
    done = []
    with torch.inference_mode():
        for name, work, frames in raw_benchmark.stages(model, portrait(model), render_resolution=12):
            work()
            done.append((name, frames))
    assert done == [("detection", 1), ("tracking", 1), ("raw clip", raw_benchmark.FRAMES)]
