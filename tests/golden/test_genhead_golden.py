"""GenHead's small configuration against its own recorded outputs."""

import sys
from pathlib import Path

import pytest
import torch
from recorded import compare, fill, numbers
from torch import Tensor

sys.path.append(
    str(Path(__file__).resolve().parents[1] / "faces")
)  # the made-up head lives beside the heads' own tests
from toy_head import toy_arrays

from portraitzoo.faces.flame_head import FlameHead, HeadSizes
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.head_maps import correspondence_map
from portraitzoo.methods.genhead.cameras import frontal, placed
from portraitzoo.methods.genhead.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.genhead.network import Generator, GenHeadConfig
from portraitzoo.rendering.cameras import Camera

RECORD = Path(__file__).with_name("genhead_small.npz")
CONFIG = GenHeadConfig(
    z_dim=32,
    w_dim=32,
    image_resolution=128,
    plane_resolution=32,
    plane_channels=16,
    channel_base=512,
    channel_max=16,
    background_resolution=32,
    background_channel_base=512,
    background_channel_max=16,
    background_mapping_layers=3,
    super_resolution_input=32,
    super_resolution_channels=(16, 8),
    samples=12,
    render_resolution=16,
    head=HeadSizes.of_arrays(toy_arrays()),
)


def generator() -> Generator:
    network = fill(Generator(CONFIG), "generator")
    network.head.load_state_dict(FlameHead.from_arrays(toy_arrays()).state_dict())
    network.decoder.output.weight[0] *= 4
    network.decoder.output.bias[0] = -4.0  # neither empty nor opaque
    return network


@torch.no_grad()
def render() -> dict[str, Tensor]:
    network = generator()
    camera = Camera.stack([frontal(), placed(Camera.look_at(0.3, 0.1))])
    shape, expression = 0.3 * numbers("shape", 2, 300), 0.3 * numbers("expression", 2, 100)
    # Straight necks: with turned ones rounding decides too much of what follows.
    turns = 0.1 * numbers("pose", 2, 12) * torch.tensor([0.0] * 3 + [1.0] * 9)
    parameters = FlameParameters(shape, expression, *turns.split(6, dim=1))
    ws = network.mapping(numbers("z", 2, 32), camera, shape, truncation_psi=0.8, truncation_cutoff=4)
    planes, backdrop, heads = network.planes(ws), network.backdrop(numbers("z", 2, 32)), network.pose(parameters)
    vertices = torch.stack([head.vertices for head in heads])
    places, _ = correspondence_map(network.head, vertices, camera, 64)
    found = {"ws": ws[:, [0, 3, 4]], "vertices": vertices, "places": places[:, :, ::2, ::2]}
    for name, options in {"usual": {}, "blended": {"render_resolution": 66}}.items():
        output = network.render(planes, backdrop, heads, camera, **options)
        found |= {
            f"{name}.image": output.image[:, :, ::4, ::4],
            f"{name}.image_raw": output.image_raw[:, :, ::2, ::2],
            f"{name}.depth": output.depth[:, :, ::2, ::2],
            f"{name}.opacity": output.opacity[:, :, ::2, ::2],
            f"{name}.mouth": output.masks.mouth[:, :, ::2, ::2],
        }
    turned = FlameParameters(shape, expression, 0.2 * numbers("neck", 2, 6), turns[:, 6:])
    straight = [head.straighten(numbers("points", 64, 3) * 0.2) for head in network.pose(turned)]
    return found | {"straight": torch.stack(straight)}


def judge() -> dict[str, Tensor]:
    with torch.no_grad():
        network = fill(Discriminator(DiscriminatorConfig.beside(CONFIG)), "discriminator")
    image = (numbers("image", 2, 3, 128, 128) * 0.5).requires_grad_()
    maps = numbers("places", 2, 3, 128, 128), numbers("segmentation", 2, 1, 16, 16)
    logits = network(image, numbers("image_raw", 2, 3, 16, 16) * 0.5, numbers("label", 2, 25), *maps)
    (gradient,) = torch.autograd.grad(logits.sum(), image)
    return {"logits": logits.detach(), "penalty": gradient.square().sum(dim=(1, 2, 3))}


@pytest.mark.parametrize("part", [render, judge], ids=["generator", "discriminator"])
def test_outputs_are_those_recorded(part) -> None:
    compare(RECORD, part())
