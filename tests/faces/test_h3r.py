import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.h3r import H3R, expected_cells, prepare
from portraitzoo.faces.hrnet import HRNet
from portraitzoo.hub.conversion import official_name
from portraitzoo.hub.faces.h3r import BACKGROUND, NAMES, OUTPUT, convert
from portraitzoo.layers.conv_norm import fold_batch_norms

PICTURE = torch.randint(0, 256, (90, 120, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SIZES = {
    "widths": ((4,), (4, 6), (4, 6, 8), (4, 6, 8, 10)),
    "depths": ((2,), (1, 2), (1, 1, 1), (2, 1, 1, 1)),
    "exchanges": (1, 1, 2, 1),
    "hidden": 12,
}


def small() -> H3R:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return H3R(**SIZES, input_size=64).eval()


def official() -> dict[str, Tensor]:
    tensors = {official_name(name, NAMES) or "": tensor for name, tensor in small().state_dict().items()}
    tensors[OUTPUT] = torch.cat([torch.full_like(tensors[OUTPUT], 7.0), tensors[OUTPUT]])
    return tensors


class Told(H3R):
    """Says that every landmark is at one cell, whatever it sees, and remembers what it saw."""

    def __init__(self, column: int, row: int) -> None:
        super().__init__(**SIZES, input_size=64)
        self.column, self.row = column, row

    def forward(self, faces: Tensor) -> Tensor:
        self.seen = faces
        heatmaps = torch.zeros(len(faces), 98, 16, 16)
        heatmaps[..., self.row, self.column] = 1000.0
        return heatmaps


def test_a_landmark_is_where_its_cell_is_in_the_picture():
    # A box of 40 x 40 pixels, 1.5 times: 60 pixels about (50.5, 40.5), of which the network sees 64.
    found = Told(3, 8).landmarks(PICTURE, torch.tensor([31.0, 21, 70, 60]), detected=True)
    assert found.shape == (98, 2) and found.dtype == torch.float64
    expected = torch.tensor([20 + 3 * 4 * 60 / 64, 10 + 8 * 4 * 60 / 64]).double()
    torch.testing.assert_close(found, expected.expand(98, 2))


def test_boxes_around_landmarks_are_widened_more():
    network, box = Told(0, 0), torch.tensor([31.0, 21, 70, 60])
    detected, tracked = (network.landmarks(PICTURE, box, detected=kind)[0] for kind in (True, False))
    assert detected.tolist() == [20, 10]  # 50.5 - 30, without the rest
    assert tracked.tolist() == [14, 4]  # 50.5 - 36


def test_faces_at_the_border_see_black_outside():
    network = Told(0, 0)
    found = network.landmarks(PICTURE, torch.tensor([-20.0, -20, 19, 19]), detected=True)
    assert found[0].tolist() == [-30, -30]
    black = prepare(torch.zeros(2, 2, 3, dtype=torch.uint8), 64)
    assert network.seen[..., :30, :30].equal(black[..., :30, :30])
    assert not network.seen[..., 34:, 34:].eq(black[..., 34:, 34:]).all()


@given(column=st.integers(0, 15), row=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_a_high_peak_decides_alone(column, row):
    heatmap = torch.zeros(1, 1, 10, 16)
    heatmap[0, 0, row, column] = 1000.0
    assert expected_cells(heatmap)[0, 0].tolist() == [column, row]


def test_two_equal_peaks_meet_in_the_middle():
    heatmap = torch.full((1, 1, 8, 8), -1000.0)
    heatmap[0, 0, 2, 1] = heatmap[0, 0, 6, 5] = 3.0
    assert expected_cells(heatmap)[0, 0].tolist() == pytest.approx([3.0, 4.0])


@given(seed=st.integers(0, 1000), shift=st.floats(-50, 50), cells=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_only_differences_of_scores_count(seed, shift, cells):
    heatmaps = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(expected_cells(heatmaps + shift, cells), expected_cells(heatmaps, cells))


def test_the_network_sees_red_first_by_imagenets_mean_and_deviation():
    plain = torch.tensor([255, 0, 51], dtype=torch.uint8).expand(20, 30, 3)
    seen = prepare(plain, 64)
    assert seen.shape == (1, 3, 64, 64)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    assert seen[0, :, 40, 40].tolist() == pytest.approx(expected)


def test_heatmaps_are_a_fourth_of_the_input():
    network = HRNet(*(SIZES[name] for name in ("widths", "depths", "exchanges")))
    assert network.out_channels == 28
    assert network(torch.zeros(2, 3, 64, 96)).shape == (2, 28, 16, 24)
    assert small()(torch.zeros(1, 3, 64, 64)).shape == (1, 98, 16, 16)


def test_all_branches_hear_of_all_others():
    torch.manual_seed(0)
    stage = HRNet(*(SIZES[name] for name in ("widths", "depths", "exchanges"))).stages[2].exchanges[0]
    maps = [torch.randn(1, width, 32 >> place, 32 >> place) for place, width in enumerate(SIZES["widths"][3])]
    with torch.no_grad():
        before = stage(maps)
        for place, x in enumerate(maps):
            after = stage([x * 2 if other == place else y for other, y in enumerate(maps)])
            assert all(not a.equal(b) for a, b in zip(after, before, strict=True))
            assert x.equal(maps[place])


def test_faces_do_not_depend_on_their_neighbours():
    network = small()
    faces = torch.cat([prepare(PICTURE, 64), prepare(PICTURE.flip(1), 64)])
    with torch.no_grad():
        torch.testing.assert_close(network(faces)[1:], network(faces[1:]), atol=1e-5, rtol=1e-4)


def test_folding_changes_nothing():
    network, face = small(), prepare(PICTURE, 64)
    with torch.no_grad():
        before = network(face)
        after = fold_batch_norms(network)(face)
    assert (before - after).abs().max() <= 1e-5 * before.abs().max()


@pytest.mark.parametrize(
    ("image", "box", "told"),
    [
        (PICTURE.float(), [10.0, 10, 30, 30], "an image is uint8"),
        (PICTURE, [500.0, 10, 530, 30], "holds none of them"),
        (PICTURE, [float("nan"), 10, 30, 30], "four finite numbers"),
        (PICTURE, [30.0, 10, 10, 30], "is empty: from"),
        (PICTURE, [30.0, 10, 10, -30], "is empty: from"),
        (PICTURE, [30.0, 10, 50], "four finite numbers"),
    ],
)
def test_what_cannot_be_looked_at(image, box, told):
    with pytest.raises(ZooError, match=told):
        small().landmarks(image, torch.tensor(box), detected=True)


def test_official_tensors_make_the_network_again():
    conversion = convert(official())
    assert conversion.dropped == {OUTPUT: BACKGROUND}
    again = H3R(**conversion.config, input_size=64).eval()
    again.load_state_dict(conversion.tensors["model"])
    face = prepare(PICTURE, 64)
    with torch.no_grad():
        assert again(face).equal(small()(face))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("backbone.stage4.0.fuse_layers.3.0.2.1.bias"), "stage4.0.fuse_layers.3.0.2.1.bias"),
        (lambda t: t.pop("backbone.transition2.2.0.0.weight"), "lacks the tensor backbone.transition2.2.0.0.weight"),
        (lambda t: t.pop("backbone.transition1.0.0.weight"), "lacks the tensor backbone.transition1.0.0.weight"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected tensor, extra"),
        (lambda t: t.update({"backbone.bn1.bias": torch.zeros(3)}), r"has shape \[3\], not \[64\]"),
        (lambda t: t.update({"backbone.bn1.bias": "none"}), "backbone.bn1.bias is a str"),
        (lambda t: t.update({OUTPUT: t[OUTPUT][:98]}), "98 channels, not 196"),
        (lambda t: t.pop(OUTPUT), "none of H3R"),
        (lambda t: [t.pop(name) for name in list(t) if "stage3" in name], "backbone.stage3"),
        (lambda t: [t.pop(name) for name in list(t) if "layer1" in name], "layer1"),
    ],
)
def test_other_checkpoints_are_refused(change, told):
    tensors = official()
    change(tensors)
    with pytest.raises(CheckpointError, match=told):
        convert(tensors)
