"""Tracking: photos are searched, videos are followed, and what cannot be seen is said and left."""

import pytest
import torch
from marked_faces import centre_of, marked_tracker, picture

from portraitzoo.errors import MediaError
from portraitzoo.faces.portrait_tracker import SIDE, TrackedFace, overlap


def test_a_photo_is_aligned_and_described():
    tracker, image = marked_tracker(), picture((60, 50))
    face = tracker.photo(image)
    assert face.image.shape == (SIDE, SIDE, 3) and face.image.dtype == torch.uint8
    assert face.label.shape == (437,) and face.motion.shape == (548,) and face.coefficients.vector().shape == (1, 257)
    # The square is at the template's origin, a tenth of a unit (18 pixels) above the middle of the crop.
    assert torch.allclose(centre_of(face.image), torch.tensor([256.0, 256 - 18.0]).double(), atol=8)
    assert torch.allclose(
        face.contour[54] - face.contour.mean(0), (face.found.contour[54] - face.found.contour.mean(0)) * 6
    )


def test_the_same_face_elsewhere_in_the_picture_is_described_alike():
    tracker = marked_tracker()
    image = picture((60, 50))
    moved = torch.roll(image, (8, 16), dims=(0, 1))
    first, second = tracker.photo(image), tracker.photo(moved)
    assert (second.found.contour - first.found.contour).allclose(torch.tensor([16.0, 8.0]).double())
    assert second.contour.allclose(first.contour) and second.landmarks.allclose(first.landmarks)
    inner = (slice(64, -64),) * 2
    assert (second.image[inner].int() - first.image[inner].int()).abs().max() <= 2


def test_a_video_is_followed_without_searching_every_frame():
    tracker = marked_tracker()
    found = list(tracker.frames((picture((40 + 2 * step, 50)) for step in range(6)), look_again=4))
    assert all(isinstance(face, TrackedFace) for face in found)
    assert tracker.detector.looked == 2, "at the beginning, and once more after 4 frames"
    centres = [float(face.found.contour[54, 0]) for face in found]
    assert centres == pytest.approx([centres[0] + 2 * step for step in range(6)])
    assert len(list(tracker.frames((picture((40, 50)) for _ in range(3)), look_again=None))) == 3
    assert tracker.detector.looked == 3


def test_a_lost_face_is_said_and_searched_for_again():
    tracker = marked_tracker()
    frames = [picture((40, 50)), picture(), picture(), picture((110, 60)), picture((112, 60))]
    found = list(tracker.frames(frames))
    assert [isinstance(face, TrackedFace) for face in found] == [True, False, False, True, True]
    assert "no face" in str(found[1]) and isinstance(found[2], MediaError)
    assert tracker.detector.looked == 3, "in the first frame and after each frame without a face"


def test_a_face_that_jumps_is_caught_up_with():
    tracker = marked_tracker()
    frames = [picture((40, 50), (120, 80))] + [picture((120, 80), (40, 50))] * 3
    # A tracker looks where the face was: the paler square is there now, until the whole picture is searched.
    followed = [round(float(face.found.contour[54, 0])) for face in tracker.frames(frames, look_again=None)]
    caught = [round(float(face.found.contour[54, 0])) for face in tracker.frames(frames, look_again=2)]
    assert followed == [40] * 4
    assert caught == [40, 40, 120, 120]


def test_no_face_is_one_line():
    with pytest.raises(MediaError, match="no face was found"):
        marked_tracker().photo(picture())


def test_overlap_of_boxes():
    box = torch.tensor([0.0, 0.0, 2.0, 2.0])
    assert overlap(box, box) == 1
    assert overlap(box, box + 1) == pytest.approx(1 / 7)
    assert overlap(box, box + 5) == 0
