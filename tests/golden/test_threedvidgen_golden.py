"""3D-Aware Video Generation at a small size against its own recorded outputs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recorded import compare, numbers
from torch import Tensor, nn

from portraitzoo.methods.threedvidgen.cameras import camera_on_sphere
from portraitzoo.methods.threedvidgen.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.threedvidgen.network import Generator, ThreeDVidGenConfig
from portraitzoo.methods.threedvidgen.renderer import Draws

RECORD = Path(__file__).with_name("threedvidgen_small.npz")
FACES = ThreeDVidGenConfig(
    z_dim=32,
    w_dim=32,
    motion_dim=24,
    background_dim=8,
    mapping_layers=3,
    image_resolution=64,
    render_resolution=16,
    feature_channels=24,
    channel_base=1024,
    channel_max=32,
    field_width=32,
    field_layers=4,
    motion_width=24,
    background_width=16,
    background_layers=3,
    ray_samples=6,
    regularised_pixels=8,
)
ACTORS = replace(FACES, enlargement="pixelshuffle", view_dependent=False, fov=12.0)
SHARE_OF_PIXELS = 0.99
"""An importance sample in a nearly empty bin is the quotient of two rounding errors (see the parity test)."""


def fill(network: nn.Module, prefix: str) -> nn.Module:
    """Weights of about the size of fresh ones, none of which is without effect."""
    for name, tensor in network.state_dict().items():
        value = numbers(f"{prefix}.{name}", *tensor.shape)
        if name.endswith("magnitude"):
            value = 1 + value.abs() / 4
        elif name == "alpha":
            value = torch.zeros(())
        elif name.endswith("affine.bias") and ".motion." not in name:
            value = 1 + value * 0.05  # styles are around 1
        elif name.endswith("bias"):
            value *= 0.05
        elif name.startswith("mapping.layers"):
            value *= 100
        elif name.startswith("background") and "to_rgb" not in name:
            value *= (2 / tensor.shape[-1]) ** 0.5
        tensor.copy_(value)
    return network.eval()


@torch.no_grad()
def generator_of(config: ThreeDVidGenConfig) -> Generator:
    generator = fill(Generator(config), "generator")
    generator.field.sigma_out.weight *= 4  # neither empty nor opaque
    generator.field.sigma_out.bias.fill_(3.0)
    generator.background.sigma_out.bias.fill_(3.0)
    return generator


def inputs(config: ThreeDVidGenConfig) -> dict:
    camera = camera_on_sphere(
        torch.tensor([[-0.3, 0.2], [0.1, 0.1]]), torch.tensor([[1.5, 1.6], [1.5, 1.5]]), 1.0, config.fov
    )
    codes = {"z_motion": numbers("z_motion", 2, 24), "z_background": numbers("z_background", 2, 8)}
    return codes | {"times": torch.tensor([[0.2, 0.9], [0.0, 0.5]]), "camera": camera}


@torch.no_grad()
def render() -> dict[str, Tensor]:
    found = {}
    for name, config in {"faces": FACES, "actors": ACTORS}.items():
        generator = generator_of(config)
        ws = generator.mapping(numbers("z", 2, 32), truncation_psi=0.8, truncation_cutoff=7)
        output = generator.synthesis(ws, **inputs(config))
        found |= {
            f"{name}.ws": ws[:, [0, 6, 7]],
            f"{name}.image": output.image[:, :, ::4, ::4],
            f"{name}.image_raw": output.image_raw[:, :, ::2, ::2],
            f"{name}.features": output.features[:, ::6, ::4, ::4],
            f"{name}.weights": output.weights[:, ::8],
            f"{name}.transmittance": output.transmittance,
        }
    return found


def train() -> dict[str, Tensor]:
    generator = generator_of(FACES).train()
    shapes = {"offsets": (2,), **dict.fromkeys(("jitter", "noise", "uniforms", "fine_noise"), (320, 6))}
    shapes |= dict.fromkeys(("background_jitter", "background_noise"), (320, 4))
    draws = {name: numbers(name, 2, *shape) for name, shape in shapes.items()}
    uniform = {name: value if name.endswith("noise") else value.sigmoid() for name, value in draws.items()}
    ws = generator.mapping(numbers("z", 2, 32)).detach().requires_grad_()
    output = generator.synthesis(ws, **inputs(FACES), draws=Draws(**uniform))
    (gradient,) = torch.autograd.grad(output.image.square().mean() + output.regularisation.mean(), ws)
    magnitudes = [buffer for name, buffer in generator.named_buffers() if name.endswith("magnitude")]
    found = {"train.image": output.image[:, :, ::4, ::4], "train.regularisation": output.regularisation}
    return {name: value.detach() for name, value in found.items()} | {
        "train.gradient_norms": gradient.norm(dim=2),
        "train.magnitudes": torch.stack(magnitudes),
    }


def judge() -> dict[str, Tensor]:
    sizes = replace(DiscriminatorConfig.beside(FACES), group_size=2)
    judge_image, judge_video = ImageDiscriminator(sizes), VideoDiscriminator(sizes)
    with torch.no_grad():
        fill(judge_image, "image_discriminator")
        fill(judge_video, "video_discriminator")
    frames = numbers("frames", 4, 2, 3, 64, 64) * 0.5
    pair = judge_video.stack_pair(
        frames, torch.tensor([[0.1, 0.4], [0.5, 1.0], [0.0, 0.0], [0.2, 0.3]])
    ).requires_grad_()
    logits = judge_video(pair)
    (gradient,) = torch.autograd.grad(logits.sum(), pair)
    return {
        "image_logits": judge_image(frames.flatten(0, 1)).detach(),
        "video_logits": logits.detach(),
        "video_penalty": gradient.square().sum(dim=(1, 2, 3)),
    }


@pytest.mark.parametrize("part", [render, train, judge], ids=["generator", "training", "discriminators"])
def test_outputs_are_those_recorded(part) -> None:
    limits = {"gradient": 2e-3, "penalty": 2e-3}
    compare(RECORD, part(), translucent=["transmittance"], limits=limits, share=SHARE_OF_PIXELS, worst=2e-2)
