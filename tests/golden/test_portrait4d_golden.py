"""Portrait4D's small configuration against its own recorded outputs."""

from pathlib import Path

import pytest
import torch
from recorded import compare, numbers
from torch import Tensor, nn

from portraitzoo.faces.flame_head import HeadSizes
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.motion_embedding import MotionEncoder, crop_face
from portraitzoo.methods.portrait4d.benchmark import shape_ellipsoid
from portraitzoo.methods.portrait4d.cameras import around_head
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.portrait4d.network import Reconstructor
from portraitzoo.rendering.volume import RaySampling

RECORD = Path(__file__).with_name("portrait4d_small.npz")
CONFIG = Portrait4DConfig(
    image_resolution=64,
    motion_dim=24,
    motion_width=32,
    motion_tokens=16,
    w_dim=16,
    global_stem=8,
    global_widths=(8, 12, 16, 24),
    global_depths=(2, 1, 2, 1),
    global_channels=32,
    atrous_rates=(2, 4, 6),
    detail_channels=(12, 16),
    canonical_width=64,
    neutral_blocks=2,
    motion_blocks=2,
    canonical_channels=(24, 24, 16),
    plane_inputs=(32, 24),
    plane_width=64,
    plane_outputs=(32, 24, 24),
    plane_channels=16,
    background_widths=(8, 12, 16, 20),
    super_resolution_input=16,
    super_resolution_channels=(16, 8),
    depth_samples=12,
    importance_samples=12,
    render_resolution=16,
    head=HeadSizes(vertices=90, faces=100, coarse_vertices=80, coarse_faces=150),
)


@torch.no_grad()
def fill(network: nn.Module, prefix: str) -> nn.Module:
    """Weights that keep activations in range, none of which is without effect."""
    for name, tensor in network.named_parameters():
        value = numbers(f"{prefix}.{name}", *tensor.shape)
        equalised = prefix == "discriminator" or name.startswith(("decoder", "super_resolution"))
        if tensor.ndim < 2:
            value = value * 0.05 + (1 if "norm" in name and name.endswith("weight") else 0)
        elif "mapping.layers" in name:
            value = value * 100
        elif not equalised:
            value = value * (1.4 / tensor[0].numel() ** 0.5)
        tensor.copy_(value)
    for name, tensor in network.named_buffers():
        if name.endswith("running_mean"):
            tensor.copy_(numbers(f"{prefix}.{name}", *tensor.shape) * 0.1)
        elif name.endswith("running_var"):
            tensor.copy_(1 + numbers(f"{prefix}.{name}", *tensor.shape).abs() * 0.2)
    return network.eval()


@torch.no_grad()
def render() -> dict[str, Tensor]:
    network = fill(Reconstructor(CONFIG), "reconstructor")
    shape_ellipsoid(network.head)
    network.w_avg.copy_(numbers("w_avg", 16) * 0.5)
    network.plane_generator.output.weight *= 4
    network.decoder.output.bias[0] = 3  # neither empty nor opaque
    turn = torch.tensor([-0.3, 0.2])
    camera = around_head(turn, turn / 2, turn / 3, numbers("pivot", 2, 3) * 0.02, torch.tensor([4.0, 4.2]))
    pose = torch.cat([numbers("neck", 2, 3) * 0.15, numbers("jaw", 2, 3) * 0.05], dim=1)
    heads = FlameParameters(torch.zeros(2, 300), torch.zeros(2, 100), pose, torch.zeros(2, 6))
    image, motions = numbers("image", 2, 3, 64, 64) * 0.4, numbers("motions", 2, 2, 24)
    field = network.neck_field(heads)
    points = numbers("points", 2, 50, 3) * 0.3
    found: dict[str, Tensor] = {"canonical": field(points)}
    for name, scale, box in (
        ("whole", None, 1.0),
        ("static", 0.0, 1.0),
        ("box", 0.5, torch.tensor([[[0.97]], [[1.0]]])),
    ):
        source = network.encode(image, motions[0], scale)
        planes = network.planes(source, motions[1], scale)
        jitter = torch.full((2, 256, 12), 0.5)
        output = network.render(planes, source, camera, field, box_scale=box, sampling=RaySampling(jitter))
        found |= {
            f"{name}.planes": planes[:, :, ::4, ::8, ::8],
            f"{name}.image": output.image[:, :, ::4, ::4],
            f"{name}.image_raw": output.image_raw[:, :, ::2, ::2],
            f"{name}.background": output.background[:, :, ::4, ::4],
            f"{name}.depth": output.depth[:, :, ::2, ::2],
            f"{name}.opacity": output.opacity[:, :, ::2, ::2],
            f"{name}.density": network.field(points, planes, field, box)[0],
        }
    return found


@torch.no_grad()
def embed() -> dict[str, Tensor]:
    encoder = fill(MotionEncoder(width=16, landmarks=6, features=16), "encoder")
    coarse = numbers("face", 2, 3, 16, 16)
    images = torch.nn.functional.interpolate(coarse, (200, 200), mode="bilinear").clamp(-1, 1)
    landmarks = 100 + numbers("landmarks", 2, 68, 2) * 40
    crops = crop_face(images, landmarks)
    return {"crop": crops[:, :, ::16, ::16], "motion": encoder(crops)}


def judge() -> dict[str, Tensor]:
    sizes = DiscriminatorConfig(image_resolution=64, channel_base=1024, channel_max=32)
    discriminator = fill(Discriminator(sizes), "discriminator")
    image = (numbers("judged", 4, 3, 64, 64) * 0.5).requires_grad_()
    small = numbers("small", 4, 4, 16, 16) * 0.5
    camera = around_head(
        *(numbers(part, 4) * 0.1 for part in ("yaw", "pitch", "roll")), torch.zeros(4, 3), torch.ones(4)
    )
    logits = discriminator(image, small[:, :3], camera.label(), numbers("uv", 4, 3, 64, 64) * 0.5, small[:, 3:])
    (gradient,) = torch.autograd.grad(logits.sum(), image)
    return {"logits": logits.detach(), "penalty": gradient.square().sum(dim=(1, 2, 3))}


@pytest.mark.parametrize("part", [render, embed, judge], ids=["reconstructor", "motion", "discriminator"])
def test_outputs_are_those_recorded(part) -> None:
    compare(RECORD, part())
