"""Official PV3D checkpoints: their tensor names as tables, their sizes read off the shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.conversion import BINOMIAL_FILTERS, Conversion, Drop, Rename, convert_tensors
from portraitzoo.methods.pv3d.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.pv3d.network import Generator, PV3DConfig

NETWORKS = {
    "generator_ema": "generator",
    "generator": "generator",
    "img_discriminator": "image_discriminator",
    "vid_discriminator": "video_discriminator",
}
"""Official name of each network and ours; the averaged generator is the one that samples."""

MODEL_NETWORK = "generator_ema"

GENERATOR_TABLE = (
    Rename("backbone.mapping.fc{layer}.{rest}", "mapping.layers.{layer}.{rest}"),
    Rename("backbone.mapping.{rest}", "mapping.{rest}"),
    Rename("backbone.synthesis.{block}.motion_time_fuser.affine.{rest}", "backbone.fusers.{block}.affine.{rest}"),
    Rename(
        "backbone.synthesis.{block}.motion_time_fuser.motion_mlp.{layer}.{rest}",
        "backbone.fusers.{block}.mlp.{layer}.{rest}",
    ),
    Rename("backbone.synthesis.{block}.motion_time_fuser.conv.{rest}", "backbone.fusers.{block}.conv.{rest}"),
    Rename("backbone.synthesis.{block}.{rest}", "backbone.blocks.{block}.{rest}"),
    Rename("decoder.net.0.{rest}", "decoder.hidden.{rest}"),
    Rename("decoder.net.2.{rest}", "decoder.output.{rest}"),
    Rename("to_img_raw.{rest}", "to_raw.{rest}"),
    Rename("superresolution.block{block}.{rest}", "super_resolution.blocks.{block}.{rest}"),
)

DISCRIMINATOR_TABLE = (
    Rename("mapping.fc{layer}.{rest}", "mapping.layers.{layer}.{rest}"),
    Rename("mapping.{rest}", "mapping.{rest}"),
    Rename("b4.{rest}", "epilogue.{rest}"),
    Rename("{block}.{rest}", "blocks.{block}.{rest}"),
)


DROPS = (
    BINOMIAL_FILTERS,
    Drop(r"pl_mean", "running mean of the path length, whose penalty PV3D does not use; always 0"),
    Drop(r".*deform_field.*", "a deformation field of earlier experiments, ignored by PV3D's own loader"),
    Drop(r"superresolution\..+\.noise_(const|strength)", "the super-resolution adds no noise (noise mode none, EG3D)"),
)


def convert(checkpoint: Mapping[str, object]) -> Conversion:
    """Convert an official checkpoint.

    Args:
        checkpoint: what the file holds: a dict with the state dict under ``model``, or the state dict itself. Names may
            carry the prefix ``module.`` of distributed training.

    Returns:
        The configuration (fields of :class:`PV3DConfig`); file ``model``: the averaged generator; file ``training``:
        the raw generator and both discriminators, unless the checkpoint has been stripped to the averaged generator.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected or of another shape.
    """
    state = _state_dict(checkpoint)
    if not any(name.startswith(f"{MODEL_NETWORK}.") for name in state):
        raise CheckpointError(f"the checkpoint has no tensors named {MODEL_NETWORK}.*: not a PV3D checkpoint")
    networks, dropped = _split(state)
    stripped = set(networks) == {MODEL_NETWORK}
    for name in () if stripped else NETWORKS:
        if name not in networks:
            raise CheckpointError(f"the checkpoint lacks the tensors {name}.*")
    config = infer_config(networks[MODEL_NETWORK], networks.get("img_discriminator"))
    converted: dict[str, dict[str, Tensor]] = {}
    for name, tensors in networks.items():
        table = GENERATOR_TABLE if name.startswith("generator") else DISCRIMINATOR_TABLE
        expected = {key: value.shape for key, value in _empty(name, config).state_dict().items()}
        converted[name], left_out = convert_tensors(tensors, table, DROPS, expected, prefix=f"{name}.")
        dropped |= left_out
    files = {"model": _prefixed(converted[MODEL_NETWORK], NETWORKS[MODEL_NETWORK])}
    if not stripped:
        files["training"] = {}
        for name in NETWORKS:
            if name != MODEL_NETWORK:
                files["training"] |= _prefixed(converted[name], NETWORKS[name])
    return Conversion(asdict(config), files, dropped)


def infer_config(generator: Mapping[str, Tensor], discriminator: Mapping[str, Tensor] | None = None) -> PV3DConfig:
    """Sizes of a generator, read off the shapes of its official tensors.

    What shapes cannot tell (depth samples, ray range, box, render resolution) is the same in all releases and left at
    its default.

    Args:
        generator: tensors by official names, without the network's prefix.
        discriminator: tensors of the image discriminator, which tell ``channel_base`` where the generator has
            ``channel_max`` channels throughout.

    Raises:
        CheckpointError: if a tensor that tells a size is missing.
    """

    def shape(name: str) -> torch.Size:
        if name not in generator:
            raise CheckpointError(f"the checkpoint lacks the tensor {MODEL_NETWORK}.{name}")
        return generator[name].shape

    def numbers(pattern: str, names: Mapping[str, Tensor]) -> list[int]:
        return sorted({int(match[1]) for name in names if (match := re.fullmatch(pattern, name))})

    synthesis = "backbone.synthesis"
    planes = numbers(rf"{re.escape(synthesis)}\.b(\d+)\.torgb\.weight", generator)
    motion = numbers(rf"{re.escape(synthesis)}\.b(\d+)\.motion_time_fuser\.affine\.weight", generator)
    enlarging = numbers(r"superresolution\.block(\d+)\.conv1\.weight", generator)
    if not planes or not motion or not enlarging:
        raise CheckpointError("the checkpoint lacks the tri-plane backbone, its motion fusers or the super-resolution")
    channels = {r: shape(f"{synthesis}.b{r}.torgb.weight")[1] for r in planes}
    if discriminator is not None:
        finest = numbers(r"b(\d+)\.fromrgb\.weight", discriminator)
        channels |= {r: discriminator[f"b{r}.fromrgb.weight"].shape[0] for r in finest}
    w_dim, _ = shape("backbone.mapping.embed.weight")
    motion_dim, z_dim = shape(f"{synthesis}.b{motion[0]}.motion_time_fuser.affine.weight")
    widths = [shape(f"superresolution.block{i}.conv1.weight")[0] for i in enlarging]
    image_resolution = shape(f"superresolution.block{enlarging[-1]}.conv1.noise_const")[-1]
    decoder_width, plane_channels = shape("decoder.net.0.weight")
    return PV3DConfig(
        z_dim=z_dim,
        w_dim=w_dim,
        motion_dim=motion_dim,
        image_resolution=image_resolution,
        plane_resolution=planes[-1],
        plane_channels=plane_channels,
        channel_base=max(resolution * count for resolution, count in channels.items()),
        channel_max=max(channels.values()),
        mapping_layers=len(numbers(r"backbone\.mapping\.fc(\d+)\.weight", generator)),
        motion_resolutions=tuple(motion),
        decoder_width=decoder_width,
        super_resolution_input=image_resolution >> len(enlarging),
        super_resolution_channels=tuple(widths),
    )


def _state_dict(checkpoint: Mapping[str, object]) -> dict[str, Tensor]:
    state = checkpoint.get("model", checkpoint)
    if not isinstance(state, Mapping):
        raise CheckpointError("the entry 'model' of the checkpoint is not a state dict")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"the checkpoint's entry {name} is not a tensor: not a PV3D state dict")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _split(state: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, str]]:
    """Tensors of each network, and what was dropped of the rest."""
    networks: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in state.items():
        network, _, inner = name.partition(".")
        if network in NETWORKS:
            networks.setdefault(network, {})[inner] = tensor
        else:
            rest[name] = tensor
    _, dropped = convert_tensors(rest, (), DROPS, expected={})
    return networks, dropped


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _empty(network: str, config: PV3DConfig) -> nn.Module:
    """A network without memory, for its names and shapes."""
    with torch.device("meta"):
        if network.startswith("generator"):
            return Generator(config)
        sizes = DiscriminatorConfig.beside(config)
        return ImageDiscriminator(sizes) if network == "img_discriminator" else VideoDiscriminator(sizes)
