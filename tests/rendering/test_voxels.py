import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.rendering.voxels import cell_centres, interpolate_cells

SIDE = 1.3


def values(resolution: int) -> torch.Tensor:
    return torch.randn(2, 3, resolution, resolution, resolution, generator=torch.Generator().manual_seed(resolution))


def test_centres_have_the_values_of_their_cells():
    grid, points = values(4), cell_centres(4, SIDE).expand(2, -1, -1)
    torch.testing.assert_close(interpolate_cells(grid, points, SIDE), grid.flatten(2).mT, atol=1e-5, rtol=0)


@given(seed=st.integers(0, 10_000), resolution=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_table_and_grid_sampling_agree(seed, resolution):
    points = (torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * 2 * SIDE
    gathered = interpolate_cells(values(resolution), points, SIDE)
    sampled = interpolate_cells(values(resolution).requires_grad_(), points, SIDE)
    torch.testing.assert_close(gathered, sampled.detach(), atol=2e-5, rtol=0)


def test_nothing_is_beyond_one_cell_of_the_outermost_centres():
    far = torch.tensor([[0.0, 0.0, SIDE / 2 + SIDE / 8 + 1e-3], [SIDE, 0.0, 0.0]]).expand(2, -1, -1)
    assert not interpolate_cells(values(4), far, SIDE).any()
