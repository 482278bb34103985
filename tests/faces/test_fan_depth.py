import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.errors import CheckpointError
from portraitzoo.faces.fan import FAN, FaceWindow
from portraitzoo.faces.fan_depth import FanDepth, gaussians, landmarks3d
from portraitzoo.hub.conversion import official_name
from portraitzoo.hub.faces.fan_depth import TABLE, convert
from portraitzoo.layers.conv_norm import fold_batch_norms

PICTURE = torch.randint(0, 256, (120, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
BOX = torch.tensor([40.0, 30.0, 100.0, 110.0])
IMAGES = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
POINTS = torch.rand(2, 68, 2, generator=torch.Generator().manual_seed(2)) * 63 + 0.5


def small() -> FanDepth:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FanDepth((1, 1, 1, 1), (4, 4, 4, 4)).eval()


@given(x=st.floats(8, 50, width=32), y=st.floats(8, 50, width=32))
@settings(max_examples=30, deadline=None)
def test_gaussians_are_highest_at_their_pixel(x, y):
    drawn = gaussians(torch.tensor([x, y]), 64)
    row, column = divmod(int(drawn.argmax()), 64)
    assert (column + 1, row + 1) == (int(x), int(y))
    assert float(drawn.max()) == 1
    assert int((drawn > 0).sum()) == 13 * 13
    torch.testing.assert_close(drawn[row - 6 : row + 7, column], drawn[row, column - 6 : column + 7])


@pytest.mark.parametrize("point", [(-40.0, 20.0), (20.0, 200.0), (500.0, 500.0)])
def test_nothing_is_drawn_of_points_far_outside(point):
    assert not gaussians(torch.tensor(point), 64).any()


@torch.no_grad()
def test_depths_depend_on_picture_and_points_but_not_on_the_batch():
    network = small()
    both = network(IMAGES, POINTS)
    assert both.shape == (2, 68)
    torch.testing.assert_close(network(IMAGES[1:], POINTS[1:]), both[1:])
    assert not network(IMAGES, POINTS.roll(1, 1)).equal(both)
    assert not network(IMAGES.flip(0), POINTS).equal(both)
    torch.testing.assert_close(fold_batch_norms(network)(IMAGES, POINTS), both, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_landmarks_in_space_are_those_of_the_picture_with_depth():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = FAN(stacks=1, width=16, stem=8).eval()
    depth = small()
    depth.fc.weight.zero_()
    depth.fc.bias.copy_(torch.arange(68.0))
    found = landmarks3d(PICTURE, BOX, network, depth)
    assert found[:, :2].equal(network.landmarks(PICTURE, BOX))
    # Depths come in pixels of the 256 crop.
    torch.testing.assert_close(found[:, 2], torch.arange(68.0).double() * FaceWindow.of_box(BOX).side / 256)


@pytest.mark.parametrize("wrap", [dict, lambda t: {"state_dict": {f"module.{k}": v for k, v in t.items()}}])
@torch.no_grad()
def test_a_released_file_becomes_the_network_of_its_size(wrap):
    official = {official_name(name, TABLE) or "": tensor for name, tensor in small().state_dict().items()}
    conversion = convert(wrap(official))
    network = FanDepth(**conversion.config).eval()
    network.load_state_dict(conversion.tensors["model"])
    assert network(IMAGES, POINTS).equal(small()(IMAGES, POINTS))


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [({}, "residual network"), ({"state_dict": 3}, "state_dict is a int"), ({"layer1.0.conv1.weight": 1}, "residual")],
)
def test_other_files_are_refused(checkpoint, says):
    with pytest.raises(CheckpointError, match=says):
        convert(checkpoint)
