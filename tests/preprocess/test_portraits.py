"""``zoo preprocess portraits``: raw photos and videos become prepared folders that everything else takes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from portraitzoo.errors import MediaError
from portraitzoo.faces.parsing import BiSeNet
from portraitzoo.media.images import read_image, write_image
from portraitzoo.media.video import write_video
from portraitzoo.methods.portrait4d.folders import PreparedFolder
from portraitzoo.methods.portrait4d.raw import RawFootage
from portraitzoo.preprocess.portraits import prepare_portraits

sys.path.append(str(Path(__file__).parents[1] / "faces"))
from marked_faces import marked_tracker, picture

TRACKER = marked_tracker()
PARTS = {"align_images", "2dldmks_align", "3dldmks_align", "bfm_params", "bfm2flame_params_simplified", "motion_feats"}


def photos(folder: Path, count: int = 2) -> Path:
    for number in range(count):
        write_image(folder / f"{number}.png", picture((50 + 20 * number, 50)))
    return folder


def video(path: Path, *centres: tuple[int, int]) -> Path:
    write_video(path, torch.stack([picture(centre) if centre else picture() for centre in centres]), fps=25, quality=10)
    return path


def test_photos_are_prepared_as_they_are_animated(tmp_path):
    made = prepare_portraits(photos(tmp_path / "in"), tmp_path / "out", tracker=TRACKER)
    assert made.faces == 2 and not made.problems and str(made) == str(tmp_path / "out")
    assert {part.name for part in (tmp_path / "out").iterdir()} == PARTS
    folder = PreparedFolder(tmp_path / "out", parameters="simplified", side=512)
    raw = RawFootage(tmp_path / "in", tracker=TRACKER)
    for name in folder.names:
        found, expected = folder.portrait(name), raw.portrait(name)
        assert found.image.equal(expected.image)
        assert found.tracked.labels().equal(expected.tracked.labels())
        assert found.tracked.motion.equal(expected.tracked.motion)
    landmarks = np.load(tmp_path / "out" / "3dldmks_align" / "0.npy")
    assert landmarks.shape == (68, 2) and landmarks.dtype == np.float64
    coefficients = np.load(tmp_path / "out" / "bfm_params" / "0.npz")
    assert {name: values.shape for name, values in coefficients.items()}["expression"] == (1, 64)


def test_an_interrupted_run_goes_on(tmp_path):
    source = photos(tmp_path / "in", 3)
    counted = []

    def stop(done: int, total: int) -> None:
        counted.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_portraits(source, tmp_path / "out", tracker=TRACKER, progress=stop)
    looked = TRACKER.detector.looked
    assert prepare_portraits(source, tmp_path / "out", tracker=TRACKER).faces == 3
    assert TRACKER.detector.looked == looked + 1, "two photos were ready"
    assert counted == [(1, 3), (2, 3)]


def test_a_video_keeps_its_gaps(tmp_path):
    source = video(tmp_path / "clip.mp4", (40, 50), (44, 50), (), (60, 50))
    made = prepare_portraits(source, tmp_path / "out", tracker=TRACKER)
    assert made.faces == 3 and made.left_out == 1
    assert "1 pictures left out" in made.omissions() and "frame 00002" in made.omissions()
    assert (tmp_path / "out" / "problems.txt").read_text().startswith("00002\t")
    folder = PreparedFolder(tmp_path / "out", parameters="simplified")
    assert folder.names == ["00000", "00001", "00002", "00003"]
    assert folder.read("skip")[0] == [0, 1, 3]
    looked = TRACKER.detector.looked
    again = prepare_portraits(source, tmp_path / "out", tracker=TRACKER)
    assert (again.faces, again.left_out) == (3, 1) and TRACKER.detector.looked == looked


def test_a_folder_of_videos_becomes_folders(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        video(tmp_path / "in" / f"{name}.mp4", (40, 50), (44, 50))
    made = prepare_portraits(tmp_path / "in", tmp_path / "out", tracker=TRACKER)
    assert made.faces == 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]


def test_gaps_of_several_videos_are_all_counted(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        video(tmp_path / "in" / f"{name}.mp4", (40, 50), ())
    made = prepare_portraits(tmp_path / "in", tmp_path / "out", tracker=TRACKER)
    assert (made.faces, made.left_out) == (2, 2)


def test_masks_of_the_person(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parser = BiSeNet(widths=(8, 8, 8, 8), stem=8, context=8, fused=8, auxiliary=8).eval()
    prepare_portraits(photos(tmp_path / "in", 1), tmp_path / "out", tracker=TRACKER, segment=True, parser=parser)
    mask = read_image(tmp_path / "out" / "segs" / "0.png")
    image = read_image(tmp_path / "out" / "align_images" / "0.png")
    assert mask.shape == image.shape and set(mask.unique().tolist()) <= {0, 255}
    assert ((mask[..., 0] > 0) == (parser.labels(image[None])[0] != 0)).all()


def test_nothing_to_see_is_one_line(tmp_path):
    write_image(tmp_path / "in" / "empty.png", picture())
    with pytest.raises(MediaError, match=r"no face was found in .*in; of the last picture: .*empty\.png"):
        prepare_portraits(tmp_path / "in", tmp_path / "out", tracker=TRACKER)
    with pytest.raises(MediaError):
        prepare_portraits(tmp_path / "nowhere", tmp_path / "out", tracker=TRACKER)
