import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import CheckpointError, ZooError
from portraitzoo.faces.fan import FAN, FaceWindow, decode
from portraitzoo.hub import converting as hub
from portraitzoo.hub.conversion import official_name
from portraitzoo.hub.faces.fan import TABLE, convert
from portraitzoo.hub.loading import load
from portraitzoo.layers.conv_norm import fold_batch_norms

PICTURE = torch.randint(0, 256, (120, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
BOX = torch.tensor([40.0, 30.0, 100.0, 110.0])


def small() -> FAN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FAN(stacks=2, width=16, stem=8).eval()


def official() -> dict[str, torch.Tensor]:
    return {official_name(name, TABLE) or "": tensor for name, tensor in small().state_dict().items()}


def peak(x: int, y: int, size: int = 64) -> torch.Tensor:
    maps = torch.zeros(1, 1, size, size)
    maps[0, 0, y, x] = 3.0
    return maps


@given(x=st.integers(1, 62), y=st.integers(1, 62), right=st.booleans(), down=st.booleans())
@settings(max_examples=30, deadline=None)
def test_peaks_lean_towards_the_higher_neighbour(x, y, right, down):
    maps = peak(x, y)
    maps[0, 0, y, x + (1 if right else -1)] = 1.0
    maps[0, 0, y + (1 if down else -1), x] = 1.0
    points, scores = decode(maps)
    expected = [x + 0.5 + (0.25 if right else -0.25), y + 0.5 + (0.25 if down else -0.25)]
    assert points[0, 0].tolist() == expected
    assert scores.item() == 3.0


@pytest.mark.parametrize(("x", "y"), [(0, 0), (63, 10), (10, 63), (63, 63), (0, 30)])
def test_peaks_at_the_border_stay(x, y):
    maps = peak(x, y)
    maps[0, 0, 30, 30] = 1.0
    assert decode(maps)[0][0, 0].tolist() == [x + 0.5, y + 0.5]


@given(
    left=st.floats(-300, 300),
    top=st.floats(-300, 300),
    width=st.floats(1, 500),
    height=st.floats(1, 500),
)
@settings(max_examples=40, deadline=None)
def test_the_middle_of_the_window_is_the_middle_of_the_box(left, top, width, height):
    window = FaceWindow.of_box(torch.tensor([left, top, left + width, top + height], dtype=torch.float64))
    middle = window.pixels(torch.tensor([32.0, 32.0]), 64)
    expected = torch.tensor([left + width / 2, top + height / 2 - 0.12 * height], dtype=torch.float64)
    assert float((middle - expected).abs().max()) <= 1
    assert window.side == pytest.approx(200 * (width + height) / 192)


def test_windows_beyond_the_picture_are_black_there():
    white = torch.full((90, 90, 3), 255, dtype=torch.uint8)
    crop = FaceWindow.of_box(torch.tensor([-30.0, -30.0, 30.0, 30.0])).crop(white)
    assert crop.shape == (256, 256, 3)
    assert not crop[:100, :100].any()
    assert (crop[200:, 200:] == 255).all()


def test_what_the_window_shows_lies_where_points_are_mapped():
    picture = torch.zeros(120, 160, 3, dtype=torch.uint8)
    picture[70:74, 50:54] = 255
    window = FaceWindow.of_box(BOX)
    crop = window.crop(picture).float().sum(2)
    place = torch.stack([(crop.sum(axis) * (torch.arange(256) + 0.5)).sum() / crop.sum() for axis in (0, 1)])
    assert float((window.pixels(place, 256) - torch.tensor([52.0, 72.0])).abs().max()) <= 2


def test_landmarks_are_whole_pixels_and_the_same_twice():
    found = small().landmarks(PICTURE, BOX)
    assert found.shape == (68, 2) and found.dtype == torch.float64
    assert found.equal(found.round())
    assert found.equal(small().landmarks(PICTURE, BOX.double()))


@pytest.mark.parametrize(
    ("image", "box", "says"),
    [
        (PICTURE.float(), BOX, "uint8"),
        (PICTURE, BOX[:3], "four finite numbers"),
        (PICTURE, BOX * torch.nan, "four finite numbers"),
        (PICTURE, BOX[[2, 3, 0, 1]], "empty"),
        (PICTURE, BOX * 1e-3 + 50.3, "is empty"),
        (PICTURE, BOX + 1000, "holds none of them"),
        (PICTURE, BOX - 1000, "holds none of them"),
        (PICTURE, (BOX - 60) * 1e4, "times as large"),
    ],
    ids=["float", "three", "nan", "reversed", "tiny", "right", "left", "huge"],
)
def test_faces_that_cannot_be_looked_at(image, box, says):
    with pytest.raises(ZooError, match=says) as failure:
        small().landmarks(image, box)
    assert "\n" not in str(failure.value)


@torch.no_grad()
def test_heatmaps_do_not_depend_on_their_batch_nor_on_folded_norms():
    network, images = small(), torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    both = network(images)
    assert both.shape == (2, 68, 64, 64)
    torch.testing.assert_close(network(images[1:]), both[1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fold_batch_norms(network)(images), both, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_released_file_becomes_the_network_of_its_size(prefix):
    conversion = convert({prefix + name: tensor for name, tensor in official().items()})
    network = FAN(**conversion.config)
    network.load_state_dict(conversion.tensors["model"])
    assert network.eval().landmarks(PICTURE, BOX).equal(small().landmarks(PICTURE, BOX))


class Scripted(torch.nn.Module):
    """A module of other modules, as the released archive is."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        children: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            first, dot, rest = name.partition(".")
            if dot:
                children.setdefault(first, {})[rest] = tensor
            else:
                self.register_buffer(first, tensor)
        for name, inner in children.items():
            self.add_module(name, Scripted(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_the_released_archive_becomes_a_model_without_being_run(tmp_path):
    archive = tmp_path / "3DFAN4-4a694010b9.zip"
    torch.jit.save(torch.jit.trace(Scripted(official()), torch.zeros(1)), archive)
    hub.convert("fan3d-heatmap", archive, tmp_path / "ours")
    network = load(tmp_path / "ours", device="cpu")
    assert isinstance(network, FAN)
    for name, tensor in small().state_dict().items():
        assert network.state_dict()[name].equal(tensor)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("m1.b2_3.bn2.running_var"), "m1.b2_3.bn2.running_var"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra"),
        (lambda tensors: tensors.clear(), "conv1.weight"),
        (lambda tensors: tensors.update({"l0.weight": "text"}), "l0.weight"),
        (lambda tensors: tensors.update({"m0.b1_4.conv1.weight": torch.zeros(3)}), "m0.b1_4.conv1.weight"),
    ],
)
def test_other_files_are_refused(change, says):
    tensors = official()
    change(tensors)
    with pytest.raises(CheckpointError, match=says):
        convert(tensors)
