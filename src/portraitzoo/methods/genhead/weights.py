"""Official GenHead checkpoints: their tensor names as tables, their sizes read off the shapes.

The released pickle holds FLAME in buffers of the generator, so that a converted model is self-contained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from portraitzoo.errors import CheckpointError
from portraitzoo.faces.flame_head import HeadSizes
from portraitzoo.hub.conversion import Conversion, Rename, convert_tensors
from portraitzoo.hub.eg3d_tensors import (
    ALWAYS_DROPPED,
    DISCRIMINATOR_TABLE,
    DROPS,
    RENDERER_TABLE,
    joined_decoder,
    networks_of,
)
from portraitzoo.hub.flame_tensors import head_tensors
from portraitzoo.hub.records import Record, shown
from portraitzoo.methods.genhead.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.genhead.network import Generator, GenHeadConfig

MODEL_NETWORK = "G_ema"
NETWORKS = {"G_ema": "generator", "G": "generator", "D": "discriminator"}
"""Official name of each network and ours; the averaged generator is the one that samples."""

HEAD = "deformer.flame_deform."

GENERATOR_TABLE = (
    *RENDERER_TABLE,
    Rename("{network}.mapping.fc{layer}.{rest}", "{network}.mapping.layers.{layer}.{rest}"),
    Rename("{network}.mapping.{rest}", "{network}.mapping.{rest}"),
    Rename("{network}.synthesis.{block}.{rest}", "{network}.synthesis.blocks.{block}.{rest}"),
)

SUPPORTED: dict[str, tuple[object, ...]] = {
    "ray_start": ("auto-plane",),
    "ray_end": ("auto-plane",),
    "clamp_mode": ("softplus",),
    "disparity_space_sampling": (False,),
    "superresolution_noise_mode": ("none", "const", "random"),
}
"""Settings of the renderer, and the values of which this package knows what they mean."""


def convert(checkpoint: Mapping[str, Any]) -> Conversion:
    """Convert an official checkpoint.

    Args:
        checkpoint: what the pickle holds: a dict of the modules ``G_ema``, ``G`` and ``D``; or their state dicts; or
            the tensors of ``G_ema`` alone.

    Returns:
        The configuration (fields of :class:`GenHeadConfig`); file ``model``: the averaged generator; file ``training``:
        the raw generator and the discriminator, where the checkpoint has them.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected or of another shape, or a setting that the released
            network does not have.
    """
    networks = networks_of(checkpoint, list(NETWORKS))
    tensors, attributes = networks[MODEL_NETWORK]
    ours, dropped, config = _generator(tensors, MODEL_NETWORK, attributes)
    files = {"model": ours}
    if len(networks) > 1:
        for name in NETWORKS:
            if name not in networks:
                raise CheckpointError(f"the checkpoint lacks the network {name}")
        tensors, attributes = networks["G"]
        raw, left_out, _ = _generator(tensors, "G", attributes)
        judge, more = discriminator_tensors(networks["D"][0], "D.")
        files["training"] = raw | _prefixed(judge, NETWORKS["D"])
        dropped |= left_out | more
    return Conversion(asdict(config), files, dropped)


def generator_tensors(
    official: Mapping[str, Tensor], settings: Mapping[str, Any], prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, str], GenHeadConfig]:
    """Tensors of a generator by our names, the reason for each that was left out, and its configuration.

    Args:
        official: by official names, FLAME's buffers included.
        settings: fields of the configuration that shapes do not tell.
        prefix: put before official names in messages.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected or of another shape.
    """
    of_head = {name.removeprefix(HEAD): tensor for name, tensor in official.items() if name.startswith(HEAD)}
    others = {name: tensor for name, tensor in official.items() if not name.startswith(HEAD)}
    others = joined_decoder(others, prefix)
    head, dropped = head_tensors(of_head, prefix + HEAD)
    config = infer_config(others, HeadSizes.of_tensors(head), settings)
    with torch.device("meta"):
        empty = Generator(config)
    expected = {name: tensor.shape for name, tensor in empty.state_dict().items() if not name.startswith("head.")}
    drops = DROPS if config.super_resolution_noise == "none" else ALWAYS_DROPPED
    ours, left_out = convert_tensors(others, GENERATOR_TABLE, drops, expected, prefix)
    return ours | _prefixed(head, "head"), dropped | left_out, config


def discriminator_tensors(official: Mapping[str, Tensor], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of the discriminator by our names, and the reason for each that was left out.

    Args:
        official: by official names.
        prefix: put before official names in messages.

    Raises:
        CheckpointError: as :func:`generator_tensors`.
    """
    with torch.device("meta"):
        empty = Discriminator(DiscriminatorConfig.of(official))
    expected = {name: tensor.shape for name, tensor in empty.state_dict().items()}
    return convert_tensors(official, DISCRIMINATOR_TABLE, DROPS, expected, prefix)


