"""What only a CUDA device can show of PV3D: the CPU's numbers, batches that agree, half precision."""

import pytest
import torch

from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.network import Generator, PV3DConfig, PV3DOutput
from portraitzoo.rendering.cameras import trajectory
from portraitzoo.rendering.volume import RaySampling

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CONFIG = PV3DConfig(
    z_dim=64,
    w_dim=64,
    motion_dim=64,
    image_resolution=128,
    plane_resolution=64,
    channel_base=2048,
    channel_max=128,
    super_resolution_input=32,
    super_resolution_channels=(32, 16),
    depth_samples=12,
    importance_samples=12,
    render_resolution=32,
)
FRAMES = 4


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    network = Generator(CONFIG).eval()
    network.decoder.output.bias.data[0] = 40.0  # dense enough to be seen
    return network


def render(network: Generator, device: str, rows: slice = slice(FRAMES)) -> PV3DOutput:
    draw = torch.Generator().manual_seed(1)
    z, z_motion = torch.randn(2, 1, CONFIG.z_dim, generator=draw)
    uniforms = torch.rand(FRAMES, CONFIG.render_resolution**2, CONFIG.importance_samples, generator=draw)
    camera = trajectory("orbit", FRAMES)
    ws = network.mapping(z.to(device), camera[:1].label().to(device)).expand(FRAMES, -1, -1)
    return network.synthesis(
        ws[rows],
        z_motion.expand(FRAMES, -1)[rows].to(device),
        torch.linspace(0, 1, FRAMES)[rows].to(device),
        camera[rows].to(device),
        sampling=RaySampling(uniforms=uniforms[rows].to(device)),
    )


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual.cpu().float() - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
def test_float32_on_the_gpu_is_float32_on_the_cpu(generator: Generator) -> None:
    expected = render(generator.cpu(), "cpu")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        actual = render(generator.cuda(), "cuda")
    for name in ("image", "image_raw", "depth", "position", "opacity"):
        assert relative_error(getattr(actual, name), getattr(expected, name)) < 1e-3, name


@torch.no_grad()
def test_a_frame_is_the_same_in_any_batch_up_to_rounding(generator: Generator) -> None:
    together = render(generator.cuda(), "cuda").image.cpu()
    alone = torch.cat([render(generator, "cuda", slice(row, row + 1)).image.cpu() for row in range(FRAMES)])
    assert relative_error(alone, together) < 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_low_precision_super_resolution_stays_close(generator: Generator, dtype: torch.dtype) -> None:
    expected = render(generator.cuda(), "cuda").image.cpu()
    try:
        for block in generator.super_resolution.blocks:
            block.low_precision = dtype
        actual = render(generator, "cuda").image
    finally:
        for block in generator.super_resolution.blocks:
            block.low_precision = None
    assert torch.isfinite(actual).all()
    assert relative_error(actual, expected) < (5e-2 if dtype == torch.bfloat16 else 1e-2)


def test_gradients_on_the_gpu_are_those_on_the_cpu() -> None:
    sizes = DiscriminatorConfig.beside(CONFIG)
    draw = torch.Generator().manual_seed(2)
    image, raw = torch.randn(4, 3, 128, 128, generator=draw), torch.randn(4, 3, 32, 32, generator=draw)
    labels, times = trajectory("orbit", 4).label(), torch.rand(2, 2, generator=draw)
    norms = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        judge, pair_judge = ImageDiscriminator(sizes).to(device), VideoDiscriminator(sizes).to(device)
        pixels = image.to(device).requires_grad_()
        pair = pair_judge.stack_pair(pixels.unflatten(0, (2, 2)), times.to(device))
        scores = judge(pixels, raw.to(device), labels.to(device)).sum()
        scores = scores + pair_judge(pair, labels.unflatten(0, (2, 2)).to(device)).sum()
        (gradient,) = torch.autograd.grad(scores, pixels, create_graph=True)
        gradient.square().sum().backward()  # R1 differentiates twice
        norms[device] = torch.stack([p.grad.norm().cpu() for p in judge.parameters() if p.grad is not None])
    assert relative_error(norms["cuda"], norms["cpu"]) < 1e-2
