"""The stages of GenHead that ``zoo bench`` times, and how fast the original implementation was."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from portraitzoo.faces.flame_head import HeadSizes
from portraitzoo.faces.flame_parameters import FlameParameters
from portraitzoo.faces.free_head import load_free_head
from portraitzoo.faces.head_maps import correspondence_map
from portraitzoo.methods import original_speed
from portraitzoo.methods.genhead.cameras import frontal
from portraitzoo.methods.genhead.masks import part_masks
from portraitzoo.methods.genhead.model import GenHead
from portraitzoo.methods.genhead.motions import identity_shape, latent_code, motion_rows, with_motion
from portraitzoo.methods.genhead.network import GenHeadConfig, GenHeadOutput
from portraitzoo.rendering.cameras import Camera


def official() -> GenHead:
    """GenHead at its published size around the free head (of about FLAME's size), with fixed random weights.

    Raises:
        ZooError: if ``anny``, which the free head is fitted to, is not installed.
    """
    head = load_free_head().head
    sizes = HeadSizes.of_tensors(head.state_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GenHead(GenHeadConfig(head=sizes)).eval().requires_grad_(False)
    model.generator.head.load_state_dict(head.state_dict())
    return model


def stages(
    model: GenHead, *, frames: int, render_resolution: int | None, batch: int, compiled: bool
) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Name, work and number of frames of each stage, in the order in which a clip passes through them.

    Args:
        model: on any device.
        frames: poses of one identity in the whole clip, which is the last stage.
        render_resolution: side of the volume-rendered image; None takes the configuration's.
        batch: frames that the stages before ``clip`` work on at once.
        compiled: compile the syntheses and the super-resolution.
    """
    generator, config, device = model.generator, model.config, model.device
    resolution = render_resolution or config.render_resolution
    camera = frontal().expand(batch).to(device)
    z = latent_code(0, config.z_dim).to(device)
    heads = _heads(batch, device)
    parts = [generator.backbone.synthesis, generator.background.synthesis, generator.super_resolution]
    for part in parts if compiled else []:
        part.compile()
    try:
        with torch.inference_mode():
            someone = model.identity(0)
            planes = (someone.planes[0].expand(batch, *[-1] * 4), someone.planes[1].expand(batch, *[-1] * 4))
            backdrop = someone.backdrop.expand(batch, -1, -1, -1)
            posed = generator.pose(heads)
            vertices = torch.stack([head.vertices for head in posed])

        def pose() -> GenHeadOutput:
            return generator.render(planes, backdrop, generator.pose(heads), camera, render_resolution=resolution)

        def masks() -> object:
            side = config.image_resolution
            return part_masks(generator.head, vertices, camera, image_resolution=side, resolution=resolution)

        yield "identity", lambda: model.identity(0), frames
        yield "deformation", lambda: generator.pose(heads), batch
        yield "masks", masks, batch
        yield "pose", pose, batch
        yield "frame", lambda: _frame(model, z, heads, camera, resolution), batch
        with tempfile.TemporaryDirectory() as folder:
            clip = model.sample(someone, frames, motion="random", render_resolution=resolution)
            yield "encode", lambda: clip.save(Path(folder) / "clip.mp4"), frames
        yield "clip", lambda: model.sample(0, frames, motion="random", render_resolution=resolution), frames
    finally:
        for part in parts if compiled else []:
            part._compiled_call_impl = None


def frame(model: GenHead, render_resolution: int | None) -> Float[Tensor, "1 3 height width"]:
    """One frame without any randomness, in a range of 2."""
    z = latent_code(0, model.config.z_dim).to(model.device)
    camera = frontal().expand(1).to(model.device)
    resolution = render_resolution or model.config.render_resolution
    return _frame(model, z, _heads(1, model.device), camera, resolution).image


def original(model: GenHead, what: str, frames: int, render_resolution: int | None) -> float | None:
    """Seconds over calibration seconds of the original implementation for a stage, where it was measured."""
    if replace(model.config, head=HeadSizes()) != GenHeadConfig():
        return None
    resolution = render_resolution or model.config.render_resolution
    # A clip is so many poses of one identity, for each of which the original computes nearly everything again.
    stage, times = ("pose", frames) if what == "clip" else (what, 1)
    ratio = original_speed.recorded_ratio(
        "portraitzoo.methods.genhead", what=stage, frames=frames // times, render_resolution=resolution
    )
    return None if ratio is None else times * ratio


def _frame(model: GenHead, z: Tensor, heads: FlameParameters, camera: Camera, resolution: int) -> GenHeadOutput:
    """Everything from the latent code, and the correspondence map, which the original draws for every image."""
    generator, count = model.generator, len(heads)
    codes = z.expand(count, -1)
    planes = generator.planes(generator.mapping(codes, camera, heads.shape))
    backdrop = generator.backdrop(codes)
    posed = generator.pose(heads)
    vertices = torch.stack([head.vertices for head in posed])
    correspondence_map(generator.head, vertices, camera, model.config.image_resolution)
    return generator.render(planes, backdrop, posed, camera, render_resolution=resolution)


def _heads(count: int, device: torch.device) -> FlameParameters:
    """Heads of one identity with turned necks, open jaws and expressions."""
    return with_motion(identity_shape(0), motion_rows("random", 0, count)).to(device)
