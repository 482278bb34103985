"""What only a CUDA device can show of the metrics: the same numbers as the CPU, again and again."""

import pytest
import torch

from portraitzoo.metrics import arcface, inception, inception3d, vgg
from portraitzoo.metrics.chamfer import nearest_squared
from portraitzoo.metrics.features import FeatureNetwork, randomise
from portraitzoo.metrics.frechet import FrechetDistance
from portraitzoo.metrics.multiview import side_camera
from portraitzoo.metrics.precision_recall import manifold_shares
from portraitzoo.metrics.warping import forward_warp
from portraitzoo.rendering.cameras import Camera

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (inception3d.I3D, (2, 16, 64, 64, 3)),
        (inception.Inception, (2, 96, 96, 3)),
        (vgg.VGG16, (2, 96, 96, 3)),
        (arcface.IRSE50, (2, 112, 112, 3)),
        (lambda: arcface.IResNet((2, 2, 2, 2)), (2, 112, 112, 3)),
    ],
)
def test_networks_are_true_fp32_whatever_training_allows(build, shape, precision) -> None:
    module = build()
    randomise(module, "gpu")
    network = FeatureNetwork("x", module, comparable=False)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    expected = network(pixels)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found = network(pixels.cuda()).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("z_buffer", [False, True])
def test_scattering_is_deterministic(z_buffer) -> None:
    front, side = torch.rand(2, 256, 256, 3, generator=torch.Generator().manual_seed(0))
    depth = 2.6 + 0.2 * torch.rand(64, 64, generator=torch.Generator().manual_seed(1))
    cameras = Camera.canonical(), side_camera()
    on_cpu, valid = forward_warp(front, side, depth, *cameras, z_buffer=z_buffer)
    runs = [
        forward_warp(front.cuda(), side.cuda(), depth.cuda(), *(c.to("cuda") for c in cameras), z_buffer=z_buffer)
        for _ in range(3)
    ]
    for warped, where in runs:
        assert torch.equal(warped, runs[0][0]) and torch.equal(where, runs[0][1])
    # Rounding may move a point across the edge of a pixel.
    assert ((runs[0][0].cpu() - on_cpu).abs().amax(-1) > 1e-5).float().mean() < 0.01
    assert (runs[0][1].cpu() != valid).float().mean() < 0.01


def test_state_on_the_device_gives_the_same_distance() -> None:
    real, fake = torch.randn(2, 500, 64, generator=torch.Generator().manual_seed(0))
    values = []
    for device in ("cpu", "cuda"):
        metric = FrechetDistance(num_features=64).to(device)
        metric.update_features(real.to(device), real=True)
        metric.update_features(fake.to(device) + 1, real=False)
        values.append(metric.compute().cpu())
    torch.testing.assert_close(values[1], values[0], rtol=1e-9, atol=0)


def test_nearest_points_on_the_device() -> None:
    first, second = torch.rand(2, 3000, 3, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(
        nearest_squared(first.cuda(), second.cuda()), nearest_squared(first, second), strict=True
    ):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-9)


def test_manifolds_are_those_of_the_cpu() -> None:
    real, fake = (torch.randn(300, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    on_cpu = manifold_shares(real, fake)
    on_gpu = manifold_shares(real.cuda(), fake.cuda())
    # Rounding may move an item across the edge of a ball.
    torch.testing.assert_close(torch.stack(on_gpu).cpu(), torch.stack(on_cpu), rtol=0, atol=1.1 / 300)
