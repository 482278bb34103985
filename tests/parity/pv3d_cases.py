"""A PV3D case of the reference folder as our networks."""

from functools import lru_cache

import reference
from torch import Tensor, nn

from portraitzoo.methods.pv3d.network import PV3DConfig
from portraitzoo.methods.pv3d.weights import convert


def config_of(case: reference.Case) -> PV3DConfig:
    """Sizes read off the tensors, and from the manifest what shapes cannot tell."""
    rendering = case.manifest["config"]["generator"]["rendering_kwargs"]
    return PV3DConfig(
        **converted(case).config
        | {
            "depth_samples": rendering["depth_resolution"],
            "importance_samples": rendering["depth_resolution_importance"],
            "ray_start": rendering["ray_start"],
            "ray_end": rendering["ray_end"],
            "box_warp": rendering["box_warp"],
        }
    )


@lru_cache(maxsize=1)
def converted(case: reference.Case):
    """The case's whole checkpoint through the conversion."""
    return convert({"model": case.state_dict()})


def load(network: nn.Module, tensors: dict[str, Tensor], prefix: str) -> nn.Module:
    """Load the tensors named ``prefix.*``, all of them and no others."""
    part = {name.removeprefix(prefix + "."): value for name, value in tensors.items() if name.startswith(prefix + ".")}
    network.load_state_dict(part)
    return network.eval()