def infer_config(official: Mapping[str, Tensor], head: HeadSizes, settings: Mapping[str, Any]) -> GenHeadConfig:
    """Sizes of a generator, read off the shapes of its official tensors.

    Args:
        official: tensors by official names, without the network's prefix.
        head: sizes of the parametric head.
        settings: fields of the configuration that shapes do not tell.

    Raises:
        CheckpointError: if a tensor that tells a size is missing, or the sizes do not fit together.
    """

    def shape(name: str) -> torch.Size:
        if name not in official:
            raise CheckpointError(f"the checkpoint lacks the tensor {MODEL_NETWORK}.{name}")
        return official[name].shape

    def numbers(pattern: str) -> list[int]:
        return sorted({int(match[1]) for name in official if (match := re.fullmatch(pattern, name))})

    def sizes(network: str) -> tuple[int, int, int, int]:
        """Resolution, channel base, most channels and mapping layers."""
        resolutions = numbers(rf"{network}\.synthesis\.b(\d+)\.torgb\.weight")
        if not resolutions:
            raise CheckpointError(f"the checkpoint lacks the network {network}.synthesis")
        channels = {size: shape(f"{network}.synthesis.b{size}.torgb.weight")[1] for size in resolutions}
        base = max(size * count for size, count in channels.items())
        layers = len(numbers(rf"{network}\.mapping\.fc(\d+)\.weight"))
        return resolutions[-1], base, max(channels.values()), layers

    plane_resolution, channel_base, channel_max, mapping_layers = sizes("backbone")
    background_resolution, background_base, background_max, background_layers = sizes("background")
    enlarging = numbers(r"superresolution\.block(\d+)\.conv1\.weight")
    if not enlarging:
        raise CheckpointError("the checkpoint lacks the super-resolution")
    image_resolution = shape(f"superresolution.block{enlarging[-1]}.conv1.noise_const")[-1]
    decoder_width, plane_channels = shape("decoder.net.0.weight")
    w_dim = shape("backbone.mapping.embed.weight")[0]
    try:
        return GenHeadConfig(
            z_dim=shape("backbone.mapping.fc0.weight")[1] - w_dim,
            w_dim=w_dim,
            image_resolution=image_resolution,
            plane_resolution=plane_resolution,
            plane_channels=plane_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            mapping_layers=mapping_layers,
            background_resolution=background_resolution,
            background_channel_base=background_base,
            background_channel_max=background_max,
            background_mapping_layers=background_layers,
            decoder_width=decoder_width,
            super_resolution_input=image_resolution >> len(enlarging),
            super_resolution_channels=tuple(
                shape(f"superresolution.block{block}.conv1.weight")[0] for block in enlarging
            ),
            head=head,
            **settings,
        )
    except ValueError as error:
        raise CheckpointError(f"the checkpoint's sizes do not fit together: {error}") from error


def settings_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the configuration that a generator's tensors do not tell: samples, box and size of the rendering.

    Args:
        attributes: of the generator's record in the file; what they do not hold is as published.

    Raises:
        CheckpointError: for a setting that the released network does not have.
    """
    told = attributes.get("rendering_kwargs")
    rendering = told.items if isinstance(told, Record) else told if isinstance(told, Mapping) else {}
    for name, values in SUPPORTED.items():
        if name in rendering and rendering[name] not in values:
            raise CheckpointError(f"the checkpoint sets {name} to {shown(rendering[name])}, which is not supported")
    found = {
        "samples": rendering.get("depth_resolution"),
        "box_warp": rendering.get("box_warp"),
        "render_resolution": attributes.get("neural_rendering_resolution"),
    }
    settings: dict[str, Any] = {name: value for name, value in found.items() if value is not None}
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e4:
            raise CheckpointError(f"the checkpoint sets {name} to {shown(value)}")
    if rendering.get("depth_resolution_importance", settings.get("samples")) != settings.get("samples"):
        raise CheckpointError(
            "the checkpoint has other numbers of coarse and importance samples, which no release does"
        )
    return settings | {"super_resolution_noise": rendering.get("superresolution_noise_mode", "none")}


def _generator(
    official: Mapping[str, Tensor], name: str, attributes: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, str], GenHeadConfig]:
    tensors, dropped, config = generator_tensors(official, settings_of(attributes), f"{name}.")
    return _prefixed(tensors, NETWORKS[name]), dropped, config


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
