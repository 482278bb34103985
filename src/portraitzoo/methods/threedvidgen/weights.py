"""Official checkpoints: tensor names as tables, sizes read off the shapes, settings off the objects in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from portraitzoo.errors import CheckpointError
from portraitzoo.hub.conversion import BINOMIAL_FILTERS, Conversion, Drop, Rename, convert_tensors, our_name
from portraitzoo.hub.modules import resolve_config, tensors_of_module
from portraitzoo.hub.records import Record, shown
from portraitzoo.methods.threedvidgen.discriminator import DiscriminatorConfig, ImageDiscriminator, VideoDiscriminator
from portraitzoo.methods.threedvidgen.field import POSITION_BANDS
from portraitzoo.methods.threedvidgen.network import Generator, ThreeDVidGenConfig

MODEL_NETWORK = "G_ema"
TRAINING_NETWORKS = ("G", "D")
JUDGES = {"imageD": "image_discriminator", "videoD": "video_discriminator"}

GENERATOR_TABLE = (
    Rename("synthesis.alpha", "alpha"),
    Rename("synthesis.fg_nerf.motion_generator.affine.{rest}", "field.motion.affine.{rest}"),
    Rename("synthesis.fg_nerf.motion_generator.motion_mlp.{layer}.{rest}", "field.motion.mlp.{layer}.{rest}"),
    Rename("synthesis.fg_nerf.{rest}", "field.{rest}"),
    Rename("synthesis.bg_nerf.{rest}", "background.{rest}"),
    Rename("synthesis.{block}.torgb.{rest}", "upsampler.{block}.torgb.{rest}"),
    Rename("synthesis.{block}.{layer}.adapter.{rest}", "upsampler.{block}.{layer}.adapter.{rest}"),
    Rename("synthesis.{block}.{layer}.w_avg", "upsampler.{block}.{layer}.magnitude"),
    Rename("synthesis.{block}.{layer}.{rest}", "upsampler.{block}.{layer}.mix.{rest}"),
    Rename("mapping.fc{layer}.{rest}", "mapping.layers.{layer}.{rest}"),
    Rename("mapping.{rest}", "mapping.{rest}"),
)

DISCRIMINATOR_TABLE = (
    Rename("b4.{rest}", "epilogue.{rest}"),
    Rename("{block}.{rest}", "blocks.{block}.{rest}"),
)

GENERATOR_DROPS = (BINOMIAL_FILTERS,)
DISCRIMINATOR_DROPS = (
    BINOMIAL_FILTERS,
    Drop("alpha", "the share of a progressively growing resolution, of which these networks make no use"),
)

CAMERA = {
    "range_u": ("yaw_range", (0.0, 0.0)),
    "range_v": ("polar_range", (0.25, 0.25)),
    "range_radius": ("radius_range", (2.732, 2.732)),
    "fov": ("fov", 49.13),
    "bg_start": ("background_start", 1.0),
}
"""Setting of the camera object: ours, and what holds where the file does not tell."""

RENDERER = {"n_ray_samples": ("ray_samples", 14), "n_bg_samples": ("background_samples", 4)}
"""The same of the renderer object."""

SUPPORTED: dict[str, dict[str, tuple[object, ...]]] = {
    "C": {
        "angular_camera": (True,),
        "gaussian_camera": (True,),
        "ray_align_corner": (False,),
        "dists_normalized": (False,),
        "depth_transform": (None, "None"),
    },
    "V": {"hierarchical": (True,), "no_background": (False,)},
}
"""Settings of which the released configurations, and this package, know one value only."""


def convert(checkpoint: Mapping[str, Any]) -> Conversion:
    """Convert an official checkpoint.

    Args:
        checkpoint: what the file holds: a dict with the network ``G_ema`` and, unless it has been stripped, ``G`` and
            ``D``, as read by :func:`~portraitzoo.hub.checkpoints.read_checkpoint`.

    Returns:
        The configuration (fields of :class:`ThreeDVidGenConfig`); file ``model``: the averaged generator; file
        ``training``: the raw generator and both discriminators, where the checkpoint has them.

    Raises:
        CheckpointError: naming a tensor that is missing, unexpected or of another shape, or a setting that no released
            network has.
    """
    record = checkpoint.get(MODEL_NETWORK)
    if not isinstance(record, Record):
        raise CheckpointError(f"the checkpoint has no network {MODEL_NETWORK}: not one of 3D-Aware Video Generation")
    official = tensors_of_module(record)
    config = infer_config(official, settings_of(record))
    tensors, dropped = generator_tensors(official, config, f"{MODEL_NETWORK}.")
    files = {"model": _prefixed(tensors, "generator")}
    found = [name for name in TRAINING_NETWORKS if checkpoint.get(name) is not None]
    if found:
        if len(found) < len(TRAINING_NETWORKS):
            raise CheckpointError(f"the checkpoint has the network {found[0]}, but not both of G and D")
        raw, left_out = generator_tensors(tensors_of_module(checkpoint["G"]), config, "G.")
        files["training"] = _prefixed(raw, "generator")
        judges, more = discriminator_tensors(tensors_of_module(checkpoint["D"]), "D.")
        files["training"] |= judges
        dropped |= left_out | more
    if checkpoint.get("D_ema") is not None:
        average = tensors_of_module(checkpoint["D_ema"])
        dropped |= {f"D_ema.{name}": "an average of the discriminators, which nothing uses" for name in average}
    return Conversion(asdict(config), files, dropped)


def generator_tensors(
    official: Mapping[str, Tensor], config: ThreeDVidGenConfig, prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a generator by our names, and the reason for each that was left out.

    Args:
        official: by official names. Kernels of 1 x 1 become matrices.
        config: sizes.
        prefix: put before official names in messages.

    Raises:
        CheckpointError: if a tensor is missing, unexpected or of another shape.
    """
    matrices = {
        name: tensor.flatten(1) if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor
        for name, tensor in official.items()
    }
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in Generator(config).state_dict().items()}
    return convert_tensors(matrices, GENERATOR_TABLE, GENERATOR_DROPS, expected, prefix)


