import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.faces.motion_embedding import TEMPLATE, MotionEncoder, crop_face, crop_matrix
from portraitzoo.faces.similarity import fit_similarity, warp


@given(
    angle=st.floats(-3, 3),
    scale=st.floats(0.1, 5),
    x=st.floats(-50, 50),
    y=st.floats(-50, 50),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_a_similarity_is_found_again(angle, scale, x, y, seed):
    points = torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 10
    turn = scale * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    shift = torch.tensor([x, y]).double()
    found = fit_similarity(points, points @ turn.mT + shift)
    expected = torch.cat([turn, shift[:, None]], dim=1)[None].float()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_no_similarity_mirrors():
    points = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]])
    found = fit_similarity(points, points * torch.tensor([-1.0, 1.0]))
    assert float(torch.linalg.det(found[:, :, :2])) >= 0


def test_warping_by_whole_pixels_moves_them():
    image = torch.rand(1, 3, 10, 10)
    moved = warp(image, torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]]]), 10)
    torch.testing.assert_close(moved[:, :, 3:, 2:], image[:, :, :-3, :-2], atol=1e-5, rtol=0)
    assert not moved[:, :, :2].any()


def test_eyes_and_mouth_come_to_the_template():
    landmarks = torch.rand(2, 68, 2) * 20
    landmarks[:, 36:42] += torch.tensor([100.0, 120.0])
    landmarks[:, 42:48] += torch.tensor([200.0, 120.0])
    landmarks[:, 60:68] += torch.tensor([150.0, 242.0])
    matrix = crop_matrix(landmarks)
    middles = torch.stack([landmarks[:, part].mean(1) for part in (slice(36, 42), slice(42, 48), slice(60, 68))], 1)
    there = middles @ matrix[:, :, :2].mT + matrix[:, None, :, 2]
    assert float((there - torch.tensor(TEMPLATE)).abs().max()) < 8


def test_landmarks_that_are_one_point_leave_the_picture_alone():
    assert crop_matrix(torch.ones(1, 68, 2)).equal(torch.eye(2, 3)[None])


def test_faces_of_different_sizes_give_the_same_crop():
    coarse = torch.rand(1, 3, 12, 12) * 2 - 1
    landmarks = torch.rand(1, 68, 2) * 10 + torch.linspace(20, 90, 68)[None, :, None]
    small = torch.nn.functional.interpolate(coarse, (120, 120), mode="bicubic", align_corners=True)
    large = torch.nn.functional.interpolate(coarse, (239, 239), mode="bicubic", align_corners=True)
    assert float((crop_face(small, landmarks) - crop_face(large, landmarks * 2)).abs().mean()) < 0.01


def test_an_embedding_is_eye_emotion_and_mouth():
    encoder = MotionEncoder(width=8, landmarks=4, features=16).eval()
    image = torch.rand(3, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        codes = encoder.codes(image)
        assert encoder(image).shape == (3, 52)
        assert encoder(image).equal(torch.cat([codes.eye, codes.emotion, codes.mouth], dim=1))
