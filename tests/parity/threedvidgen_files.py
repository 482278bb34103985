"""Files of 3D-Aware Video Generation as its training loop would have written them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import persistence_pickles as pickles
import torch
from torch import Tensor

from portraitzoo.hub.conversion import official_name
from portraitzoo.layers.resampling import binomial_kernel
from portraitzoo.methods.threedvidgen.discriminator import ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.threedvidgen.network import Generator, ThreeDVidGenConfig
from portraitzoo.methods.threedvidgen.weights import DISCRIMINATOR_TABLE, GENERATOR_TABLE, JUDGES

KERNELS = re.compile(
    r"synthesis\.(fg_nerf\.(fc_in|blocks\.\d+|sigma_out|feat_out|from_ray|to_rgb)|bg_nerf\.to_rgb"
    r"|b\d+\.(conv[01](\.adapter\.\d+)?|torgb))\.weight"
)
"""Official tensors that are 1 x 1 kernels and not matrices."""


def official_generator(generator: Generator) -> dict[str, Tensor]:
    """The tensors of a generator by official names and shapes, unused filters included."""
    official = {}
    for name, tensor in generator.state_dict().items():
        theirs = official_name(name, GENERATOR_TABLE)
        official[theirs] = tensor[..., None, None] if KERNELS.fullmatch(theirs) else tensor
        if re.search(r"conv[01]\.bias$", theirs):
            official[theirs.replace("bias", "resample_filter")] = binomial_kernel(tensor)
    return official


def official_discriminators(image: ImageDiscriminator, video: VideoDiscriminator) -> dict[str, Tensor]:
    """The tensors of both discriminators by official names."""
    official = {}
    for judge, network in zip(JUDGES, (image, video), strict=True):
        official[f"{judge}.alpha"] = torch.zeros(())
        for name, tensor in network.state_dict().items():
            official[f"{judge}.{official_name(name, DISCRIMINATOR_TABLE)}"] = tensor
    return official


def camera_attributes(config: ThreeDVidGenConfig) -> dict[str, Any]:
    """Attributes of the camera object of a configuration."""
    return {
        "range_u": list(config.yaw_range),
        "range_v": list(config.polar_range),
        "range_radius": list(config.radius_range),
        "depth_range": [config.depth_near, config.depth_far],
        "fov": config.fov,
        "bg_start": config.background_start,
        "gaussian_camera": True,
        "angular_camera": True,
        "ray_align_corner": False,
        "camera_matrix": torch.eye(4)[None],
    }


def write_snapshot(
    path: Path,
    config: ThreeDVidGenConfig,
    generators: Mapping[str, Mapping[str, Tensor]],
    discriminators: Mapping[str, Tensor] | None,
    *,
    camera: Mapping[str, Any] | None = None,
    as_arguments: bool = False,
) -> Path:
    """Write a snapshot.

    Args:
        path: of the file.
        config: what the file's settings tell.
        generators: tensors by official names, of ``G`` and ``G_ema``.
        discriminators: tensors of ``D``; None for a stripped file.
        camera: changes of the camera's attributes.
        as_arguments: tell the settings by constructor arguments only, as files re-saved by other tools do.
    """
    told = camera_attributes(config) | dict(camera or {})
    renderer = {"n_ray_samples": config.ray_samples, "n_bg_samples": config.background_samples}
    synthesis: dict[str, Any] = {"n_reg_samples": config.regularised_pixels}
    if as_arguments:
        synthesis["_init_kwargs"] = {"camera_kwargs": told, "renderer_kwargs": renderer}
    else:
        shared = pickles.Persistent("CameraRay", **told)
        synthesis |= {"C": shared, "V": pickles.Persistent("VolumeRenderer", C=shared, **renderer)}
    networks = {
        name: pickles.module("Generator", tensors, {"synthesis": synthesis}) for name, tensors in generators.items()
    }
    if discriminators is not None:
        networks["D"] = pickles.module("OurDiscriminator", discriminators, {})
    return pickles.write(path, networks)
