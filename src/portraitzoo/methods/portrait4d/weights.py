"""Official Portrait4D checkpoints: their tensor names as tables, their sizes read off the shapes."""

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
    DISCRIMINATOR_TABLE,
    DROPS,
    RENDERER_TABLE,
    joined_decoder,
    networks_of,
)
from portraitzoo.hub.flame_tensors import head_tensors
from portraitzoo.methods.portrait4d.config import Portrait4DConfig
from portraitzoo.methods.portrait4d.discriminator import Discriminator, DiscriminatorConfig
from portraitzoo.methods.portrait4d.network import Reconstructor

MODEL_NETWORK = "G_ema"
NETWORKS = {"G_ema": "generator", "G": "generator", "D": "discriminator"}
"""Official name of each network and ours; the averaged reconstructor is the one that animates."""

HEAD = "deformer.flame_deform."

_ATTENTION = {"q": "query", "kv": "key_value", "proj": "project"}
_MLP = {"mlp.fc1": "mlp.expand", "mlp.dwconv.dwconv": "mlp.depthwise", "mlp.fc2": "mlp.contract"}
_CROSS_BLOCK = {
    **{f"attn1.{theirs}": f"attention.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"attn2.{theirs}": f"cross_attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "norm1": "norm",
    "norm2": "cross_norm",
    "norm3": "mlp_norm",
    **_MLP,
}
_PLANE_BLOCK = {
    **{f"attn.{theirs}": f"attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "attn.sr": "attention.merge",
    "attn.norm": "attention.merge_norm",
    "norm1": "norm",
    "norm2": "mlp_norm",
    **_MLP,
}


def _rows(official: str, ours: str, names: Mapping[str, str]) -> tuple[Rename, ...]:
    return tuple(Rename(f"{official}{theirs}.{{rest}}", f"{ours}{name}.{{rest}}") for theirs, name in names.items())


RECONSTRUCTOR_TABLE = (
    *_rows("encoder_global.encoder.", "global_encoder.", {"conv1": "stem"}),
    Rename(
        "encoder_global.encoder.{stage}.{block}.downsample.0.{rest}",
        "global_encoder.stages.{stage}.{block}.shortcut.{rest}",
    ),
    Rename("encoder_global.encoder.{stage}.{block}.{rest}", "global_encoder.stages.{stage}.{block}.{rest}"),
    *_rows("encoder_global.decoder.0.", "global_encoder.pyramid.", {"convs.4.1": "pooled", "project.0": "mix"}),
    Rename("encoder_global.decoder.0.convs.{branch}.0.{rest}", "global_encoder.pyramid.branches.{branch}.{rest}"),
    Rename("encoder_global.decoder.1.{rest}", "global_encoder.output.{rest}"),
    *_rows("encoder_detail.encoder.", "detail_encoder.convs.", {str(2 * index): str(index) for index in range(5)}),
    *_rows(
        "encoder_canonical.",
        "transformer.",
        {
            "maps_neutral": "source_motion.map",
            "proj_y_neutral": "source_motion.project",
            "maps": "drive_motion.map",
            "proj_y": "drive_motion.project",
            "patch_embed.proj": "patches.conv",
            "patch_embed.norm": "patches.norm",
            "convs.1": "head.0",
            "convs.4": "head.1",
            "convs.6": "head.2",
        },
    ),
    *_rows("encoder_canonical.trans_blocks_neutral.{block}.", "transformer.neutral_blocks.{block}.", _CROSS_BLOCK),
    *_rows("encoder_canonical.trans_blocks_motion.{block}.", "transformer.motion_blocks.{block}.", _CROSS_BLOCK),
    *_rows("generator_triplane.trans_blocks.{block}.", "plane_generator.blocks.{block}.", _PLANE_BLOCK),
    *_rows(
        "generator_triplane.",
        "plane_generator.",
        {
            "convs1.0": "input",
            "convs1.2": "narrow",
            "patch_embed.proj": "patches.conv",
            "patch_embed.norm": "patches.norm",
            "convs2.0": "convs.0",
            "convs2.2": "convs.1",
            "convs2.4": "convs.2",
            "conv_last": "output",
        },
    ),
    *_rows(
        "background.",
        "background.",
        {
            "input_conv.0": "input",
            "down_conv_{level}.0": "down.{level}.conv",
            "down_conv_{level}.2.op": "down.{level}.halve",
            "middle.0": "middle",
            "up_conv_{level}.0": "up.{level}.conv",
            "up_conv_{level}.2.conv": "up.{level}.smooth",
            "out_conv": "output",
        },
    ),
    *RENDERER_TABLE,
    Rename("w_avg", "w_avg"),
)


def convert(checkpoint: Mapping[str, Any]) -> Conversion:
    """Convert an official checkpoint of any of the three releases.

    Args:
        checkpoint: what the pickle holds: a dict of the modules ``G``, ``D`` and ``G_ema``; or one state dict for each
            of them; or the tensors of ``G_ema`` alone.

    Returns:
        The configuration (fields of :class:`Portrait4DConfig`); file ``model``: the averaged reconstructor; file
        ``training``: the raw reconstructor and the discriminator, unless the file holds the averaged one alone.
        What the files do not tell is left out of the configuration: whether the network is the static one.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected or of another shape.
    """
    networks = networks_of(checkpoint, list(NETWORKS))
    tensors, attributes = networks.pop(MODEL_NETWORK)
    ours, dropped, config = _reconstructor(tensors, MODEL_NETWORK, attributes)
    files = {"model": ours}
    if networks:
        files["training"] = {}
        for name in NETWORKS:
            if name == MODEL_NETWORK:
                continue
            if name not in networks:
                raise CheckpointError(f"the checkpoint lacks the network {name}")
            tensors, attributes = networks[name]
            if name == "D":
                converted, left_out = convert_discriminator(tensors)
            else:
                converted, left_out, _ = _reconstructor(tensors, name, attributes)
            files["training"] |= converted
            dropped |= left_out
    values = asdict(config)
    del values["static"]
    return Conversion(values, files, dropped)


def convert_discriminator(official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a discriminator by our names (``discriminator.*``), and why others were left out.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected or of another shape.
    """
    with torch.device("meta"):
        empty = Discriminator(DiscriminatorConfig.of(official))
    expected = {name: value.shape for name, value in empty.state_dict().items()}
    ours, dropped = convert_tensors(official, DISCRIMINATOR_TABLE, DROPS, expected, prefix="D.")
    return _prefixed(ours, NETWORKS["D"]), dropped


def infer_config(official: Mapping[str, Tensor], head: HeadSizes, settings: Mapping[str, Any]) -> Portrait4DConfig:
    """Sizes of a reconstructor, read off the shapes of its official tensors.

    Heads of attention and dilations, which no shape tells, are the same in all releases and left at their defaults.

    Args:
        official: tensors by official names, without the network's prefix.
        head: sizes of the parametric head.
        settings: what the file says about rendering beside the tensors; may be empty.

    Raises:
        CheckpointError: if a tensor that tells a size is missing.
    """

    def shape(name: str) -> torch.Size:
        if f"{name}.weight" not in official:
            raise CheckpointError(f"the checkpoint lacks the tensor {MODEL_NETWORK}.{name}.weight")
        return official[f"{name}.weight"].shape

    def count(pattern: str) -> int:
        return len({match[1] for name in official if (match := re.match(pattern, name))})

    def widths(prefix: str, *layers: str) -> tuple[int, ...]:
        return tuple(shape(prefix + layer)[0] for layer in layers)

    canonical, planes = "encoder_canonical", "generator_triplane"
    width = shape(f"{canonical}.patch_embed.proj")[0]
    plane_width = shape(f"{planes}.patch_embed.proj")[0]
    enlarging = count(r"superresolution\.block(\d+)\.")
    last = f"superresolution.block{enlarging - 1}.conv1.noise_const"
    if last not in official:
        raise CheckpointError(f"the checkpoint lacks the tensor {MODEL_NETWORK}.{last}")
    image_resolution = official[last].shape[-1]
    stages = range(1, 5)
    depths = tuple(count(rf"encoder_global\.encoder\.layer{stage}\.(\d+)\.") for stage in stages)
    told = {
        ours: settings[theirs]
        for theirs, ours in {
            "depth_resolution": "depth_samples",
            "depth_resolution_importance": "importance_samples",
            "box_warp": "box_warp",
        }.items()
        if theirs in settings
    }
    return Portrait4DConfig(
        image_resolution=image_resolution,
        motion_dim=shape(f"{canonical}.maps.0")[1],
        motion_width=shape(f"{canonical}.maps.0")[0],
        motion_layers=count(rf"{canonical}\.maps\.(\d+)\."),
        motion_tokens=shape(f"{canonical}.proj_y")[0] // width,
        w_dim=shape("superresolution.block0.conv0.affine")[1],
        global_stem=shape("encoder_global.encoder.conv1")[0],
        global_widths=widths("encoder_global.encoder.layer", *(f"{stage}.0.conv1" for stage in stages)),
        global_depths=depths,
        global_channels=shape("encoder_global.decoder.1")[0],
        detail_channels=widths("encoder_detail.encoder.", "0", "2"),  # type: ignore[arg-type]
        canonical_width=width,
        canonical_mlp_ratio=shape(f"{canonical}.trans_blocks_motion.0.mlp.fc1")[0] // width,
        neutral_blocks=count(rf"{canonical}\.trans_blocks_neutral\.(\d+)\."),
        motion_blocks=count(rf"{canonical}\.trans_blocks_motion\.(\d+)\."),
        canonical_channels=widths(f"{canonical}.convs.", "1", "4", "6"),  # type: ignore[arg-type]
        plane_inputs=widths(f"{planes}.convs1.", "0", "2"),  # type: ignore[arg-type]
        plane_width=plane_width,
        plane_mlp_ratio=shape(f"{planes}.trans_blocks.0.mlp.fc1")[0] // plane_width,
        plane_reduction=shape(f"{planes}.trans_blocks.0.attn.sr")[-1],
        plane_blocks=count(rf"{planes}\.trans_blocks\.(\d+)\."),
        plane_outputs=widths(f"{planes}.convs2.", "0", "2", "4"),  # type: ignore[arg-type]
        plane_channels=shape(f"{planes}.conv_last")[0] // 3,
        background_widths=widths(
            "background.",
            "input_conv.0",
            *(f"down_conv_{n + 1}.2.op" for n in range(count(r"background\.down_conv_(\d+)\."))),
        ),
        decoder_width=shape("decoder.net.0")[0],
        super_resolution_input=image_resolution >> enlarging,
        super_resolution_channels=widths("superresolution.block", *(f"{n}.conv1" for n in range(enlarging))),
        head=head,
        **told,
    )


def _reconstructor(
    official: Mapping[str, Tensor], network: str, attributes: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, str], Portrait4DConfig]:
    of_head = {name.removeprefix(HEAD): value for name, value in official.items() if name.startswith(HEAD)}
    others = {name: value for name, value in official.items() if not name.startswith(HEAD)}
    others = joined_decoder(others, prefix=f"{network}.")
    settings = attributes.get("rendering_kwargs")
    head, dropped = head_tensors(of_head, prefix=f"{network}.{HEAD}")
    config = infer_config(others, HeadSizes.of_tensors(head), settings if isinstance(settings, Mapping) else {})
    with torch.device("meta"):
        empty = Reconstructor(config)
    expected = {name: value.shape for name, value in empty.state_dict().items() if not name.startswith("head.")}
    ours, left_out = convert_tensors(others, RECONSTRUCTOR_TABLE, DROPS, expected, prefix=f"{network}.")
    return _prefixed(ours | _prefixed(head, "head"), NETWORKS[network]), dropped | left_out, config


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
