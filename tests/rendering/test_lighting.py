"""Spherical-harmonics light against the integrals that it stands for."""

import torch

from portraitzoo.rendering.lighting import ambient, distant, fibonacci_sphere, irradiance, spherical_harmonics, transfer

torch.set_num_threads(1)


def test_the_basis_is_orthonormal() -> None:
    directions = fibonacci_sphere(20000)
    basis = spherical_harmonics(directions)
    gram = basis.T @ basis * (4 * torch.pi / len(directions))
    torch.testing.assert_close(gram, torch.eye(9), atol=2e-3, rtol=0)


def test_irradiance_is_the_cosine_weighted_integral() -> None:
    directions = fibonacci_sphere(20000)
    light = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)) * 0.1 + ambient(torch.ones(3))
    radiance = spherical_harmonics(directions) @ light
    normals = fibonacci_sphere(7)
    cosine = (normals @ directions.T).clamp(min=0)
    integral = cosine @ radiance * (4 * torch.pi / len(directions)) / torch.pi
    torch.testing.assert_close(irradiance(light, normals), integral, atol=5e-3, rtol=0)


def test_ambient_and_distant_light() -> None:
    colour = torch.tensor([0.2, 0.5, 0.9])
    everywhere = irradiance(ambient(colour), fibonacci_sphere(5))
    torch.testing.assert_close(everywhere, colour.expand(5, 3))
    toward = torch.tensor([0.0, 0.6, 0.8])
    lamp = distant(toward, colour)
    torch.testing.assert_close(irradiance(lamp, toward), colour * 17 / 16, atol=1e-5, rtol=0)
    assert irradiance(lamp, -toward).max() < 0.1


def test_transfer_is_irradiance_less_the_shadow() -> None:
    # A wide floor with a roof over its middle: the middle gets only what comes from the sides.
    grid = torch.linspace(-1, 1, 9)
    x, z = torch.meshgrid(grid, grid, indexing="ij")
    floor = torch.stack([x, torch.zeros_like(x), z], -1).reshape(-1, 3)
    index = torch.arange(81).view(9, 9)
    a, b, c, d = (part.reshape(-1) for part in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    faces = torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)])
    roof = 0.4 * floor + torch.tensor([0.0, 0.3, 0.0])
    up = torch.tensor([0.0, 1.0, 0.0]).expand(81, 3)
    light = ambient(torch.ones(3))
    open_floor = transfer(floor, up, faces, directions=200) @ light
    torch.testing.assert_close(open_floor, irradiance(light, up), atol=0.06, rtol=0)
    covered = (
        transfer(torch.cat([floor, roof]), torch.cat([up, up]), torch.cat([faces, faces + 81]), directions=200)[:81]
        @ light
    )
    assert covered[40].max() < 0.6 < open_floor[40].min()
    assert (covered <= open_floor + 1e-5).all()
