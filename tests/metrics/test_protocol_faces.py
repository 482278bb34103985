"""AKD, APD and AED by the networks that a protocol names."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from portraitzoo.errors import WeightsUnavailableError
from portraitzoo.faces.alignment import coefficient_crop, five_of_68
from portraitzoo.media.clip import Clip
from portraitzoo.metrics import protocol_faces
from portraitzoo.metrics.evaluation import evaluate
from portraitzoo.metrics.protocols import published_protocols
from portraitzoo.metrics.report import Report

sys.path.append(str(Path(__file__).parents[1] / "faces"))
from marked_faces import Detector, Landmarks, marked_tracker, picture

DISTANCES = ("akd", "apd", "aed")
EYES_NOSE_MOUTH = {36: (-9, -3), 39: (-9, -3), 42: (9, -3), 45: (9, -3), 30: (0, 7), 48: (-8, 17), 54: (8, 17)}
SMALL = marked_tracker().regressor


def measure(generated, real, **options) -> Report:
    return evaluate(generated, real, device="cpu", use_cache=False, workers=0, **options)


class FaceLandmarks(Landmarks):
    """Landmarks of a frontal face, so that five of them say where it is."""

    def landmarks(self, image: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        points = super().landmarks(image, box)
        centre = points.mean(0)
        for index, (x, y) in EYES_NOSE_MOUTH.items():
            points[index] = centre + torch.tensor([x, y])
        return points


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> dict[str, nn.Module]:
    """Networks that see red squares in the place of the published ones."""
    made = {"retinaface-resnet50": Detector(), "fan3d-heatmap": FaceLandmarks(), "deep3d-resnet50": SMALL}
    monkeypatch.setattr(protocol_faces, "feature_module", lambda entry, weights, device: made[entry])
    return made


def clip(*centres: tuple[int, int] | None) -> Clip:
    return Clip(torch.stack([picture(*([centre] if centre else []), seed=7) for centre in centres]))


def test_distances_are_those_of_the_networks(networks):
    ours, theirs = clip((60, 50), (70, 60)), clip((62, 54), (64, 60))
    report = measure([ours], [theirs], metrics=DISTANCES)
    assert report.values["akd"] == pytest.approx((2 + 4 + 6 + 0) / 4)
    angles, expressions = [], []
    for side in (ours, theirs):
        crops = []
        for frame in side.frames:
            box = networks["retinaface-resnet50"].detect(frame).boxes[0]
            five = five_of_68(networks["fan3d-heatmap"].landmarks(frame, box))
            crops.append(coefficient_crop(frame, five, "bicubic").image.permute(2, 0, 1).float() / 255)
        found = SMALL(torch.stack(crops))
        angles.append(found.angles.rad2deg())
        expressions.append(found.expression)
    assert report.values["apd"] == pytest.approx(float((angles[0] - angles[1]).abs().mean()), rel=1e-4)
    assert report.values["aed"] == pytest.approx(float((expressions[0] - expressions[1]).abs().mean()), rel=1e-4)
    told = {result.metric: result.network for result in report.results}
    assert told["akd"]["name"] == "retinaface-resnet50 + fan3d-heatmap" and told["akd"]["comparable"]
    assert told["aed"]["name"] == "retinaface-resnet50 + fan3d-heatmap + deep3d-resnet50"
    assert told["aed"]["checksum"] == told["apd"]["checksum"] != told["akd"]["checksum"]


def test_a_frame_is_looked_at_once_for_all_three(networks):
    measure([clip((60, 50), (70, 60))], [clip((62, 54), (64, 60))], metrics=DISTANCES)
    assert networks["retinaface-resnet50"].looked == 4


def test_frames_without_a_face_are_skipped_and_counted(networks):
    report = measure([clip((60, 50), None, (60, 50))], [clip((60, 50), (60, 50), None)], metrics=DISTANCES)
    assert all(report.values[name] == 0 for name in DISTANCES)
    assert all("2 of 3 frames skipped: empty" in result.notes for result in report.results)


def test_files_come_before_networks(networks, tmp_path):
    for side, value in (("a", 1.0), ("b", 3.5)):
        clip((60, 50), (60, 50)).save(tmp_path / side / "one.mp4")
        np.savez(tmp_path / side / "one.face.npz", keypoints=np.full((2, 5, 2), value))
    report = measure(tmp_path / "a", tmp_path / "b", metrics="akd")
    assert report.values["akd"] == 2.5
    assert report.results[0].network is None and networks["retinaface-resnet50"].looked == 0


def test_random_weights_take_the_middle_for_the_face():
    clips = [Clip(torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8))]
    report = measure(clips, clips, metrics=DISTANCES, features="random")
    assert all(report.values[name] == 0 for name in DISTANCES)
    for result in report.results:
        assert not result.comparable and result.notes[0] == "not comparable"
        assert result.network["name"].endswith("(random weights)")


def test_without_the_networks_their_name_and_a_way_out_are_told(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    clips = [clip((60, 50))]
    with pytest.raises(WeightsUnavailableError, match=r"zoo download deep3d-resnet50 --file PATH"):
        measure(clips, clips, metrics="aed", features="official")


def test_the_networks_of_reenactment_are_pinned():
    for name in ("portrait4d-self", "portrait4d-cross"):
        protocol = published_protocols()[name]
        assert {"aed", "apd"} < set(protocol.metrics)
        assert protocol.face_coefficients == "deep3d-resnet50"
        assert protocol.face_landmarks == "fan3d-heatmap" and protocol.face_detector == "retinaface-resnet50"
