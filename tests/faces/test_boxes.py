import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from portraitzoo.errors import ZooError
from portraitzoo.faces.boxes import (
    cut,
    decode_boxes,
    decode_points,
    encode_boxes,
    encode_points,
    priors,
    square_box,
    suppress,
    tight_box,
)

PICTURE = torch.randint(1, 256, (30, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 50], dim=1)


def intersection_over_union(a: list[float], b: list[float]) -> float:
    shared = math.prod(max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1) for i in (0, 1))
    areas = [math.prod(box[i + 2] - box[i] + 1 for i in (0, 1)) for box in (a, b)]
    return shared / (sum(areas) - shared)


@given(height=st.integers(1, 200), width=st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_every_cell_of_every_level_has_two_priors(height, width):
    found = priors(height, width)
    cells = [math.ceil(height / step) * math.ceil(width / step) for step in (8, 16, 32)]
    assert found.shape == (2 * sum(cells), 4)
    pixels = found * torch.tensor([width, height] * 2)
    assert sorted({round(side) for side in pixels[:, 2].tolist()}) == [16, 32, 64, 128, 256, 512]
    torch.testing.assert_close(pixels[:2], torch.tensor([[4.0, 4.0, 16.0, 16.0], [4.0, 4.0, 32.0, 32.0]]))


def test_priors_go_along_rows_first():
    pixels = priors(16, 24) * torch.tensor([24, 16, 24, 16])
    assert pixels[:12:2, :2].round().tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_priors_made_while_inferring_can_be_trained_with():
    priors.cache_clear()
    with torch.inference_mode():
        anchors = priors(32, 40)
    offsets = torch.zeros(len(anchors), 4, requires_grad=True)
    decode_boxes(offsets, priors(32, 40)).sum().backward()
    assert offsets.grad is not None


def test_what_says_nothing_means_the_prior():
    anchors = priors(64, 64)
    boxes = decode_boxes(torch.zeros(2, len(anchors), 4), anchors)
    torch.testing.assert_close((boxes[1, :, :2] + boxes[1, :, 2:]) / 2, anchors[:, :2])
    torch.testing.assert_close(boxes[0, :, 2:] - boxes[0, :, :2], anchors[:, 2:])
    points = decode_points(torch.zeros(len(anchors), 5, 2), anchors)
    torch.testing.assert_close(points, anchors[:, None, :2].expand(-1, 5, -1))


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_encoding_is_undone_by_decoding(seed):
    anchors = priors(40, 50).double()
    boxes = random_boxes(len(anchors), seed).double() + torch.tensor([0, 0, 0.1, 0.1])
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes, atol=1e-9, rtol=0)
    points = boxes.unflatten(1, (2, 2))
    torch.testing.assert_close(decode_points(encode_points(points, anchors), anchors), points, atol=1e-9, rtol=0)


@given(seed=st.integers(0, 1000), count=st.integers(0, 40), overlap=st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None)
def test_suppressing_is_greedy(seed, count, overlap):
    boxes = random_boxes(count, seed).double()
    expected: list[int] = []
    for index, box in enumerate(boxes.tolist()):
        if all(intersection_over_union(box, boxes[other].tolist()) <= overlap for other in expected):
            expected.append(index)
    assert suppress(boxes, overlap).tolist() == expected


def test_of_the_same_box_the_first_stays():
    box = torch.tensor([[10.0, 10.0, 20.0, 30.0]])
    assert suppress(box.repeat(3, 1), 0.4).tolist() == [0]
    assert suppress(torch.cat([box, box + 100]), 0.4).tolist() == [0, 1]


@given(seed=st.integers(0, 1000), ratio=st.floats(0.5, 3))
@settings(max_examples=30, deadline=None)
def test_a_square_has_the_boxs_middle_and_its_area_times_the_ratio_squared(seed, ratio):
    box = random_boxes(1, seed)[0].double()
    square = square_box(box, ratio)
    width, height = (square[2:] - square[:2]).tolist()
    assert width == pytest.approx(height)
    assert width**2 == pytest.approx(ratio**2 * float((box[2:] - box[:2] + 1).prod()))
    torch.testing.assert_close(square[:2] + square[2:], box[:2] + box[2:])


def test_a_tight_box_touches_the_outermost_landmarks():
    points = torch.tensor([[3.0, 9.0], [5.0, 2.0], [4.0, 4.0]])
    assert tight_box(points).tolist() == [3, 2, 5, 9]


def test_a_cut_inside_is_a_part_of_the_picture():
    part, origin = cut(PICTURE, torch.tensor([3.9, 5.2, 20.8, 11.1]))
    assert origin == (3, 5)
    assert part.equal(PICTURE[5:11, 3:20])


def test_a_cut_is_black_outside():
    part, origin = cut(PICTURE, torch.tensor([-4.7, -2.2, 50.5, 33.9]))
    assert origin == (-4, -2)
    assert part.shape == (35, 54, 3)
    assert part[2:32, 4:44].equal(PICTURE)
    part[2:32, 4:44] = 0
    assert not part.any()


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ([50.0, 5, 60, 10], "holds none"),
        ([5.0, -9, 10, -1], "holds none"),
        ([20.0, 5, 10, 9], "is empty"),
        ([5.2, 5, 5.9, 9], "holds none"),
        ([float("nan"), 5, 10, 9], "four finite numbers"),
        ([0.0, 0, float("inf"), 9], "four finite numbers"),
        ([0.0, 0, 10], "four finite numbers"),
        ([-1e9, 0, 1e9, 9], "16 times as large"),
    ],
)
def test_boxes_that_cut_nothing_out(box, told):
    with pytest.raises(ZooError, match=told):
        cut(PICTURE, torch.tensor(box))


def test_cutting_takes_pictures():
    with pytest.raises(ZooError, match=r"uint8 \[height, width, 3\]"):
        cut(PICTURE.permute(2, 0, 1), torch.tensor([0.0, 0, 2, 2]))