def discriminator_tensors(official: Mapping[str, Tensor], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of both discriminators by our names (``image_discriminator.*``, ``video_discriminator.*``), and the
    reason for each that was left out.

    Args:
        official: by official names.
        prefix: put before official names in messages.

    Raises:
        CheckpointError: as :func:`generator_tensors`.
    """
    ours: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in JUDGES}
    for name, tensor in official.items():
        judge, _, inner = name.partition(".")
        if judge not in parts:
            raise CheckpointError(f"the checkpoint has an unexpected tensor, {prefix}{name}")
        parts[judge][inner] = tensor
    for judge, tensors in parts.items():
        config = DiscriminatorConfig.of({our_name(name, DISCRIMINATOR_TABLE) or name: t for name, t in tensors.items()})
        kind: type[nn.Module] = ImageDiscriminator if judge == "imageD" else VideoDiscriminator
        with torch.device("meta"):
            expected = {name: tensor.shape for name, tensor in kind(config).state_dict().items()}
        converted, left_out = convert_tensors(
            tensors, DISCRIMINATOR_TABLE, DISCRIMINATOR_DROPS, expected, f"{prefix}{judge}."
        )
        ours |= _prefixed(converted, JUDGES[judge])
        dropped |= left_out
    return ours, dropped


def settings_of(network: Record) -> dict[str, object]:
    """What a generator's tensors do not tell: cameras, samples, regularisation; fields of the configuration.

    Args:
        network: record of a generator.

    Raises:
        CheckpointError: if the record lacks the synthesis network, or has a setting that no released network has.
    """
    modules = network.attributes.get("_modules")
    synthesis = modules.get("synthesis") if isinstance(modules, Mapping) else None
    if not isinstance(synthesis, Record):
        raise CheckpointError("the generator in the checkpoint has no synthesis network")
    arguments = resolve_config(synthesis.attributes.get("_init_kwargs") or {})
    camera = _attributes(synthesis, "C", arguments.get("camera_kwargs"))
    renderer = _attributes(synthesis, "V", arguments.get("renderer_kwargs"))
    for owner, found in (("C", camera), ("V", renderer)):
        for name, values in SUPPORTED[owner].items():
            if name in found and found[name] not in values:
                raise CheckpointError(
                    f"the checkpoint sets {name} to {shown(found[name])}, which no released network does"
                )
    settings: dict[str, object] = {}
    for table, found in ((CAMERA, camera), (RENDERER, renderer)):
        for name, (ours, default) in table.items():
            settings[ours] = _number(name, found.get(name, default))
    settings["depth_near"], settings["depth_far"] = _number("depth_range", camera.get("depth_range", (0.5, 6.0)))
    pixels = synthesis.attributes.get("n_reg_samples")
    if isinstance(pixels, int) and pixels > 0:
        settings["regularised_pixels"] = pixels
    return settings


def infer_config(official: Mapping[str, Tensor], settings: Mapping[str, Any]) -> ThreeDVidGenConfig:
    """Configuration of a generator: sizes off the shapes of its official tensors, the rest as given.

    Args:
        official: by official names.
        settings: from :func:`settings_of`.

    Raises:
        CheckpointError: if a tensor that tells a size is missing, or the sizes do not fit together.
    """

    def shape(name: str) -> torch.Size:
        if name not in official:
            raise CheckpointError(f"the checkpoint lacks the tensor {MODEL_NETWORK}.{name}")
        return official[name].shape

    def numbers(pattern: str) -> list[int]:
        return sorted({int(match[1]) for name in official if (match := re.fullmatch(pattern, name))})

    resolutions = numbers(r"synthesis\.b(\d+)\..+")
    if not resolutions:
        raise CheckpointError("the checkpoint lacks the upsampler (synthesis.b*.conv0)")
    channels = {resolution: shape(f"synthesis.b{resolution}.conv0.weight")[0] for resolution in resolutions}
    w_dim, z_dim = shape("mapping.fc0.weight")
    motion_width, motion_dim = shape("synthesis.fg_nerf.motion_generator.affine.weight")
    background_width, background_input = shape("synthesis.bg_nerf.fc_in.weight")
    first = resolutions[0]
    seen = shape(f"synthesis.b{first}.conv0.adapter.0.weight")[1]
    try:
        return ThreeDVidGenConfig(
            z_dim=z_dim,
            w_dim=w_dim,
            motion_dim=motion_dim,
            background_dim=background_input - 8 * POSITION_BANDS,
            mapping_layers=len(numbers(r"mapping\.fc(\d+)\..+")),
            image_resolution=resolutions[-1],
            render_resolution=first // 2,
            feature_channels=shape("synthesis.fg_nerf.feat_out.weight")[0],
            channel_base=max(resolution * count for resolution, count in channels.items()),
            channel_max=max(channels.values()),
            enlargement="neighbours" if seen == 2 * channels[first] else "pixelshuffle",
            field_width=shape("synthesis.fg_nerf.fc_in.weight")[0],
            field_layers=len(numbers(r"synthesis\.fg_nerf\.blocks\.(\d+)\..+")) + 1,
            view_dependent="synthesis.fg_nerf.from_ray.weight" in official,
            motion_width=motion_width,
            background_width=background_width,
            background_layers=len(numbers(r"synthesis\.bg_nerf\.blocks\.(\d+)\..+")) + 1,
            **settings,
        )
    except ValueError as error:
        raise CheckpointError(f"the checkpoint's sizes do not fit together: {error}") from error


def _attributes(synthesis: Record, name: str, arguments: object) -> dict[str, Any]:
    """Settings of one of the synthesis network's plain objects; its constructor's arguments if it is not there."""
    owner = synthesis.attributes.get(name)
    if isinstance(owner, Record):
        return {key: resolve_config(value) for key, value in owner.attributes.items()}
    return dict(arguments) if isinstance(arguments, Mapping) else {}


def _number(name: str, value: object) -> Any:
    """A number, or a pair of them as a tuple."""
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, int | float) for part in value):
        return tuple(float(part) for part in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise CheckpointError(f"the checkpoint sets {name} to {shown(value)}, which is no number or pair of numbers")


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
