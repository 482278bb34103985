import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.rays import Rays, box_intersections, cast_rays

angles = st.floats(-1, 1)


@settings(max_examples=30, deadline=None)
@given(angles, angles, st.floats(0.5, 6), st.integers(1, 9), st.floats(-0.2, 0.2))
def test_points_on_a_ray_project_back_to_its_pixel(yaw, pitch, focal, resolution, skew) -> None:
    camera = Camera.look_at(torch.tensor([yaw]), pitch, focal=focal)
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, 0, 1] = skew
    camera = Camera(camera.cam2world, intrinsics)
    rays = cast_rays(camera, resolution)
    points = rays.at(torch.full((1, resolution**2, 1), 2.5))[0, :, 0]
    world2cam = torch.linalg.inv(camera.cam2world[0])
    in_camera = points @ world2cam[:3, :3].T + world2cam[:3, 3]
    projected = in_camera @ intrinsics[0].T
    pixel = projected[:, :2] / projected[:, 2:] * resolution
    i, j = torch.meshgrid(torch.arange(resolution), torch.arange(resolution), indexing="ij")
    expected = torch.stack([j.flatten() + 0.5, i.flatten() + 0.5], dim=1)
    torch.testing.assert_close(pixel, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(1, resolution**2))


@settings(max_examples=30, deadline=None)
@given(angles, angles, st.floats(0.5, 1.2))
def test_rays_enter_and_leave_on_the_faces_of_the_box(yaw, pitch, side) -> None:
    rays = cast_rays(Camera.look_at(torch.tensor([yaw]), pitch, focal=1.5), 8)
    entry, exit_ = box_intersections(rays, side)
    hit = entry[..., 0] < exit_[..., 0]
    assert hit.any() and not hit.all()
    for distance in (entry, exit_):
        points = rays.at(distance)[..., 0, :][hit]
        torch.testing.assert_close(
            points.abs().amax(dim=-1), torch.full((len(points),), side / 2), rtol=1e-4, atol=1e-4
        )
    assert (entry[~hit] == -1).all() and (exit_[~hit] == -2).all()


def test_part_of_the_rays() -> None:
    rays = Rays(torch.rand(3, 5, 3), torch.rand(3, 5, 3))
    part = rays[1:2, 2:4]
    assert torch.equal(part.origins, rays.origins[1:2, 2:4])
    assert torch.equal(part.directions, rays.directions[1:2, 2:4])
