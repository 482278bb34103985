"""Portrait4D cases of the reference folder as our networks and their inputs."""

from dataclasses import fields, replace
from functools import lru_cache

import reference
import torch
from portrait4d_functions import waves
from torch import Tensor, nn

from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.methods.portrait4d.cameras import camera_of_label
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.network import Reconstructor
from portraitzoo.methods.portrait4d.weights import convert
from portraitzoo.rendering.cameras import Camera
from portraitzoo.rendering.volume import RaySampling

UNTOLD = {
    "canonical_heads": "canonical_heads",
    "atrous_rates": "atrous_rates",
    "decoder_heads": "plane_heads",
    "neural_rendering_resolution": "render_resolution",
    "depth_resolution": "depth_samples",
    "depth_resolution_importance": "importance_samples",
    "box_warp": "box_warp",
}
"""What the manifest calls the settings that shapes do not tell, and what we do."""


@lru_cache(maxsize=1)
def reconstructor_of(case: reference.Case) -> Reconstructor:
    """The case's network through the conversion."""
    converted = convert(case.state_dict())
    told = case.manifest["config"] | case.manifest["config"].get("rendering_kwargs", {})
    config = Portrait4DConfig(**converted.config)
    config = replace(config, **{ours: told[theirs] for theirs, ours in UNTOLD.items() if theirs in told})
    return load(Reconstructor(config), converted.tensors["model"], "generator")


def load(network: nn.Module, tensors: dict[str, Tensor], prefix: str) -> nn.Module:
    """Load the tensors named ``prefix.*``, all of them and no others."""
    part = {name.removeprefix(prefix + "."): value for name, value in tensors.items() if name.startswith(prefix + ".")}
    network.load_state_dict(part)
    return network.eval()


def source_image(arrays: reference.Arrays, size: int) -> Tensor:
    """The photo of a case, whole, checked against what is stored of it."""
    image = waves(arrays, "in.image_waves", size)
    for name in ("in.image", "in.image_strided"):
        if name in arrays:
            arrays.check(name, image, 1e-5)
    return image


def camera_of(arrays: reference.Arrays) -> Camera:
    """The cameras of a case."""
    return camera_of_label(arrays["in.camera"])


def parameters_of(arrays: reference.Arrays) -> FlameParameters:
    """The heads of a case."""
    return FlameParameters(*(arrays[f"in.{item.name}"] for item in fields(FlameParameters)))


def shared_jitter(network: Reconstructor, batch: int, resolution: int) -> RaySampling:
    """Half an interval for all samples, as the reference was made."""
    return RaySampling(torch.full((1, 1, 1), 0.5).expand(batch, resolution**2, network.config.depth_samples))
