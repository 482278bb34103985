"""PV3D's small configuration against its own recorded outputs."""

from pathlib import Path

import pytest
import torch
from recorded import compare, fill, numbers
from torch import Tensor

from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.network import Generator, PV3DConfig
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.volume import RaySampling

RECORD = Path(__file__).with_name("pv3d_small.npz")
CONFIG = PV3DConfig(
    z_dim=64,
    w_dim=64,
    motion_dim=64,
    image_resolution=128,
    plane_resolution=64,
    channel_base=1024,
    channel_max=32,
    super_resolution_input=32,
    super_resolution_channels=(16, 8),
    depth_samples=12,
    importance_samples=12,
    render_resolution=16,
)


@torch.no_grad()
def render() -> dict[str, Tensor]:
    generator = fill(Generator(CONFIG), "generator")
    generator.decoder.output.weight *= 2
    generator.decoder.output.bias[0] = 0.5  # neither empty nor opaque
    camera = Camera.look_at(torch.tensor([-0.3, 0.2]), torch.tensor([0.1, -0.1]))
    ws = generator.mapping(numbers("z", 2, 64), camera.label(), truncation_psi=0.8, truncation_cutoff=6)
    z_motion, t = numbers("z_motion", 2, 64), torch.tensor([0.2, 0.9])
    uniform = RaySampling(numbers("jitter", 2, 256, 12).sigmoid(), numbers("uniforms", 2, 256, 12).sigmoid())
    found = {"ws": ws[:, [0, 5, 6]]}
    for name, options in {
        "even": {},
        "random": {"sampling": uniform},
        "fine": {"noise": "none", "render_resolution": 40},
    }.items():
        output = generator.synthesis(ws, z_motion, t, camera, **options)
        found |= {
            f"{name}.image": output.image[:, :, ::4, ::4],
            f"{name}.image_raw": output.image_raw[:, :, ::2, ::2],
            f"{name}.depth": output.depth[:, :, ::2, ::2],
            f"{name}.position": output.position[:, ::4, ::4],
            f"{name}.opacity": output.opacity[:, ::2, ::2],
        }
    points = numbers("points", 2, 50, 3) * 0.3
    return found | {"density": generator.density(points, ws, z_motion, t)}


def judge() -> dict[str, Tensor]:
    sizes = DiscriminatorConfig.beside(CONFIG)
    judge_image, judge_video = ImageDiscriminator(sizes), VideoDiscriminator(sizes)
    with torch.no_grad():
        fill(judge_image, "image_discriminator")
        fill(judge_video, "video_discriminator")
    image = (numbers("image", 4, 3, 128, 128) * 0.5).requires_grad_()
    label = Camera.look_at(torch.linspace(-0.5, 0.5, 4), 0.1).label()
    logits = judge_image(image, numbers("image_raw", 4, 3, 16, 16) * 0.5, label)
    (gradient,) = torch.autograd.grad(logits.sum(), image)
    pair = judge_video.stack_pair(image.detach().unflatten(0, (2, 2)), torch.tensor([[0.1, 0.4], [0.5, 1.0]]))
    return {
        "image_logits": logits.detach(),
        "image_penalty": gradient.square().sum(dim=(1, 2, 3)),
        "video_logits": judge_video(pair, label.unflatten(0, (2, 2))).detach(),
    }


@pytest.mark.parametrize("part", [render, judge], ids=["generator", "discriminators"])
def test_outputs_are_those_recorded(part) -> None:
    compare(RECORD, part())
