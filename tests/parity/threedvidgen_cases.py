"""A case of the reference folder as our networks of 3D-Aware Video Generation."""

from dataclasses import replace
from functools import lru_cache

import reference
import torch
from torch import Tensor, nn

from portraitzoo.methods.threedvidgen.discriminator import (
    DiscriminatorConfig,
    ImageDiscriminator,
    VideoDiscriminator,
)
from portraitzoo.methods.threedvidgen.network import Generator, ThreeDVidGenConfig
from portraitzoo.methods.threedvidgen.weights import discriminator_tensors, generator_tensors, infer_config


def is_discriminator(case: reference.Case) -> bool:
    return case.manifest["config"]["network"] == "D"


def config_of(case: reference.Case) -> ThreeDVidGenConfig:
    """Sizes read off the tensors, and from the manifest what shapes cannot tell."""
    synthesis = case.manifest["config"]["constructor"]["synthesis_kwargs"]
    camera, renderer = synthesis["camera_kwargs"], synthesis["renderer_kwargs"]
    settings = {
        "yaw_range": tuple(camera["range_u"]),
        "polar_range": tuple(camera["range_v"]),
        "radius_range": tuple(camera["range_radius"]),
        "depth_near": camera["depth_range"][0],
        "depth_far": camera["depth_range"][1],
        "fov": camera["fov"],
        "background_start": camera["bg_start"],
        "ray_samples": renderer["n_ray_samples"],
        "background_samples": renderer["n_bg_samples"],
        "regularised_pixels": synthesis["n_reg_samples"],
    }
    return infer_config(case.state_dict(), settings)


@lru_cache(maxsize=1)
def generator_of(case: reference.Case) -> Generator:
    """The case's generator through the conversion, in evaluation mode."""
    config = config_of(case)
    generator = Generator(config)
    generator.load_state_dict(generator_tensors(case.state_dict(), config)[0])
    return generator.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def discriminators_of(case: reference.Case) -> tuple[ImageDiscriminator, VideoDiscriminator]:
    """The case's discriminators through the conversion."""
    tensors, _ = discriminator_tensors(case.state_dict())
    group = case.manifest["config"]["constructor"]["epilogue_kwargs"]["mbstd_group_size"]
    image, video = part(tensors, "image_discriminator"), part(tensors, "video_discriminator")
    config = replace(DiscriminatorConfig.of(video), group_size=group)
    return _loaded(ImageDiscriminator(config), image), _loaded(VideoDiscriminator(config), video)


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named ``prefix.*``, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _loaded(network: nn.Module, tensors: dict[str, Tensor]):
    network.load_state_dict(tensors)
    return network.requires_grad_(False)


def sphere_axes(cam2world: Tensor) -> Tensor:
    """Camera matrices in the reference's conventions: z up, cameras looking along -z (``from_sphere_axes`` undone)."""
    return (cam2world * torch.tensor([1.0, -1.0, -1.0, 1.0]))[..., [2, 0, 1, 3], :]
