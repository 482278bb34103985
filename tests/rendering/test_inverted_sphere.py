import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.rendering.inverted_sphere import inverted_sphere


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), distance=st.floats(1.01, 50.0))
def test_points_lie_on_the_ray_at_the_wanted_distance_from_the_centre(seed: int, distance: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    origins = torch.randn(8, 3, generator=draw, dtype=torch.float64)
    origins = origins / origins.norm(dim=-1, keepdim=True) * torch.rand(8, 1, generator=draw, dtype=torch.float64) * 0.9
    directions = torch.randn(8, 3, generator=draw, dtype=torch.float64)
    inverse = torch.full((8,), 1 / distance, dtype=torch.float64)
    points, along = inverted_sphere(origins, directions, inverse)
    world = origins + along[:, None] * directions
    # The small constant in the distance keeps infinity finite.
    torch.testing.assert_close(world.norm(dim=-1), torch.full((8,), distance, dtype=torch.float64), rtol=1e-4, atol=0)
    torch.testing.assert_close(points[:, :3], world / world.norm(dim=-1, keepdim=True), rtol=0, atol=1e-4)
    assert torch.equal(points[:, 3], inverse)


def test_infinity_lies_in_the_ray_s_direction_and_the_centre_is_no_obstacle() -> None:
    origins = torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.0, 1.0]])
    directions = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, -2.0]])
    points, _ = inverted_sphere(origins, directions, torch.zeros(2))
    torch.testing.assert_close(points[:, :3], directions / directions.norm(dim=-1, keepdim=True), rtol=0, atol=1e-5)
